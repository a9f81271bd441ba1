//! Threads: starts the loops, carries letters to them, and waits for their end.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::{Poll, Waker};

use super::Protocol;
use super::addresses::Addresses;
use super::balance::Balance;
use super::connections::ConnId;
use super::counters::Counters;
use super::event_loop::{EventLoop, WAKE};
use super::listener::{Acceptor, Listener, Newcomer, Targets};
use super::mailbox::Mailbox;

/// Bounds that hold for any protocol.
#[derive(Clone, Debug)]
pub struct Config {
    /// Loops, one thread each; at least one is started.
    pub threads: usize,
    /// Open connections over all loops.
    pub connections_max: usize,
    /// Open connections of one IPv4 address, or of one IPv6 network of 64 bits; `None` is no bound. Behind a proxy all
    /// clients have its address.
    pub connections_per_address_max: Option<usize>,
    /// Bytes read but not yet consumed by the protocol; at this mark reading pauses.
    pub input_bytes_max: usize,
    /// A peer that takes none of its output for this long is cut off.
    pub write_stall_timeout: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            threads: 1,
            connections_max: 10_000,
            connections_per_address_max: None,
            input_bytes_max: 64 << 10,
            write_stall_timeout: Duration::from_secs(30),
        }
    }
}

/// What reaches a loop from outside.
pub(crate) enum Letter<M> {
    Message(ConnId, M),
    LoopMessage(M),
    Adopt(Newcomer),
    Drain(Instant),
    Stop,
}

/// Sends messages to one loop and its connections, from any thread.
pub struct Handle<M> {
    mailbox: Arc<Mailbox<Letter<M>>>,
}

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Handle { mailbox: Arc::clone(&self.mailbox) }
    }
}

impl<M> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl<M> Handle<M> {
    /// Leaves a message for a connection. If the connection has gone, nobody gets it.
    pub fn send(&self, to: ConnId, message: M) {
        self.post(Letter::Message(to, message));
    }

    /// Leaves a message for the protocol of the loop, [`Protocol::on_loop_message`].
    pub fn send_to_loop(&self, message: M) {
        self.post(Letter::LoopMessage(message));
    }

    pub(crate) fn post(&self, letter: Letter<M>) {
        if let Err(e) = self.mailbox.push(letter) {
            log::error!("cannot wake an event loop: {e}");
        }
    }

    #[cfg(test)]
    pub(crate) fn new(mailbox: Mailbox<Letter<M>>) -> Handle<M> {
        Handle { mailbox: Arc::new(mailbox) }
    }

    #[cfg(test)]
    pub(crate) fn has_letters(&self) -> bool {
        !self.mailbox.is_empty()
    }

    pub(crate) fn take_letters(&self, letters: &mut Vec<Letter<M>>) {
        self.mailbox.take(letters);
    }

    /// Whether both lead to the same loop.
    pub(crate) fn is(&self, other: &Handle<M>) -> bool {
        Arc::ptr_eq(&self.mailbox, &other.mailbox)
    }
}

/// Starts the loops on a [`Listener`], or on none, for loops that only connect to elsewhere; `protocol` makes the protocol
/// of each, by number.
///
/// # Errors
/// The system gives no event queue, thread or, with [`Listener::bind_reuse_port`], no further socket.
pub fn start<P: Protocol>(
    listener: impl Into<Option<Listener>>,
    config: &Config,
    mut protocol: impl FnMut(usize) -> P,
) -> io::Result<Loops<P::Message>> {
    let threads = config.threads.max(1);
    let now = Instant::now();
    let counters: Vec<Arc<Counters>> = (0..threads).map(|_| Arc::new(Counters::new(now))).collect();
    let polls: Vec<Poll> = (0..threads).map(|_| Poll::new()).collect::<io::Result<_>>()?;
    let handles = polls
        .iter()
        .map(|poll| Ok(Handle { mailbox: Arc::new(Mailbox::new(Waker::new(poll.registry(), WAKE)?)) }))
        .collect::<io::Result<Vec<_>>>()?;

    let control = Control { handles: handles.clone(), counters: counters.clone() };
    let mut acceptors = acceptors(listener.into(), config, &counters, now)?.into_iter();
    let mut started = Vec::new();
    for (index, poll) in polls.into_iter().enumerate() {
        let (protocol, counters) = (protocol(index), Arc::clone(&counters[index]));
        let (handles, config, acceptor) = (handles.clone(), config.clone(), acceptors.next());
        let others = StopUnlessDone { control: control.clone(), done: false };
        // The loop is made in its thread: what a protocol keeps for its connections need not be Send.
        let thread = thread::Builder::new().name(format!("loop-{index}")).spawn(move || {
            let mut others = others;
            let mut event_loop = EventLoop::new(poll, protocol, index, handles, counters, config);
            if let Some(acceptor) = acceptor {
                event_loop.listen(acceptor)?;
            }
            event_loop.run()?;
            others.done = true;
            Ok(())
        });
        match thread {
            Ok(thread) => started.push(thread),
            Err(e) => {
                control.stop();
                return Err(e);
            }
        }
    }
    Ok(Loops { threads: started, control })
}

