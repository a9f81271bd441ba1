//! Threads: starts the loops, carries letters to them, and waits for their end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Poll, Waker};

use super::Protocol;
use super::connections::ConnId;
use super::event_loop::{EventLoop, WAKE};
use super::listener::{Acceptor, Listener};
use super::mailbox::Mailbox;

/// Bounds that hold for any protocol.
#[derive(Clone, Debug)]
pub struct Config {
    /// Loops, one thread each; at least one is started.
    pub threads: usize,
    /// Open connections over all loops.
    pub connections_max: usize,
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
            input_bytes_max: 64 << 10,
            write_stall_timeout: Duration::from_secs(30),
        }
    }
}

/// What reaches a loop from outside.
pub(crate) enum Letter<M> {
    Message(ConnId, M),
    LoopMessage(M),
    Adopt(TcpStream, SocketAddr),
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

/// What one loop has done so far; written by the loops, read by anyone.
#[derive(Debug, Default)]
pub struct Counters {
    open: AtomicUsize,
    opened: AtomicU64,
    refused: AtomicU64,
    longest_turn_micros: AtomicU64,
}

impl Counters {
    /// Connections open now, those on their way to the loop included.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections taken in since the start.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Connections turned away because there were too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The longest turn since the last call: how long an event may have waited.
    pub fn take_longest_turn_micros(&self) -> u64 {
        self.longest_turn_micros.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn on_assigned(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn on_opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn on_closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn on_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn on_turn_end(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        if micros > self.longest_turn_micros.load(Ordering::Relaxed) {
            self.longest_turn_micros.store(micros, Ordering::Relaxed);
        }
    }
}

/// Starts the loops on `listener`; `protocol` makes the protocol of each, by number.
pub fn start<P: Protocol>(
    listener: Listener,
    config: &Config,
    mut protocol: impl FnMut(usize) -> P,
) -> io::Result<Loops<P::Message>> {
    let threads = config.threads.max(1);
    let counters: Vec<Arc<Counters>> = (0..threads).map(|_| Arc::default()).collect();
    let polls: Vec<Poll> = (0..threads).map(|_| Poll::new()).collect::<io::Result<_>>()?;
    let handles = polls
        .iter()
        .map(|poll| Ok(Handle { mailbox: Arc::new(Mailbox::new(Waker::new(poll.registry(), WAKE)?)) }))
        .collect::<io::Result<Vec<_>>>()?;

    let control = Control { handles: handles.clone(), counters: counters.clone() };
    let mut acceptor = Some(Acceptor::new(listener, counters.clone(), config.connections_max));
    let mut started = Vec::new();
    for (index, poll) in polls.into_iter().enumerate() {
        let (protocol, counters) = (protocol(index), Arc::clone(&counters[index]));
        let (handles, config, acceptor) = (handles.clone(), config.clone(), acceptor.take());
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
    pub fn control(&self) -> Control<M> {
        self.control.clone()
    }

    /// Waits until all loops have ended. One that fails ends the others, and its failure is the outcome.
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

impl<M> std::fmt::Debug for Control<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("counters", &self.counters).finish()
    }
}

impl<M> Control<M> {
    /// Stops accepting and lets the protocols finish what they do; after `timeout` the rest is cut.
    pub fn drain(&self, timeout: Duration) {
        // The accepting loop tells the others, once they have what it still accepted for them.
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
