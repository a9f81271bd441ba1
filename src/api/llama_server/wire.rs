//! How completions are written down: events without names, the last of each prompt with `stop: true`; or one object, or
//! a list of them where several prompts were asked for.

use std::{fmt::Write, time::Instant};

use serde_json::{Value, json};

use crate::{
    api::{
        answer::{Begun, Choice, Frames, Framing, Mode, Piece, Scored, Total, Wire, push_json_string},
        ask::{Ask, Input},
        error::ApiError,
        family::Family,
    },
    engine::{
        dialect::Delta,
        request::{FinishReason, Prompt, StopCause, Usage},
        tokenizer::Tokenizer,
    },
};

use super::{settings, timings, tokens::spell};

/// What of an answer is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Telling {
    /// Token ids beside the text.
    pub tokens: bool,
    /// Timings with every piece.
    pub timings: bool,
    /// Only these members of the last one: names, or paths with slashes. Empty: all.
    pub fields: Vec<String>,
}

/// The answers to prompts.
pub struct CompletionWire {
    telling: Telling,
    stream: bool,
    has_probs: bool,
    settings: Value,
    prompts: Vec<Prompt>,
    /// Of each prompt, once the model is known.
    prompt_texts: Vec<String>,
    model: String,
    asked: Instant,
    begun: Instant,
    /// Tokens of the prompt, and those that were in the cache.
    usage: Usage,
}

impl CompletionWire {
    pub fn new(ask: &Ask, mode: Mode, telling: Telling) -> Self {
        let prompts = match &ask.input {
            Input::Prompts(prompts) => prompts.clone(),
            Input::Chat(_) => Vec::new(),
        };
        let now = Instant::now();
        Self {
            telling,
            stream: mode == Mode::Stream,
            has_probs: ask.request.logprobs.is_some(),
            settings: settings::describe(&ask.request, mode == Mode::Stream),
            prompts,
            prompt_texts: Vec::new(),
            model: String::new(),
            asked: now,
            begun: now,
            usage: Usage::default(),
        }
    }

    fn note_beginning(&mut self, begun: &Begun) {
        self.begun = Instant::now();
        self.model = begun.model.name().to_owned();
        // Of several prompts each is counted at its end.
        if self.prompts.len() == 1 {
            self.usage.prompt_tokens = begun.prompt_tokens;
            self.usage.cached_tokens = begun.cached_tokens;
        }
        self.prompt_texts = self.prompts.iter().map(|prompt| text_of(prompt, begun.model.tokenizer())).collect();
        self.prompts = Vec::new();
    }

    /// The last that is told of a choice; `text` and `tokens` are what has not been told before.
    fn last(&self, index: usize, choice: &Choice, text: &str, tokens: &[u32]) -> Value {
        let usage = choice.end.as_ref().map(|end| end.usage).unwrap_or_default();
        let (stop_type, word) = match choice.end.as_ref().map(|end| (end.reason, &end.stop)) {
            Some((FinishReason::Stop(StopCause::Text(_)), word)) => ("word", word.as_deref()),
            Some((FinishReason::Stop(_), _)) => ("eos", None),
            Some((FinishReason::Length, _)) => ("limit", None),
            _ => ("none", None),
        };
        let mut last = json!({
            "index": index,
            "content": text,
            "tokens": if self.telling.tokens { tokens } else { &[] },
            "id_slot": -1,
            "stop": true,
            "model": self.model,
            "tokens_predicted": usage.completion_tokens,
            "tokens_evaluated": usage.prompt_tokens,
            "generation_settings": self.settings,
            "prompt": self.prompt_texts.get(index),
            "has_new_line": choice.text.contains('\n'),
            "truncated": false,
            "stop_type": stop_type,
            "stopping_word": word.unwrap_or_default(),
            "tokens_cached": (usage.prompt_tokens + usage.completion_tokens).saturating_sub(1),
            "timings": choice.end.as_ref().map(timings::of),
        });
        if self.has_probs && !self.stream {
            last["completion_probabilities"] = probabilities(&choice.scored);
        }
        match &self.telling.fields[..] {
            [] => last,
            paths => Value::Object(paths.iter().filter_map(|path| member(&last, path)).collect()),
        }
    }
}

