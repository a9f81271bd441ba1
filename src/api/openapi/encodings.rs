//! The operations that turn texts into vectors and scores: OpenAI's embeddings, and reranking as Jina and Cohere have it.

use super::operations::{
    Field,
    Kind::{Any, Flag, List, Text, Whole},
    MODEL, Operation, field, needed,
};
use crate::http::Method;

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

pub const OPERATIONS: &[Operation] = &[
    Operation {
        method: Method::Post,
        path: "/v1/embeddings",
        family: "OpenAI",
        summary: "Vectors of texts.",
        fields: &[EMBEDDINGS],
        example: Some(r#"{"input": ["Hello", "Good day"]}"#),
        answer: "A vector for each input.",
    },
    rerank("/v1/rerank"),
    rerank("/rerank"),
];
