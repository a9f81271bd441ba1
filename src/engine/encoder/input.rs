//! From what a caller gives to the tokens that the model reads.

use super::{batch::InputTokens, blueprint::EncoderSpec};
use crate::engine::{
    error::RequestError,
    tokenizer::{Frame, Markup, Special, Tokenizer},
};

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodeInput {
    /// The model's own tokens are put around it.
    Text(String),
    /// Taken as they are.
    Tokens(Vec<u32>),
    /// A query and a document, which are read together.
    Pair(String, String),
}

impl EncodeInput {
    /// Bytes of its text, or about as many for its tokens: what it costs to tokenise it.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Tokens(tokens) => tokens.len(),
            Self::Pair(query, document) => query.len() + document.len(),
        }
    }

    /// The input's tokens. One that is too long is cut if `truncate`; of a pair the longer text is.
    ///
    /// # Errors
    /// There is nothing in it, it is too long, or has a token that the model has not.
    pub(super) fn prepare(
        &self,
        tokenizer: &Tokenizer,
        spec: &EncoderSpec,
        truncate: bool,
    ) -> Result<InputTokens, RequestError> {
        let max = spec.input_tokens_max;
        let plain = |text: &str| match spec.lowercase {
            true => tokenizer.encode(&text.to_lowercase(), Special::None, Markup::Literal),
            false => tokenizer.encode(text, Special::None, Markup::Literal),
        };
        let refused = |tokens: usize| Err(RequestError::ContextExceeded { prompt: tokens, context: max });
        let frame = tokenizer.frame();
        match self {
            Self::Text(text) => {
                let mut tokens = plain(text);
                let around = around(frame);
                match tokens.len() + around {
                    _ if text.is_empty() => return Err(RequestError::EmptyPrompt),
                    0 => return Err(RequestError::EmptyPrompt),
                    all if all > max && (!truncate || around >= max) => return refused(all),
                    _ => tokens.truncate(max - around),
                }
                Ok(InputTokens::of_one(framed(frame, &tokens)))
            }
            Self::Tokens(tokens) => {
                if tokens.is_empty() {
                    return Err(RequestError::EmptyPrompt);
                }
                if let Some(&id) = tokens.iter().find(|id| **id as usize >= spec.vocabulary) {
                    return Err(RequestError::UnknownToken { id, vocabulary: spec.vocabulary });
                }
                match tokens.len() {
                    all if all > max && !truncate => refused(all),
                    all => Ok(InputTokens::of_one(tokens[..all.min(max)].to_vec())),
                }
            }
            Self::Pair(query, document) => {
                if query.is_empty() || document.is_empty() {
                    return Err(RequestError::EmptyPrompt);
                }
                let (mut query, mut document) = (plain(query), plain(document));
                let around = around(frame) + frame.between.len();
                let all = query.len() + document.len() + around;
                if all > max && (!truncate || around >= max) {
                    return refused(all);
                }
                cut_longer(&mut query, &mut document, max - around.min(max));
                Ok(framed_pair(frame, &query, &document))
            }
        }
    }
}

fn around(frame: Frame) -> usize {
    usize::from(frame.before.is_some()) + usize::from(frame.after.is_some())
}

fn framed(frame: Frame, tokens: &[u32]) -> Vec<u32> {
    frame.before.into_iter().chain(tokens.iter().copied()).chain(frame.after).collect()
}

fn framed_pair(frame: Frame, query: &[u32], document: &[u32]) -> InputTokens {
    let mut tokens: Vec<u32> = frame.before.into_iter().chain(query.iter().copied()).collect();
    tokens.extend_from_slice(frame.between);
    let second = tokens.len();
    tokens.extend(document.iter().copied().chain(frame.after));
    InputTokens { tokens, second }
}

/// Leaves `max` tokens at most, one after the other taken from the end of the longer text, of equal ones from the second.
fn cut_longer(first: &mut Vec<u32>, second: &mut Vec<u32>, max: usize) {
    let excess = (first.len() + second.len()).saturating_sub(max);
    let apart = first.len().abs_diff(second.len());
    let (longer_loses, both_lose) = (excess.min(apart), excess.saturating_sub(apart));
    let longer = if first.len() > second.len() { &mut *first } else { &mut *second };
    longer.truncate(longer.len() - longer_loses);
    first.truncate(first.len() - both_lose / 2);
    second.truncate(second.len() - both_lose.div_ceil(2));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As transformers' `longest_first`.
    #[track_caller]
    fn check(lengths: [usize; 2], max: usize, left: [usize; 2]) {
        let [mut first, mut second] = lengths.map(|len| vec![0; len]);
        cut_longer(&mut first, &mut second, max);
        assert_eq!([first.len(), second.len()], left, "{lengths:?} to {max}");
    }

    #[test]
    fn the_longer_text_is_cut() {
        check([3, 4], 7, [3, 4]);
        check([3, 4], 100, [3, 4]);
        check([3, 40], 20, [3, 17]);
        check([40, 3], 20, [17, 3]);
        check([10, 30], 14, [7, 7]);
        check([10, 10], 15, [5 + 3, 7]);
        check([10, 12], 0, [0, 0]);
    }
}
