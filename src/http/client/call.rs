//! A request on its way to an answer: what is asked, and who waits for it.
//!
//! Invariant: who asked is answered exactly once, also when the loop ends first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::answer::Outcome;
use super::error::{ClientError, ErrorKind};
use super::exchange::Timeouts;
use super::request::ClientRequest;
use super::url::Origin;
use crate::http::middleware::catch_panic;
use crate::http::pipe::Ear;
use crate::http::reply::Reply;
use crate::http::responder::Responder;

/// One request and who asked.
pub(crate) struct Call {
    pub request: ClientRequest,
    pub timeouts: Timeouts,
    /// When all must be over.
    pub end: Option<Instant>,
    /// It was sent before, on a connection that turned out to be closed.
    pub retried: bool,
    caller: Caller,
}

/// Who waits for the answer. Dropped without one, it is told that there will be none.
struct Caller {
    to: Option<To>,
    origin: Origin,
    _place: Option<Place>,
}

pub(crate) enum To {
    Callback(Box<dyn FnOnce(Outcome) + Send>),
    /// A client of this server, who gets what is made of the answer.
    Client(Responder, Box<dyn FnOnce(Outcome) -> Reply + Send>),
}

/// A place among the calls that may be under way at once.
pub(crate) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes a place, unless `max` are taken.
    pub fn take(taken: &Arc<AtomicUsize>, max: usize) -> Option<Place> {
        let free = |count| if count < max { Some(count + 1) } else { None };
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        Some(Place(Arc::clone(taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Call {
    pub fn new(request: ClientRequest, timeouts: Timeouts, now: Instant, to: To, place: Option<Place>) -> Call {
        let timeouts = timeouts.bounded();
        let end = timeouts.total.and_then(|total| now.checked_add(total));
        let caller = Caller { to: Some(to), origin: request.url().origin().clone(), _place: place };
        Call { request, timeouts, end, retried: false, caller }
    }

    pub fn origin(&self) -> &Origin {
        self.request.url().origin()
    }

    /// Until when a connection may be waited for, from `now` on.
    pub fn connect_deadline(&self, now: Instant) -> Instant {
        let phase = now + self.timeouts.connect;
        self.end.map_or(phase, |end| end.min(phase))
    }

    pub fn is_late(&self, now: Instant) -> bool {
        self.end.is_some_and(|end| end <= now)
    }

    pub fn answer(mut self, outcome: Outcome) {
        self.caller.answer(outcome);
    }

    pub fn fail(self, kind: ErrorKind) {
        let error = ClientError::new(self.origin(), kind);
        self.answer(Err(error));
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        matches!(&self.caller.to, Some(To::Client(responder, _)) if responder.is_closed())
    }

    /// Rings `ear` when that becomes so.
    pub fn watch_caller(&self, ear: Ear) {
        if let Some(To::Client(responder, _)) = &self.caller.to {
            responder.watch_client(ear);
        }
    }
}

impl Caller {
    fn answer(&mut self, outcome: Outcome) {
        let answered = match self.to.take() {
            Some(To::Callback(on_answer)) => catch_panic(|| on_answer(outcome)),
            Some(To::Client(responder, make)) => catch_panic(|| responder.send(make(outcome))),
            None => Ok(()),
        };
        if let Err(message) = answered {
            log::error!("what was to be done with an answer panicked: {message}");
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if self.to.is_some() {
            let error = ClientError::new(&self.origin, ErrorKind::Stopped);
            self.answer(Err(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::types::Method;
    use crossbeam_channel::{Receiver, unbounded};
    use std::time::Duration;

    fn call(place: Option<Place>) -> (Call, Receiver<Outcome>) {
        let (sender, outcomes) = unbounded();
        let to = To::Callback(Box::new(move |outcome| sender.send(outcome).unwrap()));
        let request = ClientRequest::new(Method::Get, "http://a/").unwrap();
        (Call::new(request, Timeouts::default(), Instant::now(), to, place), outcomes)
    }

    #[test]
    fn who_asked_is_answered_once_whatever_happens() {
        let taken = Arc::default();
        let (answered, outcomes) = call(Place::take(&taken, 2));
        let (dropped, others) = call(Place::take(&taken, 2));
        assert!(Place::take(&taken, 2).is_none());
        answered.fail(ErrorKind::Busy);
        drop(dropped);
        let kind = |outcomes: Receiver<Outcome>| match outcomes.try_iter().collect::<Vec<_>>().pop() {
            Some(Err(error)) => error.kind().clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!((kind(outcomes), kind(others)), (ErrorKind::Busy, ErrorKind::Stopped));
        assert_eq!(taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn times_that_never_end_do_not_overflow() {
        let forever = Duration::MAX;
        let timeouts = Timeouts { connect: forever, first_byte: forever, idle: forever, total: Some(forever) };
        let (sender, _outcomes) = unbounded();
        let to = To::Callback(Box::new(move |outcome| drop(sender.send(outcome))));
        let (request, now) = (ClientRequest::new(Method::Get, "http://a/").unwrap(), Instant::now());
        let call = Call::new(request, timeouts, now, to, None);
        assert!(call.connect_deadline(now) > now && now + call.timeouts.idle > now && !call.is_late(now));
    }

    #[test]
    fn a_callback_that_panics_hurts_nobody() {
        let to = To::Callback(Box::new(|_| panic!("on purpose")));
        let request = ClientRequest::new(Method::Get, "http://a/").unwrap();
        Call::new(request, Timeouts::default(), Instant::now(), to, None).fail(ErrorKind::Busy);
    }
}
