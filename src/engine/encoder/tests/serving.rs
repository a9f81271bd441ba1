//! The encoder as its users see it: requests side by side, refusals, and ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::{
    super::*,
    alone, options,
    tiny::{CLS, Random, SEP, Tiny},
};
use crate::engine::error::RequestError;

const FAR: Duration = Duration::from_secs(60);

type End = Result<Encoded, EncodeError>;

fn start(tiny: Tiny, config: EncoderConfig) -> (Encoder, EncoderModel) {
    let source = tiny.write().source();
    let [model, oracle] = [2, 1].map(|threads| load(&source, options(threads)).unwrap());
    (Encoder::start("test", model, Arc::new(source.tokenizer().unwrap()), config).unwrap(), oracle)
}

fn ask(encoder: &Encoder, request: EncodeRequest) -> Receiver<End> {
    let (told, end) = bounded(1);
    encoder.submit(request, Box::new(|| false), Box::new(move |result| drop(told.send(result))));
    end
}

/// Letters are a token each.
fn word(letters: usize, seed: u64) -> String {
    let mut random = Random(seed + 1);
    (0..letters).map(|_| (b'a' + random.below(26) as u8) as char).collect()
}

fn text(letters: usize, seed: u64) -> EncodeInput {
    EncodeInput::Text(word(letters, seed))
}

/// A request that keeps the encoder from going on until the sender is dropped.
fn hold(encoder: &Encoder) -> (Sender<()>, Receiver<End>) {
    let (release, held) = bounded::<()>(0);
    let (told, end) = bounded(1);
    let (seen, asked) = unbounded();
    let left = move || {
        let _ = seen.send(());
        held.recv_timeout(FAR).is_ok()
    };
    encoder.submit(EncodeRequest::new(vec![text(3, 0)]), Box::new(left), Box::new(move |end| drop(told.send(end))));
    asked.recv_timeout(FAR).unwrap();
    (release, end)
}

#[test]
fn requests_side_by_side_are_as_if_alone() {
    for step_tokens_max in [1, 50, 1000] {
        let (encoder, mut oracle) = start(Tiny::default(), EncoderConfig { step_tokens_max, ..Default::default() });
        let requests: Vec<Vec<EncodeInput>> = (0..9)
            .map(|r| (0..1 + r * r).map(|i| text(1 + (7 * i + r) as usize % 60, 100 * r + i)).collect())
            .collect();
        let ends: Vec<_> = requests.iter().map(|inputs| ask(&encoder, EncodeRequest::new(inputs.clone()))).collect();
        for (inputs, end) in requests.iter().zip(ends) {
            let encoded = end.recv_timeout(FAR).unwrap().unwrap();
            let prepare = |input: &EncodeInput| input.prepare(encoder.tokenizer(), encoder.spec(), false).unwrap();
            let tokens: Vec<InputTokens> = inputs.iter().map(prepare).collect();
            assert_eq!(encoded.outputs, alone(&mut oracle, &tokens));
            assert_eq!(encoded.prompt_tokens, tokens.iter().map(|input| input.tokens.len()).sum::<usize>());
        }
        let stats = encoder.stats();
        assert_eq!((stats.running.get(), stats.queued.get(), stats.finished_total.get()), (0, 0, 9));
    }
}

#[test]
fn inputs_are_framed_and_cut() {
    let (encoder, _) = start(Tiny { positions: 8, ..Tiny::default() }, EncoderConfig::default());
    let check = |input: EncodeInput, truncate, expected: Result<(usize, usize), RequestError>| {
        let prepared = input.prepare(encoder.tokenizer(), encoder.spec(), truncate);
        if let Ok(InputTokens { tokens, .. }) = &prepared
            && !matches!(input, EncodeInput::Tokens(_))
        {
            assert_eq!((tokens[0], *tokens.last().unwrap()), (CLS, SEP));
        }
        assert_eq!(prepared.map(|input| (input.tokens.len(), input.second)), expected, "{input:?}");
    };
    let too_long = |prompt| Err(RequestError::ContextExceeded { prompt, context: 8 });
    let pair = |a: usize, b: usize| EncodeInput::Pair(word(a, 1), word(b, 2));
    check(text(4, 0), false, Ok((6, 6)));
    check(text(6, 0), false, Ok((8, 8)));
    check(text(7, 0), false, too_long(9));
    check(text(700, 0), true, Ok((8, 8)));
    check(text(0, 0), true, Err(RequestError::EmptyPrompt));
    check(EncodeInput::Tokens(vec![5; 8]), false, Ok((8, 8)));
    check(EncodeInput::Tokens(vec![5; 9]), false, too_long(9));
    check(EncodeInput::Tokens(vec![5; 9]), true, Ok((8, 8)));
    check(EncodeInput::Tokens(vec![]), true, Err(RequestError::EmptyPrompt));
    check(EncodeInput::Tokens(vec![99]), true, Err(RequestError::UnknownToken { id: 99, vocabulary: 56 }));
    check(pair(2, 3), false, Ok((8, 4)));
    check(pair(2, 4), false, too_long(9));
    check(pair(2, 400), true, Ok((8, 4)));
    check(pair(400, 400), true, Ok((8, 5)));
    check(pair(0, 4), true, Err(RequestError::EmptyPrompt));
}

