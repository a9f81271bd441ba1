use super::{super::TOOL_CALLS, *};

const THINK: Option<Thoughts> = Some(Thoughts { open: "<think>", close: "</think>" });

/// Short for what a reader gives: `T` thought, `X` text, `C` a call's name, `A` its arguments.
fn shown(deltas: Vec<Delta>) -> Vec<String> {
    let mut merged: Vec<String> = Vec::new();
    let mut last_kind = ' ';
    for delta in deltas {
        let (kind, text) = match delta {
            Delta::Thought(text) => ('T', text),
            Delta::Text(text) => ('X', text),
            Delta::ToolCall { index, name } => ('C', format!("{index} {name}")),
            Delta::Arguments { index: _, fragment } => ('A', fragment),
        };
        assert!(!text.is_empty(), "an empty {kind}");
        match merged.last_mut() {
            Some(last) if kind == last_kind && kind != 'C' => last.push_str(&text),
            _ => merged.push(format!("{kind} {text}")),
        }
        last_kind = kind;
    }
    merged
}

struct Case {
    thoughts: Option<Thoughts>,
    calls: Calls,
    tools: &'static [&'static str],
    thinking: bool,
}

impl Case {
    fn reader(&self) -> Reader {
        let tools = self.tools.iter().map(|name| (*name).to_owned()).collect();
        Reader::new(self.thoughts, self.calls, tools, self.thinking)
    }

    /// The answer whole, cut in two at every place, and a character at a time gives `expected`.
    #[track_caller]
    fn check(&self, answer: &str, expected: &[&str]) {
        let chars = answer.chars().map(String::from).collect::<Vec<_>>();
        let cuts = answer.char_indices().map(|(at, _)| vec![answer[..at].to_owned(), answer[at..].to_owned()]);
        for pieces in cuts.chain([chars]) {
            let mut reader = self.reader();
            let mut deltas: Vec<Delta> = pieces.iter().flat_map(|piece| reader.push(piece)).collect();
            deltas.extend(reader.finish());
            assert_eq!(shown(deltas), expected, "in pieces {pieces:?}");
        }
    }
}

const PLAIN: Case = Case { thoughts: THINK, calls: Calls::Generic, tools: &[], thinking: false };
const HERMES: Case = Case { thoughts: THINK, calls: Calls::Tagged, tools: &["f", "get_weather"], thinking: false };
const MISTRAL: Case = Case { thoughts: None, calls: Calls::List { open: TOOL_CALLS }, ..HERMES };
const TEKKEN: Case = Case { thoughts: None, calls: Calls::Named, ..HERMES };
const LLAMA: Case = Case { thoughts: None, calls: Calls::Bare, ..HERMES };
const GENERIC: Case = Case { thoughts: THINK, calls: Calls::Generic, ..HERMES };

#[test]
fn thoughts() {
    PLAIN.check("<think>\nLet me see.\n\nYes.\n</think>\n\nHello.\n", &["T Let me see.\n\nYes.", "X Hello.\n"]);
    PLAIN.check("\n<think>\n\n</think>\n\nHello", &["X Hello"]);
    PLAIN.check("<think>a < b </thin> c", &["T a < b </thin> c"]);
    PLAIN.check("<think>grüß 中", &["T grüß 中"]);
    PLAIN.check("Hello <think>no</think>", &["X Hello <think>no</think>"]);
    PLAIN.check("  two spaces\n", &["X   two spaces\n"]);
    PLAIN.check("<thinker>", &["X <thinker>"]);
    PLAIN.check(" \n ", &["X  \n "]);
    PLAIN.check("", &[]);
    let thinking = Case { thinking: true, ..PLAIN };
    thinking.check("Hm.\n</think>\n\nHello", &["T Hm.", "X Hello"]);
    thinking.check("\n<think>\nHm.</think>Hello", &["T Hm.", "X Hello"]);
    thinking.check("<b> is bold", &["T <b> is bold"]);
    thinking.check("</think>Hello", &["X Hello"]);
    let space = " ".repeat(100);
    thinking.check(&format!("a{space}b{space}</think>{space}c"), &[&format!("T a{space}b{}", &space[64..]), "X c"]);
    let none = Case { thoughts: None, ..PLAIN };
    none.check("<think>a</think>b", &["X <think>a</think>b"]);
    none.check("{\"tool_calls\": []} <tool_call>", &["X {\"tool_calls\": []} <tool_call>"]);
}

