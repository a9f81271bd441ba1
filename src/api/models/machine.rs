//! Which models are in memory, which come and which go: the decisions, without threads, clocks or weights.
//!
//! ```text
//!            asked for              its turn, has room            loaded
//! unloaded ─────────────▶ wanted ──────────────────────▶ loading ─────────▶ served
//!    ▲  ▲                   ▲                               │                  │ idle too long, its room is wanted,
//!    │  └── after a while ──│───────────── failed ◀─────────┘                  │ told to go
//!    │                      │ if asked for meanwhile                           ▼
//!    └──────────────────────┴──────── ending ◀── last request has ended ── closing
//! ```
//!
//! A caller ([`Machine::ask`]) is answered exactly once: at once, or by an [`Effect::Answer`]. What is to be done stands
//! in [`Machine::take_effects`], and what came of it is told back: [`loaded`](Machine::loaded),
//! [`failed`](Machine::failed), [`ended`](Machine::ended), [`released`](Machine::released), and the time by
//! [`tick`](Machine::tick), at [`next_deadline`](Machine::next_deadline) at the latest.
//!
//! **Room.** One model is loaded at a time, in the order in which they were asked for. If it does not fit, others go:
//! idle ones first, the least recently used of them first. A model with requests is never ended for that. Who asks for a
//! model when those that would have to go are busy is refused at once; who was let in gets it: once the time of the others
//! is up they take no new requests, finish those they have, and go.
//!
//! **No thrash.** A model keeps its place for a time of its own ([`TURN_PER_LOAD`] times as long as loading it took, within
//! [`TURN_MIN`] and [`TURN_MAX`]), so models that do not fit side by side are served in turns, and loading takes a fifth of
//! the time at most.
//!
//! Invariants: a model with requests does not end but past the time that its removal gives it; none is loaded twice at
//! once; what all hold is within the bound, except for a first one alone where the bound is the machine's.

use std::{
    collections::BTreeMap,
    mem,
    time::{Duration, Instant},
};

use super::{
    room::Memory,
    state::{Cause, Effect, ModelId, Policy, Refusal, State},
};

/// A model keeps its place for so many times what loading it took.
const TURN_PER_LOAD: u32 = 4;
const TURN_MIN: Duration = Duration::from_secs(1);
const TURN_MAX: Duration = Duration::from_secs(60);
/// After the first failure to load; doubled with each.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

pub(super) struct Waiter<W> {
    pub(super) who: W,
    pub(super) deadline: Instant,
}

pub(super) struct Model<W> {
    pub(super) policy: Policy,
    pub(super) state: State,
    pub(super) waiters: Vec<Waiter<W>>,
    /// Callers that have it.
    pub(super) live: usize,
    /// When it was asked for last, or a caller gave it back.
    pub(super) used: Instant,
    /// Since it was last loaded.
    failures: u32,
    removed: Option<Cause>,
}

impl<W> Model<W> {
    /// Memory that it has, or will have when it is loaded.
    pub(super) fn bytes(&self) -> u64 {
        match self.state {
            State::Loading { bytes, .. }
            | State::Served { bytes, .. }
            | State::Closing { bytes, .. }
            | State::Ending { bytes } => bytes,
            State::Unloaded | State::Wanted { .. } | State::Failed { .. } => 0,
        }
    }

    /// When it goes unless somebody asks for it.
    pub(super) fn idle_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Served { .. } if self.live == 0 => self.used.checked_add(self.policy.idle_max?),
            _ => None,
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn busy(&self) -> bool {
        matches!(self.state, State::Served { .. }) && self.live > 0
    }
}

/// See the module's text. `W` is a caller that waits.
pub struct Machine<W> {
    pub(super) models: BTreeMap<ModelId, Model<W>>,
    pub(super) memory: Memory,
    /// Callers that may wait for one model.
    waiters_max: usize,
    pub(super) effects: Vec<Effect<W>>,
    /// Of the next model that is wanted.
    number: u64,
    pub(super) shutting_down: bool,
}

impl<W> Machine<W> {
    pub fn new(memory: Memory, waiters_max: usize) -> Self {
        Self { models: BTreeMap::new(), memory, waiters_max, effects: Vec::new(), number: 0, shutting_down: false }
    }

    /// A model that was not there; it is unloaded.
    pub fn add(&mut self, id: ModelId, policy: Policy, now: Instant) {
        let (state, waiters) = (State::Unloaded, Vec::new());
        let model = Model { policy, state, waiters, live: 0, used: now, failures: 0, removed: None };
        self.models.insert(id, model);
    }

