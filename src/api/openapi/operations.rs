//! Every operation: what it is for, and the fields of its body.

use crate::http::Method;

/// A method and a path.
pub struct Operation {
    pub method: Method,
    /// As the route has it.
    pub path: &'static str,
    /// The API that it belongs to.
    pub family: &'static str,
    pub summary: &'static str,
    /// The fields of its body, in groups that operations share.
    pub fields: &'static [&'static [Field]],
    /// A body that is taken; `None`: it has none.
    pub example: Option<&'static str>,
    /// What comes back.
    pub answer: &'static str,
}

impl Operation {
    /// A name for programs: `post_v1_chat_completions`.
    pub fn id(&self) -> String {
        let path: Vec<String> = self
            .path
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        format!("{}_{}", self.method.to_string().to_lowercase(), path.join("_"))
    }
}

/// A member of a body.
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    pub about: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Whole,
    Number,
    Flag,
    List,
    Object,
    /// Of several types.
    Any,
}

use Kind::{Any, Flag, List, Number, Object, Text, Whole};

const fn field(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, required: false, about }
}

const fn needed(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, required: true, about }
}

const fn get(path: &'static str, family: &'static str, summary: &'static str, answer: &'static str) -> Operation {
    Operation { method: Method::Get, path, family, summary, fields: &[], example: None, answer }
}

const MODEL: Field = field("model", Text, "Its name or alias; the default one if absent.");

/// What the sampler takes, by OpenAI's and llama.cpp's names.
const SAMPLING: &[Field] = &[
    field("temperature", Number, "0 to 2; 0 always takes the most likely token."),
    field("top_p", Number, "Keep the smallest set of tokens whose probabilities add up to this."),
    field("presence_penalty", Number, "-2 to 2, taken from the logits of tokens that were generated before."),
    field("frequency_penalty", Number, "-2 to 2, for each time that a token was generated before."),
    field("seed", Whole, "The same request with the same seed gives the same tokens."),
    field("logit_bias", Any, "Token ids and what is added to their logits, -100 to 100."),
    field("top_k", Whole, "Keep so many of the most likely tokens; 0 keeps all."),
    field("min_p", Number, "Drop tokens less likely than this share of the most likely one."),
    field("typical_p", Number, "Keep tokens whose information is near the average, up to this probability."),
    field("top_n_sigma", Number, "Keep tokens within so many standard deviations of the best logit."),
    field("repetition_penalty", Number, "Divides the logits of tokens seen before."),
    field("repeat_penalty", Number, "The same, by llama.cpp's name."),
    field("repeat_last_n", Whole, "The repetition penalty looks at so many of the last tokens; -1: at all."),
    field("dynatemp_range", Number, "The temperature moves by this with the distribution's entropy."),
    field("dynatemp_exponent", Number, "Of the entropy's share."),
    field("xtc_probability", Number, "With this probability all tokens above the threshold go but the least likely."),
    field("xtc_threshold", Number, "See xtc_probability."),
    field("samplers", List, "The order of the filters, by llama.cpp's names."),
    field("mirostat", Whole, "0, 1 or 2: keeps the text's surprise at mirostat_tau instead of filtering."),
    field("mirostat_tau", Number, "Bits a token."),
    field("mirostat_eta", Number, "How fast it learns."),
    field("dry_multiplier", Number, "Penalises tokens that go on with a sequence that was there before."),
    field("dry_base", Number, "The penalty's growth with the length of the sequence."),
    field("dry_allowed_length", Whole, "Repeated sequences up to this length cost nothing."),
    field("dry_penalty_last_n", Whole, "Looks at so many of the last tokens; -1: at all."),
    field("dry_sequence_breakers", List, "Texts that repetitions don't reach over."),
];

/// What every generation of our own or OpenAI's takes.
const GENERATION: &[Field] = &[
    MODEL,
    field("max_tokens", Whole, "Tokens of the answer at most."),
    field("stop", Any, "A text or up to 16: the answer ends before any of them."),
    field("stop_token_ids", List, "The answer ends at any of these tokens."),
    field("ignore_eos", Flag, "Go on past the model's own end."),
    field("stream", Flag, "Send the answer as events while it is generated."),
    field("priority", Whole, "-100 to 100; higher goes first."),
    field("timeout_ms", Whole, "Give up when the request has waited so long for its turn."),
];

