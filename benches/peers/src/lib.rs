//! What every server of this package has in common: its arguments, and what it answers.
//!
//! `/` is [`HELLO`], `/json` a [`Message`] serialised for each request, `/file` the file of the second argument, and
//! `/events` a stream of one [`event`] every [`TICK`].

pub mod load;

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

pub const HELLO: &str = "Hello, World!";

pub const MESSAGE: Message = Message { message: HELLO };

#[derive(Clone, Copy, Serialize)]
pub struct Message {
    pub message: &'static str,
}

/// Between two events of a stream.
pub const TICK: Duration = Duration::from_millis(100);

/// `<program> [address] [file] [threads]`.
pub struct Args {
    pub addr: String,
    pub file: PathBuf,
    /// Only ours looks at it; every peer has one.
    pub threads: usize,
}

impl Args {
    /// Reads the arguments, and raises the descriptor limit, which every server here needs.
    pub fn parse() -> Args {
        raise_descriptor_limit();
        let mut args = env::args().skip(1);
        let addr = args.next().unwrap_or_else(|| "127.0.0.1:8080".into());
        println!("http://{addr}/");
        let file = args.next().unwrap_or_else(|| "/dev/null".into()).into();
        Args { addr, file, threads: args.next().and_then(|word| word.parse().ok()).unwrap_or(1) }
    }
}

/// The data of an event: when it was made, by [`now_nanos`]; a fixed 20 digits.
pub fn stamp() -> String {
    format!("{:020}", now_nanos())
}

/// A whole server-sent event around a [`stamp`].
pub fn event() -> String {
    format!("data: {}\n\n", stamp())
}

/// Nanoseconds of the machine's monotonic clock, the same for all processes.
pub fn now_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which lives here.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Raises the soft limit of open descriptors to the hard one, and gives it.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write this one rlimit.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    limit.rlim_cur
}
