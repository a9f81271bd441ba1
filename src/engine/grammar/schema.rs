//! JSON schemas, strictly: what the matcher would not hold to in full is refused with a pointer to it. Knows keywords,
//! not how they are matched.
//!
//! Takes draft 2020-12, and what older drafts wrote otherwise (`definitions`, lists of `items`). The names of annotations,
//! and `x-` extensions, may say what they like. Any other name that it does not know is an error, for a misspelt keyword
//! would be one that is silently ignored.

pub mod keyword;
mod one_of;

use std::collections::HashSet;

use keyword::{Keyword, keyword};
use serde_json::{Map, Value};

use super::{
    GrammarError, json,
    limits::{CHOICES_MAX, DEPTH_MAX, SCHEMAS_MAX, SOURCE_BYTES_MAX},
};

/// A checked copy of `schema`: without annotations, numbers bounded, `oneOf` whose options exclude each other as `anyOf`.
pub fn check(schema: &Value) -> Result<Map<String, Value>, GrammarError> {
    measure(schema)?;
    let mut check = Check { root: schema, pointer: Vec::new(), schemas: 0, choices: 0 };
    let checked = check.schema(schema)?;
    check.loops(&checked)?;
    match checked {
        Value::Object(checked) => Ok(checked),
        Value::Bool(false) => Err(GrammarError::invalid("nothing satisfies this schema")),
        _ => Ok(Map::new()),
    }
}

/// Refuses a value that is too large or too deep to be worked on. Does not call itself, for depth is what it looks for.
pub fn measure(value: &Value) -> Result<(), GrammarError> {
    let mut bytes = 0_usize;
    let mut left = vec![(value, 0)];
    while let Some((value, depth)) = left.pop() {
        // Each schema is an object in an object of properties or a list.
        if depth > 2 * DEPTH_MAX {
            return Err(GrammarError::invalid(format!("the schema is nested deeper than {DEPTH_MAX} levels")));
        }
        bytes += match value {
            Value::String(text) => text.len() + 2,
            _ => 4,
        };
        match value {
            Value::Array(items) => left.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(entries) => {
                bytes += entries.keys().map(|key| key.len() + 3).sum::<usize>();
                left.extend(entries.values().map(|value| (value, depth + 1)));
            }
            _ => {}
        }
        if bytes > SOURCE_BYTES_MAX {
            return Err(GrammarError::invalid(format!("the schema is larger than {SOURCE_BYTES_MAX} bytes")));
        }
    }
    Ok(())
}

struct Check<'a> {
    root: &'a Value,
    /// Where it is.
    pointer: Vec<String>,
    /// Seen so far.
    schemas: usize,
    choices: usize,
}

impl<'a> Check<'a> {
    fn error(&self, message: impl Into<String>) -> GrammarError {
        let escaped = self.pointer.iter().map(|step| step.replace('~', "~0").replace('/', "~1"));
        let pointer = escaped.fold(String::new(), |pointer, step| pointer + "/" + &step);
        GrammarError::Invalid { pointer, message: message.into() }
    }

    /// Does `what` a step further in.
    fn within<T>(
        &mut self,
        step: impl Into<String>,
        what: impl FnOnce(&mut Self) -> Result<T, GrammarError>,
    ) -> Result<T, GrammarError> {
        self.pointer.push(step.into());
        let done = what(self);
        if done.is_ok() {
            self.pointer.pop();
        }
        done
    }

    fn schema(&mut self, schema: &'a Value) -> Result<Value, GrammarError> {
        self.schemas += 1;
        if self.schemas > SCHEMAS_MAX {
            return Err(self.error(format!("more than {SCHEMAS_MAX} schemas")));
        }
        let keywords = match schema {
            Value::Object(keywords) => keywords,
            Value::Bool(_) => return Ok(schema.clone()),
            _ => return Err(self.error("a schema is an object or a boolean")),
        };
        let mut checked = Map::new();
        for (name, value) in keywords {
            if let Some(value) = self.within(name, |check| check.keyword(name, value))? {
                checked.insert(name.clone(), value);
            }
        }
        if let Some(options) = checked.remove("oneOf") {
            let apart = options.as_array().is_some_and(|options| one_of::exclude_each_other(options, self.root));
            if !apart {
                let why = "oneOf whose options do not visibly exclude each other is not supported; use anyOf";
                return self.within("oneOf", |check| Err(check.error(why)));
            }
            if checked.insert("anyOf".into(), options).is_some() {
                return self.within("oneOf", |check| Err(check.error("oneOf beside anyOf is not supported")));
            }
        }
        self.together(&checked)?;
        json::bound(&mut checked);
        Ok(Value::Object(checked))
    }

