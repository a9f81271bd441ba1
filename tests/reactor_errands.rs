//! What a protocol does on its own loop: connections to elsewhere, messages between connections, messages to the loop.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sconce::reactor::{self, Config, ConnId, Handle, Io, Listener, LoopControl, Loops, Protocol};

const PATIENCE: Duration = Duration::from_secs(30);

fn start<P: Protocol>(protocol: impl FnMut(usize) -> P) -> (Loops<P::Message>, SocketAddr) {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr();
    (reactor::start(listener, &Config::default(), protocol).unwrap(), addr)
}

fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn read_to_end(mut socket: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    bytes
}

fn bound_socket() -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

/// Joins each client to a connection of its own to `target`.
struct Relay {
    target: SocketAddr,
    connect_timeout: Duration,
}

enum Leg {
    /// `input_held` until the other leg is there.
    Client {
        other: Option<ConnId>,
        input_held: bool,
    },
    Upstream {
        other: ConnId,
    },
}

enum News {
    Connected,
    Bytes(Vec<u8>),
    End,
    Failed(ErrorKind),
}

impl Relay {
    fn pass_on(io: &mut Io<'_, Self>, other: ConnId) {
        if !io.input.is_empty() {
            let bytes = io.input.as_slice().to_vec();
            io.input.consume(bytes.len());
            io.control().send(other, News::Bytes(bytes));
        }
        if io.input_ended() {
            io.control().send(other, News::End);
        }
    }
}

impl Protocol for Relay {
    type Connection = Leg;
    type Message = News;

    fn on_open(&mut self, _: SocketAddr, _: Instant) -> Leg {
        Leg::Client { other: None, input_held: true }
    }

    fn on_ready(&mut self, leg: &mut Leg, io: &mut Io<'_, Self>) {
        let upstream = Leg::Upstream { other: io.id() };
        let deadline = io.now + self.connect_timeout;
        let id = io.control().connect(self.target, upstream, deadline);
        *leg = Leg::Client { other: Some(id), input_held: true };
    }

    fn on_connected(&mut self, leg: &mut Leg, io: &mut Io<'_, Self>) {
        if let Leg::Upstream { other } = leg {
            io.control().send(*other, News::Connected);
        }
    }

    fn on_connect_failed(&mut self, leg: &mut Leg, error: io::Error, control: &mut LoopControl<'_, Self>) {
        if let Leg::Upstream { other } = leg {
            control.send(*other, News::Failed(error.kind()));
        }
    }

    fn on_readable(&mut self, leg: &mut Leg, io: &mut Io<'_, Self>) {
        match leg {
            Leg::Client { other: Some(other), input_held: false } | Leg::Upstream { other } => {
                Relay::pass_on(io, *other)
            }
            Leg::Client { .. } => {}
        }
    }

    fn on_message(&mut self, leg: &mut Leg, news: News, io: &mut Io<'_, Self>) {
        match news {
            News::Connected => {
                if let Leg::Client { input_held, .. } = leg {
                    *input_held = false;
                }
                self.on_readable(leg, io);
            }
            News::Bytes(bytes) => io.output.push_shared(bytes),
            News::End => io.close(),
            News::Failed(kind) => {
                io.output.push(format!("{kind:?}").as_bytes());
                io.close_lingering();
            }
        }
    }
}

#[test]
fn a_relay_passes_everything_on_in_both_directions() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = target.local_addr().unwrap();
    let (loops, addr) = start(|_| Relay { target: relay, connect_timeout: PATIENCE });
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n ^ (n >> 7)) as u8).collect();
    thread::scope(|scope| {
        // The target reads everything, then answers with the same in reverse.
        scope.spawn(|| {
            for _ in 0..3 {
                let (mut socket, _) = target.accept().unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut bytes = vec![0; sent.len()];
                socket.read_exact(&mut bytes).unwrap();
                bytes.reverse();
                socket.write_all(&bytes).unwrap();
            }
        });
        for _ in 0..3 {
            let mut socket = connect(addr);
            socket.write_all(&sent).unwrap();
            let received = read_to_end(&socket);
            assert!(received.iter().rev().eq(&sent), "{} bytes", received.len());
        }
    });
    let start = Instant::now();
    while loops.control().counters()[0].open() > 0 {
        assert!(start.elapsed() < PATIENCE, "outgoing connections are counted as clients");
        thread::yield_now();
    }
    loops.control().drain(PATIENCE);
    loops.join().unwrap();
}

