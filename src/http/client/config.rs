//! Bounds and times of a client, with their defaults.

use std::time::Duration;

use super::exchange::{FOREVER, Timeouts};
use super::pool::PoolLimits;

/// What one client tolerates, and keeps. The client of a server's handlers has one pool for each event loop, and the
/// numbers hold for each.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// For requests that do not say otherwise.
    pub timeouts: Timeouts,
    /// Connections to one host and port that are in use; more requests wait for one. Default 256.
    pub connections_per_host_max: usize,
    /// Requests that wait for a connection to one host; more are refused ([`Busy`](super::ErrorKind::Busy)). Default 1024.
    pub waiting_per_host_max: usize,
    /// Requests whose answer has not begun, in all; more are refused. Default 10,000.
    pub calls_max: usize,
    /// Idle connections that are kept for one host. Default 256.
    pub idle_per_host_max: usize,
    /// Idle connections that are kept in all. Default 1024.
    pub idle_max: usize,
    /// How long a connection is kept idle; less where the server says so (`Keep-Alive: timeout=5`). Default 30 s.
    pub idle_timeout: Duration,
    /// How long the addresses of a name are remembered. Default 30 s.
    pub resolve_ttl: Duration,
    /// The head of an answer. Default 32 KiB. At most 100 lines.
    pub head_bytes_max: usize,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            timeouts: Timeouts::default(),
            connections_per_host_max: 256,
            waiting_per_host_max: 1024,
            calls_max: 10_000,
            idle_per_host_max: 256,
            idle_max: 1024,
            idle_timeout: Duration::from_secs(30),
            resolve_ttl: Duration::from_secs(30),
            head_bytes_max: 32 << 10,
        }
    }
}

impl ClientConfig {
    /// The same with times that can be added up.
    pub(crate) fn bounded(self) -> ClientConfig {
        ClientConfig {
            timeouts: self.timeouts.bounded(),
            idle_timeout: self.idle_timeout.min(FOREVER),
            resolve_ttl: self.resolve_ttl.min(FOREVER),
            ..self
        }
    }

    /// How much of an answer must fit into the input of its connection: a head with something behind it.
    pub(crate) fn input_bytes_max(&self) -> usize {
        self.head_bytes_max.saturating_mul(2).max(64 << 10)
    }

    pub(crate) fn pool_limits(&self) -> PoolLimits {
        PoolLimits {
            in_use_per_host_max: self.connections_per_host_max.max(1),
            waiting_per_host_max: self.waiting_per_host_max,
            idle_per_host_max: self.idle_per_host_max,
            idle_max: self.idle_max,
        }
    }
}
