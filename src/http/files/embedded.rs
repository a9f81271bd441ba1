//! Static files that are part of the program.
//!
//! Knows no file system: the table is made with `include_bytes!`, so no path of a request can reach anything else.

use std::hash::RandomState;
use std::time::SystemTime;

use super::answer::{answer, failure};
use super::asset::{Asset, Content, Description, entity_tag};
use crate::http::content_coding::{Coding, choose};
use crate::http::date::unix_seconds;
use crate::http::reply::{Reply, check_header};
use crate::http::request::Request;
use crate::http::router::Router;
use crate::http::types::Status;

/// One embedded file.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// The path that it is served at, from `/`.
    pub path: &'static str,
    /// The value of `Content-Type`, such as `text/css; charset=utf-8`.
    pub content_type: &'static str,
    /// The value of `Cache-Control`. `no-cache` lets browsers keep a copy but ask each time, which costs them a 304.
    pub cache_control: &'static str,
    /// The content, as `include_bytes!` gives it.
    pub bytes: &'static [u8],
}

impl Router {
    /// Serves these files by GET and HEAD, with entity tags from their content, conditions and ranges.
    ///
    /// A file whose path is that of another one with `.br`, `.zst` or `.gz` behind it is that file compressed, and is sent
    /// in its place to clients that accept it (RFC 9110 §12.5.3).
    ///
    /// # Panics
    /// On a path that cannot be a route, as [`route`](Router::route) does, or a `Cache-Control` that cannot be sent.
    pub fn files(self, files: &'static [File]) -> Router {
        files.iter().fold(self, |router, file| {
            let variants = Variants::of(file, files);
            router.get(file.path, move |request: &Request<'_>| variants.serve(request))
        })
    }
}

/// A file in the codings that there are.
struct Variants {
    plain: Asset,
    coded: Vec<(Coding, Asset)>,
    random: RandomState,
}

impl Variants {
    fn of(file: &'static File, files: &'static [File]) -> Variants {
        let compressed = |coding: Coding| {
            let is_it = |other: &&File| other.path.strip_prefix(file.path) == Some(coding.suffix());
            files.iter().find(is_it).map(|other| (coding, other))
        };
        let coded: Vec<(Coding, &File)> = Coding::ALL.into_iter().filter_map(compressed).collect();
        if let Err(error) = check_header("Cache-Control", file.cache_control) {
            panic!("{}: the Cache-Control {:?} cannot be sent: {error}", file.path, file.cache_control);
        }
        let asset = |coding: Option<Coding>, bytes: &'static [u8]| {
            let len = bytes.len() as u64;
            Asset::new(Description {
                content: Content::Static(bytes),
                len,
                content_type: file.content_type,
                tag: entity_tag(bytes, len),
                last_modified: None,
                cache_control: file.cache_control,
                coding,
                varies: !coded.is_empty(),
            })
        };
        Variants {
            plain: asset(None, file.bytes),
            coded: coded.iter().map(|(coding, other)| (*coding, asset(Some(*coding), other.bytes))).collect(),
            random: RandomState::new(),
        }
    }

    fn serve(&self, request: &Request<'_>) -> Reply {
        let chosen = choose(request, self.coded.iter().map(|(coding, _)| *coding));
        let asset =
            self.coded.iter().find(|(coding, _)| Some(*coding) == chosen).map_or(&self.plain, |(_, asset)| asset);
        answer(request, asset, unix_seconds(SystemTime::now()), &self.random)
            .unwrap_or_else(|_| failure(Status::INTERNAL_SERVER_ERROR, "the file cannot be read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Method;

    const fn file(path: &'static str, content_type: &'static str, bytes: &'static [u8]) -> File {
        File { path, content_type, cache_control: "no-cache", bytes }
    }

    static FILES: [File; 4] = [
        file("/app.js", "text/javascript", b"let x = 1;"),
        file("/app.js.gz", "application/gzip", b"gzipped"),
        file("/app.js.br", "application/octet-stream", b"brotli"),
        file("/", "text/html", b"<p>"),
    ];

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

    #[test]
    fn a_compressed_twin_is_sent_to_who_accepts_it() {
        let router = Router::new().files(&FILES);
        let mut tags = Vec::new();
        for (accept, coding, body) in
            [("", None, "let x = 1;"), ("gzip", Some("gzip"), "gzipped"), ("gzip, br", Some("br"), "brotli")]
        {
            let reply = router.handle(Request::new(Method::Get, "/app.js").with_header("Accept-Encoding", accept));
            assert_eq!((reply.header_value("content-encoding"), reply.body()), (coding, body.as_bytes()));
            assert_eq!(
                (reply.content_type(), reply.header_value("vary")),
                ("text/javascript", Some("Accept-Encoding"))
            );
            tags.push(reply.header_value("etag").unwrap().to_string());
        }
        tags.dedup();
        assert_eq!(tags.len(), 3, "each form is a representation of its own");
        let alone = router.handle(Request::new(Method::Get, "/").with_header("Accept-Encoding", "gzip"));
        assert_eq!((alone.body(), alone.header_value("vary")), (&b"<p>"[..], None));
    }

    #[test]
    fn ranges() {
        let router = Router::new().files(&FILES);
        for (range, status, content_range, body) in [
            ("bytes=4-", 206, Some("bytes 4-9/10"), "x = 1;"),
            ("bytes=-2", 206, Some("bytes 8-9/10"), "1;"),
            ("bytes=10-", 416, Some("bytes */10"), "416 Range Not Satisfiable: the file ends before this range\n"),
            ("lines=1-", 200, None, "let x = 1;"),
        ] {
            let reply = router.handle(Request::new(Method::Get, "/app.js").with_header("Range", range));
            assert_eq!(
                (reply.status().code(), reply.header_value("content-range")),
                (status, content_range),
                "{range}"
            );
            assert_eq!(reply.body(), body.as_bytes());
        }
    }
}
