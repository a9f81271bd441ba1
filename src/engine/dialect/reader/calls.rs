//! The part of a reader between a tag and the end of a call: lists, names, calls, and what turns out to be none.

use super::{Frame, GENERIC_HEAD, NAME_BYTES_MAX, Reader, State};
use crate::engine::dialect::{
    Delta, TOOL_CALLS,
    call::{Call, Step},
};

impl Reader {
    pub(super) fn opened<'t>(&mut self, rest: &'t str, tag: &'static str) -> Option<&'t str> {
        let text = rest.trim_start();
        self.held.push_str(&rest[..rest.len() - text.len()]);
        match text.chars().next() {
            None => return Some(text),
            Some('[') => {
                self.held.push('[');
                self.state = State::Between { frame: Frame::List, is_first: true };
                return Some(&text[1..]);
            }
            Some('{') => self.state = State::Call { call: Call::default(), frame: Frame::Alone, announced: false },
            Some(_) if tag == TOOL_CALLS => self.state = State::Name(String::new()),
            Some(_) => self.give_up(),
        }
        Some(text)
    }

    /// `name[ARGS]`, `name[CALL_ID]id[ARGS]` or `name` alone, up to the brace of the arguments.
    pub(super) fn in_name<'t>(&mut self, rest: &'t str) -> &'t str {
        let State::Name(head) = &mut self.state else { return rest };
        for (at, c) in rest.char_indices() {
            if c == '{' {
                let name = head.split('[').next().unwrap_or_default().trim().to_owned();
                match self.tools.contains(&name) {
                    true => {
                        let call = Call::named(&name);
                        self.state = State::Call { call, frame: Frame::Alone, announced: false };
                    }
                    false => self.give_up(),
                }
                return &rest[at..];
            }
            if head.len() >= NAME_BYTES_MAX || c == '\n' {
                self.give_up();
                return &rest[at..];
            }
            head.push(c);
            self.held.push(c);
        }
        ""
    }

    /// What is around the calls of a list.
    pub(super) fn in_frame<'t>(&mut self, rest: &'t str) -> &'t str {
        for (at, c) in rest.char_indices() {
            let next = match self.state {
                _ if c.is_ascii_whitespace() => None,
                State::GenericHead(seen) if GENERIC_HEAD[seen..].starts_with(c) => Some(match seen + 1 {
                    all if all == GENERIC_HEAD.len() => State::Between { frame: Frame::Generic, is_first: true },
                    seen => State::GenericHead(seen),
                }),
                State::Between { frame, .. } if c == '{' => {
                    self.state = State::Call { call: Call::default(), frame, announced: false };
                    return &rest[at..];
                }
                State::Between { is_first: false, .. } if c == ',' => None,
                State::Between { frame: Frame::Generic, is_first: false } if c == ']' => Some(State::GenericEnd),
                State::Between { is_first: false, .. } if c == ']' => Some(State::Behind { thought: false }),
                State::GenericEnd if c == '}' => Some(State::Behind { thought: false }),
                _ => {
                    self.give_up();
                    return &rest[at..];
                }
            };
            self.held.push(c);
            if let Some(state) = next {
                self.state = state;
                if matches!(self.state, State::Behind { .. }) {
                    self.held.clear();
                    return &rest[at + c.len_utf8()..];
                }
            }
        }
        ""
    }

    pub(super) fn in_call<'t>(&mut self, rest: &'t str) -> &'t str {
        let State::Call { mut call, frame, mut announced } = std::mem::replace(&mut self.state, State::Text) else {
            return rest;
        };
        for (at, c) in rest.char_indices() {
            let step = call.push(c, &self.tools);
            if step == Step::Bad {
                self.fragment(&mut call, announced);
                // A call that has been announced stays one; what is wrong behind its arguments is text.
                if announced {
                    self.state = State::Behind { thought: false }
                } else {
                    self.give_up()
                }
                return &rest[at..];
            }
            if !announced {
                self.held.push(c);
                if let Some(name) = call.name() {
                    self.deltas.push(Delta::ToolCall { index: self.announced, name: name.to_owned() });
                    self.announced += 1;
                    self.held.clear();
                    announced = true;
                }
            }
            if step == Step::Last {
                self.fragment(&mut call, announced);
                match (announced, frame) {
                    (false, _) => self.give_up(),
                    (true, Frame::Alone) => self.state = State::Behind { thought: false },
                    (true, frame) => self.state = State::Between { frame, is_first: false },
                }
                return &rest[at + c.len_utf8()..];
            }
        }
        self.fragment(&mut call, announced);
        self.state = State::Call { call, frame, announced };
        ""
    }

    /// Gives what there is of a call's arguments.
    fn fragment(&mut self, call: &mut Call, announced: bool) {
        let Some(index) = self.announced.checked_sub(1).filter(|_| announced) else { return };
        let fragment = call.take_fragment();
        if !fragment.is_empty() {
            self.deltas.push(Delta::Arguments { index, fragment });
        }
    }

    /// It was no call: it is text.
    pub(super) fn give_up(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.text(&held);
        self.state = State::Text;
    }
}
