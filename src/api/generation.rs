//! The way of every generation, whichever API asks for it: find the model, write the prompt out, compile what the answer
//! must look like, submit.
//!
//! ```text
//! Ask ─▶ model by name ─▶ render ─▶ compile (grammar's threads) ─▶ submit each choice ─▶ Delivery
//!        (loads it)       (text worker if long)
//! ```
//!
//! What goes wrong on the way is told to the delivery, which answers.

use std::sync::Arc;

use crate::{
    engine::{
        dialect::{Reader, ToolChoice},
        grammar::Grammar,
        request::{GenerateRequest, Prompt, Thinking},
    },
    http::{Reply, Request},
};

use super::{
    answer::{ChoiceSink, Delivery, Mode, Reading, Setting, Wire},
    ask::{Ask, Chat, Format, Input, Suffix, ThoughtsWanted, prompt},
    backend::{Backend, Makes},
    error::ApiError,
    family::Family,
    metrics::Endpoint,
    request_id::RequestId,
    state::Api,
};

/// Answers of one request.
pub const CHOICES_MAX: usize = 128;

/// Starts a generation that `wire` writes down; the reply is given later. `id` is the answer's own name, which its header
/// carries unless the client sent one.
pub fn start(
    api: &Arc<Api>,
    request: &Request<'_>,
    id: &RequestId,
    ask: Ask,
    mode: Mode,
    wire: impl Wire,
) -> Result<Reply, ApiError> {
    let (reply, responder) = Reply::later();
    let given = request.header("x-request-id").filter(|given| RequestId::is_sane(given));
    let reply = reply.header("x-request-id", given.unwrap_or(id.as_str()));
    let setting = Setting {
        mode,
        family: Family::of(request.path()),
        param: ask.param(),
        endpoint: Endpoint::of(request),
        metrics: Arc::clone(&api.metrics),
        ping_interval: api.settings.ping_interval,
    };
    let delivery = Delivery::new(responder, Box::new(wire), setting);
    let (worker, model) = (Arc::clone(&api.text_worker), ask.model.clone());
    api.with_model(model.as_deref(), move |model| {
        let begun = model.and_then(|model| {
            let (bytes, delivery) = (ask.work_bytes(), Arc::clone(&delivery));
            worker.run(bytes, move || {
                if let Err(error) = prepare(model, ask, &delivery) {
                    delivery.fail(error);
                }
            })
        });
        if let Err(error) = begun {
            delivery.fail(error);
        }
    });
    Ok(reply)
}

/// Writes prompts out and sees to what answers must look like.
fn prepare(model: Arc<dyn Backend>, ask: Ask, delivery: &Arc<Delivery>) -> Result<(), ApiError> {
    if delivery.is_abandoned() {
        return Ok(());
    }
    if !matches!(model.makes(), Makes::Text { .. }) {
        let message = format!("{} makes embeddings, not text", model.name());
        return Err(ApiError::unsupported("model", message));
    }
    let param = ask.param();
    let Ask { input, mut request, choices, format, thoughts, suffix, context, tells_prompts, .. } = ask;
    let (mut prompts, how, format) = match input {
        Input::Prompts(prompts) => {
            let prompts = match suffix {
                Some(suffix) => fill_in(&prompts, &suffix, &*model, &mut request)?,
                None => prompts,
            };
            (prompts, How::Plain, format)
        }
        Input::Chat(chat) => {
            if let (Some(param), None) = (thoughts.needed, model.thought_tokens()) {
                return Err(ApiError::unsupported(param, "this model writes no thoughts"));
            }
            let prompt = prompt(&chat, &*model, param)?;
            let format = format.or_else(|| forced_calls(&chat, &*model));
            let how = How::of(&chat, &prompt, thoughts, &*model);
            (vec![prompt], how, format)
        }
    };
    if !context.is_empty() {
        let after = |prompt| Prompt::Parts(vec![Prompt::Tokens(context.clone()), prompt]);
        prompts = prompts.into_iter().map(after).collect();
    }
    if tells_prompts {
        delivery.show_prompts(prompts.iter().map(|prompt| prompt.encode(model.tokenizer()).into_owned()).collect());
    }
    let submission = Submission { model, prompts, choices, how, request, delivery: Arc::clone(delivery) };
    match format {
        None => submission.submit(None),
        Some(Format { source, param }) => {
            let model = Arc::clone(&submission.model);
            let then = move |grammar| match grammar {
                Ok(grammar) => submission.submit(Some(grammar)),
                Err(error) => submission.delivery.fail(ApiError::grammar(param, error)),
            };
            model.compile(source, Box::new(then));
        }
    }
    Ok(())
}

