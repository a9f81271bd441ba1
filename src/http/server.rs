//! The server: a router on event loops, and their life from bind to drain.

use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};

use super::adapter::Http1;
use super::budget::Budget;
use super::client::ClientConfig;
use super::http_loop::HttpLoop;
use super::limits::Limits;
use super::news::News;
use super::router::Router;
use crate::reactor::{self, Control, Listener, Loops};

/// How many threads and connections, and the bounds on each.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Event loops, one thread each. Default: one per available CPU, at most 8.
    pub threads: usize,
    /// Open connections in all; more are answered 503 and closed. Default 10,000.
    pub connections_max: usize,
    /// Open connections from one address; more are answered 503 and closed. An IPv6 network of 64 bits counts as one
    /// address. Default: no bound, since everyone behind a proxy has the proxy's.
    pub connections_per_address_max: Option<usize>,
    /// Who accepts connections. Default: [`Accept::Balanced`].
    pub accept: Accept,
    /// Request bodies that are being put together, in all, in bytes; beyond that a request is answered 503. Default 256 MiB.
    pub body_bytes_in_all_max: usize,
    /// How long running answers get to finish after a signal. Default 30 s.
    pub drain_timeout: Duration,
    /// What each connection may ask for and how long it may take; the defaults are those of [`Limits`].
    pub limits: Limits,
    /// What [`Request::client`](super::Request::client) keeps and tolerates, on each loop.
    pub client: ClientConfig,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        let threads = thread::available_parallelism().map_or(1, |n| n.get().min(8));
        ServerConfig {
            threads,
            connections_max: 10_000,
            connections_per_address_max: None,
            accept: Accept::Balanced,
            body_bytes_in_all_max: 256 << 20,
            drain_timeout: Duration::from_secs(30),
            limits: Limits::default(),
            client: ClientConfig::default(),
        }
    }
}

/// How new connections come to their loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// The first loop accepts, and each connection goes to the loop with the least live load: few connections, and little
    /// of the last moments busy.
    Balanced,
    /// Each loop accepts for itself, and the kernel spreads newcomers by their address (SO_REUSEPORT): no step between for
    /// floods of short connections, no regard for the load either.
    PerLoop,
}

/// A bound listener that does not serve yet; clients that connect wait in the kernel's queue.
#[derive(Debug)]
#[must_use = "a server does nothing until `serve` or `start`"]
pub struct Server {
    listener: Listener,
    config: ServerConfig,
}

impl Server {
    /// Binds. Port 0 takes a free one.
    ///
    /// # Errors
    /// The message names the address and says what to do.
    pub fn bind(addr: impl ToSocketAddrs, config: ServerConfig) -> io::Result<Server> {
        let listener = match config.accept {
            Accept::Balanced => Listener::bind(addr)?,
            Accept::PerLoop => Listener::bind_reuse_port(addr)?,
        };
        Ok(Server { listener, config })
    }

    /// The address that is really bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Serves until SIGTERM or SIGINT, then drains; a second signal ends at once.
    ///
    /// # Errors
    /// As [`start`](Server::start) and [`Running::run_until_signal`] have them.
    pub fn serve(self, router: Router) -> io::Result<()> {
        self.start(router)?.run_until_signal(|| {})
    }

    /// Starts the loops and returns.
    ///
    /// # Errors
    /// The system gives no event queue, thread or, with [`Accept::PerLoop`], no further socket.
    pub fn start(self, router: Router) -> io::Result<Running> {
        let ServerConfig { threads, limits, client, drain_timeout, .. } = self.config;
        let config = reactor::Config {
            threads,
            connections_max: self.config.connections_max,
            connections_per_address_max: self.config.connections_per_address_max,
            // Room for the largest head and something behind it.
            input_bytes_max: limits.head_bytes_max.saturating_mul(2).max(client.input_bytes_max()),
            write_stall_timeout: limits.write_stall_timeout,
        };
        let requests: Vec<Arc<AtomicU64>> = (0..threads.max(1)).map(|_| Arc::default()).collect();
        let router = Arc::new(router);
        let budget = Arc::new(Budget::new(self.config.body_bytes_in_all_max));
        let addr = self.listener.local_addr();
        let loops = reactor::start(self.listener, &config, |index| {
            let requests = Arc::clone(&requests[index]);
            let server = Http1::new(Arc::clone(&router), limits.clone(), Arc::clone(&budget), requests);
            HttpLoop::new(server, client.clone())
        })?;
        let draining = Arc::default();
        let handle = ServerHandle { control: loops.control(), requests: requests.into(), draining };
        Ok(Running { loops, handle, addr, drain_timeout })
    }
}

