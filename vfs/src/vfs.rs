//! The facade: a filesystem for whoever calls it, with kernel semantics and no idea of FUSE.
//!
//! Every change of names or attributes is one atomic batch, computed under the locks of the inodes it touches (ascending
//! numbers, see [`crate::inode`]) and committed before they are released. The store is write-behind: nobody waits for the
//! disk under a lock, except for a first read.
//!
//! What is *not* done here because the kernel does it (mounted with `default_permissions`): permission checks, the sticky
//! bit's restricted deletion, who may chmod, chown or set trusted xattrs, clearing set-gid on a chmod or create by somebody
//! outside the group, following symlinks. What the kernel leaves to us: the umask and default access control lists, set-gid
//! inheritance, clearing set-id bits and file capabilities on chown, on truncation (the bits: by others than root) and on
//! writes when asked (`kill_priv`), times, link counts, emptiness, loops.

use crate::attr::{Attr, Caller, FileKind, SetAttr};
use crate::core::{Core, VfsParts};
use crate::data::Data;
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::records::InodeRecord;
use handles::HandleTable;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;

mod acls;
mod attributes;
mod control;
mod create;
pub(crate) mod files;
mod handles;
mod lookup;
mod open;
mod quotas;
mod readdir;
mod remove;
mod rename;
pub mod snapshots;
mod space;
mod trash;
pub mod unsent;
pub mod virtual_dir;
mod xattrs;

/// A mounted volume.
pub struct Vfs {
    core: Arc<Core>,
    data: Data,
    handles: HandleTable,
    /// Held while a directory changes its parent: the only way a loop could be made.
    renames: Mutex<()>,
    /// Held exclusively while a tree is walked to change its quota: no name moves to another directory meanwhile. Taken
    /// before the gate of the change marks, which the walk enters again and again.
    walks: RwLock<()>,
    /// Held by the event loop that waits for a flush of the journal.
    syncing: Mutex<()>,
    sweeper: trash::Sweeper,
}

impl Vfs {
    /// A live inode.
    fn inode(&self, ino: u64) -> Result<Arc<Inode>, VfsError> {
        if virtual_dir::is_virtual(ino) {
            return Err(VfsError::NotPermitted);
        }
        if crate::is_snapshot(ino) {
            return Err(VfsError::ReadOnly);
        }
        self.core.inodes.get(&self.core, ino)
    }
}

/// Fails unless names can be looked up in (and, under a write lock, added to) this inode: `NotDirectory`, or `NotFound` in a
/// directory that was removed.
fn check_dir(state: &InodeState) -> Result<(), VfsError> {
    if state.record.kind != FileKind::Directory {
        return Err(VfsError::NotDirectory);
    }
    if state.gone { Err(VfsError::NotFound) } else { Ok(()) }
}

impl Vfs {
    /// What `stat` tells about a live inode.
    fn live_attr_of(&self, ino: u64, state: &InodeState) -> Result<Attr, VfsError> {
        let mut attr = attr_of(ino, &state.record);
        if let Some((now, is_written)) = self.data.written_by_others(state)? {
            (attr.size, attr.blocks) = (now.size, now.blocks);
            (attr.atime, attr.mtime, attr.ctime) = (now.atime, now.mtime, now.ctime);
            attr.fleeting = is_written;
        }
        Ok(attr)
    }
}

/// A directory's size as `stat` tells it: one block, as most filesystems say of a small one.
const DIRECTORY_BYTES: u64 = 4096;

/// What `stat` tells about this record.
pub(crate) fn attr_of(ino: u64, record: &InodeRecord) -> Attr {
    Attr {
        ino,
        size: if record.kind == FileKind::Directory {
            DIRECTORY_BYTES
        } else {
            record.size
        },
        blocks: record.blocks * (crate::limits::BLOCK_BYTES / 512),
        atime: record.atime,
        mtime: record.mtime,
        ctime: record.ctime,
        btime: record.btime,
        kind: record.kind,
        perm: record.perm,
        nlink: record.nlink,
        uid: record.uid,
        gid: record.gid,
        rdev: record.rdev,
        fleeting: false,
    }
}

#[cfg(test)]
mod tests;