#[test]
fn what_is_wrong_with_one_input_ends_its_request_alone() {
    let (encoder, _) = start(Tiny { positions: 20, ..Tiny::default() }, EncoderConfig::default());
    let bad = ask(&encoder, EncodeRequest::new(vec![text(3, 0), text(3, 1), text(30, 2)]));
    let good = ask(&encoder, EncodeRequest::new(vec![text(3, 0)]));
    let error = bad.recv_timeout(FAR).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "input 2: the prompt has 32 tokens, the model's context holds 20");
    assert!(good.recv_timeout(FAR).unwrap().is_ok());
    let nothing = ask(&encoder, EncodeRequest::new(Vec::new())).recv_timeout(FAR).unwrap();
    assert_eq!(nothing, Err(RequestError::EmptyPrompt.into()));
    assert_eq!((encoder.stats().running.get(), encoder.stats().queued.get()), (0, 0));
}

#[test]
fn the_queue_is_bounded_and_the_late_are_told() {
    let (encoder, _) = start(Tiny::default(), EncoderConfig { queue_max: 3, ..Default::default() });
    let (release, first) = hold(&encoder);
    let request = || EncodeRequest::new(vec![text(4, 1)]);
    let waiting = ask(&encoder, request());
    let late = ask(&encoder, EncodeRequest { queue_timeout: Duration::ZERO, ..request() });
    let full = ask(&encoder, request()).recv_timeout(FAR).unwrap();
    assert_eq!(full, Err(RequestError::QueueFull { length: 3 }.into()));
    drop(release);
    assert!(first.recv_timeout(FAR).unwrap().is_ok());
    assert!(waiting.recv_timeout(FAR).unwrap().is_ok());
    assert_eq!(late.recv_timeout(FAR).unwrap(), Err(RequestError::QueueTimeout.into()));
    assert_eq!(encoder.stats().queued.get(), 0);
}

#[test]
fn nothing_is_computed_for_those_who_left() {
    let (encoder, _) = start(Tiny::default(), EncoderConfig::default());
    let (release, first) = hold(&encoder);
    let gone = Arc::new(AtomicBool::new(false));
    let (told, end) = bounded::<End>(1);
    let left = {
        let gone = Arc::clone(&gone);
        move || gone.load(Ordering::Relaxed)
    };
    encoder.submit(
        EncodeRequest::new(vec![text(9, 0); 300]),
        Box::new(left),
        Box::new(move |end| drop(told.send(end))),
    );
    gone.store(true, Ordering::Relaxed);
    drop(release);
    assert!(end.recv_timeout(FAR).is_err_and(|e| e.is_disconnected()), "told though it left");
    assert!(first.recv_timeout(FAR).unwrap().is_ok());
    let stats = encoder.stats();
    assert_eq!((stats.running.get(), stats.queued.get(), stats.cancelled_total.get()), (0, 0, 1));
    assert_eq!(stats.inputs_total.get(), 1);
}

#[test]
fn shutdown_tells_everybody() {
    for grace in [Duration::ZERO, FAR] {
        let (encoder, _) = start(Tiny::default(), EncoderConfig::default());
        let (release, first) = hold(&encoder);
        let ends: Vec<_> = (0..5).map(|i| ask(&encoder, EncodeRequest::new(vec![text(5, i); 40]))).collect();
        let closing = {
            let encoder = encoder.clone();
            std::thread::spawn(move || encoder.shutdown(grace))
        };
        // From some moment on nothing is accepted.
        while ask(&encoder, EncodeRequest::new(vec![text(1, 0)])).try_recv()
            != Ok(Err(RequestError::ShuttingDown.into()))
        {
            std::thread::yield_now();
        }
        drop(release);
        closing.join().unwrap();
        for end in ends.iter().chain([&first]) {
            let end = end.recv_timeout(FAR).unwrap();
            assert!(end.is_ok() || grace.is_zero() && end == Err(RequestError::ShuttingDown.into()), "{end:?}");
        }
        let stats = encoder.stats();
        assert_eq!((stats.running.get(), stats.queued.get(), stats.is_healthy()), (0, 0, false));
    }
}
