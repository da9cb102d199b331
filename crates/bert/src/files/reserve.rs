//! Room on a disk, taken before it is needed.

use std::fs::File;
use std::io::{self, Seek, Write};

/// Makes sure that the first `bytes` of a file, which is empty, can be written. Its length is `bytes` afterwards.
///
/// # Errors
/// What writing would have met: a full disk, a quota, a limit on the size of files.
#[cfg(target_os = "linux")]
pub(super) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, 0, bytes) {
        // The C library's `posix_fallocate` would now read and write each block by itself.
        Err(error) if cannot(&error) => write_zeros(file, bytes),
        allocated => allocated,
    }
}

/// Room for a file to grow to `bytes`; its length stays. Nothing where the file system cannot do that.
///
/// # Errors
/// As [`allocate`].
#[cfg(target_os = "linux")]
pub(super) fn keep_size(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, libc::FALLOC_FL_KEEP_SIZE, bytes) {
        Err(error) if cannot(&error) => Ok(()),
        allocated => allocated,
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn keep_size(_file: &File, _bytes: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn cannot(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

#[cfg(target_os = "linux")]
fn fallocate(file: &File, mode: libc::c_int, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let Ok(length) = libc::off_t::try_from(bytes) else { return Err(io::ErrorKind::FileTooLarge.into()) };
    if length == 0 {
        return Ok(());
    }
    loop {
        // SAFETY: the descriptor is that of an open file, and no memory is passed.
        if unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, length) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
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
