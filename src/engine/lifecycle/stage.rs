//! A whole engine with a fake model whose steps the test holds in hand.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::engine::{
    Engine, EngineConfig,
    batch::{Batch, Want},
    error::RequestError,
    fake::{HashModel, alone, byte_tokenizer},
    kv_cache::{KvCache, KvType},
    models::{ForwardError, Model, Outcome, Spec},
    request::{Event, FinishReason, Flow, GenerateRequest, Prompt, SamplingParams, Sink, Timeline, Usage},
};

/// As many as the tokenizer has.
pub const VOCABULARY: usize = 257;
/// What the model generates is ASCII, so that every token is one character of text.
pub const CHOICES: usize = 128;
pub const CONTEXT: usize = 300;
pub const FAR: Duration = Duration::from_secs(60);

/// How the model behaves in a step.
pub const WELL: u8 = 0;
pub const REFUSES: u8 = 1;
pub const PANICS: u8 = 2;
/// The first row of logits is NaN.
pub const NAN: u8 = 3;

struct StagedModel {
    model: HashModel,
    pub mood: Arc<AtomicU8>,
    /// Each step takes one permit; without a channel steps run freely.
    permits: Option<Receiver<()>>,
}

impl Model for StagedModel {
    fn spec(&self) -> &Spec {
        self.model.spec()
    }

    fn hidden(&self) -> Option<usize> {
        self.model.hidden()
    }

    fn forward(&mut self, batch: &Batch, cache: &mut KvCache, outcome: &mut Outcome) -> Result<(), ForwardError> {
        if let Some(permits) = &self.permits {
            // Closed at the end of the test: then steps run freely.
            let _ = permits.recv();
        }
        match self.mood.load(Ordering::SeqCst) {
            REFUSES => return Err(ForwardError("out of sorts".into())),
            PANICS => panic!("staged"),
            _ => self.model.forward(batch, cache, outcome)?,
        }
        if self.mood.load(Ordering::SeqCst) == NAN && !batch.sampled.is_empty() {
            match batch.sampled[0].1 {
                Want::Best => outcome.best[0].logit = f32::NAN,
                Want::Logits => outcome.logits[..VOCABULARY].fill(f32::NAN),
                Want::Hidden => outcome.hidden[0] = f32::NAN,
            }
        }
        Ok(())
    }
}

pub struct Stage {
    pub engine: Engine,
    pub mood: Arc<AtomicU8>,
    pub permits: Sender<()>,
}

impl Stage {
    /// An engine whose steps run freely.
    pub fn free(blocks: usize, config: EngineConfig) -> Self {
        Self::new(blocks, config, false)
    }

    /// An engine whose every step waits for a permit.
    pub fn held(blocks: usize, config: EngineConfig) -> Self {
        Self::new(blocks, config, true)
    }

    pub fn new(blocks: usize, config: EngineConfig, held: bool) -> Self {
        Self::with(HashModel::new(blocks, VOCABULARY, CHOICES, CONTEXT), blocks, config, held)
    }

    pub fn with(model: HashModel, blocks: usize, config: EngineConfig, held: bool) -> Self {
        let (permits, taken) = unbounded();
        let mood = Arc::new(AtomicU8::new(WELL));
        let cache = KvCache::new(model.spec(), blocks, KvType::F16);
        let model = StagedModel { model, mood: Arc::clone(&mood), permits: held.then_some(taken) };
        let engine = Engine::start("fake", Box::new(model), cache, Arc::new(byte_tokenizer()), config).unwrap();
        Self { engine, mood, permits }
    }

    /// Lets steps run freely from now on.
    pub fn release(&mut self) {
        self.permits = unbounded().0;
    }

    /// Permits one step and waits for it.
    #[track_caller]
    pub fn step(&self) {
        let steps = self.engine.stats().steps_total.get();
        self.permit(1);
        self.until("a step", |engine| engine.stats().steps_total.get() > steps);
    }

    pub fn permit(&self, steps: usize) {
        (0..steps).for_each(|_| self.permits.send(()).unwrap());
    }

