//! Requests that have no connection yet, and until when they wait for one.
//!
//! Knows no clock: the time is an argument. Invariant: an entry and its deadline come and go together.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::error::Phase;

/// A request that has no connection yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CallId(u64);

pub(crate) struct Waiting<T> {
    entries: HashMap<CallId, Entry<T>>,
    deadlines: BTreeSet<(Instant, CallId)>,
    next: u64,
}

struct Entry<T> {
    call: T,
    phase: Phase,
    until: Instant,
}

impl<T> Waiting<T> {
    pub fn new() -> Waiting<T> {
        Waiting { entries: HashMap::new(), deadlines: BTreeSet::new(), next: 0 }
    }

    /// A name that no other request has had.
    pub fn name(&mut self) -> CallId {
        self.next += 1;
        CallId(self.next)
    }

    /// Adds a request that waits for what `phase` says.
    pub fn add(&mut self, id: CallId, call: T, phase: Phase, until: Instant) {
        self.deadlines.insert((until, id));
        self.entries.insert(id, Entry { call, phase, until });
    }

    /// Its wait is over.
    pub fn take(&mut self, id: CallId) -> Option<T> {
        let entry = self.entries.remove(&id)?;
        self.deadlines.remove(&(entry.until, id));
        Some(entry.call)
    }

    /// One that has waited too long, and for what.
    pub fn take_late(&mut self, now: Instant) -> Option<(CallId, T, Phase)> {
        let (until, _) = self.deadlines.first()?;
        if *until > now {
            return None;
        }
        let (_, id) = self.deadlines.pop_first()?;
        self.entries.remove(&id).map(|entry| (id, entry.call, entry.phase))
    }

    /// When the first will have waited too long.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_waits_until_its_time_and_no_longer() {
        let (mut waiting, start) = (Waiting::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let ids: Vec<CallId> = [3, 1, 2, 1]
            .into_iter()
            .map(|seconds| {
                let id = waiting.name();
                waiting.add(id, seconds, Phase::Queue, at(seconds));
                id
            })
            .collect();
        assert_eq!((waiting.take(ids[2]), waiting.take(ids[2])), (Some(2), None));
        assert_eq!((waiting.next_deadline(), waiting.take_late(at(0))), (Some(at(1)), None));
        assert_eq!(waiting.take_late(at(2)), Some((ids[1], 1, Phase::Queue)));
        assert_eq!(waiting.take_late(at(2)), Some((ids[3], 1, Phase::Queue)));
        assert_eq!((waiting.next_deadline(), waiting.take_late(at(2))), (Some(at(3)), None));
        assert_eq!(waiting.take_late(at(3)), Some((ids[0], 3, Phase::Queue)));
        assert_eq!((waiting.next_deadline(), waiting.entries.len()), (None, 0));
    }
}
