//! An HTTP/1.1 client on an event loop.

mod body;
mod encode;
mod error;
mod exchange;
mod head;
mod headers;
mod pool;
mod request;
mod url;

pub use error::{AnswerFault, ClientError, ErrorKind, Phase};
pub use exchange::Timeouts;
pub use headers::Headers;
pub use request::ClientRequest;
pub use url::{BadUrl, Url};
