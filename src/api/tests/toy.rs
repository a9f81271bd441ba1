//! A toy in the engine's place, and the routes around it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use serde_json::Value;

use super::super::{Api, Backend, Chat, ModelInfo, OnGrammar, RenderError, Settings, Snapshot, router};
use crate::{
    engine::{
        dialect::{Calls, Dialect, ThoughtTokens, Thoughts},
        error::RequestError,
        fake::byte_tokenizer,
        grammar::{Compiler, GrammarSource},
        request::{Event, FinishReason, GenerateRequest, Prompt, Sink, StopCause, Timeline, TokenLogprobs, Usage},
    },
    http::{Method, Reply, Request, Router},
};

pub const SOON: Duration = Duration::from_secs(10);
pub const VOCABULARY: usize = 256;

/// Repeats each prompt byte by byte, and of a conversation the last message's content; tokens are bytes. So a test has it
/// say what it likes. It writes thoughts and tool calls as Qwen 3 does, and follows no grammar, but compiles them.
pub struct Echo {
    info: ModelInfo,
    dialect: Dialect,
    thoughts: Option<ThoughtTokens>,
    compiler: Compiler,
    pub alive: AtomicBool,
    /// What it was asked last.
    pub asked: Mutex<Option<GenerateRequest>>,
}

impl Echo {
    pub fn new() -> Arc<Self> {
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
        let tokenizer = Arc::new(byte_tokenizer());
        let thoughts = Thoughts { open: "<think>", close: "</think>" };
        let dialect = Dialect::new(Some(thoughts), Calls::Tagged, &tokenizer);
        Arc::new(Self {
            info,
            thoughts: dialect.thought_tokens(&tokenizer),
            dialect,
            compiler: Compiler::new(&tokenizer),
            alive: true.into(),
            asked: Mutex::default(),
        })
    }
}

fn tokens_of(prompt: &Prompt) -> Vec<u32> {
    match prompt {
        Prompt::Text(text) | Prompt::Rendered(text) => text.bytes().map(u32::from).collect(),
        Prompt::Tokens(tokens) => tokens.clone(),
    }
}

impl Backend for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    fn info(&self) -> &ModelInfo {
        &self.info
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
        }
        let usage = Usage { prompt_tokens: tokens.len(), completion_tokens: length, cached_tokens: 1 };
        let now = Some(Instant::now());
        let timeline = Timeline { received, admitted: now, first_token: now, finished: now, preemptions: 0 };
        sink.on_event(Event::Finished { reason, usage, timeline });
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
            waiting: 3,
            kv_blocks_used: 1,
            kv_blocks_total: 4,
            preemptions: 5,
            alive: self.alive.load(Relaxed),
            ..Snapshot::default()
        }
    }
}

pub struct Fixture {
    pub router: Router,
    pub api: Arc<Api>,
    pub echo: Arc<Echo>,
}

impl Fixture {
    pub fn new() -> Self {
        let echo = Echo::new();
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
