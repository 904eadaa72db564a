//! New names: files of all kinds, directories, symlinks, hard links. Nothing but records: a regular file gets a backing
//! file only once its content outgrows the record.

use super::files::Opened;
use super::{Vfs, attr_of, check_dir};
use crate::attr::{Attr, Caller, FileKind};
use crate::change::Change;
use crate::dentry::{check_name, is_dot};
use crate::error::VfsError;
use crate::inode::{Inode, lock_many};
use crate::limits::{DIR_NLINK_MAX, NLINK_MAX, SYMLINK_BYTES_MAX};
use crate::records::InodeRecord;
use crate::request::OpenFlags;
use std::sync::Arc;

/// Set-gid: on a directory, what is made inside gets its group.
const SET_GID: u16 = 0o2000;

/// What is to be made.
struct Birth<'a> {
    kind: FileKind,
    perm: u16,
    rdev: u32,
    target: &'a [u8],
    /// Handles open from the start.
    opens: u32,
}

/// Group of what this caller makes in a directory.
pub(super) fn group_below(dir: &InodeRecord, caller: Caller) -> u32 {
    match dir.perm & SET_GID {
        0 => caller.gid,
        _ => dir.gid,
    }
}

impl Vfs {
    /// Makes a regular file, FIFO, socket or device (`rdev` as `stat` tells it; ignored for the others).
    pub fn mknod(
        &self,
        parent: u64,
        name: &[u8],
        kind: FileKind,
        perm: u16,
        rdev: u32,
        caller: Caller,
    ) -> Result<Attr, VfsError> {
        let rdev = match kind {
            FileKind::CharDevice | FileKind::BlockDevice => rdev,
            FileKind::Regular | FileKind::Fifo | FileKind::Socket => 0,
            FileKind::Directory | FileKind::Symlink => return Err(VfsError::Invalid("mknod makes no such file")),
        };
        let birth = Birth {
            kind,
            perm,
            rdev,
            target: b"",
            opens: 0,
        };
        Ok(self.make(parent, name, birth, caller)?.0)
    }

    /// Makes an empty directory.
    pub fn mkdir(&self, parent: u64, name: &[u8], perm: u16, caller: Caller) -> Result<Attr, VfsError> {
        let birth = Birth {
            kind: FileKind::Directory,
            perm,
            rdev: 0,
            target: b"",
            opens: 0,
        };
        Ok(self.make(parent, name, birth, caller)?.0)
    }

    /// Makes a symlink. The target is 1..=4095 bytes and never looked at.
    pub fn symlink(&self, parent: u64, name: &[u8], target: &[u8], caller: Caller) -> Result<Attr, VfsError> {
        if target.is_empty() {
            return Err(VfsError::NotFound);
        }
        if target.len() > SYMLINK_BYTES_MAX {
            return Err(VfsError::NameTooLong);
        }
        let birth = Birth {
            kind: FileKind::Symlink,
            perm: 0o777,
            rdev: 0,
            target,
            opens: 0,
        };
        Ok(self.make(parent, name, birth, caller)?.0)
    }

    /// Makes a regular file and opens it. The handle is the second value.
    pub fn create(
        &self,
        parent: u64,
        name: &[u8],
        perm: u16,
        flags: OpenFlags,
        caller: Caller,
    ) -> Result<(Attr, u64), VfsError> {
        let birth = Birth {
            kind: FileKind::Regular,
            perm,
            rdev: 0,
            target: b"",
            opens: 1,
        };
        let (attr, inode) = self.make(parent, name, birth, caller)?;
        Ok((attr, self.handles.insert(inode, flags)))
    }

    /// The same for a caller that can have the kernel read and write the file itself; see [`open_through`](Vfs::open_through).
    pub fn create_through(
        &self,
        parent: u64,
        name: &[u8],
        perm: u16,
        flags: OpenFlags,
        caller: Caller,
    ) -> Result<(Attr, Opened), VfsError> {
        let birth = Birth {
            kind: FileKind::Regular,
            perm,
            rdev: 0,
            target: b"",
            opens: 1,
        };
        let (mut attr, inode) = self.make(parent, name, birth, caller)?;
        let through = self.data.born_to_pass(&inode, parent, name).unwrap_or_else(|e| {
            tracing::debug!(ino = attr.ino, "a new file goes through the daemon: {e}");
            None
        });
        attr.fleeting = through.is_some();
        let waits = flags.sync && through.is_some();
        let opened = Opened {
            fh: self.handles.insert(inode, flags),
            through,
            waits,
        };
        Ok((attr, opened))
    }

