//! The tokens that top-k and min-p leave: top-p and the draw among them. Passes over whole arrays vectorise, for without
//! other filters all tokens are here.

use super::{
    Candidate, Cut, RUN,
    math::{count_from, exp},
};

/// Below this many tokens selecting is cheaper than narrowing further.
const BAND: usize = 1024;

/// Tokens by ascending id, one array for each property.
#[derive(Debug, Default)]
pub struct Survivors {
    ids: Vec<u32>,
    logits: Vec<f32>,
    /// Probability relative to the best token's.
    weights: Vec<f32>,
    max: f32,
    temperature: f32,
    /// The tokens among which top-p's last one is.
    band: Vec<(Candidate, f32)>,
}

/// Tokens of at least some logit, together.
#[derive(Debug, Clone, Copy)]
struct Mass {
    weight: f64,
    count: usize,
}

impl Survivors {
    /// Takes the tokens that `cut` keeps; `max` is the row's highest logit.
    pub fn collect(&mut self, row: &[f32], cut: Cut, max: f32, temperature: f32) {
        (self.max, self.temperature) = (max, temperature);
        self.ids.clear();
        self.logits.clear();
        if cut == Cut::NOTHING {
            self.ids.extend(0..row.len() as u32);
            self.logits.extend_from_slice(row);
        } else {
            for (index, run) in row.chunks(RUN).enumerate() {
                if count_from(run, cut.logit) == 0 {
                    continue;
                }
                for (id, &logit) in (index as u32 * RUN as u32..).zip(run) {
                    if (Candidate { logit, id }).rank(&cut).is_le() {
                        self.ids.push(id);
                        self.logits.push(logit);
                    }
                }
            }
        }
        self.weights.clear();
        self.weights.extend(self.logits.iter().map(|&logit| exp((logit - max) / temperature)));
    }

    /// The last of the fewest tokens, best first, that have the share `top_p` of the weight.
    pub fn top_p(&mut self, top_p: f32) -> Cut {
        if top_p.is_nan() || top_p >= 1.0 {
            return Cut::NOTHING;
        }
        let total = self.mass(f32::NEG_INFINITY);
        let wanted = f64::from(top_p) * total.weight;
        // The token lies between two distances from the best logit, in units of temperature. The few near it usually
        // carry the share; else the band is halved until it holds few.
        let mut near = (0.0, Mass { weight: 0.0, count: 0 });
        let mut far = (f32::INFINITY, total);
        for attempt in 0..24 {
            if far.1.count - near.1.count <= BAND {
                break;
            }
            let distance = match attempt {
                0 => 4.0,
                _ if far.0.is_infinite() => 4.0 * near.0,
                _ => 0.5 * (near.0 + far.0),
            };
            let mass = self.mass(self.at(distance));
            *(if mass.weight < wanted { &mut near } else { &mut far }) = (distance, mass);
        }
        let low = self.at(far.0);
        let high = if near.1.count == 0 { f32::INFINITY } else { self.at(near.0) };
        self.band.clear();
        for ((&id, &logit), &weight) in self.ids.iter().zip(&self.logits).zip(&self.weights) {
            if logit >= low && logit < high {
                self.band.push((Candidate { logit, id }, weight));
            }
        }
        nucleus(&mut self.band, wanted - near.1.weight).unwrap_or(Cut::NOTHING)
    }

    /// The first token, by id, at which the weight of those that `cut` keeps passes the share `chance` (below 1) of the
    /// whole. `None` if nothing has any weight.
    pub fn draw(&mut self, cut: Cut, chance: f64) -> Option<u32> {
        if cut != Cut::NOTHING {
            for ((&id, &logit), weight) in self.ids.iter().zip(&self.logits).zip(&mut self.weights) {
                if (Candidate { logit, id }).rank(&cut).is_gt() {
                    *weight = 0.0;
                }
            }
        }
        let point = chance * self.weights.chunks(RUN).map(sum).sum::<f64>();
        let mut passed = 0.0;
        let mut last = None;
        for (ids, weights) in self.ids.chunks(RUN).zip(self.weights.chunks(RUN)) {
            let run = sum(weights);
            if passed + run <= point {
                passed += run;
                continue;
            }
            for (&id, &weight) in ids.iter().zip(weights).filter(|(_, weight)| **weight > 0.0) {
                passed += f64::from(weight);
                last = Some(id);
                if passed > point {
                    return last;
                }
            }
            // Added up one by one the run's weight may differ in the last bit: then it is its last token.
            if last.is_some() {
                return last;
            }
        }
        last
    }

    /// The logit so many temperatures below the best.
    fn at(&self, distance: f32) -> f32 {
        self.max - distance * self.temperature
    }

    fn mass(&self, threshold: f32) -> Mass {
        let mut mass = Mass { weight: 0.0, count: 0 };
        for (logits, weights) in self.logits.chunks(RUN).zip(self.weights.chunks(RUN)) {
            let kept = count_from(logits, threshold) as usize;
            if kept == logits.len() {
                mass.weight += sum(weights);
            } else if kept > 0 {
                let mut masked = [0.0; RUN];
                for ((masked, &logit), &weight) in masked.iter_mut().zip(logits).zip(weights) {
                    *masked = if logit >= threshold { weight } else { 0.0 };
                }
                mass.weight += sum(&masked);
            }
            mass.count += kept;
        }
        mass
    }
}

/// Few are added up in each f32 lane, so that next to nothing is lost.
fn sum(weights: &[f32]) -> f64 {
    let (parts, rest) = weights.as_chunks::<16>();
    let mut lanes = [0.0f32; 16];
    for part in parts {
        for (lane, weight) in lanes.iter_mut().zip(part) {
            *lane += weight;
        }
    }
    lanes.iter().chain(rest).map(|&lane| f64::from(lane)).sum()
}

/// The last of the fewest candidates, best first, that weigh `wanted` together: quickselect by weight, in linear time.
fn nucleus(candidates: &mut [(Candidate, f32)], wanted: f64) -> Option<Cut> {
    let (mut low, mut high) = (0, candidates.len());
    let mut before = 0.0;
    // The answer is one of candidates[low..high]; those before `low` are better and weigh `before`.
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        candidates[low..high].select_nth_unstable_by(middle - low, |(a, _), (b, _)| a.rank(b));
        let upper: f64 = candidates[low..middle].iter().map(|(_, weight)| f64::from(*weight)).sum();
        if before + upper >= wanted {
            high = middle;
        } else {
            before += upper;
            low = middle;
        }
    }
    candidates.get(low).map(|&(cut, _)| cut)
}