    /// The checked value of a keyword; `None` for one that says nothing.
    fn keyword(&mut self, name: &str, value: &'a Value) -> Result<Option<Value>, GrammarError> {
        let Some(keyword) = keyword(name) else {
            return Err(self.error(format!("the keyword {name:?} is not supported")));
        };
        match keyword {
            Keyword::Annotation => return Ok(None),
            Keyword::Schema => return self.schema(value).map(Some),
            Keyword::SchemaOrList if value.is_object() || value.is_boolean() => return self.schema(value).map(Some),
            Keyword::Schemas | Keyword::SchemaOrList => {
                let Value::Array(options) = value else { return Err(self.error("must be a list of schemas")) };
                if options.is_empty() {
                    return Err(self.error("must not be empty"));
                }
                let checked = options.iter().enumerate();
                let checked = checked.map(|(i, option)| self.within(i.to_string(), |check| check.schema(option)));
                return checked.collect::<Result<_, _>>().map(|checked| Some(Value::Array(checked)));
            }
            Keyword::SchemaMap => {
                let Value::Object(entries) = value else { return Err(self.error("must be an object of schemas")) };
                let checked = entries.iter();
                let checked =
                    checked.map(|(name, schema)| Ok((name.clone(), self.within(name, |check| check.schema(schema))?)));
                return checked.collect::<Result<_, _>>().map(|checked| Some(Value::Object(checked)));
            }
            Keyword::Patterns => {
                let Value::Object(entries) = value else { return Err(self.error("must be an object of schemas")) };
                let mut checked = Map::new();
                for (pattern, schema) in entries {
                    let schema = self.within(pattern, |check| {
                        keyword::pattern(pattern).map_err(|why| check.error(why))?;
                        check.schema(schema)
                    })?;
                    checked.insert(pattern.clone(), schema);
                }
                return Ok(Some(Value::Object(checked)));
            }
            Keyword::Reference => {
                let target = value.as_str().and_then(|reference| resolve(self.root, reference));
                if !target.is_some_and(|target| target.is_object() || target.is_boolean()) {
                    return Err(self.error("must name a schema in this document, as #/$defs/name does"));
                }
            }
            Keyword::Values => {
                let Value::Array(values) = value else { return Err(self.error("must be a list")) };
                self.choices += values.len();
                if values.is_empty() || self.choices > CHOICES_MAX {
                    return Err(self.error(format!("between 1 and {CHOICES_MAX} values in all are supported")));
                }
                for (i, value) in values.iter().enumerate() {
                    self.within(i.to_string(), |check| check.constant(value))?;
                }
            }
            Keyword::Value => self.constant(value)?,
            Keyword::Plain(valid) => valid(value).map_err(|why| self.error(why))?,
            // Where it asks for nothing.
            Keyword::Unless(harmless) if *value == harmless => return Ok(None),
            Keyword::Unless(harmless) => {
                return Err(self.error(format!("the keyword {name:?} is only supported as {harmless}")));
            }
        }
        Ok(Some(value.clone()))
    }

    /// A value that an answer may have: its numbers are kept to the digit.
    fn constant(&mut self, value: &'a Value) -> Result<(), GrammarError> {
        match value {
            Value::Number(number) => {
                let exact = number.as_f64().is_some_and(|float| float.abs() < (1_u64 << 53) as f64);
                if exact { Ok(()) } else { Err(self.error("numbers from 2^53 on are not supported")) }
            }
            Value::Array(items) => {
                let mut items = items.iter().enumerate();
                items.try_for_each(|(i, item)| self.within(i.to_string(), |check| check.constant(item)))
            }
            Value::Object(entries) => {
                let mut entries = entries.iter();
                entries.try_for_each(|(name, value)| self.within(name, |check| check.constant(value)))
            }
            Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        }
    }

    /// What keywords of one schema say together.
    fn together(&mut self, schema: &Map<String, Value>) -> Result<(), GrammarError> {
        let number = |key: &str| schema.get(key).and_then(Value::as_f64);
        let pairs = [
            ("minimum", "maximum"),
            ("minLength", "maxLength"),
            ("minItems", "maxItems"),
            ("minProperties", "maxProperties"),
        ];
        for (least, most) in pairs {
            if let (Some(low), Some(high)) = (number(least), number(most))
                && low > high
            {
                return self.within(least, |check| Err(check.error(format!("is more than {most}"))));
            }
        }
        // A key may be written twice, and then counts once: so many others can't be asked for.
        let required = schema.get("required").and_then(Value::as_array).map_or(0, Vec::len);
        if number("minProperties").is_some_and(|least| least > required as f64 + 1.0) {
            let why = "more than one property beyond those that are required is not supported";
            return self.within("minProperties", |check| Err(check.error(why)));
        }
        Ok(())
    }

    /// A schema that is but a reference to one that is but a reference, and so on round, describes nothing.
    fn loops(&mut self, checked: &Value) -> Result<(), GrammarError> {
        let mut left = vec![checked];
        let mut done = HashSet::new();
        while let Some(value) = left.pop() {
            match value {
                Value::Array(items) => left.extend(items),
                Value::Object(entries) => left.extend(entries.values()),
                Value::String(reference) if reference.starts_with('#') && done.insert(reference.as_str()) => {
                    let mut seen = HashSet::new();
                    let mut next = Some(reference.as_str());
                    while let Some(reference) = next {
                        if !seen.insert(reference) {
                            let message = format!("the reference {reference} leads to itself");
                            return Err(GrammarError::invalid(message));
                        }
                        let target = resolve(checked, reference);
                        next = target.and_then(|target| target.get("$ref")).and_then(Value::as_str);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The schema that `reference` names: a fragment whose steps are spelled as they are.
fn resolve<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    if reference == "#" || reference == "#/" {
        return Some(root);
    }
    reference.strip_prefix("#/")?.split('/').try_fold(root, |value, step| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => value.get(step),
    })
}
