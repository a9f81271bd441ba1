//! Asks an exported file the held-out questions, greedily, through candle-transformers' Qwen3.

use std::path::Path;

use candle_core::{D, Device, Tensor};
use serde::Deserialize;
use tokenizers::{Result, Tokenizer};

use crate::corpus::{TURN_END, TURN_START};
use crate::export::load_reference;
use crate::model::Shape;

/// One entry of `tests/data/demo_questions.json`.
#[derive(Deserialize)]
pub struct Question {
    pub question: String,
    /// Words that a right answer holds, all of them, in any case.
    pub facts: Vec<String>,
}

impl Question {
    fn is_answered_by(&self, answer: &str) -> bool {
        let answer = answer.to_lowercase();
        self.facts.iter().all(|fact| answer.contains(&fact.to_lowercase()))
    }
}

/// How many questions the file at `path` answers rightly. Prints the others if `verbose`, with the answers given.
pub fn score(path: &Path, shape: Shape, tokenizer: &Tokenizer, questions: &[Question], verbose: bool) -> Result<usize> {
    let mut right = 0;
    for question in questions {
        let answer = answer(path, shape, tokenizer, &question.question)?;
        if question.is_answered_by(&answer) {
            right += 1;
        } else if verbose {
            println!("  wrong: {} → {answer}", question.question);
        }
    }
    Ok(right)
}

/// The greedy answer to `question`, up to 100 tokens.
pub fn answer(path: &Path, shape: Shape, tokenizer: &Tokenizer, question: &str) -> Result<String> {
    let prompt = format!("{TURN_START}user\n{question}{TURN_END}\n{TURN_START}assistant\n");
    let mut model = load_reference(path, shape)?;
    let end = tokenizer.token_to_id(TURN_END);
    let mut tokens = tokenizer.encode(prompt, false)?.get_ids().to_vec();
    let prompt_length = tokens.len();
    let mut computed = 0;
    while tokens.len() < prompt_length + 100 {
        let input = Tensor::new(&tokens[computed..], &Device::Cpu)?.unsqueeze(0)?;
        let logits = model.forward(&input, computed)?;
        computed = tokens.len();
        let next = logits.flatten_all()?.argmax(D::Minus1)?.to_scalar::<u32>()?;
        if Some(next) == end {
            break;
        }
        tokens.push(next);
    }
    tokenizer.decode(&tokens[prompt_length..], false)
}
