//! A part of a file to a socket inside the kernel, with Linux's sendfile(2). Other systems use `copy_file`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use mio::net::TcpStream;

use super::copy_file;

/// Sends up to `len` bytes of `file` from `offset` on; one attempt.
///
/// # Errors
/// `WouldBlock` when the socket takes nothing now, `UnexpectedEof` when the file ends at or before `offset`.
pub(super) fn send_file(socket: &mut TcpStream, file: &File, offset: u64, len: usize) -> io::Result<usize> {
    let mut position = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: both descriptors are open while the borrows last; `position` is an off_t (64 bits on every target with
    // 64-bit pointers, which the reactor requires) that outlives the call; the kernel writes nothing else.
    let sent = unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &mut position, len) };
    match usize::try_from(sent) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => Ok(count),
        Err(_) => match io::Error::last_os_error() {
            // Not every file system can.
            e if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                copy_file::send_file(socket, file, offset, len)
            }
            e => Err(e),
        },
    }
}
