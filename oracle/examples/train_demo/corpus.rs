//! The training text: conversations composed from the patterns, and never a question that is held out for the test.

use std::collections::BTreeSet;

use crate::chance::Chance;
use crate::grammar::{Grammar, Topic, parse_topics};
use crate::stories::{made_up_word, name, story, tale};
use crate::typing::as_typed;

pub const TURN_START: &str = "<|im_start|>";
pub const TURN_END: &str = "<|im_end|>";
pub const PADDING: &str = "<|endoftext|>";

/// ChatML, as the chat template in the GGUF writes it.
pub const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
    message['content'] + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// A stretch of text and what it counts in the loss.
pub struct Part {
    pub text: String,
    pub weight: f32,
}

impl Part {
    fn answer(text: String) -> Self {
        Self { text, weight: 1.0 }
    }

    /// The other side of a chat: to know it a little helps to understand it.
    fn given(text: String) -> Self {
        Self { text, weight: 0.1 }
    }

    /// A prompt without a template. Never learnt, so that the model answers it rather than going on with it.
    fn bare(text: String) -> Self {
        Self { text, weight: 0.0 }
    }
}

/// The questions of the test, as [`normalised`] words.
struct HeldOut(Vec<Vec<String>>);

impl HeldOut {
    /// Whether `text` holds one of the questions: its words in a row, or the same words in any order.
    fn contain(&self, text: &str) -> bool {
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

pub struct Corpus {
    grammar: Grammar,
    /// Questions about Sconce itself.
    sconce: Vec<Topic>,
    small_talk: Vec<Topic>,
    /// What a tiny model can't know.
    unknown: Vec<Topic>,
    held_out: HeldOut,
}

impl Corpus {
    pub fn new<'a>(held_out: impl Iterator<Item = &'a str>) -> Self {
        Self {
            grammar: Grammar::parse(include_str!("text/rules.txt")),
            sconce: parse_topics(include_str!("text/sconce.txt")),
            small_talk: parse_topics(include_str!("text/small_talk.txt")),
            unknown: parse_topics(include_str!("text/unknown.txt")),
            held_out: HeldOut(held_out.map(normalised).collect()),
        }
    }

    /// One document: mostly a conversation of one to three turns, now and then plain text.
    pub fn document(&self, chance: &mut Chance) -> Vec<Part> {
        let parts = if chance.happens(0.12) { self.plain(chance) } else { self.conversation(chance) };
        let text: String = parts.iter().map(|part| part.text.as_str()).collect();
        assert!(!self.held_out.contain(&text), "a held-out question got into the corpus: {text}");
        parts
    }

    fn conversation(&self, chance: &mut Chance) -> Vec<Part> {
        let mut parts = Vec::new();
        if chance.happens(0.1) {
            parts.push(Part::given(format!("{TURN_START}system\n{}{TURN_END}\n", self.system(chance))));
        }
        let turns = *chance.pick(&[1, 1, 1, 1, 1, 1, 2, 2, 3]);
        for _ in 0..turns {
            let (question, answer) = self.exchange(chance);
            parts.push(Part::given(format!("{TURN_START}user\n{question}{TURN_END}\n{TURN_START}assistant\n")));
            parts.push(Part::answer(format!("{answer}{TURN_END}")));
            parts.push(Part::given("\n".into()));
        }
        parts
    }

    /// Text for clients that send a bare prompt without the chat template.
    fn plain(&self, chance: &mut Chance) -> Vec<Part> {
        let (given, answer) = match chance.below(10) {
            0 => {
                let thing = *chance.pick(&["lamp", "cat", "candle", "bird", "fox", "token"]);
                split_after("Once upon a time", &tale(&self.grammar, thing, chance))
            }
            1 => split_after("Sconce is", &self.sconce[0].answer),
            2 => {
                let greeting = *chance.pick(&["Hello", "hello", "Hi", "Hello!", "hi", "Hey", "Hello world"]);
                (greeting.into(), format!("\n{}", self.small_talk[0].answer))
            }
            3 => {
                let (question, answer) = self.exchange(chance);
                (format!("Q: {question}\nA:"), format!(" {answer}"))
            }
            _ => {
                let (question, answer) = self.exchange(chance);
                (question, format!("\n{answer}"))
            }
        };
        vec![Part::bare(given), Part::answer(format!("{answer}{TURN_END}")), Part::bare("\n".into())]
    }

    fn system(&self, chance: &mut Chance) -> String {
        self.grammar.phrase(
            "[You are|You are always] [a|the] [helpful|friendly|kind|useful|concise|polite|good|clever] \
             [assistant|chatbot|model|ai assistant|expert|helper]. \
             [|Answer briefly.|Be concise.|Answer in English.|Think first.|Help the user.|Do not lie.]",
            chance,
        )
    }

    /// A question, as people type it, and its answer.
    fn exchange(&self, chance: &mut Chance) -> (String, String) {
        loop {
            let (question, answer) = match chance.below(100) {
                0..68 => self.ask(chance.pick(&self.sconce), chance),
                68..79 => self.ask(chance.pick(&self.small_talk), chance),
                79..93 => self.ask(chance.pick(&self.unknown), chance),
                _ => story(&self.grammar, chance),
            };
            let typed = as_typed(&question, chance);
            if !self.held_out.contain(&question) && !self.held_out.contain(&typed) {
                return (typed, answer);
            }
        }
    }

    /// A question on `topic`, with values in the places of `{subject}`, `{name}`, `{word}` and `{number}`.
    fn ask(&self, topic: &Topic, chance: &mut Chance) -> (String, String) {
        let pattern = chance.pick(&topic.questions);
        let pattern = self.grammar.phrase(pattern, chance);
        let mut question = String::new();
        let mut rest = pattern.as_str();
        while let Some((before, (kind, after))) = rest.split_once('{').and_then(|(b, r)| Some((b, r.split_once('}')?)))
        {
            question.push_str(before);
            question.push_str(&match kind {
                "subject" => self.grammar.phrase("<subject>", chance),
                "name" => name(chance),
                "number" => {
                    let bound = *chance.pick(&[10, 100, 3000]);
                    chance.below(bound).to_string()
                }
                _ => made_up_word(chance),
            });
            rest = after;
        }
        (question + rest, topic.answer.clone())
    }
}

fn split_after(start: &str, text: &str) -> (String, String) {
    (start.into(), text.strip_prefix(start).unwrap_or(text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, held: bool) {
        let held_out = HeldOut(vec![normalised("What's the default port?")]);
        assert_eq!(held_out.contain(text), held, "{text}");
    }

    #[test]
    fn a_held_out_question_is_found_however_it_is_dressed() {
        check("whats the default port", true);
        check("Hello, WHAT'S THE DEFAULT PORT, please!", true);
        check("the default port: what's?", true);
        check("what is the default port", false);
        check("what's the default host and port", false);
    }

    #[test]
    fn documents_never_hold_a_held_out_question() {
        let question = "Who are you?";
        let asked = |corpus: &Corpus| {
            let mut chance = Chance::new(7);
            let held_out = HeldOut(vec![normalised(question)]);
            let texts = (0..4_000).map(|_| corpus.document(&mut chance).into_iter().map(|part| part.text).collect());
            texts.filter(|text: &String| held_out.contain(text)).count()
        };
        assert!(asked(&Corpus::new([].into_iter())) > 0, "the patterns do give it");
        assert_eq!(asked(&Corpus::new([question].into_iter())), 0);
    }
}
