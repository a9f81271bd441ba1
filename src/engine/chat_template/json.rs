//! `tojson`: Python's `json.dumps(value, ensure_ascii=False)` with its spaces and options; minijinja's own escapes HTML.

use minijinja::{
    Error, ErrorKind, Value,
    value::{Kwargs, Rest, ValueKind},
};

use super::operators;

/// Levels of lists and objects within each other.
const DEPTH_MAX: usize = 200;

/// The filter, with the options of `transformers`' own: `ensure_ascii`, `indent`, `separators`, `sort_keys`.
pub fn tojson(value: Value, rest: Rest<Value>, options: Kwargs) -> Result<String, Error> {
    let positional = |index: usize| rest.get(index).cloned();
    let or = |index: usize, name| match positional(index) {
        Some(value) => Ok(Some(value)),
        None => options.get::<Option<Value>>(name),
    };
    let ascii = or(0, "ensure_ascii")?;
    // As jinja2's own filter has it, a lone number is the indentation.
    let (ascii, indent) = match ascii {
        Some(value) if value.is_number() && value.kind() != ValueKind::Bool => (None, Some(value)),
        ascii => (ascii, or(1, "indent")?),
    };
    let indent = match indent.filter(|indent| !indent.is_none()) {
        Some(indent) if indent.kind() == ValueKind::String => Some(indent.to_string()),
        Some(indent) => Some(" ".repeat(usize::try_from(indent)?.min(64))),
        None => None,
    };
    let separators = or(2, "separators")?.filter(|pair| !pair.is_none());
    let sort_keys = or(3, "sort_keys")?.is_some_and(|sort| sort.is_true());
    options.assert_all_used()?;
    let (item, key) = match separators {
        Some(pair) => (pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string()),
        None => (if indent.is_some() { "," } else { ", " }.into(), ": ".into()),
    };
    let ascii = ascii.is_some_and(|ascii| ascii.is_true());
    let mut writer = Writer { text: String::new(), indent, item, key, sort_keys, ascii };
    writer.value(&value, 0)?;
    Ok(writer.text)
}

struct Writer {
    text: String,
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
    ascii: bool,
}

impl Writer {
    fn value(&mut self, value: &Value, level: usize) -> Result<(), Error> {
        if level > DEPTH_MAX {
            return Err(invalid("this value is nested too deeply for JSON".into()));
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&operators::text(value)?),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.all('[', &items, ']', level, |writer, item| writer.value(item, level + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.all('{', &keys, '}', level, |writer, key| {
                    writer.string(&match key.kind() {
                        ValueKind::None => "null".into(),
                        ValueKind::Bool => key.to_string().to_lowercase(),
                        _ => key.to_string(),
                    });
                    let separator = writer.key.clone();
                    writer.text.push_str(&separator);
                    writer.value(&value.get_item(key)?, level + 1)
                })?;
            }
            kind => return Err(invalid(format!("no JSON for a value that is {kind}"))),
        }
        Ok(())
    }

    fn all(
        &mut self,
        open: char,
        items: &[Value],
        close: char,
        level: usize,
        write: impl Fn(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.text.push(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                let separator = self.item.clone();
                self.text.push_str(&separator);
            }
            self.line(level + 1);
            write(self, item)?;
        }
        if !items.is_empty() {
            self.line(level);
        }
        self.text.push(close);
        Ok(())
    }

    fn line(&mut self, level: usize) {
        if let Some(indent) = &self.indent {
            self.text.push('\n');
            self.text.push_str(&indent.repeat(level));
        }
    }

    fn string(&mut self, text: &str) {
        let quoted = serde_json::Value::from(text).to_string();
        if !self.ascii {
            return self.text.push_str(&quoted);
        }
        for c in quoted.chars() {
            match c.is_ascii() && c != '\u{7f}' {
                true => self.text.push(c),
                false => {
                    c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| self.text.push_str(&format!("\\u{unit:04x}")))
                }
            }
        }
    }
}

fn invalid(why: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}
