//! What the engine saves: keys and values that are in the cache already, and steps where guesses are right.

use super::stage::{Answer, CONTEXT, Stage, VOCABULARY, expected, prompt, request};
use crate::engine::{
    EngineConfig,
    fake::HashModel,
    request::{GenerateRequest, SamplingParams, Tenant, Usage},
};

#[test]
fn what_has_been_computed_is_not_computed_again_and_usage_says_so() {
    let stage = Stage::free(100, EngineConfig::default());
    let ask = |prompt: &[u32], tenant: Option<&str>| {
        let tenant = tenant.map(|name| Tenant(name.into()));
        let answer = stage.ask(GenerateRequest { tenant, ..request(prompt.to_vec(), 20) }).answer();
        let (reason, usage) = answer.end.clone().unwrap();
        let uncached = Answer { end: Ok((reason, Usage { cached_tokens: 0, ..usage })), ..answer };
        assert_eq!(uncached, expected(prompt, 20));
        (usage.cached_tokens, uncached.token_ids)
    };
    let mut chat = prompt(100, 3);
    let (cached, answer) = ask(&chat, None);
    assert_eq!(cached, 0);
    assert_eq!(ask(&chat, None).0, 96);
    assert_eq!(ask(&chat, Some("a")).0, 0);
    assert_eq!(ask(&chat, Some("a")).0, 96);
    assert_eq!(ask(&chat, Some("b")).0, 0);
    // The next turn finds prompt and answer, as far as they fill blocks.
    chat.extend(answer);
    chat.extend(prompt(50, 4));
    assert_eq!(ask(&chat, None).0, 96);
    chat.truncate(97);
    assert_eq!(ask(&chat, None).0, 96);
    chat.truncate(96);
    assert_eq!(ask(&chat, None).0, 64, "the last token must be computed");
    let stats = stage.engine.stats();
    assert_eq!((stats.prefix_hits_total.get(), stats.cached_tokens_total.get()), (5, 4 * 96 + 64));
    assert!(stats.kv_blocks_cached.get() > 0);
}

/// A model that knows few words, so that many guesses are right: the answers are those of an engine that guesses nothing,
/// also where an answer ends within a right guess, and where each token depends on those before it by a penalty.
#[test]
fn guessing_changes_no_answer() {
    let engine = |draft_max, choices| {
        let model = HashModel::new(100, VOCABULARY, choices, CONTEXT);
        Stage::with(model, 100, EngineConfig { draft_max, ..Default::default() }, false)
    };
    let mut accepted = 0;
    for choices in [1, 2] {
        let [plain, guessing] = [engine(0, choices), engine(7, choices)];
        for seed in 0..60 {
            let temperature = [0.0, 0.0, 2.0][seed as usize % 3];
            let repetition_penalty = [1.0, 1.3][seed as usize % 2];
            let sampling =
                SamplingParams { temperature, repetition_penalty, seed: Some(seed.into()), ..Default::default() };
            let max_tokens = 20 + 3 * seed as usize;
            let mut ask = GenerateRequest { sampling, ..request(prompt(20 + seed as usize, seed), max_tokens) };
            ask.stop = if seed % 4 == 0 { vec!["\0\u{1}\0\0\u{1}\u{1}".into()] } else { vec![] };
            ask.stop_tokens = if seed % 7 == 0 { vec![5] } else { vec![] };
            let [expected, found] = [&plain, &guessing].map(|stage| stage.ask(ask.clone()).answer());
            assert_eq!(found, expected, "seed {seed}, {choices} choices");
        }
        assert_eq!(plain.engine.stats().drafted_tokens_total.get(), 0);
        accepted += guessing.engine.stats().accepted_tokens_total.get();
        assert!(guessing.engine.stats().steps_total.get() < plain.engine.stats().steps_total.get());
    }
    assert!(accepted > 500, "{accepted}");
}
