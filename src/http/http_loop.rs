//! What an event loop of this layer speaks: HTTP with the clients that it serves, and with the servers that it asks.
//!
//! Hands each call to the [server's side](super::adapter) or the [client's](super::client), by the connection it is for.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::adapter::{Client, Http1};
use super::client::{self, Agent, ClientConfig, Upstream};
use super::news::News;
use crate::reactor::{ConnId, Io, LoopControl, Protocol};

pub(crate) struct HttpLoop {
    server: Http1,
    agent: Agent,
    client_config: ClientConfig,
}

/// Who is at the other end of a connection.
pub(crate) enum Peer {
    Client(Client),
    Upstream(Upstream),
}

impl From<Upstream> for Peer {
    fn from(upstream: Upstream) -> Peer {
        Peer::Upstream(upstream)
    }
}

impl HttpLoop {
    pub fn new(server: Http1, client: ClientConfig) -> HttpLoop {
        HttpLoop { server, agent: Agent::new(client.clone()), client_config: client }
    }
}

impl Protocol for HttpLoop {
    type Connection = Peer;
    type Message = News;

    fn on_open(&mut self, peer: SocketAddr, now: Instant) -> Peer {
        Peer::Client(self.server.on_open(peer, now))
    }

    fn on_ready(&mut self, peer: &mut Peer, io: &mut Io<'_, Self>) {
        if let Peer::Client(client) = peer {
            self.server.set_caller(|| {
                let inbox = self.agent.inbox();
                inbox.set_thread();
                client::Client::of_loop(inbox, io.handle().clone(), self.client_config.clone())
            });
            self.server.on_ready(client, io);
        }
    }

    fn on_connected(&mut self, peer: &mut Peer, io: &mut Io<'_, Self>) {
        if let Peer::Upstream(upstream) = peer {
            self.agent.on_connected(upstream, io);
        }
    }

    fn on_connect_failed(&mut self, peer: &mut Peer, error: io::Error, control: &mut LoopControl<'_, Self>) {
        if let Peer::Upstream(upstream) = peer {
            self.agent.on_connect_failed(upstream, &error, control);
        }
    }

    fn on_readable(&mut self, peer: &mut Peer, io: &mut Io<'_, Self>) {
        match peer {
            Peer::Client(client) => self.server.on_readable(client, io),
            Peer::Upstream(upstream) => self.agent.on_readable(upstream, io),
        }
    }

    fn on_message(&mut self, peer: &mut Peer, news: News, io: &mut Io<'_, Self>) {
        match peer {
            Peer::Client(client) => self.server.on_message(client, news, io),
            Peer::Upstream(upstream) => self.agent.on_message(upstream, io),
        }
    }

    fn on_deadline(&mut self, peer: &mut Peer, io: &mut Io<'_, Self>) {
        match peer {
            Peer::Client(client) => self.server.on_deadline(client, io),
            Peer::Upstream(upstream) => self.agent.on_deadline(upstream, io),
        }
    }

    fn on_flushed(&mut self, peer: &mut Peer, io: &mut Io<'_, Self>) {
        match peer {
            Peer::Client(client) => self.server.on_flushed(client, io),
            Peer::Upstream(upstream) => self.agent.on_flushed(upstream, io),
        }
    }

    fn on_drain(&mut self, peer: &mut Peer, io: &mut Io<'_, Self>) {
        match peer {
            Peer::Client(client) => self.server.on_drain(client, io),
            Peer::Upstream(upstream) => self.agent.on_drain(upstream, io),
        }
    }

    fn on_close(&mut self, id: ConnId, peer: Peer, control: &mut LoopControl<'_, Self>) {
        match peer {
            Peer::Client(client) => self.server.on_close(id, client, control.handle()),
            Peer::Upstream(upstream) => self.agent.on_close(id, upstream, control),
        }
    }

    fn on_loop_message(&mut self, news: News, control: &mut LoopControl<'_, Self>) {
        match news {
            News::Issue(issue) => self.server.distribute(&issue, control),
            News::Changed | News::Events => self.agent.open_inbox(control),
        }
    }

    fn on_alarm(&mut self, control: &mut LoopControl<'_, Self>) {
        self.agent.on_alarm(control);
    }

    fn on_turn(&mut self, now: Instant) {
        self.server.on_turn(now);
    }

    fn refusal(&self) -> &[u8] {
        self.server.refusal()
    }
}