#[test]
fn tagged_calls() {
    HERMES.check(
        "<think>\nhm\n</think>\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\":  \"Oslo }\\\"{\"}}\n</tool_call>",
        &["T hm", "C 0 get_weather", "A {\"city\":  \"Oslo }\\\"{\"}"],
    );
    HERMES.check(
        "I look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"arguments\": {\"a\": [1, {\"b\": 2}]}, \"name\": \"f\"}\n</tool_call>\nDone.",
        &["X I look.", "C 0 f", "A {}", "C 1 f", "A {\"a\": [1, {\"b\": 2}]}", "X Done."],
    );
    HERMES.check("<tool_call>{\"name\":\"f\"}</tool_call>", &["C 0 f", "A {}"]);
    HERMES.check("<tool_call>{\"name\":\"f\",\"arguments\":null}</tool_call>", &["C 0 f", "A {}"]);
    HERMES.check("<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}</tool_call>", &["C 0 f", "A {\"a\":1}"]);
    // No call, so text, all of it.
    for text in [
        "a\n <tool_call>\n{\"name\": \"unknown\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\nf(1)\n</tool_call> b",
        "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
        "<tool_call>{\"name\": 1}</tool_call>",
        "<tool_call>{\"city\": \"Oslo\"}</tool_call>",
        "<tool_call>{}</tool_call>",
        "<tool_call>{\"name\": \"get_w",
        "x <tool_call",
        "1 < 2\n\n",
    ] {
        HERMES.check(text, &[&format!("X {text}")]);
    }
    HERMES.check(
        "<tool_call>oops<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_c",
        &["X <tool_call>oops", "C 0 f", "A {}"],
    );
    HERMES.check("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\": tr", &["C 0 f", "A {\"a\": tr"]);
    HERMES.check("<tool_call>{\"name\":\"f\",\"arguments\":{}oops}", &["C 0 f", "A {}", "X oops}"]);
}

#[test]
fn lists_of_calls() {
    MISTRAL.check(
        "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"abc\"}, {\"name\": \"get_weather\", \"arguments\": {}}]",
        &["C 0 f", "A {\"a\": 1}", "C 1 get_weather", "A {}"],
    );
    MISTRAL.check("Hello [TOOL] [TOOL_CALLS][]", &["X Hello [TOOL] [TOOL_CALLS][]"]);
    MISTRAL.check("[TOOL_CALLS]{\"name\":\"f\",\"arguments\":{}}", &["C 0 f", "A {}"]);
    MISTRAL.check("[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}", &["C 0 f", "A {}"]);
    MISTRAL.check(
        "[TOOL_CALLS][{\"name\": \"g\", \"arguments\": {}}]",
        &["X [TOOL_CALLS][{\"name\": \"g\", \"arguments\": {}}]"],
    );
    let granite = Case { calls: Calls::List { open: "<|tool_call|>" }, ..MISTRAL };
    granite.check("<|tool_call|>[{\"arguments\": {\"b\": {}}, \"name\": \"f\"}]", &["C 0 f", "A {\"b\": {}}"]);
    granite.check("<|tool_call|>f[ARGS]{}", &["X <|tool_call|>f[ARGS]{}"]);
}

#[test]
fn named_calls() {
    TEKKEN.check(
        "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]get_weather[CALL_ID]123[ARGS]{\"city\": \"Oslo\"}",
        &["C 0 f", "A {\"a\": 1}", "C 1 get_weather", "A {\"city\": \"Oslo\"}"],
    );
    TEKKEN.check("[TOOL_CALLS]f{}", &["C 0 f", "A {}"]);
    TEKKEN.check("[TOOL_CALLS]g[ARGS]{}", &["X [TOOL_CALLS]g[ARGS]{}"]);
    TEKKEN.check("[TOOL_CALLS]f\n[ARGS]{}", &["X [TOOL_CALLS]f\n[ARGS]{}"]);
    TEKKEN.check("[TOOL_CALLS]f[ARG", &["X [TOOL_CALLS]f[ARG"]);
    let long = format!("[TOOL_CALLS]{}", "x".repeat(300));
    TEKKEN.check(&long, &[&format!("X {long}")]);
}

