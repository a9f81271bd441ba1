//! A protocol on the bare reactor, without HTTP: every byte comes back.
//!
//! ```sh
//! cargo run --no-default-features --example echo -- 127.0.0.1:7000
//! curl -N telnet://127.0.0.1:7000
//! ```

use std::env;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sconce::reactor::{self, Config, Io, Listener, Protocol};

/// With this much unsent the input is left alone; a full input pauses reading, and TCP slows the client down.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

const IDLE: Duration = Duration::from_secs(300);

struct Echo;

impl Protocol for Echo {
    type Connection = SocketAddr;
    type Message = ();

    fn on_open(&mut self, peer: SocketAddr, _now: Instant) -> SocketAddr {
        peer
    }

    fn on_readable(&mut self, _peer: &mut SocketAddr, io: &mut Io<'_, Self>) {
        let count = io.input.len().min(OUTPUT_BYTES_MAX.saturating_sub(io.output.len()));
        io.output.push(&io.input.as_slice()[..count]);
        io.input.consume(count);
        io.set_deadline(Some(io.now + IDLE));
        if io.input_ended() && io.input.is_empty() {
            io.close();
        }
    }

    fn on_flushed(&mut self, peer: &mut SocketAddr, io: &mut Io<'_, Self>) {
        if !io.input.is_empty() {
            self.on_readable(peer, io);
        }
    }

    fn on_deadline(&mut self, _peer: &mut SocketAddr, io: &mut Io<'_, Self>) {
        io.close();
    }
}

fn main() -> io::Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".into());
    let listener = Listener::bind(addr.as_str())?;
    println!("{}", listener.local_addr());
    reactor::start(listener, &Config::default(), |_| Echo)?.join()
}
