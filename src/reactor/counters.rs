//! What a loop has done so far, for anyone to read.
//!
//! Each number has one writer, which loads and stores it without a locked instruction, and numbers with different
//! writers do not share a cache line. Bytes and turns are written once for each turn, not for each event.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The counters of one loop. All of them only grow, apart from [`open`](Counters::open) and
/// [`outgoing`](Counters::outgoing); shares and rates are the differences between two readings.
#[derive(Debug)]
pub struct Counters {
    /// When the loops were started.
    origin: Instant,
    own: Own,
    assigned: Assigned,
}

/// Written by the loop itself. Two cache lines, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Own {
    opened: Count,
    closed: Count,
    connected: Count,
    disconnected: Count,
    refused: Count,
    refused_per_address: Count,
    bytes_in: Count,
    bytes_out: Count,
    turns: Count,
    busy_nanos: Count,
    /// When the turn began that is being taken now, in nanoseconds since the origin; zero between turns.
    turn_began_nanos: AtomicU64,
    longest_turn_micros: AtomicU64,
}

/// Written by the loop that accepts connections for this one.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Assigned(Count);

/// A number with one writer.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }
}

/// Bytes of one turn.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Counters {
    pub(crate) fn new(origin: Instant) -> Counters {
        Counters { origin, own: Own::default(), assigned: Assigned::default() }
    }

    /// Connections of clients open now, those on their way to the loop included.
    pub fn open(&self) -> usize {
        // A connection is counted as assigned before it is as closed, whatever order a reader sees.
        self.assigned.0.get().saturating_sub(self.own.closed.get()) as usize
    }

    /// Connections of clients taken in since the start.
    pub fn opened(&self) -> u64 {
        self.own.opened.get()
    }

    /// Connections to elsewhere that the protocol has open now, or is opening.
    pub fn outgoing(&self) -> usize {
        self.own.connected.get().saturating_sub(self.own.disconnected.get()) as usize
    }

    /// Connections that this loop turned away since the start, for whatever reason: too many in all, too many from one
    /// address, or no descriptors left.
    pub fn refused(&self) -> u64 {
        self.own.refused.get()
    }

    /// Those of [`refused`](Counters::refused) that came from an address with too many connections.
    pub fn refused_per_address(&self) -> u64 {
        self.own.refused_per_address.get()
    }

    /// Bytes read from connections since the start.
    pub fn bytes_in(&self) -> u64 {
        self.own.bytes_in.get()
    }

    /// Bytes written to connections since the start.
    pub fn bytes_out(&self) -> u64 {
        self.own.bytes_out.get()
    }

    /// Turns since the start: waits for events that ended.
    pub fn turns(&self) -> u64 {
        self.own.turns.get()
    }

    /// Time that the loop was not waiting for events, the turn that it takes at `now` included.
    pub fn busy(&self, now: Instant) -> Duration {
        let turn = match self.own.turn_began_nanos.load(Ordering::Relaxed) {
            0 => 0,
            began => self.nanos(now).saturating_sub(began),
        };
        Duration::from_nanos(self.own.busy_nanos.get().saturating_add(turn))
    }

    /// The longest turn since the last call, in microseconds: how long an event may have waited.
    pub fn take_longest_turn_micros(&self) -> u64 {
        self.own.longest_turn_micros.swap(0, Ordering::Relaxed)
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn on_assigned(&self) {
        self.assigned.0.add(1);
    }

    pub(crate) fn on_opened(&self) {
        self.own.opened.add(1);
    }

    pub(crate) fn on_closed(&self) {
        self.own.closed.add(1);
    }

    pub(crate) fn on_connecting(&self) {
        self.own.connected.add(1);
    }

    pub(crate) fn on_disconnected(&self) {
        self.own.disconnected.add(1);
    }

    pub(crate) fn on_refused(&self) {
        self.own.refused.add(1);
    }

    pub(crate) fn on_refused_per_address(&self) {
        self.own.refused_per_address.add(1);
    }

    pub(crate) fn on_turn_begin(&self, now: Instant) {
        self.own.turn_began_nanos.store(self.nanos(now).max(1), Ordering::Relaxed);
    }

    pub(crate) fn on_turn_end(&self, took: Duration, tally: &Tally) {
        self.own.turn_began_nanos.store(0, Ordering::Relaxed);
        self.own.busy_nanos.add(took.as_nanos() as u64);
        self.own.turns.add(1);
        self.own.bytes_in.add(tally.bytes_in);
        self.own.bytes_out.add(tally.bytes_out);
        let micros = took.as_micros() as u64;
        if micros > self.own.longest_turn_micros.load(Ordering::Relaxed) {
            self.own.longest_turn_micros.store(micros, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_that_of_turns_and_of_the_one_under_way() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let counters = Counters::new(start);
        let tally = Tally { bytes_in: 3, bytes_out: 5 };
        counters.on_turn_begin(at(10));
        assert_eq!(counters.busy(at(15)), Duration::from_millis(5));
        counters.on_turn_end(Duration::from_millis(7), &tally);
        assert_eq!(counters.busy(at(100)), Duration::from_millis(7));
        counters.on_turn_begin(at(200));
        counters.on_turn_end(Duration::from_millis(2), &tally);
        assert_eq!(counters.busy(at(300)), Duration::from_millis(9));
        assert_eq!((counters.turns(), counters.bytes_in(), counters.bytes_out()), (2, 6, 10));
        assert_eq!((counters.take_longest_turn_micros(), counters.take_longest_turn_micros()), (7000, 0));
    }

    #[test]
    fn writers_do_not_share_cache_lines() {
        let counters = [Counters::new(Instant::now()), Counters::new(Instant::now())];
        let line = |place: *const u8| place.addr() / 128;
        let ends = |counters: &Counters| {
            let own = (&raw const counters.own).cast::<u8>();
            let assigned = (&raw const counters.assigned).cast::<u8>();
            [line(own), line(assigned), line(own) + size_of::<Own>() / 128]
        };
        let [first, second] = [ends(&counters[0]), ends(&counters[1])];
        assert!(first[0] != first[1] && first[0] != second[1] && first[1] != second[0] && first[0] != second[0]);
    }
}
