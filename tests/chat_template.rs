//! Chat templates against what Python's Jinja2 makes of them (`tests/data/templates/render.py`).

#![cfg(feature = "engine")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use sconce::engine::chat_template::{Program, TemplateError};
use serde_json::{Map, Value};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/templates")
}

fn read(path: &Path) -> Vec<Value> {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Renders all conversations with the templates in `folder`; gives how many templates there were.
#[track_caller]
fn check(folder: &Path) -> usize {
    let conversations = read(&data().join("conversations.json"));
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let templates: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "jinja")).collect();
    for path in &templates {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let program = Program::compile(&fs::read_to_string(path).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let expected = read(&data().join(format!("{name}.json")));
        assert_eq!(expected.len(), conversations.len(), "{name}: run render.py");
        for (case, expected) in conversations.iter().zip(&expected) {
            let what = format!("{name}: {}", case["name"]);
            match (program.run(variables(case)), expected) {
                (Ok(prompt), Value::String(expected)) => assert_eq!(prompt, *expected, "{what}"),
                (Err(TemplateError::Refused(why)), Value::Object(_)) => assert_eq!(why, expected["refused"], "{what}"),
                (Err(TemplateError::Render(_)), Value::Object(error)) if error.contains_key("failed") => {}
                (other, expected) => panic!("{what}: {other:?}, but Python says {expected}"),
            }
        }
    }
    templates.len()
}

fn variables(case: &Value) -> Map<String, Value> {
    let mut variables = case["extra"].as_object().unwrap().clone();
    for name in ["messages", "add_generation_prompt"] {
        variables.insert(name.into(), case[name].clone());
    }
    variables.insert("bos_token".into(), "<s>".into());
    variables.insert("eos_token".into(), "</s>".into());
    variables
}

#[test]
fn own_templates() {
    assert!(check(&data()) >= 20);
}

#[test]
fn templates_of_models() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/templates");
    if folder.exists() {
        check(&folder);
    } else {
        eprintln!("skipped: {} is not here", folder.display());
    }
}
