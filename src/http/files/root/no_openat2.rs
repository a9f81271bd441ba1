//! The twin of `openat2.rs` for systems without the call: paths are resolved first.

use std::fs::File;
use std::io;
use std::path::Path;

pub(super) fn is_supported(_root: &Path) -> bool {
    false
}

pub(super) fn open(_root: &Path, _name: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}
