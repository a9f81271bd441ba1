//! Embeddings in the same steps as generations.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crossbeam_channel::{Receiver, bounded};

use super::stage::{CONTEXT, FAR, Stage, VOCABULARY, expected, prompt, request};
use crate::engine::{
    EngineConfig,
    encoder::{EncodeError, EncodeInput, EncodeRequest, Encoded, normalize},
    error::RequestError,
};

fn ask(stage: &Stage, inputs: Vec<EncodeInput>, truncate: bool) -> Receiver<Result<Encoded, EncodeError>> {
    let (told, end) = bounded(1);
    let request = EncodeRequest { truncate, ..EncodeRequest::new(inputs) };
    stage.engine.embed(request, Box::new(|| false), Box::new(move |result| drop(told.send(result))));
    end
}

/// What the toy model makes of a prompt: the token that would follow it, and a one.
fn vector(prompt: &[u32]) -> Vec<f32> {
    let mut vector = vec![expected(prompt, 1).token_ids[0] as f32, 1.0];
    normalize(&mut vector);
    vector
}

#[test]
fn inputs_become_the_vectors_of_their_last_rows() {
    let stage = Stage::free(100, EngineConfig::default());
    let prompts: Vec<Vec<u32>> = (0..70).map(|i| prompt(1 + (i as usize * 7) % 90, i)).collect();
    let generation = stage.ask(request(prompt(30, 99), 50));
    let inputs = prompts.iter().cloned().map(EncodeInput::Tokens).collect();
    let encoded = ask(&stage, inputs, false).recv_timeout(FAR).unwrap().unwrap();
    assert_eq!(encoded.outputs, prompts.iter().map(|prompt| vector(prompt)).collect::<Vec<_>>());
    assert_eq!(encoded.prompt_tokens, prompts.iter().map(Vec::len).sum::<usize>());
    assert_eq!(generation.answer(), expected(&prompt(30, 99), 50));
    assert_eq!((stage.engine.stats().kv_blocks_used.get(), stage.engine.stats().running.get()), (0, 0));
}

#[test]
fn what_is_wrong_with_one_input_ends_the_request() {
    let stage = Stage::free(100, EngineConfig::default());
    let long = || EncodeInput::Tokens(prompt(CONTEXT + 9, 0));
    let cases = [
        (vec![], None, RequestError::EmptyPrompt),
        (vec![EncodeInput::Tokens(vec![1]), EncodeInput::Tokens(vec![])], Some(1), RequestError::EmptyPrompt),
        (vec![long()], Some(0), RequestError::ContextExceeded { prompt: CONTEXT + 9, context: CONTEXT }),
        (vec![EncodeInput::Tokens(vec![999])], Some(0), RequestError::UnknownToken { id: 999, vocabulary: VOCABULARY }),
    ];
    for (inputs, input, error) in cases {
        assert_eq!(ask(&stage, inputs, false).recv_timeout(FAR).unwrap(), Err(EncodeError { input, error }));
    }
    let cut = ask(&stage, vec![long()], true).recv_timeout(FAR).unwrap().unwrap();
    assert_eq!((cut.outputs, cut.prompt_tokens), (vec![vector(&prompt(CONTEXT + 9, 0)[..CONTEXT - 1])], CONTEXT - 1));
}

#[test]
fn nothing_is_embedded_for_those_who_left() {
    let stage = Stage::held(100, EngineConfig::default());
    let gone = Arc::new(AtomicBool::new(false));
    let left = Arc::clone(&gone);
    let (told, end) = bounded::<()>(1);
    let inputs = vec![EncodeInput::Tokens(prompt(20, 0)); 40];
    let done = move |_| {
        let _ = told.send(());
    };
    stage.engine.embed(EncodeRequest::new(inputs), Box::new(move || left.load(Ordering::SeqCst)), Box::new(done));
    gone.store(true, Ordering::SeqCst);
    stage.permit(2);
    assert!(end.recv_timeout(FAR).is_err_and(|e| e.is_disconnected()), "told though it left");
    stage.until("all are gone", |engine| engine.stats().running.get() + engine.stats().queued.get() == 0);
}
