//! Reads a JSON object field by field, with a range for each, and an error that names the field.
//!
//! `null` means "not given", as OpenAI clients send it. What is left over when the reader is done is unknown, and
//! refused: a misspelt field never changes an answer silently.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::ApiError;

/// The fields of one object that have not been read yet.
pub struct Fields {
    left: Map<String, Value>,
    /// Where the object stands in the body, as a prefix of names: `""` or `"messages[2]."`.
    at: String,
    known: Vec<&'static str>,
}

impl Fields {
    /// Parses a body. Depth is bounded by the parser (128), size by the connection.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        if body.is_empty() {
            return Err(ApiError::NotJson("it is empty".to_owned()));
        }
        let value: Value = serde_json::from_slice(body).map_err(|error| ApiError::NotJson(error.to_string()))?;
        match value {
            Value::Object(left) => Ok(Self { left, at: String::new(), known: Vec::new() }),
            other => Err(ApiError::NotJson(format!("it is {}", kind(&other)))),
        }
    }

    /// An object inside the body.
    pub fn inside(value: Value, at: &str) -> Result<Self, ApiError> {
        match value {
            Value::Object(left) => Ok(Self { left, at: format!("{at}."), known: Vec::new() }),
            other => Err(ApiError::field(at, format!("expected an object, not {}", kind(&other)))),
        }
    }

    /// The value as it is.
    pub fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.left.swap_remove(name).filter(|value| !value.is_null())
    }

    /// The fields of an object inside this one.
    pub fn object(&mut self, name: &'static str) -> Result<Option<Self>, ApiError> {
        let at = format!("{}{name}", self.at);
        self.take(name).map(|value| Self::inside(value, &at)).transpose()
    }

    pub fn flag(&mut self, name: &'static str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => self.refuse(name, format!("expected true or false, not {}", kind(&other))),
        }
    }

    /// A whole number; `8.0` is one too.
    pub fn integer(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let Value::Number(number) = &value else {
            return self.refuse(name, format!("expected a whole number, not {}", kind(&value)));
        };
        let whole = number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
        });
        match whole {
            Some(whole) if range.contains(&whole) => Ok(Some(whole)),
            _ => self.refuse(
                name,
                format!("must be a whole number from {} to {}, not {number}", range.start(), range.end()),
            ),
        }
    }

    /// A seed: any whole number that 64 bits hold, negative ones by their two's complement.
    pub fn seed(&mut self, name: &'static str) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned)) {
            Some(seed) => Ok(Some(seed)),
            None => self.refuse(name, "expected a whole number of at most 64 bits".to_owned()),
        }
    }

    pub fn number(&mut self, name: &'static str, range: RangeInclusive<f64>) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if range.contains(&number) => Ok(Some(number as f32)),
            // As the client wrote it: 1e308 has a long decimal form.
            Some(_) => self.refuse(name, format!("must be from {} to {}, not {value}", range.start(), range.end())),
            None => self.refuse(name, format!("expected a number, not {}", kind(&value))),
        }
    }

    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => self.refuse(name, format!("expected a string, not {}", kind(&other))),
        }
    }

    /// One string, or a list of at most `count_max`; each of 1 to `bytes_max` bytes.
    pub fn texts(&mut self, name: &'static str, count_max: usize, bytes_max: usize) -> Result<Vec<String>, ApiError> {
        let items = match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(one) => vec![one],
        };
        if items.len() > count_max {
            return self.refuse(name, format!("{} entries, {count_max} are allowed", items.len()));
        }
        let mut texts = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) if (1..=bytes_max).contains(&text.len()) => texts.push(text),
                Value::String(text) => {
                    let message = format!("{} bytes, 1 to {bytes_max} are allowed", text.len());
                    return self.refuse(&format!("{name}[{i}]"), message);
                }
                other => {
                    return self.refuse(&format!("{name}[{i}]"), format!("expected a string, not {}", kind(&other)));
                }
            }
        }
        Ok(texts)
    }

    /// A list of token ids.
    pub fn tokens(&mut self, name: &'static str, count_max: usize) -> Result<Option<Vec<u32>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => token_list(value, &format!("{}{name}", self.at), count_max).map(Some),
        }
    }

    /// The error for a field that had to be there.
    pub fn missing<T>(&self, name: &str, what: &str) -> Result<T, ApiError> {
        self.refuse(name, format!("missing: {what}"))
    }

    pub fn refuse<T>(&self, name: &str, message: String) -> Result<T, ApiError> {
        Err(ApiError::Field { param: format!("{}{name}", self.at), message })
    }

    /// Refuses what nobody has asked for.
    pub fn finish(self) -> Result<(), ApiError> {
        let Some(name) = self.left.keys().next() else { return Ok(()) };
        let shown: String = name.chars().take(64).collect();
        let message = match self.known.iter().find(|known| alike(known, name)) {
            Some(known) => format!("unknown field; did you mean {known}?"),
            None => format!("unknown field; known are {}", self.known.join(", ")),
        };
        self.refuse(&shown, message)
    }
}

