//! Moving names.
//!
//! A directory that changes its parent could become its own ancestor. Such moves are serialised by one mutex, taken before
//! any inode's lock: while it is held no `parent` changes, so the walk up from the new place needs no lock but one at a time.

use super::create::group_below;
use super::{Vfs, check_dir};
use crate::attr::{Caller, FileKind};
use crate::change::Change;
use crate::dentry::{check_name, is_dot};
use crate::error::VfsError;
use crate::inode::{Inode, Locked, ROOT_INO, lock_many};
use crate::limits::{DIR_NLINK_MAX, TREE_DEPTH_MAX};
use crate::records::InodeRecord;
use crate::request::RenameFlags;
use cessfs_sync::StoreError;
use std::sync::Arc;

/// One side of a rename.
struct Place<'a> {
    dir: Arc<Inode>,
    name: &'a [u8],
    /// What the name means now.
    child: Option<Arc<Inode>>,
}

impl Place<'_> {
    fn child_ino(&self) -> Option<u64> {
        self.child.as_ref().map(|child| child.ino)
    }

    /// The kind of an inode never changes: reading it needs no lasting lock.
    fn is_directory(&self) -> bool {
        self.child
            .as_ref()
            .is_some_and(|child| child.state.read().record.kind == FileKind::Directory)
    }
}

impl Vfs {
    /// Moves a name, replacing what the new name meant; see [`RenameFlags`] for the variations.
    pub fn rename(
        &self,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), VfsError> {
        self.core.check_writable()?;
        check_name(name)?;
        check_name(new_name)?;
        if is_dot(name) || is_dot(new_name) {
            return Err(VfsError::Busy);
        }
        if flags.exchange && (flags.no_replace || flags.whiteout.is_some()) {
            return Err(VfsError::Invalid("exchange goes with no other flag"));
        }
        self.check_not_virtual(new_parent, new_name)?;
        if let Some(restored) = self.virtual_rename(parent, name, new_parent, new_name, flags) {
            return restored;
        }
        let (old_dir, new_dir) = (self.inode(parent)?, self.inode(new_parent)?);
        let mut no_walk = (parent != new_parent).then(|| self.walks.read());
        let mut change = Some(self.core.marks.enter());
        // Whoever made a name change in between succeeded: going round again is progress, not waiting.
        loop {
            let old = Place {
                dir: old_dir.clone(),
                name,
                child: self.find(&old_dir, name)?,
            };
            let new = Place {
                dir: new_dir.clone(),
                name: new_name,
                child: self.find(&new_dir, new_name)?,
            };
            let Some(moved) = old.child_ino() else {
                return Err(VfsError::NotFound);
            };
            if flags.no_replace && new.child.is_some() {
                return Err(VfsError::Exists);
            }
            if flags.exchange && new.child.is_none() {
                return Err(VfsError::NotFound);
            }
            let moves_dir = parent != new_parent && (old.is_directory() || (flags.exchange && new.is_directory()));
            let _serial = moves_dir.then(|| self.renames.lock());
            if moves_dir {
                self.check_loops(&old, &new, flags)?;
            }
            if no_walk.is_none() && self.waits_for_walk(&old, &new) {
                // The walk enters the marks again and again: it is waited for outside.
                drop(change.take());
                no_walk = Some(self.walks.read());
                change = Some(self.core.marks.enter());
                continue;
            }
            if self.rename_locked(&old, &new, moved, flags, no_walk.is_some())? {
                return Ok(());
            }
        }
    }

    /// What moves within its directory could be missed by a walk that is under way, as far as can be told without locks.
    fn waits_for_walk(&self, old: &Place<'_>, new: &Place<'_>) -> bool {
        let tree = old.dir.state.read().record.quota;
        let mut children = [&old.child, &new.child].into_iter().flatten();
        children.any(|child| could_be_missed(child.ino, &child.state.read().record, tree))
    }

