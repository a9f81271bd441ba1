//! What reaches a loop's client from other threads: requests, and names that were looked up.
//!
//! Invariant: a request that is put in is answered, also when the loop has ended: then whoever puts it in gets it back.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use super::call::Call;
use super::resolver::Addresses;

#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// The thread of the loop.
    thread: OnceLock<ThreadId>,
}

#[derive(Default)]
struct State {
    closed: bool,
    mail: Mail,
}

#[derive(Default)]
pub(crate) struct Mail {
    pub calls: VecDeque<Box<Call>>,
    pub resolved: Vec<(String, Addresses)>,
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a request; gives it back when nobody will look any more.
    pub fn put_call(&self, call: Box<Call>) -> Result<(), Box<Call>> {
        let mut state = self.state();
        if state.closed {
            return Err(call);
        }
        state.mail.calls.push_back(call);
        Ok(())
    }

    /// Leaves what was found of a name.
    pub fn put_resolved(&self, name: String, found: Addresses) {
        let mut state = self.state();
        if !state.closed {
            state.mail.resolved.push((name, found));
        }
    }

    pub fn take(&self) -> Mail {
        mem::take(&mut self.state().mail)
    }

    /// Nobody will look any more.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let left = mem::take(&mut state.mail);
        drop(state);
        // Their callers hear of it, and may put in another: not while the lock is held.
        drop(left);
    }

    /// This is the thread that looks.
    pub fn set_thread(&self) {
        self.thread.get_or_init(|| thread::current().id());
    }

    pub fn is_on_thread(&self) -> bool {
        self.thread.get() == Some(&thread::current().id())
    }
}