#[test]
fn a_refused_connection_is_told() {
    // Bound, so that nobody else gets the port, but nobody listens there.
    let deaf = bound_socket();
    let target = deaf.local_addr().unwrap().as_socket().unwrap();
    let (loops, addr) = start(|_| Relay { target, connect_timeout: PATIENCE });
    assert_eq!(read_to_end(&connect(addr)), b"ConnectionRefused");
    loops.control().stop();
    loops.join().unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn a_connection_that_takes_too_long_is_given_up() {
    // A listener that never accepts, and whose queue is full: the kernel ignores further clients.
    let full = bound_socket();
    full.listen(0).unwrap();
    let target = full.local_addr().unwrap().as_socket().unwrap();
    let _queued = TcpStream::connect(target).unwrap();
    let (loops, addr) = start(|_| Relay { target, connect_timeout: Duration::from_millis(200) });
    let start = Instant::now();
    assert_eq!(read_to_end(&connect(addr)), b"TimedOut");
    assert!(start.elapsed() >= Duration::from_millis(200));
    // One that is still on its way does not keep the loop from ending.
    let _waiting = connect(addr);
    loops.control().stop();
    loops.join().unwrap();
}

/// Passes what one client says to all, with one message to each loop.
#[derive(Default)]
struct Party {
    guests: Vec<ConnId>,
}

impl Protocol for Party {
    type Connection = ();
    type Message = Arc<[u8]>;

    fn on_open(&mut self, _: SocketAddr, _: Instant) {}

    fn on_ready(&mut self, _: &mut (), io: &mut Io<'_, Self>) {
        self.guests.push(io.id());
        io.output.push(b"!");
    }

    fn on_readable(&mut self, _: &mut (), io: &mut Io<'_, Self>) {
        if io.input_ended() {
            io.close();
        }
    }

    fn on_loop_message(&mut self, said: Arc<[u8]>, control: &mut LoopControl<'_, Self>) {
        self.guests.iter().for_each(|guest| control.send(*guest, Arc::clone(&said)));
    }

    fn on_message(&mut self, _: &mut (), said: Arc<[u8]>, io: &mut Io<'_, Self>) {
        io.output.push_shared(said);
    }

    fn on_close(&mut self, id: ConnId, _: (), _: &mut LoopControl<'_, Self>) {
        self.guests.retain(|guest| *guest != id);
    }
}

#[test]
fn a_message_to_the_loop_reaches_all_its_connections() {
    let (loops, addr) = start(|_| Party::default());
    let handle: Handle<Arc<[u8]>> = loops.control().handles()[0].clone();
    let guests: Vec<TcpStream> = (0..300).map(|_| connect(addr)).collect();
    guests.iter().for_each(|mut guest| guest.read_exact(&mut [0]).unwrap());
    // One who has left hears nothing, and nobody misses a word for that.
    drop(connect(addr));
    let words: Vec<Arc<[u8]>> = [1, 100, 5_000, 100_000].iter().map(|len| vec![*len as u8; *len].into()).collect();
    words.iter().for_each(|word| handle.send_to_loop(Arc::clone(word)));
    let expected = words.concat();
    for mut guest in &guests {
        let mut heard = vec![0; expected.len()];
        guest.read_exact(&mut heard).unwrap();
        assert!(heard == expected);
    }
    loops.control().stop();
    loops.join().unwrap();
}

/// Answers one byte of its input in each turn.
struct Slow;

impl Protocol for Slow {
    type Connection = ();
    type Message = ();

    fn on_open(&mut self, _: SocketAddr, _: Instant) {}

    fn on_readable(&mut self, _: &mut (), io: &mut Io<'_, Self>) {
        io.output.push(&io.input.as_slice()[..io.input.len().min(1)]);
        io.input.consume(1);
        match (io.input.is_empty(), io.input_ended()) {
            (false, _) => io.yield_now(),
            (true, true) => io.close(),
            (true, false) => {}
        }
    }
}

#[test]
fn input_that_a_protocol_leaves_is_seen_to_in_the_next_turns() {
    let (loops, addr) = start(|_| Slow);
    let sockets: Vec<TcpStream> = (0..3).map(|_| connect(addr)).collect();
    let text: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
    for mut socket in &sockets {
        socket.write_all(&text).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
    }
    for socket in &sockets {
        assert!(read_to_end(socket) == text);
    }
    loops.control().stop();
    loops.join().unwrap();
}
