//! Whose inputs come next: first come, first served, but in turns, so that one request with thousands of inputs does not
//! keep a small one waiting.
//!
//! Pure: knows counts of tokens, no text, no clock and no model. Every request that has inputs left gives one input a
//! round; a round goes on where the last step stopped.

use std::collections::VecDeque;

/// The requests that have inputs left, the next to give one at the front.
#[derive(Debug, Default)]
pub(super) struct Turns {
    ring: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    request: u64,
    /// Costs of its inputs, from `next` on still to be taken.
    costs: Vec<usize>,
    next: usize,
}

/// An input of a request, by its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub request: u64,
    pub input: usize,
}

impl Turns {
    /// Adds a request behind all others; `costs` are those of its inputs.
    pub fn add(&mut self, request: u64, costs: Vec<usize>) {
        if !costs.is_empty() {
            self.ring.push_back(Entry { request, costs, next: 0 });
        }
    }

    /// Takes a request out, whatever is left of it.
    pub fn remove(&mut self, request: u64) {
        self.ring.retain(|entry| entry.request != request);
    }

    /// The inputs of the next step, whose costs are within `budget` together; one always is taken, whatever it costs.
    pub fn take(&mut self, budget: usize) -> Vec<Taken> {
        let mut taken = Vec::new();
        let mut left = budget;
        while let Some(entry) = self.ring.front_mut() {
            let cost = entry.costs[entry.next];
            if cost > left && !taken.is_empty() {
                break;
            }
            left = left.saturating_sub(cost);
            taken.push(Taken { request: entry.request, input: entry.next });
            entry.next += 1;
            if let Some(entry) = self.ring.pop_front().filter(|entry| entry.next < entry.costs.len()) {
                self.ring.push_back(entry);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of requests with such costs, as `request.input`.
    #[track_caller]
    fn check(requests: &[&[usize]], budget: usize, steps: &[&str]) {
        let mut turns = Turns::default();
        for (id, costs) in (0..).zip(requests) {
            turns.add(id, costs.to_vec());
        }
        for step in steps {
            let taken: Vec<_> = turns.take(budget).iter().map(|t| format!("{}.{}", t.request, t.input)).collect();
            assert_eq!(taken.join(" "), *step);
        }
        assert!(turns.take(budget).is_empty());
    }

    #[test]
    fn requests_take_turns() {
        check(&[&[2; 5], &[2; 2]], 6, &["0.0 1.0 0.1", "1.1 0.2 0.3", "0.4"]);
        // A large request first, and a small one behind it.
        check(&[&[3; 4], &[1]], 4, &["0.0 1.0", "0.1", "0.2", "0.3"]);
        // One that is larger than the budget comes alone, and the order of turns stays.
        check(&[&[9, 1], &[1, 9]], 4, &["0.0", "1.0 0.1", "1.1"]);
        check(&[&[], &[1]], 4, &["1.0"]);
    }

    #[test]
    fn who_is_removed_has_no_turn() {
        let mut turns = Turns::default();
        turns.add(1, vec![1; 3]);
        turns.add(2, vec![1; 2]);
        turns.take(2);
        turns.remove(1);
        assert_eq!(turns.take(9), [Taken { request: 2, input: 1 }]);
    }
}
