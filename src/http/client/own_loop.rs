//! An event loop that does nothing but send requests.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::agent::Agent;
use super::upstream::{Stage, Upstream};
use super::url::{Host, Origin};
use crate::http::news::News;
use crate::reactor::{ConnId, Io, LoopControl, Protocol};

pub(crate) struct OwnLoop {
    pub agent: Agent,
}

impl Protocol for OwnLoop {
    type Connection = Upstream;
    type Message = News;

    /// Nobody connects to a loop that does not listen.
    fn on_open(&mut self, peer: SocketAddr, _: Instant) -> Upstream {
        Upstream { origin: Origin { host: Host::Address(peer.ip()), port: peer.port() }, stage: Stage::Closed }
    }

    fn on_connected(&mut self, upstream: &mut Upstream, io: &mut Io<'_, Self>) {
        self.agent.on_connected(upstream, io);
    }

    fn on_connect_failed(&mut self, upstream: &mut Upstream, error: io::Error, control: &mut LoopControl<'_, Self>) {
        self.agent.on_connect_failed(upstream, &error, control);
    }

    fn on_readable(&mut self, upstream: &mut Upstream, io: &mut Io<'_, Self>) {
        self.agent.on_readable(upstream, io);
    }

    fn on_message(&mut self, upstream: &mut Upstream, _: News, io: &mut Io<'_, Self>) {
        self.agent.on_message(upstream, io);
    }

    fn on_deadline(&mut self, upstream: &mut Upstream, io: &mut Io<'_, Self>) {
        self.agent.on_deadline(upstream, io);
    }

    fn on_flushed(&mut self, upstream: &mut Upstream, io: &mut Io<'_, Self>) {
        self.agent.on_flushed(upstream, io);
    }

    fn on_drain(&mut self, upstream: &mut Upstream, io: &mut Io<'_, Self>) {
        self.agent.on_drain(upstream, io);
    }

    fn on_close(&mut self, id: ConnId, upstream: Upstream, control: &mut LoopControl<'_, Self>) {
        self.agent.on_close(id, upstream, control);
    }

    fn on_loop_message(&mut self, _: News, control: &mut LoopControl<'_, Self>) {
        self.agent.open_inbox(control);
    }

    fn on_alarm(&mut self, control: &mut LoopControl<'_, Self>) {
        self.agent.on_alarm(control);
    }
}
