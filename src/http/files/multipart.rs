//! Several ranges in one body: `multipart/byteranges` (RFC 9110 §14.6).

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::ops::Range;

use super::asset::Asset;

/// Parts are put together in memory; more than this is not worth it, and the whole is sent instead.
pub(crate) const BYTES_MAX: u64 = 256 << 10;

/// A separator that the content does not hold: nobody knew `random` when it was written.
pub(crate) fn boundary(random: &RandomState, asset: &Asset) -> String {
    format!("{:016x}", random.hash_one(asset.lines()))
}

/// The body. Each part says what it is part of.
///
/// # Errors
/// When a part cannot be read.
pub(crate) fn body(asset: &Asset, parts: &[Range<u64>], boundary: &str) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    for part in parts {
        write!(body, "\r\n--{boundary}\r\n")?;
        if !asset.content_type.is_empty() {
            write!(body, "Content-Type: {}\r\n", asset.content_type)?;
        }
        write!(body, "Content-Range: {}\r\n\r\n", content_range(part, asset.len))?;
        asset.content.read(part, &mut body)?;
    }
    write!(body, "\r\n--{boundary}--\r\n")?;
    Ok(body)
}

/// The value of `Content-Range` for a part (§14.4): both ends inclusive.
pub(crate) fn content_range(part: &Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", part.start, part.end.saturating_sub(1))
}
