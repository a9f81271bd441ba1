//! What a template can: tried out once, when it is loaded, with conversations that have marks to look for.
//!
//! Templates say nowhere what they take. Some want arguments of calls as objects and others as text, some know no system
//! message, some want ids of nine characters: what a trial prints, or that it fails, tells.

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::program::Program;

/// What a chat template takes of a conversation. What it does not, [`ChatTemplate::render`](super::ChatTemplate::render)
/// writes in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TemplateCapabilities {
    /// Messages of the system.
    pub supports_system_role: bool,
    /// It shows the model the tools.
    pub supports_tools: bool,
    /// It writes calls of the assistant.
    pub supports_tool_calls: bool,
    /// It writes messages with results.
    pub supports_tool_role: bool,
    /// Several calls in one message.
    pub supports_parallel_tool_calls: bool,
    /// Texts as they are.
    pub supports_string_content: bool,
    /// Texts in a list of parts.
    pub supports_typed_content: bool,
    /// The arguments of a call are wanted as an object; else as JSON text.
    pub supports_object_arguments: bool,
    /// It writes an earlier message's thoughts where it still wants them.
    pub supports_reasoning_content: bool,
    /// The variable that turns thoughts on and off, if there is one.
    pub thinking_switch: Option<&'static str>,
    /// What a message with calls and without text has for its text.
    #[serde(skip)]
    pub(super) no_text: NoText,
    /// Ids of calls have nine characters (Mistral).
    #[serde(skip)]
    pub(super) short_ids: bool,
}

/// What stands for a text that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoText {
    Empty,
    Null,
    Missing,
}

const MARK: &str = "mark5831";
const RESULT: &str = "result5831";
const KEY: &str = "key5831";
const OTHER: &str = "other5831";

impl TemplateCapabilities {
    /// Tries `program` out; `with_tools` is the one for conversations with tools. `bos` and `eos`: how it spells these tokens.
    pub(super) fn of(program: &Program, with_tools: &Program, bos: &str, eos: &str) -> Self {
        let plain = Trial { program, bos, eos };
        let tools = Trial { program: with_tools, bos, eos };

        let strings = plain.shows(json!([user(MARK.into())]), &[MARK]);
        let parts = plain.prints(json!([user(json!([{ "type": "text", "text": MARK }]))]));
        // A list that is printed as it is shows its keys.
        let parts =
            parts.is_some_and(|text| text.contains(MARK) && !text.contains("'type'") && !text.contains("\"type\""));
        let system = json!([{ "role": "system", "content": MARK }, user("Hi".into())]);
        let thoughts =
            json!([user("Hi".into()), { "role": "assistant", "content": "Yes.", "reasoning_content": MARK }]);

        let calls = tools.calls();
        Self {
            supports_system_role: plain.shows(system, &[MARK]) || !strings,
            supports_tools: tools
                .with(json!([user("Hi".into())]), [("tools", tool())])
                .is_some_and(|text| text.contains(MARK)),
            supports_tool_calls: calls.is_some(),
            supports_tool_role: tools.shows(calls.unwrap_or(PLAIN).conversation(1, true), &[RESULT]),
            supports_parallel_tool_calls: calls
                .is_some_and(|calls| tools.shows(calls.conversation(2, false), &[MARK, OTHER])),
            supports_string_content: strings || !parts,
            supports_typed_content: parts,
            supports_object_arguments: calls.is_none_or(|calls| calls.objects),
            supports_reasoning_content: plain.shows(thoughts, &[MARK]),
            thinking_switch: ["enable_thinking", "thinking"].into_iter().find(|name| plain.depends_on(name)),
            no_text: calls.map_or(NoText::Empty, |calls| calls.no_text),
            short_ids: calls.is_some_and(|calls| calls.short_ids),
        }
    }
}

fn user(content: Json) -> Json {
    json!({ "role": "user", "content": content })
}

fn tool() -> Json {
    let parameters =
        json!({ "type": "object", "properties": { "a": { "type": "string", "description": "d" } }, "required": ["a"] });
    json!([{ "type": "function", "function": { "name": MARK, "description": "d", "parameters": parameters } }])
}

/// A way to write calls.
#[derive(Clone, Copy)]
struct Calls {
    objects: bool,
    no_text: NoText,
    short_ids: bool,
}

/// What any template can take.
const PLAIN: Calls = Calls { objects: true, no_text: NoText::Empty, short_ids: false };

impl Calls {
    /// A conversation with so many calls, and their results.
    fn conversation(self, count: usize, results: bool) -> Json {
        let ids = if self.short_ids { ["abcdefgh1", "abcdefgh2"] } else { ["call_abcdefgh1", "call_abcdefgh2"] };
        let arguments = json!({ KEY: "value5831" });
        let arguments = if self.objects { arguments } else { Json::from(arguments.to_string()) };
        let call =
            |(id, name)| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
        let calls: Vec<Json> = ids.into_iter().zip([MARK, OTHER]).take(count).map(call).collect();
        let mut message = json!({ "role": "assistant", "content": "", "tool_calls": calls });
        match self.no_text {
            NoText::Empty => {}
            NoText::Null => message["content"] = Json::Null,
            NoText::Missing => drop(message.as_object_mut().and_then(|message| message.remove("content"))),
        }
        let mut messages = vec![user("Hi".into()), message];
        if results {
            let result = |id| json!({ "role": "tool", "tool_call_id": id, "name": MARK, "content": RESULT });
            messages.extend(ids.into_iter().take(count).map(result));
        }
        messages.into()
    }
}

struct Trial<'a> {
    program: &'a Program,
    bos: &'a str,
    eos: &'a str,
}

impl Trial<'_> {
    fn with<const N: usize>(&self, messages: Json, variables: [(&str, Json); N]) -> Option<String> {
        let mut all = Map::from_iter([
            ("messages".to_owned(), messages),
            ("add_generation_prompt".to_owned(), true.into()),
            ("bos_token".to_owned(), self.bos.into()),
            ("eos_token".to_owned(), self.eos.into()),
            ("tools".to_owned(), Json::Null),
            ("documents".to_owned(), Json::Null),
        ]);
        all.extend(variables.map(|(name, value)| (name.to_owned(), value)));
        self.program.run(all).ok()
    }

    fn prints(&self, messages: Json) -> Option<String> {
        self.with(messages, [])
    }

    fn shows(&self, messages: Json, marks: &[&str]) -> bool {
        self.prints(messages).is_some_and(|text| marks.iter().all(|mark| text.contains(mark)))
    }

    /// Whether the value of a variable makes a difference.
    fn depends_on(&self, variable: &str) -> bool {
        let with = |value: bool| self.with(json!([user("Hi".into())]), [(variable, value.into())]);
        with(true) != with(false)
    }

    /// The first way in which calls are printed, with their arguments as JSON or in a form of the template's own.
    fn calls(&self) -> Option<Calls> {
        let texts = [NoText::Empty, NoText::Null, NoText::Missing];
        let ways = [true, false].into_iter().flat_map(|objects| {
            texts
                .into_iter()
                .flat_map(move |no_text| [false, true].map(move |short_ids| Calls { objects, no_text, short_ids }))
        });
        ways.into_iter().find(|calls| {
            [false, true].into_iter().any(|results| {
                self.prints(calls.conversation(1, results)).is_some_and(|text| {
                    // A dictionary printed as Python does is not what a model was taught.
                    text.contains(MARK) && text.contains(KEY) && !text.contains(&format!("'{KEY}'"))
                        // Nor is text in quotes where an object is meant.
                        && !text.contains(&format!("\\\"{KEY}"))
                })
            })
        })
    }
}
