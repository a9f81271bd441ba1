//! What a request gets from an asset: the decision, and the one place where it becomes a reply.

use std::fs::File;
use std::hash::RandomState;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::asset::{Asset, Content};
use super::conditional::{self, Validators, Verdict};
use super::multipart;
use super::range::{self, Selection};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::http::types::{Method, Status};
use crate::reactor::FileRange;

/// The outcome of conditions and ranges together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Whole,
    Part(Range<u64>),
    Parts(Vec<Range<u64>>),
    NotModified,
    PreconditionFailed,
    Unsatisfiable,
}

/// Decides by the request and what is known of the representation: `len` in bytes, `now` in seconds since 1970.
///
/// A range is for GET only (RFC 9110 §14.2), and several that add up to more than [`multipart::BYTES_MAX`] get the whole.
pub(crate) fn decide(request: &Request<'_>, current: &Validators<'_>, len: u64, now: u64) -> Answer {
    match conditional::evaluate(request, current, now) {
        Verdict::NotModified => return Answer::NotModified,
        Verdict::PreconditionFailed => return Answer::PreconditionFailed,
        Verdict::Proceed => {}
    }
    let field = conditional::only(request, "range").filter(|_| request.method() == Method::Get);
    let Some(field) = field.filter(|_| conditional::range_applies(request, current, now)) else { return Answer::Whole };
    match range::select(field, len) {
        Selection::Whole => Answer::Whole,
        Selection::One(part) => Answer::Part(part),
        Selection::Many(parts)
            if parts.iter().map(|part| part.end - part.start).sum::<u64>() > multipart::BYTES_MAX =>
        {
            Answer::Whole
        }
        Selection::Many(parts) => Answer::Parts(parts),
        Selection::Unsatisfiable => Answer::Unsatisfiable,
    }
}

/// The reply to a request for an asset.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn answer(request: &Request<'_>, asset: &Asset, now: u64, random: &RandomState) -> io::Result<Reply> {
    Ok(match decide(request, &asset.validators(), asset.len, now) {
        Answer::Whole => whole(asset).with_lines_in_front(asset.lines()),
        Answer::Part(range) => part(asset, &range)?
            .with_status(Status::PARTIAL_CONTENT)
            .with_lines_in_front(asset.lines())
            .header("Content-Range", multipart::content_range(&range, asset.len)),
        Answer::Parts(ranges) => {
            let boundary = multipart::boundary(random, asset);
            let body = multipart::body(asset, &ranges, &boundary)?;
            let content_type = format!("multipart/byteranges; boundary={boundary}");
            Reply::bytes(Status::PARTIAL_CONTENT, content_type, body).with_lines_in_front(asset.lines())
        }
        Answer::NotModified => Reply::empty(Status::NOT_MODIFIED).with_lines_in_front(asset.lines_of_304()),
        Answer::PreconditionFailed => failure(Status::PRECONDITION_FAILED, "the file is not the version that is meant"),
        Answer::Unsatisfiable => failure(Status::RANGE_NOT_SATISFIABLE, "the file ends before this range")
            .header("Content-Range", format!("bytes */{}", asset.len)),
    })
}

/// An error in the shape of the router's own.
pub(crate) fn failure(status: Status, reason: &str) -> Reply {
    Reply::refusal(status, reason.to_string())
}

/// A reply with all bytes, from where they are.
fn whole(asset: &Asset) -> Reply {
    match &asset.content {
        Content::Static(bytes) => Reply::bytes(Status::OK, asset.content_type, *bytes),
        Content::Memory(bytes) => Reply::shared(asset.content_type, Arc::clone(bytes)),
        Content::Disk(file) => from_disk(asset, file, &(0..asset.len)),
    }
}

/// A reply with some of the bytes.
fn part(asset: &Asset, range: &Range<u64>) -> io::Result<Reply> {
    if let Content::Disk(file) = &asset.content {
        return Ok(from_disk(asset, file, range));
    }
    let mut bytes = Vec::new();
    asset.content.read(range, &mut bytes)?;
    Ok(Reply::bytes(Status::OK, asset.content_type, bytes))
}

fn from_disk(asset: &Asset, file: &Arc<File>, range: &Range<u64>) -> Reply {
    let (offset, len) = (range.start, range.end - range.start);
    Reply::file(asset.content_type, FileRange { file: Arc::clone(file), offset, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 784_200_000;
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    #[track_caller]
    fn check(method: Method, len: u64, lines: &[(&str, &str)], expected: Answer) {
        let current = Validators { tag: "\"a\"", last_modified: Some(784_111_777) };
        let request = lines.iter().fold(Request::new(method, "/"), |r, (name, value)| r.with_header(name, value));
        assert_eq!(decide(&request, &current, len, NOW), expected, "{method} {lines:?}");
    }

    #[test]
    fn conditions_go_before_ranges() {
        use Method::*;
        let range = ("Range", "bytes=0-9");
        check(Get, 100, &[], Answer::Whole);
        check(Get, 100, &[range], Answer::Part(0..10));
        check(Head, 100, &[range], Answer::Whole);
        check(Get, 100, &[range, ("If-None-Match", "\"a\"")], Answer::NotModified);
        check(Get, 100, &[range, ("If-Match", "\"b\"")], Answer::PreconditionFailed);
        check(Get, 100, &[("Range", "bytes=100-"), ("If-None-Match", "*")], Answer::NotModified);
        check(Get, 100, &[range, ("If-Range", "\"a\"")], Answer::Part(0..10));
        check(Get, 100, &[range, ("If-Range", "\"b\"")], Answer::Whole);
        check(Get, 100, &[range, ("If-Range", MODIFIED)], Answer::Part(0..10));
        check(Get, 100, &[("Range", "bytes=100-"), ("If-Range", "\"b\"")], Answer::Whole);
        check(Get, 100, &[("Range", "bytes=100-")], Answer::Unsatisfiable);
        check(Get, 100, &[range, range], Answer::Whole);
        check(Get, 0, &[("Range", "bytes=0-")], Answer::Whole);
    }

    #[test]
    fn large_parts_are_not_put_together() {
        let half = multipart::BYTES_MAX / 2;
        let field = format!("bytes=0-{},{}-{}", half - 1, half, 2 * half - 1);
        check(Method::Get, 10 * half, &[("Range", &field)], Answer::Parts(vec![0..half, half..2 * half]));
        let field = format!("bytes=0-{},{}-{}", half - 1, half, 2 * half);
        check(Method::Get, 10 * half, &[("Range", &field)], Answer::Whole);
        // One alone may be as large as it likes.
        check(Method::Get, 1 << 40, &[("Range", "bytes=1-")], Answer::Part(1..1 << 40));
    }
}