/// A JSON list of token ids, which stands at `at` in the body.
pub fn token_list(value: Value, at: &str, count_max: usize) -> Result<Vec<u32>, ApiError> {
    let Value::Array(items) = value else {
        return Err(ApiError::field(at, format!("expected a list of token ids, not {}", kind(&value))));
    };
    if items.len() > count_max {
        return Err(ApiError::field(at, format!("{} tokens, {count_max} are allowed", items.len())));
    }
    let mut tokens = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        match item.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(id) => tokens.push(id),
            None => return Err(ApiError::field(format!("{at}[{i}]"), format!("{} is not a token id", brief(item)))),
        }
    }
    Ok(tokens)
}

/// What a value is, with its article.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A number as it is, anything else by its kind: a client's text is not echoed at length.
fn brief(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        other => kind(other).to_owned(),
    }
}

/// One edit apart (insert, delete, replace), ignoring case and underscores: enough for a misspelt name.
fn alike(known: &str, given: &str) -> bool {
    let plain = |text: &str| -> Vec<char> { text.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect() };
    if given.len() > 64 {
        return false;
    }
    let (a, b) = (plain(known), plain(given));
    let same_head = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[same_head..], &b[same_head..]);
    let same_tail = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    a.len() - same_tail <= 1 && b.len() - same_tail <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Fields {
        Fields::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn bodies_that_are_not_objects() {
        for body in
            ["", " ", "{", "[]", "1", "null", "\"x\"", "{\"a\":1}x", "{\"a\":NaN}", "{\"a\":1e999}", "\u{feff}{}"]
        {
            let Err(ApiError::NotJson(_)) = Fields::parse(body.as_bytes()) else { panic!("{body:?} was taken") };
        }
        assert!(Fields::parse(b"{\"a\":\"\xff\"}").is_err(), "not UTF-8");
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Fields::parse(deep.as_bytes()).is_err(), "too deep");
    }

    #[test]
    fn integers_of_every_shape() {
        #[track_caller]
        fn check(json: &str, expected: Option<Option<i64>>) {
            let got = fields(&format!("{{\"n\":{json}}}")).integer("n", 0..=100);
            match expected {
                Some(value) => assert_eq!(got, Ok(value), "{json}"),
                None => assert_eq!(got.unwrap_err().param(), Some("n"), "{json}"),
            }
        }
        check("0", Some(Some(0)));
        check("100", Some(Some(100)));
        check("7.0", Some(Some(7)));
        check("null", Some(None));
        for bad in
            ["-1", "101", "1.5", "1e308", "-9223372036854775808", "9223372036854775808", "\"1\"", "[]", "{}", "true"]
        {
            check(bad, None);
        }
    }

    #[test]
    fn numbers_of_every_shape() {
        for (json, good) in [("0", true), ("1.5", true), ("2", true), ("2.1", false), ("-0.1", false), ("1e308", false)]
        {
            assert_eq!(fields(&format!("{{\"n\":{json}}}")).number("n", 0.0..=2.0).is_ok(), good, "{json}");
        }
        assert!(fields("{\"n\":\"1\"}").number("n", 0.0..=2.0).is_err());
    }

    #[test]
    fn seeds() {
        for (json, seed) in [("0", 0), ("18446744073709551615", u64::MAX), ("-1", u64::MAX)] {
            assert_eq!(fields(&format!("{{\"s\":{json}}}")).seed("s"), Ok(Some(seed)));
        }
        for json in ["1.5", "18446744073709551616", "\"1\"", "-9223372036854775809"] {
            assert!(fields(&format!("{{\"s\":{json}}}")).seed("s").is_err(), "{json}");
        }
    }

    #[test]
    fn lists() {
        assert_eq!(fields("{\"stop\":\"a\"}").texts("stop", 2, 4), Ok(vec!["a".to_owned()]));
        assert_eq!(fields("{}").texts("stop", 2, 4), Ok(vec![]));
        for (json, param) in
            [("[\"a\",1]", "stop[1]"), ("[\"\"]", "stop[0]"), ("[\"abcde\"]", "stop[0]"), ("[1,2,3]", "stop")]
        {
            let error = fields(&format!("{{\"stop\":{json}}}")).texts("stop", 2, 4).unwrap_err();
            assert_eq!(error.param(), Some(param), "{json}");
        }
        assert_eq!(fields("{\"t\":[1,4294967295]}").tokens("t", 9), Ok(Some(vec![1, u32::MAX])));
        for (json, param) in [("[-1]", "t[0]"), ("[1,4294967296]", "t[1]"), ("[1.5]", "t[0]"), ("\"a\"", "t")] {
            let error = fields(&format!("{{\"t\":{json}}}")).tokens("t", 9).unwrap_err();
            assert_eq!(error.param(), Some(param), "{json}");
        }
    }

    #[test]
    fn unknown_fields_are_named() {
        let mut read = fields("{\"a\":1,\"max_token\":3}");
        read.integer("a", 0..=9).unwrap();
        read.integer("max_tokens", 0..=9).unwrap();
        let error = read.finish().unwrap_err();
        assert_eq!(error.param(), Some("max_token"));
        assert_eq!(error.to_string(), "max_token: unknown field; did you mean max_tokens?");
        let mut inner = Fields::inside(serde_json::json!({"x": 1}), "messages[0]").unwrap();
        inner.text("role").unwrap();
        assert_eq!(inner.finish().unwrap_err().to_string(), "messages[0].x: unknown field; known are role");
    }
}
