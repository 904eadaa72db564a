//! Holes, allocation and copies: `fallocate` and `copy_file_range`.
//!
//! The kernel writes its pages of the ranges back before it asks to punch, to zero or to copy, and drops them afterwards.

use super::Adapter;
use super::waiting::unless_killed;
use crate::config::KernelCache;
use crate::limits::{BLOCKS_STALE_MAX, STALE_INODES_MAX};
use cessfs_vfs::{Later, SpaceChange, Vfs, VfsError};
use fuser::{Errno, FileHandle, INodeNo, ReplyEmpty, ReplyWrite, Request};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::ops::Range;

/// Inodes of which the kernel believes an older number of blocks than there are.
#[derive(Default)]
pub(super) struct StaleBlocks(Mutex<BTreeSet<u64>>);

/// A place in an open file.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) ino: INodeNo,
    pub(super) fh: FileHandle,
    pub(super) offset: u64,
}

impl Adapter {
    pub(super) fn change_space(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        range: Range<u64>,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some((what, keep_size)) = space_change(mode) else {
            let refused = VfsError::Unsupported("this mode of fallocate");
            return reply.error(self.faults.errno("fallocate", ino.0, &refused));
        };
        // By somebody who may not keep set-id bits; the kernel does not say, so go by the user as for a setattr.
        let kill_priv = req.uid() != 0;
        let len = range.end - range.start;
        let changed = self
            .vfs
            .fallocate(ino.0, fh.0, what, keep_size, range.start, len, kill_priv);
        if kill_priv {
            self.attributes_changed(ino);
        }
        self.later("fallocate", (ino, req.pid()), changed, move |answer| match answer {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        });
    }

    /// Notes a write: the kernel, which caches, asks for the blocks of a file only once it is closed. So it is told to ask
    /// again, of each file at most once in [`BLOCKS_STALE_MAX`].
    pub(super) fn blocks_changed(&self, ino: INodeNo) {
        if self.kernel_cache != KernelCache::Writeback {
            return;
        }
        {
            let mut stale = self.blocks.0.lock();
            if stale.len() >= STALE_INODES_MAX || !stale.insert(ino.0) || stale.len() > 1 {
                return;
            }
        }
        let (vfs, kernel, blocks) = (self.vfs.clone(), self.kernel.clone(), self.blocks.clone());
        let runtime = self.runtime.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(BLOCKS_STALE_MAX).await;
            runtime.spawn_blocking(move || {
                let stale = std::mem::take(&mut *blocks.0.lock());
                let Some(kernel) = kernel.get() else { return };
                for ino in stale.into_iter().filter(|ino| vfs.is_open_to_write(*ino)) {
                    if let Err(e) = kernel.inval_inode(INodeNo(ino), -1, 0) {
                        tracing::debug!(ino, "the kernel keeps its attributes: {e}");
                    }
                }
            });
        });
    }

    pub(super) fn copy(&self, req: &Request, from: Place, to: Place, len: u64, reply: ReplyWrite) {
        let kill_priv = req.uid() != 0;
        if kill_priv {
            self.attributes_changed(to.ino);
        }
        let (vfs, faults, runtime) = (self.vfs.clone(), self.faults.clone(), self.runtime.clone());
        let pid = req.pid();
        // It works on the disk for long: neither an event loop nor a task that others wait behind.
        self.runtime.spawn_blocking(move || {
            faults.guard("copy_file_range", || {
                let copied = match copy(&vfs, from, to, len, kill_priv) {
                    Ok(copied) => runtime.block_on(unless_killed(pid, copied.settled())),
                    Err(e) => Some(Err(e)),
                };
                let Some(copied) = copied else {
                    return reply.error(Errno::EINTR);
                };
                match copied {
                    Ok(copied) => reply.written(u32::try_from(copied).unwrap_or(u32::MAX)),
                    Err(e) => reply.error(faults.errno("copy_file_range", to.ino.0, &e)),
                }
            });
        });
    }
}

fn copy(vfs: &Vfs, from: Place, to: Place, len: u64, kill_priv: bool) -> Result<Later<u64>, VfsError> {
    vfs.copy_range(
        from.ino.0,
        from.fh.0,
        from.offset,
        to.ino.0,
        to.fh.0,
        to.offset,
        len,
        kill_priv,
    )
}

/// What a mode of `fallocate(2)` asks for, and whether the file keeps its size; `None` for modes that are refused
/// (collapse, insert, unshare, and combinations Linux refuses).
fn space_change(mode: i32) -> Option<(SpaceChange, bool)> {
    let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => Some((SpaceChange::Reserve, keep_size)),
        libc::FALLOC_FL_ZERO_RANGE => Some((SpaceChange::Zero, keep_size)),
        libc::FALLOC_FL_PUNCH_HOLE if keep_size => Some((SpaceChange::Punch, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_that_linux_passes_and_no_others() {
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        assert_eq!(space_change(0), Some((SpaceChange::Reserve, false)));
        assert_eq!(space_change(keep), Some((SpaceChange::Reserve, true)));
        assert_eq!(
            space_change(libc::FALLOC_FL_ZERO_RANGE),
            Some((SpaceChange::Zero, false))
        );
        assert_eq!(
            space_change(libc::FALLOC_FL_ZERO_RANGE | keep),
            Some((SpaceChange::Zero, true))
        );
        assert_eq!(
            space_change(libc::FALLOC_FL_PUNCH_HOLE | keep),
            Some((SpaceChange::Punch, true))
        );
        for refused in [
            libc::FALLOC_FL_PUNCH_HOLE,
            libc::FALLOC_FL_COLLAPSE_RANGE,
            libc::FALLOC_FL_INSERT_RANGE,
            libc::FALLOC_FL_UNSHARE_RANGE,
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE | keep,
        ] {
            assert_eq!(space_change(refused), None, "{refused:#x}");
        }
    }
}
