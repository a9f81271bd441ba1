//! A loop's mailbox: the only door through which other threads reach it.
//!
//! Invariants: what was pushed before a wake is there after it. The waker is rung when the queue was empty and only
//! then, so a burst costs one system call; the loop takes everything each time, so nothing is left unannounced.
//! The queue has no bound of its own: protocols send at most one message per connection until it has been read.

use std::io;
use std::mem;
use std::sync::{Mutex, PoisonError};

use mio::Waker;

pub(crate) struct Mailbox<T> {
    queue: Mutex<Vec<T>>,
    waker: Waker,
}

impl<T> Mailbox<T> {
    pub fn new(waker: Waker) -> Mailbox<T> {
        Mailbox { queue: Mutex::new(Vec::new()), waker }
    }

    /// Leaves a letter and wakes the loop if it may be asleep.
    pub fn push(&self, letter: T) -> io::Result<()> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = queue.is_empty();
        queue.push(letter);
        drop(queue);
        if was_empty { self.waker.wake() } else { Ok(()) }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Takes every letter; they replace what is in `letters`, whose memory the queue gets for the next ones.
    pub fn take(&self, letters: &mut Vec<T>) {
        letters.clear();
        mem::swap(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner), letters);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    const WAKE: mio::Token = mio::Token(0);

    #[test]
    fn every_letter_arrives_in_the_order_of_its_sender() {
        let mut poll = mio::Poll::new().unwrap();
        let mailbox = Arc::new(Mailbox::new(Waker::new(poll.registry(), WAKE).unwrap()));
        let (senders, each) = (4, 1000);
        let threads: Vec<_> = (0..senders)
            .map(|sender| {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || (0..each).for_each(|n| mailbox.push((sender, n)).unwrap()))
            })
            .collect();
        let mut next = vec![0; senders];
        let (mut events, mut letters) = (mio::Events::with_capacity(8), Vec::new());
        while next.iter().sum::<usize>() < senders * each {
            poll.poll(&mut events, Some(Duration::from_secs(30))).unwrap();
            assert!(!events.is_empty(), "a letter was left without a wake");
            mailbox.take(&mut letters);
            for (sender, n) in letters.drain(..) {
                assert_eq!(n, next[sender]);
                next[sender] += 1;
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
