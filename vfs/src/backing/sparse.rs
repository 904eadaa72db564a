//! What a file's filesystem tells of its holes and can copy by itself, and whether anybody else has the file open.

use crate::data::{BLOCK, CHUNK};
use crate::records::BlockMap;
use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Where data (or a hole) begins from `at` on; `None` when nothing of it follows.
pub(crate) fn seek(file: &File, at: u64, what: Whence) -> io::Result<Option<u64>> {
    let Ok(at) = i64::try_from(at) else { return Ok(None) };
    match lseek(file, at, what) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Blocks of a chunk that are not in a hole. Blocks of the filesystem's own may be larger: then some here hold zeros only.
pub(crate) fn data_blocks(file: &File, chunk: u64) -> io::Result<BlockMap> {
    data_blocks_at(file, chunk * CHUNK)
}

/// The same for as many bytes from `start` on.
pub(super) fn data_blocks_at(file: &File, start: u64) -> io::Result<BlockMap> {
    let mut map = BlockMap::default();
    let end = start + CHUNK;
    let mut at = start;
    while at < end {
        let Some(data) = seek(file, at, Whence::SeekData)?.filter(|data| *data < end) else {
            break;
        };
        let hole = seek(file, data, Whence::SeekHole)?.map_or(end, |hole| hole.min(end));
        let within = |offset: u64| (offset - start) as usize;
        map.insert_range(within(data) / BLOCK..within(hole).div_ceil(BLOCK));
        at = hole.max(data + 1);
    }
    Ok(map)
}

/// Chunks with data, ascending: 8 bytes of memory for each.
pub(crate) fn data_chunks(file: &File) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(data) = seek(file, at, Whence::SeekData)? {
        let chunk = data / CHUNK;
        found.push(chunk);
        at = (chunk + 1) * CHUNK;
    }
    Ok(found)
}

/// Command of fcntl(2) that libc does not name: which signal tells that a lease is broken.
const F_SETSIG: libc::c_int = 10;

/// Whether this open file is the only one of its inode: no other descriptor and no mapping, of any process. It is asked by a
/// write lease, which the kernel gives to nobody else's company.
pub(crate) fn is_alone(file: &File) -> io::Result<bool> {
    // Somebody who opens the file in this moment breaks the lease: by a signal that is ignored, not by one that kills.
    control(file, F_SETSIG, libc::SIGURG)?;
    match control(file, libc::F_SETLEASE, libc::F_WRLCK) {
        Ok(()) => {
            control(file, libc::F_SETLEASE, libc::F_UNLCK)?;
            Ok(true)
        }
        Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Has the kernel begin to write the dirty pages of a range to the disk. Neither waits for them nor makes anything durable.
///
/// # Errors
/// The filesystem cannot do that, or the range is none.
pub(super) fn begin_to_write(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let range = libc::off64_t::try_from(offset)
        .ok()
        .zip(libc::off64_t::try_from(bytes).ok());
    let (offset, bytes) = range.ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: takes integers and touches no memory of this process; the descriptor is open as long as `file` is.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn control(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: both commands take an integer and touch no memory of this process; the descriptor is open as long as `file` is.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
/// Copies as the disk does it; false if it cannot copy all of them.
pub(super) fn copy(from: &File, from_at: u64, to: &File, to_at: u64, bytes: u64) -> io::Result<bool> {
    let (mut from_at, mut to_at) = (from_at as libc::off64_t, to_at as libc::off64_t);
    let mut left = bytes as usize;
    while left > 0 {
        match copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), left) {
            Ok(0) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EXDEV | Errno::EINVAL) => break,
            Ok(copied) => left -= copied.min(left),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(left == 0)
}
