//! What idle connections cost: `idle SERVER_BINARY [CONNECTIONS] [SECONDS]`.
//!
//! Opens kept-alive connections that each make one request, holds them for some seconds, and tells the server's memory for
//! each, its CPU, and how a live client fares meanwhile. One process may hold some 20,000 descriptors, so that many connections
//! are spread over several servers, each with a client process of its own (`idle hold ADDRESS COUNT FIRST`).

use std::env;
use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use peers::load::{Argument, Probe, ServerProcess, connect, cpu_nanos};
use peers::{HELLO, raise_descriptor_limit};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Descriptors that a process needs for itself.
const SPARE_DESCRIPTORS: usize = 200;
const OPENING_MAX: usize = 256;
const OPEN_TIMEOUT: Duration = Duration::from_secs(120);
const PROBE_PAUSE: Duration = Duration::from_millis(2);

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1).peekable();
    if arguments.next_if(|word| word == "hold").is_some() {
        return hold(arguments.number("address")?, arguments.number("count")?, arguments.number("first index")?);
    }
    let binary: String = arguments.number("server binary")?;
    let connections = if arguments.peek().is_some() { arguments.number("connections")? } else { 50_000 };
    let seconds = if arguments.peek().is_some() { arguments.number("seconds")? } else { 10 };
    let room = raise_descriptor_limit() as usize - SPARE_DESCRIPTORS;
    measure(&binary, connections, connections.div_ceil(room), Duration::from_secs(seconds))
}

fn measure(binary: &str, connections: usize, processes: usize, time: Duration) -> io::Result<()> {
    let share = connections.div_ceil(processes);
    let servers: Vec<_> =
        (0..processes).map(|_| ServerProcess::start(binary, "/dev/null")).collect::<io::Result<_>>()?;
    // The first requests make what a server makes once.
    let quiet: Vec<_> = servers.iter().map(|server| Probe::start(server.addr, PROBE_PAUSE)).collect();
    thread::sleep(Duration::from_secs(1));
    let alone: Vec<_> = quiet.into_iter().map(Probe::finish).collect();
    let before = usage(&servers)?;

    let began = Instant::now();
    let mut holders = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        let count = share.min(connections - index * share);
        holders.push(Holder::start(server.addr, count, index * share)?);
    }
    let held = holders.iter_mut().map(Holder::told).sum::<io::Result<usize>>()?;
    println!(
        "{held} of {connections} connections to {processes} servers held after {:.1} s",
        began.elapsed().as_secs_f64()
    );

    let cpu = cpu(&servers)?;
    thread::sleep(time / 2);
    let idle_cpu = self::cpu(&servers)? - cpu;
    let after = usage(&servers)?;
    let probes: Vec<_> = servers.iter().map(|server| Probe::start(server.addr, PROBE_PAUSE)).collect();
    thread::sleep(time);
    let live: Vec<_> = probes.into_iter().map(Probe::finish).collect();
    let open = holders.iter_mut().map(Holder::release).sum::<io::Result<usize>>()?;

    let each = |before: u64, after: u64| (after as f64 - before as f64) / held.max(1) as f64;
    println!("{open} of them still open after {:.1} s", began.elapsed().as_secs_f64());
    println!("resident: {:.0} bytes per connection", each(before.resident, after.resident));
    match (before.heap, after.heap) {
        (Some(before), Some(after)) => println!("heap: {:.0} bytes per connection", each(before, after)),
        _ => println!("heap: this server does not tell"),
    }
    println!("CPU while nothing is asked: {:.2} ms in {:.1} s", idle_cpu as f64 / 1e6, time.as_secs_f64() / 2.0);
    for (alone, live) in alone.iter().zip(&live) {
        println!("live client: {live}\n  before the idle ones: {alone}");
    }
    Ok(())
}

struct Usage {
    resident: u64,
    heap: Option<u64>,
}

fn usage(servers: &[ServerProcess]) -> io::Result<Usage> {
    let mut sum = Usage { resident: 0, heap: Some(0) };
    for server in servers {
        sum.resident += server.resident_bytes()?;
        sum.heap = sum.heap.zip(server.heap_bytes()?).map(|(sum, heap)| sum + heap);
    }
    Ok(sum)
}

fn cpu(servers: &[ServerProcess]) -> io::Result<u64> {
    servers.iter().map(|server| cpu_nanos(server.pid())).sum()
}

/// A client process. It tells how many connections it holds, and lets go when its input ends.
struct Holder {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Holder {
    fn start(addr: SocketAddr, count: usize, first: usize) -> io::Result<Holder> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["hold", &addr.to_string(), &count.to_string(), &first.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let lines = child.stdout.take().ok_or_else(|| Error::other("no output"))?;
        Ok(Holder { child, lines: BufReader::new(lines) })
    }

    fn told(&mut self) -> io::Result<usize> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        line.trim().parse().map_err(|_| Error::other("a client process failed"))
    }

    /// Ends the process; gives the connections that the server had not closed.
    fn release(&mut self) -> io::Result<usize> {
        drop(self.child.stdin.take());
        let open = self.told();
        self.child.wait()?;
        open
    }
}

fn hold(addr: SocketAddr, count: usize, first: usize) -> io::Result<()> {
    raise_descriptor_limit();
    let mut held = open(addr, count, first)?;
    println!("{}", held.len());
    io::stdin().read_to_end(&mut Vec::new())?;
    let open = |socket: &mut TcpStream| matches!(socket.read(&mut [0]), Err(e) if e.kind() == ErrorKind::WouldBlock);
    println!("{}", held.iter_mut().filter_map(|socket| open(socket).then_some(())).count());
    Ok(())
}

/// The connections that have had an answer.
fn open(addr: SocketAddr, count: usize, first: usize) -> io::Result<Vec<TcpStream>> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut opening: Vec<Option<TcpStream>> = Vec::with_capacity(count);
    let (mut held, mut lost, mut answer) = (Vec::with_capacity(count), 0, [0; 1024]);
    let began = Instant::now();
    while held.len() + lost < count && began.elapsed() < OPEN_TIMEOUT {
        while opening.len() < count && opening.len() - held.len() - lost < OPENING_MAX {
            let mut socket = connect(addr, first + opening.len())?;
            poll.registry().register(&mut socket, Token(opening.len()), Interest::WRITABLE)?;
            opening.push(Some(socket));
        }
        poll.poll(&mut events, Some(Duration::from_millis(100)))?;
        for event in &events {
            let slot = &mut opening[event.token().0];
            let Some(mut socket) = slot.take() else { continue };
            let step = if event.is_writable() && !event.is_readable() {
                socket
                    .write(REQUEST)
                    .and_then(|_| poll.registry().reregister(&mut socket, event.token(), Interest::READABLE))
                    .map(|()| false)
            } else {
                socket.read(&mut answer).map(|length| answer[..length].ends_with(HELLO.as_bytes()))
            };
            match step {
                Ok(true) => held.push(socket),
                Ok(false) => *slot = Some(socket),
                Err(error) if error.kind() == ErrorKind::WouldBlock => *slot = Some(socket),
                Err(_) => lost += 1,
            }
        }
    }
    Ok(held)
}
