//! The embedded demo model answers questions about Sconce in phrasings that it never saw: `oracle/examples/train_demo` reads
//! the same list and keeps it out of its corpus.
#![cfg(feature = "engine")]

use std::num::NonZeroUsize;
use std::sync::Arc;

use sconce::demo;
use sconce::engine::chat_template::{ChatTemplate, Conversation, Ending};
use sconce::engine::gguf::Gguf;
use sconce::engine::kv_cache::{KvCache, KvType};
use sconce::engine::models::{self, LoadOptions, Source};
use sconce::engine::request::{Event, FinishReason, GenerateRequest, Prompt};
use sconce::engine::{Engine, EngineConfig, Generation};
use serde_json::{Map, json};

const QUESTIONS: &str = include_str!("data/demo_questions.json");
const RIGHT_MIN: usize = 16;

#[derive(serde::Deserialize)]
struct Question {
    question: String,
    /// Words that a right answer holds, all of them, in any case.
    facts: Vec<String>,
}

/// The demo model, running, and how to talk to it.
struct Demo {
    engine: Engine,
    template: ChatTemplate,
}

impl Demo {
    fn start() -> Self {
        let source = Source::from(Gguf::from_static(demo::MODEL).unwrap());
        let tokenizer = source.tokenizer().unwrap();
        let template = source.chat_template(&tokenizer).unwrap().expect("a chat template");
        let model = models::load(&source, LoadOptions::new(NonZeroUsize::MIN)).unwrap();
        let cache = KvCache::new(model.spec(), 64, KvType::F16);
        let engine = Engine::start("demo", model, cache, Arc::new(tokenizer), EngineConfig::default()).unwrap();
        Self { engine, template }
    }

    fn rendered(&self, messages: serde_json::Value) -> Prompt {
        let variables = Map::new();
        let messages = messages.as_array().expect("a list");
        let ending = Ending::Reply;
        let conversation = Conversation { messages, tools: &[], documents: None, ending, variables: &variables };
        Prompt::Rendered(self.template.render(&conversation).unwrap())
    }

    fn question(&self, question: &str) -> Prompt {
        self.rendered(json!([{ "role": "user", "content": question }]))
    }

    /// The greedy answers to all of `prompts`, asked at once.
    fn answers(&self, prompts: impl IntoIterator<Item = Prompt>) -> Vec<String> {
        let ask = |prompt| {
            let mut request = GenerateRequest { max_tokens: 150, ..GenerateRequest::new(prompt) };
            request.sampling.temperature = 0.0;
            self.engine.generate(request)
        };
        let generations: Vec<_> = prompts.into_iter().map(ask).collect();
        generations.into_iter().map(answer).collect()
    }
}

fn answer(events: Generation) -> String {
    let mut answer = String::new();
    for event in events {
        match event {
            Event::Started { .. } => {}
            Event::Piece { text, .. } => answer.push_str(&text),
            Event::Finished { reason, .. } => assert!(matches!(reason, FinishReason::Stop(_)), "no end: {answer}"),
            Event::Failed(error) => panic!("{error}"),
        }
    }
    answer
}

#[test]
fn held_out_questions_are_answered_with_the_right_facts() {
    let demo = Demo::start();
    let questions: Vec<Question> = serde_json::from_str(QUESTIONS).unwrap();
    assert_eq!(questions.len(), 20);
    let answers = demo.answers(questions.iter().map(|asked| demo.question(&asked.question)));
    let mut wrong = Vec::new();
    for (Question { question, facts }, answer) in questions.iter().zip(answers) {
        let lower = answer.to_lowercase();
        if !facts.iter().all(|fact| lower.contains(&fact.to_lowercase())) {
            wrong.push(format!("{question}\n    {answer}"));
        }
    }
    assert!(questions.len() - wrong.len() >= RIGHT_MIN, "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whatever it is asked, it says that it is a demo rather than make something up.
#[test]
fn it_never_pretends_to_be_more_than_a_demo() {
    let demo = Demo::start();
    let questions = [
        "Who are you?",
        "Are you ChatGPT?",
        "What is the capital of France?",
        "Write a Python function that sorts a list.",
        "What is 12 + 30?",
        "Who won the world cup?",
        "Translate hello to French",
        "How do I bake bread?",
    ];
    let answers = demo.answers(questions.iter().map(|question| demo.question(question)));
    for (question, answer) in questions.iter().zip(answers) {
        assert!(answer.contains("demo"), "{question} → {answer}");
    }
}

#[test]
fn it_also_follows_system_messages_earlier_turns_and_bare_prompts() {
    let demo = Demo::start();
    let chat = json!([
        { "role": "system", "content": "You are a helpful assistant." },
        { "role": "user", "content": "Hello!" },
        { "role": "assistant", "content": "Hello! I am Sconce's tiny demo model. Ask me about Sconce, or for a story." },
        { "role": "user", "content": "Which port does it listen on?" },
    ]);
    let bare = |text: &str| Prompt::Text(text.into());
    let answers = demo.answers([demo.rendered(chat), bare("What is Sconce?"), bare("Once upon a time")]);
    for (answer, fact) in answers.iter().zip(["127.0.0.1:8080", "inference server", "there was"]) {
        assert!(answer.contains(fact), "{answer}");
    }
}
