//! Middleware: functions around every handler, outermost first, and guards in front of them.
//!
//! A layer is `fn(request, next) -> reply`: it may answer itself, call `next.run(request)` and look at the reply, or change
//! it. A guard is `fn(request) -> Result<(), Reply>`: it is asked before the body is read.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::reply::Reply;
use super::request::Request;

pub(crate) type Layer = Box<dyn Fn(&Request<'_>, Next<'_>) -> Reply + Send + Sync>;

pub(crate) type Guard = Arc<dyn Fn(&Request<'_>) -> Result<(), Reply> + Send + Sync>;

/// The rest of the way to the handler.
pub struct Next<'a> {
    layers: &'a [Layer],
    endpoint: &'a dyn Fn(&Request<'_>) -> Reply,
}

impl<'a> Next<'a> {
    pub(crate) fn new(layers: &'a [Layer], endpoint: &'a dyn Fn(&Request<'_>) -> Reply) -> Self {
        Self { layers, endpoint }
    }

    /// Goes on to the next middleware or to the handler.
    pub fn run(self, request: &Request<'_>) -> Reply {
        match self.layers.split_first() {
            Some((layer, rest)) => layer(request, Next { layers: rest, endpoint: self.endpoint }),
            None => (self.endpoint)(request),
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

/// Calls `handle` and turns a panic into its message. What the handler shared with others must tolerate its panic, as
/// it must with a thread that dies; the request itself is never used again.
pub(crate) fn catch_panic<T>(handle: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(handle)).map_err(|panic| panic_message(&*panic))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)").to_string()
}
