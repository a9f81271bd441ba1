//! Sequences held to grammars, in a whole engine: side by side, pushed out, drafted, stopped, and failing alone.

use std::sync::Arc;

use super::stage::{Answer, CHOICES, Client, Stage, VOCABULARY, prompt, request};
use crate::engine::{
    EngineConfig,
    error::RequestError,
    fake::HashModel,
    grammar::{
        Compiler, Grammar, GrammarSource,
        tests::{random_schema::random_schema, validate::is_valid},
    },
    request::{FinishReason, GenerateRequest, SamplingParams, StopCause, Thinking},
};

/// Blocks for everybody.
const ROOMY: usize = 200;

fn grammar(stage: &Stage, source: GrammarSource) -> Grammar {
    stage.engine.grammars().compile(&source).unwrap()
}

fn regex(stage: &Stage, expression: &str) -> Grammar {
    grammar(stage, GrammarSource::Regex(expression.into()))
}

/// A request that draws by chance.
fn lively(seed: u32, max_tokens: usize) -> GenerateRequest {
    let sampling =
        SamplingParams { temperature: 1.0, top_k: 0, top_p: 1.0, seed: Some(seed.into()), ..Default::default() };
    GenerateRequest { sampling, ..request(prompt(10 + seed as usize % 7, seed), max_tokens) }
}

/// Without what the cache changes.
fn essence(answer: Answer) -> (String, Vec<u32>, Result<FinishReason, RequestError>) {
    (answer.text, answer.token_ids, answer.end.map(|(reason, _)| reason))
}

#[test]
fn answers_do_not_depend_on_who_else_is_there() {
    const CLIENTS: u32 = 12;
    let ask = |stage: &Stage, seed: u32| {
        let schema = GrammarSource::JsonSchema(random_schema(seed.into()));
        // Some of them think first; some are free.
        let thinking =
            Thinking { open: Vec::new(), close: b"</t>".map(u32::from).to_vec(), begun: true, tokens_max: Some(9) };
        stage.ask(GenerateRequest {
            grammar: (seed % 4 != 3).then(|| grammar(stage, schema)),
            thinking: seed.is_multiple_of(3).then_some(thinking),
            ..lively(seed, 150)
        })
    };
    let undrafted = EngineConfig { draft_max: 0, ..EngineConfig::default() };
    let roomy = Stage::free(ROOMY, undrafted);
    let alone: Vec<_> = (0..CLIENTS).map(|seed| essence(ask(&roomy, seed).answer())).collect();
    assert_eq!(roomy.engine.stats().drafted_tokens_total.get(), 0);

    let mut crowd = Stage::held(14, EngineConfig::default());
    let clients: Vec<Client> = (0..CLIENTS).map(|seed| ask(&crowd, seed)).collect();
    while crowd.engine.stats().admitted_total.get() < 4 {
        crowd.step();
    }
    crowd.release();
    for (seed, (client, alone)) in clients.iter().zip(&alone).enumerate() {
        assert_eq!(essence(client.answer()), *alone, "seed {seed}");
    }
    let stats = crowd.engine.stats();
    assert!(stats.preemptions_total.get() > 0 && stats.drafted_tokens_total.get() > 0);
}

