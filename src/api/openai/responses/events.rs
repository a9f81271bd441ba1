//! The events of a response's stream: items begin, grow and end one after the other, each strictly within its own.
//!
//! ```text
//! output_item.added ─▶ [content_part.added] ─▶ delta* ─▶ done ─▶ [content_part.done] ─▶ output_item.done
//! ```
//!
//! Events are numbered from 0 without a gap.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{
    api::{
        answer::{Frames, Scored, push_json_string},
        openai::logprobs,
    },
    engine::dialect::Delta,
};

use super::output::{Body, Item, Standing};

/// What has been told of an output.
#[derive(Default)]
pub struct Events {
    items: Vec<Item>,
    /// The last item goes on.
    is_open: bool,
    sequence: u64,
}

impl Events {
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// An event of this type with these members.
    pub fn tell(&mut self, kind: &str, members: &Value, out: &mut Frames) {
        let members = members.to_string();
        let members = members.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
        self.write(kind, |line| line.push_str(members), out);
    }

    fn write(&mut self, kind: &str, members: impl FnOnce(&mut String), out: &mut Frames) {
        let sequence = self.sequence;
        self.sequence += 1;
        out.named_piece(kind, |line| {
            // Writing to a String can't fail.
            let _ = write!(line, "{{\"type\":\"{kind}\",\"sequence_number\":{sequence},");
            members(line);
            line.push('}');
        });
    }

    /// Tells what is new. `scored` are the tokens that it comes from, which belong to text alone.
    pub fn push(&mut self, delta: &Delta, scored: &[Scored], out: &mut Frames) {
        match delta {
            Delta::Thought(new) | Delta::Text(new) if new.is_empty() => {}
            Delta::Thought(new) => {
                self.go_on(|body| matches!(body, Body::Reasoning { .. }), Item::reasoning, out);
                if let Some(Item { body: Body::Reasoning { text }, .. }) = self.items.last_mut() {
                    text.push_str(new);
                }
                self.delta("response.reasoning_text.delta", new, None, out);
            }
            Delta::Text(new) => {
                self.go_on(|body| matches!(body, Body::Message { .. }), Item::message, out);
                if let Some(Item { body: Body::Message { text, scored: all }, .. }) = self.items.last_mut() {
                    text.push_str(new);
                    all.extend_from_slice(scored);
                }
                self.delta("response.output_text.delta", new, Some(scored), out);
            }
            Delta::ToolCall { name, .. } => self.go_on(|_| false, || Item::call(name), out),
            Delta::Arguments { fragment, .. } => {
                if let Some(Item { body: Body::Call { arguments, .. }, .. }) = self.items.last_mut() {
                    arguments.push_str(fragment);
                }
                self.delta("response.function_call_arguments.delta", fragment, None, out);
            }
        }
    }

    /// Sees to it that the open item is one that takes what comes: else it ends, and `begin` makes the next.
    fn go_on(&mut self, takes: fn(&Body) -> bool, begin: impl FnOnce() -> Item, out: &mut Frames) {
        if self.is_open && self.items.last().is_some_and(|item| takes(&item.body)) {
            return;
        }
        self.close(Standing::Completed, out);
        let item = begin();
        let (index, part, id) = (self.items.len(), item.part(), item.id.clone());
        let added = json!({ "output_index": index, "item": item.written(Standing::InProgress) });
        self.items.push(item);
        self.is_open = true;
        self.tell("response.output_item.added", &added, out);
        if let Some(part) = part {
            let added = json!({ "item_id": id, "output_index": index, "content_index": 0, "part": part });
            self.tell("response.content_part.added", &added, out);
        }
    }

    /// Begins a message without a text, which an answer of nothing is.
    pub fn begin_message(&mut self, out: &mut Frames) {
        self.go_on(|_| false, Item::message, out);
    }

    /// There is one of these for each token: it is written without being built first.
    fn delta(&mut self, kind: &str, new: &str, scored: Option<&[Scored]>, out: &mut Frames) {
        let Some(item) = self.items.last() else { return };
        let (id, index, is_call) = (item.id.clone(), self.items.len() - 1, matches!(item.body, Body::Call { .. }));
        let members = |line: &mut String| {
            // Writing to a String can't fail.
            let _ = write!(line, "\"item_id\":\"{id}\",\"output_index\":{index},");
            if !is_call {
                line.push_str("\"content_index\":0,");
            }
            line.push_str("\"delta\":");
            push_json_string(line, new);
            match scored {
                Some([]) => line.push_str(",\"logprobs\":[]"),
                Some(scored) => drop(write!(line, ",\"logprobs\":{}", Value::from(logprobs::list(scored)))),
                None => {}
            }
        };
        self.write(kind, members, out);
    }

    /// Ends the open item, if one is.
    pub fn close(&mut self, standing: Standing, out: &mut Frames) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let Some(item) = self.items.last().cloned() else { return };
        let index = self.items.len() - 1;
        let mut done = json!({ "item_id": item.id, "output_index": index });
        let kind = match &item.body {
            Body::Reasoning { text } => {
                (done["content_index"], done["text"]) = (0.into(), text.as_str().into());
                "response.reasoning_text.done"
            }
            Body::Message { text, scored } => {
                (done["content_index"], done["text"]) = (0.into(), text.as_str().into());
                done["logprobs"] = logprobs::list(scored).into();
                "response.output_text.done"
            }
            Body::Call { name, arguments, .. } => {
                (done["name"], done["arguments"]) = (name.as_str().into(), arguments.as_str().into());
                "response.function_call_arguments.done"
            }
        };
        self.tell(kind, &done, out);
        if let Some(part) = item.part() {
            let done = json!({ "item_id": item.id, "output_index": index, "content_index": 0, "part": part });
            self.tell("response.content_part.done", &done, out);
        }
        let done = json!({ "output_index": index, "item": item.written(standing) });
        self.tell("response.output_item.done", &done, out);
    }

    /// The items as they stand at the end, the last one as `last` says.
    pub fn written(&self, last: Standing) -> Vec<Value> {
        written(&self.items, last)
    }
}

/// Items as they stand at the end: the last one as `last` says, those before it completed.
pub fn written(items: &[Item], last: Standing) -> Vec<Value> {
    let standing = |i| if i + 1 == items.len() { last } else { Standing::Completed };
    items.iter().enumerate().map(|(i, item)| item.written(standing(i))).collect()
}