impl Wire for CompletionWire {
    fn framing(&self) -> Framing {
        Framing::Events
    }

    fn begin(&mut self, begun: &Begun, _: &mut Frames) {
        self.note_beginning(begun);
    }

    fn piece(&mut self, choice: usize, piece: &Piece, out: &mut Frames) {
        let texts = piece.deltas.iter().filter_map(|delta| match delta {
            Delta::Text(text) => Some(&**text),
            _ => None,
        });
        let usage = Usage { completion_tokens: piece.tokens, ..self.usage };
        out.piece(|line| {
            // Writing to a String can't fail.
            let _ = write!(line, "{{\"index\":{choice},\"content\":");
            push_json_string(line, &texts.collect::<String>());
            line.push_str(",\"tokens\":[");
            for (i, token) in piece.token_ids.iter().enumerate() {
                let _ = write!(line, "{}{token}", if i == 0 { "" } else { "," });
            }
            let (predicted, evaluated) = (usage.completion_tokens, usage.prompt_tokens);
            let _ = write!(
                line,
                "],\"stop\":false,\"id_slot\":-1,\"tokens_predicted\":{predicted},\"tokens_evaluated\":{evaluated}"
            );
            if self.has_probs && !piece.scored.is_empty() {
                let _ = write!(line, ",\"completion_probabilities\":{}", probabilities(piece.scored));
            }
            if self.telling.timings {
                let timings = timings::tell(usage, self.begun - self.asked, self.begun.elapsed());
                let _ = write!(line, ",\"timings\":{timings}");
            }
            line.push('}');
        });
    }

    fn end(&mut self, choice: usize, all: &Choice, out: &mut Frames) {
        out.json(&self.last(choice, all, "", &[]));
    }

    fn finish(&mut self, _: &Total, _: &mut Frames) {}

    fn fail(&mut self, error: &ApiError, out: &mut Frames) {
        out.json(&Family::LlamaServer.body(error));
    }

    fn whole(&mut self, begun: &Begun, choices: &[Choice], _: &Total) -> Value {
        self.note_beginning(begun);
        let last = |(index, choice): (usize, &Choice)| self.last(index, choice, &choice.text, &choice.token_ids);
        let mut answers: Vec<Value> = choices.iter().enumerate().map(last).collect();
        match answers.len() {
            1 => answers.remove(0),
            _ => answers.into(),
        }
    }
}

/// A prompt as text.
fn text_of(prompt: &Prompt, tokenizer: &Tokenizer) -> String {
    match prompt {
        Prompt::Text(text) | Prompt::Rendered(text) | Prompt::Marked(text) => text.clone(),
        Prompt::Tokens(tokens) => spell(tokens, tokenizer),
        Prompt::Parts(parts) => parts.iter().map(|part| text_of(part, tokenizer)).collect(),
    }
}

/// `[{"id", "token", "bytes", "logprob", "top_logprobs"}]`
fn probabilities(scored: &[Scored]) -> Value {
    let one = |token: &Scored| {
        // What is impossible has no number in JSON.
        let logprob = if token.logprob.is_finite() { token.logprob } else { f32::MIN };
        json!({ "id": token.id, "token": token.text(), "bytes": token.bytes, "logprob": logprob })
    };
    let all = scored.iter().map(|token| {
        let mut told = one(token);
        told["top_logprobs"] = token.top.iter().map(one).collect();
        told
    });
    all.collect()
}

/// A member of an answer by its path, under the path's last name; none if there is no such member.
fn member(answer: &Value, path: &str) -> Option<(String, Value)> {
    let value = path.split('/').try_fold(answer, |value, name| value.get(name))?;
    Some((path.rsplit('/').next()?.to_owned(), value.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_by_path() {
        let answer = json!({"a": 1, "b": {"c": {"d": 2}}});
        let of = |path: &str| member(&answer, path);
        assert_eq!(of("a"), Some(("a".into(), json!(1))));
        assert_eq!(of("b/c"), Some(("c".into(), json!({"d": 2}))));
        assert_eq!(of("b/c/d"), Some(("d".into(), json!(2))));
        assert_eq!((of("x"), of("b/x"), of("a/b"), of("")), (None, None, None, None));
    }
}
