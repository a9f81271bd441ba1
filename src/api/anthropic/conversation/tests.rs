//! Conversations as they are read.

use super::*;

fn read(body: Value) -> Result<Chat, ApiError> {
    let mut fields = Fields::parse(body.to_string().as_bytes())?;
    let mut chat = Chat::default();
    super::read(&mut fields, &mut chat)?;
    fields.finish()?;
    Ok(chat)
}

#[test]
fn blocks_become_messages() {
    let cached = json!({"type": "ephemeral", "ttl": "1h"});
    let chat = read(json!({
        "system": [{"type": "text", "text": "Be brief.\n", "cache_control": cached}, {"type": "text", "text": "Rhyme."}],
        "messages": [
            {"role": "user", "content": "Add."},
            {"role": "user", "content": [{"type": "text", "text": "1 and"}, {"type": "text", "text": " 2"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "redacted_thinking", "data": "…"},
                {"type": "text", "text": "So", "citations": null},
                {"type": "tool_use", "id": "a", "name": "add", "input": {"x": 1}, "caller": {"type": "direct"}},
                {"type": "tool_use", "id": "b", "name": "sub", "input": {}, "cache_control": cached},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "b", "is_error": true, "content": "no"},
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "3"}]},
                {"type": "text", "text": "Well?"},
            ]},
            {"role": "assistant", "content": "It is"},
        ]
    }))
    .unwrap();
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let expected = json!([
        {"role": "system", "content": "Be brief.\nRhyme."},
        {"role": "user", "content": "Add.\n\n1 and 2"},
        {"role": "assistant", "content": "So", "reasoning_content": "hm",
         "tool_calls": [call("a", "add", "{\"x\":1}"), call("b", "sub", "{}")]},
        {"role": "tool", "tool_call_id": "b", "name": "sub", "content": "Error: no"},
        {"role": "tool", "tool_call_id": "a", "name": "add", "content": "3"},
        {"role": "user", "content": "Well?"},
        {"role": "assistant", "content": "It is"},
    ]);
    assert_eq!((json!(chat.messages), chat.continues), (expected, true));
}

#[test]
fn an_answer_without_text_can_come_back() {
    for nothing in [json!(""), json!([]), json!([{"type": "text", "text": ""}])] {
        let chat =
            read(json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": nothing}]}))
                .unwrap();
        assert_eq!((chat.messages.len(), chat.continues), (1, false));
    }
}

#[test]
fn errors_name_the_place() {
    let used = json!({"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]});
    let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id});
    let of_user = |block: Value| json!([{"role": "user", "content": [block]}]);
    for (messages, param) in [
        (json!("Hi"), "messages"),
        (json!([]), "messages"),
        (json!([1]), "messages[0]"),
        (json!([{"content": "a"}]), "messages[0].role"),
        (json!([{"role": "tool", "content": "a"}]), "messages[0].role"),
        (json!([{"role": "user"}]), "messages[0].content"),
        (json!([{"role": "user", "content": ""}]), "messages[0].content"),
        (json!([{"role": "user", "content": []}]), "messages[0].content"),
        (json!([{"role": "user", "content": 1}]), "messages[0].content"),
        (json!([{"role": "user", "content": "a", "name": "b"}]), "messages[0].name"),
        (of_user(json!("a")), "messages[0].content[0]"),
        (of_user(json!({})), "messages[0].content[0].type"),
        (of_user(json!({"type": "text"})), "messages[0].content[0].text"),
        (of_user(json!({"type": "text", "text": ""})), "messages[0].content[0]"),
        (of_user(json!({"type": "text", "text": "a", "x": 1})), "messages[0].content[0].x"),
        (of_user(json!({"type": "text", "text": "a", "citations": [1]})), "messages[0].content[0].citations"),
        (
            of_user(json!({"type": "text", "text": "a", "cache_control": {"type": "x"}})),
            "messages[0].content[0].cache_control.type",
        ),
        (of_user(json!({"type": "thinking", "thinking": "a"})), "messages[0].content[0].type"),
        (of_user(json!({"type": "document", "source": {}})), "messages[0].content[0]"),
        (of_user(json!({"type": "web_search_tool_result"})), "messages[0].content[0]"),
        (
            of_user(json!({"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/x.png"}})),
            "messages[0].content[0]",
        ),
        (of_user(result("a")), "messages[0].content[0].tool_use_id"),
        (json!([used]), "messages[0]"),
        (json!([used, {"role": "user", "content": "a"}]), "messages[1]"),
        (json!([used, {"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]), "messages[2]"),
        (json!([used, {"role": "user", "content": [result("a"), result("a")]}]), "messages[1].content[1].tool_use_id"),
        (
            json!([used, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image"}]}]}]),
            "messages[1].content[0].content[0]",
        ),
        (
            json!([{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": "{}"}]}]),
            "messages[0].content[0].input",
        ),
    ] {
        let error = read(json!({"messages": messages})).unwrap_err();
        assert_eq!((error.status(), error.param()), (400, Some(param)), "{messages}: {error}");
    }
    assert_eq!(read(json!({"system": [{"type": "image"}]})).unwrap_err().param(), Some("system[0]"));
    assert_eq!(read(json!({})).unwrap_err().param(), Some("messages"));
}
