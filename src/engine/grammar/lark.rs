//! Grammars in Lark, made ready for the matcher: special tokens by number, JSON schemas within it held to the same rules as
//! schemas alone, parentheses within bounds.
//!
//! Reads just as much of the syntax as it takes to know what is text (strings, regular expressions, comments) and what not.

use serde_json::Value;

use super::{GrammarError, json, limits::DEPTH_MAX, schema};
use crate::engine::tokenizer::Tokenizer;

/// The grammar that says one of `choices`, at least one.
pub fn choice(choices: &[String]) -> String {
    let quoted: Vec<String> = choices.iter().filter(|choice| !choice.is_empty()).map(|choice| quote(choice)).collect();
    let empty = quoted.len() < choices.len();
    match (quoted.is_empty(), empty) {
        (true, _) => "start: \"\"".into(),
        (false, true) => format!("start: CHOICE | \"\"\nCHOICE: {}", quoted.join(" | ")),
        (false, false) => format!("start: CHOICE\nCHOICE: {}", quoted.join(" | ")),
    }
}

/// A string of Lark: JSON's, without control characters.
fn quote(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// `source` with numbers for the names of special tokens and checked schemas.
pub fn prepare(source: &str, tokenizer: &Tokenizer) -> Result<String, GrammarError> {
    let mut prepared = String::with_capacity(source.len());
    let mut depth = 0_usize;
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '"' => delimited(rest, '"'),
            '#' => line(rest),
            '/' if rest.starts_with("//") => line(rest),
            '/' => delimited(rest, '/'),
            '<' => match special(rest) {
                Some(name) => {
                    prepared.push_str(&number(name, tokenizer)?);
                    rest = &rest[name.len()..];
                    continue;
                }
                None => 1,
            },
            '%' if rest.starts_with("%json") => {
                let (schema, taken) = embedded(&rest["%json".len()..])?;
                prepared.push_str("%json ");
                prepared.push_str(&schema.to_string());
                rest = &rest["%json".len() + taken..];
                continue;
            }
            '(' | '[' | '{' => {
                depth += 1;
                1
            }
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                1
            }
            _ => first.len_utf8(),
        };
        if depth > DEPTH_MAX {
            return Err(GrammarError::invalid(format!("more than {DEPTH_MAX} parentheses within each other")));
        }
        prepared.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    Ok(prepared)
}

/// Bytes of what begins and ends with `delimiter`, where a backslash takes the character after it along. All of the rest
/// if it does not end.
fn delimited(text: &str, delimiter: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == delimiter => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// `<name>` at the start of `text`.
fn special(text: &str) -> Option<&str> {
    let end = text[1..].find(|c: char| matches!(c, '<' | '>') || c.is_whitespace())? + 1;
    (end > 1 && text[end..].starts_with('>')).then(|| &text[..=end])
}

/// The token called `<name>` as the matcher takes it: `<[17]>`. Numbers, ranges and lists of them stay as they are.
fn number(name: &str, tokenizer: &Tokenizer) -> Result<String, GrammarError> {
    let inner = &name[1..name.len() - 1];
    let token = tokenizer.token_to_id(name).or_else(|| tokenizer.token_to_id(inner));
    let numbers = inner.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
    let is_list = |list: &str| list.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '-' | '^' | '*'));
    match token {
        Some(id) => Ok(format!("<[{id}]>")),
        None if numbers.is_some_and(is_list) => Ok(name.to_owned()),
        None => Err(GrammarError::invalid(format!("the model has no token {name}"))),
    }
}

/// The schema that `text` begins with, checked, and how many bytes it took.
fn embedded(text: &str) -> Result<(Value, usize), GrammarError> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(error)) => return Err(GrammarError::invalid(format!("%json: {error}"))),
        None => return Err(GrammarError::invalid("%json is followed by nothing")),
    };
    let taken = values.byte_offset();
    Ok((json::one_way(schema::check(&value)?), taken))
}
