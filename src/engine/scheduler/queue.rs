//! Who is admitted next: by priority, then by what its client has been served, then by arrival.
//!
//! Nobody waits for ever: [`LEVEL`] of being passed over count as much as one level of priority. Passed over is a request
//! while others are admitted, not while its own client's are: a client with a hundred requests does not grow more urgent
//! than one with a single request.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use super::clients::{ANSWER_WEIGHT, Clients};
use crate::engine::sequence::{SeqId, Sequence};

/// What one level of priority is worth in time.
pub const LEVEL: Duration = Duration::from_secs(10);

/// Priorities are held to plus and minus this.
const PRIORITY_MAX: i32 = 100;

/// When it is this sequence's turn, compared with others': a level of priority is as good as a [`LEVEL`] earlier. Orders the
/// prompts that are being taken in; since it does not change, nobody who came in later can pass for ever.
pub fn turn(sequence: &Sequence) -> (Instant, SeqId) {
    let levels_below = PRIORITY_MAX - sequence.priority.clamp(-PRIORITY_MAX, PRIORITY_MAX);
    (sequence.since + LEVEL * levels_below.unsigned_abs(), sequence.id)
}

/// The sequences that hold no blocks. Bounded by whoever submits.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Vec<Sequence>,
    clients: Clients,
    admitted_total: u64,
}

impl Queue {
    /// A new sequence.
    pub fn submit(&mut self, sequence: Sequence) {
        self.clients.enter(sequence.client);
        self.waiting.push(sequence);
    }

    /// A sequence that had been admitted and lost its blocks.
    pub fn resume(&mut self, sequence: Sequence) {
        self.waiting.push(sequence);
    }

    /// Whose turn it is.
    pub fn first(&self, now: Instant) -> Option<&Sequence> {
        let key = |s: &&Sequence| {
            let waited = now.saturating_duration_since(s.since).as_secs() / LEVEL.as_secs();
            let level = i64::from(s.priority.clamp(-PRIORITY_MAX, PRIORITY_MAX)) + waited as i64;
            // Who has begun goes on before others begin.
            (Reverse(level), s.admission.is_none(), s.admission, self.clients.served(s.client), s.id)
        };
        self.waiting.iter().filter(|s| !s.parked).min_by_key(key)
    }

    /// Takes out a sequence that is to run. The first time its client pays for the part of its prompt that is to be
    /// computed, and others of its client's wait anew.
    pub fn admit(&mut self, id: SeqId, cached_tokens: usize, now: Instant) -> Option<Sequence> {
        let at = self.waiting.iter().position(|s| s.id == id)?;
        let mut sequence = self.waiting.swap_remove(at);
        if sequence.admission.is_none() {
            self.admitted_total += 1;
            sequence.admission = Some(self.admitted_total);
            self.clients.charge(sequence.client, (sequence.tokens.len() - cached_tokens) as u64);
            let flow = |s: &Sequence| (s.client, s.priority);
            for other in self.waiting.iter_mut().filter(|s| flow(s) == flow(&sequence)) {
                other.since = now;
            }
        }
        Some(sequence)
    }

    /// A running sequence has got `tokens` of its answer.
    pub fn charge_answer(&mut self, sequence: &Sequence, tokens: usize) {
        self.clients.charge(sequence.client, ANSWER_WEIGHT * tokens as u64);
    }

    /// A sequence, running or waiting, has ended.
    pub fn leave(&mut self, sequence: &Sequence) {
        self.clients.leave(sequence.client);
    }

    /// Takes a waiting sequence out for good.
    pub fn remove(&mut self, id: SeqId) -> Option<Sequence> {
        let at = self.waiting.iter().position(|s| s.id == id)?;
        let sequence = self.waiting.swap_remove(at);
        self.leave(&sequence);
        Some(sequence)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Sequence> {
        self.waiting.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Sequence> {
        self.waiting.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::ClientKey;

    struct Line {
        queue: Queue,
        now: Instant,
        arrived: u64,
    }

    impl Line {
        fn new() -> Self {
            Self { queue: Queue::default(), now: Instant::now(), arrived: 0 }
        }

        fn submit(&mut self, client: u64, priority: i32, prompt: usize) -> u64 {
            self.arrived += 1;
            let sequence = Sequence::new(SeqId(self.arrived), vec![0; prompt], 1000, self.now);
            self.queue.submit(Sequence { priority, client: Some(ClientKey(client)), ..sequence });
            self.arrived
        }

        /// Admits whose turn it is; its id.
        fn admit(&mut self) -> u64 {
            let id = self.queue.first(self.now).unwrap().id;
            self.queue.admit(id, 0, self.now).unwrap().id.0
        }
    }

    #[test]
    fn clients_take_turns_by_tokens() {
        let mut line = Line::new();
        let flood: Vec<u64> = (0..6).map(|_| line.submit(1, 0, 100)).collect();
        assert_eq!(line.admit(), flood[0]);
        let modest: Vec<u64> = (0..4).map(|_| line.submit(2, 0, 50)).collect();
        // The newcomer begins level with the one who is here, then gets two for its one.
        let order: Vec<u64> = (0..9).map(|_| line.admit()).collect();
        let expected = [flood[1], modest[0], modest[1], flood[2], modest[2], modest[3], flood[3], flood[4], flood[5]];
        assert_eq!(order, expected);
    }

    #[test]
    fn priority_goes_first_but_not_for_ever() {
        let mut line = Line::new();
        let low = line.submit(1, -2, 10);
        let mut admitted = Vec::new();
        for _ in 0..30 {
            line.now += Duration::from_secs(1);
            line.submit(2, 0, 10);
            admitted.push(line.admit());
        }
        assert_eq!(admitted.iter().position(|&id| id == low), Some(19), "two levels, twenty seconds");
    }

    #[test]
    fn who_has_begun_goes_on_first() {
        let mut line = Line::new();
        let [first, second] = [line.submit(1, 0, 10), line.submit(2, 0, 10)];
        let mut preempted = line.queue.admit(SeqId(second), 0, line.now).unwrap();
        preempted.preemptions = 1;
        line.queue.resume(preempted);
        assert_eq!([line.admit(), line.admit()], [second, first]);
    }
}