    /// From now on a model goes after so long without a request.
    pub fn set_idle_max(&mut self, id: ModelId, idle_max: Option<Duration>) {
        if let Some(model) = self.models.get_mut(&id) {
            model.policy.idle_max = idle_max;
        }
    }

    pub(super) fn get(&self, id: ModelId) -> Option<&Model<W>> {
        self.models.get(&id)
    }

    pub fn take_effects(&mut self) -> Vec<Effect<W>> {
        mem::take(&mut self.effects)
    }

    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// Somebody wants a model, by `deadline` at the latest. `Some`: the answer; otherwise it comes as an effect.
    pub fn ask(&mut self, id: ModelId, who: W, deadline: Instant, now: Instant) -> Option<(W, Result<(), Refusal>)> {
        let refusal = match self.models.get_mut(&id) {
            None => Refusal::Removed,
            Some(model) if model.removed.is_some() => Refusal::Removed,
            Some(model) => match &model.state {
                State::Served { .. } => {
                    model.live += 1;
                    model.used = now;
                    return Some((who, Ok(())));
                }
                _ if self.shutting_down => Refusal::ShuttingDown,
                State::Failed { until, .. } if *until > now => Refusal::Failed { retry_after: *until - now },
                State::Unloaded | State::Failed { .. } => match self.no_room(id) {
                    Some(refusal) => refusal,
                    None => {
                        self.want(id, Some(Waiter { who, deadline }));
                        self.make_room(now);
                        return None;
                    }
                },
                _ if model.waiters.len() >= self.waiters_max => Refusal::Full,
                _ => {
                    model.waiters.push(Waiter { who, deadline });
                    return None;
                }
            },
        };
        Some((who, Err(refusal)))
    }

    /// A caller that had a model does not need it any more.
    pub fn released(&mut self, id: ModelId, now: Instant) {
        let Some(model) = self.models.get_mut(&id) else { return };
        model.live -= 1;
        model.used = now;
        if model.live == 0 {
            if matches!(model.state, State::Closing { .. }) {
                self.end(id);
            }
            self.make_room(now);
        }
    }

    /// Loading is so far.
    pub fn progress(&mut self, id: ModelId, share: f32) {
        if let Some(Model { state: State::Loading { percent, .. }, .. }) = self.models.get_mut(&id) {
            *percent = (share * 100.0) as u8;
        }
    }

