//! Tests of the whole engine, from submission to the last event.

mod embedding;
mod reuse;
mod scores;
mod stage;
mod structured;

use std::{sync::atomic::Ordering, thread, time::Duration};

use crossbeam_channel::bounded;

use super::{
    EngineConfig,
    error::RequestError,
    fake::alone,
    request::{Event, FinishReason, Flow, GenerateRequest, Prompt, SamplingParams, StopCause, Usage},
};
use stage::{
    Answer, CHOICES, CONTEXT, Client, FAR, NAN, PANICS, REFUSES, Stage, VOCABULARY, WELL, expected, prompt, request,
    text_of,
};

#[test]
fn many_clients_get_what_each_would_get_alone() {
    // Also from a cache so small that sequences push each other out.
    for blocks in [200, 10] {
        let mut stage = Stage::held(blocks, EngineConfig::default());
        let clients: Vec<_> =
            (1..20).map(|i| (prompt(5 * i, i as u32), stage.ask(request(prompt(5 * i, i as u32), 100 + i)))).collect();
        while stage.engine.stats().admitted_total.get() < 4 {
            stage.step();
        }
        stage.release();
        for (i, (prompt, client)) in clients.iter().enumerate() {
            assert_eq!(client.answer(), expected(prompt, 101 + i), "client {i} with {blocks} blocks");
        }
        let stats = stage.engine.stats();
        assert_eq!((stats.running.get(), stats.waiting(), stats.kv_blocks_used.get()), (0, 0, 0));
        assert_eq!((stats.length_total.get(), stats.admitted_total.get()), (19, 19));
        assert_eq!(stats.generated_tokens_total.get(), (1..20).map(|i| 100 + i).sum::<u64>());
        assert_eq!(stats.preemptions_total.get() > 0, blocks == 10);
    }
}

#[test]
fn seeded_sampling_survives_preemption() {
    let sampling = SamplingParams { temperature: 5.0, seed: Some(7), ..Default::default() };
    let ask = |stage: &Stage, i: u32| {
        stage.ask(GenerateRequest { sampling: sampling.clone(), ..request(prompt(10, i), 150) })
    };
    let roomy = Stage::free(100, EngineConfig::default());
    let alone: Vec<_> = (0..8).map(|i| ask(&roomy, i).answer()).collect();
    let mut tight = Stage::held(8, EngineConfig::default());
    let clients: Vec<_> = (0..8).map(|i| ask(&tight, i)).collect();
    while tight.engine.stats().admitted_total.get() < 4 {
        tight.step();
    }
    tight.release();
    let crowded: Vec<_> = clients.iter().map(Client::answer).collect();
    assert!(tight.engine.stats().preemptions_total.get() > 0);
    assert_eq!(crowded, alone);
}

#[test]
fn clients_that_leave_cost_nothing_more() {
    let stage = Stage::held(100, EngineConfig { running_max: 3, ..Default::default() });
    let clients: Vec<_> = (0..5).map(|i| stage.ask(request(prompt(40, i), 200))).collect();
    while clients.iter().take(3).any(|client| client.events.is_empty()) {
        stage.step();
    }
    stage.until("three run, two wait", |engine| (engine.stats().running.get(), engine.stats().waiting()) == (3, 2));
    assert!(stage.engine.stats().kv_blocks_used.get() >= 6);
    clients.iter().for_each(|client| client.says(Flow::Cancel));
    // The step that is being computed may be told yet; no other is computed.
    let steps = stage.engine.stats().steps_total.get();
    stage.permit(1);
    for client in &clients {
        let answer = client.answer();
        let Ok((FinishReason::Cancelled, usage)) = answer.end else { panic!("{answer:?}") };
        assert!(usage.completion_tokens as u64 <= steps + 1, "{usage:?}");
    }
    let stats = stage.engine.stats();
    assert!(stats.steps_total.get() <= steps + 1);
    assert_eq!((stats.running.get(), stats.waiting(), stats.kv_blocks_used.get()), (0, 0, 0));
    assert_eq!(stats.cancelled_total.get(), 5);
}

#[test]
fn a_slow_reader_waits_and_goes_on() {
    let mut stage = Stage::held(100, EngineConfig::default());
    let (slow, quick) = (stage.ask(request(prompt(40, 1), 200)), stage.ask(request(prompt(40, 2), 200)));
    slow.says(Flow::Park);
    stage.release();
    assert_eq!(quick.answer(), expected(&prompt(40, 2), 200));
    assert!(slow.events.len() <= 1, "the first step had been planned, no other");
    slow.says(Flow::Continue);
    assert_eq!(slow.answer(), expected(&prompt(40, 1), 200));
    stage.until("the engine sleeps", |engine| engine.stats().busy_for().is_none());
}

