//! How connections to elsewhere begin: started as an errand, finished by an event, or given up at their deadline.
//!
//! ```text
//! connect() ──▶ Connecting ──writable, no error──▶ Open
//!                   └──error, or deadline──▶ gone
//! ```

use std::io;

use mio::Interest;
use mio::net::TcpStream;

use super::EventLoop;
use crate::reactor::Protocol;
use crate::reactor::connections::ConnId;
use crate::reactor::entry::{Entry, Origin, Phase};
use crate::reactor::errands::Connect;
use crate::reactor::transport::Transport;

impl<P: Protocol> EventLoop<P> {
    pub(super) fn connect(&mut self, Connect { id, to, state, deadline }: Connect<P::Connection>) {
        self.counters.on_connecting();
        let socket = match TcpStream::connect(to) {
            Ok(socket) => socket,
            Err(e) => {
                self.connections.ids_mut().release(id);
                self.counters.on_disconnected();
                return self.tell_failure(id, state, e);
            }
        };
        let mut entry = Entry::new(Transport::new(socket), state, Origin::Connected);
        (entry.phase, entry.deadline) = (Phase::Connecting, Some(deadline));
        let both = Interest::READABLE | Interest::WRITABLE;
        let watched = entry.transport.watch(self.poll.registry(), id.to_token(), both);
        self.connections.put(id, entry);
        match watched {
            Ok(()) => self.arm(id),
            Err(e) => self.fail_connect(id, e),
        }
    }

    /// Something has happened to a connection that was being opened.
    pub(super) fn on_connect_event(&mut self, id: ConnId) {
        let Some(entry) = self.connections.get_mut(id) else { return };
        match entry.transport.is_connected() {
            Ok(false) => {}
            Ok(true) => {
                (entry.phase, entry.deadline) = (Phase::Open, None);
                self.call(id, P::on_connected);
            }
            Err(e) => self.fail_connect(id, e),
        }
    }

    pub(super) fn fail_connect(&mut self, id: ConnId, error: io::Error) {
        if let Some(entry) = self.connections.remove(id) {
            self.counters.on_disconnected();
            self.tell_failure(id, entry.state, error);
        }
    }

    fn tell_failure(&mut self, id: ConnId, mut state: P::Connection, error: io::Error) {
        self.call_loop(|protocol, control| {
            protocol.on_connect_failed(&mut state, error, control);
            protocol.on_close(id, state, control);
        });
    }
}
