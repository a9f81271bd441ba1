//! Memory that all connections of a server share: for request bodies that are put together before they are handled.
//!
//! Knows no connection. Invariant: what is taken never exceeds the bound, and comes back when its taker ends.

use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct Budget {
    taken: AtomicUsize,
    bytes_max: usize,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Budget {
        Budget { taken: AtomicUsize::new(0), bytes_max }
    }

    /// Changes what one taker has from `held` to `wanted`; `false`, and no change, when there is not that much.
    pub fn resize(&self, held: &mut usize, wanted: usize) -> bool {
        if wanted > *held {
            let more = wanted - *held;
            let take = |taken: usize| taken.checked_add(more).filter(|sum| *sum <= self.bytes_max);
            if self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
                return false;
            }
        } else if wanted < *held {
            self.taken.fetch_sub(*held - wanted, Ordering::Relaxed);
        }
        *held = wanted;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let budget = Budget::new(10);
        let (mut one, mut two) = (0, 0);
        assert!(budget.resize(&mut one, 6) && budget.resize(&mut two, 4));
        assert!(!budget.resize(&mut two, 5));
        assert_eq!(two, 4);
        assert!(!budget.resize(&mut two, usize::MAX));
        assert!(budget.resize(&mut one, 5) && budget.resize(&mut two, 5));
        assert!(budget.resize(&mut one, 0) && budget.resize(&mut two, 10) && budget.resize(&mut two, 0));
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
}
