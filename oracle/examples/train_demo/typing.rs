//! Questions the way people type them.

use crate::chance::Chance;
use crate::stories::capitalised;

/// Courtesies, capitals, punctuation and slips of the finger.
pub fn as_typed(question: &str, chance: &mut Chance) -> String {
    const BEFORE: &[&str] = &[
        "please",
        "hi,",
        "hello,",
        "hey,",
        "ok,",
        "so",
        "and",
        "sorry,",
        "excuse me,",
        "one question:",
        "quick question:",
        "tell me,",
        "well,",
        "now",
        "I wonder:",
        "dear model,",
        "sconce,",
        "ok so",
        "hey there,",
        "but",
    ];
    const AFTER: &[&str] = &[
        ", please",
        " please",
        ", thanks",
        " then",
        " again",
        " exactly",
        " now",
        " by the way",
        " here",
        " actually",
        ", do you know",
    ];
    const REMARKS: &[&str] = &[
        "i just installed this",
        "i am new here",
        "i'm on linux",
        "i use a laptop",
        "i have read the readme",
        "i have a question",
        "i like this",
        "this is my first time",
        "i don't understand",
        "i am a beginner",
        "i use a mac",
        "we have a small server",
        "i want to try this",
        "good",
        "it runs",
        "it is running now",
        "i started the server",
        "nice project",
        "one more thing",
    ];
    let mut text = question.to_string();
    if chance.happens(0.07) {
        text = format!("{}. {}", chance.pick(REMARKS), capitalised(&text));
    } else if chance.happens(0.15) {
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
        0..9 => text = capitalised(&text),
        9..12 => text = capitalised(&text).replace("sconce", "Sconce").replace(" i ", " I "),
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
