//! What a request gets from an asset: the decision, and the one place where it becomes a reply.

use std::hash::RandomState;
use std::io;
use std::ops::Range;

use super::asset::{Asset, Content};
use super::conditional::{self, Validators, Verdict};
use super::multipart;
use super::range::{self, Selection};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::http::types::{Method, Status};

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
        Answer::Whole => part(asset, &(0..asset.len))?.with_lines_in_front(asset.lines()),
        Answer::Part(range) => part(asset, &range)?
            .with_status(Status::PARTIAL_CONTENT)
            .header("Content-Range", multipart::content_range(&range, asset.len))
            .with_lines_in_front(asset.lines()),
        Answer::Parts(ranges) => {
            let boundary = multipart::boundary(random, asset);
            let body = multipart::body(asset, &ranges, &boundary)?;
            let content_type = format!("multipart/byteranges; boundary={boundary}");
            Reply::bytes(Status::PARTIAL_CONTENT, content_type, body).with_lines_in_front(asset.lines())
        }
        Answer::NotModified => Reply::empty(Status::NOT_MODIFIED).with_lines_in_front(asset.lines_of_304()),
        Answer::PreconditionFailed => Reply::empty(Status::PRECONDITION_FAILED),
        Answer::Unsatisfiable => {
            Reply::empty(Status::RANGE_NOT_SATISFIABLE).header("Content-Range", format!("bytes */{}", asset.len))
        }
    })
}

/// A reply with some of the bytes, from where they are.
fn part(asset: &Asset, part: &Range<u64>) -> io::Result<Reply> {
    let static_part =
        |bytes: &'static [u8]| bytes.get(usize::try_from(part.start).ok()?..usize::try_from(part.end).ok()?);
    if let Content::Static(bytes) = asset.content
        && let Some(bytes) = static_part(bytes)
    {
        return Ok(Reply::bytes(Status::OK, asset.content_type, bytes));
    }
    let mut bytes = Vec::new();
    asset.content.read(part, &mut bytes)?;
    Ok(Reply::bytes(Status::OK, asset.content_type, bytes))
}
