//! Look-ups that the kernel holds below a directory: `openat2(2)` with `RESOLVE_BENEATH`, Linux 5.6.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::OPEN_FLAGS;

/// A rename anywhere in the system can make the kernel unsure of a `..` in a link: it says EAGAIN, and may be asked again.
const TRIES: usize = 8;

/// `struct open_how` of `linux/openat2.h`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Whether this kernel has the call, and no sandbox forbids it.
pub(super) fn is_supported(root: &Path) -> bool {
    open(root, Path::new(".")).is_ok()
}

/// Opens `name` below `root` for reading. EXDEV: it is not below.
pub(super) fn open(root: &Path, name: &Path) -> io::Result<File> {
    let root = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(root)?;
    let name = CString::new(name.as_os_str().as_bytes())?;
    let how = OpenHow {
        flags: (libc::O_RDONLY | OPEN_FLAGS) as u64,
        mode: 0,
        resolve: libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS,
    };
    let mut error = io::Error::from(io::ErrorKind::WouldBlock);
    for _ in 0..TRIES {
        // SAFETY: the descriptor is open during the call, the name ends in NUL, and `how` is a live `open_how` of the size
        // given. The kernel writes to none of them.
        let fd = unsafe {
            libc::syscall(libc::SYS_openat2, root.as_raw_fd(), name.as_ptr(), &raw const how, size_of::<OpenHow>())
        };
        if fd >= 0 {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
            return Ok(unsafe { File::from_raw_fd(fd as i32) });
        }
        error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) {
            break;
        }
    }
    Err(error)
}
