//! The items of a response's output.

use serde_json::{Value, json};

use crate::api::{
    answer::{Choice, Scored},
    openai::logprobs,
    request_id::RequestId,
};

/// One item.
#[derive(Debug, Clone)]
pub struct Item {
    pub id: String,
    pub body: Body,
}

#[derive(Debug, Clone)]
pub enum Body {
    Reasoning { text: String },
    Message { text: String, scored: Vec<Scored> },
    Call { call_id: String, name: String, arguments: String },
}

/// What an item's own status says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    InProgress,
    Completed,
    /// Cut for want of tokens, or by its end.
    Incomplete,
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
        }
    }
}

impl Item {
    fn new(prefix: &str, body: Body) -> Self {
        Self { id: format!("{prefix}_{}", RequestId::fresh()), body }
    }

    pub fn reasoning() -> Self {
        Self::new("rs", Body::Reasoning { text: String::new() })
    }

    pub fn message() -> Self {
        Self::new("msg", Body::Message { text: String::new(), scored: Vec::new() })
    }

    pub fn call(name: &str) -> Self {
        let call_id = format!("call_{}", &RequestId::fresh().as_str()[..24]);
        Self::new("fc", Body::Call { call_id, name: name.to_owned(), arguments: String::new() })
    }

    /// As it stands in a response.
    pub fn written(&self, standing: Standing) -> Value {
        let (id, status) = (&self.id, standing.word());
        match &self.body {
            Body::Reasoning { .. } => json!({
                "id": id, "type": "reasoning", "summary": [], "content": self.parts(standing), "status": status,
            }),
            Body::Message { .. } => json!({
                "id": id, "type": "message", "status": status, "role": "assistant", "content": self.parts(standing),
            }),
            Body::Call { call_id, name, arguments } => json!({
                "id": id, "type": "function_call", "status": status,
                "call_id": call_id, "name": name, "arguments": arguments,
            }),
        }
    }

    /// Its content: one part, none at its very beginning.
    fn parts(&self, standing: Standing) -> Vec<Value> {
        let begins = standing == Standing::InProgress;
        self.part().filter(|_| !begins).into_iter().collect()
    }

    /// The part of its content; calls have none.
    pub fn part(&self) -> Option<Value> {
        match &self.body {
            Body::Reasoning { text } => Some(json!({ "type": "reasoning_text", "text": text })),
            Body::Message { text, scored } => Some(json!({
                "type": "output_text", "annotations": [], "logprobs": logprobs::list(scored), "text": text,
            })),
            Body::Call { .. } => None,
        }
    }
}

/// All of an answer that is told at once: thoughts, text, calls. Without anything it is an empty message.
pub fn items_of(choice: &Choice) -> Vec<Item> {
    let mut items = Vec::new();
    if !choice.thoughts.is_empty() {
        items.push(Item::new("rs", Body::Reasoning { text: choice.thoughts.clone() }));
    }
    if !choice.text.is_empty() || (choice.calls.is_empty() && choice.thoughts.is_empty()) {
        let scored = spanning(&choice.scored, &choice.text).to_vec();
        items.push(Item::new("msg", Body::Message { text: choice.text.clone(), scored }));
    }
    for call in &choice.calls {
        let mut item = Item::call(&call.name);
        if let Body::Call { arguments, .. } = &mut item.body {
            arguments.clone_from(&call.arguments);
        }
        items.push(item);
    }
    items
}

/// The tokens that `text` comes from, among those of thoughts and calls; all of them if it is not to be found there.
fn spanning<'a>(scored: &'a [Scored], text: &str) -> &'a [Scored] {
    let (mut bytes, mut places) = (Vec::new(), Vec::with_capacity(scored.len()));
    for token in scored {
        let start = bytes.len();
        bytes.extend_from_slice(&token.bytes);
        places.push(start..bytes.len());
    }
    let last_start = bytes.len().saturating_sub(text.len());
    let Some(start) = (0..=last_start).rev().find(|at| bytes[*at..].starts_with(text.as_bytes())) else {
        return scored;
    };
    let first = places.partition_point(|place| place.end <= start);
    let last = places.partition_point(|place| place.start < start + text.len());
    &scored[first..last.max(first)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(texts: &[&str]) -> Vec<Scored> {
        let one = |(id, text): (usize, &&str)| Scored {
            id: id as u32,
            bytes: text.as_bytes().to_vec(),
            logprob: 0.0,
            top: Vec::new(),
        };
        texts.iter().enumerate().map(one).collect()
    }

    #[test]
    fn tokens_of_a_text() {
        let all = scored(&["<think>", "so", "</think>", "\n\n", "He", "llo", "<tool"]);
        for (text, expected) in [
            ("Hello", &[4, 5][..]),
            ("\n\nHello", &[3, 4, 5]),
            ("llo", &[5]),
            ("so", &[1]),
            ("el", &[4, 5]),
            ("<", &[6]),
            ("", &[]),
            ("not there", &[0, 1, 2, 3, 4, 5, 6]),
        ] {
            let ids: Vec<u32> = spanning(&all, text).iter().map(|token| token.id).collect();
            assert_eq!(ids, expected, "{text:?}");
        }
        assert!(spanning(&[], "a").is_empty());
    }
}