    /// Fails with `Invalid` if a directory would come to lie below itself. The rename mutex is held.
    fn check_loops(&self, old: &Place<'_>, new: &Place<'_>, flags: RenameFlags) -> Result<(), VfsError> {
        let error = VfsError::Invalid("a directory cannot be moved below itself");
        if let Some(ino) = old.child_ino()
            && self.is_at_or_above(ino, &new.dir)?
        {
            return Err(error);
        }
        if let Some(ino) = new.child_ino()
            && flags.exchange
            && self.is_at_or_above(ino, &old.dir)?
        {
            return Err(error);
        }
        Ok(())
    }

    /// `ino` is `dir` or one of its ancestors. The rename mutex is held.
    fn is_at_or_above(&self, ino: u64, dir: &Arc<Inode>) -> Result<bool, VfsError> {
        let mut at = dir.clone();
        for _ in 0..TREE_DEPTH_MAX {
            if at.ino == ino {
                return Ok(true);
            }
            if at.ino == ROOT_INO {
                return Ok(false);
            }
            let above = {
                let state = at.state.read();
                check_dir(&state)?;
                state.record.parent
            };
            at = self.inode(above).map_err(|e| match e {
                VfsError::Stale => VfsError::NotFound, // removed, and with it everything below
                other => other,
            })?;
        }
        Err(StoreError::Corrupt(format!("directory {} has no way up to the root", dir.ino)).into())
    }

    /// Locks everything and renames; false if a name changed since it was looked at, or if a walk could miss it (not if
    /// there is `no_walk`).
    fn rename_locked(
        &self,
        old: &Place<'_>,
        new: &Place<'_>,
        moved: u64,
        flags: RenameFlags,
        no_walk: bool,
    ) -> Result<bool, VfsError> {
        let children = [old.child.as_ref(), new.child.as_ref()];
        let mut locked = lock_many([&old.dir, &new.dir].into_iter().chain(children.into_iter().flatten()));
        if !self.still_names(&locked, old.dir.ino, old.name, old.child_ino())?
            || !self.still_names(&locked, new.dir.ino, new.name, new.child_ino())?
        {
            return Ok(false);
        }
        let tree = locked.state(old.dir.ino).record.quota;
        let missed = |child: &&Arc<Inode>| could_be_missed(child.ino, &locked.state(child.ino).record, tree);
        if !no_walk && children.iter().flatten().any(missed) {
            return Ok(false);
        }
        match new.child_ino() {
            Some(other) if other == moved => {} // two names of one inode: POSIX wants nothing done
            Some(other) if flags.exchange => self.exchange(&mut locked, old, new, moved, other)?,
            _ => self.replace(&mut locked, old, new, moved, flags.whiteout)?,
        }
        Ok(true)
    }

    /// Moves `moved` onto the new name.
    fn replace(
        &self,
        locked: &mut Locked<'_>,
        old: &Place<'_>,
        new: &Place<'_>,
        moved: u64,
        whiteout: Option<Caller>,
    ) -> Result<(), VfsError> {
        let kind = locked.state(moved).record.kind;
        let (from, to) = (old.dir.ino, new.dir.ino);
        let now = self.core.now();
        let mut change = Change::new(&self.core, &self.data);
        let target = new.child_ino();
        let target_is_dir = target.is_some_and(|ino| locked.state(ino).record.kind == FileKind::Directory);
        match (target, kind == FileKind::Directory, target_is_dir) {
            (Some(_), true, false) => return Err(VfsError::NotDirectory),
            (Some(_), false, true) => return Err(VfsError::IsDirectory),
            (Some(ino), true, true) if !self.is_empty(ino)? => return Err(VfsError::NotEmpty),
            _ => {}
        }
        self.enter_tree(&mut change, locked, moved, (from, to))?;
        if kind == FileKind::Directory {
            change.record(locked, from).nlink -= 1;
            let to_record = change.record(locked, to);
            if to_record.nlink >= DIR_NLINK_MAX {
                return Err(VfsError::TooManyLinks);
            }
            to_record.nlink += 1;
            change.record(locked, moved).parent = to;
        }
        if let Some(caller) = whiteout {
            let ino = self.core.inos.issue(&*self.core.store)?;
            change.set_entry(from, old.name, ino, FileKind::CharDevice)?;
            let dir = &locked.state(from).record;
            let mut record = InodeRecord::new(FileKind::CharDevice, 0, caller.uid, group_below(dir, caller), now);
            record.quota = dir.quota;
            change.birth(ino, record, 0)?;
        } else {
            change.remove_entry(from, old.name)?;
        }
        change.set_entry(to, new.name, moved, kind)?;
        stamp(&mut change, locked, &[from, to], &[moved], now);
        match target {
            Some(ino) if target_is_dir => change.remove_directory(locked, to, ino)?,
            Some(ino) => change.unlink_name(locked, ino, to, new.name)?,
            None => {}
        }
        change.commit(locked)?;
        if kind == FileKind::Directory {
            self.core.places.note(moved, to, new.name);
        }
        Ok(())
    }

