//! The models of one server by name: gives requests the model they ask for, and has models loaded and ended for that.
//!
//! The decisions are the [`machine`]'s, which is pure. Here they are carried out: a thread of its own ("models") answers
//! callers that waited, watches the time, and starts a thread for each load and each end. What a model is made of, and
//! how it comes into memory, only its [`Origin`] knows.
//!
//! A caller holds its model by a [`Lease`](lease), and so does each generation that it starts: what they hold is counted,
//! and a model that is counted is not ended.
//!
//! Nothing of a caller's runs while the lock is held, and nothing waits for anything while it holds it.

mod lease;
mod list;
mod machine;
mod origin;
mod replace;
mod room;
#[cfg(test)]
mod simulation;
mod state;
#[cfg(test)]
mod tests;
mod turns;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{backend::Backend, error::ApiError};
use crate::engine::{error::RequestError, give_back_memory};
use lease::Lease;
pub use list::{ModelState, ModelStatus};
use machine::Machine;
pub use origin::{Entry, Facts, Kind, Order, Origin, Resident};
pub use replace::Replaced;
pub use room::Bounds;
use room::Memory;
use state::{Effect, ModelId, Refusal, State};

/// Longer waits than this end at this.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// See the module's text. Dropped, it starts nothing more; what is in memory stays as long as somebody has it.
pub struct Models(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    /// There is something to do for the thread, or the time of that has changed.
    wake: Condvar,
}

struct Inner {
    machine: Machine<Waiter>,
    slots: BTreeMap<ModelId, Slot>,
    /// Names and aliases of what is served.
    names: HashMap<String, ModelId>,
    default: Option<ModelId>,
    ids: u64,
    /// What the thread sleeps to; `None`: until it is woken.
    sleeps_until: Option<Instant>,
    closed: bool,
}

/// A model of the configuration, wherever it is.
struct Slot {
    entry: Entry,
    resident: Option<Resident>,
    /// It is to be loaded for the server to be ready, and has not been yet.
    awaited: bool,
    loads: u64,
    failures: u64,
}

type Then = Box<dyn FnOnce(Result<Arc<dyn Backend>, ApiError>) + Send>;

/// Somebody who waits for a model, by the name that was asked for.
struct Waiter {
    name: Option<String>,
    asked: Instant,
    deadline: Instant,
    then: Then,
}

impl Models {
    /// No models yet.
    pub fn start(bounds: Bounds) -> io::Result<Self> {
        let inner = Inner {
            machine: Machine::new(Memory::new(bounds.bytes_max, bounds.free), bounds.waiters_max),
            slots: BTreeMap::new(),
            names: HashMap::new(),
            default: None,
            ids: 0,
            sleeps_until: None,
            closed: false,
        };
        let shared = Arc::new(Shared { inner: Mutex::new(inner), wake: Condvar::new() });
        let thread = Arc::clone(&shared);
        thread::Builder::new().name("models".to_owned()).spawn(move || thread.run())?;
        Ok(Self(shared))
    }

    /// Calls `then` with the model of this name or alias, or with the default one where none is named: at once if it is in
    /// memory or can't be had, else from another thread when it has been loaded, within `patience`.
    ///
    /// The time until then counts for the deadlines of the requests that are submitted to what is given.
    pub fn with(
        &self,
        name: Option<&str>,
        patience: Duration,
        then: impl FnOnce(Result<Arc<dyn Backend>, ApiError>) + Send + 'static,
    ) {
        let asked = Instant::now();
        let deadline = asked + patience.min(FAR);
        self.0.find(Waiter { name: name.map(str::to_owned), asked, deadline, then: Box::new(then) });
    }

    /// Loads a model, and calls `then` when it is there or can't be had.
    pub fn load(&self, name: &str, then: impl FnOnce(Result<(), ApiError>) + Send + 'static) {
        self.with(Some(name), FAR, |answer| then(answer.map(drop)));
    }

    /// Has a model leave memory once its requests have ended; those that come meanwhile wait for it to be loaded again.
    ///
    /// # Errors
    /// There is none of this name, or it is being loaded.
    pub fn unload(&self, name: &str) -> Result<(), ApiError> {
        self.0.act(|inner, now| {
            let id = inner.resolve(Some(name))?;
            if inner.machine.unload(id, now) { Ok(()) } else { Err(ApiError::Loading) }
        })
    }

    /// Has a model leave memory after so long without a request from now on, whatever the configuration says; `None`: never.
    pub fn keep(&self, name: Option<&str>, idle_max: Option<Duration>) -> Result<(), ApiError> {
        self.0.act(|inner, _| {
            let id = inner.resolve(name)?;
            inner.machine.set_idle_max(id, idle_max);
            Ok(())
        })
    }

