//! An HTTP/1.1 client on an event loop: servers call servers.
//!
//! Knows no handler. The parts that decide take bytes and the time as arguments, and are tested without a socket:
//!
//! | | |
//! |---|---|
//! | `url`, `request`, `encode` | what is asked, and its bytes |
//! | `head`, `headers`, `body` | an answer's bytes, and what they mean |
//! | `exchange` | one request on one connection, and how long it may take |
//! | `pool` | which connection a request gets |
//! | `resolver` | addresses of names, from threads of its own |
//! | `upstream`, `agent` | the same on the connections of one event loop |
//! | `handle`, `inbox`, `call` | from the threads that ask to the loop that does the work, and back |
//!
//! What holds:
//! - Who asks is answered exactly once: with the head of an answer whose body is still arriving, or with an error.
//! - A body that was cut is never complete, whatever its framing. A reader that lags stops the server; one that leaves ends
//!   the connection. A request whose own body is cut is never complete for the server either.
//! - Bytes that could be read in two ways end the connection. Nothing that a caller passes can end a line of a head.
//! - A request is repeated only when the connection was an old one that turned out to be closed, and repeating it is safe.

mod agent;
mod answer;
mod body;
mod call;
mod config;
mod encode;
mod error;
mod exchange;
mod handle;
mod head;
mod headers;
mod inbox;
mod own_loop;
mod pool;
mod request;
mod resolver;
mod upstream;
mod url;

pub(crate) use agent::Agent;
pub use answer::Answer;
pub use config::ClientConfig;
pub use error::{AnswerFault, ClientError, ErrorKind, Phase};
pub use exchange::Timeouts;
pub use handle::Client;
pub use headers::Headers;
pub use request::ClientRequest;
pub(crate) use upstream::Upstream;
pub use url::{BadUrl, Url};
