//! `POST /v1/completions`: <https://platform.openai.com/docs/api-reference/completions>.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    api::{
        answer::{Begun, Choice, Frames, Framing, Piece, Scored, Total, Wire},
        ask::{Ask, Input, Suffix},
        error::ApiError,
        family::Family,
        fields::{Fields, kind, token_list},
        generation,
        request_id::RequestId,
        state::Api,
    },
    engine::{dialect::Delta, request::Prompt},
    http::{Reply, Request},
};

use super::{
    FINGERPRINT, finish_word, format, logprobs, now,
    request::{self, Telling},
    usage,
};

const PROMPTS_MAX: usize = 256;
/// Most likely tokens that are told with each; OpenAI has 5, evaluation harnesses ask for more.
const LOGPROBS_MAX: i64 = 20;
/// OpenAI's.
const MAX_TOKENS_DEFAULT: i64 = 16;

/// Continues prompts.
pub fn completions(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let (ask, telling, echo) = parse(request.body(), api.settings.queue_timeout)?;
    let id = RequestId::fresh();
    let wire = CompletionWire::new(&id, &ask, telling, echo);
    generation::start(api, request, &id, ask, telling.mode, wire)
}

fn parse(body: &[u8], queue_timeout: Duration) -> Result<(Ask, Telling, bool), ApiError> {
    let mut fields = Fields::parse(body)?;
    let prompt = fields.take("prompt");
    let mut ask = Ask::new(Input::Prompts(Vec::new()));
    let telling = request::read(&mut fields, &mut ask, queue_timeout)?;
    let max_tokens = fields.integer("max_tokens", 0..=1_000_000_000)?.unwrap_or(MAX_TOKENS_DEFAULT);
    ask.request.max_tokens = max_tokens as usize;
    let echo = fields.flag("echo")?.unwrap_or(false);
    let logprobs = fields.integer("logprobs", 0..=LOGPROBS_MAX)?;
    ask.request.logprobs = logprobs.map(|top| top as usize);
    ask.request.prompt_logprobs = echo && logprobs.is_some();
    ask.format = format::read(&mut fields)?;
    if let Some(best_of) = fields.integer("best_of", 1..=i64::MAX)?
        && best_of != ask.choices as i64
    {
        return Err(ApiError::unsupported("best_of", "only the value of n is supported"));
    }
    let suffix = fields.text("suffix")?;
    let Some(prompt) = prompt else {
        return fields.missing("prompt", "a text or a list of token ids, or a list of these");
    };
    let prompts = read_prompts(prompt)?;
    fields.finish()?;
    ask.suffix = suffix.filter(|text| !text.is_empty()).map(|text| Suffix { text, param: "suffix" });
    ask.input = Input::Prompts(prompts);
    Ok((ask, telling, echo))
}

/// A text, a list of token ids, or a list of texts or of lists.
fn read_prompts(value: Value) -> Result<Vec<Prompt>, ApiError> {
    let items = match value {
        Value::String(text) => return Ok(vec![Prompt::Text(text)]),
        Value::Array(items) if items.first().is_some_and(Value::is_number) => {
            return token_list(items.into(), "prompt", usize::MAX).map(|tokens| vec![Prompt::Tokens(tokens)]);
        }
        Value::Array(items) => items,
        other => {
            return Err(ApiError::field("prompt", format!("expected a string or a list, not {}", kind(&other))));
        }
    };
    if !(1..=PROMPTS_MAX).contains(&items.len()) {
        let message = format!("{} prompts, 1 to {PROMPTS_MAX} are allowed", items.len());
        return Err(ApiError::field("prompt", message));
    }
    let prompt = |(i, item)| match item {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(_) => token_list(item, &format!("prompt[{i}]"), usize::MAX).map(Prompt::Tokens),
        other => {
            let message = format!("expected a string or a list of token ids, not {}", kind(&other));
            Err(ApiError::field(format!("prompt[{i}]"), message))
        }
    };
    items.into_iter().enumerate().map(prompt).collect()
}

/// The answers to prompts.
struct CompletionWire {
    id: String,
    created: u64,
    model: String,
    telling: Telling,
    has_logprobs: bool,
    /// The prompts, if they are to be said again, and choices for each.
    echo: Option<Vec<Prompt>>,
    per_prompt: usize,
    /// The text to say again before each choice, until it has been said.
    echoes: Vec<String>,
    /// Of each choice: what has been told of it, in characters.
    offsets: Vec<usize>,
}

impl CompletionWire {
    fn new(id: &RequestId, ask: &Ask, telling: Telling, echo: bool) -> Self {
        let prompts = match &ask.input {
            Input::Prompts(prompts) => prompts.clone(),
            Input::Chat(_) => Vec::new(),
        };
        Self {
            id: format!("cmpl-{id}"),
            created: now(),
            model: String::new(),
            telling,
            has_logprobs: ask.request.logprobs.is_some(),
            offsets: vec![0; prompts.len() * ask.choices],
            echoes: Vec::new(),
            echo: echo.then_some(prompts),
            per_prompt: ask.choices,
        }
    }

