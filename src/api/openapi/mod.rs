//! `GET /openapi.json`: what there is, for programs (OpenAPI 3.1).
//!
//! Made of the table in `operations`, which a test holds to the routes and to the fields that their handlers read.

mod llama_server;
mod ollama;
mod operations;

use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value, json};

use super::{error::ApiError, state::Api};
use crate::http::{Reply, Request};
use operations::{Field, Kind, Operation, operations};

/// The document.
pub fn openapi(_: &Arc<Api>, _: &Request<'_>) -> Result<Reply, ApiError> {
    static TEXT: LazyLock<Arc<[u8]>> = LazyLock::new(|| document().to_string().into_bytes().into());
    Ok(Reply::shared("application/json", Arc::clone(&TEXT)).header("Cache-Control", "no-cache"))
}

fn document() -> Value {
    let mut paths = Map::new();
    for operation in operations() {
        // The router's `{*rest}` is a parameter like others here.
        let path = operation.path.replace("{*", "{");
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[operation.method.to_string().to_lowercase()] = describe(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sconce",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "An LLM inference server",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "paths": paths,
    })
}

fn describe(operation: &Operation) -> Value {
    let mut described = json!({
        "tags": [operation.family],
        "summary": operation.summary,
        "operationId": operation.id(),
        "responses": {
            "200": { "description": operation.answer },
            "4XX": { "description": "The request is refused; the body says what is wrong with it." },
            "5XX": { "description": "The server can't answer now; `Retry-After` says when to try again." },
        },
    });
    let parameters: Vec<Value> = operation
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            let name = name.trim_start_matches('*');
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
        })
        .collect();
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(example) = operation.example {
        let fields = || operation.fields.iter().copied().flatten();
        let properties: Map<String, Value> = fields().map(|field| (field.name.to_owned(), schema(field))).collect();
        let required: Vec<&str> = fields().filter(|field| field.required).map(|field| field.name).collect();
        let example: Value = serde_json::from_str(example).unwrap_or_default();
        described["requestBody"] = json!({
            "required": true,
            "content": { "application/json": {
                "schema": {
                    "type": "object",
                    "properties": properties,
                    "required": required,
                    "additionalProperties": false,
                },
                "example": example,
            }},
        });
    }
    described
}

fn schema(field: &Field) -> Value {
    let mut schema = match field.kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Whole => json!({ "type": "integer" }),
        Kind::Number => json!({ "type": "number" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::List => json!({ "type": "array", "items": {} }),
        Kind::Object => json!({ "type": "object" }),
        Kind::Any => json!({}),
    };
    schema["description"] = field.about.into();
    schema
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        api::{
            routes::ROUTES,
            tests::toy::{Fixture, body},
        },
        http::Method,
    };

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let routes: BTreeSet<_> = ROUTES.iter().map(|route| (route.path, route.method.to_string())).collect();
        let described: BTreeSet<_> =
            operations().map(|operation| (operation.path, operation.method.to_string())).collect();
        assert_eq!(described, routes);
        assert_eq!(described.len(), operations().count(), "one is described twice");
        let ids: BTreeSet<_> = operations().map(Operation::id).collect();
        assert_eq!(ids.len(), operations().count(), "an id is given twice");
    }

    /// Handlers say which fields they know when they meet one that they don't: those of the table, and no other.
    #[test]
    fn bodies_are_described_as_they_are_read() {
        let it = Fixture::new();
        for operation in operations().filter(|operation| operation.method == Method::Post) {
            let Some(example) = operation.example else { continue };
            let mut ask: Value = serde_json::from_str(example).unwrap_or_else(|e| panic!("{}: {e}", operation.path));
            let given: BTreeSet<String> = ask.as_object().unwrap().keys().cloned().collect();
            let fields: BTreeSet<String> =
                operation.fields.iter().copied().flatten().map(|field| field.name.to_owned()).collect();
            assert!(given.is_subset(&fields), "{}: the example has fields that are not described", operation.path);
            ask["zzzzzzzz"] = 1.into();
            let reply = it.post(&operation.path.replace("{id}", "x"), &ask.to_string());
            let answer = body(&reply).to_string();
            assert_eq!(reply.status().code(), 400, "{}: {answer}", operation.path);
            let known = answer.split("known are ").nth(1).unwrap_or_else(|| panic!("{}: {answer}", operation.path));
            let known: BTreeSet<String> = known
                .split('"')
                .next()
                .unwrap()
                .split(", ")
                .map(|name| name.trim_end_matches('\\').to_owned())
                .collect();
            assert_eq!(fields, known, "{}", operation.path);
        }
    }

    #[test]
    fn the_document_is_served() {
        let it = Fixture::new();
        let reply = it.get("/openapi.json");
        assert_eq!(body(&reply)["openapi"], "3.1.0");
        assert!(body(&reply)["paths"]["/v1/models/{id}"]["get"]["parameters"][0]["required"].as_bool().unwrap());
    }
}
