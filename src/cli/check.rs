//! `sconce check`: says what would be served, or what is wrong with it.

use std::io::{self, Write};

use crate::config::{Config, ModelSource};

use super::{Failure, args::ServeArgs, configure, load};

pub fn run(args: ServeArgs) -> Result<(), Failure> {
    let (config, _) = configure(args.common, args.server.into_flags(args.model), "warn")?;
    let facts = load::inspect(&config.model)?;
    print(&config, &facts).map_err(|error| Failure::Run(format!("can't write: {error}")))
}

fn print(config: &Config, facts: &[(&str, String)]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Config { server, model } = config;
    writeln!(
        out,
        "server   {}, body at most {} bytes, queue at most {}",
        server.address, server.body_bytes_max, server.queue_max
    )?;
    match &model.source {
        ModelSource::Demo => writeln!(out, "model    {} (embedded)", model.name)?,
        ModelSource::File(path) => writeln!(out, "model    {} from {}", model.name, path.display())?,
    }
    for (what, words) in facts {
        writeln!(out, "  {what:<12} {words}")?;
    }
    writeln!(out, "all good")
}
