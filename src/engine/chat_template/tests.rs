use std::time::{Duration, Instant};

use super::{capabilities::NoText, *};

const NONE: [Tool; 0] = [];

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source.to_owned(), "<s>", "</s>").unwrap()
}

fn weather() -> Tool {
    let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    Tool {
        name: "get_weather".into(),
        description: Some("Weather".into()),
        parameters: Some(parameters),
        strict: false,
    }
}

fn conversation<'a>(
    messages: &'a Json,
    tools: &'a [Tool],
    ending: Ending,
    variables: &'a Map<String, Json>,
) -> Conversation<'a> {
    Conversation { messages: messages.as_array().unwrap(), tools, documents: None, ending, variables }
}

#[track_caller]
fn render(source: &str, messages: &Json, tools: &[Tool], ending: Ending) -> Result<String, TemplateError> {
    template(source).render(&conversation(messages, tools, ending, &Map::new()))
}

/// What `source` prints of messages.
#[track_caller]
fn check(source: &str, messages: Json, expected: &str) {
    assert_eq!(render(source, &messages, &NONE, Ending::Reply).unwrap(), expected, "{source}\n{messages}");
}

#[track_caller]
fn prints(source: &str, expected: &str) {
    let value = json!({ "value": { "b": "<é&'\">", "a": [1, 2.5, null, true, {}, []] } });
    let program = Program::compile(source).unwrap();
    assert_eq!(program.run(value.as_object().unwrap().clone()).unwrap(), expected, "{source}");
}

#[test]
fn json_is_pythons() {
    prints("{{ value | tojson }}", r#"{"b": "<é&'\">", "a": [1, 2.5, null, true, {}, []]}"#);
    prints("{{ value.b | tojson(ensure_ascii=True) }}", r#""<\u00e9&'\">""#);
    prints("{{ value.a[:2] | tojson(indent=2) }}", "[\n  1,\n  2.5\n]");
    prints("{{ value.a[:2] | tojson(2) }}", "[\n  1,\n  2.5\n]");
    prints(
        "{{ value | tojson(separators=(',', ':'), sort_keys=True) }}",
        r#"{"a":[1,2.5,null,true,{},[]],"b":"<é&'\">"}"#,
    );
}

#[test]
fn blocks_are_trimmed_and_generation_marks_go() {
    prints("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc");
    prints("a {%- generation -%} b {%- endgeneration %} c", "ab c");
    prints("a\n{% generation %}\nb\n{% endgeneration %}\nc", "a\nb\nc");
}

/// Templates that would take all time or memory fail soon.
#[test]
fn templates_have_a_budget() {
    let endless = "{% for a in range(99999) %}".repeat(4) + &"{% endfor %}".repeat(4);
    let doubled = |operation: &str| {
        format!("{{% set ns = namespace(x='ab') %}}{{% for i in range(60) %}}{operation}{{% endfor %}}{{{{ ns.x }}}}")
    };
    for source in [
        endless,
        doubled("{% set ns.x = ns.x + ns.x %}"),
        doubled("{% set ns.x = ns.x ~ ns.x %}"),
        doubled("{% set ns.x = ns.x * 2 %}"),
        doubled("{% set ns.x = '%s%s' % (ns.x, ns.x) %}"),
        doubled("{% set ns.x = [ns.x, ns.x] | join %}"),
        doubled("{% set ns.x = ''.join([ns.x, ns.x]) %}"),
        doubled("{% set ns.x = ns.x | replace('a', ns.x) %}"),
        doubled("{% set ns.x = ns.x.replace('a', ns.x) %}"),
        doubled("{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"),
        doubled("{% set ns.x = ns.x | list + ns.x | list %}"),
        "{{ 'x' * 999999999 }}".to_owned(),
        "{{ [0] * 999999999 }}".to_owned(),
        "{{ 'x'.center(999999999) }}".to_owned(),
        "{% for i in range(99999) %}".repeat(2) + &"x".repeat(9999) + &"{% endfor %}".repeat(2),
        "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}".to_owned(),
    ] {
        let began = Instant::now();
        let ran = Program::compile(&source).unwrap().run(Map::new());
        assert!(matches!(ran, Err(TemplateError::Render(_))), "{source}");
        assert!(began.elapsed() < Duration::from_secs(20), "{source}: {:?}", began.elapsed());
    }
}

#[test]
fn errors_say_who_and_where() {
    let broken = ChatTemplate::new("line\n{% if %}".to_owned(), "", "").unwrap_err();
    assert!(broken.to_string().contains("line 2"), "{broken}");
    let refused = render("{{ raise_exception('no system role') }}", &json!([]), &NONE, Ending::Reply).unwrap_err();
    assert_eq!(refused.to_string(), "the chat template refuses these messages: no system role");
    assert!(render("{% include 'x' %}", &json!([]), &NONE, Ending::Reply).is_err());
}

const CHATML: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
const NO_SYSTEM: &str = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('none') }}{% endif %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}";
const PARTS: &str = "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}";
const CALLS: &str = "{% if tools %}<tools>{{ tools[0].function.name }} [TOOL_CALLS]{% endif %}{% for m in messages %}<{{ m.role }}>{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.id }} {{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}{% else %}{{ m.content }}{% endif %}{% endfor %}";

