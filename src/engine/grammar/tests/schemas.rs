//! Whatever random weights say under a schema satisfies it.

use super::{random_schema::random_schema, validate::is_valid, *};

const SCHEMAS: u64 = 200;

#[test]
fn answers_to_random_schemas_validate() {
    let tokenizer = demo();
    let compiler = Compiler::new(&tokenizer);
    let mut finished = 0;
    for seed in 0..SCHEMAS {
        let schema = random_schema(seed);
        let grammar = compiler.compile(&GrammarSource::JsonSchema(schema.clone()));
        let grammar = grammar.unwrap_or_else(|error| panic!("seed {seed}: {error}\n{schema}"));
        let mut rng = Rng::new(seed);
        for _ in 0..3 {
            let Some(text) = babble(&grammar, &tokenizer, &mut rng, 0, 800) else { continue };
            finished += 1;
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("seed {seed}: {e} in {text}"));
            assert!(is_valid(&value, &schema, &schema), "seed {seed}: {text}\nis not {schema}");
        }
    }
    assert!(finished > SCHEMAS * 2, "only {finished} came to an end");
}

#[test]
fn any_object_is_an_object_without_endless_whitespace() {
    let tokenizer = demo();
    let grammar = Compiler::new(&tokenizer).compile(&GrammarSource::JsonObject).unwrap();
    let mut finished = 0;
    for seed in 0..40 {
        let Some(text) = babble(&grammar, &tokenizer, &mut Rng::new(seed), 0, 600) else { continue };
        finished += 1;
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("seed {seed}: {e} in {text:?}"));
        assert!(value.is_object(), "seed {seed}: {text}");
    }
    assert!(finished > 10, "only {finished} came to an end");
}

/// What is refused, where, and words of why.
#[track_caller]
fn refused(source: &str, pointer: &str, words: &str) {
    match Compiler::new(&demo()).compile(&schema(source)) {
        Err(GrammarError::Invalid { pointer: at, message }) => {
            assert!(at == pointer && message.contains(words), "{source}: {at:?} {message:?}");
        }
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn what_can_not_be_held_to_is_refused_by_name_and_place() {
    refused(r#"{"type":"object","properties":{"a":{"not":{"type":"null"}}}}"#, "/properties/a/not", "not supported");
    refused(r#"{"properties":{"a/b~c":{"minlength":3}}}"#, "/properties/a~1b~0c/minlength", "\"minlength\"");
    refused(r#"{"x-guidance":{"lenient":true},"type":"string"}"#, "/x-guidance", "not supported");
    refused(r#"{"type":"text"}"#, "/type", "must be one of");
    refused(r#"{"type":"string","pattern":"(?=a)b"}"#, "/pattern", "look-around");
    refused(r#"{"type":"string","pattern":"["}"#, "/pattern", "unclosed");
    refused(r#"{"type":"string","format":"credit-card"}"#, "/format", "date-time");
    refused(r#"{"type":"string","minLength":-1}"#, "/minLength", "not negative");
    refused(r#"{"type":"string","minLength":5,"maxLength":4}"#, "/minLength", "maxLength");
    refused(r#"{"type":"integer","minimum":5,"maximum":4}"#, "/minimum", "maximum");
    refused(r#"{"type":"integer","multipleOf":0}"#, "/multipleOf", "between");
    refused(r#"{"const":9007199254740993}"#, "/const", "2^53");
    refused(r#"{"enum":[]}"#, "/enum", "between 1 and");
    refused(r#"{"anyOf":[]}"#, "/anyOf", "must not be empty");
    refused(r#"{"anyOf":[{"type":"string"},{"if":{}}]}"#, "/anyOf/1/if", "not supported");
    refused(r#"{"oneOf":[{"type":"string"},{"type":"string","maxLength":3}]}"#, "/oneOf", "anyOf");
    refused(r##"{"$ref":"#/$defs/gone"}"##, "/$ref", "must name a schema");
    refused(r#"{"$ref":"https://example.com/schema"}"#, "/$ref", "must name a schema");
    refused(r##"{"$ref":"#"}"##, "", "leads to itself");
    refused(r#"{"type":"array","uniqueItems":true}"#, "/uniqueItems", "only supported as false");
    refused(r#"{"type":"object","minProperties":3,"required":["a"]}"#, "/minProperties", "not supported");
    refused("false", "", "nothing satisfies");
    refused("[1]", "", "an object or a boolean");
}

#[test]
fn options_that_exclude_each_other_may_be_one_of() {
    let source = r##"{
        "oneOf": [{"$ref":"#/$defs/cat"}, {"$ref":"#/$defs/dog"}, {"type":"null"}],
        "discriminator": {"propertyName":"kind"},
        "$defs": {
            "cat": {"type":"object","properties":{"kind":{"const":"cat"}},"required":["kind"],"additionalProperties":false},
            "dog": {"type":"object","properties":{"kind":{"const":"dog"}},"required":["kind"],"additionalProperties":false}
        }
    }"##;
    let tokenizer = demo();
    let grammar = Compiler::new(&tokenizer).compile(&schema(source)).unwrap();
    let said: std::collections::BTreeSet<String> =
        (0..60).filter_map(|seed| babble(&grammar, &tokenizer, &mut Rng::new(seed), 0, 100)).collect();
    let expected = [r#"null"#, r#"{"kind": "cat"}"#, r#"{"kind": "dog"}"#];
    assert!(said.iter().eq(&expected.map(String::from)), "{said:?}");
}

#[test]
fn keys_are_spelled_in_one_way() {
    // If `a` could be written with an escape, it would be another property, of any value.
    let source = r#"{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"null"}}"#;
    let tokenizer = demo();
    let grammar = Compiler::new(&tokenizer).compile(&schema(source)).unwrap();
    let mut matcher = grammar.matcher();
    for byte in br#"{"\"# {
        let token = tokenizer.encode_within(&char::from(*byte).to_string());
        matcher.mask().unwrap();
        matcher.advance(token[0]).unwrap();
    }
    let u = tokenizer.encode_within("u")[0];
    assert!(!matcher.mask().unwrap().is_allowed(u));
}