/// Who accepts: the first loop for all, or each loop for itself; nobody without a listener.
fn acceptors(
    listener: Option<Listener>,
    config: &Config,
    counters: &[Arc<Counters>],
    now: Instant,
) -> io::Result<Vec<Acceptor>> {
    let Some(listener) = listener else { return Ok(Vec::new()) };
    let addresses = config.connections_per_address_max.map(|max| Arc::new(Addresses::new(max)));
    let acceptor = |listener, targets| {
        Acceptor::new(listener, targets, counters.to_vec(), config.connections_max, addresses.clone())
    };
    if !listener.is_shared() {
        return Ok(vec![acceptor(listener, Targets::All(Balance::new(counters.len(), now)))]);
    }
    let siblings = (1..counters.len()).map(|_| listener.sibling()).collect::<io::Result<Vec<_>>>()?;
    let listeners = [listener].into_iter().chain(siblings).enumerate();
    Ok(listeners.map(|(index, listener)| acceptor(listener, Targets::Own(index))).collect())
}

/// Ends all loops when one fails or panics: its share of the clients would otherwise wait for ever.
struct StopUnlessDone<M> {
    control: Control<M>,
    done: bool,
}

impl<M> Drop for StopUnlessDone<M> {
    fn drop(&mut self) {
        if !self.done {
            self.control.stop();
        }
    }
}

/// Running loops.
#[derive(Debug)]
pub struct Loops<M> {
    threads: Vec<JoinHandle<io::Result<()>>>,
    control: Control<M>,
}

impl<M> Loops<M> {
    /// What stops and watches these loops.
    pub fn control(&self) -> Control<M> {
        self.control.clone()
    }

    /// Waits until all loops have ended. One that fails ends the others, and its failure is the outcome.
    ///
    /// # Errors
    /// That of the first loop that failed or panicked.
    pub fn join(self) -> io::Result<()> {
        let threads = self.threads.into_iter().enumerate();
        // All are joined before the first failure is looked for.
        let outcomes: Vec<io::Result<()>> = threads
            .map(|(index, thread)| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other(format!("event loop {index} panicked"))))
            })
            .collect();
        outcomes.into_iter().collect()
    }
}

/// Stops and watches running loops, from any thread.
pub struct Control<M> {
    handles: Vec<Handle<M>>,
    counters: Vec<Arc<Counters>>,
}

impl<M> Clone for Control<M> {
    fn clone(&self) -> Self {
        Control { handles: self.handles.clone(), counters: self.counters.clone() }
    }
}

impl<M> fmt::Debug for Control<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("counters", &self.counters).finish()
    }
}

impl<M> Control<M> {
    /// Stops accepting and lets the protocols finish what they do; after `timeout` the rest is cut.
    pub fn drain(&self, timeout: Duration) {
        // It tells the others, once they have what it still accepted for them.
        if let Some(first) = self.handles.first() {
            first.post(Letter::Drain(Instant::now() + timeout));
        }
    }

    /// Cuts all connections and ends the loops.
    pub fn stop(&self) {
        self.handles.iter().for_each(|handle| handle.post(Letter::Stop));
    }

    /// The ways to each loop, for messages from outside.
    pub fn handles(&self) -> &[Handle<M>] {
        &self.handles
    }

    /// The counters of each loop.
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }
}