const NATIVE: &[Field] = &[
    field("prompt", Any, "A text or a list of token ids; or messages instead."),
    field("messages", List, "A conversation: {role, content} each."),
];

/// What OpenAI's two ways to generate share.
const OPENAI: &[Field] = &[
    field("n", Whole, "So many answers."),
    field("stream_options", Object, "{include_usage}: a last chunk says what the answer has cost."),
    field("user", Text, "A label of your own."),
    field("safety_identifier", Text, "A label of your own."),
    field("prompt_cache_key", Text, "A label of your own: prompts that begin alike share their cache anyhow."),
    field("metadata", Object, "Labels of your own."),
    field("service_tier", Text, "auto or default."),
    field("response_format", Object, "{type}: text, json_object or json_schema with {json_schema: {name, schema}}."),
    field("regex", Text, "The answer matches this regular expression."),
    field("choice", List, "The answer is one of these texts."),
    field("grammar", Text, "The answer follows this grammar, in llguidance's Lark."),
];

const CHAT: &[Field] = &[
    needed("messages", List, "The conversation."),
    field("max_completion_tokens", Whole, "Tokens of the answer at most."),
    field("tools", List, "Functions that the model may call."),
    field("tool_choice", Any, "none, auto, required, or the function to call."),
    field("parallel_tool_calls", Flag, "Whether there may be several calls."),
    field("logprobs", Flag, "Tell each token's log-probability."),
    field("top_logprobs", Whole, "And those of so many most likely ones, 0 to 20."),
    field("reasoning_effort", Text, "none switches thoughts off; minimal to xhigh are told to the template."),
    field("thinking_token_budget", Whole, "Thoughts end after so many tokens."),
    field("reasoning_format", Text, "auto tells thoughts apart; none leaves them in the text."),
    field("chat_template_kwargs", Object, "Further variables of the chat template, such as enable_thinking."),
    field("continue_final_message", Flag, "Go on with the last message, which is the assistant's."),
    field("add_generation_prompt", Flag, "false goes with continue_final_message."),
    field("modalities", List, "Only text."),
    field("verbosity", Text, "Only medium."),
    field("chat_template", Text, "Not supported: clients' templates are not run."),
    field("audio", Object, "Not supported."),
    field("functions", List, "Not supported: use tools."),
    field("function_call", Any, "Not supported: use tool_choice."),
    field("moderation", Any, "Not supported."),
    field("prediction", Object, "Not supported."),
    field("store", Flag, "Not supported but for false; /v1/responses are kept."),
    field("web_search_options", Object, "Not supported."),
];

const COMPLETIONS: &[Field] = &[
    needed("prompt", Any, "A text, a list of token ids, or a list of these."),
    field("suffix", Text, "What comes after the answer, for models that can fill in a middle."),
    field("echo", Flag, "Say the prompt again before the answer."),
    field("logprobs", Whole, "Tell each token's log-probability, and those of so many most likely ones."),
    field("best_of", Whole, "Only the value of n."),
];

/// What Anthropic's two operations share: all that a prompt is made of.
const CONVERSATION: &[Field] = &[
    MODEL,
    needed(
        "messages",
        List,
        "The conversation, in turns of user and assistant; a last one of the assistant is gone on with.",
    ),
    field("system", Any, "What the model is told before, as a text or blocks of text."),
    field("tools", List, "Tools that the model may call: {name, description, input_schema} each."),
    field("tool_choice", Object, "{type}: auto, any, none, or tool with a name; disable_parallel_tool_use."),
    field("thinking", Object, "{type}: enabled with budget_tokens, adaptive, or disabled, which is the default."),
    field("output_config", Object, "{format: {type: json_schema, schema}, effort}."),
    field("output_format", Object, "The same as output_config.format."),
    field("cache_control", Object, "Changes nothing: every prompt is cached."),
    field("speed", Text, "Only standard."),
];

