//! Chat templates: messages to the prompt text a model was trained on.
//!
//! A template is a Jinja program that comes with the model (`tokenizer.chat_template`) and was written for Python's
//! Jinja2 as `transformers` sets it up; this module makes minijinja agree with that. Templates come from model files
//! only, never from clients, can load nothing, and run on a budget of steps.

use std::{fmt, time::SystemTime};

use minijinja::{
    Environment, Error, ErrorKind, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, Rest, Serde},
};
use serde_json::{Map, Value as Json};

use super::tokenizer::Tokenizer;

/// Steps a template may take; a long conversation with tools takes some ten thousand.
const STEPS_MAX: u64 = 20_000_000;
/// The name of the only template in its environment.
const NAME: &str = "chat";

/// Why a prompt could not be made.
#[derive(Debug)]
pub enum TemplateError {
    /// The template does not compile.
    Syntax(String),
    /// The template refused these messages, in its own words (`raise_exception`).
    Refused(String),
    /// The template failed on these messages.
    Render(String),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(why) => write!(f, "the chat template is broken: {why}"),
            Self::Refused(why) => write!(f, "the chat template refuses these messages: {why}"),
            Self::Render(why) => write!(f, "the chat template failed: {why}"),
        }
    }
}

impl std::error::Error for TemplateError {}

/// A compiled chat template. `Send + Sync`.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles `source` for a model whose special tokens `tokenizer` spells.
    pub fn for_tokenizer(source: &str, tokenizer: &Tokenizer) -> Result<Self, TemplateError> {
        let spelt = |id: Option<u32>| id.map(|id| tokenizer.token_text(id)).unwrap_or_default();
        Self::new(source, &spelt(tokenizer.bos()), &spelt(tokenizer.eos()))
    }

    /// Compiles `source`; `bos` and `eos` are how the template spells these tokens.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| TemplateError::Syntax(describe(&e)))?);
        environment.set_fuel(Some(STEPS_MAX));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| strftime(format, unix_now()));
        environment
            .add_template_owned(NAME, without_generation_marks(source))
            .map_err(|e| TemplateError::Syntax(describe(&e)))?;
        Ok(Self { environment, bos: bos.into(), eos: eos.into() })
    }

    /// The prompt for `messages`, a JSON array of `{"role", "content", …}` as clients send it; with the start of the
    /// reply if `add_generation_prompt`. `extra` are further variables, such as `tools` and `enable_thinking`.
    pub fn render(
        &self,
        messages: &Json,
        add_generation_prompt: bool,
        extra: &Map<String, Json>,
    ) -> Result<String, TemplateError> {
        let mut context = extra.clone();
        context.insert("messages".into(), messages.clone());
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        context.insert("bos_token".into(), self.bos.clone().into());
        context.insert("eos_token".into(), self.eos.clone().into());
        let template = self.environment.get_template(NAME).map_err(|e| TemplateError::Render(describe(&e)))?;
        template.render(Value::from(Serde(context))).map_err(|e| match e.kind() {
            ErrorKind::InvalidOperation if e.detail().is_some_and(|why| why.starts_with(REFUSED)) => {
                TemplateError::Refused(e.detail().unwrap_or_default()[REFUSED.len()..].into())
            }
            _ => TemplateError::Render(describe(&e)),
        })
    }
}

/// Marks the errors that templates raise themselves.
const REFUSED: &str = "raised: ";

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{REFUSED}{message}")))
}

/// One line with the place in the template.
fn describe(error: &Error) -> String {
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    format!("{}{line}", error.detail().unwrap_or(&error.kind().to_string()))
}

/// `{% generation %}` marks what to train on; it prints nothing.
fn without_generation_marks(source: &str) -> String {
    let mut kept = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let end = start + length + 2;
        let tag = rest[start + 2..end - 2].trim_matches(['-', '+']).trim();
        if matches!(tag, "generation" | "endgeneration") {
            // A comment, so that whitespace around it is trimmed as it is around a tag.
            kept.push_str(&rest[..start]);
            kept.push_str(&rest[start..end].replacen("{%", "{#", 1).replacen("%}", "#}", 1));
        } else {
            kept.push_str(&rest[..end]);
        }
        rest = &rest[end..];
    }
    kept + rest
}

/// Python's `json.dumps(value, ensure_ascii=False)` with its spaces and `indent`; minijinja's own escapes HTML.
fn tojson(value: Value, rest: Rest<Value>, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = match rest.first() {
        Some(indent) => Some(usize::try_from(indent.clone())?),
        None => options.get("indent")?,
    };
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    options.get::<Option<Value>>("sort_keys")?;
    options.get::<Option<Value>>("separators")?;
    options.assert_all_used()?;
    let json = serde_json::to_value(&value)
        .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("no JSON for this value: {e}")))?;
    let mut text = String::new();
    write_json(&json, indent, 0, &mut text);
    if ascii == Some(true) {
        text = escape_non_ascii(&text);
    }
    Ok(Value::from_safe_string(text))
}

