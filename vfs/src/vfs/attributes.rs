//! Changing attributes, and access times.
//!
//! An access time is worth no write of its own: it changes in memory (by the rule of the mount) and reaches the store with the
//! inode's next change, its last close, or together with many others. So do the times that the kernel kept with cached writes and
//! sends before each fsync and close ([`SetAttr::written_back`]); where nothing else tells of the write
//! ([`Vfs::times_are_told`]), as soon as content would be journaled.

use super::{Attr, Caller, FileKind, Inode, InodeRecord, InodeState, SetAttr, Vfs};
use crate::attr::{TimeSet, Timestamp};
use crate::core::AtimeRule;
use crate::error::VfsError;
use crate::inode::lock_many;
use crate::limits::{FILE_BYTES_MAX, LAZY_BATCH, LAZY_INODES_MAX};
use cessfs_sync::Batch;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXECUTES: u16 = 0o0010;

/// An access time older than this is renewed by any access (`relatime`).
const ATIME_STALE_SECS: i64 = 24 * 60 * 60;

/// Permissions without what a change of owner or content takes away: set-uid, and set-gid where it means what it says
/// (without group execution it once meant mandatory locking, and stays).
pub(super) fn without_privileges(perm: u16) -> u16 {
    let mut kept = perm & !SET_UID;
    if perm & GROUP_EXECUTES != 0 {
        kept &= !SET_GID;
    }
    kept
}

impl Vfs {
    /// From now on whoever writes content tells its times, by [`SetAttr::written_back`]; what is written moves none by itself.
    pub fn times_are_told(&self) {
        self.core.times_are_told.store(true, Ordering::Relaxed);
    }

    /// Changes attributes; `ctime` moves even if nothing is asked for, as the kernel's own filesystems have it.
    pub fn setattr(&self, ino: u64, set: SetAttr, caller: Caller) -> Result<Attr, VfsError> {
        self.core.check_writable()?;
        if set.written_back {
            return self.note_written_times(ino, &set, caller);
        }
        let inode = self.inode(ino)?;
        let _change = self.core.marks.enter();
        let mut state = inode.state.write();
        let mut batch = Batch::new();
        let sets_times = set.size.is_some() || set.atime.is_some() || set.mtime.is_some();
        if sets_times {
            self.data.take_times(&mut state)?;
        }
        if let Some(size) = set.size {
            match state.record.kind {
                FileKind::Regular => {}
                FileKind::Directory => return Err(VfsError::IsDirectory),
                _ => return Err(VfsError::Invalid("only regular files have a size to set")),
            }
            if size > FILE_BYTES_MAX {
                return Err(VfsError::TooLarge);
            }
            state.check_alive()?;
            self.data.set_size(&inode, &mut state, size, &mut batch)?;
        }
        let mut record = state.record.clone();
        apply(&mut record, &set, caller, self.core.now());
        if set.uid.is_some() || set.gid.is_some() || set.size.is_some() {
            self.stage_capability_loss(ino, &mut record, &mut batch)?;
        }
        // A removed directory that somebody still stands in changes in memory only: there is no record left.
        if !state.gone {
            self.data.put_inode(ino, &state, &record, &mut batch)?;
            self.core.store.commit(batch)?;
        }
        state.record = record;
        state.lazy = false;
        if sets_times {
            self.data.times_were_set(&mut state)?;
        }
        if set.mtime.is_some() || (set.size.is_some() && !set.same_size) {
            state.data.untold.told();
        }
        self.live_attr_of(ino, &state)
    }

    /// Times that come with content: in memory now, journaled with it.
    fn note_written_times(&self, ino: u64, set: &SetAttr, caller: Caller) -> Result<Attr, VfsError> {
        let inode = self.inode(ino)?;
        let (attr, noted) = {
            let mut state = inode.state.write();
            apply(&mut state.record, set, caller, self.core.now());
            state.data.untold.told();
            let mut noted = 0;
            if !state.gone {
                state.lazy = true;
                noted = self.core.inodes.note_lazy(ino);
                if self.core.times_are_told.load(Ordering::Relaxed) {
                    self.data.times_are_ahead(&inode, &mut state);
                }
            }
            (self.live_attr_of(ino, &state)?, noted)
        };
        if noted > LAZY_INODES_MAX {
            self.journal_lazy()?;
        }
        Ok(attr)
    }

