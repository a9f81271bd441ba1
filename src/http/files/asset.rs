//! One version of one file, with everything about it that does not depend on the request.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::conditional::Validators;
use crate::http::content_coding::Coding;
use crate::http::date;

/// A representation (RFC 9110 §3.2): its bytes, its validators and the header lines that go with it.
#[derive(Debug)]
pub(crate) struct Asset {
    pub content: Content,
    /// Bytes.
    pub len: u64,
    pub content_type: &'static str,
    tag: String,
    last_modified: Option<u64>,
    /// Rendered header lines, those that a 304 repeats (§15.4.5) first.
    lines: String,
    lines_of_304_len: usize,
}

/// Where the bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Static(&'static [u8]),
    Memory(Arc<[u8]>),
    Disk(Arc<File>),
}

/// What is known of an [`Asset`] before its header lines are rendered.
pub(crate) struct Description<'a> {
    pub content: Content,
    pub len: u64,
    pub content_type: &'static str,
    pub tag: String,
    /// Seconds since 1970, not in the future (§8.8.2.1).
    pub last_modified: Option<u64>,
    pub cache_control: &'a str,
    pub coding: Option<Coding>,
    /// Other clients get this file in another coding.
    pub varies: bool,
}

impl Asset {
    pub fn new(description: Description<'_>) -> Asset {
        let Description { content, len, content_type, tag, last_modified, cache_control, coding, varies } = description;
        let mut lines = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = write!(lines, "{name}: {value}\r\n");
            lines.len()
        };
        let mut lines_of_304_len = line("ETag", &tag);
        if !cache_control.is_empty() {
            lines_of_304_len = line("Cache-Control", cache_control);
        }
        if varies {
            lines_of_304_len = line("Vary", "Accept-Encoding");
        }
        if let Some(coding) = coding {
            line("Content-Encoding", coding.name());
        }
        if let Some(unix) = last_modified {
            line("Last-Modified", &date::imf_fixdate(unix));
        }
        line("Accept-Ranges", "bytes");
        line("X-Content-Type-Options", "nosniff");
        Asset { content, len, content_type, tag, last_modified, lines, lines_of_304_len }
    }

    pub fn validators(&self) -> Validators<'_> {
        Validators { tag: &self.tag, last_modified: self.last_modified }
    }

    /// The header lines of an answer with the bytes, or some of them.
    pub fn lines(&self) -> &str {
        &self.lines
    }

    /// The header lines of an answer that sends the client to its own copy.
    pub fn lines_of_304(&self) -> &str {
        &self.lines[..self.lines_of_304_len]
    }
}

impl Content {
    /// Appends a part of the bytes.
    ///
    /// # Errors
    /// When the file has become shorter, or cannot be read.
    pub fn read(&self, part: &Range<u64>, into: &mut Vec<u8>) -> io::Result<()> {
        let too_short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let bounds = usize::try_from(part.start).and_then(|start| Ok(start..usize::try_from(part.end)?));
        let bounds = bounds.map_err(|_| too_short())?;
        match self {
            Content::Static(bytes) => into.extend_from_slice(bytes.get(bounds).ok_or_else(too_short)?),
            Content::Memory(bytes) => into.extend_from_slice(bytes.get(bounds).ok_or_else(too_short)?),
            Content::Disk(file) => {
                let from = into.len();
                into.resize(from + bounds.len(), 0);
                file.read_exact_at(&mut into[from..], part.start)?;
            }
        }
        Ok(())
    }
}

/// An entity tag of what tells versions of one file apart (FNV-1a, 64 bits, and the length): no secret, and no proof.
pub(crate) fn entity_tag(identity: &[u8], len: u64) -> String {
    let hash = identity
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("\"{hash:016x}-{len:x}\"")
}
