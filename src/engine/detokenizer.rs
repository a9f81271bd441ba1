//! Tokens to text while they are generated: whole characters only, and nothing that may yet become a stop string.
//!
//! Works on bytes ([`Tokenizer::token_bytes`]), since a character may be spread over tokens. The texts of one stream,
//! joined, are what decoding all of its bytes at once gives.

use std::collections::VecDeque;

use super::{stop::StopStrings, tokenizer::Tokenizer};

/// Where in a text a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At its start, as a chat reply does: the space that SentencePiece puts before a first word is left out.
    OfText,
    /// After a prompt that it continues: all spaces count.
    Continuation,
}

/// What a token has brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// Nothing to show yet.
    Held,
    /// New text, and the tokens whose last byte it holds.
    Text { text: String, token_ids: Vec<u32> },
    /// The stop string of this index has appeared: the text before it, and all tokens that were held. The stream has ended.
    Stopped { by: usize, text: String, token_ids: Vec<u32> },
}

/// The text of one sequence as it grows.
#[derive(Debug)]
pub struct TextStream {
    stops: StopStrings,
    /// Bytes that are not text yet: an unfinished character, or what may become a stop string.
    held: Vec<u8>,
    /// Tokens that have not been given out, and where in the stream each ends.
    tokens: VecDeque<(u32, usize)>,
    /// Bytes that have become text.
    released: usize,
    /// The next byte, if it is a space, is none of the text's.
    drop_space: bool,
    /// Special tokens that have a text all the same.
    visible: Vec<u32>,
}

impl TextStream {
    pub fn new(stops: StopStrings, start: Start, visible: Vec<u32>, tokenizer: &Tokenizer) -> Self {
        let drop_space = start == Start::OfText && tokenizer.adds_leading_space();
        Self { stops, held: Vec::new(), tokens: VecDeque::new(), released: 0, drop_space, visible }
    }

    /// Takes the next token. Special tokens have no text, but for the visible ones.
    pub fn push(&mut self, token: u32, tokenizer: &Tokenizer) -> Pushed {
        let hidden = tokenizer.is_special(token) && !self.visible.contains(&token);
        self.push_bytes(token, if hidden { &[] } else { tokenizer.token_bytes(token) })
    }

    fn push_bytes(&mut self, token: u32, mut bytes: &[u8]) -> Pushed {
        if self.drop_space && !bytes.is_empty() {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            self.drop_space = false;
        }
        self.held.extend_from_slice(bytes);
        self.tokens.push_back((token, self.released + self.held.len()));
        if let Some(stop) = self.stops.find(&self.held) {
            self.held.truncate(stop.at);
            let text = String::from_utf8_lossy(&self.held).into_owned();
            return Pushed::Stopped {
                by: stop.index,
                text,
                token_ids: self.tokens.drain(..).map(|(id, _)| id).collect(),
            };
        }
        let free = self.stops.held_from(&self.held);
        let (text, taken) = whole_characters(&self.held[..free]);
        if text.is_empty() {
            return Pushed::Held;
        }
        self.held.drain(..taken);
        self.released += taken;
        let done = self.tokens.partition_point(|&(_, end)| end <= self.released);
        Pushed::Text { text, token_ids: self.tokens.drain(..done).map(|(id, _)| id).collect() }
    }

    /// The generation has ended: what was held is text after all.
    pub fn finish(self) -> (String, Vec<u32>) {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        (text, self.tokens.into_iter().map(|(id, _)| id).collect())
    }
}

