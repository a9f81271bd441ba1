//! A toy in the engine's place, and the routes around it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use serde_json::Value;

use super::super::{Api, Backend, Chat, Makes, ModelInfo, OnGrammar, RenderError, Settings, Snapshot, router};
use crate::{
    engine::{
        dialect::{Calls, Dialect, ThoughtTokens, Thoughts},
        encoder::{Done, EncodeError, EncodeInput, EncodeRequest, Encoded, Left},
        error::RequestError,
        fake::{byte_tokenizer, byte_tokenizer_with},
        grammar::{Compiler, GrammarSource},
        request::{Event, FinishReason, GenerateRequest, Prompt, Sink, StopCause, Timeline, TokenLogprobs, Usage},
        tokenizer::Tokenizer,
    },
    http::{Method, Reply, Request, Router},
};

pub const SOON: Duration = Duration::from_secs(10);
pub const VOCABULARY: usize = 256;

/// Repeats each prompt byte by byte ("hold on" is for the test to go on with, and "break off" fails in its midst), and of a conversation the last message's content; tokens are bytes. So a test has it
/// say what it likes. It writes thoughts and tool calls as Qwen 3 does, and follows no grammar, but compiles them.
pub struct Echo {
    info: ModelInfo,
    dialect: Dialect,
    thoughts: Option<ThoughtTokens>,
    compiler: Compiler,
    tokenizer: Arc<Tokenizer>,
    makes: Makes,
    pub alive: AtomicBool,
    /// What it was asked last.
    pub asked: Mutex<Option<GenerateRequest>>,
    /// Whoever asked it to "hold on".
    pub held: Mutex<Option<Box<dyn Sink>>>,
    /// Whoever asked it to encode "wait".
    pub waiting: Mutex<Option<(Left, Done)>>,
}

impl Echo {
    pub fn new() -> Arc<Self> {
        Self::made(byte_tokenizer(), Makes::Text { width: None })
    }

    /// One that makes something else than text, if told to.
    pub fn making(makes: Makes) -> Arc<Self> {
        Self::made(byte_tokenizer(), makes)
    }

    /// One that has tokens for filling in a middle, 257 to 259, and one that ends it.
    pub fn filling() -> Arc<Self> {
        let control = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"];
        Self::made(byte_tokenizer_with(&control), Makes::Text { width: None })
    }

    fn made(tokenizer: Tokenizer, makes: Makes) -> Arc<Self> {
        let info = ModelInfo {
            architecture: "parrot".to_owned(),
            weights_type: "f32".to_owned(),
            parameters: 256,
            file_bytes: 1,
            packed_bytes: 2,
            context: 100,
            load_seconds: 0.5,
            loaded: UNIX_EPOCH,
        };
        let tokenizer = Arc::new(tokenizer);
        let thoughts = Thoughts { open: "<think>", close: "</think>" };
        let dialect = Dialect::new(Some(thoughts), Calls::Tagged, &tokenizer);
        Arc::new(Self {
            info,
            thoughts: dialect.thought_tokens(&tokenizer),
            dialect,
            compiler: Compiler::new(&tokenizer),
            tokenizer,
            makes,
            alive: true.into(),
            asked: Mutex::default(),
            waiting: Mutex::default(),
            held: Mutex::default(),
        })
    }
}

fn tokens_of(prompt: &Prompt) -> Vec<u32> {
    match prompt {
        Prompt::Text(text) | Prompt::Rendered(text) | Prompt::Marked(text) => text.bytes().map(u32::from).collect(),
        Prompt::Tokens(tokens) => tokens.clone(),
        Prompt::Parts(parts) => parts.iter().flat_map(tokens_of).collect(),
    }
}