const MESSAGES: &[Field] = &[
    needed("max_tokens", Whole, "Tokens of the answer at most; 0 only reads the prompt into the cache."),
    field("stop_sequences", List, "The answer ends before any of these texts."),
    field("stream", Flag, "Send the answer as events while it is generated."),
    field("temperature", Number, "0 to 1; 0 always takes the most likely token."),
    field("top_p", Number, "Keep the smallest set of tokens whose probabilities add up to this."),
    field("top_k", Whole, "Keep so many of the most likely tokens; 0 keeps all."),
    field("metadata", Object, "{user_id}: a label of your own."),
    field("service_tier", Text, "auto or standard_only."),
    field("billing_policy", Object, "Not supported."),
    field("compaction", Object, "Not supported."),
    field("container", Any, "Not supported."),
    field("context_management", Object, "Not supported."),
    field("diagnostics", Object, "Not supported."),
    field("fallback_credit_token", Text, "Not supported."),
    field("fallbacks", Any, "Not supported."),
    field("inference_geo", Text, "Not supported."),
    field("mcp_servers", List, "Not supported."),
    field("thread", Object, "Not supported."),
];

/// What Ollama's two ways to generate share.
const OLLAMA: &[Field] = &[
    needed("model", Text, "Its name or alias; `:latest` may be left out or added."),
    field("stream", Flag, "Send the answer line by line while it is generated: so it is unless this is false."),
    field("options", Object, "The sampler's parameters, num_predict, stop, seed, num_ctx."),
    field("truncate", Flag, "Only false: what is too long is refused."),
    field("shift", Flag, "Only false: what is full is full."),
    field("keep_alive", Any, "How long the model stays in memory after this: seconds, or 5m; negative: for ever."),
    field("format", Any, "json, or a JSON schema that the answer follows."),
    field("think", Any, "Whether the model thinks first: true, false, low, medium, high or max."),
    field("logprobs", Flag, "Tell each token's log-probability."),
    field("top_logprobs", Whole, "And those of so many most likely ones, 0 to 20."),
];

const OLLAMA_CHAT: &[Field] = &[
    field("messages", List, "The conversation; without one the model is loaded."),
    field("tools", List, "Functions that the model may call."),
];

const OLLAMA_GENERATE: &[Field] = &[
    field("prompt", Text, "What to answer; without one the model is loaded."),
    field("suffix", Text, "What comes after the answer, for models that can fill in a middle."),
    field("system", Text, "A message of the system before the prompt."),
    field("raw", Flag, "Take the prompt as it is, special tokens spelt out."),
    field("context", List, "Tokens of what was said before, as an answer told them."),
    field("images", List, "Not supported."),
    field("template", Text, "Not supported: clients' templates are not run."),
    field("width", Whole, "Not supported."),
    field("height", Whole, "Not supported."),
    field("steps", Whole, "Not supported."),
];

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

const fn disk(method: Method, path: &'static str) -> Operation {
    let summary = "Not done here: models are files that whoever runs the server names.";
    Operation { method, path, family: "Ollama", summary, fields: &[], example: None, answer: "Never: 501." }
}

