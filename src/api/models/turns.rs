//! Who is loaded next, and who goes for it: the part of the [`machine`](super::machine) that knows memory.

use std::{mem, time::Instant};

use super::{
    machine::{Machine, Model, Waiter},
    state::{Cause, Effect, ModelId, Refusal, State},
};

impl<W> Machine<W> {
    /// Why a model can't be had, if the ones that have no requests now hold too little.
    pub(super) fn no_room(&self, id: ModelId) -> Option<Refusal> {
        let needed = self.models.get(&id)?.policy.bytes_min;
        let left = self.left()?;
        if needed <= left {
            return None;
        }
        let others = || self.models.iter().filter(|(other, _)| **other != id);
        let busy: Vec<ModelId> = others().filter(|(_, model)| model.busy()).map(|(id, _)| *id).collect();
        let going: u64 = others().filter(|(_, model)| !model.busy()).map(|(_, model)| model.bytes()).sum();
        let left = left + going;
        let alone = busy.is_empty() && self.memory.takes_alone(needed);
        (needed > left && !alone).then_some(Refusal::NoRoom { needed, left, busy })
    }

    /// Loads the model whose turn it is, or has others go for it.
    pub(super) fn make_room(&mut self, now: Instant) {
        if self.shutting_down || self.models.values().any(|model| matches!(model.state, State::Loading { .. })) {
            return;
        }
        let wanted = self.models.iter().filter_map(|(id, model)| match model.state {
            State::Wanted { number } => Some((number, *id, model.policy)),
            _ => None,
        });
        let Some((_, id, policy)) = wanted.min_by_key(|(number, ..)| *number) else { return self.reopen(now) };
        let (left, needed) = (self.left(), policy.bytes_min);
        let alone = self.held() == 0 && self.memory.takes_alone(needed);
        if alone || left.is_none_or(|left| needed <= left) {
            let given_back = policy.replaces.and_then(|id| self.models.get(&id)).map_or(0, Model::bytes);
            let bytes = left.map(|left| self.memory.granted(left.max(needed), given_back));
            if let Some(model) = self.models.get_mut(&id) {
                model.state = State::Loading { began: now, percent: 0, bytes: needed };
                self.effects.push(Effect::Load { model: id, bytes });
            }
            return;
        }
        let going = |model: &&Model<W>| matches!(model.state, State::Closing { .. } | State::Ending { .. });
        let mut soon = left.unwrap_or(0) + self.models.values().filter(going).map(Model::bytes).sum::<u64>();
        let served = self.models.iter().filter_map(|(id, model)| match model.state {
            State::Served { turn_ends, bytes } => Some((model.live > 0, turn_ends > now, model.used, *id, bytes)),
            _ => None,
        });
        let mut served: Vec<_> = served.collect();
        served.sort();
        for (_, keeps_turn, _, victim, bytes) in served {
            if soon >= needed {
                break;
            }
            soon += bytes;
            if !keeps_turn {
                self.close(victim, Cause::Room);
            }
        }
    }

    /// Nobody wants room any more: who was to go for it may stay.
    fn reopen(&mut self, now: Instant) {
        for (id, model) in &mut self.models {
            let State::Closing { cause: Cause::Room, bytes } = model.state else { continue };
            model.state = State::Served { turn_ends: now, bytes };
            for Waiter { who, .. } in mem::take(&mut model.waiters) {
                model.live += 1;
                self.effects.push(Effect::Answer { waiter: who, model: *id, answer: Ok(()) });
            }
        }
    }
}