/// The prompts for what stands between each and the suffix.
fn fill_in(
    prompts: &[Prompt],
    suffix: &Suffix,
    model: &dyn Backend,
    request: &mut GenerateRequest,
) -> Result<Vec<Prompt>, ApiError> {
    let tokenizer = model.tokenizer();
    let unable = || {
        let message = "this model has no tokens for filling in a middle; leave it out, or ask a model that has";
        ApiError::unsupported(suffix.param, message)
    };
    let ends = &tokenizer.fill_in_middle().ok_or_else(unable)?.ends;
    request.stop_tokens.extend(ends);
    let around = |prompt: &Prompt| tokenizer.encode_around(&prompt.encode_bare(tokenizer), &suffix.text);
    prompts.iter().map(|prompt| around(prompt).map(Prompt::Tokens).ok_or_else(unable)).collect()
}

/// What the answer must be if it must call tools, or calls held to a schema.
fn forced_calls(chat: &Chat, model: &dyn Backend) -> Option<Format> {
    let choice = chat.tool_choice.as_ref().unwrap_or(&ToolChoice::Auto);
    let source = model.dialect().tool_grammar(&chat.tools, choice, chat.parallel)?;
    Some(Format { source, param: "tools" })
}

/// How answers are read.
enum How {
    Plain,
    Dialect { tools: Vec<String>, visible: Vec<u32>, thinking: Option<Thinking>, split: bool },
}

impl How {
    fn of(chat: &Chat, prompt: &Prompt, wanted: ThoughtsWanted, model: &dyn Backend) -> Self {
        let Prompt::Rendered(prompt) = prompt else { return Self::Plain };
        let dialect = model.dialect();
        let offered = chat.tool_choice != Some(ToolChoice::None);
        let tools = chat.tools.iter().filter(|_| offered).map(|tool| tool.name.clone()).collect();
        let continued = chat.messages.last().filter(|_| chat.continues).and_then(|last| last["content"].as_str());
        let thinking = model.thought_tokens().map(|tokens| Thinking {
            open: tokens.open.clone(),
            close: tokens.close.clone(),
            begun: dialect.is_thinking(prompt, continued),
            tokens_max: wanted.tokens_max,
        });
        Self::Dialect { tools, visible: dialect.visible(), thinking, split: wanted.split }
    }

    fn reading(&self, model: &dyn Backend) -> Reading {
        match self {
            Self::Plain => Reading::Plain,
            Self::Dialect { tools, thinking, split, .. } => {
                let begun = thinking.as_ref().is_some_and(|thinking| thinking.begun);
                Reading::Dialect(Box::new(self.reader(model, tools, begun, *split)))
            }
        }
    }

    fn reader(&self, model: &dyn Backend, tools: &[String], begun: bool, split: bool) -> Reader {
        let tools = tools.iter().map(String::as_str);
        match split {
            true => model.dialect().reader(tools, begun),
            false => model.dialect().clone().without_thoughts().reader(tools, false),
        }
    }
}

/// All that is to be generated for one answer.
struct Submission {
    model: Arc<dyn Backend>,
    prompts: Vec<Prompt>,
    choices: usize,
    how: How,
    request: GenerateRequest,
    delivery: Arc<Delivery>,
}

impl Submission {
    fn submit(self, grammar: Option<Grammar>) {
        let Self { model, prompts, choices, how, mut request, delivery } = self;
        request.grammar = grammar;
        if let How::Dialect { visible, thinking, .. } = &how {
            request.visible.clone_from(visible);
            request.thinking.clone_from(thinking);
        }
        delivery.expect(Arc::clone(&model), prompts.len() * choices, choices, request.stop.clone());
        for (p, prompt) in prompts.into_iter().enumerate() {
            for choice in 0..choices {
                let mut request = GenerateRequest { prompt: prompt.clone(), ..request.clone() };
                request.sampling.seed = request.sampling.seed.map(|seed| seed.wrapping_add(choice as u64));
                let sink = ChoiceSink::new(Arc::clone(&delivery), p * choices + choice, how.reading(&*model));
                model.submit(request, Box::new(sink));
            }
        }
    }
}