    /// Swaps what the two names mean.
    fn exchange(
        &self,
        locked: &mut Locked<'_>,
        old: &Place<'_>,
        new: &Place<'_>,
        moved: u64,
        other: u64,
    ) -> Result<(), VfsError> {
        let (from, to) = (old.dir.ino, new.dir.ino);
        let (kind, other_kind) = (locked.state(moved).record.kind, locked.state(other).record.kind);
        let mut change = Change::new(&self.core, &self.data);
        for (ino, kind, leaves, enters) in [(moved, kind, from, to), (other, other_kind, to, from)] {
            self.enter_tree(&mut change, locked, ino, (leaves, enters))?;
            if kind == FileKind::Directory {
                change.record(locked, leaves).nlink -= 1;
                change.record(locked, enters).nlink += 1;
                change.record(locked, ino).parent = enters;
            }
        }
        if change.record(locked, from).nlink.max(change.record(locked, to).nlink) > DIR_NLINK_MAX {
            return Err(VfsError::TooManyLinks);
        }
        change.set_entry(to, new.name, moved, kind)?;
        change.set_entry(from, old.name, other, other_kind)?;
        stamp(&mut change, locked, &[from, to], &[moved, other], self.core.now());
        change.commit(locked)?;
        for (ino, kind, parent, name) in [(moved, kind, to, new.name), (other, other_kind, from, old.name)] {
            if kind == FileKind::Directory {
                self.core.places.note(ino, parent, name);
            }
        }
        Ok(())
    }

    /// A locked inode is about to move from one locked directory to another, and to count for its quota. A directory that has
    /// a quota of its own takes that along; another one, with all that is below it, does not change trees, and neither does a
    /// file with names elsewhere (`CrossesQuota`): programs copy then, as between file systems. Within one directory nothing
    /// changes trees.
    fn enter_tree(
        &self,
        change: &mut Change<'_>,
        locked: &mut Locked<'_>,
        ino: u64,
        (from, to): (u64, u64),
    ) -> Result<(), VfsError> {
        let record = &locked.state(ino).record;
        let tree = locked.state(to).record.quota;
        if record.quota == tree || record.quota == ino {
            return Ok(());
        }
        if record.kind == FileKind::Directory || record.nlink > 1 {
            let stays = from == to || self.core.quotas.counted(record) == tree;
            return if stays { Ok(()) } else { Err(VfsError::CrossesQuota) };
        }
        change.count_for(locked, ino, tree)
    }
}

/// A walk that tells the inodes of a tree what they count for has told the directory, of tree `tree`, and this one not yet:
/// under another name in there the walk, which goes through names, might not meet it. A file with no other name is told by
/// the move itself.
fn could_be_missed(ino: u64, record: &InodeRecord, tree: u64) -> bool {
    let is_told = record.quota == tree || record.quota == ino;
    !is_told && (record.kind == FileKind::Directory || record.nlink > 1)
}

/// A rename changes the content of both directories, and the inodes it moves.
fn stamp(change: &mut Change<'_>, locked: &Locked<'_>, dirs: &[u64], moved: &[u64], now: crate::attr::Timestamp) {
    for ino in dirs {
        let record = change.record(locked, *ino);
        record.mtime = now;
        record.ctime = now;
    }
    for ino in moved {
        change.record(locked, *ino).ctime = now;
    }
}
