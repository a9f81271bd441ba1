//! The operations of OpenAI's responses.

use super::operations::{
    Field,
    Kind::{Any, Flag, List, Object, Text, Whole},
    MODEL, Operation, SAMPLING, field, get, needed,
};
use crate::http::Method;

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

pub const OPERATIONS: &[Operation] = &[
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
];
