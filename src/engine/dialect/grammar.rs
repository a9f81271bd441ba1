//! What a model may write when it must call a tool, or once it does: grammars in Lark, with the schemas of arguments.
//!
//! They allow one way of writing, the one that chat templates show: the least to choose, and what a [`Reader`] reads.
//!
//! [`Reader`]: super::Reader

use serde_json::{Value, json};

use super::{ARGS, Calls, Dialect, PYTHON_TAG, TOOL_CALL, TOOL_CALLS, Tool, ToolChoice};
use crate::engine::grammar::GrammarSource;

impl Dialect {
    /// What holds a model to `choice`. `Required` and `Named`: it writes calls and nothing else, their arguments as the
    /// tools' schemas say. `Auto`: it writes what it likes, but once a call begins it is held to it; `None` where no tool is
    /// strict. `parallel`: there may be several calls.
    ///
    /// A grammar holds behind the thoughts only. One for a name that no tool has does not compile.
    pub fn tool_grammar(&self, tools: &[Tool], choice: &ToolChoice, parallel: bool) -> Option<GrammarSource> {
        let allowed: Vec<&Tool> = match choice {
            ToolChoice::None => return None,
            ToolChoice::Auto if !tools.iter().any(|tool| tool.strict) => return None,
            ToolChoice::Auto | ToolChoice::Required => tools.iter().collect(),
            ToolChoice::Named(name) => tools.iter().filter(|tool| tool.name == *name).collect(),
        };
        if allowed.is_empty() {
            // Fails closed: a choice of nothing is refused.
            return Some(GrammarSource::Choice(Vec::new()));
        }
        let is_forced = *choice != ToolChoice::Auto;
        let mut rules = match is_forced {
            // Models put line feeds behind their thoughts.
            true => vec!["start: LEAD? calls".to_owned(), "LEAD: /\\n{1,2}/".to_owned()],
            false => self.free_text(parallel),
        };
        rules.extend(self.calls_rules(is_forced, parallel));
        rules.push(format!("call: {}", each(&allowed, |index| format!("call_{index}")).join(" | ")));
        for (index, tool) in allowed.iter().enumerate() {
            rules.push(format!("call_{index}: {}", self.call_rule(tool, index)));
            let any = json!({ "type": "object" });
            let schema = tool.parameters.as_ref().filter(|_| is_forced || tool.strict).unwrap_or(&any);
            rules.push(format!("arguments_{index}: %json {}", as_object(schema)));
        }
        Some(GrammarSource::Lark(rules.join("\n")))
    }

    /// `start` for text in which calls may come.
    fn free_text(&self, parallel: bool) -> Vec<String> {
        let repeat = if parallel { "*" } else { "?" };
        match (self.calls, self.calls.opens()) {
            (Calls::Bare | Calls::Generic, _) => {
                // A call is the whole answer, so text is what does not begin like one.
                let first = match self.calls {
                    Calls::Generic => "\\{\\s*\"tool_calls\"",
                    _ => "(<\\|python_tag\\|>\\s*)?\\{\\s*\"(name|type|id|index|arguments|parameters)\"",
                };
                vec!["start: TEXT | calls".into(), format!("TEXT: /(?s:.*)/ & ~/\\s*{first}(?s:.*)/")]
            }
            (_, [open, ..]) if self.special(open).is_some() => {
                // No text ever holds a special token.
                vec![format!("start: (TEXT calls){repeat} TEXT"), "TEXT: /(?s:.*)/".into()]
            }
            (_, opens) => {
                let open = regex_escaped(opens.first().copied().unwrap_or_default());
                vec![
                    format!("start: (head calls){repeat} TEXT"),
                    format!("head[lazy]: /(?s:.*){open}/"),
                    format!("TEXT: /(?s:.*)/ & ~/(?s:.*){open}(?s:.*)/"),
                ]
            }
        }
    }

    /// `calls`: what stands around and between calls. In free text it is one tag's worth, and a tag that is text is part of
    /// the text before.
    fn calls_rules(&self, is_forced: bool, parallel: bool) -> Vec<String> {
        let open = |tag: &'static str| match self.special(tag) {
            None if !is_forced => String::new(),
            _ => self.tag(tag),
        };
        let list = |separator: &str| match parallel {
            true => format!("call ({} call)*", quoted(separator)),
            false => "call".into(),
        };
        let calls = match self.calls {
            Calls::Tagged if is_forced && parallel => "tagged (\"\\n\" tagged)*".into(),
            Calls::Tagged | Calls::Named if !is_forced || !parallel => "tagged".into(),
            Calls::Tagged | Calls::Named => "tagged+".into(),
            Calls::List { open: tag } => format!("{} \" \"? \"[\" {} \"]\"", open(tag), list(", ")),
            Calls::Bare => match self.special(PYTHON_TAG) {
                Some(_) => format!("{}? {}", self.tag(PYTHON_TAG), list("; ")),
                None => list("; "),
            },
            Calls::Generic => format!("{} {} \"]}}\"", quoted("{\"tool_calls\": ["), list(", ")),
        };
        let mut rules = vec![format!("calls: {calls}")];
        match self.calls {
            Calls::Tagged => {
                rules.push(format!("tagged: {} \"\\n\" call \"\\n\" {}", open(TOOL_CALL.0), self.tag(TOOL_CALL.1)))
            }
            Calls::Named => rules.push(format!("tagged: {} call", open(TOOL_CALLS))),
            _ => {}
        }
        rules
    }

    /// One call with a name.
    fn call_rule(&self, tool: &Tool, index: usize) -> String {
        let name = Value::from(tool.name.as_str());
        match self.calls {
            Calls::Named => format!("{} {} arguments_{index}", quoted(&tool.name), self.tag(ARGS)),
            Calls::Bare => {
                format!("{} arguments_{index} \"}}\"", quoted(&format!("{{\"name\": {name}, \"parameters\": ")))
            }
            _ => format!("{} arguments_{index} \"}}\"", quoted(&format!("{{\"name\": {name}, \"arguments\": "))),
        }
    }

    fn special(&self, tag: &str) -> Option<u32> {
        self.special.iter().find(|(special, _)| *special == tag).map(|(_, id)| *id)
    }

    /// A tag in a rule: the special token, or its text.
    fn tag(&self, tag: &str) -> String {
        self.special(tag).map_or_else(|| quoted(tag), |id| format!("<[{id}]>"))
    }
}

fn each(tools: &[&Tool], rule: impl Fn(usize) -> String) -> Vec<String> {
    (0..tools.len()).map(rule).collect()
}

/// Arguments are objects, whatever a schema leaves open.
fn as_object(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Value::Object(members) = &mut schema
        && !["type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"].iter().any(|key| members.contains_key(*key))
    {
        members.insert("type".into(), "object".into());
    }
    schema
}

/// A string of Lark: JSON's, without control characters.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A tag in a regular expression between slashes.
fn regex_escaped(tag: &str) -> String {
    let escaped = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c.to_string() } else { format!("\\{c}") };
    // `\<` means a boundary of words.
    tag.chars().map(|c| if matches!(c, '<' | '>') { c.to_string() } else { escaped(c) }).collect()
}

#[cfg(test)]
mod tests;
