//! One connection to another server: what it is doing, and how bytes get through it.
//!
//! ```text
//! Connecting ──▶ Busy ──answer complete──▶ Idle ──next request──▶ Busy …
//!      └──────────┴──failed, or not to be used again──┴──▶ Closed
//! ```
//! Knows one request at a time; whose turn it is, and what happens after a failure, is the [agent's](super::agent) business.
//! What the answer's reader does not take stays in the input, where it stops the socket from being read.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::answer::Answer;
use super::call::Call;
use super::error::ErrorKind;
use super::exchange::{Event, Exchange};
use super::head::{AnswerHead, Framing};
use super::url::Origin;
use crate::http::news::News;
use crate::http::pipe::{Body, Ear, End, Stream, pipe};
use crate::http::types::Method;
use crate::reactor::{Io, LoopControl, Protocol};

/// With more output than this waiting, no more of a request's body is taken from its producer.
const OUTPUT_HIGH_WATER_BYTES: usize = 256 << 10;

/// A protocol on whose loop requests can be sent.
pub(crate) trait ClientLoop: Protocol<Message = News, Connection: From<Upstream>> {}

impl<P: Protocol<Message = News, Connection: From<Upstream>>> ClientLoop for P {}

/// A connection to another server.
pub(crate) struct Upstream {
    pub origin: Origin,
    pub stage: Stage,
}

pub(crate) enum Stage {
    Connecting(Box<Attempt>),
    Busy(Box<Active>),
    Idle,
    Closed,
}

/// A request that waits for its connection.
pub(crate) struct Attempt {
    pub call: Box<Call>,
    pub addr: SocketAddr,
    /// To be tried if this one fails.
    pub others: VecDeque<SocketAddr>,
}

/// A request that was sent, or is being.
pub(crate) struct Active {
    pub exchange: Exchange,
    method: Method,
    /// Until the head of the answer has come.
    call: Option<Box<Call>>,
    /// The body of the request, while there is more of it.
    upload: Option<Body>,
    upload_used: bool,
    /// Where the body of the answer goes.
    download: Option<Stream>,
    /// How long the server keeps the connection afterwards, as it says.
    pub keep_alive: Option<Duration>,
}

/// How far it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Waits,
    Complete,
}

impl Active {
    pub fn new(exchange: Exchange, call: Box<Call>, upload: Option<Body>) -> Active {
        let method = call.request.method();
        let call = Some(call);
        Active { exchange, method, call, upload, upload_used: false, download: None, keep_alive: None }
    }

    /// Moves what can be moved: the request out, the answer in.
    pub fn advance<P: ClientLoop>(&mut self, io: &mut Io<'_, P>, scratch: &mut Vec<u8>) -> Result<Progress, ErrorKind> {
        if self.is_abandoned() {
            return Err(ErrorKind::Abandoned);
        }
        self.send(io, scratch)?;
        self.receive(io, scratch)
    }

    /// Whether nobody waits for the answer any more, or for the rest of it.
    fn is_abandoned(&self) -> bool {
        match (&self.call, &self.download) {
            (Some(call), _) => call.is_abandoned(),
            (None, Some(download)) => download.is_closed(),
            (None, None) => true,
        }
    }