#[test]
fn the_queue_is_bounded() {
    let stage = Stage::held(100, EngineConfig { running_max: 1, queue_max: 2, ..Default::default() });
    let first = stage.ask(request(prompt(10, 0), 3));
    stage.until("the first runs", |engine| engine.stats().queued.get() == 0);
    let waiting = [stage.ask(request(prompt(10, 1), 3)), stage.ask(request(prompt(10, 2), 3))];
    stage.ask(request(prompt(10, 3), 3)).fails_with(RequestError::QueueFull { length: 2 });
    stage.permit(9);
    assert_eq!(first.answer(), expected(&prompt(10, 0), 3));
    for (i, client) in (1..).zip(&waiting) {
        assert_eq!(client.answer(), expected(&prompt(10, i), 3));
    }
}

#[test]
fn who_waits_past_the_deadline_is_told_and_never_computed() {
    let stage = Stage::held(100, EngineConfig { running_max: 1, ..Default::default() });
    let first = stage.ask(request(prompt(10, 0), 3));
    stage.until("the first runs", |engine| engine.stats().queued.get() == 0);
    let late = stage.ask(GenerateRequest { queue_timeout: Duration::ZERO, ..request(prompt(10, 1), 3) });
    stage.permit(3);
    late.fails_with(RequestError::QueueTimeout);
    assert_eq!(first.answer(), expected(&prompt(10, 0), 3));
    assert_eq!(stage.engine.stats().prompt_tokens_total.get(), 10);
}

#[test]
fn who_is_not_finished_in_time_is_told() {
    let stage = Stage::free(100, EngineConfig::default());
    let late = stage.ask(GenerateRequest { timeout: Some(Duration::ZERO), ..request(prompt(10, 0), 3) });
    late.fails_with(RequestError::Timeout);
    let timely = stage.ask(GenerateRequest { timeout: Some(FAR), ..request(prompt(10, 0), 3) });
    assert_eq!(timely.answer(), expected(&prompt(10, 0), 3));
}

#[test]
fn stops_at_strings_and_tokens_and_lengths() {
    let stage = Stage::free(100, EngineConfig::default());
    let prompt = prompt(20, 5);
    let tokens = alone(&prompt, 100, CHOICES);
    let text = text_of(&tokens);
    let usage = |completion_tokens| Usage { prompt_tokens: 20, completion_tokens, cached_tokens: 0 };

    // A string of three characters: the text ends before it, its tokens are told.
    let stop = text[30..33].to_owned();
    let at = text.find(&stop).unwrap();
    let answer =
        stage.ask(GenerateRequest { stop: vec!["none".into(), stop], ..request(prompt.clone(), 100) }).answer();
    let end = Ok((FinishReason::Stop(StopCause::Text(1)), usage(at + 3)));
    assert_eq!(answer, Answer { text: text[..at].into(), token_ids: tokens[..at + 3].into(), end });

    // A token: told, but its character is none of the text's.
    let at = tokens.iter().position(|&token| token == tokens[40]).unwrap();
    let stop_tokens = vec![tokens[40]];
    let answer = stage.ask(GenerateRequest { stop_tokens, ..request(prompt.clone(), 100) }).answer();
    let end = Ok((FinishReason::Stop(StopCause::Token(tokens[40])), usage(at + 1)));
    assert_eq!(answer, Answer { text: text[..at].into(), token_ids: tokens[..=at].into(), end });

    // What might have become a stop string is text after all when the length is reached.
    let stop = vec![text[7..9].to_owned() + "never"];
    let answer = stage.ask(GenerateRequest { stop, ..request(prompt.clone(), 9) }).answer();
    assert_eq!(answer, expected(&prompt, 9));

    // The context cuts what is asked; nothing asked is nothing computed.
    assert_eq!(stage.ask(request(prompt.clone(), usize::MAX)).answer(), expected(&prompt, CONTEXT - 20));
    assert_eq!(stage.ask(request(prompt.clone(), 0)).answer(), expected(&prompt, 0));
}

#[test]
fn requests_that_cant_be_served_are_told_why() {
    let stage = Stage::free(4, EngineConfig::default());
    let cases = [
        (prompt(0, 0), RequestError::EmptyPrompt),
        (prompt(CONTEXT, 0), RequestError::ContextExceeded { prompt: CONTEXT, context: CONTEXT }),
        (vec![1, 257], RequestError::UnknownToken { id: 257, vocabulary: VOCABULARY }),
        (prompt(200, 0), RequestError::CacheExceeded { needed_blocks: 7, total_blocks: 4 }),
    ];
    for (prompt, error) in cases {
        stage.ask(request(prompt, 5)).fails_with(error);
    }
    // The cache, like the context, cuts what is asked.
    assert_eq!(stage.ask(request(prompt(100, 0), 200)).answer(), expected(&prompt(100, 0), 28));
    // Text goes through the tokenizer.
    let text = GenerateRequest { prompt: Prompt::Text("abc".into()), ..request(vec![], 5) };
    assert_eq!(stage.ask(text).answer(), expected(&[97, 98, 99], 5));
    assert_eq!(stage.engine.stats().failed_total.get(), 4);
}

