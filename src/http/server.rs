//! The server: a router on event loops, and their life from bind to drain.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::limits::Limits;
use super::router::Router;

/// How many threads and connections, and the bounds on each.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Event loops, one thread each. Default: one per available CPU, at most 8.
    pub threads: usize,
    /// Open connections in all; more are answered 503 and closed. Default 10,000.
    pub connections_max: usize,
    /// How long running answers get to finish after a signal. Default 30 s.
    pub drain_timeout: Duration,
    pub limits: Limits,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
        ServerConfig {
            threads,
            connections_max: 10_000,
            drain_timeout: Duration::from_secs(30),
            limits: Limits::default(),
        }
    }
}

/// A bound listener that does not serve yet.
#[derive(Debug)]
pub struct Server {}

impl Server {
    /// Binds. Port 0 takes a free one. The error names the address and what to do.
    pub fn bind(_addr: impl ToSocketAddrs, _config: ServerConfig) -> io::Result<Server> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn local_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// Serves until SIGTERM or SIGINT, then drains; a second signal ends at once.
    pub fn serve(self, router: Router) -> io::Result<()> {
        self.start(router)?.run_until_signal(|| {})
    }

    /// Starts the loops and returns.
    pub fn start(self, _router: Router) -> io::Result<Running> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A server whose loops run. Dropping it leaves them running.
#[derive(Debug)]
pub struct Running {}

impl Running {
    /// A handle to stop and watch the server, for other threads.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {}
    }

    /// Waits for SIGTERM or SIGINT, calls `on_drain`, drains, and waits for the loops to end. A second signal, or
    /// the drain timeout, cuts what is still open.
    pub fn run_until_signal(self, on_drain: impl FnOnce()) -> io::Result<()> {
        on_drain();
        self.join()
    }

    /// Waits until the loops have ended.
    pub fn join(self) -> io::Result<()> {
        Ok(())
    }
}

/// Watches and stops a running server, from any thread.
#[derive(Clone, Debug)]
pub struct ServerHandle {}

impl ServerHandle {
    /// Stops accepting, closes idle connections, lets running answers finish, and after `timeout` cuts what is left.
    pub fn drain(&self, _timeout: Duration) {}

    /// Cuts every connection and ends the loops.
    pub fn stop(&self) {}

    /// Counters of each loop.
    pub fn stats(&self) -> Vec<LoopStats> {
        Vec::new()
    }
}

/// What one loop has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopStats {
    /// Connections open now.
    pub open_connections: u64,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections turned away because there were too many.
    pub refused: u64,
    /// Requests handled since the start.
    pub requests: u64,
    /// The longest turn of the loop since the last call, in microseconds: its lag.
    pub longest_turn_micros: u64,
}
