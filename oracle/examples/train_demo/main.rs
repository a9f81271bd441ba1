//! Makes Sconce's embedded demo model: composes the corpus, learns the tokenizer, trains the network, writes the GGUF.
//!
//! ```text
//! cargo run --release -p oracle --example train_demo -- --out src/demo/sconce-demo.gguf
//! ```
//!
//! The defaults are the recipe of the file that ships: half an hour on one CPU core with `RAYON_NUM_THREADS=1
//! CANDLE_NUM_THREADS=1`, and with glibc's `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000`, without which
//! candle's many short-lived tensors cost as much time again in page faults. The seed fixes corpus, tokenizer,
//! initial weights and order; floating-point sums differ between machines and numbers of threads, so the file is the
//! same in kind, not bit for bit. Every few minutes the model so far is written to `--out` and asked the held-out
//! questions of `tests/data/demo_questions.json`, none of which it ever trains on.
//!
//! `--show N` prints N documents of the corpus; `--ask TEXT`, as often as
//! you like, puts questions to the file at `--out`.

mod chance;
mod corpus;
mod evaluate;
mod export;
mod fused;
mod grammar;
mod model;
mod options;
mod packing;
mod stories;
mod typing;
mod vocabulary;

use std::time::{Duration, Instant};

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use tokenizers::{Result, Tokenizer};

use chance::Chance;
use corpus::Corpus;
use evaluate::Question;
use model::{Qwen3, Shape};
use options::{Options, Task};
use packing::Packer;

const HELD_OUT: &str = include_str!("../../../tests/data/demo_questions.json");

const SHAPE: Shape = Shape {
    vocabulary: 1280,
    hidden: 256,
    layers: 4,
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    feed_forward: 512,
    context: 1024,
    rope_theta: 10_000.0,
    rms_eps: 1e-6,
};
const ROWS: usize = 12;
const ROW_LENGTH: usize = 192;
const LEARNING_RATE: f64 = 2e-3;
const WARM_UP_STEPS: usize = 60;
const GRADIENT_NORM_MAX: f64 = 1.0;
const TOKENIZER_DOCUMENTS: usize = 40_000;
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(240);

fn main() -> Result<()> {
    let options = Options::from_arguments(std::env::args().skip(1))?;
    let questions: Vec<Question> = serde_json::from_str(HELD_OUT)?;
    let corpus = Corpus::new(questions.iter().map(|question| question.question.as_str()));
    let mut chance = Chance::new(options.seed);

    if let Task::Show { documents } = options.task {
        for _ in 0..documents {
            let text: String = corpus.document(&mut chance).into_iter().map(|part| part.text).collect();
            println!("{text}");
        }
        return Ok(());
    }
    let documents = (0..TOKENIZER_DOCUMENTS).map(|_| corpus.document(&mut chance));
    let tokenizer = vocabulary::train(documents, SHAPE.vocabulary)?;
    match &options.task {
        Task::Ask { questions } => {
            for question in questions {
                println!("{question} → {}", evaluate::answer(&options.out, SHAPE, &tokenizer, question)?);
            }
        }
        _ => train(&options, &questions, &corpus, &tokenizer, chance)?,
    }
    Ok(())
}

fn train(
    options: &Options,
    questions: &[Question],
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    mut chance: Chance,
) -> Result<()> {
    let (tokens, merges) = vocabulary::tokens_and_merges(tokenizer)?;
    let model = Qwen3::new(SHAPE, &mut chance)?;
    let parameters = ParamsAdamW { lr: 0.0, beta1: 0.9, beta2: 0.98, eps: 1e-9, weight_decay: 0.05 };
    let mut optimizer = AdamW::new(model.weights.values().cloned().collect(), parameters)?;
    let mut packer = Packer::new(tokenizer, corpus, ROW_LENGTH, SHAPE.context);
    let steps = options.tokens.div_ceil(ROWS * ROW_LENGTH);
    println!("{} parameters, {} tokens in the vocabulary, {steps} steps", model.parameters(), tokens.len());

    let (started, mut saved, mut average) = (Instant::now(), Instant::now(), f64::NAN);
    for step in 0..steps {
        let batch = packer.batch(ROWS, &mut chance)?;
        let inputs = Tensor::from_vec(batch.inputs, (ROWS, ROW_LENGTH), &Device::Cpu)?;
        let logits = model.forward(&inputs, &batch.positions)?;
        let loss = fused::cross_entropy(&logits, batch.targets, batch.weights)?;
        let mut gradients = loss.backward()?;
        clip(&model, &mut gradients)?;
        optimizer.set_learning_rate(learning_rate(step, steps));
        optimizer.step(&gradients)?;

        let loss = f64::from(loss.to_scalar::<f32>()?);
        average = if average.is_nan() { loss } else { 0.95 * average + 0.05 * loss };
        if step % 20 == 19 {
            let seconds = started.elapsed().as_secs_f64();
            let done = (step + 1) as f64;
            println!(
                "step {}/{steps}: loss {average:.4}, {:.0} tokens/s, {:.0} min left",
                step + 1,
                done * (ROWS * ROW_LENGTH) as f64 / seconds,
                seconds / done * (steps as f64 - done) / 60.0,
            );
        }
        let last = step + 1 == steps;
        if last || saved.elapsed() > CHECKPOINT_INTERVAL {
            export::save(&options.out, &model, &tokens, &merges)?;
            let right = evaluate::score(&options.out, SHAPE, tokenizer, questions, last)?;
            println!("step {}: {right} of {} held-out questions right", step + 1, questions.len());
            saved = Instant::now();
        }
    }
    Ok(())
}

/// Linear warm-up, then a cosine down to a twentieth.
fn learning_rate(step: usize, steps: usize) -> f64 {
    let warm_up = (step + 1) as f64 / WARM_UP_STEPS as f64;
    let progress = step.saturating_sub(WARM_UP_STEPS) as f64 / steps.saturating_sub(WARM_UP_STEPS).max(1) as f64;
    let cosine = 0.05 + 0.95 * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
    LEARNING_RATE * warm_up.min(1.0) * cosine
}

/// Scales all gradients down where their common norm is past [`GRADIENT_NORM_MAX`].
fn clip(model: &Qwen3, gradients: &mut GradStore) -> Result<()> {
    let mut squares = 0.0;
    for weight in model.weights.values() {
        if let Some(gradient) = gradients.get(weight) {
            squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
    }
    let norm = squares.sqrt();
    if norm > GRADIENT_NORM_MAX {
        for weight in model.weights.values() {
            if let Some(gradient) = gradients.remove(weight) {
                gradients.insert(weight, (gradient * (GRADIENT_NORM_MAX / norm))?);
            }
        }
    }
    Ok(())
}
