//! Tags in a text that is not all there yet, and the white space around them.

/// White space before a tag that is held back, and left out if the tag comes. Models write two line feeds.
pub const SPACE_BYTES_MAX: usize = 64;

/// How a text begins with a tag.
pub enum Prefix {
    Whole,
    /// The text ends within the tag.
    Part,
    Other,
}

/// How `text` begins with `tag`. An empty text is a part of any tag.
pub fn prefix(text: &str, tag: &str) -> Prefix {
    if text.starts_with(tag) {
        Prefix::Whole
    } else if tag.starts_with(text) {
        Prefix::Part
    } else {
        Prefix::Other
    }
}

/// Length of the longest end of `text` that `tag` begins with.
pub fn partial(text: &str, tag: &str) -> usize {
    let longest = (tag.len() - 1).min(text.len());
    (1..=longest).rev().find(|&length| text.as_bytes().ends_with(&tag.as_bytes()[..length])).unwrap_or(0)
}

/// `text` without white space at its end, of which at most [`SPACE_BYTES_MAX`] are left out.
pub fn without_space(text: &str) -> &str {
    let trimmed = text.trim_end();
    let mut end = trimmed.len().max(text.len().saturating_sub(SPACE_BYTES_MAX));
    while !text.is_char_boundary(end) {
        end += 1;
    }
    &text[..end]
}
