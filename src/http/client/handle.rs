//! The client as its users hold it: a way to the loop that does the work.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use super::agent::Agent;
use super::answer::{Answer, Outcome};
use super::call::{Call, Place, To};
use super::config::ClientConfig;
use super::error::{ClientError, ErrorKind};
use super::inbox::Inbox;
use super::own_loop::OwnLoop;
use super::request::ClientRequest;
use crate::http::news::News;
use crate::http::reply::Reply;
use crate::reactor::{self, Control, Handle, Listener};

/// Sends requests to other servers, from any thread. Clones share connections.
///
/// Inside a handler, [`Request::client`](crate::http::Request::client) gives the client of the event loop that runs it;
/// elsewhere, [`Client::start`] starts a loop for it.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// What clones share.
struct Shared {
    inbox: Arc<Inbox>,
    /// None when no loop will ever look.
    handle: Option<Handle<News>>,
    config: ClientConfig,
    /// Requests whose answer has not begun.
    calls: Arc<AtomicUsize>,
    _keeper: Option<Keeper>,
}

/// Ends the loop of its own that a client has.
struct Keeper(Control<News>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Client {
    /// Starts an event loop in a thread of its own. When the last clone is dropped the loop ends, and with it what is
    /// under way.
    ///
    /// # Errors
    /// When the system gives no event queue or no thread.
    pub fn start(config: ClientConfig) -> io::Result<Client> {
        let config = config.bounded();
        let agent = Agent::new(config.clone());
        let inbox = agent.inbox();
        let loop_config = reactor::Config {
            threads: 1,
            // Room for the largest head and something behind it.
            input_bytes_max: config.input_bytes_max(),
            // A server that takes nothing is given up by the exchange, which knows why.
            write_stall_timeout: config.timeouts.idle.saturating_mul(2),
            ..reactor::Config::default()
        };
        // One loop, so the agent is taken once.
        let mut agent = Some(agent);
        let protocol = |_| OwnLoop { agent: agent.take().unwrap_or_else(|| Agent::new(config.clone())) };
        let loops = reactor::start(None::<Listener>, &loop_config, protocol)?;
        let control = loops.control();
        let handle = control.handles().first().cloned();
        Ok(Client::new(inbox, handle, config, Some(Keeper(control))))
    }

    /// The client of a loop that has other work as well.
    pub(crate) fn of_loop(inbox: Arc<Inbox>, handle: Handle<News>, config: ClientConfig) -> Client {
        Client::new(inbox, Some(handle), config, None)
    }

    /// A client that refuses everything, for requests that no loop has received.
    pub(crate) fn of_nobody() -> Client {
        Client::new(Arc::default(), None, ClientConfig::default(), None)
    }

    fn new(inbox: Arc<Inbox>, handle: Option<Handle<News>>, config: ClientConfig, keeper: Option<Keeper>) -> Client {
        Client { shared: Arc::new(Shared { inbox, handle, config, calls: Arc::default(), _keeper: keeper }) }
    }

    /// Sends a request. `on_answer` is called once, on the event loop, when the head of the answer has come or there will
    /// be none. It must not block: it passes the answer on, or hands it to a thread.
    pub fn send(&self, request: ClientRequest, on_answer: impl FnOnce(Outcome) + Send + 'static) {
        self.begin(request, To::Callback(Box::new(on_answer)));
    }

    /// Sends a request, and answers one that was received with what `make` makes of its answer. If the client of this
    /// server leaves, the request is given up at once.
    ///
    /// ```no_run
    /// use sconce::http::client::{ClientError, ClientRequest};
    /// use sconce::http::{Method, Reply, Request};
    ///
    /// fn weather(request: &Request<'_>) -> Result<Reply, ClientError> {
    ///     let ask = ClientRequest::new(Method::Get, "http://127.0.0.1:9000/weather")?;
    ///     Ok(request.client().reply(ask, |answer| match answer {
    ///         Ok(answer) => answer.into_reply(),
    ///         Err(error) => error.into(),
    ///     }))
    /// }
    /// ```
    pub fn reply(&self, request: ClientRequest, make: impl FnOnce(Outcome) -> Reply + Send + 'static) -> Reply {
        let (reply, responder) = Reply::later();
        self.begin(request, To::Client(responder, Box::new(make)));
        reply
    }

    /// Sends a request and waits for the head of its answer. Blocks, so it is for other threads than event loops: on the
    /// loop of this client it refuses.
    ///
    /// # Errors
    /// There is no answer: [`ErrorKind`] says why.
    pub fn fetch(&self, request: ClientRequest) -> Result<Answer, ClientError> {
        if self.shared.inbox.is_on_thread() {
            return Err(ClientError::new(request.url().origin(), ErrorKind::OnLoop));
        }
        let origin = request.url().origin().clone();
        let (sender, outcome) = mpsc::sync_channel(1);
        self.send(request, move |outcome| {
            // Who asked waits below.
            let _waits = sender.send(outcome).is_ok();
        });
        outcome.recv().unwrap_or_else(|_| Err(ClientError::new(origin, ErrorKind::Stopped)))
    }

    fn begin(&self, request: ClientRequest, to: To) {
        let Shared { inbox, handle, config, calls, .. } = &*self.shared;
        let timeouts = request.own_timeouts().unwrap_or(&config.timeouts).clone();
        let place = Place::take(calls, config.calls_max);
        let full = place.is_none();
        let call = Box::new(Call::new(request, timeouts, Instant::now(), to, place));
        let Some(handle) = handle else { return call.fail(ErrorKind::Stopped) };
        if full {
            return call.fail(ErrorKind::Busy);
        }
        match inbox.put_call(call) {
            Ok(()) => handle.send_to_loop(News::Changed),
            Err(call) => call.fail(ErrorKind::Stopped),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("calls", &self.shared.calls.load(Ordering::Relaxed)).finish_non_exhaustive()
    }
}