    /// Sends what has arrived of the request's body.
    fn send<P: ClientLoop>(&mut self, io: &mut Io<'_, P>, scratch: &mut Vec<u8>) -> Result<(), ErrorKind> {
        while let Some(upload) = &mut self.upload
            && io.output.len() <= OUTPUT_HIGH_WATER_BYTES
        {
            scratch.clear();
            let end = upload.poll(scratch);
            let piece_bytes = scratch.len();
            self.upload_used |= piece_bytes > 0;
            let mut framed = Vec::with_capacity(piece_bytes + 32);
            self.exchange.send_piece(scratch, &mut framed)?;
            match end {
                Some(End::Complete) => self.exchange.send_end(&mut framed)?,
                Some(End::Cut) => return Err(ErrorKind::RequestBody),
                None => {}
            }
            io.output.push_shared(framed);
            upload.set_unsent_bytes(io.output.len());
            if end.is_some() {
                self.upload = None;
            } else if piece_bytes == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Passes on what has arrived of the answer, as far as its reader keeps up.
    fn receive<P: ClientLoop>(&mut self, io: &mut Io<'_, P>, scratch: &mut Vec<u8>) -> Result<Progress, ErrorKind> {
        loop {
            let waits = self.download.as_ref().is_some_and(|download| download.waits_for_reader(|| ear(io)));
            self.exchange.set_paused(waits, io.now);
            if waits {
                return Ok(Progress::Waits);
            }
            scratch.clear();
            let polled = self.exchange.poll(io.input.as_slice(), io.input_ended(), scratch, io.now)?;
            io.input.consume(polled.used);
            if let Some(download) = &self.download
                && !scratch.is_empty()
                && download.write(scratch).is_err()
            {
                return Err(ErrorKind::Abandoned);
            }
            match polled.event {
                Event::More => return Ok(Progress::Waits),
                Event::Head(head) => self.begin_answer(head, ear(io)),
                Event::Data => {}
                Event::End => {
                    if let Some(Err(e)) = self.download.take().map(Stream::close) {
                        log::debug!("the end of an answer reached nobody: {e}");
                    }
                    return Ok(Progress::Complete);
                }
            }
        }
    }

    /// Gives the caller the head of its answer, and a body that is still to come.
    fn begin_answer(&mut self, head: AnswerHead, ear: Ear) {
        let Some(call) = self.call.take() else { return };
        let length = match head.framing {
            Framing::Length(bytes) => Some(bytes),
            // What GET would have is not known here.
            Framing::Empty if self.method == Method::Head => None,
            Framing::Empty => Some(0),
            Framing::Chunked | Framing::UntilClose => None,
        };
        let (download, body) = pipe(length);
        download.watch_reader(ear);
        (self.download, self.keep_alive) = (Some(download), head.keep_alive);
        call.answer(Ok(Answer { status: head.status, version: head.version, headers: head.headers, body }));
    }

    /// After a failure: the call, if it can be tried on a fresh connection.
    pub fn into_retry(mut self, failure: &ErrorKind) -> Result<Box<Call>, Option<Box<Call>>> {
        let unused = self.upload.is_none() || !self.upload_used;
        match self.call.take() {
            Some(mut call) if !call.retried && unused && self.exchange.may_retry(failure) => {
                call.retried = true;
                if let Some(upload) = self.upload.take() {
                    call.request = call.request.body_stream(upload);
                }
                Ok(call)
            }
            call => Err(call),
        }
    }
}

/// Connects to the first of these addresses that answers.
pub(crate) fn connect<P: ClientLoop>(
    call: Box<Call>,
    origin: &Origin,
    to: &[IpAddr],
    control: &mut LoopControl<'_, P>,
) {
    let addrs = to.iter().map(|address| SocketAddr::new(*address, origin.port)).collect();
    connect_next(call, origin, addrs, control);
}

/// Connects to the next of these addresses. Without any, who asked is told by the call that goes.
pub(crate) fn connect_next<P: ClientLoop>(
    call: Box<Call>,
    origin: &Origin,
    mut addrs: VecDeque<SocketAddr>,
    control: &mut LoopControl<'_, P>,
) {
    let Some(addr) = addrs.pop_front() else { return };
    let deadline = call.connect_deadline(control.now());
    let attempt = Attempt { call, addr, others: addrs };
    let upstream = Upstream { origin: origin.clone(), stage: Stage::Connecting(Box::new(attempt)) };
    control.connect(addr, upstream.into(), deadline);
}

/// Rings this connection.
pub(crate) fn ear<P: ClientLoop>(io: &Io<'_, P>) -> Ear {
    Ear::Connection(io.handle().clone(), io.id())
}
