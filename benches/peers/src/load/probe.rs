//! A healthy client: one kept-alive connection, a request every so often, each timed.

use std::fmt;
use std::io::{self, Error, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::percentile;
use crate::HELLO;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const TIMEOUT: Duration = Duration::from_secs(5);

/// Runs on a thread of its own until [`finish`](Probe::finish).
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Timings>,
}

impl Probe {
    /// Asks for `/` with this pause between an answer and the next request.
    pub fn start(addr: SocketAddr, pause: Duration) -> Probe {
        let stop: Arc<AtomicBool> = Arc::default();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            run_first();
            let mut timings = Timings::default();
            let mut connection = None;
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                match ask(&mut connection, addr) {
                    Ok(()) => timings.nanos.push(began.elapsed().as_nanos() as u64),
                    Err(_) => {
                        timings.failures += 1;
                        connection = None;
                    }
                }
                thread::sleep(pause);
            }
            timings.nanos.sort_unstable();
            timings
        });
        Probe { stop, thread }
    }

    pub fn finish(self) -> Timings {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Puts the calling thread in front of the load that runs on the same core: else the probe would time the load tool.
fn run_first() {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: reads one sched_param; 0 is the calling thread. Without the right to do so nothing changes.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) };
}

fn ask(connection: &mut Option<TcpStream>, addr: SocketAddr) -> io::Result<()> {
    let socket = match connection {
        Some(socket) => socket,
        None => {
            let socket = TcpStream::connect_timeout(&addr, TIMEOUT)?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(TIMEOUT))?;
            connection.insert(socket)
        }
    };
    socket.write_all(REQUEST)?;
    let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(HELLO.as_bytes()) {
        match socket.read(&mut piece)? {
            0 => return Err(Error::other("closed")),
            length => answer.extend_from_slice(&piece[..length]),
        }
    }
    if answer.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err(Error::other("refused")) }
}

/// What a probe saw.
#[derive(Debug, Default)]
pub struct Timings {
    /// From request to answer, sorted.
    pub nanos: Vec<u64>,
    /// Requests without an answer.
    pub failures: usize,
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |percent| percentile(&self.nanos, percent) / 1e6;
        let (p50, p99, max) = (millis(50.0), millis(99.0), millis(100.0));
        let (answers, failures) = (self.nanos.len(), self.failures);
        write!(f, "p50 {p50:.3} ms, p99 {p99:.3} ms, max {max:.3} ms of {answers} answers, {failures} failures")
    }
}
