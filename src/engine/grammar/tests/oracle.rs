//! Masks against brute force: a token is allowed if and only if its bytes keep the text a prefix of the language.

use std::collections::BTreeSet;

use llguidance::Matcher;

use super::*;
use crate::engine::{fake::Rng, grammar::vocabulary::Vocabulary};

/// Over two letters and two more bytes, with tokens that overlap: what there is to say is soon listed.
const WORDS: [&str; 16] =
    ["a", "b", "c", " ", "aa", "ab", "ba", "bb", "abc", "aab", " a", "b ", "cab", "bca", "aaaa", "é"];

/// All texts of at most `characters` that a regular expression matches from start to end.
fn language(expression: &str, characters: usize) -> BTreeSet<Vec<u8>> {
    let whole = regex::Regex::new(&format!("^(?:{expression})$")).unwrap();
    let mut language = BTreeSet::new();
    let mut texts = vec![String::new()];
    for _ in 0..=characters {
        language.extend(texts.iter().filter(|text| whole.is_match(text)).map(|text| text.as_bytes().to_vec()));
        texts = texts.iter().flat_map(|text| ["a", "b", "c", " ", "é"].map(|c| text.clone() + c)).collect();
    }
    language
}

/// Languages of texts of at most six characters.
const LANGUAGES: [&str; 10] = [
    "(ab|ba){0,3}",
    "a{2,5}b?",
    "abc|ab| a|aab c",
    "(a|aa|aaa)b",
    "[ab]{0,3}c[ab]{0,2}",
    "(é|b){1,3}",
    "a(b(c(a(b)?)?)?)?",
    "( a){1,2}|b{4}",
    "c?",
    "a[abc ]{0,4}c",
];

#[test]
fn masks_are_the_languages() {
    let tokenizer = tokenizer(&WORDS);
    for (forcing, expression) in [false, true].into_iter().flat_map(|forcing| LANGUAGES.map(|e| (forcing, e))) {
        let language = language(expression, 6);
        let can_go_on = |text: &[u8]| language.iter().any(|whole| whole.starts_with(text));
        let factory = Vocabulary::new(Arc::clone(&tokenizer), forcing).unwrap().into_factory().unwrap();
        let parser = GrammarSource::Regex(expression.into()).parser(&factory, &tokenizer).unwrap();
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut matcher = Matcher::new(Ok(parser.clone()));
            let mut text = Vec::new();
            while !matcher.is_stopped() {
                let allowed: BTreeSet<u32> = matcher.compute_mask().unwrap().to_list().into_iter().collect();
                let expected: BTreeSet<u32> = (0..tokenizer.vocabulary() as u32)
                    .filter(|&id| match tokenizer.end_tokens().contains(&id) {
                        true => language.contains(&text),
                        false => {
                            let bytes = tokenizer.token_bytes(id);
                            !tokenizer.is_special(id) && can_go_on(&[&text, bytes].concat())
                        }
                    })
                    .collect();
                let said = String::from_utf8_lossy(&text).into_owned();
                // What is forced is written in one way only.
                let holds = if forcing { allowed.is_subset(&expected) } else { allowed == expected };
                assert!(holds && !allowed.is_empty(), "{expression} after {said:?}: {allowed:?}, not {expected:?}");
                let all: Vec<u32> = allowed.into_iter().collect();
                let token = all[rng.within(0, all.len())];
                matcher.consume_token(token).unwrap();
                if !tokenizer.end_tokens().contains(&token) {
                    text.extend_from_slice(tokenizer.token_bytes(token));
                }
            }
            assert!(language.contains(&text), "{expression}: seed {seed} said {:?}", String::from_utf8_lossy(&text));
        }
    }
}