    /// The common path of everything that makes an inode. Counts one reference of the kernel on it.
    fn make(&self, parent: u64, name: &[u8], birth: Birth<'_>, caller: Caller) -> Result<(Attr, Arc<Inode>), VfsError> {
        self.core.check_room()?;
        check_name(name)?;
        self.check_not_virtual(parent, name)?;
        if is_dot(name) {
            return Err(VfsError::Exists);
        }
        let dir = self.inode(parent)?;
        let _change = self.core.marks.enter();
        let mut locked = lock_many([&dir]);
        if !self.still_names(&locked, parent, name, None)? {
            return Err(VfsError::Exists);
        }
        let now = self.core.now();
        let dir_record = &locked.state(parent).record;
        let gid = group_below(dir_record, caller);
        let mut record = InodeRecord::new(birth.kind, birth.perm & 0o7777, caller.uid, gid, now);
        if birth.kind == FileKind::Directory {
            record.parent = parent;
            record.perm |= dir_record.perm & SET_GID;
        }
        record.quota = dir_record.quota;
        record.rdev = birth.rdev;
        record.target = birth.target.to_vec();
        record.size = birth.target.len() as u64;

        let lists = self.inherit(parent, dir_record, &mut record, caller)?;
        record.xattrs = lists.len() as u32;

        let mut change = Change::new(&self.core, &self.data);
        let dir_record = change.record(&locked, parent);
        dir_record.mtime = now;
        dir_record.ctime = now;
        if birth.kind == FileKind::Directory {
            if dir_record.nlink >= DIR_NLINK_MAX {
                return Err(VfsError::TooManyLinks);
            }
            dir_record.nlink += 1;
        }
        let ino = self.core.inos.issue(&*self.core.store)?;
        let attr = attr_of(ino, &record);
        self.stage_first_xattrs(ino, lists, &mut change.batch);
        change.set_entry(parent, name, ino, birth.kind)?;
        let inode = change.birth(ino, record, birth.opens)?;
        change.commit(&mut locked)?;
        self.core.inodes.remember(ino);
        if birth.kind == FileKind::Directory {
            self.core.places.note(ino, parent, name);
        }
        Ok((attr, inode))
    }

    /// Gives an inode one more name. Directories have one only (`NotPermitted`). Counts one reference of the kernel.
    pub fn link(&self, ino: u64, parent: u64, name: &[u8]) -> Result<Attr, VfsError> {
        self.core.check_room()?;
        check_name(name)?;
        self.check_not_virtual(parent, name)?;
        if is_dot(name) {
            return Err(VfsError::Exists);
        }
        let (inode, dir) = (self.inode(ino)?, self.inode(parent)?);
        match self.link_locked(&inode, &dir, name) {
            // A walk that has told one of them and not yet the other: it is waited for, and then the answer is its own.
            Err(VfsError::CrossesQuota) => {
                let _no_walk = self.walks.read();
                self.link_locked(&inode, &dir, name)
            }
            answer => answer,
        }
    }

    fn link_locked(&self, inode: &Arc<Inode>, dir: &Arc<Inode>, name: &[u8]) -> Result<Attr, VfsError> {
        let (ino, parent) = (inode.ino, dir.ino);
        let _change = self.core.marks.enter();
        let mut locked = lock_many([inode, dir]);
        check_dir(locked.state(parent))?;
        let state = locked.state(ino);
        if state.record.kind == FileKind::Directory {
            return Err(VfsError::NotPermitted);
        }
        if state.gone || state.record.nlink == 0 {
            return Err(VfsError::NotFound);
        }
        if !self.still_names(&locked, parent, name, None)? {
            return Err(VfsError::Exists);
        }
        if locked.state(ino).record.nlink >= NLINK_MAX {
            return Err(VfsError::TooManyLinks);
        }
        // An inode counts for one tree: two names in trees with different quotas would make one pay for the other.
        let counted = |ino| self.core.quotas.counted(&locked.state(ino).record);
        if counted(ino) != counted(parent) {
            return Err(VfsError::CrossesQuota);
        }
        let now = self.core.now();
        let mut change = Change::new(&self.core, &self.data);
        let record = change.record(&locked, ino);
        record.nlink += 1;
        record.ctime = now;
        let kind = record.kind;
        let dir_record = change.record(&locked, parent);
        dir_record.mtime = now;
        dir_record.ctime = now;
        change.set_entry(parent, name, ino, kind)?;
        change.commit(&mut locked)?;
        let attr = self.live_attr_of(ino, locked.state(ino))?;
        self.core.inodes.remember(ino);
        Ok(attr)
    }
}