    /// A model is there, and holds so many bytes.
    pub fn loaded(&mut self, id: ModelId, bytes: u64, now: Instant) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let State::Loading { began, .. } = model.state else { return };
        let turn = (now.saturating_duration_since(began) * TURN_PER_LOAD).clamp(TURN_MIN, TURN_MAX);
        model.state = State::Served { turn_ends: now + turn, bytes };
        (model.used, model.failures) = (now, 0);
        for Waiter { who, deadline } in mem::take(&mut model.waiters) {
            let answer = if deadline > now { Ok(()) } else { Err(Refusal::Timeout) };
            model.live += usize::from(answer.is_ok());
            self.effects.push(Effect::Answer { waiter: who, model: id, answer });
        }
        if let Some(cause) = model.removed {
            self.close(id, cause);
        }
        self.make_room(now);
    }

    /// A model could not be loaded.
    pub fn failed(&mut self, id: ModelId, why: String, now: Instant) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let retry_after = (RETRY_MIN * (1 << model.failures.min(16))).min(RETRY_MAX);
        model.failures += 1;
        model.state = State::Failed { why, until: now + retry_after };
        self.refuse_all(id, &Refusal::Failed { retry_after });
        self.forget_if_removed(id);
        self.make_room(now);
    }

    /// A model is out of memory.
    pub fn ended(&mut self, id: ModelId, now: Instant) {
        let Some(model) = self.models.get_mut(&id) else { return };
        model.state = State::Unloaded;
        if model.removed.is_some() {
            self.forget_if_removed(id);
        } else if !model.waiters.is_empty() {
            self.want(id, None);
        }
        self.make_room(now);
    }

    /// Has a model go when its last request has ended. One that is being loaded stays; false then.
    pub fn unload(&mut self, id: ModelId, now: Instant) -> bool {
        let Some(model) = self.models.get_mut(&id) else { return true };
        match model.state {
            State::Wanted { .. } | State::Loading { .. } => return false,
            State::Served { .. } | State::Closing { .. } => self.close(id, Cause::Told),
            State::Failed { .. } => model.state = State::Unloaded,
            State::Unloaded | State::Ending { .. } => {}
        }
        self.make_room(now);
        true
    }

    /// Takes a model out: it gets no new callers, those that have it may keep it, until `by` if that is given.
    pub fn remove(&mut self, id: ModelId, by: Option<Instant>, now: Instant) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let cause = Cause::Removed { by };
        model.removed = Some(cause);
        match model.state {
            // Who waits for it is answered when it is there.
            State::Loading { .. } => {}
            State::Served { .. } | State::Closing { .. } => {
                self.refuse_all(id, &Refusal::Removed);
                self.close(id, cause);
            }
            State::Ending { .. } => self.refuse_all(id, &Refusal::Removed),
            State::Unloaded | State::Wanted { .. } | State::Failed { .. } => {
                self.refuse_all(id, &Refusal::Removed);
                self.forget_if_removed(id);
            }
        }
        self.make_room(now);
    }

    /// Nothing is loaded any more, and nobody waits.
    pub fn shutdown(&mut self) {
        self.shutting_down = true;
        for id in self.ids() {
            self.refuse_all(id, &Refusal::ShuttingDown);
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        for id in self.ids() {
            let Some(model) = self.models.get_mut(&id) else { continue };
            let waiters = mem::take(&mut model.waiters).into_iter();
            let (late, waiters): (Vec<_>, Vec<_>) = waiters.partition(|waiter| waiter.deadline <= now);
            model.waiters = waiters;
            if matches!(model.state, State::Wanted { .. }) && model.waiters.is_empty() {
                model.state = State::Unloaded;
            }
            let idle = model.idle_deadline().is_some_and(|due| due <= now);
            let past =
                matches!(model.state, State::Closing { cause: Cause::Removed { by: Some(by) }, .. } if by <= now);
            self.effects.extend(late.into_iter().map(|late| Effect::Answer {
                waiter: late.who,
                model: id,
                answer: Err(Refusal::Timeout),
            }));
            if idle {
                self.close(id, Cause::Told);
            } else if past {
                self.end(id);
            }
        }
        self.make_room(now);
    }

    /// When there is something to do that no event brings.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let wanted = self.models.values().any(|model| matches!(model.state, State::Wanted { .. }));
        let of = |model: &Model<W>| {
            let waiters = model.waiters.iter().map(|waiter| waiter.deadline).min();
            let state = match model.state {
                State::Served { turn_ends, .. } if wanted && turn_ends > now => Some(turn_ends),
                State::Closing { cause: Cause::Removed { by }, .. } => by,
                _ => None,
            };
            [waiters, state, model.idle_deadline()].into_iter().flatten().min()
        };
        self.models.values().filter_map(of).min()
    }

    /// Whether a model could be loaded now without another's going.
    pub fn fits(&self, id: ModelId) -> bool {
        let needed = self.models.get(&id).map_or(0, |model| model.policy.bytes_min);
        self.left().is_none_or(|left| needed <= left)
    }

    /// What all hold together.
    pub fn held(&self) -> u64 {
        self.models.values().map(Model::bytes).sum()
    }

    pub(super) fn left(&self) -> Option<u64> {
        self.memory.left(self.held())
    }

    fn ids(&self) -> Vec<ModelId> {
        self.models.keys().copied().collect()
    }

    fn want(&mut self, id: ModelId, waiter: Option<Waiter<W>>) {
        self.number += 1;
        if let Some(model) = self.models.get_mut(&id) {
            model.state = State::Wanted { number: self.number };
            model.waiters.extend(waiter);
        }
    }

    pub(super) fn close(&mut self, id: ModelId, cause: Cause) {
        let Some(model) = self.models.get_mut(&id) else { return };
        model.state = State::Closing { cause, bytes: model.bytes() };
        if model.live == 0 {
            self.end(id);
        }
    }

    fn end(&mut self, id: ModelId) {
        let Some(model) = self.models.get_mut(&id) else { return };
        model.state = State::Ending { bytes: model.bytes() };
        self.effects.push(Effect::End(id));
    }

    fn refuse_all(&mut self, id: ModelId, refusal: &Refusal) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let refused = mem::take(&mut model.waiters).into_iter();
        self.effects.extend(refused.map(|waiter| Effect::Answer {
            waiter: waiter.who,
            model: id,
            answer: Err(refusal.clone()),
        }));
    }

    fn forget_if_removed(&mut self, id: ModelId) {
        if self.models.get(&id).is_some_and(|model| model.removed.is_some()) {
            self.models.remove(&id);
            self.effects.push(Effect::Forget(id));
        }
    }
}
