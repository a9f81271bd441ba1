//! What is composed rather than looked up: little stories, names, and words that mean nothing.

use crate::chance::Chance;
use crate::grammar::Grammar;

/// A word that means nothing, so that the model also meets what its corpus does not hold.
pub fn made_up_word(chance: &mut Chance) -> String {
    const STARTS: &[&str] = &[
        "b", "br", "d", "f", "g", "gl", "h", "j", "k", "kr", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "tr", "v",
        "z",
    ];
    const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "ai", "ea", "oo", "y"];
    const ENDS: &[&str] = &["", "", "n", "r", "l", "m", "s", "t", "ck", "nd"];
    let syllables = 2 + chance.below(2);
    (0..syllables).map(|_| format!("{}{}{}", chance.pick(STARTS), chance.pick(VOWELS), chance.pick(ENDS))).collect()
}

/// A name, known or made up.
pub fn name(chance: &mut Chance) -> String {
    const NAMES: &[&str] = &[
        "Ana", "Tom", "Mia", "Ben", "Lena", "Paul", "Sara", "Max", "Eva", "Jan", "Kim", "Lee", "Omar", "Rita", "Finn",
        "Ivan",
    ];
    if chance.happens(0.3) { chance.pick(NAMES).to_string() } else { capitalised(&made_up_word(chance)) }
}

/// A request for a story and the story.
pub fn story(grammar: &Grammar, chance: &mut Chance) -> (String, String) {
    const THINGS: &[&str] = &[
        "lamp", "cat", "candle", "robot", "dog", "bird", "dragon", "king", "fish", "mouse", "tree", "star", "ship",
        "fox", "bear", "girl", "boy", "server", "token", "cloud", "horse", "rabbit", "snail", "queen", "knight",
        "clock", "book", "frog", "owl", "whale",
    ];
    let thing = if chance.happens(0.5) { chance.pick(THINGS).to_string() } else { made_up_word(chance) };
    let ask = grammar.phrase(
        "[tell me|write|tell|i want to hear|can you tell me|give me|please tell me|could you tell me|write me|invent|make up|read me] [a|a short|a little|a nice|a small|a bedtime|another|a very short] [story|tale|fairy tale|story]",
        chance,
    );
    let about = chance.happens(0.75);
    let question = if about { format!("{ask} {} a {thing}", chance.pick(&["about", "of", "with"])) } else { ask };
    (question, tale(grammar, &thing, chance))
}

/// A story about a `thing`.
pub fn tale(grammar: &Grammar, thing: &str, chance: &mut Chance) -> String {
    const NAMES: &[&str] = &["Pim", "Lumo", "Nell", "Otto", "Wick", "Tilda", "Bram", "Fay"];
    let name = *chance.pick(NAMES);
    let pattern = "Once upon a time there was a [small|little|shy|brave|curious|quiet] {thing} named {name}. \
        {name} lived [in an old library|in a tall tower|by the sea|at the edge of a forest|on a green hill|in a small town]. \
        One [evening|night|winter day|morning], [the wind blew out every light|a stranger knocked at the door|a great storm came|all the streets went dark|a child got lost in the fog]. \
        {name} [was afraid, but went out to help|thought for a while and had an idea|took a candle and set off|did not wait and called the others]. \
        [Together they found the way home|Soon there was light again|The storm passed, and everyone was safe|They shared bread and warm tea], \
        and [from that day on nobody was afraid of the dark|they were friends for ever|{name} slept well that night|people still tell of it]. [The end.|]";
    grammar.phrase(pattern, chance).replace("{thing}", thing).replace("{name}", name)
}

pub fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