/// A server whose loops run. Dropping it leaves them running.
#[derive(Debug)]
pub struct Running {
    loops: Loops<News>,
    handle: ServerHandle,
    addr: SocketAddr,
    drain_timeout: Duration,
}

impl Running {
    /// A handle to stop and watch the server, for other threads.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// The address that is really bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for SIGTERM or SIGINT, calls `on_drain`, drains, and waits for the loops to end. A second signal, or the
    /// drain timeout, cuts what is still open.
    ///
    /// Returns also when the loops end for another reason, such as [`ServerHandle::drain`].
    ///
    /// # Errors
    /// The signals cannot be watched, or a loop failed.
    pub fn run_until_signal(self, on_drain: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let (mut signals, signalled) = UnixStream::pair()?;
        let ended = signalled.try_clone()?;
        let registered = [pipe::register(SIGTERM, signalled.try_clone()?)?, pipe::register(SIGINT, signalled)?];
        let (handle, drain_timeout) = (self.handle(), self.drain_timeout);
        let watcher = thread::Builder::new().name("signals".into()).spawn(move || {
            let mut byte = [0];
            if matches!(signals.read(&mut byte), Ok(1)) {
                log::info!("draining; a second signal ends at once");
                on_drain();
                handle.drain(drain_timeout);
            }
            if matches!(signals.read(&mut byte), Ok(1)) {
                handle.stop();
            }
        })?;
        let outcome = self.join();
        registered.into_iter().for_each(|id| {
            unregister(id);
        });
        // The watcher's read ends, whichever signal it was waiting for.
        ended.shutdown(std::net::Shutdown::Both)?;
        watcher.join().map_err(|_| io::Error::other("the signal thread panicked"))?;
        outcome
    }

    /// Waits until the loops have ended.
    ///
    /// # Errors
    /// A loop failed or panicked; the others were ended.
    pub fn join(self) -> io::Result<()> {
        self.loops.join()
    }
}

/// Watches and stops a running server, from any thread.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    control: Control<News>,
    requests: Arc<[Arc<AtomicU64>]>,
    draining: Arc<AtomicBool>,
}

impl ServerHandle {
    /// Stops accepting, closes idle connections, lets running answers finish, and after `timeout` cuts what is left.
    pub fn drain(&self, timeout: Duration) {
        self.draining.store(true, Ordering::Relaxed);
        self.control.drain(timeout);
    }

    /// Whether [`drain`](ServerHandle::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Cuts every connection and ends the loops.
    pub fn stop(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.control.stop();
    }

    /// The counters of each loop, in their order. Costs a few atomic reads; only [`longest_turn_micros`](LoopStats::longest_turn_micros)
    /// begins anew with each call, so let one place call this.
    pub fn stats(&self) -> Vec<LoopStats> {
        let now = Instant::now();
        let loops = self.control.counters().iter().zip(self.requests.iter());
        loops
            .map(|(counters, requests)| LoopStats {
                open_connections: counters.open() as u64,
                outgoing_connections: counters.outgoing() as u64,
                accepted: counters.opened(),
                refused: counters.refused(),
                refused_per_address: counters.refused_per_address(),
                requests: requests.load(Ordering::Relaxed),
                bytes_in: counters.bytes_in(),
                bytes_out: counters.bytes_out(),
                turns: counters.turns(),
                busy: counters.busy(now),
                longest_turn_micros: counters.take_longest_turn_micros(),
            })
            .collect()
    }
}

/// What one loop has done so far. Shares over time come from two looks: how much busier it is at the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopStats {
    /// Connections of clients open now.
    pub open_connections: u64,
    /// Connections to other servers open now.
    pub outgoing_connections: u64,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections turned away since the start, because there were too many.
    pub refused: u64,
    /// Of these, those turned away because there were too many from their address.
    pub refused_per_address: u64,
    /// Requests handled since the start.
    pub requests: u64,
    /// Bytes read from all connections since the start.
    pub bytes_in: u64,
    /// Bytes written to all connections since the start.
    pub bytes_out: u64,
    /// Turns since the start.
    pub turns: u64,
    /// Time that the loop was not waiting since the start.
    pub busy: Duration,
    /// The longest turn of the loop since the last call, in microseconds: its lag.
    pub longest_turn_micros: u64,
}
