use serde_json::Value;

use super::*;

fn splitter(name: &str) -> Splitter {
    Splitter::new(Rules::named(name).unwrap().cuts).unwrap()
}

/// Rows made by Python's regex module from the models' own patterns, look-aheads and all.
#[test]
fn pieces_are_those_of_the_models_own_patterns() {
    let rows: Value = serde_json::from_str(include_str!("../../../../tests/data/splits.json")).unwrap();
    let texts = rows["texts"].as_array().unwrap();
    for (name, expected) in rows["pieces"].as_object().unwrap() {
        let splitter = splitter(name);
        for (text, expected) in texts.iter().zip(expected.as_array().unwrap()) {
            let text = text.as_str().unwrap();
            let expected: Vec<&str> = expected.as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
            assert_eq!(splitter.split(text).collect::<Vec<_>>(), expected, "{name}: {text:?}");
        }
    }
}

#[track_caller]
fn check(name: &str, text: &str, expected: &[&str]) {
    assert_eq!(splitter(name).split(text).collect::<Vec<_>>(), expected, "{name}: {text:?}");
}

#[test]
fn rules_with_listed_characters() {
    // DeepSeek's range for CJK begins at U+0800, so that it also cuts at the Kelvin sign, a letter before it.
    check(
        "deepseek-llm",
        "Hi, 我们 2024年\n x9 Ωμέγα \u{212a} ",
        &["Hi", ",", " ", "我们", " ", "2024", "年", "\n", " x", "9", " Ωμέγα", " ", "\u{212a}", " "],
    );
    let expected = ["ab", "1", "234", "567", " ", "123", "4x", " ", "日本", "!"];
    check("afmoe", "ab1234567 1234x 日本!", &expected);
    check("youtu", "한국어 你好，世界", &["한국어", " ", "你好", "，", "世界"]);
    check("default", "don't 1234 a+b", &["don", "'", "t", " ", "123", "4", " a", "+", "b"]);
}

#[test]
fn every_name_compiles() {
    for name in "default gpt-2 phi-2 mpt olmo jais starcoder refact command-r smollm codeshell exaone minerva-7b \
                 llama3 llama-v3 llama-bpe falcon3 lfm2 dbrx smaug-bpe chatglm-bpe glm4 minicpm5 qwen2 qwen35 \
                 deepseek-r1-qwen megrez stablelm2 hunyuan grok-2 ufakzeka laguna deepseek-llm deepseek-coder \
                 deepseek-v3 hunyuan-dense spark2_5 afmoe falcon poro-chat bloom viking tekken gpt-4o llama4 \
                 tiny_aya youtu kimi-k2 superbpe bailingmoe seed-coder exaone-moe chameleon gemma4 sarvam-moe"
        .split_whitespace()
    {
        let text = "One  two\n\n 3456 ünï 中文 🙂's";
        assert_eq!(splitter(name).split(text).collect::<String>(), text, "{name}");
    }
}

#[test]
fn unknown_names_are_refused() {
    for name in ["", "qwen3000", "LLAMA3", "qwen2 "] {
        assert!(matches!(Rules::named(name), Err(TokenizerError::UnknownSplit(unknown)) if unknown == name));
    }
}
