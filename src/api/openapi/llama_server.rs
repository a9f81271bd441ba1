//! The operations of llama-server.

use super::operations::{
    Field,
    Kind::{Any, Flag, List, Object, Text, Whole},
    MODEL, Operation, SAMPLING, field, get, needed,
};
use crate::http::Method;

/// What llama-server's completions take beside a prompt.
const LLAMA_SERVER: &[Field] = &[
    MODEL,
    field("n_predict", Whole, "Tokens of the answer at most; -1: as many as there is room for."),
    field("max_tokens", Whole, "The same."),
    field("stop", Any, "A text or up to 16: the answer ends before any of them."),
    field("ignore_eos", Flag, "Go on past the model's own end."),
    field("n_probs", Whole, "Tell each token's log-probability, and those of so many most likely ones."),
    field("json_schema", Any, "A JSON schema that the answer follows."),
    field("stream", Flag, "Send the answer as events while it is generated."),
    field("return_tokens", Flag, "Tell token ids beside the text."),
    field("timings_per_token", Flag, "Tell timings with every piece."),
    field("response_fields", List, "Only these members of the answer, by name or path."),
    field("grammar", Text, "Not supported: GBNF."),
    field("post_sampling_probs", Flag, "Not supported."),
    field("return_progress", Flag, "Not supported."),
    field("image_data", List, "Not supported."),
    field("lora", List, "Not supported."),
    field("t_max_predict_ms", Whole, "Not supported."),
    field("n_cmpl", Whole, "Not supported."),
    field("n_keep", Whole, "Changes nothing: no context is shifted."),
    field("n_discard", Whole, "Changes nothing: no context is shifted."),
    field("id_slot", Whole, "Changes nothing: sequences have no places of their own."),
    field("cache_prompt", Flag, "Changes nothing: prompts that begin alike share their cache anyhow."),
    field("min_keep", Whole, "Changes nothing."),
    field("n_indent", Whole, "Changes nothing."),
];

const PROMPT: Field = needed("prompt", Any, "A text, a list of token ids and texts, or a list of these.");

pub const OPERATIONS: &[Operation] = &[
    Operation {
        method: Method::Post,
        path: "/completion",
        family: "llama-server",
        summary: "Continue prompts.",
        fields: &[&[PROMPT], LLAMA_SERVER, SAMPLING],
        example: Some(r#"{"prompt": "Once upon a time", "n_predict": 16}"#),
        answer: "The answer, or a list of them, or pieces as events.",
    },
    Operation {
        method: Method::Post,
        path: "/completions",
        family: "llama-server",
        summary: "The same, under its old name.",
        fields: &[&[PROMPT], LLAMA_SERVER, SAMPLING],
        example: Some(r#"{"prompt": "Once upon a time", "n_predict": 16}"#),
        answer: "The answer, or a list of them, or pieces as events.",
    },
    Operation {
        method: Method::Post,
        path: "/infill",
        family: "llama-server",
        summary: "Write what stands between two texts, by models that can fill in a middle.",
        fields: &[
            &[
                needed("input_prefix", Text, "The text before."),
                needed("input_suffix", Text, "The text after."),
                field("prompt", Any, "Goes after the text before."),
                field("input_extra", List, "Not supported."),
            ],
            LLAMA_SERVER,
            SAMPLING,
        ],
        example: Some(r#"{"input_prefix": "fn add(a: i32, b: i32) ", "input_suffix": "}", "n_predict": 16}"#),
        answer: "As of /completion.",
    },
    Operation {
        method: Method::Post,
        path: "/tokenize",
        family: "llama-server",
        summary: "Text to token ids.",
        fields: &[&[
            field("content", Any, "A text, or a list of texts and token ids."),
            field("add_special", Flag, "With the model's own special tokens, as a prompt has them."),
            field(
                "parse_special",
                Flag,
                "Whether the spelling of a special token means it: so it is unless this is false.",
            ),
            field("with_pieces", Flag, "Tell each token's text as well."),
            MODEL,
        ]],
        example: Some(r#"{"content": "Hello"}"#),
        answer: "The tokens.",
    },
    Operation {
        method: Method::Post,
        path: "/detokenize",
        family: "llama-server",
        summary: "Token ids to text.",
        fields: &[&[field("tokens", List, "Token ids."), MODEL]],
        example: Some(r#"{"tokens": [72, 105]}"#),
        answer: "The text.",
    },
    Operation {
        method: Method::Post,
        path: "/apply-template",
        family: "llama-server",
        summary: "A conversation as the model's chat template writes it.",
        fields: &[&[
            needed("messages", List, "The conversation."),
            field("tools", List, "Functions that the model may call."),
            field("tool_choice", Any, "none, auto, required, or the function to call."),
            field("parallel_tool_calls", Flag, "Whether there may be several calls."),
            field("chat_template_kwargs", Object, "Further variables of the template."),
            field("add_generation_prompt", Flag, "Only true."),
            MODEL,
        ]],
        example: Some(r#"{"messages": [{"role": "user", "content": "Hello"}]}"#),
        answer: "The prompt.",
    },
    get("/props", "llama-server", "A model's properties, and what is meant without parameters.", "The properties."),
    get("/slots", "llama-server", "The places for sequences.", "A list of places."),
    get("/models", "llama-server", "All models, as /v1/models.", "A list of models."),
    get("/v1/health", "llama-server", "The same as /health.", "State of all parts, and a few figures."),
];