impl Backend for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn makes(&self) -> Makes {
        self.makes
    }

    fn submit(&self, request: GenerateRequest, mut sink: Box<dyn Sink>) {
        let tokens = tokens_of(&request.prompt);
        *self.asked.lock().unwrap() = Some(request.clone());
        match tokens.len() {
            0 => return sink.on_event(Event::Failed(RequestError::EmptyPrompt)),
            13 => panic!("on purpose"),
            n if n > 1000 => {
                return sink.on_event(Event::Failed(RequestError::ContextExceeded { prompt: n, context: 100 }));
            }
            _ => {}
        }
        let received = Instant::now();
        sink.on_event(Event::Started { prompt_tokens: tokens.len(), cached_tokens: 1, scored: None });
        if tokens.iter().copied().eq("hold on".bytes().map(u32::from)) {
            *self.held.lock().unwrap() = Some(sink);
            return;
        }
        let text = String::from_utf8(tokens.iter().map(|&token| token as u8).collect()).unwrap_or_default();
        let stop = request.stop.iter().enumerate().filter_map(|(i, stop)| Some((text.find(&**stop)?, i))).min();
        let (length, reason) = match stop {
            _ if request.max_tokens < tokens.len() => (request.max_tokens, FinishReason::Length),
            Some((at, index)) => (at, FinishReason::Stop(StopCause::Text(index))),
            None => (tokens.len(), FinishReason::Stop(StopCause::Token(0))),
        };
        for &token in &tokens[..length] {
            let top = (0..request.logprobs.unwrap_or(0) as u32).map(|i| (token ^ i, -0.5 - i as f32)).collect();
            let logprobs = request.logprobs.map(|_| TokenLogprobs { token, logprob: -0.5, top });
            sink.on_event(Event::Piece {
                text: char::from(token as u8).to_string(),
                token_ids: vec![token],
                logprobs: logprobs.into_iter().collect(),
            });
            if text == "break off" && token == u32::from(b' ') {
                return sink.on_event(Event::Failed(RequestError::BadLogits));
            }
        }
        let usage = Usage { prompt_tokens: tokens.len(), completion_tokens: length, cached_tokens: 1 };
        let now = Some(Instant::now());
        let timeline = Timeline { received, admitted: now, first_token: now, finished: now, preemptions: 0 };
        sink.on_event(Event::Finished { reason, usage, timeline });
    }

    /// A token is a byte, and 100 are the most. A vector begins with their number and the first of them, and goes on with
    /// ones; a score is the share of the query's bytes that the document has.
    fn embed(&self, request: EncodeRequest, left: Left, done: Done) {
        let EncodeRequest { inputs, truncate, .. } = request;
        if inputs == [EncodeInput::Text("wait".to_owned())] {
            *self.waiting.lock().unwrap() = Some((left, done));
            return;
        }
        let (mut outputs, mut prompt_tokens) = (Vec::new(), 0);
        for (i, input) in inputs.into_iter().enumerate() {
            let (mut tokens, mut score) = (Vec::new(), 0.0);
            match input {
                EncodeInput::Text(text) => tokens.extend(text.bytes().map(u32::from)),
                EncodeInput::Tokens(given) => tokens = given,
                EncodeInput::Pair(query, document) => {
                    let shared = query.bytes().filter(|byte| document.as_bytes().contains(byte)).count();
                    score = shared as f32 / query.len() as f32;
                    if !document.is_empty() {
                        tokens.extend(query.bytes().chain(document.bytes()).map(u32::from));
                    }
                }
            }
            let error = match tokens.len() {
                0 => Some(RequestError::EmptyPrompt),
                n if n > 100 && !truncate => Some(RequestError::ContextExceeded { prompt: n, context: 100 }),
                _ => None,
            };
            if let Some(error) = error {
                return done(Err(EncodeError { input: Some(i), error }));
            }
            tokens.truncate(100);
            prompt_tokens += tokens.len();
            outputs.push(match self.makes {
                Makes::Vectors { width } | Makes::Text { width: Some(width) } => {
                    let mut vector = vec![1.0; width];
                    (vector[0], vector[1]) = (tokens.len() as f32, tokens[0] as f32);
                    vector
                }
                Makes::Text { width: None } | Makes::Scores => vec![score],
            });
        }
        done(Ok(Encoded { outputs, prompt_tokens }));
    }

    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, RequestError> {
        Ok(add_special.then_some(1).into_iter().chain(text.bytes().map(u32::from)).collect())
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, RequestError> {
        Ok(tokens_of(prompt))
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, RequestError> {
        let byte =
            |id: &u32| u8::try_from(*id).map_err(|_| RequestError::UnknownToken { id: *id, vocabulary: VOCABULARY });
        let bytes: Vec<u8> = tokens.iter().map(byte).collect::<Result<_, _>>()?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        u8::try_from(token).into_iter().collect()
    }

    fn render(&self, chat: &Chat) -> Result<String, RenderError> {
        match chat.messages.last().and_then(|last| last["content"].as_str()) {
            Some("refuse me") => Err(RenderError::Refused("roles must alternate".to_owned())),
            Some("no template") => Err(RenderError::NoTemplate),
            said => Ok(said.unwrap_or_default().to_owned()),
        }
    }

    fn template(&self) -> Option<&str> {
        Some("{{ messages[-1].content }}")
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    fn thought_tokens(&self) -> Option<&ThoughtTokens> {
        self.thoughts.as_ref()
    }

    fn compile(&self, source: GrammarSource, then: OnGrammar) {
        self.compiler.compile_then(source, then);
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            running: 2,
            running_max: 4,
            waiting: 3,
            kv_blocks_used: 1,
            kv_blocks_total: 4,
            preemptions: 5,
            alive: self.alive.load(Relaxed),
            ..Snapshot::default()
        }
    }
}

/// The end of a generation that the test goes on with.
pub fn finished(reason: FinishReason) -> Event {
    let timeline =
        Timeline { received: Instant::now(), admitted: None, first_token: None, finished: None, preemptions: 0 };
    Event::Finished { reason, usage: Usage::default(), timeline }
}

pub struct Fixture {
    pub router: Router,
    pub api: Arc<Api>,
    pub echo: Arc<Echo>,
}

impl Fixture {
    pub fn new() -> Self {
        Self::serving(Echo::new())
    }

    pub fn making(makes: Makes) -> Self {
        Self::serving(Echo::making(makes))
    }

    pub fn serving(echo: Arc<Echo>) -> Self {
        let settings = Settings { hosts: Some(vec!["sconce.lan".to_owned()]), ..Settings::default() };
        let api = Api::new(settings).unwrap();
        api.set_backend(Arc::clone(&echo) as Arc<dyn Backend>);
        Self { router: router(&api), api, echo }
    }

    pub fn handle(&self, request: Request<'_>) -> Reply {
        self.router.handle(request).wait(SOON).expect("an answer")
    }

    pub fn get(&self, path: &str) -> Reply {
        self.handle(Request::new(Method::Get, path))
    }

    pub fn post(&self, path: &str, body: &str) -> Reply {
        self.handle(Request::new(Method::Post, path).with_body(body.as_bytes()))
    }

    /// What it was asked last.
    pub fn asked(&self) -> GenerateRequest {
        self.echo.asked.lock().unwrap().clone().expect("a request")
    }
}

pub fn body(reply: &Reply) -> Value {
    serde_json::from_slice(reply.body()).unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(reply.body())))
}

/// The data of a stream's events, in order.
pub fn events(reply: &Reply) -> Vec<String> {
    let text = String::from_utf8(reply.body().to_vec()).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}
