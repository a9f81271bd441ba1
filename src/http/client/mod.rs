//! An HTTP/1.1 client on an event loop: servers call servers.
//!
//! A handler takes the client of its own loop, and neither blocks nor starts a thread ([`Client::reply`]). Other threads
//! start one with a loop of its own, and may wait for answers:
//!
//! ```no_run
//! use sconce::http::Method;
//! use sconce::http::client::{Client, ClientConfig, ClientRequest};
//!
//! let client = Client::start(ClientConfig::default())?;
//! let request = ClientRequest::new(Method::Post, "http://127.0.0.1:8080/generate")?
//!     .header("Content-Type", "application/json")?
//!     .body(r#"{"prompt":"Hi","max_tokens":8}"#);
//! let answer = client.fetch(request)?;
//! println!("{}", answer.status);
//! println!("{}", String::from_utf8(answer.collect(1 << 20)?)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Plain HTTP only: `https://` is refused, and wants a TLS proxy beside this process. Redirects, cookies and compressed
//! bodies are given to the caller as they come.
//!
//! Knows no handler. The parts that decide take bytes and the time as arguments, and are tested without a socket:
//!
//! | | |
//! |---|---|
//! | `url`, `request`, `encode` | what is asked, and its bytes |
//! | `head`, `headers`, `body` | an answer's bytes, and what they mean |
//! | `exchange` | one request on one connection, and how long it may take |
//! | `pool`, `waiting` | which connection a request gets, and how long it waits for one |
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
pub(crate) mod encode;
mod error;
pub(crate) mod exchange;
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
mod waiting;

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
