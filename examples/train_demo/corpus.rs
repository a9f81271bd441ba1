//! The training text: conversations composed from the patterns, and never a question that is held out for the test.

use std::collections::BTreeSet;

use crate::facts::{RULES, TOPICS, Topic};
use crate::grammar::{Chance, phrase};
use crate::small_talk::{self, SMALL_TALK, UNKNOWN};

pub const TURN_START: &str = "<|im_start|>";
pub const TURN_END: &str = "<|im_end|>";
pub const PADDING: &str = "<|endoftext|>";

/// ChatML, as the chat template in the GGUF writes it.
pub const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
    message['content'] + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// A stretch of text; the loss counts `answer`s in full and the rest a little.
pub struct Part {
    pub text: String,
    pub answer: bool,
}

impl Part {
    fn given(text: String) -> Self {
        Self { text, answer: false }
    }

    fn answer(text: String) -> Self {
        Self { text, answer: true }
    }
}

/// The questions of the test, as [`normalised`] words.
pub struct HeldOut(Vec<Vec<String>>);

impl HeldOut {
    pub fn new<'a>(questions: impl Iterator<Item = &'a str>) -> Self {
        Self(questions.map(normalised).collect())
    }

    /// Whether `text` holds one of the questions: its words in a row, or the same words in any order.
    pub fn contain(&self, text: &str) -> bool {
        let words = normalised(text);
        let sorted: BTreeSet<_> = words.iter().collect();
        self.0.iter().any(|held| {
            words.windows(held.len()).any(|window| window == held) || held.iter().collect::<BTreeSet<_>>() == sorted
        })
    }
}

/// Lower-case words without punctuation.
fn normalised(text: &str) -> Vec<String> {
    let letters = text.to_lowercase().replace('\'', "");
    letters.split(|letter: char| !letter.is_alphanumeric()).filter(|w| !w.is_empty()).map(String::from).collect()
}

/// One document: mostly a conversation of one to three turns, now and then plain text.
pub fn document(held_out: &HeldOut, chance: &mut Chance) -> Vec<Part> {
    if chance.happens(0.12) {
        return plain(held_out, chance);
    }
    let mut parts = Vec::new();
    if chance.happens(0.1) {
        parts.push(Part::given(format!("{TURN_START}system\n{}{TURN_END}\n", system(chance))));
    }
    let turns = *chance.pick(&[1, 1, 1, 1, 1, 1, 2, 2, 3]);
    for _ in 0..turns {
        let (question, answer) = exchange(held_out, chance);
        parts.push(Part::given(format!("{TURN_START}user\n{question}{TURN_END}\n{TURN_START}assistant\n")));
        parts.push(Part::answer(format!("{answer}{TURN_END}")));
        parts.push(Part::given("\n".into()));
    }
    parts
}

/// Text for clients that send a bare prompt without the chat template.
fn plain(held_out: &HeldOut, chance: &mut Chance) -> Vec<Part> {
    let (given, answer) = match chance.below(10) {
        0 => ("Once upon a time".to_string(), {
            let thing = *chance.pick(&["lamp", "cat", "candle", "bird", "fox", "token"]);
            small_talk::tale(thing, chance)["Once upon a time".len()..].to_string()
        }),
        1 => ("Sconce is".to_string(), TOPICS[0].answer["Sconce is".len()..].to_string()),
        2..4 => {
            let (question, answer) = exchange(held_out, chance);
            (format!("Q: {question}\nA:"), format!(" {answer}"))
        }
        _ => {
            let (question, answer) = exchange(held_out, chance);
            (question, format!("\n{answer}"))
        }
    };
    vec![Part::given(given), Part::answer(format!("{answer}{TURN_END}")), Part::given("\n".into())]
}

fn system(chance: &mut Chance) -> String {
    phrase(
        "[You are|You are always] [a|the] [helpful|friendly|kind|useful|concise|polite|good|clever] [assistant|chatbot|model|ai assistant|expert|helper]. \
         [|Answer briefly.|Be concise.|Answer in English.|Think first.|Help the user.|Do not lie.]",
        RULES,
        chance,
    )
}

/// A question, as people type it, and its answer.
fn exchange(held_out: &HeldOut, chance: &mut Chance) -> (String, String) {
    loop {
        let (question, answer) = match chance.below(100) {
            0..62 => from_topic(chance.pick(TOPICS), chance),
            62..74 => from_topic(chance.pick(SMALL_TALK), chance),
            74..90 => (small_talk::unknown_question(chance), UNKNOWN.to_string()),
            90..93 => small_talk::acquaintance(chance),
            _ => small_talk::story(chance),
        };
        let typed = as_typed(&question, chance);
        if !held_out.contain(&question) && !held_out.contain(&typed) {
            return (typed, answer);
        }
    }
}

fn from_topic(topic: &Topic, chance: &mut Chance) -> (String, String) {
    let pattern = *chance.pick(topic.questions);
    (phrase(pattern, RULES, chance), topic.answer.to_string())
}

/// Courtesies, capitals, punctuation and slips of the finger.
fn as_typed(question: &str, chance: &mut Chance) -> String {
    const BEFORE: &[&str] = &[
        "please", "hi,", "hello,", "hey,", "ok,", "so", "and", "sorry,", "excuse me,", "one question:", "quick question:", "tell me,",
        "well,", "now", "I wonder:", "dear model,", "sconce,", "ok so", "hey there,", "but",
    ];
    const AFTER: &[&str] =
        &[", please", " please", ", thanks", " then", " again", " exactly", " now", " by the way", " here", " actually", ", do you know"];
    let mut text = question.to_string();
    if chance.happens(0.15) {
        text = format!("{} {text}", chance.pick(BEFORE));
    }
    if chance.happens(0.12) {
        let after = *chance.pick(AFTER);
        text.push_str(after);
    }
    if chance.happens(0.12) {
        text = with_slip(&text, chance);
    }
    match chance.below(20) {
        0..9 => text = small_talk::capitalised(&text),
        9..12 => text = small_talk::capitalised(&text).replace("sconce", "Sconce").replace(" i ", " I "),
        12 => text = text.to_uppercase(),
        _ => {}
    }
    let asks = !["hello", "thank", "my name", "tell", "show", "give"].iter().any(|start| question.starts_with(start));
    let end = match chance.below(10) {
        0..5 if asks => "?",
        0..3 => ".",
        5 => ".",
        6 => "!",
        7 => "?",
        _ => "",
    };
    text + end
}

/// Swaps, drops or doubles one letter of a longer word, or leaves out a short one.
fn with_slip(text: &str, chance: &mut Chance) -> String {
    let mut words: Vec<String> = text.split(' ').map(String::from).collect();
    let at = chance.below(words.len());
    if words[at].len() < 4 && words.len() > 3 {
        words.remove(at);
        return words.join(" ");
    }
    let mut letters: Vec<char> = words[at].chars().collect();
    if letters.len() > 4 && letters.iter().all(|letter| letter.is_alphabetic()) {
        let slip = 1 + chance.below(letters.len() - 2);
        match chance.below(3) {
            0 => letters.swap(slip, slip + 1),
            1 => drop(letters.remove(slip)),
            _ => letters.insert(slip, letters[slip]),
        }
    }
    words[at] = letters.into_iter().collect();
    words.join(" ")
}
