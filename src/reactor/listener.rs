//! The listening socket, and whose connection the next one will be.
//!
//! Policy: a new connection goes to the loop with the fewest. When the process is out of descriptors the listener
//! rests for a while instead of spinning; clients wait in the kernel's queue meanwhile.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use super::server::Counters;

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: i32 = 4096;

/// Accepts in one turn, so that a flood of newcomers does not starve those who are there.
const ACCEPTS_PER_TURN: usize = 64;

/// How long the listener rests when the process is out of descriptors or memory.
const REST: Duration = Duration::from_millis(500);

/// A bound and listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    addr: SocketAddr,
}

impl Listener {
    /// Binds the first of the addresses that can be bound. Port 0 takes a free one.
    ///
    /// # Errors
    /// The message names the address and what to do about it.
    pub fn bind(addrs: impl ToSocketAddrs) -> io::Result<Listener> {
        let mut failed = io::Error::new(ErrorKind::InvalidInput, "no address to listen on was given");
        for addr in addrs.to_socket_addrs()? {
            match listen(addr) {
                Ok(listener) => return Ok(listener),
                Err(e) => failed = io::Error::new(e.kind(), explain(addr, &e)),
            }
        }
        Err(failed)
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

fn listen(addr: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Output leaves once a turn, in as few writes as possible: there is nothing to wait for. Accepted sockets inherit
    // this option.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    let socket = TcpListener::from_std(socket.into());
    let addr = socket.local_addr()?;
    Ok(Listener { socket, addr })
}

fn explain(addr: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => "another program has this port; stop it or choose another port (0 takes a free one)",
        ErrorKind::AddrNotAvailable => "this machine does not have this address; use 127.0.0.1 or 0.0.0.0",
        ErrorKind::PermissionDenied => "ports below 1024 need a privilege; choose a higher one",
        _ => "check the address and the port",
    };
    format!("cannot listen on {addr}: {error}; {advice}")
}

/// The listener inside the loop that accepts.
pub(crate) struct Acceptor {
    listener: Listener,
    loops: Vec<Arc<Counters>>,
    connections_max: usize,
    /// More may wait in the kernel's queue.
    ready: bool,
    rests_until: Option<Instant>,
}

/// What to do with a connection.
pub(crate) enum Accepted {
    /// It belongs to the loop with this number.
    For(usize, TcpStream, SocketAddr),
    /// There are too many.
    TooMany(TcpStream),
}

impl Acceptor {
    pub fn new(listener: Listener, loops: Vec<Arc<Counters>>, connections_max: usize) -> Acceptor {
        Acceptor { listener, loops, connections_max, ready: false, rests_until: None }
    }

    pub fn socket(&mut self) -> &mut TcpListener {
        &mut self.listener.socket
    }

    /// The kernel announced new connections.
    pub fn on_ready(&mut self) {
        self.ready = true;
    }

    /// When to call [`accept`](Acceptor::accept) next, unless an event comes first.
    pub fn next_turn(&self, now: Instant) -> Option<Instant> {
        self.ready.then(|| self.rests_until.unwrap_or(now))
    }

    /// Accepts what waits, up to this turn's share.
    pub fn accept(&mut self, now: Instant, mut take: impl FnMut(Accepted)) {
        if !self.ready || self.rests_until.is_some_and(|until| now < until) {
            return;
        }
        self.rests_until = None;
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.socket.accept() {
                Ok((socket, peer)) => take(self.assign(socket, peer)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.ready = false;
                    return;
                }
                // This client left before it was its turn; the next one may still be there.
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(e) => {
                    log::warn!("cannot accept connections: {e}; trying again in {REST:?}");
                    self.rests_until = Some(now + REST);
                    return;
                }
            }
        }
    }

    fn assign(&self, socket: TcpStream, peer: SocketAddr) -> Accepted {
        let open = self.loops.iter().map(|counters| counters.open());
        if open.clone().sum::<usize>() >= self.connections_max {
            return Accepted::TooMany(socket);
        }
        let least = open.enumerate().min_by_key(|(_, open)| *open).map_or(0, |(index, _)| index);
        self.loops[least].on_assigned();
        Accepted::For(least, socket, peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_advice() {
        let first = Listener::bind("127.0.0.1:0").unwrap();
        let error = Listener::bind(first.local_addr()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(text.contains(&first.local_addr().to_string()) && text.contains("choose another port"), "{text}");
    }

    #[test]
    fn connections_go_to_the_loop_with_the_fewest_and_stop_at_the_bound() {
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr();
        let loops: Vec<_> = (0..3).map(|_| Arc::new(Counters::default())).collect();
        loops[0].on_assigned();
        let mut acceptor = Acceptor::new(listener, loops, 6);
        let clients: Vec<_> = (0..7).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
        let (mut targets, mut refused) = (Vec::new(), 0);
        let give_up = Instant::now() + Duration::from_secs(30);
        while targets.len() + refused < clients.len() && Instant::now() < give_up {
            acceptor.on_ready();
            acceptor.accept(Instant::now(), |accepted| match accepted {
                Accepted::For(index, ..) => targets.push(index),
                Accepted::TooMany(_) => refused += 1,
            });
        }
        assert_eq!((targets, refused), (vec![1, 2, 0, 1, 2], 2));
    }
}
