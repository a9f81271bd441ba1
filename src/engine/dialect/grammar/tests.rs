use std::sync::Arc;

use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv},
};

use super::{super::*, *};

/// A token for each byte, and special ones behind them.
struct Bytes(TokTrie);

const END: u32 = 256;
/// Special tokens from 257 on.
const SPECIAL: [&str; 4] = [TOOL_CALLS, ARGS, PYTHON_TAG, LIST_TAG];

impl TokenizerEnv for Bytes {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        bytes.iter().map(|byte| TokenId::from(*byte)).collect()
    }
}

fn environment() -> TokEnv {
    let mut words: Vec<Vec<u8>> = (0..=255).map(|byte: u8| vec![byte]).collect();
    words.extend(
        ["</s>"].iter().chain(&SPECIAL).map(|name| [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat()),
    );
    Arc::new(Bytes(TokTrie::from(&TokRxInfo::new(words.len() as u32, END), &words)))
}

/// The tokens of an answer in which tags of `dialect` that are special are tokens.
fn tokens(dialect: &Dialect, answer: &str) -> Vec<u32> {
    let mut tokens = Vec::new();
    let mut rest = answer;
    'answer: while let Some(first) = rest.bytes().next() {
        for (tag, id) in &dialect.special {
            if let Some(behind) = rest.strip_prefix(tag) {
                tokens.push(*id);
                rest = behind;
                continue 'answer;
            }
        }
        tokens.push(first.into());
        rest = std::str::from_utf8(&rest.as_bytes()[1..]).unwrap();
    }
    tokens
}

/// Whether the grammar allows this answer, whole.
fn allows(dialect: &Dialect, source: &GrammarSource, answer: &str) -> bool {
    let GrammarSource::Lark(lark) = source else { panic!("{source:?}") };
    let environment = environment();
    let factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &[]).unwrap();
    let parser = factory.create_parser(TopLevelGrammar::from_lark(lark.clone()));
    let mut matcher = Matcher::new(Ok(parser.unwrap_or_else(|e| panic!("{e}\n{lark}"))));
    for token in tokens(dialect, answer) {
        // A matcher that allows nothing more has stopped.
        if matcher.is_stopped() || !matcher.compute_mask().unwrap().is_allowed(token) {
            return false;
        }
        matcher.consume_token(token).unwrap();
    }
    matcher.is_stopped() || matcher.is_accepting().unwrap()
}

fn dialect(calls: Calls, special: bool) -> Dialect {
    let id = |tag| SPECIAL.iter().position(|name| *name == tag).map(|index| (tag, END + 1 + index as u32));
    Dialect { thoughts: None, calls, special: calls.tags().filter_map(id).filter(|_| special).collect() }
}

fn tools(strict: bool) -> Vec<Tool> {
    let parameters = json!({
        "properties": { "city": { "type": "string" }, "days": { "type": "integer" } },
        "required": ["city"],
        "additionalProperties": false,
        // What the engine's own compiler adds to every schema.
        "x-guidance": { "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " },
    });
    let f = Tool { name: "f".into(), description: None, parameters: None, strict: false };
    vec![Tool { name: "get_weather".into(), parameters: Some(parameters), strict, ..f.clone() }, f]
}

const GOOD: &str = "{\"city\": \"Oslo\", \"days\": 3}";
const BAD: &str = "{\"town\": \"Oslo\"}";

/// How each dialect writes calls: special tags or not, one call, and what stands between two.
const DIALECTS: [(Calls, bool, &str, &str, &str, &str); 8] = [
    (Calls::Tagged, false, "<tool_call>\n{\"name\": \"NAME\", \"arguments\": ARGUMENTS}\n</tool_call>", "\n", "", ""),
    (
        Calls::List { open: TOOL_CALLS },
        true,
        "{\"name\": \"NAME\", \"arguments\": ARGUMENTS}",
        ", ",
        "[TOOL_CALLS][",
        "]",
    ),
    (
        Calls::List { open: LIST_TAG },
        false,
        "{\"name\": \"NAME\", \"arguments\": ARGUMENTS}",
        ", ",
        "<|tool_call|>[",
        "]",
    ),
    (Calls::Named, true, "[TOOL_CALLS]NAME[ARGS]ARGUMENTS", "", "", ""),
    (Calls::Named, false, "[TOOL_CALLS]NAME[ARGS]ARGUMENTS", "", "", ""),
    (Calls::Bare, true, "{\"name\": \"NAME\", \"parameters\": ARGUMENTS}", "; ", "<|python_tag|>", ""),
    (Calls::Bare, false, "{\"name\": \"NAME\", \"parameters\": ARGUMENTS}", "; ", "", ""),
    (Calls::Generic, false, "{\"name\": \"NAME\", \"arguments\": ARGUMENTS}", ", ", "{\"tool_calls\": [", "]}"),
];

