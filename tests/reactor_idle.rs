//! A loop that can do nothing does nothing, whatever its clients leave undone.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sconce::reactor::{self, Config, Io, Listener, Protocol};

/// Answers `!` with more than any socket takes, and everything else with itself. Counts its turns.
struct Giver {
    turns: Arc<AtomicU64>,
}

impl Protocol for Giver {
    type Connection = ();
    type Message = ();

    fn on_open(&mut self, _: SocketAddr, _: Instant) {}

    fn on_readable(&mut self, _: &mut (), io: &mut Io<'_, Self>) {
        match io.input.as_slice() {
            b"!" => io.output.push_shared(vec![0; 64 << 20]),
            echo => io.output.push(echo),
        }
        io.input.consume(usize::MAX);
    }

    fn on_turn(&mut self, _: Instant) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_client_that_does_not_read_costs_no_turns() {
    let turns = Arc::new(AtomicU64::new(0));
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr();
    let loops = reactor::start(listener, &Config::default(), |_| Giver { turns: Arc::clone(&turns) }).unwrap();
    let mut stalled = TcpStream::connect(addr).unwrap();
    stalled.write_all(b"!").unwrap();
    let mut first = [0; 1];
    stalled.read_exact(&mut first).unwrap();

    let mut other = TcpStream::connect(addr).unwrap();
    other.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // By the time of these answers the loop has written all that the first client's socket takes.
    for _ in 0..200 {
        other.write_all(b"?").unwrap();
        other.read_exact(&mut first).unwrap();
    }
    let before = turns.load(Ordering::Relaxed);
    other.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let error = other.read_exact(&mut first).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    let idle = turns.load(Ordering::Relaxed) - before;
    assert!(idle < 20, "{idle} turns with nothing to do");
    drop(stalled);
    loops.control().stop();
    loops.join().unwrap();
}
