//! The command line of this example.

use std::path::PathBuf;

use tokenizers::Result;

pub enum Task {
    Train,
    Show {
        documents: usize,
    },
    /// One chat each.
    Ask {
        questions: Vec<String>,
    },
}

pub struct Options {
    pub out: PathBuf,
    pub seed: u64,
    /// To train on.
    pub tokens: usize,
    pub task: Task,
}

impl Options {
    pub fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let out = PathBuf::from("src/demo/sconce-demo.gguf");
        let mut options = Self { out, seed: 1, tokens: 3_600_000, task: Task::Train };
        while let Some(flag) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--out" => options.out = value.into(),
                "--seed" => options.seed = value.parse()?,
                "--tokens" => options.tokens = value.parse()?,
                "--show" => options.task = Task::Show { documents: value.parse()? },
                "--ask" => match &mut options.task {
                    Task::Ask { questions } => questions.push(value),
                    _ => options.task = Task::Ask { questions: vec![value] },
                },
                _ => {
                    return Err(format!("{flag}: expected --out, --seed, --tokens, --show or --ask").into());
                }
            }
        }
        Ok(options)
    }
}