#[test]
fn a_failed_step_costs_its_requests_only() {
    let stage = Stage::held(100, EngineConfig::default());
    for (mood, why) in [(REFUSES, "out of sorts"), (PANICS, "the model panicked: staged")] {
        stage.mood.store(mood, Ordering::SeqCst);
        for failures in 1..=3 {
            let client = stage.ask(request(prompt(10, 0), 5));
            stage.permit(1);
            client.fails_with(RequestError::Internal(why.into()));
            stage.until("health", |engine| engine.stats().is_healthy() == (failures < 3));
        }
        stage.mood.store(WELL, Ordering::SeqCst);
        stage.permit(5);
        assert_eq!(stage.ask(request(prompt(10, 0), 5)).answer(), expected(&prompt(10, 0), 5));
        assert!(stage.engine.stats().is_healthy());
    }
    assert_eq!(stage.engine.stats().kv_blocks_used.get(), 0);
}

#[test]
fn bad_logits_cost_one_sequence() {
    let stage = Stage::held(100, EngineConfig::default());
    let (first, second) = (stage.ask(request(prompt(40, 0), 50)), stage.ask(request(prompt(40, 1), 50)));
    while first.events.is_empty() || second.events.is_empty() {
        stage.step();
    }
    stage.mood.store(NAN, Ordering::SeqCst);
    stage.permit(1);
    first.fails_with(RequestError::BadLogits);
    stage.mood.store(WELL, Ordering::SeqCst);
    stage.permit(60);
    assert_eq!(second.answer(), expected(&prompt(40, 1), 50));
    assert_eq!(stage.engine.stats().bad_logits_total.get(), 1);
    // Nor is it known whether its keys and values are good: nobody gets them.
    stage.permit(10);
    for (seed, cached_tokens) in [(0, 0), (1, 32)] {
        let (_, usage) = stage.ask(request(prompt(40, seed), 5)).answer().end.unwrap();
        assert_eq!(usage.cached_tokens, cached_tokens);
    }
}

#[test]
fn shutdown_tells_everybody_once() {
    for grace in [Duration::ZERO, FAR] {
        let stage = Stage::held(100, EngineConfig { running_max: 2, ..Default::default() });
        let clients: Vec<_> = (0..6).map(|i| stage.ask(request(prompt(10, i), 20))).collect();
        stage.permit(3);
        clients[0].piece();
        let engine = stage.engine.clone();
        let (done, ended) = bounded::<()>(0);
        let shutdown = thread::spawn(move || {
            engine.shutdown(grace);
            drop(done);
        });
        // From now on, or from a moment on, nothing is accepted; what was, is served within the grace.
        stage.until("the engine closes", |_| {
            let refused = stage.ask(request(prompt(10, 9), 0)).answer();
            refused.end == Err(RequestError::ShuttingDown)
        });
        drop(stage.permits);
        for (i, client) in (0..).zip(&clients) {
            let answer = client.answer();
            if grace.is_zero() {
                assert!(matches!(answer.end, Err(RequestError::ShuttingDown)), "{answer:?}");
            } else {
                assert!(expected(&prompt(10, i), 20).text.ends_with(&answer.text));
                assert_eq!(answer.end.unwrap().0, FinishReason::Length);
            }
        }
        assert!(ended.recv_timeout(FAR).is_err_and(|e| e.is_disconnected()));
        shutdown.join().unwrap();
        assert!(!stage.engine.stats().is_healthy());
    }
}

#[test]
fn an_iterator_of_events_parks_and_cancels() {
    let stage = Stage::free(100, EngineConfig::default());
    let events: Vec<_> = stage.engine.generate(request(prompt(10, 0), 100)).collect();
    let text: String =
        events.iter().filter_map(|e| if let Event::Piece { text, .. } = e { Some(&**text) } else { None }).collect();
    assert_eq!(text, expected(&prompt(10, 0), 100).text);
    assert!(matches!(events.last(), Some(Event::Finished { reason: FinishReason::Length, .. })));

    let mut unread = stage.engine.generate(request(prompt(10, 0), 250));
    assert!(unread.next().is_some());
    drop(unread);
    stage.until("it is cancelled", |engine| engine.stats().cancelled_total.get() == 1);
    assert_eq!(stage.engine.stats().kv_blocks_used.get(), 0);
}
