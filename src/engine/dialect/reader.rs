//! Takes the text of an answer apart while it comes: thoughts, text, tool calls.
//!
//! Text is given as soon as it can't be the beginning of a tag, a call as soon as it is certain to be one. What begins
//! like a call and is none is given as text.
//!
//! ```text
//! Start ─▶ Thought ─▶ Behind ─▶ Text ⇄ Opened ─▶ Name, Between, Call ─▶ Behind
//! ```

use super::{
    Calls, Delta, TOOL_CALL, TOOL_CALLS, Thoughts,
    call::{Call, Step},
};

/// White space before a tag that is held back, and left out if the tag comes. Models write two line feeds.
const SPACE_BYTES_MAX: usize = 64;
/// What stands between `[TOOL_CALLS]` and the arguments: a name, and an id with its tag.
const NAME_BYTES_MAX: usize = 256;
/// Before the calls of [`Calls::Generic`].
const GENERIC_HEAD: &str = "{\"tool_calls\":[";

/// Reads one answer. See [`Dialect::reader`](super::Dialect::reader).
#[derive(Debug)]
pub struct Reader {
    thoughts: Option<Thoughts>,
    calls: Calls,
    tools: Vec<String>,
    state: State,
    /// Read, but not understood yet: white space and the beginning of a tag at most.
    pending: String,
    /// The beginning of what is a call or text.
    held: String,
    announced: usize,
    is_cut: bool,
    deltas: Vec<Delta>,
}

#[derive(Debug)]
enum State {
    /// There was nothing but white space.
    Start {
        thinking: bool,
    },
    /// `begun`: there was more than white space.
    Thought {
        begun: bool,
    },
    Text,
    /// Behind thoughts or calls: white space and a closing tag mean nothing.
    Behind {
        thought: bool,
    },
    /// Behind this tag.
    Opened(&'static str),
    /// In the name that [`Calls::Named`] writes before the arguments.
    Name(String),
    /// So many characters of [`GENERIC_HEAD`] were there.
    GenericHead(usize),
    /// In a list of calls, before the next one.
    Between {
        frame: Frame,
        is_first: bool,
    },
    /// Behind the list of [`Calls::Generic`], before `}`.
    GenericEnd,
    Call {
        call: Call,
        frame: Frame,
        announced: bool,
    },
}

/// What a call stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    Alone,
    List,
    Generic,
}

impl Reader {
    pub(super) fn new(thoughts: Option<Thoughts>, calls: Calls, tools: Vec<String>, thinking: bool) -> Self {
        Self {
            thoughts,
            calls,
            tools,
            state: State::Start { thinking: thinking && thoughts.is_some() },
            pending: String::new(),
            held: String::new(),
            announced: 0,
            is_cut: false,
            deltas: Vec::new(),
        }
    }

    /// The next piece of the answer, cut anywhere; gives what is certain by now.
    pub fn push(&mut self, piece: &str) -> Vec<Delta> {
        let mut text = std::mem::take(&mut self.pending);
        text.push_str(piece);
        let mut rest = text.as_str();
        while let Some(behind) = self.step(rest).filter(|_| !rest.is_empty()) {
            rest = behind;
        }
        self.pending = rest.to_owned();
        std::mem::take(&mut self.deltas)
    }

    /// The answer is over: gives what was held back.
    pub fn finish(&mut self) -> Vec<Delta> {
        let pending = std::mem::take(&mut self.pending);
        match std::mem::replace(&mut self.state, State::Text) {
            State::Start { thinking: true } | State::Thought { .. } => self.thought(pending.trim()),
            State::Start { .. } | State::Text => self.text(&pending),
            State::Behind { .. } if self.close().is_some_and(|close| close.starts_with(pending.trim_start())) => {}
            State::Behind { .. } => self.text(pending.trim_start()),
            State::Between { is_first: false, .. } | State::GenericEnd => self.held.clear(),
            State::Call { announced, .. } => {
                self.is_cut = true;
                if !announced {
                    self.give_up();
                }
            }
            State::Opened(_) | State::Name(_) | State::GenericHead(_) | State::Between { .. } => self.give_up(),
        }
        std::mem::take(&mut self.deltas)
    }

    /// How many calls were given.
    pub fn calls(&self) -> usize {
        self.announced
    }

