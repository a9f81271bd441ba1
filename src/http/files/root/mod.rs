//! Opening files below a directory, and nowhere else, whatever symbolic links say.
//!
//! Where the kernel can hold a look-up below a directory (Linux 5.6, `openat2`), it does; else the path is resolved first
//! and looked at. Only regular files are read: opening never waits for a FIFO's writer, and a directory is told apart.

#[cfg_attr(target_os = "linux", path = "openat2.rs")]
#[cfg_attr(not(target_os = "linux"), path = "no_openat2.rs")]
mod beneath;

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A directory by its path. It is looked up each time, so that a deployment may put another one in its place.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    lookup: Lookup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lookup {
    /// The kernel refuses to leave the directory.
    Kernel,
    /// The path is resolved, compared and then opened. Whoever may write below the directory could swap a name in between.
    Resolved,
}

/// What a name stands for.
#[derive(Debug)]
pub(crate) enum Found {
    File(File, Metadata),
    Directory,
    /// Nothing, something that is no file, or something that is not below the directory or not ours to read.
    Nothing,
}

impl Root {
    /// # Errors
    /// When the path is no directory, or may not be read.
    pub fn new(path: &Path) -> io::Result<Root> {
        let path = std::path::absolute(path)?;
        if !fs::metadata(&path)?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "not a directory"));
        }
        let lookup = if beneath::is_supported(&path) { Lookup::Kernel } else { Lookup::Resolved };
        Ok(Root { path, lookup })
    }

    /// Opens what has this name below the directory; an empty name is the directory itself. A symbolic link is followed as
    /// far as it stays below.
    ///
    /// # Errors
    /// When the system fails: too many open files, no memory, a broken disk. That a name is absent is not one.
    pub fn open(&self, name: &str) -> io::Result<Found> {
        let name = Path::new(if name.is_empty() { "." } else { name });
        let opened = match self.lookup {
            Lookup::Kernel => match beneath::open(&self.path, name) {
                // A link left the directory, as an absolute one always does at first: it may lead back in.
                Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                    self.resolve(name).and_then(|(root, inside)| beneath::open(&root, &inside))
                }
                opened => opened,
            },
            Lookup::Resolved => self.resolve(name).and_then(|(root, inside)| {
                OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | OPEN_FLAGS).open(root.join(inside))
            }),
        };
        let file = match opened {
            Ok(file) => file,
            Err(error) if is_absence(&error) => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        Ok(match metadata.file_type() {
            kind if kind.is_file() => Found::File(file, metadata),
            kind if kind.is_dir() => Found::Directory,
            _ => Found::Nothing,
        })
    }

    /// The directory and the path of `name` below it, both without symbolic links.
    fn resolve(&self, name: &Path) -> io::Result<(PathBuf, PathBuf)> {
        let root = fs::canonicalize(&self.path)?;
        let full = fs::canonicalize(root.join(name))?;
        let inside = full.strip_prefix(&root).map_err(|_| io::Error::from_raw_os_error(libc::EXDEV))?;
        let inside = if inside.as_os_str().is_empty() { PathBuf::from(".") } else { inside.to_path_buf() };
        Ok((root, inside))
    }
}

/// Never wait (a FIFO), never become a terminal's, never survive an exec.
const OPEN_FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;

/// Whether the error means that there is no such file for us. ENXIO and ENODEV: a socket or a device without a driver.
fn is_absence(error: &io::Error) -> bool {
    use libc::{EACCES, ELOOP, ENAMETOOLONG, ENODEV, ENOENT, ENOTDIR, ENXIO, EOPNOTSUPP, EPERM, EXDEV};
    let absent = [ENOENT, ENOTDIR, ELOOP, EXDEV, EACCES, EPERM, ENAMETOOLONG, ENXIO, ENODEV, EOPNOTSUPP];
    error.raw_os_error().is_none_or(|code| absent.contains(&code))
}

#[cfg(test)]
mod tests;
