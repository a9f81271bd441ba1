//! A bound on how long an answer may take to begin.

use std::time::Duration;

use crate::http::middleware::Next;
use crate::http::reply::Reply;
use crate::http::request::Request;

/// Every answer that comes later begins within `limit`, or the client gets a 504 and the producer is told that its
/// client has gone: [`Reply::answer_within`] for a whole router. A stream that has begun may go on.
///
/// A handler that blocks blocks its event loop, and no layer can end that.
///
/// ```
/// use std::time::Duration;
/// use sconce::http::{Reply, Request, Router};
/// use sconce::http::layers::timeout;
///
/// let router = Router::new().layer(timeout(Duration::from_secs(30))).get("/", |_: &Request<'_>| {
///     let (reply, responder) = Reply::later();
///     std::thread::spawn(move || responder.send(Reply::text("in time")));
///     reply
/// });
/// ```
pub fn timeout(limit: Duration) -> impl Fn(&Request<'_>, Next<'_>) -> Reply + Send + Sync + 'static {
    move |request, next| next.run(request).answer_within(limit)
}
