//! `sconce generate`: one generation, printed as it comes. Ctrl-C ends it.

use std::{
    io::{self, IsTerminal, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Map, Value, json};

use crate::{
    api::{self, Ask, Backend},
    engine::request::{Event, FinishReason, Flow, GenerateRequest, Sink, Timeline, Usage},
};

use super::{Failure, args::GenerateArgs, configure, load};

/// Events that may wait for the terminal; above the mark the engine pauses.
const EVENTS_MAX: usize = 1024;
const EVENTS_HIGH_WATER: usize = 256;

pub fn run(mut args: GenerateArgs) -> Result<(), Failure> {
    let prompt = read_prompt(args.prompt.take())?;
    let ask = ask(&args, prompt)?;
    let (config, _) = configure(args.common, args.model.into_flags(), "warn")?;
    let served = load::load_showing(config.default_model(), config.server.queue_max)?.served;
    let request = request(&*served, ask)?;

    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupted))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)))
            .map_err(|error| Failure::Run(format!("can't watch for Ctrl-C: {error}")))?;
    }
    let (events, incoming) = bounded(EVENTS_MAX);
    served.submit(request, Box::new(ChannelSink { events, interrupted }));
    let written = if args.json { print_json(&incoming) } else { print_text(&incoming) };
    written.map_err(|error| Failure::Run(format!("can't write: {error}")))?
}

/// The argument, or standard input where it is absent or `-`.
fn read_prompt(argument: Option<String>) -> Result<String, Failure> {
    match argument {
        Some(prompt) if prompt != "-" => Ok(prompt),
        None if io::stdin().is_terminal() => {
            Err(Failure::Usage("no prompt: sconce generate \"Once upon a time\", or pipe one in".to_owned()))
        }
        _ => {
            let mut prompt = String::new();
            match io::stdin().read_to_string(&mut prompt) {
                Ok(_) => Ok(prompt.trim_end_matches('\n').to_owned()),
                Err(error) => Err(Failure::Run(format!("can't read the prompt: {error}"))),
            }
        }
    }
}

/// The arguments as a request of the API: one table of fields and ranges holds for both.
fn ask(args: &GenerateArgs, prompt: String) -> Result<Ask, Failure> {
    let mut fields = Map::new();
    if args.raw {
        fields.insert("prompt".to_owned(), prompt.into());
    } else {
        let system = args.system.iter().map(|text| json!({ "role": "system", "content": text }));
        let messages: Value = system.chain([json!({ "role": "user", "content": prompt })]).collect();
        fields.insert("messages".to_owned(), messages);
    }
    let numbers = [
        ("max_tokens", args.max_tokens.map(Value::from)),
        ("temperature", args.temperature.map(Value::from)),
        ("top_p", args.top_p.map(Value::from)),
        ("top_k", args.top_k.map(Value::from)),
        ("min_p", args.min_p.map(Value::from)),
        ("repetition_penalty", args.repetition_penalty.map(Value::from)),
        ("seed", args.seed.map(Value::from)),
    ];
    fields.extend(numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    fields.insert("stop".to_owned(), args.stop.clone().into());
    fields.insert("ignore_eos".to_owned(), args.ignore_eos.into());
    let body = Value::Object(fields).to_string();
    let parsed = api::parse(body.as_bytes(), GenerateRequest::QUEUE_TIMEOUT);
    parsed.map(|(ask, _)| ask).map_err(|error| Failure::Usage(error.to_string()))
}

/// What the engine is asked; a model without chat template gets the prompt as it is.
fn request(backend: &dyn Backend, ask: Ask) -> Result<GenerateRequest, Failure> {
    match ask.into_request(backend) {
        Ok(request) => Ok(request),
        Err(error) => Err(Failure::Usage(format!("{error} (--raw continues the prompt without a template)"))),
    }
}

/// Hands events to the main thread, which may wait for the terminal; the engine never does.
struct ChannelSink {
    events: Sender<Event>,
    interrupted: Arc<AtomicBool>,
}

impl Sink for ChannelSink {
    fn flow(&self) -> Flow {
        if self.interrupted.load(Relaxed) {
            return Flow::Cancel;
        }
        if self.events.len() >= EVENTS_HIGH_WATER { Flow::Park } else { Flow::Continue }
    }

    fn on_event(&mut self, event: Event) {
        // Refused only when the reader has given up, or by a channel that `flow` keeps from filling.
        let _ = self.events.try_send(event);
    }
}

/// How a generation ended.
type End = (FinishReason, Usage, Timeline);

/// Prints pieces as they come.
fn print_text(events: &Receiver<Event>) -> io::Result<Result<(), Failure>> {
    let mut out = io::stdout().lock();
    let end = receive(events, |text, _| out.write_all(text.as_bytes()).and_then(|()| out.flush()))?;
    writeln!(out)?;
    let (reason, usage, timeline) = match end {
        Ok(end) => end,
        Err(failure) => return Ok(Err(failure)),
    };
    if io::stderr().is_terminal() {
        let account = api::account(reason, usage, &timeline);
        eprintln!("[{} tokens, {} tokens/s]", usage.completion_tokens, account["tokens_per_second"]);
    }
    Ok(Ok(()))
}

/// Prints one object at the end, as `/generate` answers it.
fn print_json(events: &Receiver<Event>) -> io::Result<Result<(), Failure>> {
    let (mut text, mut token_ids) = (String::new(), Vec::new());
    let end = receive(events, |piece, ids| {
        text.push_str(piece);
        token_ids.extend_from_slice(ids);
        Ok(())
    })?;
    let (reason, usage, timeline) = match end {
        Ok(end) => end,
        Err(failure) => return Ok(Err(failure)),
    };
    let mut answer = Map::from_iter([("text".to_owned(), text.into()), ("token_ids".to_owned(), token_ids.into())]);
    answer.extend(api::account(reason, usage, &timeline));
    writeln!(io::stdout(), "{}", Value::Object(answer)).map(Ok)
}

/// Passes pieces on until the end.
fn receive(
    events: &Receiver<Event>,
    mut on_piece: impl FnMut(&str, &[u32]) -> io::Result<()>,
) -> io::Result<Result<End, Failure>> {
    for event in events {
        match event {
            Event::Started { .. } => {}
            Event::Piece { text, token_ids, .. } => on_piece(&text, &token_ids)?,
            Event::Finished { reason, usage, timeline } => return Ok(Ok((reason, usage, timeline))),
            Event::Failed(error) => return Ok(Err(Failure::Run(error.to_string()))),
        }
    }
    Ok(Err(Failure::Run("the engine ended without an answer".to_owned())))
}