    /// Whether the answer ended within a call. Known after [`Self::finish`].
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Goes as far as one state leads into `rest` and gives what is behind; `None`: more must come first.
    fn step<'t>(&mut self, rest: &'t str) -> Option<&'t str> {
        match &mut self.state {
            State::Start { thinking } => {
                let thinking = *thinking;
                self.start(rest, thinking)
            }
            State::Thought { begun: true } => self.in_thought(rest),
            State::Thought { begun: false } => self.in_thought(rest.trim_start()),
            State::Text => self.in_text(rest),
            State::Behind { thought } => {
                let thought = *thought;
                self.behind(rest, thought)
            }
            State::Opened(tag) => {
                let tag = *tag;
                self.opened(rest, tag)
            }
            State::Name(_) => Some(self.in_name(rest)),
            State::GenericHead(_) | State::Between { .. } | State::GenericEnd => Some(self.in_frame(rest)),
            State::Call { .. } => Some(self.in_call(rest)),
        }
    }

    fn start<'t>(&mut self, rest: &'t str, thinking: bool) -> Option<&'t str> {
        let text = rest.trim_start();
        let space = &rest[..rest.len() - text.len()];
        if let Some(tags) = self.thoughts.filter(|_| space.len() <= SPACE_BYTES_MAX) {
            match prefix(text, tags.open) {
                Prefix::Whole => {
                    self.state = State::Thought { begun: false };
                    return Some(&text[tags.open.len()..]);
                }
                Prefix::Part => return None,
                Prefix::Other => {}
            }
        }
        if thinking {
            self.state = State::Thought { begun: false };
        } else if text.is_empty() && space.len() <= SPACE_BYTES_MAX {
            return None;
        } else if let Some(state) = self.whole_answer(text).filter(|_| space.len() <= SPACE_BYTES_MAX) {
            self.held.push_str(space);
            self.state = state;
            return Some(text);
        } else {
            self.state = State::Text;
        }
        Some(rest)
    }

    /// The state of a call without a tag, if `text` may begin one.
    fn whole_answer(&self, text: &str) -> Option<State> {
        if self.tools.is_empty() || !text.starts_with('{') {
            return None;
        }
        match self.calls {
            Calls::Bare => Some(State::Call { call: Call::default(), frame: Frame::Alone, announced: false }),
            Calls::Generic => Some(State::GenericHead(0)),
            _ => None,
        }
    }

    fn in_thought<'t>(&mut self, rest: &'t str) -> Option<&'t str> {
        let close = self.thoughts.map_or("", |tags| tags.close);
        if let Some(at) = rest.find(close) {
            self.thought(without_space(&rest[..at]));
            self.state = State::Behind { thought: true };
            return Some(&rest[at + close.len()..]);
        }
        let end = without_space(&rest[..rest.len() - partial(rest, close)]).len();
        self.thought(&rest[..end]);
        if end > 0 {
            self.state = State::Thought { begun: true };
        }
        given(rest, end)
    }

    fn in_text<'t>(&mut self, rest: &'t str) -> Option<&'t str> {
        if self.opens().is_empty() {
            self.text(rest);
            return Some("");
        }
        let first = self.opens().iter().filter_map(|tag| Some((rest.find(tag)?, *tag))).min();
        if let Some((at, tag)) = first {
            let text = without_space(&rest[..at]);
            self.text(text);
            self.held.push_str(&rest[text.len()..at + tag.len()]);
            self.state = State::Opened(tag);
            return Some(&rest[at + tag.len()..]);
        }
        let part = self.opens().iter().map(|tag| partial(rest, tag)).max().unwrap_or(0);
        let end = without_space(&rest[..rest.len() - part]).len();
        self.text(&rest[..end]);
        given(rest, end)
    }

    fn behind<'t>(&mut self, rest: &'t str, thought: bool) -> Option<&'t str> {
        let text = rest.trim_start();
        if text.is_empty() {
            return Some(text);
        }
        if !thought {
            if let Some(close) = self.close() {
                match prefix(text, close) {
                    Prefix::Whole => return Some(&text[close.len()..]),
                    Prefix::Part => return None,
                    Prefix::Other => {}
                }
            }
            if self.calls == Calls::Bare
                && let Some(next) = text.strip_prefix(';')
            {
                return Some(next);
            }
        }
        // The generic form has one list, so that behind it there is only text.
        let may_call = thought || self.calls == Calls::Bare;
        self.state = self.whole_answer(text).filter(|_| may_call).unwrap_or(State::Text);
        Some(text)
    }

    fn opened<'t>(&mut self, rest: &'t str, tag: &'static str) -> Option<&'t str> {
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
    fn in_name<'t>(&mut self, rest: &'t str) -> &'t str {
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
    fn in_frame<'t>(&mut self, rest: &'t str) -> &'t str {
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

    fn in_call<'t>(&mut self, rest: &'t str) -> &'t str {
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
    fn give_up(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.text(&held);
        self.state = State::Text;
    }

    fn text(&mut self, text: &str) {
        match self.deltas.last_mut() {
            _ if text.is_empty() => {}
            Some(Delta::Text(last)) => last.push_str(text),
            _ => self.deltas.push(Delta::Text(text.into())),
        }
    }

    fn thought(&mut self, text: &str) {
        match self.deltas.last_mut() {
            _ if text.is_empty() => {}
            Some(Delta::Thought(last)) => last.push_str(text),
            _ => self.deltas.push(Delta::Thought(text.into())),
        }
    }

    /// The tags that begin a call here.
    fn opens(&self) -> &'static [&'static str] {
        if self.tools.is_empty() { &[] } else { self.calls.opens() }
    }

    /// The tag behind a call.
    fn close(&self) -> Option<&'static str> {
        (self.calls == Calls::Tagged).then_some(TOOL_CALL.1)
    }
}

/// What is left of `rest` when all before `end` has been given; `None`: that was nothing, the rest waits for more.
fn given(rest: &str, end: usize) -> Option<&str> {
    (end > 0).then(|| &rest[end..])
}

enum Prefix {
    Whole,
    /// The text ends within the tag.
    Part,
    Other,
}

/// How `text` begins with `tag`. An empty text is a part of any tag.
fn prefix(text: &str, tag: &str) -> Prefix {
    if text.starts_with(tag) {
        Prefix::Whole
    } else if tag.starts_with(text) {
        Prefix::Part
    } else {
        Prefix::Other
    }
}

/// Length of the longest end of `text` that `tag` begins with.
fn partial(text: &str, tag: &str) -> usize {
    let longest = (tag.len() - 1).min(text.len());
    (1..=longest).rev().find(|&length| text.as_bytes().ends_with(&tag.as_bytes()[..length])).unwrap_or(0)
}

/// `text` without white space at its end, of which at most [`SPACE_BYTES_MAX`] are left out.
fn without_space(text: &str) -> &str {
    let trimmed = text.trim_end();
    let mut end = trimmed.len().max(text.len().saturating_sub(SPACE_BYTES_MAX));
    while !text.is_char_boundary(end) {
        end += 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests;
