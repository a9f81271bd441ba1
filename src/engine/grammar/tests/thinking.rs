//! Thoughts before an answer: free, bounded, and never taken for the answer.

use super::*;
use crate::engine::{
    grammar::{Allowed, Constraint, Progress},
    request::Thinking,
};

const WORDS: [&str; 8] = ["yes", "no", "x", "y", "</", "th", "<", "/"];

struct Thinker {
    tokenizer: Arc<Tokenizer>,
    constraint: Constraint,
}

impl Thinker {
    fn new(begun: bool, tokens_max: Option<usize>, answer: Option<&str>, close: &[&str]) -> Self {
        let tokenizer = tokenizer(&WORDS);
        let id = |name: &&str| tokenizer.token_to_id(name).unwrap();
        let thinking =
            Thinking { open: vec![id(&"<think>")], close: close.iter().map(id).collect(), begun, tokens_max };
        let grammar =
            answer.map(|answer| Compiler::new(&tokenizer).compile(&GrammarSource::Regex(answer.into())).unwrap());
        let constraint = Constraint::new(grammar, Some(thinking), false, &tokenizer).unwrap();
        Self { tokenizer, constraint }
    }

    fn id(&self, name: &str) -> u32 {
        self.tokenizer.token_to_id(name).unwrap()
    }

    #[track_caller]
    fn say(&mut self, names: &[&str]) -> Progress {
        let mut progress = Progress::GoesOn;
        for name in names {
            let token = self.id(name);
            assert!(self.constraint.allowed().unwrap().permits(token), "{name}");
            progress = self.constraint.advance(token).unwrap();
        }
        progress
    }

    #[track_caller]
    fn may(&mut self, name: &str, expected: bool) {
        let token = self.id(name);
        assert_eq!(self.constraint.allowed().unwrap().permits(token), expected, "{name}");
    }
}

#[test]
fn an_answer_follows_thoughts_that_the_prompt_began() {
    let mut thinker = Thinker::new(true, None, Some("yes|no"), &["</think>"]);
    thinker.say(&["x", "y", "yes", "x"]);
    thinker.may("</s>", false);
    thinker.say(&["</think>"]);
    thinker.may("x", false);
    thinker.may("</s>", false);
    assert_eq!(thinker.say(&["no"]), Progress::Complete);
}

#[test]
fn a_model_may_think_or_answer() {
    let mut thinker = Thinker::new(false, None, Some("yes|no"), &["</think>"]);
    thinker.may("x", false);
    assert_eq!(thinker.say(&["<think>", "x", "</think>", "yes"]), Progress::Complete);
    let mut thinker = Thinker::new(false, None, Some("yes|no"), &["</think>"]);
    assert_eq!(thinker.say(&["yes"]), Progress::Complete);
}

#[test]
fn thoughts_end_with_their_budget() {
    let mut thinker = Thinker::new(true, Some(3), None, &["</think>"]);
    thinker.say(&["x", "x", "x"]);
    thinker.may("x", false);
    assert_eq!(thinker.constraint.forced(), [thinker.id("</think>")]);
    thinker.say(&["</think>", "x", "</s>"]);
    // The last words of a thought may have begun its end.
    let mut thinker = Thinker::new(true, Some(2), Some("no"), &["</", "th", "x"]);
    thinker.say(&["x", "</"]);
    thinker.may("</", false);
    thinker.say(&["th", "x"]);
    assert_eq!(thinker.say(&["no"]), Progress::Complete);
    // No thoughts at all.
    let mut thinker = Thinker::new(true, Some(0), Some("no"), &["</think>"]);
    thinker.may("x", false);
    assert_eq!(thinker.say(&["</think>", "no"]), Progress::Complete);
}

#[test]
fn the_end_of_thoughts_is_what_it_spells() {
    let mut thinker = Thinker::new(true, None, Some("no"), &["</", "th"]);
    // "</th" in other tokens.
    thinker.say(&["x", "<", "/", "th"]);
    thinker.may("x", false);
    assert_eq!(thinker.say(&["no"]), Progress::Complete);
}

#[test]
fn looking_ahead_is_looking_later() {
    let states = |thinker: &Thinker, draft: &[&str]| {
        let draft: Vec<u32> = draft.iter().map(|name| thinker.id(name)).collect();
        thinker.constraint.clone().look_ahead(&draft).unwrap()
    };
    let list = |allowed: &Allowed| (0..300).filter(|&id| allowed.permits(id)).collect::<Vec<u32>>();
    let thinker = Thinker::new(true, Some(2), Some("(yes|no)x"), &["</think>"]);
    let draft = ["x", "y", "</think>", "no", "x"];
    let ahead = states(&thinker, &draft);
    // The last token completes the answer: nothing is allowed after it.
    assert_eq!(ahead.len(), draft.len());
    let mut later = thinker.constraint.clone();
    for (at, (_, allowed)) in ahead.iter().enumerate() {
        assert_eq!(list(allowed), list(&later.allowed().unwrap()), "after {at}");
        later.advance(thinker.id(draft[at])).unwrap();
    }
    // A guess that is not allowed is not followed.
    assert_eq!(states(&thinker, &["x", "y", "x", "x"]).len(), 3);
}
