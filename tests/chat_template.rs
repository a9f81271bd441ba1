//! Chat templates against what Python's Jinja2 makes of them (`tests/data/templates/render.py`).

#![cfg(feature = "engine")]

use std::{fs, path::Path};

use sconce::engine::chat_template::{ChatTemplate, TemplateError};
use serde_json::Value;

/// Renders every case of `tests/data/templates/NAME.json` with the template in `folder`.
#[track_caller]
fn check(folder: &Path, name: &str) {
    let path = folder.join(format!("{name}.jinja"));
    if !path.exists() {
        eprintln!("skipped: {} is not here", path.display());
        return;
    }
    let template = ChatTemplate::new(&fs::read_to_string(path).unwrap(), "<s>", "</s>").unwrap();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/templates/{name}.json"));
    let cases: Vec<Value> = serde_json::from_str(&fs::read_to_string(cases).unwrap()).unwrap();
    for (index, case) in cases.iter().enumerate() {
        let add_generation_prompt = case["add_generation_prompt"].as_bool().unwrap();
        let rendered = template.render(&case["messages"], add_generation_prompt, case["extra"].as_object().unwrap());
        match (rendered, &case["refused"]) {
            (Ok(prompt), Value::Null) => assert_eq!(prompt, case["expected"], "{name}, case {index}"),
            (Err(TemplateError::Refused(why)), refused) => assert_eq!(why, *refused, "{name}, case {index}"),
            (Err(TemplateError::Render(_)), refused) if refused.is_string() => {}
            (other, refused) => panic!("{name}, case {index}: {other:?}, but Python says {refused}"),
        }
    }
}

#[test]
fn own_templates() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/templates");
    check(&folder, "chatml");
    check(&folder, "turns");
}

#[test]
fn templates_of_models() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/templates");
    check(&folder, "Qwen-Qwen2.5-7B-Instruct");
    check(&folder, "Qwen-Qwen3-0.6B");
    check(&folder, "meta-llama-Llama-3.1-8B-Instruct");
}
