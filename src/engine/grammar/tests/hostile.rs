//! Sources that ask for too much: each is answered soon, and nobody else waits for it.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use super::*;
use crate::engine::grammar::limits::COMPILE_TIME_MAX;

/// The limit of time for a compilation and what a busy machine adds.
const SOON: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 2 });

fn nested(open: &str, inner: &str, close: &str, depth: usize) -> String {
    open.repeat(depth) + inner + &close.repeat(depth)
}

/// `n` definitions that each refer to the next, which `describe` puts into a schema.
fn chain(n: usize, describe: impl Fn(&str) -> String) -> GrammarSource {
    let defs = (0..n).map(|i| format!("\"d{i}\":{}", describe(&format!("{{\"$ref\":\"#/$defs/d{}\"}}", (i + 1) % n))));
    let defs: Vec<String> = defs.collect();
    schema(&format!("{{\"$ref\":\"#/$defs/d0\",\"$defs\":{{{}}}}}", defs.join(",")))
}

fn many(n: usize, separator: &str, item: impl Fn(usize) -> String) -> String {
    (0..n).map(item).collect::<Vec<_>>().join(separator)
}

fn deep_value(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
}

fn hostile() -> Vec<(&'static str, GrammarSource)> {
    use GrammarSource::{Choice, JsonSchema, Lark, Regex};
    vec![
        ("references round", chain(3000, str::to_owned)),
        (
            "references to objects",
            chain(2000, |next| format!("{{\"type\":\"object\",\"properties\":{{\"x\":{next}}}}}")),
        ),
        ("references doubled", chain(1000, |next| format!("{{\"allOf\":[{next},{next}]}}"))),
        ("options doubled", chain(1000, |next| format!("{{\"anyOf\":[{next},{next},{{\"type\":\"null\"}}]}}"))),
        (
            "a huge enum",
            schema(&format!("{{\"enum\":[{}]}}", many(20_000, ",", |i| format!("\"value {}\"", i * 7919)))),
        ),
        ("many properties", {
            let properties = many(3_000, ",", |i| format!("\"p{i}\":{{\"type\":\"string\",\"maxLength\":{}}}", i + 3));
            schema(&format!("{{\"type\":\"object\",\"properties\":{{{properties}}}}}"))
        }),
        ("schemas in schemas", schema(&nested("{\"items\":", "{}", "}", 120))),
        ("a deep value", JsonSchema(deep_value(5_000))),
        ("a long string", schema(r#"{"type":"string","minLength":99999,"maxLength":100000}"#)),
        ("a long list", schema(r#"{"type":"array","items":{"type":"integer"},"minItems":99999,"maxItems":100000}"#)),
        ("pattern and length", {
            schema(r#"{"type":"string","pattern":"^[a-z]*x[a-z]{50}y[a-z]*$","minLength":100,"maxLength":1000}"#)
        }),
        ("remainders", schema(r#"{"type":"number","multipleOf":9999,"minimum":-1e15,"maximum":1e15}"#)),
        ("repetitions", Regex("(a|b|cc){1,100000}".into())),
        ("repetitions repeated", Regex("((a{1,1000}){1,1000}){1,1000}".into())),
        ("backtracking", Regex("(.*a){25}(.*b){25}x".into())),
        ("states", Regex(".*x.{5000}".into())),
        ("unicode", Regex(r"(\p{L}|\p{N}|\p{S}){1,10000}\P{Lu}*".into())),
        ("alternatives", Regex(many(20_000, "|", |i| format!("word{i}x")))),
        ("parentheses", Regex(nested("(", "a", ")", 100_000))),
        ("a long expression", Regex("abcdefghij".repeat(20_000))),
        ("10 MB", Lark("start: \"a\"\n".repeat(1_000_000))),
        ("a long choice", Choice(vec!["x".repeat(10 << 20)])),
        ("parentheses in Lark", Lark(format!("start: {}", nested("(", "\"a\"", ")", 100_000)))),
        (
            "rules that double",
            Lark(many(5_000, "\n", |i| format!("r{i}: \"a\" r{0} | r{0} \"b\"", i + 1)) + "\nr5000: \"c\"\nstart: r0"),
        ),
        ("ambiguity", Lark("start: start start | start start start | \"a\" | \"\"".into())),
        (
            "many terminals",
            Lark(format!(
                "{}\nstart: {}",
                many(3_000, "\n", |i| format!("R{i}: /a{{{i}}}b*c?/")),
                many(3_000, " | ", |i| format!("R{i}"))
            )),
        ),
        ("a schema within Lark", Lark(format!("start: %json {}", nested("[", "1", "]", 100_000)))),
        ("a lenient schema within Lark", Lark("start: %json {\"x-guidance\":{\"lenient\":true},\"not\":{}}".into())),
    ]
}

#[test]
fn hostile_sources_are_answered_soon() {
    let tokenizer = demo();
    let compiler = Compiler::new(&tokenizer);
    compiler.compile(&GrammarSource::JsonObject).unwrap();
    for (what, source) in hostile() {
        let asked = Instant::now();
        let outcome = compiler.compile(&source);
        assert!(asked.elapsed() < SOON, "{what} took {:?}", asked.elapsed());
        // What compiles after all says something, or fails by itself; each mask in bounded time.
        let Ok(grammar) = outcome else { continue };
        let (mut matcher, mut rng) = (grammar.matcher(), Rng::new(1));
        for _ in 0..20 {
            let asked = Instant::now();
            let Ok(mask) = matcher.mask() else { break };
            assert!(asked.elapsed() < SOON, "a mask of {what} took {:?}", asked.elapsed());
            let allowed = mask.to_list();
            if matcher.advance(allowed[rng.within(0, allowed.len())]).is_err() || matcher.is_complete() {
                break;
            }
        }
    }
}

/// All of them at once, and behind them one that is good: it is served, or told soon that the compiler is busy.
#[test]
fn hostile_sources_do_not_hold_up_others() {
    let compiler = Compiler::new(&demo());
    compiler.compile(&GrammarSource::JsonObject).unwrap();
    let (tell, told) = mpsc::channel();
    for (what, source) in hostile() {
        let tell = tell.clone();
        compiler.compile_then(source, Box::new(move |_| tell.send(what).unwrap()));
    }
    let asked = Instant::now();
    let good = GrammarSource::Choice(vec!["yes".into(), "no".into()]);
    let mut outcome = compiler.compile(&good);
    assert!(matches!(outcome, Ok(_) | Err(GrammarError::Busy)), "{outcome:?}");
    assert!(asked.elapsed() < SOON + COMPILE_TIME_MAX, "{:?}", asked.elapsed());
    // Everybody is told, and threads that were late end: then there is room again.
    assert_eq!((0..hostile().len()).filter_map(|_| told.recv_timeout(SOON).ok()).count(), hostile().len());
    while outcome.is_err() {
        assert!(asked.elapsed() < 12 * SOON, "late compilations never ended");
        outcome = compiler.compile(&good);
    }
}
