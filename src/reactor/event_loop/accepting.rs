//! How clients come in: accepted by the loop that listens, adopted by the loop that serves them, until draining begins.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Instant;

use mio::Interest;
use mio::net::TcpStream;

use super::EventLoop;
use crate::reactor::Protocol;
use crate::reactor::entry::{Entry, Origin, Phase};
use crate::reactor::listener::Accepted;
use crate::reactor::server::Letter;
use crate::reactor::transport::Transport;

impl<P: Protocol> EventLoop<P> {
    pub(super) fn accept(&mut self) {
        let Some(mut acceptor) = self.acceptor.take() else { return };
        acceptor.accept(self.now, |accepted| self.place(accepted));
        self.acceptor = Some(acceptor);
    }

    /// Gives a new connection to its loop.
    fn place(&mut self, accepted: Accepted) {
        match accepted {
            Accepted::For(index, socket, peer) => match self.others.get(index) {
                Some(other) if !other.is(&self.handle) => other.post(Letter::Adopt(socket, peer)),
                _ => self.adopt(socket, peer),
            },
            Accepted::TooMany(mut socket) => {
                self.counters.on_refused();
                // One attempt: a client that is not even taken in gets no buffer.
                if let Err(e) = socket.write(self.protocol.refusal()) {
                    log::debug!("cannot refuse a connection: {e}");
                }
            }
        }
    }

    /// Takes a new connection in, and reads what has come with it: often a whole request, whose answer leaves in this
    /// turn. Only who stays is watched.
    pub(super) fn adopt(&mut self, socket: TcpStream, peer: SocketAddr) {
        let state = self.protocol.on_open(peer, self.now);
        let id = self.connections.insert(Entry::new(Transport::new(socket), state, Origin::Accepted));
        self.counters.on_opened();
        self.call(id, P::on_ready);
        self.read(id);
        if let Some(entry) = self.connections.get_mut(id)
            && matches!(entry.phase, Phase::Open)
            && let Err(e) = entry.transport.watch(self.poll.registry(), id.to_token(), Interest::READABLE)
        {
            log::warn!("cannot watch a new connection: {e}");
            self.remove(id);
        }
    }

    /// Stops accepting, and tells every connection.
    pub(super) fn drain(&mut self, deadline: Instant) {
        if let Some(mut acceptor) = self.acceptor.take() {
            // Who is in the kernel's queue already has a connection and may have sent a request: closing the listener
            // would reset it. The other loops are told after they got theirs.
            acceptor.on_ready();
            while acceptor.next_turn(self.now).is_some_and(|turn| turn <= self.now) {
                acceptor.accept(self.now, |accepted| self.place(accepted));
            }
            for other in self.others.iter().filter(|other| !other.is(&self.handle)) {
                other.post(Letter::Drain(deadline));
            }
        }
        self.drain_deadline = Some(self.drain_deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        for id in self.connections.ids() {
            self.call(id, P::on_drain);
        }
    }
}