#[test]
fn bare_calls() {
    LLAMA.check(
        "{\"name\": \"f\", \"parameters\": {\"a\": \"1\"}}; {\"name\": \"get_weather\", \"parameters\": {}}",
        &["C 0 f", "A {\"a\": \"1\"}", "C 1 get_weather", "A {}"],
    );
    LLAMA.check("\n{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}", &["C 0 f", "A {}"]);
    LLAMA.check("<|python_tag|>{\"name\": \"f\", \"parameters\": {}}\n", &["C 0 f", "A {}"]);
    LLAMA.check("<|python_tag|>f.call(a=1)", &["X <|python_tag|>f.call(a=1)"]);
    LLAMA.check("Sure: {\"name\": \"f\", \"parameters\": {}}", &["X Sure: {\"name\": \"f\", \"parameters\": {}}"]);
    LLAMA.check(" {\"city\": \"Oslo\"}", &["X  {\"city\": \"Oslo\"}"]);
    LLAMA.check("{\"name\": \"Ann\", \"age\": 3}", &["X {\"name\": \"Ann\", \"age\": 3}"]);
}

#[test]
fn generic_calls() {
    GENERIC.check(
        "<think>hm</think>\n{ \"tool_calls\": [\n{\"name\": \"f\", \"arguments\": {\"a\": 1}},\n{\"name\": \"f\", \"arguments\": {}}\n]\n}\n",
        &["T hm", "C 0 f", "A {\"a\": 1}", "C 1 f", "A {}"],
    );
    GENERIC.check("{\"tool_calls\": []}", &["X {\"tool_calls\": []}"]);
    GENERIC.check("{\"tool_call\": 1}", &["X {\"tool_call\": 1}"]);
    GENERIC.check("{\"tool_calls\": [{\"name\": \"f\", \"arguments\": {}}", &["C 0 f", "A {}"]);
    GENERIC.check("{}", &["X {}"]);
}

/// What is certain comes at once: fragments of arguments, and text that can't begin a tag.
#[test]
fn nothing_waits_without_need() {
    let mut reader = HERMES.reader();
    let mut step = |piece: &str, expected: &[&str]| assert_eq!(shown(reader.push(piece)), expected, "{piece}");
    step("<think>", &[]);
    step("One", &["T One"]);
    step(" two\n", &["T  two"]);
    step("</think>\n\nThree", &["X Three"]);
    step(" <tool", &[]);
    step("s>", &["X  <tools>"]);
    step("\n<tool_call>{\"name\": \"f\", \"arguments\": ", &[]);
    step("{", &["C 0 f", "A {"]);
    step("\"a\": ", &["A \"a\": "]);
    step("1}}", &["A 1}"]);
    assert_eq!((reader.calls(), reader.finish(), reader.is_cut()), (1, Vec::new(), false));
    let mut reader = LLAMA.reader();
    assert_eq!(shown(reader.push("{\"city")), [""; 0]);
    assert_eq!(shown(reader.push("\":")), ["X {\"city\":"]);
    reader = HERMES.reader();
    reader.push("<tool_call>{\"name\": \"f\", \"arguments\": {");
    assert_eq!((reader.finish(), reader.calls(), reader.is_cut()), (Vec::new(), 1, true));
}

/// Any soup of the dialects' pieces is read alike however it is cut, and nothing but tags and white space is lost.
#[test]
fn soup_is_read_alike_however_it_is_cut() {
    const PIECES: [&str; 22] = [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<|python_tag|>",
        "{",
        "}",
        "[",
        "]",
        "\"name\": \"f\"",
        "\"arguments\": {",
        "\"tool_calls\": [",
        ",",
        ";",
        "\"",
        "\\",
        "\n",
        " ",
        "é",
        "f",
    ];
    for seed in 0..3000_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        let answer: String = (0..draw(25)).map(|_| PIECES[draw(PIECES.len())]).collect();
        let calls = [HERMES, MISTRAL, TEKKEN, LLAMA, GENERIC];
        let case = Case { thinking: draw(2) == 0, thoughts: THINK, ..calls.into_iter().nth(draw(5)).unwrap() };
        let mut reader = case.reader();
        let mut whole = reader.push(&answer);
        whole.extend(reader.finish());
        let mut reader = case.reader();
        let mut cut: Vec<Delta> = answer.chars().flat_map(|c| reader.push(c.encode_utf8(&mut [0; 4]))).collect();
        cut.extend(reader.finish());
        assert_eq!(shown(whole.clone()), shown(cut), "seed {seed}: {answer:?}");
        if whole.iter().all(|delta| matches!(delta, Delta::Text(_))) && !answer.contains("think>") {
            let text: String = shown(whole).iter().map(|text| &text[2..]).collect();
            assert_eq!(text.replace(char::is_whitespace, ""), answer.replace(char::is_whitespace, ""), "seed {seed}");
        }
    }
}
