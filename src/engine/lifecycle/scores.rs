//! How likely tokens are told to be, and that what the sampler remembers is the sequence's own.

use super::stage::{CHOICES, CONTEXT, Client, FAR, Stage, VOCABULARY, prompt, request};
use crate::engine::{
    EngineConfig,
    fake::{HashModel, alone},
    request::{
        Event, FinishReason, Flow, GenerateRequest, Mirostat, MirostatVersion, SamplingParams, ScoredPrompt,
        TokenLogprobs,
    },
};

/// What a client was told, but for the texts.
#[derive(Debug, PartialEq)]
struct Told {
    scored: Option<ScoredPrompt>,
    token_ids: Vec<u32>,
    logprobs: Vec<TokenLogprobs>,
    reason: FinishReason,
}

#[track_caller]
fn told(client: &Client) -> Told {
    let mut told = Told { scored: None, token_ids: vec![], logprobs: vec![], reason: FinishReason::Cancelled };
    loop {
        match client.events.recv_timeout(FAR).expect("no end was told") {
            Event::Started { scored, .. } => told.scored = scored,
            Event::Piece { token_ids, logprobs, .. } => {
                assert!(logprobs.is_empty() || logprobs.len() == token_ids.len());
                told.token_ids.extend(token_ids);
                told.logprobs.extend(logprobs);
            }
            Event::Finished { reason, .. } => return Told { reason, ..told },
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

/// The fake model gives one token the logit 10 and all others 0.
fn likelihood(token: u32, best: u32, count: usize) -> TokenLogprobs {
    let normaliser = (10f64.exp() + (VOCABULARY - 1) as f64).ln();
    let of = |id: u32| ((if id == best { 10.0 } else { 0.0 }) - normaliser) as f32;
    let others = (0..).filter(|&id| id != best);
    let top = std::iter::once(best).chain(others).take(count).map(|id| (id, of(id))).collect();
    TokenLogprobs { token, logprob: of(token), top }
}

#[track_caller]
fn check(found: &[TokenLogprobs], expected: &[TokenLogprobs]) {
    assert_eq!(found.len(), expected.len());
    let close = |a: f32, b: f32| (a - b).abs() < 1e-4;
    for (found, expected) in found.iter().zip(expected) {
        let same = found.token == expected.token && found.top.len() == expected.top.len();
        let tops = found.top.iter().zip(&expected.top).all(|(a, b)| a.0 == b.0 && close(a.1, b.1));
        assert!(same && tops && close(found.logprob, expected.logprob), "{found:?}, not {expected:?}");
    }
}

/// Also where stop strings hold tokens back, where they end inside of one, and where guesses are right or wrong.
#[test]
fn each_token_comes_with_its_own() {
    for choices in [1, 2, CHOICES] {
        let model = HashModel::new(100, VOCABULARY, choices, CONTEXT);
        let stage = Stage::with(model, 100, EngineConfig::default(), false);
        for (seed, count) in [(0, 0), (1, 1), (2, 5), (3, 20)] {
            let prompt = prompt(20, seed);
            let best = alone(&prompt, 60, choices);
            let characters: String = best[40..43].iter().map(|&token| char::from(token as u8)).collect();
            let stop = if seed == 2 { vec![characters] } else { vec!["\u{1}\u{0}\u{1}\u{1}\u{0}\u{0}".into()] };
            let ask = GenerateRequest { logprobs: Some(count), stop, ..request(prompt.clone(), 60) };
            let greedy = told(&stage.ask(ask.clone()));
            assert_eq!(greedy.token_ids, best[..greedy.token_ids.len()]);
            let expected: Vec<_> = greedy.token_ids.iter().map(|&token| likelihood(token, token, count)).collect();
            check(&greedy.logprobs, &expected);

            // What is asked of the sampler changes nothing of what the model finds likely.
            let sampling = SamplingParams {
                temperature: 3.0,
                presence_penalty: 1.0,
                top_n_sigma: 30.0,
                logit_bias: vec![(3, 5.0), (4, -100.0)],
                seed: Some(7),
                ..Default::default()
            };
            let sampled = told(&stage.ask(GenerateRequest { sampling, ..ask }));
            let mut tokens = prompt;
            let expected = sampled.token_ids.iter().map(|&token| {
                let best = alone(&tokens, 1, choices)[0];
                tokens.push(token);
                likelihood(token, best, count)
            });
            check(&sampled.logprobs, &expected.collect::<Vec<_>>());
            assert!(!sampled.token_ids.contains(&4));
        }
        assert!(choices > 2 || stage.engine.stats().accepted_tokens_total.get() > 20);
    }
}

#[test]
fn the_prompt_comes_with_its_own() {
    // The second could use what the first has in the cache, and takes its blocks when half of it is computed.
    let mut stage = Stage::held(9, EngineConfig::default());
    let length = [150, 150, 1, 2, 65];
    let clients: Vec<Client> = (0..5)
        .map(|i| {
            let ask = request(prompt(length[i], 9), [3, 0, 3, 0, 100][i]);
            stage.ask(GenerateRequest { prompt_logprobs: true, logprobs: (i != 1).then_some(2), ..ask })
        })
        .collect();
    stage.step();
    clients[0].says(Flow::Park);
    stage.release();
    stage.until("the first gives way", |engine| engine.stats().preemptions_total.get() > 0);
    clients[0].says(Flow::Continue);
    for (i, client) in clients.iter().enumerate() {
        let prompt = prompt(length[i], 9);
        let told = told(client);
        let count = if i == 1 { 0 } else { 2 };
        let expected: Vec<_> =
            (1..prompt.len()).map(|at| likelihood(prompt[at], alone(&prompt[..at], 1, CHOICES)[0], count)).collect();
        let scored = told.scored.expect("it was asked for");
        assert_eq!(scored.token_ids, prompt, "{i}");
        check(&scored.logprobs, &expected);
        assert_eq!((told.token_ids.len(), told.reason), ([3, 0, 3, 0, 100][i], FinishReason::Length), "{i}");
    }
    assert_eq!(stage.engine.stats().cached_tokens_total.get(), 0);
    assert_eq!(stage.engine.stats().kv_blocks_used.get(), 0);
}

/// Mirostat's cut moves with each token: the same whether others push the sequence out or guesses are checked.
#[test]
fn what_is_remembered_survives_preemption_and_guesses() {
    let ask = |stage: &Stage, seed: u32| {
        let version = [MirostatVersion::First, MirostatVersion::Second][seed as usize % 2];
        let mirostat = Some(Mirostat { version, tau: 1.0, eta: 0.5 });
        let sampling = SamplingParams { temperature: 2.0, mirostat, seed: Some(u64::from(seed)), ..Default::default() };
        stage.ask(GenerateRequest { sampling, ..request(prompt(10, seed), 150) })
    };
    let stage = |blocks, draft_max, held| {
        let model = HashModel::new(blocks, VOCABULARY, 2, CONTEXT);
        Stage::with(model, blocks, EngineConfig { draft_max, ..Default::default() }, held)
    };
    let plain = stage(100, 0, false);
    let alone: Vec<Told> = (0..8).map(|seed| told(&ask(&plain, seed))).collect();
    assert_eq!(plain.engine.stats().drafted_tokens_total.get(), 0);

    let mut tight = stage(8, 7, true);
    let clients: Vec<Client> = (0..8).map(|seed| ask(&tight, seed)).collect();
    while tight.engine.stats().admitted_total.get() < 4 {
        tight.step();
    }
    tight.release();
    let crowded: Vec<Told> = clients.iter().map(told).collect();
    let stats = tight.engine.stats();
    assert!(stats.preemptions_total.get() > 0);
    assert!(stats.accepted_tokens_total.get() > 0);
    assert!(stats.drafted_tokens_total.get() > stats.accepted_tokens_total.get());
    assert_eq!(crowded, alone);
}