    /// A handle is closed by which content may have come that no times were told of, nor will be: they are of when it came.
    pub(super) fn tell_untold(&self, inode: &Arc<Inode>, state: &mut InodeState) {
        let Some(at) = state.data.untold.take(state.record.mtime) else {
            return;
        };
        if state.gone {
            return;
        }
        state.record.mtime = at;
        state.record.ctime = state.record.ctime.max(at);
        self.data.times_are_ahead(inode, state);
    }

    /// An access to an inode's content: moves its access time if the mount's rule says so. The caller holds no lock
    /// and no change.
    pub(super) fn touch(&self, inode: &Arc<Inode>) -> Result<(), VfsError> {
        let config = &self.core.config;
        if config.atime == AtimeRule::Never || self.core.check_writable().is_err() {
            return Ok(());
        }
        let now = self.core.now();
        let is_due = |record: &InodeRecord| {
            let atime = record.atime;
            let is_old = || {
                atime <= record.mtime
                    || atime <= record.ctime
                    || now.secs.saturating_sub(atime.secs) >= ATIME_STALE_SECS
            };
            (config.dir_atime || record.kind != FileKind::Directory) && (config.atime == AtimeRule::Always || is_old())
        };
        if !is_due(&inode.state.read().record) {
            return Ok(());
        }
        let noted = {
            let mut state = inode.state.write();
            if state.gone || !is_due(&state.record) || state.record.atime == now {
                return Ok(());
            }
            state.record.atime = now;
            state.lazy = true;
            self.core.inodes.note_lazy(inode.ino)
        };
        if noted > LAZY_INODES_MAX {
            self.journal_lazy()
        } else {
            Ok(())
        }
    }

    /// Journals every lazy change. The caller holds no lock
    /// and no change.
    pub(super) fn journal_lazy(&self) -> Result<(), VfsError> {
        loop {
            let inos = self.core.inodes.take_lazy(LAZY_BATCH);
            if inos.is_empty() {
                return Ok(());
            }
            let inodes: Vec<Arc<Inode>> = inos.iter().filter_map(|ino| self.core.inodes.peek(*ino)).collect();
            let _change = self.core.marks.enter_unseen();
            let mut locked = lock_many(&inodes);
            let mut batch = Batch::new();
            let is_due = |state: &InodeState| state.lazy && !state.gone;
            let written: Vec<u64> = locked.inos().filter(|ino| is_due(locked.state(*ino))).collect();
            for ino in &written {
                let state = locked.state(*ino);
                self.data.put_inode(*ino, state, &state.record, &mut batch)?;
            }
            if batch.is_empty() {
                continue;
            }
            self.core.store.commit(batch)?;
            for ino in written {
                locked.state_mut(ino).lazy = false;
            }
        }
    }

    /// Before a write by somebody who may not keep them: set-id bits go, journaled with the write. File capabilities go too.
    pub(super) fn kill_privileges(&self, inode: &Arc<Inode>) -> Result<(), VfsError> {
        let (perm, xattrs) = {
            let state = inode.state.read();
            (state.record.perm, state.record.xattrs)
        };
        if without_privileges(perm) != perm {
            let mut state = inode.state.write();
            if !state.gone {
                state.record.perm = without_privileges(state.record.perm);
                state.lazy = true;
                self.core.inodes.note_lazy(inode.ino);
            }
        }
        if xattrs > 0 {
            match self.removexattr(inode.ino, b"security.capability") {
                Ok(()) | Err(VfsError::NoAttribute) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// What `set` makes of a record whose content already has its new size.
fn apply(record: &mut InodeRecord, set: &SetAttr, caller: Caller, now: Timestamp) {
    let at = |time: TimeSet| match time {
        TimeSet::Now => now,
        TimeSet::At(time) => Timestamp {
            secs: time.secs,
            nanos: time.nanos.min(999_999_999),
        },
    };
    let chowned = set.uid.is_some() || set.gid.is_some();
    // Linux takes the bits from root's chown too; a truncation by root keeps them.
    if record.kind != FileKind::Directory && (chowned || (set.size.is_some() && caller.uid != 0)) {
        record.perm = without_privileges(record.perm);
    }
    if let Some(perm) = set.perm {
        record.perm = perm & 0o7777;
    }
    record.uid = set.uid.unwrap_or(record.uid);
    record.gid = set.gid.unwrap_or(record.gid);
    if set.size.is_some() && !set.same_size {
        record.mtime = now;
    }
    if let Some(time) = set.atime {
        record.atime = at(time);
    }
    if let Some(time) = set.mtime {
        record.mtime = at(time);
    }
    record.ctime = match set.ctime {
        Some(time) => at(TimeSet::At(time)),
        None if set.same_size => record.ctime,
        None => now,
    };
}
