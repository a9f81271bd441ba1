//! What is kept of responses: bounded in number, in bytes and in time.
//!
//! Pure: the time is an argument, and what holds a running one is the caller's. When there is no room the one goes that
//! nobody has asked for longest; those that are still being made stay, and are bounded by the engine's queue.
//!
//! After every call but while all are being made: entries and bytes are within their bounds.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

/// What is counted for an entry beside its texts.
const ENTRY_BYTES: usize = 256;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub entries_max: usize,
    pub bytes_max: usize,
    pub age_max: Duration,
}

impl Default for Bounds {
    /// OpenAI keeps responses for 30 days, too.
    fn default() -> Self {
        Self { entries_max: 10_000, bytes_max: 64 << 20, age_max: Duration::from_secs(30 * 24 * 3600) }
    }
}

/// One response. Its input may be shared with those that it goes on from; it counts for each.
pub struct Entry<R> {
    /// As it is told, JSON.
    pub response: String,
    /// All items that it was made from, JSON each.
    pub input: Vec<Arc<str>>,
    /// Nothing more comes.
    pub ended: bool,
    /// It has no connection of its own.
    pub background: bool,
    /// What keeps it going in the background.
    pub run: Option<R>,
}

impl<R> Entry<R> {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.response.len() + self.input.iter().map(|item| item.len()).sum::<usize>()
    }
}

struct Slot<R> {
    entry: Entry<R>,
    born: Instant,
    /// When it was asked for last, in calls.
    used: u64,
}

pub struct Store<R> {
    bounds: Bounds,
    slots: HashMap<String, Slot<R>>,
    /// Who was asked for when.
    order: BTreeMap<u64, String>,
    bytes: usize,
    calls: u64,
}

impl<R> Store<R> {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, slots: HashMap::new(), order: BTreeMap::new(), bytes: 0, calls: 0 }
    }

    /// Keeps a new one.
    pub fn insert(&mut self, id: &str, entry: Entry<R>, now: Instant) {
        self.remove(id);
        self.calls += 1;
        self.bytes += entry.bytes();
        self.order.insert(self.calls, id.to_owned());
        self.slots.insert(id.to_owned(), Slot { entry, born: now, used: self.calls });
        self.make_room();
    }

    /// The one of this id, if it is kept.
    pub fn get(&mut self, id: &str, now: Instant) -> Option<&Entry<R>> {
        self.touch(id, now)?;
        self.slots.get(id).map(|slot| &slot.entry)
    }

    /// Changes the one of this id, if it is kept.
    pub fn update<T>(&mut self, id: &str, now: Instant, change: impl FnOnce(&mut Entry<R>) -> T) -> Option<T> {
        self.touch(id, now)?;
        let slot = self.slots.get_mut(id)?;
        let before = slot.entry.bytes();
        let result = change(&mut slot.entry);
        self.bytes = self.bytes - before + slot.entry.bytes();
        self.make_room();
        Some(result)
    }

    pub fn remove(&mut self, id: &str) -> Option<Entry<R>> {
        let slot = self.slots.remove(id)?;
        self.order.remove(&slot.used);
        self.bytes -= slot.entry.bytes();
        Some(slot.entry)
    }

    /// Makes it the one that was asked for last; drops it if it is too old.
    fn touch(&mut self, id: &str, now: Instant) -> Option<()> {
        let slot = self.slots.get_mut(id)?;
        if slot.entry.ended && now.saturating_duration_since(slot.born) > self.bounds.age_max {
            self.remove(id);
            return None;
        }
        self.calls += 1;
        let before = std::mem::replace(&mut slot.used, self.calls);
        if let Some(id) = self.order.remove(&before) {
            self.order.insert(self.calls, id);
        }
        Some(())
    }

    fn make_room(&mut self) {
        while self.slots.len() > self.bounds.entries_max || self.bytes > self.bounds.bytes_max {
            let ended = |id: &&String| self.slots.get(*id).is_some_and(|slot| slot.entry.ended);
            let Some(oldest) = self.order.values().find(ended).cloned() else { return };
            self.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// Room for three of 100 bytes.
    fn store() -> (Store<u8>, Instant) {
        let bytes_max = 3 * (ENTRY_BYTES + 100);
        (Store::new(Bounds { entries_max: 3, bytes_max, age_max: 30 * DAY }), Instant::now())
    }

    fn entry(bytes: usize, ended: bool) -> Entry<u8> {
        let input = vec!["x".repeat(bytes - bytes / 2).into()];
        Entry { response: "x".repeat(bytes / 2), input, ended, background: !ended, run: None }
    }

    /// Which of `a` to `f` are kept, and that the books are right.
    fn kept(store: &Store<u8>) -> String {
        assert_eq!(store.bytes, store.slots.values().map(|slot| slot.entry.bytes()).sum::<usize>());
        assert_eq!(store.order.len(), store.slots.len());
        assert!(store.order.iter().all(|(used, id)| store.slots[id].used == *used));
        ('a'..='f').filter(|id| store.slots.contains_key(&id.to_string())).collect()
    }

    #[test]
    fn the_one_goes_that_nobody_asked_for_longest() {
        let (mut store, now) = store();
        for id in ["a", "b", "c"] {
            store.insert(id, entry(100, true), now);
        }
        assert!(store.get("a", now).is_some());
        store.insert("d", entry(10, true), now);
        assert_eq!(kept(&store), "acd");
        // A large one takes the room of two.
        store.insert("e", entry(400, true), now);
        assert_eq!(kept(&store), "de");
        store.update("d", now, |entry| entry.response = "x".repeat(500)).unwrap();
        assert_eq!(kept(&store), "d");
        // One that is larger than all the room is not kept.
        store.insert("f", entry(10_000, true), now);
        assert_eq!(kept(&store), "");
    }

    #[test]
    fn those_that_are_being_made_stay() {
        let (mut store, now) = store();
        for id in ["a", "b", "c", "d"] {
            store.insert(id, entry(100, false), now);
        }
        assert_eq!(kept(&store), "abcd");
        store.insert("e", entry(1, true), now);
        assert_eq!(kept(&store), "abcd");
        store.update("c", now, |entry| entry.ended = true);
        assert_eq!(kept(&store), "abd");
        assert!(store.get("a", now + 31 * DAY).is_some());
    }

    #[test]
    fn nothing_is_kept_for_ever() {
        let (mut store, now) = store();
        store.insert("a", entry(1, true), now);
        assert!(store.get("a", now + 30 * DAY).is_some());
        assert!(store.get("a", now + 30 * DAY + Duration::from_secs(1)).is_none());
        assert_eq!(kept(&store), "");
        assert!(store.update("a", now, |_| ()).is_none() && store.remove("a").is_none());
    }

    #[test]
    fn one_of_the_same_id_takes_its_place() {
        let (mut store, now) = store();
        store.insert("a", entry(100, true), now);
        store.insert("a", entry(50, true), now);
        assert_eq!((kept(&store).as_str(), store.bytes), ("a", ENTRY_BYTES + 50));
    }
}
