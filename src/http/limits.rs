//! What a server tolerates: sizes, counts and times, with their defaults.

use std::time::Duration;

/// Bounds on one connection. Each has an answer of its own when it is passed.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From the first byte of a head to its last, else 408. Default 10 s.
    pub head_timeout: Duration,
    /// A body must arrive at this rate after [`body_grace`](Limits::body_grace), else 408. Default 256 bytes/s.
    pub body_bytes_per_second_min: u32,
    /// How long a body may take whatever its rate. Default 10 s.
    pub body_grace: Duration,
    /// A connection without a request is closed after this. Default 60 s.
    pub idle_timeout: Duration,
    /// A client that takes none of its answer for this long is cut off. Default 30 s.
    pub write_stall_timeout: Duration,
    /// Request line and header lines together, else 431. Default 32 KiB.
    pub head_bytes_max: usize,
    /// Header lines, else 431. Default 100, which is also the most that this can be.
    pub headers_max: usize,
    /// The request target, else 414. Default 8 KiB; RFC 9112 §3 asks for 8,000 bytes of request line.
    pub target_bytes_max: usize,
    /// A request body, decoded, else 413, unless its route has a bound of its own. Default 8 MiB.
    pub body_bytes_max: usize,
    /// Framing of a chunked body (sizes, extensions, trailers) beyond 8 bytes for each byte of data, else 400. Default
    /// 16 KiB.
    pub chunk_overhead_bytes_max: usize,
    /// Requests of one connection; the last answer closes it. Default: no bound.
    pub requests_per_connection_max: u64,
    /// Requests of one connection handled in a turn of its loop; then it is the turn of the others. Default 128.
    ///
    /// Requests are worked on one at a time: those that a client pipelines wait as bytes, at most twice
    /// [`head_bytes_max`](Limits::head_bytes_max) of them, and beyond that in its own kernel.
    pub requests_per_turn_max: u32,
    /// With more output than this waiting, no further pipelined request is handled. Default 256 KiB.
    pub output_high_water_bytes: usize,
    /// An event stream with nothing else to send gets a comment this often. Default 10 s.
    pub sse_ping: Duration,
    /// What a client's FIN means while its answer is still to come.
    pub half_close: HalfClose,
}

/// What a FIN from the client means while a later answer is pending or streaming. TCP does not tell a client that has
/// gone from one that has merely finished sending (RFC 9112 §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfClose {
    /// The responder reports the client as gone, so that work for it can stop; an answer given all the same is still
    /// sent. Requests that arrived before the FIN and are answered at once always get their answer.
    Gone,
    /// The client is thought to wait, until writing to it fails.
    Waits,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_timeout: Duration::from_secs(10),
            body_bytes_per_second_min: 256,
            body_grace: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            write_stall_timeout: Duration::from_secs(30),
            head_bytes_max: 32 << 10,
            headers_max: 100,
            target_bytes_max: 8 << 10,
            body_bytes_max: 8 << 20,
            chunk_overhead_bytes_max: 16 << 10,
            requests_per_connection_max: u64::MAX,
            requests_per_turn_max: 128,
            output_high_water_bytes: 256 << 10,
            sse_ping: Duration::from_secs(10),
            half_close: HalfClose::Gone,
        }
    }
}
