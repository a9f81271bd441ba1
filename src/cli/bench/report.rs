//! What was measured, as figures: the JSON of `sconce bench --json`, whose field names these are.

use serde::{Deserialize, Serialize};

use super::{
    machine::Machine,
    measure::{Case, Sample},
};
use crate::api::ModelInfo;

/// One run of `sconce bench`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of Sconce.
    pub version: String,
    pub machine: Machine,
    pub model: ModelFigures,
    pub prefill: Vec<Prefill>,
    pub decode: Vec<Decode>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFigures {
    pub name: String,
    pub architecture: String,
    /// The type that most of its weights are stored as.
    pub weights_type: String,
    pub parameters: u64,
    pub file_bytes: u64,
    pub packed_bytes: u64,
    pub load_seconds: f64,
    /// Memory of the process after loading, without KV cache; 0 where the system does not say.
    pub resident_bytes: u64,
}

impl ModelFigures {
    pub fn new(name: &str, info: &ModelInfo, resident_bytes: u64) -> Self {
        Self {
            name: name.to_owned(),
            architecture: info.architecture.clone(),
            weights_type: info.weights_type.clone(),
            parameters: info.parameters,
            file_bytes: info.file_bytes,
            packed_bytes: info.packed_bytes,
            load_seconds: info.load_seconds,
            resident_bytes,
        }
    }
}

/// A prompt of `tokens` tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prefill {
    pub tokens: usize,
    #[serde(flatten)]
    pub speed: Speed,
}

/// `width` sequences behind `depth` tokens each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decode {
    pub width: usize,
    pub depth: usize,
    #[serde(flatten)]
    pub speed: Speed,
}

/// How fast a case was: medians of its runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    pub tokens_per_second: f64,
    /// The slowest and the fastest run.
    pub tokens_per_second_min: f64,
    pub tokens_per_second_max: f64,
    /// Weights, keys and values read.
    pub gb_per_second: f64,
    /// Of the matrix products.
    pub gmac_per_second: f64,
    /// `gb_per_second` as a share of what the machine's threads read at most, 0 to 1.
    pub of_memory: f64,
    /// `gmac_per_second` as a share of their integer products at most, 0 to 1.
    pub of_int8: f64,
    pub runs: usize,
}

impl Speed {
    pub fn of(samples: &[Sample], machine: &Machine) -> Self {
        let rates = |count: fn(&Sample) -> f64| {
            let mut rates: Vec<f64> = samples.iter().map(|sample| count(sample) / sample.seconds.max(1e-9)).collect();
            rates.sort_by(f64::total_cmp);
            rates
        };
        let tokens = rates(|sample| sample.tokens as f64);
        let gb_per_second = median(&rates(|sample| sample.bytes as f64 / 1e9));
        let gmac_per_second = median(&rates(|sample| sample.macs as f64 / 1e9));
        Self {
            tokens_per_second: median(&tokens),
            tokens_per_second_min: tokens.first().copied().unwrap_or(0.0),
            tokens_per_second_max: tokens.last().copied().unwrap_or(0.0),
            gb_per_second,
            gmac_per_second,
            of_memory: gb_per_second / machine.all_threads.read_gb_per_second,
            of_int8: gmac_per_second / machine.all_threads.int8_gmac_per_second,
            runs: samples.len(),
        }
    }
}

impl Report {
    pub fn add(&mut self, case: Case, samples: &[Sample]) {
        let speed = Speed::of(samples, &self.machine);
        match case {
            Case::Prefill { tokens } => self.prefill.push(Prefill { tokens, speed }),
            Case::Decode { width, depth } => self.decode.push(Decode { width, depth, speed }),
        }
    }

    /// The speed of the same case in another report.
    pub fn speed(&self, case: Case) -> Option<&Speed> {
        match case {
            Case::Prefill { tokens } => self.prefill.iter().find(|one| one.tokens == tokens).map(|one| &one.speed),
            Case::Decode { width, depth } => {
                self.decode.iter().find(|one| (one.width, one.depth) == (width, depth)).map(|one| &one.speed)
            }
        }
    }
}

/// Of sorted values; 0 of none.
fn median(sorted: &[f64]) -> f64 {
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (values, expected) in [(&[][..], 0.0), (&[3.0], 3.0), (&[1.0, 2.0], 1.5), (&[1.0, 2.0, 9.0], 2.0)] {
            assert_eq!(median(values), expected, "{values:?}");
        }
    }
}
