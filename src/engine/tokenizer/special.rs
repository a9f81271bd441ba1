//! Finds special tokens that are spelled out in a text.

use std::collections::HashMap;

use regex::{Regex, RegexBuilder};

use super::{
    Markup,
    error::TokenizerError,
    vocabulary::{Kind, Vocabulary},
};

/// Compiled size of the search for all special tokens of a vocabulary; the largest have some ten thousand.
const SEARCH_BYTES_MAX: usize = 256 << 20;

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'t> {
    Text(&'t str),
    Token(u32),
}

/// The whitespace beside a special token that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Strip {
    pub left: bool,
    pub right: bool,
}

#[derive(Debug)]
pub(super) struct SpecialTokens {
    ids: HashMap<Box<str>, u32>,
    /// Finds user-defined tokens, which are tokens wherever they stand. `None` if there are none.
    user_defined: Option<Regex>,
    /// Finds control tokens as well.
    all: Option<Regex>,
}

impl SpecialTokens {
    /// `strips` are those of the tokens that take whitespace with them, by their ids.
    pub fn new(vocabulary: &Vocabulary, strips: &HashMap<u32, Strip>) -> Result<Self, TokenizerError> {
        let mut ids = HashMap::new();
        let mut user_defined = Vec::new();
        let mut all = Vec::new();
        for id in 0..vocabulary.len() as u32 {
            let kind = vocabulary.kind(id);
            if !matches!(kind, Some(Kind::Control | Kind::UserDefined | Kind::Unknown)) {
                continue;
            }
            let Some(text) = std::str::from_utf8(vocabulary.bytes(id)).ok().filter(|text| !text.is_empty()) else {
                continue;
            };
            let pattern = Pattern { text, strip: strips.get(&id).copied().unwrap_or_default() };
            if kind == Some(Kind::UserDefined) {
                user_defined.push(pattern);
            }
            all.push(pattern);
            ids.entry(text.into()).or_insert(id);
        }
        Ok(Self { ids, user_defined: search(user_defined)?, all: search(all)? })
    }

    /// The special token spelled `text`.
    pub fn find(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// The parts of `text`, in order. Where several tokens begin at one place, the longest is meant.
    pub fn parts<'t>(&self, text: &'t str, markup: Markup) -> Vec<Part<'t>> {
        let search = match markup {
            Markup::Literal => &self.user_defined,
            Markup::Parse => &self.all,
        };
        let mut parts = Vec::new();
        let mut done = 0;
        for found in search.iter().flat_map(|search| search.find_iter(text)) {
            if done < found.start() {
                parts.push(Part::Text(&text[done..found.start()]));
            }
            // Whitespace that a token takes with it is not in its name; a token may also begin with some itself.
            let token = self.find(found.as_str()).or_else(|| self.find(found.as_str().trim()));
            parts.extend(token.map(Part::Token));
            done = found.end();
        }
        if done < text.len() {
            parts.push(Part::Text(&text[done..]));
        }
        parts
    }
}

/// A special token as it is searched.
#[derive(Debug, Clone, Copy)]
struct Pattern<'a> {
    text: &'a str,
    strip: Strip,
}

impl Pattern<'_> {
    fn regex(&self) -> String {
        let space = |strip: bool| if strip { r"\s*" } else { "" };
        format!("{}{}{}", space(self.strip.left), regex::escape(self.text), space(self.strip.right))
    }
}

/// Finds any of the tokens, the longest where several match.
fn search(mut patterns: Vec<Pattern>) -> Result<Option<Regex>, TokenizerError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    // The first alternative that matches wins.
    patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.text.len()));
    let alternatives: Vec<String> = patterns.iter().map(Pattern::regex).collect();
    let search = RegexBuilder::new(&alternatives.join("|")).size_limit(SEARCH_BYTES_MAX).build();
    search.map(Some).map_err(|e| TokenizerError::Invalid(format!("special tokens: {e}")))
}
