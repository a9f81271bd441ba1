//! What the load tools have in common: many connections from one machine, a healthy client that is timed, and the server
//! process with what it costs.

mod probe;
mod process;

pub use probe::{Probe, Timings};
pub use process::{ServerProcess, cpu_nanos};

use std::io::{self, Error};
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use mio::net::TcpStream;
use socket2::{Domain, Socket, Type};

/// Connections from one source address, well within the usual range of ephemeral ports.
const PER_SOURCE: usize = 5_000;

/// Begins the connection of this index. Sources are 127.0.1.1, 127.0.1.2 …, since one address has too few ports.
pub fn connect(addr: SocketAddr, index: usize) -> io::Result<TcpStream> {
    connect_from(addr, (index / PER_SOURCE) as u16)
}

/// Begins a connection from the loopback address of this number.
pub fn connect_from(addr: SocketAddr, source: u16) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    let [high, low] = (source + 1).to_be_bytes();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, high + 1, low), 0)).into())?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&addr.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// A percentile of sorted values, 0 if there are none.
pub fn percentile(sorted: &[u64], percent: f64) -> f64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).or(sorted.last()).map_or(0.0, |value| *value as f64)
}

/// Arguments by position.
pub trait Argument {
    /// The next one, or an error that says which is missing or wrong.
    fn number<T: FromStr>(&mut self, name: &str) -> io::Result<T>;
}

impl<I: Iterator<Item = String>> Argument for I {
    fn number<T: FromStr>(&mut self, name: &str) -> io::Result<T> {
        let word = self.next().ok_or_else(|| Error::other(format!("missing: {name}")))?;
        word.parse().map_err(|_| Error::other(format!("{name}: {word:?}")))
    }
}
