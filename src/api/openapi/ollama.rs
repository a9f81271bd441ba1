//! The operations of Ollama's API.

use super::operations::{
    Field,
    Kind::{Any, Flag, List, Object, Text, Whole},
    Operation, field, get, needed,
};
use crate::http::Method;

/// The model, and what becomes of it.
const TERMS: &[Field] = &[
    needed("model", Text, "Its name or alias; `:latest` may be left out or added."),
    field("options", Object, "The sampler's parameters, num_predict, stop, seed, num_ctx."),
    field("keep_alive", Any, "How long the model stays in memory after this: seconds, or 5m; negative: for ever."),
];

/// What Ollama's two ways to generate share.
const OLLAMA: &[Field] = &[
    field("stream", Flag, "Send the answer line by line while it is generated: so it is unless this is false."),
    field("truncate", Flag, "Only false: what is too long is refused."),
    field("shift", Flag, "Only false: what is full is full."),
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

const fn disk(method: Method, path: &'static str) -> Operation {
    let summary = "Not done here: models are files that whoever runs the server names.";
    Operation { method, path, family: "Ollama", summary, fields: &[], example: None, answer: "Never: 501." }
}

pub const OPERATIONS: &[Operation] = &[
    Operation {
        method: Method::Post,
        path: "/api/chat",
        family: "Ollama",
        summary: "Answer a conversation.",
        fields: &[OLLAMA_CHAT, OLLAMA, TERMS],
        example: Some(r#"{"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}"#),
        answer: "Lines of JSON, or the answer in one.",
    },
    Operation {
        method: Method::Post,
        path: "/api/generate",
        family: "Ollama",
        summary: "Answer a prompt, or fill in a middle.",
        fields: &[OLLAMA_GENERATE, OLLAMA, TERMS],
        example: Some(r#"{"model": "demo", "prompt": "Hello"}"#),
        answer: "Lines of JSON, or the answer in one.",
    },
    Operation {
        method: Method::Post,
        path: "/api/embed",
        family: "Ollama",
        summary: "Texts to vectors.",
        fields: &[
            &[
                field("input", Any, "A text, or a list of texts; without any the model is loaded."),
                field("truncate", Flag, "Cut texts that are too long: so it is unless this is false."),
                field("dimensions", Whole, "So many of each vector."),
            ],
            TERMS,
        ],
        example: Some(r#"{"model": "minilm", "input": "Hello"}"#),
        answer: "A vector for each text.",
    },
    Operation {
        method: Method::Post,
        path: "/api/embeddings",
        family: "Ollama",
        summary: "A text to a vector, as it was done before.",
        fields: &[&[field("prompt", Text, "The text; without one the model is loaded.")], TERMS],
        example: Some(r#"{"model": "minilm", "prompt": "Hello"}"#),
        answer: "The vector.",
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
];
