//! A JSON object from one of the directory's files, whose errors name the file and the key.

use std::{fs, io, path::Path};

use serde_json::{Map, Value};

use super::error::DirectoryError;
use crate::engine::chat_template::TemplateSources;

#[derive(Debug, Clone, Default)]
pub(super) struct Object {
    /// For errors.
    file: &'static str,
    /// For errors: where in the file, as `rope_scaling.`.
    prefix: String,
    pub map: Map<String, Value>,
}

/// The bytes of a file, if it is there; at most `bytes_max`.
pub(super) fn read(directory: &Path, file: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, DirectoryError> {
    let path = directory.join(file);
    let found = match fs::metadata(&path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(DirectoryError::invalid(file, e)),
    };
    if !found.is_file() {
        return Err(DirectoryError::invalid(file, "not a regular file"));
    }
    if found.len() > bytes_max {
        let why = format!("{} bytes; more than {bytes_max} make no sense", found.len());
        return Err(DirectoryError::invalid(file, why));
    }
    fs::read(&path).map(Some).map_err(|e| DirectoryError::invalid(file, e))
}

impl Object {
    /// The object that a file is, if the file is there.
    pub fn read(directory: &Path, file: &'static str, bytes_max: u64) -> Result<Option<Self>, DirectoryError> {
        let Some(bytes) = read(directory, file, bytes_max)? else { return Ok(None) };
        let map = serde_json::from_slice(&bytes).map_err(|e| DirectoryError::invalid(file, e))?;
        Ok(Some(Self { file, prefix: String::new(), map }))
    }

    pub fn invalid(&self, key: &str, why: impl Into<String>) -> DirectoryError {
        DirectoryError::invalid(self.file, format!("{}{key}: {}", self.prefix, why.into()))
    }

    pub fn unsupported(&self, key: &str, value: impl std::fmt::Display) -> DirectoryError {
        DirectoryError::unsupported(self.file, format!("{}{key} = {value}", self.prefix))
    }

    /// The value of a key; null is the same as nothing.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn find<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, DirectoryError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.invalid(key, format!("must be {wanted}, is {}", shown(value))))
    }

    pub fn u32(&self, key: &str) -> Result<Option<u32>, DirectoryError> {
        self.find(key, "an integer that fits u32", |v| v.as_u64().and_then(|n| u32::try_from(n).ok()))
    }

    pub fn required_u32(&self, key: &str) -> Result<u32, DirectoryError> {
        self.u32(key)?.ok_or_else(|| self.invalid(key, "is missing"))
    }

    pub fn f64(&self, key: &str) -> Result<Option<f64>, DirectoryError> {
        self.find(key, "a finite number", |v| v.as_f64().filter(|x| x.is_finite()))
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>, DirectoryError> {
        self.find(key, "true or false", Value::as_bool)
    }

    pub fn str(&self, key: &str) -> Result<Option<&str>, DirectoryError> {
        self.find(key, "a string", Value::as_str)
    }

    pub fn object(&self, key: &str) -> Result<Option<Self>, DirectoryError> {
        let map = self.find(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Self { file: self.file, prefix: format!("{}{key}.", self.prefix), map: map.clone() }))
    }

    pub fn f64s(&self, key: &str) -> Result<Option<Vec<f64>>, DirectoryError> {
        let finite = |v: &Value| v.as_f64().filter(|x| x.is_finite());
        self.find(key, "an array of finite numbers", |v| v.as_array()?.iter().map(finite).collect())
    }

    pub fn strs(&self, key: &str) -> Result<Option<Vec<&str>>, DirectoryError> {
        self.find(key, "an array of strings", |v| v.as_array()?.iter().map(Value::as_str).collect())
    }

    /// One integer or several, as `eos_token_id` is.
    pub fn u32s(&self, key: &str) -> Result<Vec<u32>, DirectoryError> {
        let one = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let many = |v: &Value| match v {
            Value::Array(values) => values.iter().map(one).collect(),
            value => one(value).map(|id| vec![id]),
        };
        Ok(self.find(key, "an integer or an array of integers", many)?.unwrap_or_default())
    }

    /// A special token: its text, or an object that has it as `content`.
    pub fn token(&self, key: &str) -> Result<Option<&str>, DirectoryError> {
        self.find(key, "a token", |v| v.as_str().or_else(|| v.get("content")?.as_str()))
    }

    /// `chat_template`: a template, or several with names, of which one is called `default` or `tool_use`.
    pub fn chat_template(&self) -> Result<Option<TemplateSources>, DirectoryError> {
        let expected = "a template, or several with one named \"default\"";
        self.find("chat_template", expected, TemplateSources::of_json)
    }
}

/// A value in an error: short.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