    /// Loads nothing more, tells those who wait, gives what is in memory `grace` to finish, and ends it.
    pub fn shutdown(&self, grace: Duration) {
        let residents: Vec<Resident> = self.0.act(|inner, _| {
            inner.machine.shutdown();
            inner.slots.values().filter_map(|slot| slot.resident.clone()).collect()
        });
        thread::scope(|scope| {
            residents.iter().for_each(|resident| drop(scope.spawn(|| (resident.end)(grace))));
        });
    }
}

impl Drop for Models {
    fn drop(&mut self) {
        self.0.act(|inner, _| {
            inner.machine.shutdown();
            inner.closed = true;
        });
        self.0.wake.notify_all();
    }
}

impl Inner {
    /// The model that is meant.
    fn resolve(&self, name: Option<&str>) -> Result<ModelId, ApiError> {
        let id = match name {
            Some(name) => self.names.get(name).copied(),
            None => self.default,
        };
        id.ok_or_else(|| match (name, self.names.is_empty()) {
            (Some(name), false) => ApiError::UnknownModel { name: name.to_owned(), known: self.known() },
            _ => ApiError::Loading,
        })
    }

    /// Names that are served, without aliases.
    fn known(&self) -> Vec<String> {
        self.served().map(|(_, slot)| slot.entry.name.clone()).collect()
    }

    /// What clients can name, in the order of the configuration.
    fn served(&self) -> impl Iterator<Item = (ModelId, &Slot)> {
        let named = |id: &ModelId, slot: &Slot| self.names.get(&slot.entry.name) == Some(id);
        let mut served: Vec<_> = self.slots.iter().filter(|(id, slot)| named(id, slot)).collect();
        served.sort_by_key(|(_, slot)| slot.entry.position);
        served.into_iter().map(|(id, slot)| (*id, slot))
    }

    fn name(&self, id: ModelId) -> String {
        self.slots.get(&id).map_or(String::new(), |slot| slot.entry.name.clone())
    }

    /// Why the last load failed, if it did: for the log.
    fn why(&self, id: ModelId) -> Option<String> {
        match &self.machine.get(id)?.state {
            State::Failed { why, .. } => Some(why.clone()),
            _ => None,
        }
    }

