//! How clients come in: accepted by the loop that listens, adopted by the loop that serves them, until draining begins.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use mio::Interest;
use mio::net::TcpStream;

use super::EventLoop;
use crate::reactor::Protocol;
use crate::reactor::entry::{Entry, Origin, Phase};
use crate::reactor::listener::{Accepted, Newcomer, Refusal};
use crate::reactor::server::Letter;
use crate::reactor::transport::Transport;

impl<P: Protocol> EventLoop<P> {
    pub(super) fn accept(&mut self) {
        let Some(mut acceptor) = self.acceptor.take() else { return };
        acceptor.accept(self.now, |accepted| self.place(accepted));
        self.acceptor = Some(acceptor);
    }

    /// Gives a new connection to its loop, or turns it away.
    fn place(&mut self, accepted: Accepted) {
        match accepted {
            Accepted::For(index, newcomer) => match self.others.get(index) {
                Some(other) if !other.is(&self.handle) => other.post(Letter::Adopt(newcomer)),
                _ => self.adopt(newcomer),
            },
            Accepted::Refused(socket, refusal) => {
                self.counters.on_refused();
                if refusal == Refusal::Address {
                    self.counters.on_refused_per_address();
                }
                self.turn_away(socket);
            }
        }
    }

    /// One attempt to write and one to read: a client that is not even taken in gets no buffer. What it has sent is read
    /// because closing would else reset the connection, and it might never see why.
    fn turn_away(&self, mut socket: TcpStream) {
        let outcome = socket.write(self.protocol.refusal()).and_then(|_| socket.read(&mut [0; 4 << 10]));
        if let Err(e) = outcome
            && e.kind() != ErrorKind::WouldBlock
        {
            log::debug!("cannot refuse a connection in good form: {e}");
        }
    }

    /// Takes a new connection in, and reads what has come with it: often a whole request, whose answer leaves in this
    /// turn. Only who stays is watched.
    pub(super) fn adopt(&mut self, Newcomer { socket, peer, seat }: Newcomer) {
        let state = self.protocol.on_open(peer, self.now);
        let id = self.connections.insert(Entry::new(Transport::new(socket), state, Origin::Accepted { _seat: seat }));
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

    /// Stops accepting, and tells every connection and the other loops. A later call can only bring the end nearer.
    pub(super) fn drain(&mut self, deadline: Instant) {
        let begins = self.drain_deadline.is_none();
        if self.drain_deadline.is_some_and(|earlier| earlier <= deadline) {
            return;
        }
        if let Some(mut acceptor) = self.acceptor.take() {
            // Who is in the kernel's queue already has a connection and may have sent something: closing the listener
            // would reset it. The other loops are told after they got theirs.
            acceptor.on_ready();
            while acceptor.next_turn(self.now).is_some_and(|turn| turn <= self.now) {
                acceptor.accept(self.now, |accepted| self.place(accepted));
            }
        }
        self.drain_deadline = Some(deadline);
        for other in self.others.iter().filter(|other| !other.is(&self.handle)) {
            other.post(Letter::Drain(deadline));
        }
        if begins {
            for id in self.connections.ids() {
                self.call(id, P::on_drain);
            }
        }
    }
}
