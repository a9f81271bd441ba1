//! One compiled template: a Jinja program, run as Python's Jinja2 runs it in `transformers`.
//!
//! It can load nothing, and runs on a budget of steps and bytes.

use std::io;

use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    syntax::SyntaxConfig,
    value::{Rest, Serde, ValueKind},
};
use minijinja_contrib::globals::{cycler, joiner};
use serde_json::{Map, Value as Json};

use super::{TemplateError, date, filters, methods, operators, rewrite};

/// Steps a template may take; a long conversation with tools takes some ten thousand.
const STEPS_MAX: u64 = 20_000_000;
/// Bytes that it may print, what it prints into variables and macros' results included.
const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// The name of the only template in its environment.
const NAME: &str = "chat";

/// Marks the errors that templates raise themselves.
const REFUSED: &str = "raised: ";

/// A compiled template. `Send + Sync`.
#[derive(Debug)]
pub struct Program {
    environment: Environment<'static>,
}

impl Program {
    pub fn compile(source: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| TemplateError::Syntax(describe(&e)))?);
        environment.set_fuel(Some(STEPS_MAX));
        environment.set_unknown_method_callback(methods::call);
        environment.set_formatter(print);
        operators::define(&mut environment);
        filters::define(&mut environment);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| date::strftime(format, date::unix_now()));
        environment.add_function("cycler", |items: Rest<Value>| cycler(items.0));
        environment.add_function("joiner", joiner);
        environment
            .add_template_owned(NAME, rewrite::rewrite(source))
            .map_err(|e| TemplateError::Syntax(describe(&e)))?;
        Ok(Self { environment })
    }

    /// What the template prints with these variables.
    pub fn run(&self, variables: Map<String, Json>) -> Result<String, TemplateError> {
        let failed = |e: &Error| match e.detail().and_then(|why| why.split_once(REFUSED)) {
            Some(("", why)) if e.kind() == ErrorKind::InvalidOperation => TemplateError::Refused(why.into()),
            _ => TemplateError::Render(describe(e)),
        };
        let template = self.environment.get_template(NAME).map_err(|e| failed(&e))?;
        let mut output = Bounded(Vec::new());
        template.render_captured_to(Value::from(Serde(variables)), &mut output).map_err(|e| failed(&e))?;
        String::from_utf8(output.0).map_err(|_| TemplateError::Render("its output is no text".into()))
    }
}

/// What is printed, up to [`OUTPUT_BYTES_MAX`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it prints too much"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes printed by expressions so far.
struct Printed(usize);

/// Prints a value, into the output or what is being captured.
fn print(out: &mut minijinja::Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let length = value.as_str().map_or(64, str::len);
    let printed = state.get_or_insert_extension(Printed(0));
    printed.0 += length;
    if printed.0 > OUTPUT_BYTES_MAX {
        return Err(operators::too_long());
    }
    match value.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::Number => out.write_str(&operators::text(value)?).map_err(Error::from),
        _ => out.write_fmt(format_args!("{value}")).map_err(Error::from),
    }
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{REFUSED}{message}")))
}

/// One line with the place in the template.
fn describe(error: &Error) -> String {
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    format!("{}{line}", error.detail().unwrap_or(&error.kind().to_string()))
}
