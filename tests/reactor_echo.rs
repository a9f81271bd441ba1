//! The reactor alone, under a protocol that sends every byte back: nothing is lost or mixed up, whatever the pace.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use sconce::reactor::{self, Config, Io, Listener, Loops, Protocol};

struct Echo;

impl Protocol for Echo {
    type Connection = ();
    type Message = ();

    fn on_open(&mut self, _: SocketAddr, _: Instant) {}

    fn on_readable(&mut self, connection: &mut (), io: &mut Io<'_, Self>) {
        let count = io.input.len().min(100_000_usize.saturating_sub(io.output.len()));
        io.output.push(&io.input.as_slice()[..count]);
        io.input.consume(count);
        if io.input_ended() && io.input.is_empty() {
            self.on_drain(connection, io);
        }
    }

    fn on_flushed(&mut self, connection: &mut (), io: &mut Io<'_, Self>) {
        if !io.input.is_empty() {
            self.on_readable(connection, io);
        }
    }

    fn on_deadline(&mut self, _: &mut (), io: &mut Io<'_, Self>) {
        io.abort();
    }
}

fn start(config: Config) -> (Loops<()>, SocketAddr) {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr();
    (reactor::start(listener, &config, |_| Echo).unwrap(), addr)
}

/// `bytes` pseudo-random bytes.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| step()).collect()
}

#[test]
fn megabytes_come_back_as_they_were_sent() {
    let (loops, addr) = start(Config { threads: 2, ..Config::default() });
    let clients: Vec<_> = (0..8)
        .map(|seed| {
            thread::spawn(move || {
                let sent = noise(seed, 3_000_000);
                let mut socket = TcpStream::connect(addr).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                let mut writing = socket.try_clone().unwrap();
                let bytes = sent.clone();
                let writer = thread::spawn(move || {
                    bytes.chunks(77_777).for_each(|piece| writing.write_all(piece).unwrap());
                    writing.shutdown(Shutdown::Write).unwrap();
                });
                let mut received = Vec::new();
                socket.read_to_end(&mut received).unwrap();
                writer.join().unwrap();
                assert!(sent == received, "seed {seed}: {} of {} bytes", received.len(), sent.len());
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    loops.control().drain(Duration::from_secs(30));
    loops.join().unwrap();
}

#[test]
fn a_client_that_only_writes_is_stopped_and_then_cut() {
    let (loops, addr) = start(Config { write_stall_timeout: Duration::from_millis(200), ..Config::default() });
    let mut socket = TcpStream::connect(addr).unwrap();
    let mut sent = 0;
    let block = [7; 64 << 10];
    // Ends, because what is sent must be held somewhere: two socket buffers each way, the input and the output.
    while socket.write_all(&block).is_ok() {
        sent += block.len();
        assert!(sent < 64 << 20, "the echo buffers without a bound");
    }
    let open = || loops.control().counters()[0].open();
    let start = Instant::now();
    while open() > 0 {
        assert!(start.elapsed() < Duration::from_secs(30));
        thread::yield_now();
    }
    loops.control().stop();
    loops.join().unwrap();
}

struct Broken;

impl Protocol for Broken {
    type Connection = ();
    type Message = ();

    fn on_open(&mut self, _: SocketAddr, _: Instant) {}

    fn on_readable(&mut self, _: &mut (), _: &mut Io<'_, Self>) {
        panic!("on purpose");
    }
}

#[test]
fn a_loop_that_panics_ends_the_others_and_is_named() {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr();
    let config = Config { threads: 2, ..Config::default() };
    let loops = reactor::start(listener, &config, |_| Broken).unwrap();
    let _first = TcpStream::connect(addr).unwrap();
    let mut second = TcpStream::connect(addr).unwrap();
    second.write_all(b"x").unwrap();
    let error = loops.join().unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
}

/// Answers the first bytes and closes, in one way or the other.
struct Once {
    lingering: bool,
}

impl Protocol for Once {
    type Connection = ();
    type Message = ();

    fn on_open(&mut self, _: SocketAddr, _: Instant) {}

    fn on_readable(&mut self, _: &mut (), io: &mut Io<'_, Self>) {
        io.input.consume(usize::MAX);
        io.output.push(b"bye");
        if self.lingering { io.close_lingering() } else { io.close() }
    }
}

/// One exchange with a server that closes; the client's socket after it has seen the end.
fn farewell(lingering: bool) -> (Loops<()>, TcpStream) {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr();
    let loops = reactor::start(listener, &Config::default(), |_| Once { lingering }).unwrap();
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.write_all(b"hello").unwrap();
    let mut received = Vec::new();
    socket.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"bye");
    (loops, socket)
}

#[test]
fn a_close_with_nothing_unread_does_not_wait_for_the_peer() {
    let (loops, socket) = farewell(false);
    let start = Instant::now();
    while loops.control().counters()[0].open() > 0 {
        assert!(start.elapsed() < Duration::from_secs(1), "lingers");
        thread::yield_now();
    }
    drop(socket);
    loops.control().stop();
    loops.join().unwrap();
}

#[test]
fn a_lingering_close_reads_what_the_peer_still_sends() {
    let (loops, mut socket) = farewell(true);
    // A closed socket would answer the first of these with a reset, and the next would fail.
    for _ in 0..20 {
        socket.write_all(&[0; 1000]).unwrap();
        assert_eq!(socket.take_error().unwrap().map(|e| e.kind()), None);
    }
    assert_eq!(loops.control().counters()[0].open(), 1);
    drop(socket);
    let start = Instant::now();
    while loops.control().counters()[0].open() > 0 {
        assert!(start.elapsed() < Duration::from_secs(30));
        thread::yield_now();
    }
    loops.control().stop();
    loops.join().unwrap();
}
