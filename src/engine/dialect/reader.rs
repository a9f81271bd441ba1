//! Takes the text of an answer apart while it comes: thoughts, text, tool calls.
//!
//! Text is given as soon as it can't be the beginning of a tag, a call as soon as it is certain to be one. What begins
//! like a call and is none is given as text.
//!
//! ```text
//! Start ─▶ Thought ─▶ Behind ─▶ Text ⇄ Opened ─▶ Name, Between, Call ─▶ Behind
//! ```

mod calls;

use super::{
    Calls, Delta, TOOL_CALL, Thoughts,
    call::Call,
    tags::{Prefix, SPACE_BYTES_MAX, partial, prefix, without_space},
};

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

#[cfg(test)]
mod tests;