    fn error(&self, id: ModelId, refusal: Refusal) -> ApiError {
        match refusal {
            Refusal::Removed => ApiError::UnknownModel { name: self.name(id), known: self.known() },
            Refusal::Full => ApiError::Busy,
            Refusal::NoRoom { needed, left, busy } => {
                let busy = busy.into_iter().map(|id| self.name(id)).collect();
                ApiError::NoRoom { model: self.name(id), needed_bytes: needed, left_bytes: left, busy }
            }
            Refusal::Failed { retry_after } => ApiError::NotLoaded {
                model: self.name(id),
                retry_after_seconds: retry_after.as_secs_f64().ceil() as u32,
            },
            Refusal::Timeout => RequestError::QueueTimeout.into(),
            Refusal::ShuttingDown => RequestError::ShuttingDown.into(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on what there is; the thread is woken if that gives it something to do.
    fn act<R>(&self, work: impl FnOnce(&mut Inner, Instant) -> R) -> R {
        let now = Instant::now();
        let mut inner = self.lock();
        let result = work(&mut inner, now);
        let sooner = match (inner.machine.next_deadline(now), inner.sleeps_until) {
            (Some(due), Some(until)) => due < until,
            (due, until) => due.is_some() && until.is_none(),
        };
        let wake = inner.machine.has_effects() || sooner;
        drop(inner);
        if wake {
            self.wake.notify_one();
        }
        result
    }

    /// Gives a caller the model that it names, now or later.
    fn find(self: &Arc<Self>, waiter: Waiter) {
        let answer = self.act(|inner, now| match inner.resolve(waiter.name.as_deref()) {
            Err(error) => Some((waiter, Err(error))),
            Ok(id) => {
                let deadline = waiter.deadline;
                let (waiter, answer) = inner.machine.ask(id, waiter, deadline, now)?;
                Some((waiter, self.given(inner, id, answer)))
            }
        });
        if let Some((waiter, answer)) = answer {
            waiter.take(self, answer);
        }
    }

    /// What a caller gets that the machine has answered.
    fn given(
        &self,
        inner: &Inner,
        id: ModelId,
        answer: Result<(), Refusal>,
    ) -> Result<(ModelId, Arc<dyn Backend>), ApiError> {
        answer.map_err(|refusal| inner.error(id, refusal))?;
        let resident = inner.slots.get(&id).and_then(|slot| slot.resident.as_ref());
        // The machine serves what has a resident.
        let resident = resident.ok_or_else(|| RequestError::Internal("a served model is gone".into()))?;
        Ok((id, Arc::clone(&resident.backend)))
    }

    /// The thread: carries out what was decided, and sees to it that time passes.
    fn run(self: Arc<Self>) {
        let mut inner = self.lock();
        while !inner.closed || inner.machine.has_effects() {
            let now = Instant::now();
            inner.machine.tick(now);
            let effects = inner.machine.take_effects();
            if effects.is_empty() {
                let until = inner.machine.next_deadline(now);
                inner.sleeps_until = until;
                let wait = until.map_or(FAR, |until| until.saturating_duration_since(now));
                inner = self.wake.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            drop(inner);
            effects.into_iter().for_each(|effect| self.carry_out(effect));
            inner = self.lock();
        }
    }

    fn carry_out(self: &Arc<Self>, effect: Effect<Waiter>) {
        match effect {
            // It may have a successor of the same name.
            Effect::Answer { waiter, answer: Err(Refusal::Removed), .. } => self.find(waiter),
            Effect::Answer { waiter, model, answer } => {
                let answer = self.given(&self.lock(), model, answer);
                let take = AssertUnwindSafe(|| waiter.take(self, answer));
                // A caller that panics loses its own answer: its responder is dropped, which is an answer, too.
                if catch_unwind(take).is_err() {
                    log::error!("a request panicked when it got its model");
                }
            }
            Effect::Load { model, bytes } => self.spawn("load", model, move |shared| shared.load(model, bytes)),
            Effect::End(model) => self.spawn("end", model, move |shared| shared.end(model)),
            Effect::Forget(model) => drop(self.act(|inner, _| inner.slots.remove(&model))),
        }
    }

    /// Runs `work` on a thread of its own; on this one if there is none to be had.
    fn spawn(self: &Arc<Self>, what: &str, model: ModelId, work: impl FnOnce(&Arc<Self>) + Send + Clone + 'static) {
        let name = format!("{what} {}", self.lock().name(model));
        let (shared, job) = (Arc::clone(self), work.clone());
        if let Err(error) = thread::Builder::new().name(name).spawn(move || job(&shared)) {
            log::error!("no thread to {what} a model: {error}");
            work(self);
        }
    }

    fn load(self: &Arc<Self>, id: ModelId, bytes: Option<u64>) {
        let Some((name, origin, beside)) = self.act(|inner, _| {
            let slot = inner.slots.get(&id)?;
            let beside = inner.slots.values().any(|slot| slot.resident.is_some());
            Some((slot.entry.name.clone(), Arc::clone(&slot.entry.origin), beside))
        }) else {
            return;
        };
        let on_progress = |share| self.act(|inner, _| inner.machine.progress(id, share));
        let order = Order { bytes, beside_others: beside, on_progress: &on_progress };
        let loaded = catch_unwind(AssertUnwindSafe(|| origin.load(&order)));
        match loaded.unwrap_or_else(|_| Err("loading it panicked".to_owned())) {
            Ok(resident) => {
                let seconds = resident.backend.info().load_seconds;
                log::info!("serving {name}, loaded in {seconds:.1} s");
                self.act(|inner, now| {
                    let bytes = resident.bytes;
                    if let Some(slot) = inner.slots.get_mut(&id) {
                        slot.resident = Some(resident);
                        slot.awaited = false;
                        slot.loads += 1;
                    }
                    inner.machine.loaded(id, bytes, now);
                });
            }
            Err(why) => self.act(|inner, now| {
                if let Some(slot) = inner.slots.get_mut(&id) {
                    // The first time whoever waits for it says so.
                    if !slot.awaited || slot.failures > 0 {
                        log::error!("{name} can't be loaded: {why}");
                    }
                    slot.failures += 1;
                }
                inner.machine.failed(id, why, now);
            }),
        }
    }

    /// Ends a model that nobody has, or that was given time enough.
    fn end(&self, id: ModelId) {
        let start = Instant::now();
        let taken = self.act(|inner, _| {
            let slot = inner.slots.get_mut(&id)?;
            Some((slot.entry.name.clone(), slot.resident.take()?))
        });
        if let Some((name, resident)) = taken {
            (resident.end)(Duration::ZERO);
            let megabytes = resident.backend.info().packed_bytes / 1_000_000;
            drop(resident);
            give_back_memory();
            let seconds = start.elapsed().as_secs_f32();
            log::info!("{name} has left memory, in {seconds:.1} s: {megabytes} MB of weights are given back");
        }
        self.act(|inner, now| inner.machine.ended(id, now));
    }

    /// A caller has given its model back.
    fn released(&self, id: ModelId) {
        self.act(|inner, now| inner.machine.released(id, now));
    }
}

impl Waiter {
    /// Gives the caller its model, counted by the machine already, or the reason why there is none.
    fn take(self, shared: &Arc<Shared>, answer: Result<(ModelId, Arc<dyn Backend>), ApiError>) {
        let lease = answer.map(|(id, backend)| Lease::new(backend, self.asked, id, shared));
        (self.then)(lease.map(|lease| Arc::new(lease) as Arc<dyn Backend>));
    }
}