/// Appends `json` as Python writes it: `{"a": 1, "b": [2]}`, or with `indent` spaces per level on lines of its own.
fn write_json(json: &Json, indent: Option<usize>, level: usize, out: &mut String) {
    let line = |out: &mut String, level: usize| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * level));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match json {
        Json::Array(items) if !items.is_empty() => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { comma });
                line(out, level + 1);
                write_json(item, indent, level + 1, out);
            }
            line(out, level);
            out.push(']');
        }
        Json::Object(members) if !members.is_empty() => {
            out.push('{');
            for (index, (key, member)) in members.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { comma });
                line(out, level + 1);
                out.push_str(&Json::from(key.as_str()).to_string());
                out.push_str(": ");
                write_json(member, indent, level + 1, out);
            }
            line(out, level);
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn escape_non_ascii(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            escaped.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}")));
        }
    }
    escaped
}

/// Seconds since 1970, UTC.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The part of `strftime` that templates use to print a date, in UTC.
fn strftime(format: &str, unix_seconds: u64) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let month_name = MONTHS[month as usize - 1];
    let weekday = DAYS[(days % 7) as usize];
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);

    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => text.push_str(&format!("{year:04}")),
            Some('y') => text.push_str(&format!("{:02}", year % 100)),
            Some('m') => text.push_str(&format!("{month:02}")),
            Some('d') => text.push_str(&format!("{day:02}")),
            Some('e') => text.push_str(&format!("{day:2}")),
            Some('B') => text.push_str(month_name),
            Some('b') => text.push_str(&month_name[..3]),
            Some('A') => text.push_str(weekday),
            Some('a') => text.push_str(&weekday[..3]),
            Some('H') => text.push_str(&format!("{hour:02}")),
            Some('M') => text.push_str(&format!("{minute:02}")),
            Some('S') => text.push_str(&format!("{second:02}")),
            Some('%') => text.push('%'),
            Some(other) => text.extend(['%', other]),
            None => text.push('%'),
        }
    }
    text
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153; // March is 0
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
        let extra = json!({"value": {"b": "<é&'\">", "a": [1, 2.5, null, true, {}, []]}});
        assert_eq!(template.render(&json!([]), true, extra.as_object().unwrap()).unwrap(), expected, "{source}");
    }

    #[test]
    fn json_is_pythons() {
        check("{{ value | tojson }}", r#"{"b": "<é&'\">", "a": [1, 2.5, null, true, {}, []]}"#);
        check("{{ value.b | tojson(ensure_ascii=True) }}", r#""<\u00e9&'\">""#);
        check("{{ value.a[:2] | tojson(indent=2) }}", "[\n  1,\n  2.5\n]");
        check("{{ value.a[:2] | tojson(2) }}", "[\n  1,\n  2.5\n]");
    }

    #[test]
    fn blocks_are_trimmed_and_generation_marks_go() {
        check("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc");
        check("a {%- generation -%} b {%- endgeneration %} c", "ab c");
        check("a\n{% generation %}\nb\n{% endgeneration %}\nc", "a\nb\nc");
    }

    #[test]
    fn a_template_cannot_run_for_ever() {
        let nested = "{% for a in range(99999) %}".repeat(4) + &"{% endfor %}".repeat(4);
        let template = ChatTemplate::new(&nested, "", "").unwrap();
        assert!(matches!(template.render(&json!([]), true, &Map::new()), Err(TemplateError::Render(_))));
    }

    #[test]
    fn errors_say_who_and_where() {
        let broken = ChatTemplate::new("line\n{% if %}", "", "").unwrap_err();
        assert!(broken.to_string().contains("line 2"), "{broken}");
        let template = ChatTemplate::new("{{ raise_exception('no system role') }}", "", "").unwrap();
        let refused = template.render(&json!([]), true, &Map::new()).unwrap_err();
        assert_eq!(refused.to_string(), "the chat template refuses these messages: no system role");
        assert!(ChatTemplate::new("{% include 'x' %}", "", "").unwrap().render(&json!([]), true, &Map::new()).is_err());
    }

    #[test]
    fn dates() {
        assert_eq!(
            strftime("%d %b %Y, %A %e %B %H:%M:%S %y %%", 1_721_995_445),
            "26 Jul 2024, Friday 26 July 12:04:05 24 %"
        );
        assert_eq!(strftime("%Y-%m-%d %a", 0), "1970-01-01 Thu");
        assert_eq!(strftime("%Y-%m-%d %a", 951_782_400), "2000-02-29 Tue");
    }
}