    pub fn ask(&self, request: GenerateRequest) -> Client {
        let (sender, events) = unbounded();
        let flow = Arc::new(Mutex::new(Flow::Continue));
        self.engine.submit(request, Box::new(TestSink { sender, flow: Arc::clone(&flow) }));
        Client { events, flow }
    }

    /// Waits for what another thread is about to do.
    #[track_caller]
    pub fn until(&self, what: &str, condition: impl Fn(&Engine) -> bool) {
        let start = Instant::now();
        while !condition(&self.engine) {
            assert!(start.elapsed() < FAR, "never happened: {what}");
            thread::yield_now();
        }
    }
}

struct TestSink {
    sender: Sender<Event>,
    flow: Arc<Mutex<Flow>>,
}

impl Sink for TestSink {
    fn flow(&self) -> Flow {
        *self.flow.lock().unwrap()
    }

    fn on_event(&mut self, event: Event) {
        let _ = self.sender.send(event);
    }
}

pub struct Client {
    pub events: Receiver<Event>,
    flow: Arc<Mutex<Flow>>,
}

#[derive(Debug, PartialEq)]
pub struct Answer {
    pub text: String,
    pub token_ids: Vec<u32>,
    pub end: Result<(FinishReason, Usage), RequestError>,
}

impl Client {
    pub fn says(&self, flow: Flow) {
        *self.flow.lock().unwrap() = flow;
    }

    /// Waits for the next piece; its tokens.
    #[track_caller]
    pub fn piece(&self) -> Vec<u32> {
        match self.events.recv_timeout(FAR).unwrap() {
            Event::Started { .. } => self.piece(),
            Event::Piece { token_ids, .. } => token_ids,
            end => panic!("{end:?}"),
        }
    }

    /// Everything that is told, to the one end after which nothing comes.
    #[track_caller]
    pub fn answer(&self) -> Answer {
        let (mut text, mut token_ids) = (String::new(), Vec::new());
        let end = loop {
            match self.events.recv_timeout(FAR).expect("no end was told") {
                Event::Started { .. } => assert!(text.is_empty() && token_ids.is_empty()),
                Event::Piece { text: new, token_ids: ids, .. } => {
                    text.push_str(&new);
                    token_ids.extend(ids);
                }
                Event::Finished { reason, usage, timeline } => {
                    check_timeline(&timeline);
                    break Ok((reason, usage));
                }
                Event::Failed(error) => break Err(error),
            }
        };
        // The engine drops the sink after the end.
        assert!(self.events.recv_timeout(FAR).is_err(), "something came after the end");
        Answer { text, token_ids, end }
    }

    #[track_caller]
    pub fn fails_with(&self, expected: RequestError) {
        assert_eq!(self.answer().end, Err(expected));
    }
}

fn check_timeline(timeline: &Timeline) {
    let stages = [Some(timeline.received), timeline.admitted, timeline.first_token, timeline.finished];
    assert!(stages.into_iter().flatten().is_sorted(), "{timeline:?}");
}

pub fn prompt(tokens: usize, seed: u32) -> Vec<u32> {
    (0..tokens as u32).map(|i| (i * 31 + seed * 17) % VOCABULARY as u32).collect()
}

pub fn request(prompt: Vec<u32>, max_tokens: usize) -> GenerateRequest {
    let sampling = SamplingParams { temperature: 0.0, ..Default::default() };
    GenerateRequest { max_tokens, sampling, ..GenerateRequest::new(Prompt::Tokens(prompt)) }
}

pub fn text_of(tokens: &[u32]) -> String {
    tokens.iter().map(|&token| char::from(token as u8)).collect()
}

/// What `request(prompt, max_tokens)` must get, whatever else is going on.
pub fn expected(prompt: &[u32], max_tokens: usize) -> Answer {
    let token_ids = alone(prompt, max_tokens, CHOICES);
    let usage = Usage { prompt_tokens: prompt.len(), completion_tokens: max_tokens, cached_tokens: 0 };
    Answer { text: text_of(&token_ids), token_ids, end: Ok((FinishReason::Length, usage)) }
}
