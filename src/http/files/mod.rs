//! Static files, from disk ([`Files`]) or part of the program ([`File`]).
//!
//! A request passes these, each a file and each knowing nothing of the others:
//! `path` (what the URL may name) → `root` (opening it, below one directory) → `asset` (one version of a file, kept by
//! `cache`) → `content_coding` of the layer above (plain, or compressed beforehand) → `conditional` and `range`
//! (RFC 9110 §13 and §14) → `answer`.
//!
//! Nothing outside the directory is ever served: a path is refused where it could climb, and the kernel holds the look-up
//! below the directory besides. Opening and reading small files happens on the event loop, as a rule from the page cache;
//! large ones go from file to socket by the kernel.

mod answer;
mod asset;
mod cache;
mod conditional;
mod disk;
mod embedded;
mod mime;
mod multipart;
pub(crate) mod path;
mod range;
mod root;
#[cfg(test)]
mod scratch;

pub(super) use conditional::lines;
pub use disk::Files;
pub use embedded::File;