#[test]
fn finished_answers_validate() {
    let stage = Stage::free(ROOMY, EngineConfig::default());
    let schemas: Vec<_> = (0..40).map(random_schema).collect();
    let ask = |(seed, schema): (usize, &serde_json::Value)| {
        let grammar = grammar(&stage, GrammarSource::JsonSchema(schema.clone()));
        stage.ask(GenerateRequest { grammar: Some(grammar), ..lively(seed as u32, 250) })
    };
    let clients: Vec<Client> = schemas.iter().enumerate().map(ask).collect();
    let mut finished = 0;
    for (schema, client) in schemas.iter().zip(clients) {
        match essence(client.answer()) {
            (_, _, Ok(FinishReason::Length)) => {}
            (text, _, Ok(FinishReason::Stop(StopCause::Complete | StopCause::Token(256)))) => {
                let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
                assert!(is_valid(&value, schema, schema), "{text}\nis not {schema}");
                finished += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(finished >= 15, "only {finished} came to an end");
}

#[test]
fn what_is_drafted_of_what_is_forced_is_right() {
    let stage = Stage::free(ROOMY, EngineConfig::default());
    let long = "all of this is known before it is said, and this as well; ".repeat(3);
    // The first steps measure what steps cost. How much is drafted then depends on that.
    stage.ask(lively(1, 50)).answer();
    let answer = stage.ask(GenerateRequest { grammar: Some(regex(&stage, &long)), ..lively(2, 250) }).answer();
    assert_eq!(answer.text, long);
    assert_eq!(essence(answer).2, Ok(FinishReason::Stop(StopCause::Complete)));
    // After the last token comes none for its draft.
    let stats = stage.engine.stats();
    assert!(stats.drafted_tokens_total.get() <= stats.accepted_tokens_total.get() + 1);
}

#[test]
fn other_ends_go_on_to_work() {
    let stage = Stage::free(ROOMY, EngineConfig::default());
    let ask = |expression: &str, change: &dyn Fn(&mut GenerateRequest)| {
        let mut request = GenerateRequest { grammar: Some(regex(&stage, expression)), ..request(prompt(9, 1), 20) };
        change(&mut request);
        essence(stage.ask(request).answer())
    };
    // Of what is allowed and not to the model's liking, the first token is taken: `b` before `c`, all before the end token.
    let stop = |request: &mut GenerateRequest| request.stop = vec!["xx".into(), "bb".into()];
    let (text, _, end) = ask("ab+c", &stop);
    assert_eq!((text.as_str(), end), ("a", Ok(FinishReason::Stop(StopCause::Text(1)))));
    let (text, tokens, end) = ask("ab*c", &|_| {});
    assert_eq!((text.len(), tokens.len(), end), (20, 20, Ok(FinishReason::Length)));
    let stop_token = |request: &mut GenerateRequest| request.stop_tokens = vec![u32::from(b'b')];
    assert_eq!(ask("ab+c", &stop_token).2, Ok(FinishReason::Stop(StopCause::Token(u32::from(b'b')))));
    // Nothing but the end may follow.
    assert_eq!(ask("aaa", &|_| {}).2, Ok(FinishReason::Stop(StopCause::Complete)));
    let ban = |request: &mut GenerateRequest| request.sampling.logit_bias = vec![(u32::from(b'a'), 100.0)];
    let on = |request: &mut GenerateRequest| request.ignore_eos = true;
    for change in [&ban as &dyn Fn(&mut GenerateRequest), &on] {
        let (text, _, end) = ask("a{2,4}", change);
        assert_eq!((text.as_str(), end), ("aaaa", Ok(FinishReason::Stop(StopCause::Complete))));
    }
}

#[test]
fn a_grammar_that_fails_ends_its_request_only() {
    let stage = Stage::free(ROOMY, EngineConfig::default());
    let source = GrammarSource::Regex("[a-z]*".into());
    let good = stage.ask(GenerateRequest { grammar: Some(grammar(&stage, source.clone())), ..lively(1, 100) });
    // Compiled for another's tokens.
    let other = Stage::free(10, EngineConfig::default());
    let foreign = Compiler::new(other.engine.tokenizer()).compile(&source).unwrap();
    let answer = stage.ask(GenerateRequest { grammar: Some(foreign), ..lively(2, 100) }).answer();
    assert!(matches!(&answer.end, Err(RequestError::Grammar(why)) if why.contains("another model")), "{answer:?}");
    // More remainders than its limits let it work out.
    let schema = serde_json::json!({ "type": "integer", "multipleOf": 9_973, "minimum": 1_000_000 });
    if let Ok(hard) = stage.engine.grammars().compile(&GrammarSource::JsonSchema(schema)) {
        let answer = stage.ask(GenerateRequest { grammar: Some(hard), ..lively(3, 100) }).answer();
        assert!(matches!(answer.end, Ok(_) | Err(RequestError::Grammar(_))), "{answer:?}");
    }
    assert!(good.answer().end.is_ok());
}

/// The model's output is wider than the tokenizer: nothing of the padding is ever chosen.
#[test]
fn padding_is_not_allowed() {
    let tokens = VOCABULARY + 70;
    let stage = Stage::with(HashModel::new(ROOMY, tokens, CHOICES, 300), ROOMY, EngineConfig::default(), false);
    let grammar = regex(&stage, "[^a]{40}");
    assert!(grammar.is_for(&Arc::clone(stage.engine.tokenizer())));
    let answer = stage.ask(GenerateRequest { grammar: Some(grammar), ..lively(5, 200) }).answer();
    assert!(answer.token_ids.iter().all(|&id| (id as usize) < VOCABULARY), "{answer:?}");
}
