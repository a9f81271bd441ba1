//! The models of a configuration as the server takes them: each opened and understood, ready to be loaded.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    api::models::{Entry, Facts, Kind, Order, Origin, Resident},
    config::{Config, Load, ModelConfig},
    engine::encoder::is_encoder,
};

use super::{
    Failure, check,
    encoder::{self, OpenedEncoder},
    fingerprint::Fingerprint,
    load::{self, Files, Loaded, Opened, Summary},
    progress::Progress,
};

/// Every model of a configuration.
#[derive(Default)]
pub struct Catalog(Vec<Listed>);

struct Listed {
    config: ModelConfig,
    facts: Facts,
    model: Arc<ModelOnDisk>,
}

/// A model's files, and what was learnt when they were read.
struct ModelOnDisk {
    config: ModelConfig,
    kind: Kind,
    /// Requests that may wait for it.
    queue_max: usize,
    seen: Mutex<Seen>,
}

struct Seen {
    /// The files, when they were read last.
    fingerprint: Fingerprint,
    /// Of the last time it was loaded.
    summary: Summary,
}

impl Catalog {
    /// Opens every model that is not in the catalogue `before` as it is, or not `usable` there. The error is that of the
    /// first that can't be served.
    pub fn open(config: &Config, before: &Catalog, usable: impl Fn(&str) -> bool) -> Result<Self, Failure> {
        let list = |config: &ModelConfig, queue_max| {
            let same = |old: &&Listed| old.config.loads_as(config) && old.model.is_as_it_was() && usable(&config.name);
            if let Some(Listed { facts, model, .. }) = before.0.iter().find(same) {
                return Ok(Listed { config: config.clone(), facts: facts.clone(), model: Arc::clone(model) });
            }
            let files = Files::open(config)?;
            let (facts, fingerprint) = if is_encoder(&files.source) {
                let opened = OpenedEncoder::new(config, files)?;
                (opened.facts(), opened.fingerprint().clone())
            } else {
                let opened = Opened::new(config, files)?;
                (opened.facts(config), opened.fingerprint().clone())
            };
            let seen = Mutex::new(Seen { fingerprint, summary: Summary::new() });
            let model = ModelOnDisk { config: config.clone(), kind: facts.kind, queue_max, seen };
            Ok(Listed { config: config.clone(), facts, model: Arc::new(model) })
        };
        config.models.iter().map(|model| list(model, config.server.queue_max)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the other has the same models under the same names.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |(a, b): (&Listed, &Listed)| a.config == b.config && Arc::ptr_eq(&a.model, &b.model);
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same)
    }

    /// What the server takes.
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |(position, Listed { config, facts, model }): (usize, &Listed)| Entry {
            name: config.name.clone(),
            aliases: config.aliases.clone(),
            position,
            default: config.default,
            at_start: config.load == Load::Start,
            idle_max: config.idle_max,
            facts: facts.clone(),
            origin: Arc::clone(model) as Arc<dyn Origin>,
        };
        self.0.iter().enumerate().map(entry).collect()
    }

    /// What was loaded, and what will be, for people.
    pub fn summaries(&self) -> Vec<Summary> {
        let summary = |Listed { config, model, .. }: &Listed| {
            let summary = mem::take(&mut model.lock().summary);
            match summary.is_empty() {
                true => vec![("model", format!("{}, loaded {}", config.name, check::loaded(config)))],
                false => summary,
            }
        };
        self.0.iter().map(summary).collect()
    }
}

impl ModelOnDisk {
    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_as_it_was(&self) -> bool {
        Fingerprint::of(&self.config) == self.lock().fingerprint
    }
}

impl Origin for ModelOnDisk {
    fn load(&self, order: &Order<'_>) -> Result<Resident, String> {
        // The terminal is the first model's; later there is a log.
        let progress = (!order.beside_others).then(Progress::new);
        let what = format!("loading {}", self.config.name);
        let on_progress = |share| {
            (order.on_progress)(share);
            progress.iter().for_each(|progress| progress.bar(&what, share));
        };
        let order = Order { on_progress: &on_progress, ..*order };
        let loaded = match self.kind {
            Kind::Decoder => load::load(&self.config, self.queue_max, &order).map(Loaded::into_resident),
            Kind::Encoder => encoder::load(&self.config, self.queue_max, &order),
        };
        let (resident, summary, fingerprint) = loaded.map_err(|failure| failure.to_string())?;
        *self.lock() = Seen { fingerprint, summary };
        Ok(resident)
    }
}
