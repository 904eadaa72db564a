//! Finding: names to inodes, and what the kernel remembers of them.

use super::{Vfs, check_dir};
use crate::attr::{Attr, FileKind};
use crate::dentry::{check_name, is_dot};
use crate::error::VfsError;
use crate::inode::{Inode, InodeState, Locked, ROOT_INO};
use crate::records::Dentry;
use cessfs_sync::StoreError;
use std::sync::Arc;

impl Vfs {
    /// Finds `name` in a directory and counts one reference of the kernel on what it names (see [`forget`](Vfs::forget)).
    /// `.` and `..` are found too, `.` also in what is no directory: itself.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Attr, VfsError> {
        check_name(name)?;
        if let Some(found) = self.virtual_lookup(parent, name) {
            return found;
        }
        let dir = self.inode(parent)?;
        let ino = {
            let state = dir.state.read();
            if name == b"." && state.record.kind != FileKind::Directory {
                return self.lookup_again(parent, &state);
            }
            check_dir(&state)?;
            match name {
                b"." => parent,
                b".." => state.record.parent,
                _ => self.entry(&state, parent, name)?.ino,
            }
        };
        // The directory is unlocked before the child is locked (its number may be lower). A removal that comes between
        // either sees the reference and keeps the attributes, or leaves the inode gone, which is not finding it.
        self.core.inodes.remember(ino);
        match self.live_attr(ino) {
            Ok(attr) => {
                if attr.kind == FileKind::Directory && !is_dot(name) {
                    self.core.places.note(ino, parent, name);
                }
                Ok(attr)
            }
            Err(e) => {
                self.forget(ino, 1);
                Err(match e {
                    VfsError::Stale => VfsError::NotFound,
                    other => other,
                })
            }
        }
    }

    /// Finds an inode by its number alone, as the kernel does for who has a file handle (`open_by_handle_at`): not one whose last
    /// name is gone. The caller holds its lock.
    fn lookup_again(&self, ino: u64, state: &InodeState) -> Result<Attr, VfsError> {
        if state.gone || state.record.nlink == 0 {
            return Err(VfsError::NotFound);
        }
        let attr = self.live_attr_of(ino, state)?;
        self.core.inodes.remember(ino);
        Ok(attr)
    }

    /// The kernel dropped `n` references to an inode. Costs nothing for inodes it never held.
    pub fn forget(&self, ino: u64, n: u64) {
        if super::virtual_dir::is_virtual(ino) || crate::is_snapshot(ino) {
            return;
        }
        if !self.core.inodes.forget(ino, n) {
            return;
        }
        if let Some(inode) = self.core.inodes.peek(ino)
            && inode.state.read().gone
        {
            self.core.inodes.drop_gone(ino);
        }
    }

    /// Attributes; of a removed inode too, as long as it is open or the kernel remembers it.
    pub fn getattr(&self, ino: u64) -> Result<Attr, VfsError> {
        if let Some(attr) = self.virtual_attr(ino) {
            return Ok(attr);
        }
        let inode = self.inode(ino)?;
        let state = inode.state.read();
        self.live_attr_of(ino, &state)
    }

    /// A symlink's target. Counts as an access.
    pub fn readlink(&self, ino: u64) -> Result<Vec<u8>, VfsError> {
        let inode = self.inode(ino)?;
        let target = {
            let state = inode.state.read();
            if state.record.kind != FileKind::Symlink {
                return Err(VfsError::Invalid("not a symbolic link"));
            }
            state.record.target.clone()
        };
        self.touch(&inode)?;
        Ok(target)
    }

    /// The inode of an absolute path within the volume. Follows no symlink; the kernel's references are not counted.
    pub fn resolve(&self, path: &[u8]) -> Result<u64, VfsError> {
        let mut ino = ROOT_INO;
        for name in path
            .split(|byte| *byte == b'/')
            .filter(|name| !matches!(*name, b"" | b"."))
        {
            check_name(name)?;
            let dir = self.inode(ino)?;
            let state = dir.state.read();
            check_dir(&state)?;
            ino = match name {
                b".." => state.record.parent,
                _ => self.entry(&state, ino, name)?.ino,
            };
        }
        Ok(ino)
    }

    /// Attributes of an inode that still exists.
    pub(super) fn live_attr(&self, ino: u64) -> Result<Attr, VfsError> {
        let inode = self.inode(ino)?;
        let state = inode.state.read();
        state.check_alive()?;
        self.live_attr_of(ino, &state)
    }

    /// The entry `name` of a directory whose lock the caller holds (`_state` is the proof).
    fn entry(&self, _state: &InodeState, parent: u64, name: &[u8]) -> Result<Dentry, VfsError> {
        let bucket = self.core.bucket((parent, self.core.name_hash(parent, name)))?;
        bucket.find(name).cloned().ok_or(VfsError::NotFound)
    }

    /// What `name` means right now, as a live inode; `None` if nothing. By the time the caller locks both it may mean
    /// something else: see [`still_names`](Vfs::still_names).
    pub(super) fn find(&self, dir: &Arc<Inode>, name: &[u8]) -> Result<Option<Arc<Inode>>, VfsError> {
        for _ in 0..FIND_TRIES {
            let ino = {
                let state = dir.state.read();
                check_dir(&state)?;
                match self.entry(&state, dir.ino, name) {
                    Ok(dentry) => dentry.ino,
                    Err(VfsError::NotFound) => return Ok(None),
                    Err(e) => return Err(e),
                }
            };
            match self.inode(ino) {
                Err(VfsError::Stale) => {} // removed since: look at the name again
                found => return found.map(Some),
            }
        }
        Err(StoreError::Corrupt(format!("a name in directory {} has no inode", dir.ino)).into())
    }

    /// The locked directory is alive and `name` in it means `child` (`None`: nothing).
    pub(super) fn still_names(
        &self,
        locked: &Locked<'_>,
        parent: u64,
        name: &[u8],
        child: Option<u64>,
    ) -> Result<bool, VfsError> {
        let state = locked.state(parent);
        check_dir(state)?;
        match self.entry(state, parent, name) {
            Ok(dentry) => Ok(child == Some(dentry.ino)),
            Err(VfsError::NotFound) => Ok(child.is_none()),
            Err(e) => Err(e),
        }
    }
}

/// How often a name is looked at again because what it named was removed in between. Each time somebody else succeeded in
/// replacing it, so reaching this means a name without an inode.
const FIND_TRIES: usize = 1000;
