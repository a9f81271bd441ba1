//! The server as a process: signals, descriptors, idle CPU. The test binary starts itself again as the server.

#![cfg(unix)]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{self, Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sconce::http::{Reply, Request, Router, Server, ServerConfig};

const CHILD: &str = "SCONCE_TEST_SERVES";

/// Not a test of its own: what the processes of the other tests run.
#[test]
fn child() {
    if env::var_os(CHILD).is_none() {
        return;
    }
    let config = ServerConfig { threads: 1, drain_timeout: Duration::from_secs(60), ..ServerConfig::default() };
    let server = Server::bind("127.0.0.1:0", config).unwrap();
    println!("listening {}", server.local_addr());
    let router = Router::new().get("/", |_: &Request<'_>| "Hello, World!").get("/slow", |_: &Request<'_>| {
        let (reply, responder) = Reply::later();
        thread::spawn(move || {
            let sse = responder.sse(&[]);
            sse.event("begun");
            while !sse.is_closed() {
                thread::park_timeout(Duration::from_millis(10));
            }
        });
        reply
    });
    server.serve(router).unwrap();
    // The test harness would go on to write its report, which nobody reads.
    process::exit(0);
}

struct Process {
    child: Child,
    addr: String,
}

impl Process {
    /// Starts the server, with at most `descriptors` of them when that is given.
    fn start(descriptors: Option<u32>) -> Process {
        let limit = descriptors.map_or(String::new(), |count| format!("ulimit -n {count}; "));
        let mut child = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$0\" --exact child --nocapture")])
            .arg(env::current_exe().unwrap())
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = lines.map_while(Result::ok).find_map(|line| {
            let (_, addr) = line.split_once("listening ")?;
            Some(addr.to_string())
        });
        Process { child, addr: addr.expect("the server says where it listens") }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(&self.addr).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// User and system time so far, in clock ticks of 10 ms. Linux only.
    fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended, in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(socket: &mut TcpStream) -> String {
    socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// Begins a stream and waits for its first event.
fn stream(process: &Process) -> BufReader<TcpStream> {
    let mut socket = process.connect();
    socket.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    while !line.contains("begun") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0);
    }
    reader
}

#[test]
fn a_signal_ends_an_idle_server_well() {
    for name in ["TERM", "INT"] {
        let mut process = Process::start(None);
        assert!(get(&mut process.connect()).ends_with("Hello, World!"));
        process.signal(name);
        assert!(process.child.wait().unwrap().success(), "{name}");
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let mut process = Process::start(None);
    let mut reader = stream(&process);
    process.signal("TERM");
    let start = Instant::now();
    while TcpStream::connect(&process.addr).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(30), "a draining server lets clients in");
    }
    assert!(process.child.try_wait().unwrap().is_none(), "a running stream is not cut");
    process.signal("TERM");
    assert!(process.child.wait().unwrap().success());
    let mut rest = Vec::new();
    // Cut, by an end or by a reset.
    let _ = reader.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"));
}

#[test]
#[cfg(target_os = "linux")]
fn without_descriptors_the_listener_rests_and_then_goes_on() {
    let process = Process::start(Some(40));
    let mut early = process.connect();
    let clients: Vec<TcpStream> = (0..100).map(|_| process.connect()).collect();
    // The server cannot take them all in, and must not spin over it.
    let (before, start) = (process.cpu_ticks(), Instant::now());
    assert!(get(&mut early).ends_with("Hello, World!"), "who is in is served");
    while start.elapsed() < Duration::from_millis(1200) {
        thread::park_timeout(Duration::from_millis(100));
    }
    let spent = process.cpu_ticks() - before;
    assert!(spent < 12, "{spent} ticks of CPU in 1.2 s");
    drop(clients);
    assert!(get(&mut process.connect()).ends_with("Hello, World!"));
}

#[test]
#[cfg(target_os = "linux")]
fn idle_connections_cost_no_cpu() {
    let process = Process::start(None);
    let mut clients: Vec<TcpStream> = (0..50).map(|_| process.connect()).collect();
    assert!(get(&mut clients[0]).ends_with("Hello, World!"));
    let before = process.cpu_ticks();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(700) {
        thread::park_timeout(Duration::from_millis(100));
    }
    assert!(process.cpu_ticks() - before <= 1);
}
