//! A part of a file to a socket through memory: for systems and files without a call that does it in the kernel.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::buffer::BLOCK_BYTES;

/// Sends up to `len` bytes of `file` from `offset` on, at most one block; one attempt. What the socket does not take is
/// read again the next time.
///
/// # Errors
/// `WouldBlock` when the socket takes nothing now, `UnexpectedEof` when the file ends at or before `offset`.
pub(super) fn send_file(socket: &mut impl Write, file: &File, offset: u64, len: usize) -> io::Result<usize> {
    let mut block = [0; BLOCK_BYTES];
    match file.read_at(&mut block[..len.min(BLOCK_BYTES)], offset)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => socket.write(&block[..count]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "uses a file")]
    fn blocks_of_a_file_until_its_end() {
        let path = std::env::temp_dir().join(format!("sconce-copy-file-{}", std::process::id()));
        let content: Vec<u8> = (0..2 * BLOCK_BYTES + 5).map(|n| (n / 3) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut sent = Vec::new();
        while sent.len() < content.len() {
            let (offset, before) = (sent.len() as u64, sent.len());
            let count = send_file(&mut sent, &file, offset, usize::MAX).unwrap();
            assert_eq!(sent.len(), before + count);
        }
        assert!(sent == content);
        let error = send_file(&mut Vec::new(), &file, content.len() as u64, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
