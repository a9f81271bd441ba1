//! `sconce bench`: how fast the model is on this machine, beside what the machine does at most.

mod machine;
mod measure;
mod report;
mod score;
mod table;

use std::{
    fs,
    io::{self, BufReader, Write},
    path::Path,
};

use crate::{
    config::{ModelConfig, available_bytes, show_bytes},
    engine::{kv_cache::KvCache, models::ForwardError},
};

use super::{
    Failure,
    args::BenchArgs,
    configure,
    load::{self, InMemory},
    progress::Progress,
};
use machine::Machine;
use measure::{Bench, Case};
use report::{ModelFigures, Report};

/// Memory that is read for its ceiling: many times what caches hold.
const READ_BYTES: u64 = 512 << 20;

pub fn run(args: BenchArgs) -> Result<(), Failure> {
    let old = args.compare.as_deref().map(read_report).transpose()?;
    let cases = cases(&args);
    let (config, _) = configure(args.common, args.model.into_flags(), "warn")?;
    let config = config.default_model();
    let progress = Progress::new();
    let what = format!("loading {}", config.name);
    let opened = load::open(config)?;
    let loaded = load::read(config, opened, false, &|share| progress.bar(&what, share))?;
    let page = match &args.score {
        Some(base) => score_page(config, loaded, base, &progress)?,
        None => {
            let report = measure(config, loaded, &cases, args.repeat, &progress)?;
            match args.json {
                true => json(&report)?,
                false => table::render(&report, old.as_ref()),
            }
        }
    };
    drop(progress);
    writeln!(io::stdout(), "{}", page.trim_end()).map_err(|error| Failure::Run(format!("can't write: {error}")))
}

/// What is asked for: all kinds, or those that are named.
fn cases(args: &BenchArgs) -> Vec<Case> {
    let all = args.prefill.is_empty() && args.decode.is_empty();
    let list = |given: &[usize], default: &[usize]| if all { default.to_vec() } else { given.to_vec() };
    let prefill = list(&args.prefill, &[32, 128, 512, 2048]);
    let decode = list(&args.decode, &[1, 2, 4, 8, 16, 32]);
    let prefill = prefill.into_iter().map(|tokens| Case::Prefill { tokens });
    let at = |depth: usize| decode.iter().map(move |&width| Case::Decode { width, depth });
    prefill.chain(args.depth.iter().flat_map(|&depth| at(depth))).collect()
}

/// Times the cases that the model's context and the memory have room for.
fn measure(
    config: &ModelConfig,
    loaded: InMemory,
    cases: &[Case],
    repeat: usize,
    progress: &Progress,
) -> Result<Report, Failure> {
    let InMemory { mut model, info, threads, .. } = loaded;
    let resident = resident_bytes();
    let available = available_bytes();
    progress.line("measuring what the machine does at most");
    let read = READ_BYTES.min(available.unwrap_or(READ_BYTES) / 4);
    let machine = Machine::measure(threads.get(), read as usize);
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machine,
        model: ModelFigures::new(&config.name, &info, resident),
        prefill: Vec::new(),
        decode: Vec::new(),
    };

    let kv_type = load::kv_type(config);
    let kv_bytes_max = config.kv_bytes.or(available.map(|bytes| bytes / 2)).unwrap_or(u64::MAX);
    let kv_bytes = |case: &Case| case.blocks() as u64 * KvCache::block_bytes(model.spec(), kv_type) as u64;
    let (fit, left_out): (Vec<&Case>, Vec<&Case>) =
        cases.iter().partition(|case| case.context() <= info.context && kv_bytes(case) <= kv_bytes_max);
    for case in left_out {
        let needed = show_bytes(kv_bytes(case));
        log::warn!("left out: {case} needs a context of {} tokens and {needed} for KV", case.context());
    }
    let blocks = fit.iter().map(|case| case.blocks()).max().unwrap_or(1);
    let failed = |what: &str, error: ForwardError| Failure::Run(format!("{what}: the model failed: {}", error.0));
    let mut bench = Bench::new(&mut *model, blocks, kv_type).map_err(|error| failed("the KV cache", error))?;
    let (mut done, all) = (0, fit.len() * (repeat + 1));
    for &&case in &fit {
        let what = case.to_string();
        let samples = bench.time(case, repeat, || {
            done += 1;
            progress.bar(&what, done as f32 / all as f32);
        });
        let samples = samples.map_err(|error| failed(&what, error))?;
        report.add(case, &samples);
    }
    Ok(report)
}

/// The model beside another's predictions, as JSON.
fn score_page(config: &ModelConfig, mut loaded: InMemory, base: &Path, progress: &Progress) -> Result<String, Failure> {
    let bad = |error: &dyn std::fmt::Display| Failure::Run(format!("{}: {error}", base.display()));
    let file = fs::File::open(base).map_err(|error| bad(&error))?;
    let bos = loaded.first_token();
    let told = |share| progress.bar("scoring", share);
    let kv_type = load::kv_type(config);
    let score =
        score::score(&mut *loaded.model, kv_type, bos, BufReader::new(file), told).map_err(|error| bad(&error))?;
    json(&score)
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::Run(error.to_string()))
}

fn read_report(path: &Path) -> Result<Report, Failure> {
    let bad = |error: &dyn std::fmt::Display| Failure::Usage(format!("--compare {}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| bad(&error))?;
    serde_json::from_str(&text).map_err(|error| bad(&error))
}

/// Memory that the process holds now; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
