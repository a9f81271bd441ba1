//! Compiling once, the cache, special tokens, choices and regular expressions.

use std::{collections::BTreeSet, sync::mpsc, time::Duration};

use super::*;

/// All that is said under `source`, as chance has it.
fn said(source: GrammarSource, tokenizer: &Arc<Tokenizer>) -> BTreeSet<String> {
    let grammar = Compiler::new(tokenizer).compile(&source).unwrap();
    (0..100).filter_map(|seed| babble(&grammar, tokenizer, &mut Rng::new(seed), 0, 200)).collect()
}

#[track_caller]
fn check(source: GrammarSource, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|text| text.to_string()).collect();
    assert_eq!(said(source, &demo()), expected);
}

#[test]
fn choices_and_expressions() {
    let choice = |choices: &[&str]| GrammarSource::Choice(choices.iter().map(|choice| choice.to_string()).collect());
    check(choice(&["yes", "no", "yes and no"]), &["no", "yes"]);
    check(choice(&["a\"b", "c\\d", "e\nf\u{7f}", "größe", "/x/"]), &["a\"b", "c\\d", "e\nf\u{7f}", "größe", "/x/"]);
    check(GrammarSource::Regex("^(foo|ba[rz])$".into()), &["foo", "bar", "baz"]);
    check(GrammarSource::Regex(r"a/b\/\\".into()), &[r"a/b/\"]);
    check(GrammarSource::Lark("start: A \"-\" b\nA: /[xy]/\nb: \"1\" | \"2\"".into()), &["x-1", "x-2", "y-1", "y-2"]);
    check(GrammarSource::Lark(r#"start: "go " %json {"enum":["a",1]}"#.into()), &["go \"a\"", "go 1"]);
    let object = r#"start: %json {"properties":{"a":{"const":1},"b":{"const":[2,3]}},
        "type":"object","required":["a","b"],"additionalProperties":false}"#;
    check(GrammarSource::Lark(object.into()), &[r#"{"a": 1, "b": [2, 3]}"#]);
}

#[test]
fn longer_choices_can_be_made() {
    let grammar =
        Compiler::new(&demo()).compile(&GrammarSource::Choice(vec!["yes".into(), "yes and no".into()])).unwrap();
    let (mut matcher, tokenizer) = (grammar.matcher(), demo());
    for token in tokenizer.encode_within("yes") {
        matcher.mask().unwrap();
        matcher.advance(token).unwrap();
    }
    let mask = matcher.mask().unwrap();
    assert!(
        tokenizer.end_tokens().iter().all(|&end| mask.is_allowed(end)) && mask.num_set() > tokenizer.end_tokens().len()
    );
}

#[test]
fn special_tokens_go_by_their_names_and_are_never_text() {
    let tokenizer = tokenizer(&["call", "x"]);
    let compiler = Compiler::new(&tokenizer);
    let id = |name: &str| tokenizer.token_to_id(name).unwrap();
    for (source, tokens) in [
        ("start: <think> \"x\" </think>", vec![id("<think>"), id("x"), id("</think>")]),
        ("start: <[CALL]> \"x\"", vec![id("[CALL]"), id("x")]),
        (&format!("start: <[{}]> \"x\" // <nonsense>", id("[CALL]")), vec![id("[CALL]"), id("x")]),
    ] {
        let grammar = compiler.compile(&GrammarSource::Lark(source.into())).unwrap();
        let mut matcher = grammar.matcher();
        for &token in &tokens {
            let mask = matcher.mask().unwrap();
            assert_eq!(mask.to_list(), [token], "{source}");
            matcher.advance(token).unwrap();
        }
        assert!(matcher.is_complete() || matcher.mask().unwrap().to_list() == tokenizer.end_tokens(), "{source}");
    }
    // As text, the same characters are other tokens.
    let grammar = compiler.compile(&GrammarSource::Regex("(<think>|\\[CALL\\])x".into())).unwrap();
    let mask = grammar.matcher().mask().unwrap();
    assert!(["<think>", "[CALL]", "<s>", "</s>"].iter().all(|name| !mask.is_allowed(id(name))));
    let unknown = compiler.compile(&GrammarSource::Lark("start: <nonsense>".into()));
    assert!(unknown.unwrap_err().to_string().contains("no token <nonsense>"));
}

#[test]
fn one_source_is_compiled_once() {
    let compiler = Compiler::new(&demo());
    let source = schema(r#"{"type":"object","properties":{"a":{"type":"string"}}}"#);
    let (tell, told) = mpsc::channel();
    for _ in 0..32 {
        let tell = tell.clone();
        compiler.compile_then(source.clone(), Box::new(move |outcome| tell.send(outcome.unwrap()).unwrap()));
    }
    let grammars: Vec<Grammar> = (0..32).map(|_| told.recv_timeout(Duration::from_secs(60)).unwrap()).collect();
    assert!(grammars.iter().all(|grammar| *grammar == grammars[0]), "compiled more than once");
    assert_eq!(compiler.compile(&source).unwrap(), grammars[0]);
    // Enough others, and it is forgotten; the grammar itself lives on.
    for i in 0..40 {
        compiler.compile(&GrammarSource::Choice(vec![i.to_string()])).unwrap();
    }
    assert_ne!(compiler.compile(&source).unwrap(), grammars[0]);
    assert!(babble(&grammars[0], &demo(), &mut Rng::new(1), 0, 800).is_some());
}

#[test]
fn an_asker_that_panics_hurts_nobody() {
    let compiler = Compiler::new(&demo());
    compiler.compile_then(GrammarSource::Regex("a".into()), Box::new(|_| panic!("staged")));
    compiler.compile(&GrammarSource::Regex("b".into())).unwrap();
}

/// A lexer that many share and that one has broken is left to that one.
#[test]
fn a_broken_lexer_is_replaced() {
    let tokenizer = demo();
    let grammar = Compiler::new(&tokenizer).compile(&GrammarSource::Regex("[a-z]+ [0-9]+".into())).unwrap();
    let (mut one, mut other) = (grammar.matcher(), grammar.matcher());
    let token = tokenizer.encode_within("a")[0];
    other.mask().unwrap();
    other.advance(token).unwrap();
    let expected = other.clone().mask().unwrap().to_list();
    one.break_lexer();
    assert_eq!(other.mask().unwrap().to_list(), expected);
    // So do those who come later.
    let mut later = grammar.matcher();
    later.mask().unwrap();
    later.advance(token).unwrap();
    assert_eq!(later.mask().unwrap().to_list(), expected);
}
