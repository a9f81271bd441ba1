//! Every operation: what it is for, and the fields of its body.

use super::{llama_server, ollama};
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

pub(super) const fn field(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, required: false, about }
}

pub(super) const fn needed(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, required: true, about }
}

pub(super) const fn get(
    path: &'static str,
    family: &'static str,
    summary: &'static str,
    answer: &'static str,
) -> Operation {
    Operation { method: Method::Get, path, family, summary, fields: &[], example: None, answer }
}

pub(super) const MODEL: Field = field("model", Text, "Its name or alias; the default one if absent.");

/// What the sampler takes, by OpenAI's and llama.cpp's names.
pub(super) const SAMPLING: &[Field] = &[
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

/// What embeddings take.
const EMBEDDINGS: &[Field] = &[
    needed("input", Any, "A text, a list of token ids, or a list of up to 2048 of these."),
    MODEL,
    field("encoding_format", Text, "float, or base64 of little-endian 32-bit floats."),
    field("dimensions", Whole, "So many values of each vector, for models that are trained for it."),
    field("truncate", Flag, "Cut inputs that are too long, not refuse them. False unless given."),
    field("user", Text, "A label of the caller's."),
];

/// What reranking takes.
const RERANK: &[Field] = &[
    needed("query", Text, "What the documents are to go with."),
    needed("documents", List, "Up to 2048 texts, or objects with a text."),
    MODEL,
    field("top_n", Whole, "Tell so many of the best; all if absent."),
    field("return_documents", Flag, "Say the documents' texts again."),
    field("truncate", Flag, "Cut documents that are too long, not refuse them. True unless given."),
];

const fn rerank(path: &'static str) -> Operation {
    Operation {
        method: Method::Post,
        path,
        family: "Jina and Cohere",
        summary: "Score documents by how well they go with a query.",
        fields: &[RERANK],
        example: Some(r#"{"query": "What is a cat?", "documents": ["A cat is a pet.", "A car has wheels."]}"#),
        answer: "The scores, best first.",
    }
}

/// What responses take.
const RESPONSES: &[Field] = &[
    needed("input", Any, "A text, or a list of items: messages, reasoning, calls and their outputs."),
    MODEL,
    field("instructions", Text, "What the model is told first; not taken over from the response before."),
    field("previous_response_id", Text, "Goes on from this response."),
    field("store", Flag, "Keep it, to be asked for and gone on from. True unless given."),
    field("stream", Flag, "Send the answer as events while it is generated."),
    field("stream_options", Object, "{include_obfuscation}, which changes nothing."),
    field("background", Flag, "Answer at once; the response is asked for later."),
    field("tools", List, "Functions that the model may call: {type, name, description, parameters, strict}."),
    field("tool_choice", Any, "none, auto, required, or the function to call."),
    field("parallel_tool_calls", Flag, "Whether there may be several calls."),
    field("max_output_tokens", Whole, "Tokens of thoughts and answer at most."),
    field("priority", Whole, "-100 to 100; higher goes first."),
    field("timeout_ms", Whole, "Give up when the request has waited so long for its turn."),
    field(
        "reasoning",
        Object,
        "{effort, summary}: none switches thoughts off; minimal to xhigh are told to the template.",
    ),
    field("text", Object, "{format}: text, json_object, or json_schema with {name, schema}."),
    field("include", List, "message.output_text.logprobs: tell each token's log-probability."),
    field("top_logprobs", Whole, "And those of so many most likely ones, 0 to 20."),
    field("user", Text, "A label of your own."),
    field("safety_identifier", Text, "A label of your own."),
    field("prompt_cache_key", Text, "A label of your own: prompts that begin alike share their cache anyhow."),
    field("metadata", Object, "Labels of your own."),
    field("service_tier", Text, "auto or default."),
    field("truncation", Text, "Only disabled."),
    field("conversation", Any, "Not supported: use previous_response_id."),
    field("context_management", Any, "Not supported."),
    field("max_tool_calls", Whole, "Not supported."),
    field("moderation", Any, "Not supported."),
    field("prompt", Object, "Not supported."),
    field("prompt_cache_retention", Text, "Not supported."),
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
    field("context_management", Object, "Only what leaves the conversation as it is."),
    field("diagnostics", Object, "Not supported."),
    field("fallback_credit_token", Text, "Not supported."),
    field("fallbacks", Any, "Not supported."),
    field("inference_geo", Text, "Not supported."),
    field("mcp_servers", List, "Not supported."),
    field("thread", Object, "Not supported."),
];

/// All of them.
pub fn operations() -> impl Iterator<Item = &'static Operation> {
    [OPERATIONS, ollama::OPERATIONS, llama_server::OPERATIONS].into_iter().flatten()
}

const OPERATIONS: &[Operation] = &[
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
        path: "/v1/embeddings",
        family: "OpenAI",
        summary: "Vectors of texts.",
        fields: &[EMBEDDINGS],
        example: Some(r#"{"input": ["Hello", "Good day"]}"#),
        answer: "A vector for each input.",
    },
    Operation {
        method: Method::Post,
        path: "/v1/responses",
        family: "OpenAI",
        summary: "Answer a conversation that the server may keep.",
        fields: &[RESPONSES, SAMPLING],
        example: Some(r#"{"input": "Hello", "max_output_tokens": 16}"#),
        answer: "The response, or events of it.",
    },
    get("/v1/responses/{id}", "OpenAI", "A response that is kept.", "The response."),
    Operation {
        method: Method::Delete,
        path: "/v1/responses/{id}",
        family: "OpenAI",
        summary: "Forget a response, and end it if it goes on.",
        fields: &[],
        example: None,
        answer: "That it is deleted.",
    },
    get("/v1/responses/{id}/input_items", "OpenAI", "What a response was made from.", "A list of items."),
    Operation {
        method: Method::Post,
        path: "/v1/responses/{id}/cancel",
        family: "OpenAI",
        summary: "End a response in the background.",
        fields: &[],
        example: None,
        answer: "The response as it is now.",
    },
    rerank("/v1/rerank"),
    rerank("/rerank"),
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
];
