//! The listening socket, and whose connection the next one will be.
//!
//! Policy: a new connection goes to the least loaded loop (`balance`); with SO_REUSEPORT each loop has a listener of its
//! own and keeps what it accepts. When the process is out of descriptors, clients are told so with one that is kept for
//! that, and the listener rests for a while instead of spinning.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use super::addresses::{Addresses, Seat};
use super::balance::Balance;
use super::counters::Counters;

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
    sharing: Sharing,
}

/// Whether other sockets may listen on the same address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Exclusive,
    ReusePort,
}

impl Listener {
    /// Binds the first of the addresses that can be bound. Port 0 takes a free one.
    ///
    /// One loop accepts and gives each connection to the least loaded one.
    ///
    /// # Errors
    /// The message names the address and what to do about it.
    pub fn bind(addrs: impl ToSocketAddrs) -> io::Result<Listener> {
        bind(addrs, Sharing::Exclusive)
    }

    /// Like [`bind`](Listener::bind), with SO_REUSEPORT: each loop gets a listener of its own on this address and keeps
    /// what it accepts. For floods of short connections: nothing is handed from thread to thread. The kernel spreads
    /// them by a hash of the addresses, not by load, and other processes of the same user can join in. Meant for
    /// Linux; elsewhere the kernel may give everything to one of them.
    ///
    /// # Errors
    /// The message names the address and what to do about it.
    pub fn bind_reuse_port(addrs: impl ToSocketAddrs) -> io::Result<Listener> {
        bind(addrs, Sharing::ReusePort)
    }

    /// The address that is really bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether each loop is to have a listener of its own.
    pub(crate) fn is_shared(&self) -> bool {
        self.sharing == Sharing::ReusePort
    }

    /// Another one on the same address, if that is shared.
    pub(crate) fn sibling(&self) -> io::Result<Listener> {
        bind(self.addr, self.sharing)
    }
}

fn bind(addrs: impl ToSocketAddrs, sharing: Sharing) -> io::Result<Listener> {
    let mut failed = io::Error::new(ErrorKind::InvalidInput, "no address to listen on was given");
    for addr in addrs.to_socket_addrs()? {
        match listen(addr, sharing) {
            Ok(listener) => return Ok(listener),
            Err(e) => failed = io::Error::new(e.kind(), explain(addr, &e)),
        }
    }
    Err(failed)
}

fn listen(addr: SocketAddr, sharing: Sharing) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if sharing == Sharing::ReusePort {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    // Output leaves once a turn, in as few writes as possible: there is nothing to wait for. Accepted sockets inherit
    // this option.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    let socket = TcpListener::from_std(socket.into());
    let addr = socket.local_addr()?;
    Ok(Listener { socket, addr, sharing })
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

/// The listener inside a loop that accepts.
pub(crate) struct Acceptor {
    listener: Listener,
    targets: Targets,
    loops: Vec<Arc<Counters>>,
    connections_max: usize,
    addresses: Option<Arc<Addresses>>,
    /// More may wait in the kernel's queue.
    ready: bool,
    rests_until: Option<Instant>,
    /// A descriptor that is given up when there are no others, so that clients can be told instead of left waiting.
    spare: Option<File>,
}

/// Who gets the connections.
pub(crate) enum Targets {
    /// All loops, the least loaded first.
    All(Balance),
    /// The loop that accepts them, which has this number; the kernel spreads them over the listeners.
    Own(usize),
}

/// What to do with a connection.
pub(crate) enum Accepted {
    /// It belongs to the loop with this number.
    For(usize, Newcomer),
    Refused(TcpStream, Refusal),
}

/// A connection that is let in.
pub(crate) struct Newcomer {
    pub socket: TcpStream,
    pub peer: SocketAddr,
    /// Where connections per address are counted.
    pub seat: Option<Seat>,
}

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are too many, or no descriptors for more.
    Full,
    /// Too many from this address.
    Address,
}

