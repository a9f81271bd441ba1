//! Static files that are part of the program, with entity tags.
//!
//! Knows no file system: the table is made with `include_bytes!`, so no path of a request can reach anything else.

use super::reply::Reply;
use super::request::Request;
use super::router::Router;
use super::types::Status;

/// One embedded file.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// The path that it is served at, from `/`.
    pub path: &'static str,
    pub content_type: &'static str,
    /// The value of `Cache-Control`. `no-cache` lets browsers keep a copy but ask each time, which costs them a 304.
    pub cache_control: &'static str,
    pub bytes: &'static [u8],
}

impl Router {
    /// Serves these files by GET and HEAD.
    pub fn files(self, files: &'static [File]) -> Router {
        files.iter().fold(self, |router, file| {
            let tag = entity_tag(file.bytes);
            router.get(file.path, move |request: &Request<'_>| serve(file, &tag, request))
        })
    }
}

fn serve(file: &'static File, tag: &str, request: &Request<'_>) -> Reply {
    let reply = match request.header("if-none-match") {
        Some(known) if matches_tag(known, tag) => Reply::empty(Status::NOT_MODIFIED),
        _ => Reply::bytes(Status::OK, file.content_type, file.bytes).header("X-Content-Type-Options", "nosniff"),
    };
    reply.header("ETag", tag).header("Cache-Control", file.cache_control)
}

/// The weak comparison of RFC 9110 §13.1.2: a list of tags, or `*`.
fn matches_tag(known: &str, tag: &str) -> bool {
    known.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// A strong tag from the content (FNV-1a, 64 bits, and the length): it tells versions of one file apart, no more.
fn entity_tag(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("\"{hash:016x}-{:x}\"", bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Method;

    static FILES: [File; 1] =
        [File { path: "/app.js", content_type: "text/javascript", cache_control: "no-cache", bytes: b"let x = 1;" }];

    #[test]
    fn a_known_tag_costs_no_body() {
        let router = Router::new().files(&FILES);
        let full = router.handle(Request::new(Method::Get, "/app.js"));
        assert_eq!((full.status(), full.body()), (Status::OK, &b"let x = 1;"[..]));
        assert_eq!(full.content_type(), "text/javascript");
        let tag = full.header_value("etag").unwrap();
        let weak = format!("\"other\", W/{tag}");
        for (known, status) in [(tag, 304), (&*weak, 304), ("*", 304), ("\"other\"", 200)] {
            let reply = router.handle(Request::new(Method::Get, "/app.js").with_header("If-None-Match", known));
            assert_eq!(reply.status().code(), status, "{known}");
            assert_eq!(reply.header_value("etag"), Some(tag));
        }
    }
}
