//! `lseek` for holes and data.
//!
//! The kernel keeps pages that it has not written yet, which would look like holes here. To make it forget its pages makes it write
//! them first. But it waits for each page, for those that somebody reads from the network, too, and holds the file against writers
//! while a seek is not answered. So what lies in the way of that is waited for for [`SEEK_WAIT_MAX`], and then all of the file is
//! called data, which is always true enough.

use super::Adapter;
use super::patience::{PAGE_BYTES, Wanted};
use crate::config::KernelCache;
use crate::limits::{SEEK_WAIT_MAX, SEEKS_BEHIND_READS_MAX};
use cessfs_vfs::{Seek, VfsError};
use fuser::{Errno, FileHandle, INodeNo, ReplyLseek};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};

/// Files whose pages a thread waits for.
#[derive(Clone, Default)]
pub(super) struct Behind(Arc<Mutex<BTreeSet<u64>>>);

impl Behind {
    /// False if a thread waits already, or too many do.
    fn begin(&self, ino: u64) -> bool {
        let mut inos = self.0.lock();
        inos.len() < SEEKS_BEHIND_READS_MAX && inos.insert(ino)
    }

    fn end(&self, ino: u64) {
        self.0.lock().remove(&ino);
    }
}

/// What lseek(2) asks for, and from where on.
pub(super) fn sought(offset: i64, whence: i32) -> Result<(Seek, u64), Errno> {
    let what = match whence {
        libc::SEEK_DATA => Seek::Data,
        libc::SEEK_HOLE => Seek::Hole,
        _ => return Err(Errno::EINVAL),
    };
    let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
    Ok((what, from))
}

impl Adapter {
    pub(super) fn seek(&self, ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let (what, from) = match sought(offset, whence) {
            Ok(sought) => sought,
            Err(errno) => return reply.error(errno),
        };
        if self.kernel_cache != KernelCache::Writeback || !self.vfs.is_open_to_write(ino.0) {
            return answer(self.vfs.seek(ino.0, fh.0, from, what), reply, |e| {
                self.faults.errno("lseek", ino.0, e)
            });
        }
        // Not from an event loop, which the kernel's writes need.
        let adapter = self.clone();
        self.runtime.spawn_blocking(move || {
            adapter.faults.guard("lseek", || {
                let found = match adapter.is_all_here(ino, from) {
                    Ok(true) => adapter.vfs.seek(ino.0, fh.0, from, what),
                    Ok(false) => adapter
                        .vfs
                        .getattr(ino.0)
                        .and_then(|attr| all_data(attr.size, from, what)),
                    Err(e) => Err(e),
                };
                answer(found, reply, |e| adapter.faults.errno("lseek", ino.0, e));
            });
        });
    }

    /// Has the kernel write what it has of a file from `from` on, and tells whether it did. It has done so with what lies beyond the
    /// end in any case: the size is right then.
    fn is_all_here(&self, ino: INodeNo, from: u64) -> Result<bool, VfsError> {
        let size = self.vfs.getattr(ino.0)?.size;
        let page = u64::from(*PAGE_BYTES);
        let end = size - size % page;
        // A page that is being read holds nothing that was not written.
        let last = Wanted {
            ino: ino.0,
            offset: end,
            bytes: 1,
        };
        let end = if self.reads.wait_for(&last) { end + page } else { end };
        self.write_pages(ino, end.max(from), None);
        if from >= end {
            return Ok(true);
        }
        if !self.behind.begin(ino.0) {
            return Ok(false);
        }
        let (done, is_done) = mpsc::channel();
        let adapter = self.clone();
        self.runtime.spawn_blocking(move || {
            adapter.write_pages(ino, from, Some(end));
            adapter.behind.end(ino.0);
            let _nobody_waits_any_more = done.send(());
        });
        Ok(is_done.recv_timeout(SEEK_WAIT_MAX).is_ok())
    }

    /// Has the kernel write, and forget, its pages of a file from one byte to another, or to the end.
    fn write_pages(&self, ino: INodeNo, from: u64, to: Option<u64>) {
        let Ok(start) = i64::try_from(from) else { return };
        let len = to.map_or(0, |to| i64::try_from(to - from).unwrap_or(0));
        if let Some(Err(e)) = self.kernel.get().map(|kernel| kernel.inval_inode(ino, start, len)) {
            tracing::debug!(ino = ino.0, "the kernel keeps pages it has not written: {e}");
        }
    }
}

/// The answer for a file without holes.
fn all_data(size: u64, from: u64, what: Seek) -> Result<u64, VfsError> {
    match what {
        _ if from >= size => Err(VfsError::NoOffset),
        Seek::Data => Ok(from),
        Seek::Hole => Ok(size),
    }
}

fn answer(found: Result<u64, VfsError>, reply: ReplyLseek, errno: impl FnOnce(&VfsError) -> Errno) {
    match found {
        Ok(at) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
        Err(e) => reply.error(errno(&e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_holes_ends_in_one() {
        assert_eq!(all_data(10, 3, Seek::Data).unwrap(), 3);
        assert_eq!(all_data(10, 3, Seek::Hole).unwrap(), 10);
        for what in [Seek::Data, Seek::Hole] {
            assert!(matches!(all_data(10, 10, what), Err(VfsError::NoOffset)));
        }
    }

    #[test]
    fn one_thread_waits_for_a_file_and_few_do() {
        let behind = Behind::default();
        assert!(behind.begin(1) && !behind.begin(1));
        behind.end(1);
        for ino in 0..SEEKS_BEHIND_READS_MAX as u64 {
            assert!(behind.begin(ino));
        }
        assert!(!behind.begin(u64::MAX));
    }
}
