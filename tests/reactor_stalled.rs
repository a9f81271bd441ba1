//! A peer that takes nothing costs its loop nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use sconce::reactor::{self, Config, Io, Listener, Protocol};

/// Answers `f` with more than any kernel buffers, and anything else with itself.
struct Flood {
    flushes: Arc<AtomicUsize>,
}

/// Whether this connection was flooded.
struct Flooded(bool);

impl Protocol for Flood {
    type Connection = Flooded;
    type Message = ();

    fn on_open(&mut self, _: SocketAddr, _: Instant) -> Flooded {
        Flooded(false)
    }

    fn on_readable(&mut self, flooded: &mut Flooded, io: &mut Io<'_, Self>) {
        let input = io.input.as_slice().to_vec();
        io.input.consume(input.len());
        if input == b"f" {
            flooded.0 = true;
            io.output.push(&[7; 32 << 20]);
        } else {
            io.output.push(&input);
        }
    }

    fn on_flushed(&mut self, flooded: &mut Flooded, _: &mut Io<'_, Self>) {
        self.flushes.fetch_add(usize::from(flooded.0), Ordering::Relaxed);
    }
}

#[test]
fn output_that_was_refused_is_not_tried_at_every_turn() {
    let flushes = Arc::new(AtomicUsize::new(0));
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr();
    let loops = reactor::start(listener, &Config::default(), |_| Flood { flushes: Arc::clone(&flushes) }).unwrap();

    let mut stalled = TcpStream::connect(addr).unwrap();
    stalled.write_all(b"f").unwrap();
    let mut byte = [0];
    stalled.read_exact(&mut byte).unwrap();
    let mut live = TcpStream::connect(addr).unwrap();
    let mut turns = |count: usize| {
        for _ in 0..count {
            live.write_all(b"x").unwrap();
            live.read_exact(&mut byte).unwrap();
        }
        flushes.load(Ordering::Relaxed)
    };
    let before = turns(100);
    let after = turns(500);
    assert!(after - before < 100, "{} flushes in 500 turns of a peer that takes nothing", after - before);
    loops.control().stop();
    loops.join().unwrap();
}
