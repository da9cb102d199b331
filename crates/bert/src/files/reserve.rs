//! Room on a disk, taken before it is needed.

use std::fs::File;
use std::io::{self, Seek, Write};

/// Makes sure that the first `bytes` of a file, which is empty, can be written. Its length is `bytes` afterwards.
///
/// # Errors
/// What writing would have met: a full disk, a quota, a limit on the size of files.
#[cfg(target_os = "linux")]
pub(super) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let Ok(length) = libc::off_t::try_from(bytes) else { return Err(io::ErrorKind::FileTooLarge.into()) };
    if length == 0 {
        return Ok(());
    }
    loop {
        // SAFETY: the descriptor is that of an open file, and no memory is passed.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // The C library's `posix_fallocate` would now read and write each block by itself.
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => return write_zeros(file, bytes),
            _ => return Err(error),
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    write_zeros(file, bytes)
}

/// The same where a file system cannot reserve. One that compresses, or never writes in place, promises nothing by it.
pub(super) fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(zeros.len() as u64);
        file.write_all(&zeros[..piece as usize])?;
        left -= piece;
    }
    file.sync_all()?;
    file.rewind()
}
