//! Reads many event streams and tells what the server paid for each event.
//!
//! `fanout_load ADDRESS STREAMS SECONDS SERVER_PID`: opens the streams from several loopback addresses, waits until each has
//! had an event, then counts for that many seconds. Prints one JSON object. An event is a line `data: <20 digits>`, the
//! time at which it was made (`peers::now_nanos`), so that its way to here can be timed.

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use peers::load::{Argument, connect, cpu_nanos, percentile};
use peers::{TICK, now_nanos, raise_descriptor_limit};

const REQUEST: &[u8] = b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
const STAMP_DIGITS: usize = 20;
/// Connections that are being opened at a time, well below any server's backlog.
const OPENING_MAX: usize = 256;
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);

struct Client {
    socket: TcpStream,
    /// The request has been sent.
    asked: bool,
    /// The end of what was read: a line may come in two pieces.
    tail: Vec<u8>,
    events: u64,
}

struct Load {
    poll: Poll,
    clients: Vec<Client>,
    /// Clients that have had an event.
    live: usize,
    lost: usize,
    /// From event to arrival, while counting.
    delays_nanos: Option<Vec<u64>>,
    input: Vec<u8>,
}

impl Load {
    fn open(&mut self, addr: SocketAddr) -> io::Result<()> {
        let mut socket = connect(addr, self.clients.len())?;
        let token = Token(self.clients.len());
        self.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        self.clients.push(Client { socket, asked: false, tail: Vec::new(), events: 0 });
        Ok(())
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        self.poll.poll(events, Some(Duration::from_millis(50)))?;
        for event in events.iter() {
            let client = &mut self.clients[event.token().0];
            if !client.asked && event.is_writable() {
                client.asked = client.socket.write(REQUEST).is_ok();
                // From now on it only reads.
                self.poll.registry().reregister(&mut client.socket, event.token(), Interest::READABLE)?;
            }
            if event.is_readable() {
                self.read(event.token().0)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> io::Result<()> {
        let client = &mut self.clients[index];
        loop {
            match client.socket.read(&mut self.input) {
                Ok(0) => break self.lose(index),
                Ok(length) => {
                    let now = now_nanos();
                    client.tail.extend_from_slice(&self.input[..length]);
                    let mut seen = 0;
                    while let Some((stamp, end)) = next_stamp(&client.tail[seen..]) {
                        seen += end;
                        client.events += 1;
                        self.live += usize::from(client.events == 1);
                        if let Some(delays) = &mut self.delays_nanos {
                            delays.push(now.saturating_sub(stamp));
                        }
                    }
                    client.tail.drain(..seen);
                    // A short read has emptied the socket.
                    if length < self.input.len() {
                        break Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(_) => break self.lose(index),
            }
        }
    }

    fn lose(&mut self, index: usize) -> io::Result<()> {
        self.lost += 1;
        self.poll.registry().deregister(&mut self.clients[index].socket)
    }
}

/// The first event in `bytes`, and where it ends.
fn next_stamp(bytes: &[u8]) -> Option<(u64, usize)> {
    let line = memchr::memmem::find(bytes, b"data:")?;
    let digits = line + 5 + usize::from(*bytes.get(line + 5)? == b' ');
    let end = digits + STAMP_DIGITS;
    let stamp = bytes.get(digits..end)?;
    Some((str::from_utf8(stamp).ok()?.parse().ok()?, end))
}

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let addr: SocketAddr = arguments.number("address")?;
    let streams: usize = arguments.number("streams")?;
    let seconds: u64 = arguments.number("seconds")?;
    let pid: i32 = arguments.number("server pid")?;
    let descriptors = raise_descriptor_limit();
    if (descriptors as usize) < streams + 16 {
        eprintln!("only {descriptors} descriptors for {streams} streams: raise the hard limit");
    }

    let mut events = Events::with_capacity(1024);
    let mut load = Load {
        poll: Poll::new()?,
        clients: Vec::with_capacity(streams),
        live: 0,
        lost: 0,
        delays_nanos: None,
        input: vec![0; 16 << 10],
    };
    let began = Instant::now();
    while load.live + load.lost < streams && began.elapsed() < OPEN_TIMEOUT {
        while load.clients.len() < streams && load.clients.len() - load.live - load.lost < OPENING_MAX {
            load.open(addr)?;
        }
        load.turn(&mut events)?;
    }
    let (live, opened_in) = (load.live, began.elapsed());

    load.delays_nanos = Some(Vec::with_capacity(streams * seconds as usize * 12));
    let (began, cpu) = (Instant::now(), cpu_nanos(pid)?);
    while began.elapsed() < Duration::from_secs(seconds) {
        load.turn(&mut events)?;
    }
    let (elapsed, cpu) = (began.elapsed(), cpu_nanos(pid)? - cpu);

    let mut delays = load.delays_nanos.take().unwrap_or_default();
    delays.sort_unstable();
    let delivered = delays.len();
    let due = streams as f64 * elapsed.as_secs_f64() / TICK.as_secs_f64();
    println!(
        "{{\"streams\": {live}, \"lost\": {}, \"opened_in_s\": {:.2}, \"events\": {delivered}, \"events_due\": {due:.0}, \
         \"events_per_second\": {:.0}, \"p50_ms\": {:.3}, \"p99_ms\": {:.3}, \"max_ms\": {:.3}, \
         \"server_cpu_us_per_event\": {:.3}}}",
        load.lost,
        opened_in.as_secs_f64(),
        delivered as f64 / elapsed.as_secs_f64(),
        percentile(&delays, 50.0) / 1e6,
        percentile(&delays, 99.0) / 1e6,
        percentile(&delays, 100.0) / 1e6,
        cpu as f64 / 1e3 / delivered.max(1) as f64,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_whole_or_not_at_all() {
        let line = b"5\r\ndata: 00000000000000000042\n\n";
        for cut in 0..line.len() {
            let expected = (cut >= 29).then_some((42, 29));
            assert_eq!(next_stamp(&line[..cut]), expected, "cut at {cut}");
        }
        assert_eq!(next_stamp(b"data:00000000000000000007\n\n"), Some((7, 25)));
        assert_eq!(next_stamp(b": ping\n\n"), None);
    }
}
