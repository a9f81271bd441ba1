//! From a source to a parser at the start of its grammar.

use std::borrow::Cow;

use llguidance::{Matcher, ParserFactory, TokenParser, api::TopLevelGrammar, derivre::RegexAst, regex_to_lark};

use super::{
    GrammarError, GrammarSource, json, lark,
    limits::{CHOICES_MAX, SOURCE_BYTES_MAX},
    schema::{self, keyword},
};
use crate::engine::tokenizer::Tokenizer;

impl GrammarSource {
    /// What tells it from every other source; an error for one that is too large to be looked at.
    pub(super) fn key(&self) -> Result<String, GrammarError> {
        let too_large = |bytes: usize| match bytes > SOURCE_BYTES_MAX {
            true => Err(GrammarError::invalid(format!("the grammar is larger than {SOURCE_BYTES_MAX} bytes"))),
            false => Ok(()),
        };
        let (kind, text): (&str, Cow<str>) = match self {
            Self::JsonObject => ("json", "".into()),
            Self::JsonSchema(schema) => {
                schema::measure(schema)?;
                ("schema", schema.to_string().into())
            }
            Self::Regex(text) => ("regex", text.into()),
            Self::Lark(text) => ("lark", text.into()),
            Self::Choice(choices) => {
                if !(1..=CHOICES_MAX).contains(&choices.len()) {
                    return Err(GrammarError::invalid(format!("between 1 and {CHOICES_MAX} choices are supported")));
                }
                too_large(choices.iter().map(String::len).sum())?;
                ("choice", serde_json::Value::from(choices.as_slice()).to_string().into())
            }
        };
        too_large(text.len())?;
        Ok(format!("{kind} {text}"))
    }

    /// Takes its time, within the factory's limits; calls code that may panic.
    pub(super) fn parser(&self, factory: &ParserFactory, tokenizer: &Tokenizer) -> Result<TokenParser, GrammarError> {
        let grammar = match self {
            Self::JsonObject => TopLevelGrammar::from_json_schema(json::any_object()),
            Self::JsonSchema(schema) => TopLevelGrammar::from_json_schema(json::one_way(schema::check(schema)?)),
            Self::Regex(text) => TopLevelGrammar::from_lark(regex(text)?),
            Self::Choice(choices) => TopLevelGrammar::from_lark(lark::choice(choices)),
            Self::Lark(text) => TopLevelGrammar::from_lark(lark::prepare(text, tokenizer)?),
        };
        let parser = factory.create_parser(grammar).map_err(|error| GrammarError::invalid(brief(&error)))?;
        // The first mask shows a grammar that allows nothing, and is the one that every request begins with.
        let mut matcher = Matcher::new(Ok(parser.clone()));
        match matcher.compute_mask() {
            Ok(_) => Ok(started(parser)),
            Err(error) => Err(GrammarError::invalid(format!("the grammar allows nothing: {}", brief(&error)))),
        }
    }
}

fn started(mut parser: TokenParser) -> TokenParser {
    if parser.is_fresh() {
        parser.start_without_prompt();
    }
    parser
}

/// The Lark grammar of one regular expression.
fn regex(text: &str) -> Result<String, GrammarError> {
    keyword::expression(RegexAst::Regex(text.to_owned())).map_err(GrammarError::invalid)?;
    Ok(match text {
        "" => "start: \"\"".into(),
        text => format!("start: /{}/", regex_to_lark(text, "")),
    })
}

/// What an error of the matcher says, without its state.
pub(super) fn brief(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let text = text.split("\n<").next().unwrap_or_default();
    let mut end = text.len().min(500);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].trim().to_owned()
}
