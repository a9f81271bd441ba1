//! How text is cut into pieces before byte-pair merging, by the names that `tokenizer.ggml.pre` gives to the rules.
//!
//! Each rule cuts the pieces that the rule before left: what it matches becomes pieces, and so does what lies between.
//! The patterns are those of the models' own `tokenizer.json` files. All are matched in linear time: the only
//! look-ahead they use, `\s+(?!\S)`, is done by hand, and digit groups are counted, so no text makes them slow.

use std::ops::Range;

use regex::Regex;

use super::error::TokenizerError;

/// What a piece is cut into before merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    /// Characters, with `▁` for spaces (SentencePiece's way, as Gemma 4 uses it).
    Chars,
}

/// What a name in `tokenizer.ggml.pre` stands for.
#[derive(Debug)]
pub(super) struct Rules {
    pub cuts: &'static [Cut],
    pub unit: Unit,
    /// Whether a piece that is a token skips merging (`ignore_merges`).
    pub whole_pieces: bool,
    /// Whether BOS is added when the file does not say.
    pub add_bos: bool,
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Each match is a piece. A pattern that ends with `|\s+` means `|\s+(?!\S)|\s+`: two or more whitespace characters
    /// before a word leave their last one to the word, unless it is a newline that `\s*[\r\n]` asked for.
    Pattern(&'static str),
    /// Digits in threes from the right: `1|234|567`.
    Thousands,
    /// The same, but not where a letter follows: `\d{1,3}(?=(?:\d{3})*\b)`.
    ThousandsAtWordEnd,
}

use Cut::{Pattern, Thousands, ThousandsAtWordEnd};

const GPT2: Cut = Pattern(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+");
const QWEN2: Cut = Pattern(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
const QWEN35: Cut = Pattern(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
const UFAKZEKA: Cut = Pattern(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+");
const LLAMA3: Cut = Pattern(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
const MINICPM5: Cut = Pattern(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
const SEED_CODER: Cut = Pattern(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+",
);
const BAILING: Cut = Pattern(
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+",
);
const EXAONE_MOE: Cut = Pattern(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+",
);
const TEKKEN: Cut = Pattern(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
const GPT4O: Cut = Pattern(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
const YOUTU: Cut = Pattern(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
const KIMI_K2: Cut = Pattern(
    r"\p{Han}+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
const DEEPSEEK_V3: Cut = Pattern(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"##,
);
const SPARK25: Cut = Pattern(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+"##,
);
const CJK: Cut = Pattern(r"[一-龥぀-ゟ゠-ヿ]+");
const CJK_HANGUL: Cut = Pattern(r"[一-龥ࠀ-一가-퟿]+");
const SENTENCE_WORDS: Cut = Pattern(r" ?[^(\s|.,!?…。，、।۔،)]+");
const LINES: Cut = Pattern(r"[^\n]+|\n+");
const PUNCTUATION: Cut = Pattern(r"[\p{P}$+<=>^~|`]+");
const EXACTLY_THREE_DIGITS: Cut = Pattern("[0-9][0-9][0-9]");
const DIGIT: Cut = Pattern(r"\p{N}");
const DIGITS: Cut = Pattern(r"\p{N}+");
const THREE_DIGITS: Cut = Pattern(r"\p{N}{1,3}");

/// The letters that DeepSeek LLM's rules list one by one.
const DEEPSEEK_LETTERS: Cut = Pattern(
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u{1f7d}ᾀ-ᾴᾶ-ᾼ\u{1fbe}ῂ-ῄῆ-ῌῐ-\u{1fd3}ῖ-\u{1fdb}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u{2126}ℨ\u{212a}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
);
/// The scripts without spaces that AFMoE's rules keep apart.
const AFMOE_SCRIPTS: Cut = Pattern(
    r"[\u{4e00}-\u{9fff}\u{3400}-\u{4dbf}\u{f900}-\u{faff}\u{3040}-\u{30ff}\u{ff65}-\u{ff9f}\u{2f00}-\u{2fdf}\u{e40}-\u{eff}\u{1780}-\u{17ff}\u{1000}-\u{109f}\u{aa60}-\u{aa7f}\u{a9e0}-\u{a9ff}\u{ac00}-\u{d7af}\u{1100}-\u{11ff}]+",
);

impl Rules {
    /// The rules that `name` stands for; an unknown name is an error, as a guess would change what the model reads.
    pub fn named(name: &str) -> Result<Self, TokenizerError> {
        let bytes = |cuts: &'static [Cut]| Rules { cuts, unit: Unit::Bytes, whole_pieces: false, add_bos: false };
        let whole = |cuts: &'static [Cut]| Rules { whole_pieces: true, ..bytes(cuts) };
        let whole_bos = |cuts: &'static [Cut]| Rules { whole_pieces: true, add_bos: true, ..bytes(cuts) };
        let chars = |cuts: &'static [Cut]| Rules { unit: Unit::Chars, ..bytes(cuts) };
        Ok(match name {
            // What files from before the names were introduced mean, if they say so.
            "default" => bytes(&[Pattern(r"[\p{P}$+<=>^~|]+"), GPT2, DIGITS, Pattern("[0-9][0-9][0-9]")]),
            "gpt-2" | "phi-2" | "jina-es" | "jina-de" | "jina-v2-es" | "jina-v2-de" | "jina-v1-en" | "jina-v2-code"
            | "roberta-bpe" | "gigachat" | "a.x-4.0" | "mellum" | "modern-bert" | "exaone4" | "mpt" | "olmo"
            | "jais" | "trillion" | "granite-docling" => bytes(&[GPT2]),
            "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" | "exaone" | "minerva-7b" | "mellum2" => {
                bytes(&[DIGIT, GPT2])
            }
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2"
            | "jina-v5-nano" => whole_bos(&[LLAMA3]),
            "dbrx" | "smaug-bpe" | "chatglm-bpe" => bytes(&[LLAMA3]),
            "glm4" | "glm5" => whole(&[LLAMA3]),
            "minicpm5" => whole(&[THREE_DIGITS, MINICPM5]),
            "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez" | "stablelm2" | "hunyuan" | "solar-open"
            | "grok-2" => bytes(&[QWEN2]),
            "qwen35" => bytes(&[QWEN35]),
            "ufakzeka" => bytes(&[UFAKZEKA]),
            "laguna" => bytes(&[LINES, QWEN2]),
            "deepseek-llm" => bytes(&[
                Pattern(r"[\r\n]"),
                DEEPSEEK_LETTERS,
                Pattern(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
                Pattern(r"\s+$"),
                CJK_HANGUL,
                DIGITS,
            ]),
            "deepseek-coder" => {
                bytes(&[Pattern(r"[\r\n]"), Pattern(r"\s?\p{L}+"), Pattern(r"\s?\p{P}+"), CJK_HANGUL, DIGIT])
            }
            "deepseek-v3" | "hunyuan-dense" | "hy_v4" | "joyai-llm" => bytes(&[THREE_DIGITS, CJK, DEEPSEEK_V3]),
            "spark2_5" => bytes(&[THREE_DIGITS, CJK, SPARK25, DIGIT]),
            "afmoe" => bytes(&[ThousandsAtWordEnd, AFMOE_SCRIPTS, DEEPSEEK_V3]),
            "falcon" => bytes(&[PUNCTUATION, GPT2, EXACTLY_THREE_DIGITS]),
            "poro-chat" | "bloom" | "gpt3-finnish" => bytes(&[SENTENCE_WORDS]),
            "viking" => bytes(&[SENTENCE_WORDS, DIGIT]),
            "tekken" => whole_bos(&[TEKKEN]),
            "gpt-4o" | "llama4" | "kanana2" | "talkie" | "minimax-m2" => bytes(&[GPT4O]),
            "tiny_aya" | "cohere2moe" => bytes(&[ThousandsAtWordEnd, GPT4O]),
            "youtu" => whole(&[Pattern(r"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"), YOUTU]),
            "kimi-k2" => bytes(&[KIMI_K2]),
            "superbpe" => bytes(&[DIGITS, Thousands]),
            "bailingmoe" | "bailingmoe2" | "llada-moe" => bytes(&[BAILING]),
            "seed-coder" => bytes(&[SEED_CODER]),
            "exaone-moe" => bytes(&[EXAONE_MOE]),
            "chameleon" => Rules {
                add_bos: true,
                ..bytes(&[
                    Pattern("<sentinel:[0-9]+>"),
                    Pattern("IMGIMG[A-I]{1,4}Z"),
                    Pattern(r"[\t\n]|    |  "),
                    DIGIT,
                    Pattern(r"[\p{P}!-/:-@\[-`{-~]"),
                    GPT2,
                ])
            },
            "gemma4" | "granite-embed-multi-311m" => Rules { add_bos: true, ..chars(&[LINES]) },
            "sarvam-moe" => chars(&[LINES]),
            _ => return Err(TokenizerError::UnknownSplit(name.into())),
        })
    }
}

/// The rules above whose pattern a `tokenizer.json` may give.
const PATTERNS: [Cut; 16] = [
    GPT2,
    QWEN2,
    QWEN35,
    UFAKZEKA,
    LLAMA3,
    MINICPM5,
    SEED_CODER,
    BAILING,
    EXAONE_MOE,
    TEKKEN,
    GPT4O,
    YOUTU,
    KIMI_K2,
    DEEPSEEK_V3,
    SPARK25,
    CJK,
];

impl Cut {
    /// The rule of a pattern as models' own files write it, if it is exactly one of those above.
    pub fn of_pattern(pattern: &str) -> Option<Self> {
        // They write contractions without regard to case, and the look-ahead that is done by hand here.
        let pattern = pattern
            .replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]")
            .replace(r"|\s+(?!\S)|\s+", r"|\s+");
        match &*pattern {
            r"\p{N}" => Some(DIGIT),
            r"\p{N}+" => Some(DIGITS),
            r"\p{N}{1,3}" => Some(THREE_DIGITS),
            "[0-9][0-9][0-9]" => Some(EXACTLY_THREE_DIGITS),
            other => PATTERNS.into_iter().find(|cut| matches!(cut, Pattern(known) if *known == other)),
        }
    }

    /// Each digit by itself, or runs of digits.
    pub fn digits(individual: bool) -> Self {
        if individual { DIGIT } else { DIGITS }
    }

    /// GPT-2's rule, which byte-level files mean when they give none.
    pub fn byte_level() -> Self {
        GPT2
    }

    /// Runs of punctuation: Unicode's, and what of ASCII Unicode calls symbols.
    pub fn punctuation() -> Self {
        PUNCTUATION
    }

    /// Words that begin with `▁`.
    pub fn spaced_words() -> Self {
        Pattern("\u{2581}[^\u{2581}]*|[^\u{2581}]+")
    }
}

/// The compiled rules.
#[derive(Debug)]
pub(super) struct Splitter {
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Pattern {
        regex: Regex,
        spaces: Spaces,
    },
    /// Runs of digits; the first group is set where the run must stay whole.
    Thousands {
        digits: Regex,
    },
}

/// What becomes of the last of several whitespace characters before a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spaces {
    /// It stays.
    Keep,
    /// It goes to the word.
    Leave,
    /// It goes to the word, but a newline stays.
    LeaveAllButNewline,
}

impl Splitter {
    pub fn new(cuts: &[Cut]) -> Result<Self, TokenizerError> {
        let steps = cuts.iter().map(Step::new).collect::<Result<_, _>>()?;
        Ok(Self { steps })
    }

    /// The pieces of `text`, in order: together they are `text`.
    pub fn split<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> + use<'t> {
        let mut pieces = Vec::new();
        if !text.is_empty() {
            pieces.push(0..text.len());
        }
        let mut next = Vec::new();
        for step in &self.steps {
            for piece in pieces.drain(..) {
                step.cut(text, piece, &mut next);
            }
            std::mem::swap(&mut pieces, &mut next);
        }
        pieces.into_iter().map(move |piece| &text[piece])
    }
}

impl Step {
    fn new(cut: &Cut) -> Result<Self, TokenizerError> {
        let regex = |pattern| Regex::new(pattern).map_err(|e| TokenizerError::Invalid(e.to_string()));
        Ok(match *cut {
            Cut::Pattern(pattern) => {
                let spaces = match (pattern.ends_with(r"|\s+"), pattern.contains(r"\s*[\r\n]")) {
                    (false, _) => Spaces::Keep,
                    (true, false) => Spaces::Leave,
                    (true, true) => Spaces::LeaveAllButNewline,
                };
                Step::Pattern { regex: regex(pattern)?, spaces }
            }
            Cut::Thousands => Step::Thousands { digits: regex(r"\d+")? },
            Cut::ThousandsAtWordEnd => Step::Thousands { digits: regex(r"\d+(\w)?")? },
        })
    }

    /// Appends the parts of one piece of `text`.
    fn cut(&self, text: &str, piece: Range<usize>, parts: &mut Vec<Range<usize>>) {
        let base = piece.start;
        let piece = &text[piece];
        let mut done = 0;
        let mut push = |part: Range<usize>| {
            if done < part.start {
                parts.push(base + done..base + part.start);
            }
            if part.start < part.end {
                parts.push(base + part.start..base + part.end);
            }
            done = part.end;
        };
        match self {
            Step::Pattern { regex, spaces } => {
                let mut at = 0;
                while let Some(found) = regex.find_at(piece, at).filter(|found| !found.is_empty()) {
                    at = found.end() - left_to_the_word(found.as_str(), &piece[found.end()..], *spaces);
                    push(found.start()..at);
                }
            }
            Step::Thousands { digits } => {
                for run in digits.captures_iter(piece).filter(|run| run.get(1).is_none()) {
                    let run = run.get_match();
                    let starts: Vec<usize> = run.as_str().char_indices().map(|(at, _)| run.start() + at).collect();
                    let mut start = run.start();
                    for &next in starts.iter().skip(starts.len() % 3).step_by(3).filter(|&&next| next > run.start()) {
                        push(start..next);
                        start = next;
                    }
                    push(start..run.end());
                }
            }
        }
        push(piece.len()..piece.len());
    }
}

/// Bytes at the end of a whitespace match that belong to the word which follows.
fn left_to_the_word(found: &str, rest: &str, spaces: Spaces) -> usize {
    let Some(last) = found.chars().next_back().filter(|c| c.is_whitespace()) else { return 0 };
    let newline = matches!(last, '\r' | '\n');
    let leave = match spaces {
        Spaces::Keep => false,
        Spaces::Leave => true,
        Spaces::LeaveAllButNewline => !newline,
    };
    let before_word = !rest.is_empty() && !rest.starts_with(char::is_whitespace);
    let several = found.len() > last.len_utf8();
    if leave && before_word && several && found.chars().all(char::is_whitespace) { last.len_utf8() } else { 0 }
}

#[cfg(test)]
mod tests;