pub const OPERATIONS: &[Operation] = &[
    get("/health", "Operation", "The server's state in one answer.", "State of all parts, and a few figures."),
    get("/livez", "Operation", "Whether the process answers.", "It does."),
    get("/readyz", "Operation", "Whether new requests can be served.", "They can."),
    get("/metrics", "Operation", "Counters for Prometheus.", "Prometheus text 0.0.4."),
    get("/openapi.json", "Operation", "This document.", "OpenAPI 3.1."),
    Operation {
        method: Method::Post,
        path: "/generate",
        family: "Sconce",
        summary: "Generate text, told at once or as events.",
        fields: &[NATIVE, GENERATION, SAMPLING],
        example: Some(r#"{"prompt": "Once upon a time", "max_tokens": 16}"#),
        answer: "The text, its tokens and what they cost.",
    },
    Operation {
        method: Method::Post,
        path: "/generate_stream",
        family: "Sconce",
        summary: "Generate text, told as events.",
        fields: &[NATIVE, GENERATION, SAMPLING],
        example: Some(r#"{"prompt": "Once upon a time", "max_tokens": 16}"#),
        answer: "Server-sent events, the last of which is [DONE].",
    },
    Operation {
        method: Method::Post,
        path: "/encode",
        family: "Sconce",
        summary: "Text to token ids.",
        fields: &[&[
            needed("text", Text, "The text."),
            field("add_special", Flag, "With the model's own special tokens around it, as a prompt has them."),
            MODEL,
        ]],
        example: Some(r#"{"text": "Hello"}"#),
        answer: "The tokens, and how many there are.",
    },
    Operation {
        method: Method::Post,
        path: "/decode",
        family: "Sconce",
        summary: "Token ids to text.",
        fields: &[&[needed("tokens", List, "Token ids."), MODEL]],
        example: Some(r#"{"tokens": [72, 105]}"#),
        answer: "The text.",
    },
    get("/v1/models", "OpenAI", "All models.", "A list of models."),
    get("/v1/models/{*id}", "OpenAI", "One model, by name or alias.", "The model."),
    Operation {
        method: Method::Post,
        path: "/v1/chat/completions",
        family: "OpenAI",
        summary: "Answer a conversation.",
        fields: &[CHAT, OPENAI, GENERATION, SAMPLING],
        example: Some(r#"{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}"#),
        answer: "The answer, or chunks of it as events.",
    },
    Operation {
        method: Method::Post,
        path: "/v1/completions",
        family: "OpenAI",
        summary: "Continue prompts.",
        fields: &[COMPLETIONS, OPENAI, GENERATION, SAMPLING],
        example: Some(r#"{"prompt": "Once upon a time", "max_tokens": 16}"#),
        answer: "The texts, or chunks of them as events.",
    },
    Operation {
        method: Method::Post,
        path: "/v1/messages",
        family: "Anthropic",
        summary: "Answer a conversation.",
        fields: &[CONVERSATION, MESSAGES],
        example: Some(r#"{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}"#),
        answer: "The message, or the events that build it.",
    },
    Operation {
        method: Method::Post,
        path: "/v1/messages/count_tokens",
        family: "Anthropic",
        summary: "What a conversation costs as a prompt.",
        fields: &[CONVERSATION],
        example: Some(r#"{"messages": [{"role": "user", "content": "Hello"}]}"#),
        answer: "{input_tokens}.",
    },
    Operation {
        method: Method::Post,
        path: "/api/chat",
        family: "Ollama",
        summary: "Answer a conversation.",
        fields: &[OLLAMA_CHAT, OLLAMA],
        example: Some(r#"{"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}"#),
        answer: "Lines of JSON, or the answer in one.",
    },
    Operation {
        method: Method::Post,
        path: "/api/generate",
        family: "Ollama",
        summary: "Answer a prompt, or fill in a middle.",
        fields: &[OLLAMA_GENERATE, OLLAMA],
        example: Some(r#"{"model": "demo", "prompt": "Hello"}"#),
        answer: "Lines of JSON, or the answer in one.",
    },
    get("/api/tags", "Ollama", "All models.", "A list of models."),
    Operation {
        method: Method::Post,
        path: "/api/show",
        family: "Ollama",
        summary: "One model: what it is and what it can do.",
        fields: &[&[
            field("model", Text, "Its name or alias."),
            field("name", Text, "The same, as it was called before."),
            field("verbose", Flag, "Changes nothing."),
            field("system", Text, "Changes nothing."),
            field("template", Text, "Changes nothing."),
            field("options", Object, "Changes nothing."),
        ]],
        example: Some(r#"{"model": "demo"}"#),
        answer: "The model.",
    },
    get("/api/ps", "Ollama", "The models in memory.", "A list of models."),
    get("/api/version", "Ollama", "The version of Ollama whose API this is.", "The version."),
    disk(Method::Post, "/api/pull"),
    disk(Method::Post, "/api/push"),
    disk(Method::Post, "/api/create"),
    disk(Method::Post, "/api/copy"),
    disk(Method::Delete, "/api/delete"),
    disk(Method::Post, "/api/blobs/{digest}"),
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