/// `calls` written by the dialect in row `row`.
fn written(row: usize, calls: &[(&str, &str)]) -> String {
    let (_, _, call, between, before, behind) = DIALECTS[row];
    let calls: Vec<String> =
        calls.iter().map(|(name, arguments)| call.replace("NAME", name).replace("ARGUMENTS", arguments)).collect();
    format!("{before}{}{behind}", calls.join(between))
}

/// Text, calls behind it, and whether a grammar allows them.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], bool);

#[track_caller]
fn check(choice: &ToolChoice, strict: bool, parallel: bool, cases: &[Case]) {
    for (row, (calls, special, ..)) in DIALECTS.into_iter().enumerate() {
        let dialect = dialect(calls, special);
        let grammar = dialect.tool_grammar(&tools(strict), choice, parallel).unwrap();
        for (text, calls, expected) in cases {
            // Some dialects have calls or text, not both.
            if !text.trim().is_empty() && !calls.is_empty() && matches!(dialect.calls, Calls::Bare | Calls::Generic) {
                continue;
            }
            let answer = format!("{text}{}", if calls.is_empty() { String::new() } else { written(row, calls) });
            assert_eq!(allows(&dialect, &grammar, &answer), *expected, "{choice:?}, {:?}: {answer}", dialect.calls);
            // What a grammar allows, a reader reads.
            if *expected && !calls.is_empty() {
                let mut reader = dialect.reader(["f", "get_weather"], false);
                let mut deltas = reader.push(&answer);
                deltas.extend(reader.finish());
                let read = deltas.iter().filter(|delta| matches!(delta, Delta::ToolCall { .. })).count();
                assert_eq!((read, reader.is_cut()), (calls.len(), false), "{answer}: {deltas:?}");
            }
        }
    }
}

#[test]
fn forced_calls() {
    let one: &[(&str, &str)] = &[("get_weather", GOOD)];
    let other: &[(&str, &str)] = &[("f", "{}")];
    let two: &[(&str, &str)] = &[("get_weather", GOOD), ("f", "{\"a\": [1]}")];
    let bad: &[(&str, &str)] = &[("get_weather", BAD)];
    let unknown: &[(&str, &str)] = &[("g", "{}")];
    let mut cases = vec![("", one, true), ("\n\n", one, true), ("", other, true), ("", two, true), ("", bad, false)];
    cases.extend([("", unknown, false), ("", &[][..], false), ("Hello", &[], false), ("Hello ", one, false)]);
    check(&ToolChoice::Required, false, true, &cases);
    cases[3].2 = false;
    check(&ToolChoice::Required, false, false, &cases);
    cases[2].2 = false;
    check(&ToolChoice::Named("get_weather".into()), false, false, &cases);
}

#[test]
fn free_calls_of_strict_tools() {
    let one: &[(&str, &str)] = &[("get_weather", GOOD)];
    let loose: &[(&str, &str)] = &[("f", "{\"a\": [1]}")];
    let bad: &[(&str, &str)] = &[("get_weather", BAD)];
    let none: &[(&str, &str)] = &[];
    let mut cases = vec![("", none, true), ("Hello <b> [x] {\"city\": 1}\n", none, true), ("I look.\n\n", one, true)];
    cases.extend([("", one, true), ("", loose, true), ("", bad, false), ("Hm. ", bad, false)]);
    check(&ToolChoice::Auto, true, true, &cases);
    check(&ToolChoice::Auto, true, false, &cases);
}

#[test]
fn nothing_is_held_without_need_and_nothing_fails_open() {
    let dialect = dialect(Calls::Tagged, false);
    assert_eq!(dialect.tool_grammar(&tools(false), &ToolChoice::Auto, true), None);
    assert_eq!(dialect.tool_grammar(&tools(true), &ToolChoice::None, true), None);
    let nobody = dialect.tool_grammar(&tools(true), &ToolChoice::Named("g".into()), true);
    assert_eq!(nobody, Some(GrammarSource::Choice(Vec::new())));
}
