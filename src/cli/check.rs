//! `sconce check`: says what would be served, or what is wrong with it.

use std::io::{self, Write};

use crate::config::{Config, Load, ModelConfig, ModelSource, show_bytes};

use super::{
    Failure,
    args::ServeArgs,
    configure,
    load::{self, Summary},
};

pub fn run(args: ServeArgs) -> Result<(), Failure> {
    let (config, _) = configure(args.common, args.server.into_flags(args.model), "warn")?;
    let facts = config.models.iter().map(load::inspect).collect::<Result<Vec<_>, _>>()?;
    print(&config, &facts).map_err(|error| Failure::Run(format!("can't write: {error}")))
}

fn print(config: &Config, facts: &[Summary]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Config { server, models } = config;
    writeln!(
        out,
        "server   {}, body at most {} bytes, queue at most {}",
        server.address, server.body_bytes_max, server.queue_max
    )?;
    if let Some(bytes) = server.models_bytes_max {
        writeln!(out, "memory   {} for all models at most", show_bytes(bytes))?;
    }
    for (model, facts) in models.iter().zip(facts) {
        match &model.source {
            ModelSource::Demo => writeln!(out, "model    {} (embedded)", model.name)?,
            ModelSource::File(path) => writeln!(out, "model    {} from {}", model.name, path.display())?,
        }
        if models.len() > 1 || !model.aliases.is_empty() {
            writeln!(out, "  {:<12} {}", "asked for", asked_for(model))?;
        }
        if models.len() > 1 || model.idle_max.is_some() {
            writeln!(out, "  {:<12} {}", "loaded", loaded(model))?;
        }
        for (what, words) in facts {
            writeln!(out, "  {what:<12} {words}")?;
        }
    }
    writeln!(out, "all good")
}

/// The names that lead to a model.
fn asked_for(model: &ModelConfig) -> String {
    let names: Vec<&str> = [&model.name].into_iter().chain(&model.aliases).map(String::as_str).collect();
    let default = if model.default { ", or by no name" } else { "" };
    format!("as {}{default}", names.join(", "))
}

/// When a model comes and goes.
pub fn loaded(model: &ModelConfig) -> String {
    let when = match model.load {
        Load::Start => "at the start",
        Load::FirstUse => "on first use",
    };
    let idle = model.idle_max.map_or(String::new(), |idle| format!(", until {} s without a request", idle.as_secs()));
    format!("{when}{idle}")
}
