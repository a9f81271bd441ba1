//! Who is let in: bounds for each address, listeners for each loop, and what happens when descriptors run out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sconce::reactor::{self, Config, Io, Listener, Loops, Protocol};

const PATIENCE: Duration = Duration::from_secs(30);

/// Sends back what comes; who is not let in hears "full".
struct Echo;

impl Protocol for Echo {
    type Connection = ();
    type Message = ();

    fn on_open(&mut self, _: SocketAddr, _: Instant) {}

    fn on_readable(&mut self, _: &mut (), io: &mut Io<'_, Self>) {
        io.output.push(io.input.as_slice());
        io.input.consume(usize::MAX);
        if io.input_ended() {
            io.close();
        }
    }

    fn refusal(&self) -> &[u8] {
        b"full"
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"echo").unwrap();
    socket
}

/// Whether a client was let in. Every client gets one of the two answers.
fn is_in(mut socket: &TcpStream) -> bool {
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).unwrap();
    match &answer {
        b"echo" => true,
        b"full" => {
            assert_eq!(socket.read(&mut [0]).unwrap(), 0);
            false
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE);
        thread::yield_now();
    }
}

fn open(loops: &Loops<()>) -> usize {
    loops.control().counters().iter().map(|counters| counters.open()).sum()
}

#[test]
fn one_address_gets_no_more_than_its_share() {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr();
    let config = Config { threads: 2, connections_per_address_max: Some(3), ..Config::default() };
    let loops = reactor::start(listener, &config, |_| Echo).unwrap();
    for round in 1..=3 {
        let clients: Vec<TcpStream> = (0..5).map(|_| connect(addr)).collect();
        let count = clients.iter().filter(|client| is_in(client)).count();
        assert_eq!(count, 3);
        let control = loops.control();
        let counters = &control.counters()[0];
        assert_eq!((counters.refused(), counters.refused_per_address()), (2 * round, 2 * round));
        drop(clients);
        wait_until(|| open(&loops) == 0);
    }
    loops.control().stop();
    loops.join().unwrap();
}

#[test]
fn each_loop_accepts_for_itself_on_a_shared_port() {
    let listener = Listener::bind_reuse_port("127.0.0.1:0").unwrap();
    let addr = listener.local_addr();
    let loops = reactor::start(listener, &Config { threads: 3, ..Config::default() }, |_| Echo).unwrap();
    let clients: Vec<TcpStream> = (0..200).map(|_| connect(addr)).collect();
    assert!(clients.iter().all(is_in));
    let opened: Vec<u64> = loops.control().counters().iter().map(|counters| counters.opened()).collect();
    assert_eq!(opened.iter().sum::<u64>(), 200);
    if cfg!(target_os = "linux") {
        assert!(opened.iter().all(|opened| *opened > 10), "the kernel spreads them: {opened:?}");
    }
    // Draining reaches all loops, and nobody waits in a queue that nobody looks at any more.
    loops.control().drain(PATIENCE);
    for mut client in &clients {
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    drop(clients);
    loops.join().unwrap();
}

#[test]
fn a_later_drain_can_bring_the_end_nearer() {
    struct Stubborn;
    impl Protocol for Stubborn {
        type Connection = ();
        type Message = ();

        fn on_open(&mut self, _: SocketAddr, _: Instant) {}

        fn on_readable(&mut self, _: &mut (), _: &mut Io<'_, Self>) {}

        fn on_drain(&mut self, _: &mut (), io: &mut Io<'_, Self>) {
            io.output.push(b"no");
        }
    }
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr();
    let loops = reactor::start(listener, &Config { threads: 2, ..Config::default() }, |_| Stubborn).unwrap();
    let clients = [(); 4].map(|()| connect(addr));
    loops.control().drain(Duration::from_secs(3600));
    for mut client in &clients {
        client.read_exact(&mut [0; 2]).unwrap();
    }
    loops.control().drain(Duration::ZERO);
    loops.join().unwrap();
}

#[test]
fn counters_tell_bytes_turns_and_time() {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr();
    let loops = reactor::start(listener, &Config::default(), |_| Echo).unwrap();
    for _ in 0..10 {
        assert!(is_in(&connect(addr)));
    }
    wait_until(|| open(&loops) == 0);
    let control = loops.control();
    loops.control().stop();
    loops.join().unwrap();
    let counters = &control.counters()[0];
    assert_eq!((counters.opened(), counters.bytes_in(), counters.bytes_out()), (10, 40, 40));
    assert!(counters.turns() >= 2 && counters.busy(Instant::now()) > Duration::ZERO);
}

const CHILD: &str = "SCONCE_TEST_FEW_DESCRIPTORS";

/// The server of the next test, in a process of its own: it prints its address and runs until its input ends.
#[test]
#[cfg(target_os = "linux")]
fn server_with_few_descriptors() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr();
    let loops = reactor::start(listener, &Config::default(), |_| Echo).unwrap();
    let limit = libc::rlimit { rlim_cur: 40, rlim_max: 40 };
    // SAFETY: `limit` is a valid rlimit that outlives the call, which only reads it.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    // Only now, so that no client comes before the limit holds.
    println!("\naddress {addr}");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    loops.control().stop();
    loops.join().unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn without_descriptors_clients_are_told_and_later_ones_served() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "server_with_few_descriptors", "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its output stays open until it has ended.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let addr = lines.find_map(|line| line.strip_prefix("address ").map(str::to_owned));
    let addr = addr.expect("the child prints its address").parse().unwrap();

    let clients: Vec<TcpStream> = (0..100).map(|_| connect(addr)).collect();
    let inside: Vec<bool> = clients.iter().map(is_in).collect();
    let count = inside.iter().filter(|inside| **inside).count();
    assert!((10..40).contains(&count), "{count}");
    drop(clients);
    // The places of those who left are free again, at the latest when the listener has rested.
    wait_until(|| is_in(&connect(addr)));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
