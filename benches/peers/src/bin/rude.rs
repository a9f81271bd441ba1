//! A server among rude clients: `taskset -c 1 rude SERVER_BINARY [SEED]`.
//!
//! One kind after the other: slowloris, readers of events and of a file at a byte per second, garbage, resets. A healthy client
//! is timed throughout, and the server's descriptors and memory are told. Everything is done twice: what a server and its
//! allocator keep for later is there after the first round, what the second adds has leaked. All of it is bounded in
//! count and time.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{self, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, process};

use mio::net::TcpStream;
use peers::load::{Argument, Probe, ServerProcess, connect_from};
use peers::raise_descriptor_limit;
use socket2::SockRef;

const CLIENTS: usize = 500;
const PAYLOADS: usize = 2_000;
const BATCH: usize = 50;
const RESETS: usize = 20_000;
const PHASE: Duration = Duration::from_secs(15);
/// How long the server may take to let go of clients that have gone.
const SETTLE: Duration = Duration::from_secs(20);
const PROBE_PAUSE: Duration = Duration::from_millis(5);
const FILE_BYTES: usize = 1 << 20;
/// What the second round may add: nothing but noise of the allocator.
const RESIDENT_GROWTH_MAX: u64 = 4 << 20;

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1).peekable();
    let binary: String = arguments.number("server binary")?;
    let seed = if arguments.peek().is_some() { arguments.number("seed")? } else { 1 };
    raise_descriptor_limit();
    let folder = env::temp_dir().join(format!("rude-{}", process::id()));
    fs::create_dir(&folder)?;
    let file = folder.join("file");
    fs::write(&file, vec![b'x'; FILE_BYTES])?;
    let verdict = run(&binary, &file.to_string_lossy(), seed);
    fs::remove_dir_all(&folder)?;
    if verdict? { Ok(()) } else { Err(Error::other("the server is not back where it was")) }
}

fn run(binary: &str, file: &str, seed: u64) -> io::Result<bool> {
    let server = ServerProcess::start(binary, file)?;
    attack(&server, "nobody rude", &|| {
        thread::sleep(Duration::from_secs(3));
        Ok("3 s".into())
    })?;
    // Servers may keep a file open that was asked for.
    fetch(server.addr, "/file")?;
    let descriptors = server.descriptors()?;
    let mut resident = Vec::new();
    for round in 1..=2 {
        let (addr, seed) = (server.addr, seed + round);
        attack(&server, "slowloris", &|| slowloris(addr))?;
        attack(&server, "one-byte readers of events", &|| slow_readers(addr, "/events"))?;
        attack(&server, "one-byte readers of large events", &|| slow_readers(addr, "/flood"))?;
        attack(&server, "one-byte readers of a 1 MiB file", &|| slow_readers(addr, "/file"))?;
        attack(&server, "garbage", &|| garbage(addr, seed))?;
        attack(&server, "resets", &|| resets(addr, seed))?;
        let took = settle(&server, descriptors)?;
        println!("round {round}, {:.1} s later: {}", took.as_secs_f64(), state(&server)?);
        resident.push(server.resident_bytes()?);
    }
    Ok(server.descriptors()? <= descriptors && resident[1] <= resident[0] + RESIDENT_GROWTH_MAX)
}

fn attack(server: &ServerProcess, name: &str, clients: &dyn Fn() -> io::Result<String>) -> io::Result<()> {
    server.forget_peak()?;
    let probe = Probe::start(server.addr, PROBE_PAUSE);
    let told = clients()?;
    let timings = probe.finish();
    println!("{name}: {told}\n  healthy client: {timings}\n  server: {}", state(server)?);
    Ok(())
}

fn state(server: &ServerProcess) -> io::Result<String> {
    let (descriptors, resident, peak) = (server.descriptors()?, server.resident_bytes()?, server.peak_bytes()?);
    let heap = server.heap_bytes()?.map_or_else(|| "?".into(), |bytes| (bytes >> 10).to_string());
    Ok(format!("{descriptors} descriptors, {} KiB resident (at most {}), {heap} KiB heap", resident >> 10, peak >> 10))
}

fn fetch(addr: SocketAddr, path: &str) -> io::Result<()> {
    let mut socket = net::TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    socket.read_to_end(&mut Vec::new()).map(drop)
}

/// Waits until the server has at most this many descriptors.
fn settle(server: &ServerProcess, descriptors: usize) -> io::Result<Duration> {
    let began = Instant::now();
    while began.elapsed() < SETTLE && server.descriptors()? > descriptors {
        thread::sleep(Duration::from_millis(100));
    }
    Ok(began.elapsed())
}

/// What a non-blocking read found.
enum Heard {
    Nothing,
    Bytes(usize),
    End,
}

fn hear(socket: &mut TcpStream, into: &mut [u8]) -> Heard {
    match socket.read(into) {
        Ok(0) => Heard::End,
        Ok(length) => Heard::Bytes(length),
        Err(error) if error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::NotConnected => {
            Heard::Nothing
        }
        Err(_) => Heard::End,
    }
}