#[test]
fn messages_take_the_templates_form() {
    let parts =
        json!([{ "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] }]);
    check(CHATML, parts.clone(), "<user>ab<assistant>");
    check(PARTS, parts, "<user>ab");
    check(PARTS, json!([{ "role": "user", "content": "a" }]), "<user>a");
    check(
        CHATML,
        json!([{ "role": "developer", "content": "a" }, { "role": "assistant", "content": null }]),
        "<system>a<assistant><assistant>",
    );
    check(
        NO_SYSTEM,
        json!([{ "role": "system", "content": "a" }, { "role": "user", "content": "b" }, { "role": "system", "content": "c" }]),
        "<user>a\n\nb<user>c",
    );
    check(
        &format!("{{# developer #}}{CHATML}"),
        json!([{ "role": "developer", "content": "a" }]),
        "<developer>a<assistant>",
    );
}

fn called(arguments: Json) -> Json {
    let call = json!({ "id": "call_1234567890", "type": "function", "function": { "name": "get_weather", "arguments": arguments } });
    json!([
        { "role": "user", "content": "Oslo?" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "call_1234567890", "content": "21" },
    ])
}

#[test]
fn calls_take_the_templates_form() {
    let expected = "<user>Oslo?<assistant>call_1234567890 get_weather{\"city\": \"Oslo\"}<tool>21";
    for arguments in [json!("{\"city\": \"Oslo\"}"), json!({ "city": "Oslo" })] {
        let tools = [weather()];
        let prompt = render(CALLS, &called(arguments.clone()), &tools, Ending::Closed).unwrap();
        assert_eq!(prompt, format!("<tools>get_weather [TOOL_CALLS]{expected}"));
        // Text is wanted where it is printed as it is.
        let text = CALLS.replace(" | tojson", "");
        let prompt = render(&text, &called(arguments), &tools, Ending::Closed).unwrap();
        assert_eq!(
            prompt.replace("\": \"", "\":\""),
            format!("<tools>get_weather [TOOL_CALLS]{}", expected.replace("\": \"", "\":\""))
        );
    }
    // Ids of nine characters, and content that must be missing.
    let strict = CALLS
        .replace("{{ c.id }}", "{% if c.id | length != 9 %}{{ raise_exception('9') }}{% endif %}{{ c.id }}")
        .replace("{% if m.tool_calls %}", "{% if m.content is none %}");
    let capabilities = *template(&strict).capabilities();
    assert!(capabilities.short_ids && capabilities.no_text == NoText::Null, "{capabilities:?}");
    let prompt = render(&strict, &called(json!("{}")), &[weather()], Ending::Closed).unwrap();
    let id = prompt.split("<assistant>").nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(id.len(), 9, "{prompt}");
}

#[test]
fn tools_are_put_into_words_for_templates_without() {
    let prompt = render(CHATML, &called(json!("{\"city\": \"Oslo\"}")), &[weather()], Ending::Reply).unwrap();
    let (system, rest) = prompt.split_once("<user>").unwrap();
    assert!(
        system.starts_with("<system>") && system.contains("\"get_weather\"") && system.contains("tool_calls"),
        "{system}"
    );
    assert_eq!(
        rest,
        "Oslo?<assistant>{\"tool_calls\": [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}]}<user>Result of the call: 21<assistant>"
    );
    let prompt = render(NO_SYSTEM, &called(json!("{}")), &[weather()], Ending::Reply).unwrap();
    assert!(prompt.starts_with("<user>You can call") && prompt.contains("\n\nOslo?"), "{prompt}");
}

/// A template may show tools and write no calls.
#[test]
fn calls_are_text_where_the_template_writes_none() {
    let source = format!("{{% if tools %}}{{{{ tools | tojson }}}}<tool_call>{{% endif %}}|{CHATML}");
    let prompt = render(&source, &called(json!("{\"city\": \"Oslo\"}")), &[weather()], Ending::Closed).unwrap();
    let (tools, rest) = prompt.split_once('|').unwrap();
    assert!(tools.contains("get_weather"), "{tools}");
    let call = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";
    assert_eq!(rest, format!("<user>Oslo?<assistant>{call}<tool>21"));
}

#[test]
fn messages_are_continued() {
    let messages = json!([{ "role": "user", "content": "Count" }, { "role": "assistant", "content": "One, " }]);
    let open = |source: &str| render(source, &messages, &NONE, Ending::Open);
    assert_eq!(open(CHATML).unwrap(), "<user>Count<assistant>One, ");
    assert_eq!(open(NO_SYSTEM).unwrap(), "<user>Count<assistant>One,");
    assert!(open("{{ messages[0].content }}").is_err());
    assert!(render(CHATML, &json!([{ "role": "user", "content": "a" }]), &NONE, Ending::Open).is_err());
}

#[test]
fn variables_replace_nothing() {
    let variables =
        json!({ "messages": [], "tools": [1], "bos_token": "x", "mood": "gay", "add_generation_prompt": false });
    let template = template("{{ mood }}{{ bos_token }}{{ tools }}{{ messages | length }}{{ add_generation_prompt }}");
    let messages = json!([{ "role": "user", "content": "a" }]);
    let asked = conversation(&messages, &NONE, Ending::Reply, variables.as_object().unwrap());
    assert_eq!(template.render(&asked).unwrap(), "gay<s>None1True");
}

#[test]
fn the_template_for_tools_is_taken_with_tools() {
    let sources = TemplateSources::of_json(&json!([
        { "name": "default", "template": "plain" },
        { "name": "tool_use", "template": format!("tools {CALLS}") },
        { "name": "rag", "template": "rag" },
    ]));
    let template = ChatTemplate::new(sources.unwrap(), "", "").unwrap();
    let (messages, variables, tools) = (json!([{ "role": "user", "content": "a" }]), Map::new(), [weather()]);
    assert_eq!(template.render(&conversation(&messages, &NONE, Ending::Reply, &variables)).unwrap(), "plain");
    let prompt = template.render(&conversation(&messages, &tools, Ending::Reply, &variables)).unwrap();
    assert_eq!(prompt, "tools <tools>get_weather [TOOL_CALLS]<user>a");
    assert_eq!(TemplateSources::read("{\"chat_template\": \"x\"}"), Some("x".to_owned().into()));
    assert_eq!(TemplateSources::read("{{ x }}"), Some("{{ x }}".to_owned().into()));
    assert_eq!(TemplateSources::read("{}"), None);
}

/// What trials tell of templates in the repository.
#[test]
fn capabilities() {
    let of = |name: &str| {
        let path = format!("{}/tests/data/templates/{name}.jinja", env!("CARGO_MANIFEST_DIR"));
        let template = template(&std::fs::read_to_string(path).unwrap());
        (*template.capabilities(), template.calls())
    };
    let flags = |c: &TemplateCapabilities| {
        [
            c.supports_system_role,
            c.supports_tools,
            c.supports_tool_calls,
            c.supports_tool_role,
            c.supports_parallel_tool_calls,
            c.supports_typed_content,
        ]
        .map(u8::from)
    };
    // System, tools, calls, results, parallel calls, parts.
    for (name, expected, calls) in [
        ("chatml", [1, 1, 1, 1, 1, 0], Calls::Tagged),
        ("llama2", [1, 0, 0, 0, 0, 0], Calls::Generic),
        ("mistral_v1", [0, 0, 0, 0, 0, 0], Calls::Generic),
        ("mistral_v3", [1, 1, 1, 1, 1, 0], Calls::List { open: "[TOOL_CALLS]" }),
        ("mistral_tekken", [1, 1, 1, 1, 1, 1], Calls::Named),
        ("hermes", [1, 1, 1, 1, 1, 0], Calls::Tagged),
        ("llama3_tools", [1, 1, 1, 1, 0, 1], Calls::Bare),
        ("gemma", [1, 0, 0, 0, 0, 1], Calls::Generic),
        ("smollm3", [1, 1, 0, 1, 0, 0], Calls::Tagged),
        ("qwen3_style", [1, 1, 1, 1, 1, 1], Calls::Generic),
    ] {
        let (capabilities, found) = of(name);
        assert_eq!((flags(&capabilities), found), (expected, calls), "{name}");
    }
    assert_eq!(of("qwen3_style").0.thinking_switch, Some("enable_thinking"));
    assert_eq!(of("chatml").0.thinking_switch, Some("enable_thinking"));
    assert_eq!(of("zephyr").0.thinking_switch, None);
    assert!(of("mistral_v3").0.short_ids);
    assert_eq!(of("deepseek_r1").0.no_text, NoText::Null);
}
