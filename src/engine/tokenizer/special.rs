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

#[derive(Debug)]
pub(super) struct SpecialTokens {
    ids: HashMap<Box<str>, u32>,
    /// Finds user-defined tokens, which are tokens wherever they stand. `None` if there are none.
    user_defined: Option<Regex>,
    /// Finds control tokens as well.
    all: Option<Regex>,
}

impl SpecialTokens {
    pub fn new(vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
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
            if kind == Some(Kind::UserDefined) {
                user_defined.push(text);
            }
            all.push(text);
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
            parts.extend(self.find(found.as_str()).map(Part::Token));
            done = found.end();
        }
        if done < text.len() {
            parts.push(Part::Text(&text[done..]));
        }
        parts
    }
}

/// Finds any of `texts`, the longest where several match.
fn search(mut texts: Vec<&str>) -> Result<Option<Regex>, TokenizerError> {
    if texts.is_empty() {
        return Ok(None);
    }
    // The first alternative that matches wins.
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    let alternatives: Vec<String> = texts.iter().map(|text| regex::escape(text)).collect();
    let search = RegexBuilder::new(&alternatives.join("|")).size_limit(SEARCH_BYTES_MAX).build();
    search.map(Some).map_err(|e| TokenizerError::Invalid(format!("special tokens: {e}")))
}