/// Heads that never end: each client adds a byte every 100 ms, and comes again when it is cut off.
fn slowloris(addr: SocketAddr) -> io::Result<String> {
    let head: Vec<u8> =
        b"GET / HTTP/1.1\r\nHost: localhost\r\n".iter().copied().chain(b"X-a: b\r\n".repeat(100)).collect();
    let open = || Ok::<_, Error>((connect_from(addr, 0)?, 0));
    let mut clients: Vec<(TcpStream, usize)> = (0..CLIENTS).map(|_| open()).collect::<io::Result<_>>()?;
    let (began, mut answered, mut cut) = (Instant::now(), 0, 0);
    while began.elapsed() < PHASE {
        for client in &mut clients {
            match hear(&mut client.0, &mut [0; 512]) {
                Heard::Nothing => client.1 += client.0.write(&head[client.1 % head.len()..][..1]).unwrap_or(0),
                Heard::Bytes(_) => answered += 1,
                Heard::End => {
                    cut += 1;
                    *client = open()?;
                }
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(format!("{CLIENTS} clients for {} s; {answered} answered, {cut} cut off", PHASE.as_secs()))
}

/// Clients with the smallest receive buffer that take one byte of their answer every second.
fn slow_readers(addr: SocketAddr, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut clients = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        let socket = connect_from(addr, 0)?;
        SockRef::from(&socket).set_recv_buffer_size(1)?;
        clients.push((socket, false));
    }
    let (began, mut bytes, mut ended) = (Instant::now(), 0, 0);
    while began.elapsed() < PHASE {
        clients.retain_mut(|(socket, asked)| {
            *asked = *asked || socket.write(request.as_bytes()).is_ok();
            match hear(socket, &mut [0]) {
                Heard::Bytes(length) => bytes += length,
                Heard::Nothing => {}
                Heard::End => {
                    ended += 1;
                    return false;
                }
            }
            true
        });
        thread::sleep(Duration::from_secs(1));
    }
    Ok(format!("{CLIENTS} clients for {} s; {bytes} bytes read, {ended} ended by the server", PHASE.as_secs()))
}

/// Bytes that are no requests, or nearly: each on a connection of its own, 50 at a time, for at most a second.
fn garbage(addr: SocketAddr, seed: u64) -> io::Result<String> {
    let mut random = Random(seed);
    let (mut answers, mut silent, mut closed) = (BTreeMap::new(), 0, 0);
    for _ in (0..PAYLOADS).step_by(BATCH) {
        let mut clients = Vec::new();
        for _ in 0..BATCH {
            clients.push((connect_from(addr, 1)?, payload(&mut random), Vec::new()));
        }
        let began = Instant::now();
        while !clients.is_empty() && began.elapsed() < Duration::from_secs(1) {
            clients.retain_mut(|(socket, rest, answer)| {
                if !rest.is_empty() {
                    match socket.write(rest) {
                        Ok(sent) => drop(rest.drain(..sent)),
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {}
                        Err(_) => rest.clear(),
                    }
                }
                let mut piece = [0; 4096];
                match hear(socket, &mut piece) {
                    Heard::Nothing => true,
                    Heard::Bytes(length) => {
                        answer.extend_from_slice(&piece[..length]);
                        true
                    }
                    Heard::End => {
                        closed += 1;
                        count_status(answer, &mut answers);
                        false
                    }
                }
            });
            thread::sleep(Duration::from_millis(1));
        }
        for (_, _, answer) in &clients {
            silent += usize::from(answer.is_empty());
            count_status(answer, &mut answers);
        }
    }
    Ok(format!(
        "{PAYLOADS} payloads of seed {seed}; first answers by status {answers:?}; {closed} closed, {silent} wait for more"
    ))
}

fn count_status(answer: &[u8], answers: &mut BTreeMap<u16, usize>) {
    let status = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| str::from_utf8(rest.get(..3)?).ok()?.parse().ok());
    if let Some(status) = status {
        *answers.entry(status).or_default() += 1;
    }
}

fn payload(random: &mut Random) -> Vec<u8> {
    let valid: &[u8] = b"POST /x?y=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nA: b\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunked: &[u8] =
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\n";
    match random.below(6) {
        0 => (0..random.below(4096)).map(|_| random.next() as u8).collect(),
        // Binary protocols that knock at the wrong door: TLS, HTTP/2.
        1 => [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 300][..]].concat(),
        2 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        3 => [b"GET / HTTP/1.1\r\nHost: a\r\nX: ", &vec![b'a'; random.below(100_000)][..]].concat(),
        kind => {
            let mut bytes = if kind == 4 { valid } else { chunked }.to_vec();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes[at] = random.next() as u8,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b" \r\n\0:;,0\xff"[random.below(9)]),
                }
            }
            bytes
        }
    }
}

/// Clients that reset their connection at any moment: at once, in a head, with an answer under way, in a stream.
fn resets(addr: SocketAddr, seed: u64) -> io::Result<String> {
    let mut random = Random(seed ^ 0x5eed);
    let requests: [&[u8]; 5] = [
        b"",
        b"GET / HTT",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let began = Instant::now();
    let mut done = 0;
    while done < RESETS && began.elapsed() < PHASE {
        let mut storm = Vec::new();
        for _ in 0..100 {
            storm.push(connect_from(addr, 2)?);
        }
        for socket in &mut storm {
            let _ = socket.write(requests[random.below(requests.len())]);
        }
        thread::sleep(Duration::from_millis(random.below(40) as u64));
        for socket in storm {
            // Closing with unsent data dropped at once is a reset.
            SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
            done += 1;
        }
    }
    Ok(format!("{done} in {:.1} s, 100 at a time", began.elapsed().as_secs_f64()))
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}
