//! Puts one set of models in the place of another, all or nothing.
//!
//! ```text
//! new ones ─▶ those to be loaded that fit: load beside the old ─▶ names go to the new ─▶ load those that did not fit
//!                   │ one can't be loaded                          old ones finish what they have, and go
//!                   └─▶ drop the new, keep the old
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use crossbeam_channel::bounded;

use super::{
    Entry, FAR, Models, Shared, Slot, Waiter,
    state::{ModelId, Policy},
};
use crate::api::error::ApiError;

/// How a replacement ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Replaced {
    /// All that was to be loaded is there.
    Fully,
    /// A model can't be loaded: all is as it was. The reason is for the log.
    Refused(String),
    /// The new ones are in place, but one that the old had to go for can't be loaded.
    Partly(String),
}

impl Models {
    /// Serves these models and no others. One that was served before under the same name by the same origin is the same:
    /// it is not touched, but may get other aliases. Others take the places of those before, which may finish what they
    /// have; for `grace` if there is no room for both. Waits until what is to be loaded at the start has been.
    pub fn replace(&self, entries: Vec<Entry>, grace: Duration) -> Replaced {
        let first = self.0.lock().names.is_empty();
        let (next, new) = self.0.act(|inner, now| {
            let same = |entry: &Entry| {
                let id = *inner.names.get(&entry.name)?;
                let same = inner.slots.get(&id)?.entry.origin.clone();
                std::ptr::addr_eq(std::sync::Arc::as_ptr(&same), std::sync::Arc::as_ptr(&entry.origin)).then_some(id)
            };
            let kept: Vec<Option<ModelId>> = entries.iter().map(same).collect();
            let (mut next, mut new) = (Vec::new(), Vec::new());
            for (entry, kept) in entries.into_iter().zip(kept) {
                let id = kept.unwrap_or_else(|| {
                    inner.ids += 1;
                    let id = ModelId(inner.ids);
                    let replaces = inner.names.get(&entry.name).copied();
                    let policy = Policy { bytes_min: entry.facts.memory_bytes_min, idle_max: entry.idle_max, replaces };
                    inner.machine.add(id, policy, now);
                    // One that is in memory is wanted there, whatever loaded it.
                    let in_use = replaces.and_then(|id| inner.slots.get(&id)).is_some_and(|old| old.resident.is_some());
                    let load = entry.at_start || in_use;
                    let slot = Slot { entry: entry.clone(), resident: None, awaited: load, loads: 0, failures: 0 };
                    inner.slots.insert(id, slot);
                    new.push((id, load));
                    id
                });
                next.push((id, entry));
            }
            (next, new)
        });
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (id, _) in new.iter().filter(|(_, load)| *load) {
            // At the start nobody is served worse for being told early that his model is on its way.
            match !first && self.0.lock().machine.fits(*id) {
                true => match self.0.load_now(*id) {
                    Ok(()) => before.push(*id),
                    Err(why) => {
                        new.iter().for_each(|(id, _)| self.0.act(|inner, now| inner.machine.remove(*id, None, now)));
                        return Replaced::Refused(why);
                    }
                },
                false => after.push(*id),
            }
        }
        self.commit(next, if after.is_empty() || first { None } else { Some(grace) });
        for id in after {
            if let Err(why) = self.0.load_now(id) {
                return if first { Replaced::Refused(why) } else { Replaced::Partly(why) };
            }
        }
        Replaced::Fully
    }

    /// Names lead to these from now on. What was served and is not among them goes.
    fn commit(&self, next: Vec<(ModelId, Entry)>, grace: Option<Duration>) {
        self.0.act(|inner, now| {
            let mut names = HashMap::new();
            let mut default = None;
            let stay: BTreeSet<ModelId> = next.iter().map(|(id, _)| *id).collect();
            for (id, entry) in next {
                names.extend(entry.aliases.iter().cloned().chain([entry.name.clone()]).map(|name| (name, id)));
                if entry.default || default.is_none() {
                    default = Some(id);
                }
                inner.machine.set_idle_max(id, entry.idle_max);
                if let Some(slot) = inner.slots.get_mut(&id) {
                    slot.entry = entry;
                }
            }
            (inner.names, inner.default) = (names, default);
            let by = grace.and_then(|grace| now.checked_add(grace));
            let gone: Vec<ModelId> = inner.slots.keys().filter(|id| !stay.contains(id)).copied().collect();
            gone.into_iter().for_each(|id| inner.machine.remove(id, by, now));
        });
    }
}

impl Shared {
    /// Loads a model, named or not yet, and waits for it. The error is the reason, for the log.
    fn load_now(self: &std::sync::Arc<Self>, id: ModelId) -> Result<(), String> {
        let (tell, told) = bounded(1);
        let asked = Instant::now();
        let then = Box::new(move |answer: Result<_, ApiError>| drop(tell.send(answer.map(drop))));
        let waiter = Waiter { name: None, asked, deadline: asked + FAR, then };
        let answer = self.act(|inner, now| {
            let deadline = waiter.deadline;
            let (waiter, answer) = inner.machine.ask(id, waiter, deadline, now)?;
            Some((waiter, self.given(inner, id, answer)))
        });
        if let Some((waiter, answer)) = answer {
            waiter.take(self, answer);
        }
        match told.recv() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lock().why(id).unwrap_or_else(|| error.to_string())),
            Err(_) => Err("nobody answered".to_owned()),
        }
    }
}