    /// The prompt of a choice, as text, if it is said again.
    fn echoed(&self, choice: usize, begun: &Begun) -> String {
        match self.echo.as_ref().and_then(|prompts| prompts.get(choice / self.per_prompt)) {
            Some(Prompt::Text(text)) => text.clone(),
            // Ids that there are not have been refused.
            Some(Prompt::Tokens(tokens)) => begun.model.decode(tokens).unwrap_or_default(),
            _ => String::new(),
        }
    }

    fn envelope(&self, choices: Value) -> Map<String, Value> {
        let mut envelope = Map::new();
        envelope.insert("id".into(), self.id.as_str().into());
        envelope.insert("object".into(), "text_completion".into());
        envelope.insert("created".into(), self.created.into());
        envelope.insert("model".into(), self.model.as_str().into());
        envelope.insert("system_fingerprint".into(), FINGERPRINT.into());
        envelope.insert("choices".into(), choices);
        envelope
    }

    fn logprobs(&mut self, choice: usize, scored: &[Scored]) -> Value {
        if !self.has_logprobs {
            return Value::Null;
        }
        let (logprobs, end) = logprobs::of_completion(scored, self.offsets[choice]);
        self.offsets[choice] = end;
        logprobs
    }

    /// Says a choice's prompt, once.
    fn say_again(&mut self, choice: usize, scored: &[Scored], out: &mut Frames) {
        let echoed = self.echoes.get_mut(choice).map(std::mem::take).unwrap_or_default();
        if !echoed.is_empty() {
            self.chunk(choice, &echoed, scored, Value::Null, out);
            // Also where its tokens were not asked for.
            self.offsets[choice] = echoed.chars().count();
        }
    }

    fn chunk(&mut self, choice: usize, text: &str, scored: &[Scored], finish: Value, out: &mut Frames) {
        let logprobs = self.logprobs(choice, scored);
        let choice = json!({ "index": choice, "text": text, "logprobs": logprobs, "finish_reason": finish });
        let mut chunk = self.envelope(json!([choice]));
        if self.telling.include_usage {
            chunk.insert("usage".into(), Value::Null);
        }
        out.json(&Value::Object(chunk));
    }
}

impl Wire for CompletionWire {
    fn framing(&self) -> Framing {
        Framing::Events
    }

    fn begin(&mut self, begun: &Begun, _: &mut Frames) {
        self.model = begun.model.name().to_owned();
        self.echoes = (0..self.offsets.len()).map(|choice| self.echoed(choice, begun)).collect();
    }

    fn started(&mut self, choice: usize, so_far: &Choice, out: &mut Frames) {
        self.say_again(choice, &so_far.prompt_scored, out);
    }

    fn piece(&mut self, choice: usize, piece: &Piece, out: &mut Frames) {
        let texts = piece.deltas.iter().filter_map(|delta| match delta {
            Delta::Text(text) => Some(&**text),
            _ => None,
        });
        let text: String = texts.collect();
        if !text.is_empty() || (self.has_logprobs && !piece.scored.is_empty()) {
            self.chunk(choice, &text, piece.scored, Value::Null, out);
        }
    }

    fn end(&mut self, choice: usize, all: &Choice, out: &mut Frames) {
        self.say_again(choice, &all.prompt_scored, out);
        self.chunk(choice, "", &[], finish_word(all).into(), out);
    }

    fn finish(&mut self, total: &Total, out: &mut Frames) {
        if self.telling.include_usage {
            let mut chunk = self.envelope(json!([]));
            chunk.insert("usage".into(), usage(total));
            out.json(&Value::Object(chunk));
        }
        out.piece(|line| line.push_str("[DONE]"));
    }

    fn fail(&mut self, error: &ApiError, out: &mut Frames) {
        out.json(&Family::OpenAi.body(error));
    }

    fn whole(&mut self, begun: &Begun, choices: &[Choice], total: &Total) -> Value {
        self.model = begun.model.name().to_owned();
        let mut all = Vec::with_capacity(choices.len());
        for (index, choice) in choices.iter().enumerate() {
            let echoed = self.echoed(index, begun);
            if choice.prompt_scored.is_empty() {
                self.offsets[index] = echoed.chars().count();
            }
            let scored = [&choice.prompt_scored[..], &choice.scored].concat();
            all.push(json!({
                "index": index,
                "text": echoed + &choice.text,
                "logprobs": self.logprobs(index, &scored),
                "finish_reason": finish_word(choice),
            }));
        }
        let mut answer = self.envelope(all.into());
        answer.insert("usage".into(), usage(total));
        Value::Object(answer)
    }
}
