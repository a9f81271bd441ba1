//! A tool call in JSON, read a character at a time: where its name and its arguments are.
//!
//! It finds the ends of values and trusts that what is between them is JSON: arguments are passed on as they were
//! written, for their reader to judge. Knows no tags.

use serde_json::Value;

/// What a character was to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::dialect) enum Step {
    /// Part of it.
    Inside,
    /// Its last one.
    Last,
    /// None of it: this is not what a call looks like.
    Bad,
}

/// One call: `{"name": …, "arguments": {…}}` (or `parameters`) in any order, with other members behind the name.
#[derive(Debug, Default)]
pub(in crate::engine::dialect) struct Call {
    at: At,
    name: Option<String>,
    /// Arguments that nobody has taken yet.
    fragment: String,
    has_arguments: bool,
    /// There are no braces around: the call ends with its arguments.
    is_bare: bool,
}

#[derive(Debug, Default)]
enum At {
    #[default]
    Start,
    /// Before a key; the first may be missing.
    Key {
        is_first: bool,
    },
    InKey(Extent),
    Colon(Member),
    Value(Member),
    InValue(Member, Extent),
    /// Before `,` or `}`.
    Comma,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Name,
    Arguments,
    Other,
}

impl Call {
    /// A call whose name is known; its arguments follow.
    pub fn named(name: &str) -> Self {
        Self { name: Some(name.into()), at: At::Value(Member::Arguments), is_bare: true, ..Self::default() }
    }

    /// Its name, once it is certain that this is a call: its arguments have begun, or it is at its end.
    pub fn name(&self) -> Option<&str> {
        let is_certain = self.has_arguments || matches!(self.at, At::End);
        self.name.as_deref().filter(|_| is_certain)
    }

    /// The arguments since they were last asked for. A call that ends without any has `{}`.
    pub fn take_fragment(&mut self) -> String {
        if matches!(self.at, At::End) && !self.has_arguments {
            self.has_arguments = true;
            return "{}".into();
        }
        std::mem::take(&mut self.fragment)
    }

    /// Takes the next character; only `tools` can be called.
    pub fn push(&mut self, c: char, tools: &[String]) -> Step {
        match self.next(c, tools) {
            Some(at) => self.at = at,
            None => return Step::Bad,
        }
        match self.at {
            At::Comma if self.is_bare => self.at = At::End,
            _ => {}
        }
        if matches!(self.at, At::End) { Step::Last } else { Step::Inside }
    }

    /// Where the call is after `c`; `None`: nowhere.
    fn next(&mut self, c: char, tools: &[String]) -> Option<At> {
        let is_space = c.is_ascii_whitespace();
        Some(match std::mem::take(&mut self.at) {
            At::InKey(mut extent) => match extent.push(c) {
                Reach::Inside => At::InKey(extent),
                _ => At::Colon(self.member(&extent.string()?)?),
            },
            At::InValue(member, extent) => return self.in_value(member, extent, c, tools),
            at if is_space => at,
            At::Start if c == '{' => At::Key { is_first: true },
            At::Key { .. } if c == '"' => At::InKey(Extent::begin(c)?),
            At::Key { is_first: true } | At::Comma if c == '}' => At::End,
            At::Comma if c == ',' => At::Key { is_first: false },
            At::Colon(member) if c == ':' => At::Value(member),
            At::Value(member) => {
                if member == Member::Arguments && c == '{' {
                    self.has_arguments = true;
                    self.fragment.push(c);
                }
                At::InValue(member, Extent::begin(c).filter(|extent| member.may_be(extent))?)
            }
            _ => return None,
        })
    }

    /// What a member with this key is. A call says early what it calls: that keeps other JSON from being held back.
    fn member(&self, key: &str) -> Option<Member> {
        match key {
            "name" if self.name.is_none() => Some(Member::Name),
            "arguments" | "parameters" if !self.has_arguments => Some(Member::Arguments),
            "id" | "type" | "index" => Some(Member::Other),
            _ => self.name.as_ref().map(|_| Member::Other),
        }
    }

    fn in_value(&mut self, member: Member, mut extent: Extent, c: char, tools: &[String]) -> Option<At> {
        let reach = extent.push(c);
        if member == Member::Arguments && matches!(extent, Extent::Nested { .. }) {
            self.fragment.push(c);
        }
        if reach == Reach::Inside {
            return Some(At::InValue(member, extent));
        }
        match (member, &extent) {
            (Member::Name, _) => self.name = Some(extent.string().filter(|name| tools.contains(name))?),
            (Member::Arguments, Extent::String { .. }) => {
                // Some models write arguments as a string of JSON, as they see them in the APIs' own messages.
                self.fragment =
                    extent.string().filter(|text| matches!(serde_json::from_str(text), Ok(Value::Object(_))))?;
                self.has_arguments = true;
            }
            (Member::Arguments, Extent::Scalar(text)) if text != "null" => return None,
            _ => {}
        }
        match reach {
            // The character ended a scalar and belongs to what is behind.
            Reach::Behind => {
                self.at = At::Comma;
                self.next(c, tools)
            }
            _ => Some(At::Comma),
        }
    }
}

impl Member {
    fn may_be(self, value: &Extent) -> bool {
        match self {
            Self::Name => matches!(value, Extent::String { .. }),
            Self::Arguments => !matches!(value, Extent::Nested { is_array: true, .. }),
            Self::Other => true,
        }
    }
}

/// A JSON value that has begun and not ended.
#[derive(Debug)]
enum Extent {
    /// With its quotes.
    String {
        text: String,
        is_escaped: bool,
    },
    Scalar(String),
    Nested {
        is_array: bool,
        depth: usize,
        in_string: bool,
        is_escaped: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Inside,
    /// The value ends with this character.
    Last,
    /// The value ended before this character.
    Behind,
}

impl Extent {
    fn begin(c: char) -> Option<Self> {
        match c {
            '"' => Some(Self::String { text: c.into(), is_escaped: false }),
            '{' | '[' => Some(Self::Nested { is_array: c == '[', depth: 1, in_string: false, is_escaped: false }),
            '-' | '0'..='9' | 't' | 'f' | 'n' => Some(Self::Scalar(c.into())),
            _ => None,
        }
    }

    fn push(&mut self, c: char) -> Reach {
        match self {
            Self::String { text, is_escaped } => {
                text.push(c);
                let ends = c == '"' && !*is_escaped;
                *is_escaped = c == '\\' && !*is_escaped;
                if ends { Reach::Last } else { Reach::Inside }
            }
            Self::Scalar(_) if c.is_ascii_whitespace() || matches!(c, ',' | '}' | ']') => Reach::Behind,
            Self::Scalar(text) => {
                text.push(c);
                Reach::Inside
            }
            Self::Nested { depth, in_string, is_escaped, .. } => {
                match c {
                    _ if *is_escaped => *is_escaped = false,
                    '\\' => *is_escaped = *in_string,
                    '"' => *in_string = !*in_string,
                    '{' | '[' if !*in_string => *depth += 1,
                    '}' | ']' if !*in_string => *depth -= 1,
                    _ => {}
                }
                if *depth == 0 { Reach::Last } else { Reach::Inside }
            }
        }
    }

    /// What a string says; `None` if it is none.
    fn string(&self) -> Option<String> {
        match self {
            Self::String { text, .. } => serde_json::from_str(text).ok(),
            _ => None,
        }
    }
}