/// The text of `bytes` up to an unfinished character at their end, and how many bytes that is. Bytes that can't begin
/// or go on a character become U+FFFD, as in `String::from_utf8_lossy`.
fn whole_characters(bytes: &[u8]) -> (String, usize) {
    let mut text = String::new();
    let mut taken = 0;
    loop {
        let rest = &bytes[taken..];
        let (valid, broken) = match std::str::from_utf8(rest) {
            Ok(_) => (rest.len(), None),
            Err(e) => (e.valid_up_to(), e.error_len()),
        };
        text.push_str(&String::from_utf8_lossy(&rest[..valid]));
        taken += valid;
        let Some(broken) = broken else { return (text, taken) };
        text.push(char::REPLACEMENT_CHARACTER);
        taken += broken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(stops: &[&str], drop_space: bool) -> TextStream {
        let stops = StopStrings::new(&stops.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        let visible = Vec::new();
        TextStream { stops, held: Vec::new(), tokens: VecDeque::new(), released: 0, drop_space, visible }
    }

    /// All text and tokens of a stream whose token `i` is `tokens[i]`, and whether it was stopped.
    fn drain(mut stream: TextStream, tokens: &[&[u8]]) -> (String, Vec<u32>, bool) {
        let (mut text, mut ids) = (String::new(), Vec::new());
        for (id, bytes) in tokens.iter().enumerate() {
            match stream.push_bytes(id as u32, bytes) {
                Pushed::Held => {}
                Pushed::Text { text: new, token_ids } => {
                    assert!(!new.is_empty());
                    text.push_str(&new);
                    ids.extend(token_ids);
                }
                Pushed::Stopped { text: new, token_ids, .. } => {
                    ids.extend(token_ids);
                    return (text + &new, ids, true);
                }
            }
        }
        let (rest, held) = stream.finish();
        ids.extend(held);
        (text + &rest, ids, false)
    }

    #[test]
    fn text_is_whole_characters_with_their_tokens() {
        let mut stream = stream(&[], false);
        let smile = "🙂".as_bytes();
        assert_eq!(stream.push_bytes(7, &smile[..2]), Pushed::Held);
        assert_eq!(stream.push_bytes(8, &[]), Pushed::Held);
        let text = Pushed::Text { text: "🙂".into(), token_ids: vec![7, 8] };
        assert_eq!(stream.push_bytes(9, &[&smile[2..], &[0xe2]].concat()), text);
        assert_eq!(stream.finish(), ("\u{fffd}".into(), vec![9]));
    }

    #[test]
    fn one_leading_space_is_dropped() {
        assert_eq!(drain(stream(&[], true), &[b"", b" ", b" a"]).0, " a");
        assert_eq!(drain(stream(&[], true), &[b"a", b" b"]).0, "a b");
        assert_eq!(drain(stream(&[], false), &[b" a"]).0, " a");
    }

    #[test]
    fn stop_strings_over_every_split() {
        let text = "Grüße! <stöp> more".as_bytes();
        for a in 0..=text.len() {
            for b in a..=text.len() {
                let tokens = [&text[..a], &text[a..b], &text[b..]];
                let (found, ids, stopped) = drain(stream(&["<stöp>", "<stay>"], false), &tokens);
                assert_eq!((found.as_str(), stopped), ("Grüße! ", true), "split at {a} and {b}");
                assert_eq!(ids, (0..ids.len() as u32).collect::<Vec<_>>(), "split at {a} and {b}");
            }
        }
    }

    /// Random bytes (lead bytes, continuations, letters) in random tokens: the joined texts are the lossy decoding of
    /// everything before the first stop string.
    #[test]
    fn joined_texts_are_the_text() {
        for seed in 1..2_000u64 {
            let mut state = seed;
            let mut random = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            let alphabet = b"ab\xc3\xa9\xe2\x82\xac\xf0\x9f\x99\x82\xff ";
            let tokens: Vec<Vec<u8>> = (0..random(20))
                .map(|_| (0..random(5)).map(|_| alphabet[random(alphabet.len() as u64) as usize]).collect())
                .collect();
            let tokens: Vec<&[u8]> = tokens.iter().map(Vec::as_slice).collect();
            let stops: &[&str] = [&["aab", "é"][..], &["€b"], &[]][random(3) as usize];
            let all = tokens.concat();
            let stop = stops.iter().filter_map(|s| all.windows(s.len()).position(|w| w == s.as_bytes())).min();
            let expected = String::from_utf8_lossy(&all[..stop.unwrap_or(all.len())]);

            let (text, ids, stopped) = drain(stream(stops, false), &tokens);
            assert_eq!((text.as_str(), stopped), (&*expected, stop.is_some()), "seed {seed}");
            assert_eq!(ids, (0..ids.len() as u32).collect::<Vec<_>>(), "seed {seed}");
            assert!(stopped || ids.len() == tokens.len(), "seed {seed}");
        }
    }
}