impl Acceptor {
    pub fn new(
        listener: Listener,
        targets: Targets,
        loops: Vec<Arc<Counters>>,
        connections_max: usize,
        addresses: Option<Arc<Addresses>>,
    ) -> Acceptor {
        let spare = spare();
        Acceptor { listener, targets, loops, connections_max, addresses, ready: false, rests_until: None, spare }
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
        if let Targets::All(balance) = &mut self.targets {
            balance.observe(now, |index| self.loops[index].busy(now));
        }
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
                    if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                        self.turn_away(take);
                    }
                    self.rests_until = Some(now + REST);
                    return;
                }
            }
        }
    }

    fn assign(&self, socket: TcpStream, peer: SocketAddr) -> Accepted {
        let open = |index: usize| self.loops[index].open();
        if (0..self.loops.len()).map(open).sum::<usize>() >= self.connections_max {
            return Accepted::Refused(socket, Refusal::Full);
        }
        let seat = match &self.addresses {
            None => None,
            Some(addresses) => match addresses.seat(peer.ip()) {
                None => return Accepted::Refused(socket, Refusal::Address),
                seat => seat,
            },
        };
        let target = match &self.targets {
            Targets::All(balance) => balance.choose(open),
            Targets::Own(index) => *index,
        };
        self.loops[target].on_assigned();
        Accepted::For(target, Newcomer { socket, peer, seat })
    }

    /// Lets clients in with the spare descriptor, one after the other, only to be told that there is no place.
    fn turn_away(&mut self, mut take: impl FnMut(Accepted)) {
        self.spare = None;
        for _ in 0..ACCEPTS_PER_TURN {
            let Ok((socket, _)) = self.listener.socket.accept() else { break };
            take(Accepted::Refused(socket, Refusal::Full));
        }
        self.spare = spare();
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
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

    /// Accepts `count` connections with what waits on `addr`, and returns who got them: a loop, or a refusal.
    fn accept(acceptor: &mut Acceptor, addr: SocketAddr, count: usize) -> Vec<Result<usize, Refusal>> {
        let clients: Vec<_> = (0..count).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
        let (mut outcomes, mut kept) = (Vec::new(), Vec::new());
        let give_up = Instant::now() + Duration::from_secs(30);
        while outcomes.len() < clients.len() && Instant::now() < give_up {
            acceptor.on_ready();
            acceptor.accept(Instant::now(), |accepted| match accepted {
                Accepted::For(index, newcomer) => {
                    assert!(newcomer.socket.nodelay().unwrap());
                    kept.push(newcomer);
                    outcomes.push(Ok(index));
                }
                Accepted::Refused(_, refusal) => outcomes.push(Err(refusal)),
            });
        }
        outcomes
    }

    fn counters(loops: usize) -> Vec<Arc<Counters>> {
        (0..loops).map(|_| Arc::new(Counters::new(Instant::now()))).collect()
    }

    #[test]
    fn connections_go_to_the_least_loaded_loop_and_stop_at_the_bound() {
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr();
        let loops = counters(3);
        loops[0].on_assigned();
        let targets = Targets::All(Balance::new(3, Instant::now()));
        let mut acceptor = Acceptor::new(listener, targets, loops, 6, None);
        let full = Err(Refusal::Full);
        assert_eq!(accept(&mut acceptor, addr, 7), [Ok(1), Ok(2), Ok(0), Ok(1), Ok(2), full, full]);
    }

    #[test]
    fn an_address_gets_no_more_than_its_seats_until_it_gives_some_back() {
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr();
        let addresses = Some(Arc::new(Addresses::new(2)));
        let mut acceptor = Acceptor::new(listener, Targets::Own(1), counters(2), 100, addresses);
        for _ in 0..2 {
            let refused = Err(Refusal::Address);
            assert_eq!(accept(&mut acceptor, addr, 4), [Ok(1), Ok(1), refused, refused]);
        }
    }

    #[test]
    fn a_shared_address_can_be_bound_again_and_an_exclusive_one_cannot() {
        let shared = Listener::bind_reuse_port("127.0.0.1:0").unwrap();
        assert_eq!(shared.sibling().unwrap().local_addr(), shared.local_addr());
        assert!(Listener::bind(shared.local_addr()).is_err());
        assert!(Listener::bind("127.0.0.1:0").unwrap().sibling().is_err());
    }
}
