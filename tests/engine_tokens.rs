//! The same request gets the same tokens from a real model, alone or in company: beside others, with its prompt cut in
//! other chunks, after losing its blocks and starting again, with its prompt cached or cold, with tokens guessed or not.
#![cfg(feature = "engine")]

mod common;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use common::tiny::Tiny;
use sconce::engine::{
    Engine, EngineConfig,
    kv_cache::{KvCache, KvType},
    models::{Architecture, LoadOptions, load},
    request::{Event, FinishReason, GenerateRequest, Prompt, SamplingParams},
};

const GENERATED: usize = 60;

fn engine(architecture: Architecture, blocks: usize, config: EngineConfig) -> Engine {
    // An output head of its own: a tied one makes a random model repeat its last token.
    let shape = Tiny { tied: false, hidden: 64, heads: 2, feed_forward: 128, ..Tiny::new(architecture) };
    let source = shape.source();
    let model = load(&source, LoadOptions::new(NonZeroUsize::MIN)).unwrap();
    let tokenizer = Arc::new(source.tokenizer().unwrap());
    let cache = KvCache::new(model.spec(), blocks, KvType::F16);
    Engine::start("tiny", model, cache, tokenizer, config).unwrap()
}

/// Greedy and drawn, with prompts from one token to several blocks.
fn requests() -> Vec<GenerateRequest> {
    (0..6)
        .map(|i| {
            let prompt = (0..1 + 12 * i).map(|position| (position * 37 + i * 11) % 256).collect();
            let temperature = if i % 2 == 0 { 0.0 } else { 1.0 };
            let sampling = SamplingParams { temperature, seed: Some(u64::from(i)), ..Default::default() };
            let request = GenerateRequest::new(Prompt::Tokens(prompt));
            GenerateRequest { max_tokens: GENERATED, sampling, ignore_eos: true, ..request }
        })
        .collect()
}

fn tokens(events: impl Iterator<Item = Event>) -> Vec<u32> {
    let mut tokens = Vec::new();
    for event in events {
        match event {
            Event::Started { .. } => {}
            Event::Piece { token_ids, .. } => tokens.extend(token_ids),
            Event::Finished { reason, .. } => assert_eq!(reason, FinishReason::Length),
            Event::Failed(error) => panic!("{error}"),
        }
    }
    assert_eq!(tokens.len(), GENERATED);
    tokens
}

#[test]
fn company_does_not_change_tokens() {
    let mut preemptions = 0;
    for architecture in Architecture::BATCHED {
        let roomy = engine(architecture, 64, EngineConfig { draft_max: 0, ..Default::default() });
        let alone: Vec<_> = requests().into_iter().map(|request| tokens(roomy.generate(request))).collect();
        assert!(alone.windows(2).all(|pair| pair[0] != pair[1]), "the model says the same to everything");

        // Prompts in pieces of 7 tokens, and blocks for two or three of the six.
        let config = EngineConfig { step_tokens_max: 7, step_prompt_tokens_max: 16, ..Default::default() };
        for (what, blocks, config) in [("side by side", 64, EngineConfig::default()), ("crowded", 8, config)] {
            let engine = engine(architecture, blocks, config);
            // The second time with what the first has left in the cache.
            for round in 1..=2 {
                let streams: Vec<_> = requests().into_iter().map(|request| engine.generate(request)).collect();
                for (i, (stream, alone)) in streams.into_iter().zip(&alone).enumerate() {
                    assert_eq!(tokens(stream), *alone, "{architecture:?}, request {i}, {what}, round {round}");
                }
            }
            let stats = engine.stats();
            // Whether the crowd gets into each other's way in every round is up to the time that steps take.
            preemptions += stats.preemptions_total.get();
            assert_eq!((stats.running.get(), stats.kv_blocks_used.get()), (0, 0));
            engine.shutdown(Duration::ZERO);
        }
    }
    assert!(preemptions > 0, "nobody was crowded out");
}
