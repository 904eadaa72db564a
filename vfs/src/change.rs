//! One operation's changes: staged in memory, committed as one batch, then shown.
//!
//! Every operation on names computes a [`Change`] while it holds the locks of all inodes it touches, and commits it once.
//! Until the store has taken the batch nothing in memory differs, so a failed operation leaves no trace.

use crate::attr::FileKind;
use crate::core::Core;
use crate::data::Data;
use crate::dentry::BucketId;
use crate::error::VfsError;
use crate::inode::{Inode, Locked};
use crate::limits::{BUCKET_NAMES_MAX, SCAN_PAGE};
use crate::quota::{Admission, QuotaUse};
use crate::records::{self, Dentry, DentryBucket, InodeRecord, TrashRecord};
use crate::trash;
use cessfs_sync::Batch;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Staged changes of one operation.
pub(crate) struct Change<'c> {
    core: &'c Core,
    data: &'c Data,
    /// Records of the content room and notes; inodes and names are added at the commit.
    pub(crate) batch: Batch,
    inodes: Vec<(u64, InodeRecord)>,
    buckets: Vec<(BucketId, DentryBucket)>,
    born: Vec<Arc<Inode>>,
    erased: Vec<u64>,
    /// What the operation adds to trees with a quota, and what it takes from them once it is committed.
    admission: Admission<'c>,
    released: Vec<(u64, QuotaUse)>,
    /// Blocks that come into the trash, or leave it.
    binned: Option<u64>,
    unbinned: Option<u64>,
}

impl<'c> Change<'c> {
    /// Nothing staged yet. The caller is inside [`Marks::enter`](crate::delta::Marks::enter).
    pub(crate) fn new(core: &'c Core, data: &'c Data) -> Change<'c> {
        Change {
            core,
            data,
            batch: Batch::new(),
            inodes: Vec::new(),
            buckets: Vec::new(),
            born: Vec::new(),
            erased: Vec::new(),
            admission: Admission::new(&core.quotas),
            released: Vec::new(),
            binned: None,
            unbinned: None,
        }
    }

    /// The record of a locked inode as it will be: change it here.
    pub(crate) fn record(&mut self, locked: &Locked<'_>, ino: u64) -> &mut InodeRecord {
        let at = match self.inodes.iter().position(|(staged, _)| *staged == ino) {
            Some(at) => at,
            None => {
                self.inodes.push((ino, locked.state(ino).record.clone()));
                self.inodes.len() - 1
            }
        };
        &mut self.inodes[at].1
    }

    /// The bucket that `name` belongs to, as it will be.
    fn bucket(&mut self, parent: u64, name: &[u8]) -> Result<&mut DentryBucket, VfsError> {
        let id = (parent, self.core.name_hash(parent, name));
        let at = match self.buckets.iter().position(|(staged, _)| *staged == id) {
            Some(at) => at,
            None => {
                self.buckets.push((id, DentryBucket::clone(&*self.core.bucket(id)?)));
                self.buckets.len() - 1
            }
        };
        Ok(&mut self.buckets[at].1)
    }

    /// Makes `name` of the locked directory `parent` mean this inode, whatever it meant before.
    pub(crate) fn set_entry(&mut self, parent: u64, name: &[u8], ino: u64, kind: FileKind) -> Result<(), VfsError> {
        let bucket = self.bucket(parent, name)?;
        let name = name.to_vec();
        let dentry = Dentry { name, ino, kind };
        match bucket.0.iter().position(|old| old.name == dentry.name) {
            Some(at) => bucket.0[at] = dentry,
            None if bucket.0.len() >= BUCKET_NAMES_MAX => return Err(VfsError::NoSpace("too many names share a hash")),
            None => bucket.0.push(dentry),
        }
        Ok(())
    }

    /// Takes `name` out of the locked directory `parent`.
    pub(crate) fn remove_entry(&mut self, parent: u64, name: &[u8]) -> Result<(), VfsError> {
        self.bucket(parent, name)?.0.retain(|dentry| dentry.name != name);
        Ok(())
    }

    /// Adds an inode that did not exist before, with `opens` handles already open. Fails with `Quota` if its tree is full.
    pub(crate) fn birth(&mut self, ino: u64, record: InodeRecord, opens: u32) -> Result<Arc<Inode>, VfsError> {
        let used = QuotaUse {
            blocks: record.blocks,
            inodes: 1,
        };
        self.admission.admit(record.quota, used)?;
        let inode = Arc::new(Inode::new(ino, record));
        inode.state.write().opens = opens;
        self.born.push(inode.clone());
        Ok(inode)
    }

    /// Makes a locked inode count for tree `to` (0: none). Fails with `Quota` if that is full.
    pub(crate) fn count_for(&mut self, locked: &mut Locked<'_>, ino: u64, to: u64) -> Result<(), VfsError> {
        let record = self.record(locked, ino);
        let (from, blocks) = (record.quota, record.blocks);
        if from == to {
            return Ok(());
        }
        let (inode, _) = locked.inode_mut(ino);
        if from == 0 {
            inode.charged.store(blocks, Ordering::Relaxed);
        }
        let used = QuotaUse {
            blocks: inode.charged.load(Ordering::Relaxed),
            inodes: 1,
        };
        self.admission.admit(to, used)?;
        self.released.push((from, used));
        self.record(locked, ino).quota = to;
        Ok(())
    }

    /// Takes the name `name` in `parent` from a locked inode that is not a directory, as [`unlink`](Change::unlink) does; but
    /// if it is the last one, the file may go into the trash.
    pub(crate) fn unlink_name(
        &mut self,
        locked: &mut Locked<'_>,
        ino: u64,
        parent: u64,
        name: &[u8],
    ) -> Result<(), VfsError> {
        let (core, now) = (self.core, self.core.now());
        let record = self.record(locked, ino);
        if record.nlink != 1 || !trash::takes(&core.config, record, now) {
            return self.unlink(locked, ino);
        }
        let id = core.inos.issue(&*core.store)?;
        // In the trash it counts for nobody: whoever deletes to make room has made room.
        self.count_for(locked, ino, 0)?;
        let entry = TrashRecord {
            ino,
            deleted: now,
            parent,
            name: name.to_vec(),
            dir: core.places.path(parent).unwrap_or_default(),
        };
        let key = records::trash_key(id);
        core.marks.mark_new(&mut self.batch, &key);
        self.batch.put(key, entry.encode());
        let record = self.record(locked, ino);
        record.nlink = 0;
        record.ctime = now;
        record.trash = id;
        self.binned = Some(record.blocks);
        Ok(())
    }

    /// Takes a locked inode out of the trash: to be given a name again, or to be erased.
    pub(crate) fn leave_trash(&mut self, locked: &Locked<'_>, ino: u64) {
        let core = self.core;
        let record = self.record(locked, ino);
        let (id, blocks) = (record.trash, record.blocks);
        record.trash = 0;
        let key = records::trash_key(id);
        core.marks.mark(&mut self.batch, &key);
        self.batch.delete(key);
        self.unbinned = Some(blocks);
    }

    /// Takes one link from a locked inode that is not a directory. With the last one it goes, or, while it is open, becomes
    /// an orphan.
    pub(crate) fn unlink(&mut self, locked: &mut Locked<'_>, ino: u64) -> Result<(), VfsError> {
        let now = self.core.now();
        let record = self.record(locked, ino);
        record.nlink = record.nlink.saturating_sub(1);
        record.ctime = now;
        if record.nlink > 0 {
            return Ok(());
        }
        if locked.state(ino).opens > 0 {
            self.batch.put(records::orphan_key(ino), records::encode_counter(0));
            return Ok(());
        }
        self.erase(locked, ino)
    }

    /// Deletes a locked, empty directory and takes its `..` from the locked parent's links.
    pub(crate) fn remove_directory(&mut self, locked: &mut Locked<'_>, parent: u64, ino: u64) -> Result<(), VfsError> {
        let now = self.core.now();
        let parent_record = self.record(locked, parent);
        parent_record.nlink = parent_record.nlink.saturating_sub(1);
        self.record(locked, ino).ctime = now;
        self.erase(locked, ino)
    }

    /// Deletes everything about a locked inode. The last step before the commit: the content room changes its state at once.
    pub(crate) fn erase(&mut self, locked: &mut Locked<'_>, ino: u64) -> Result<(), VfsError> {
        if locked.state(ino).record.xattrs > 0 {
            self.erase_xattrs(ino)?;
        }
        let (inode, state) = locked.inode_mut(ino);
        if state.record.nlink == 0 {
            self.batch.delete(records::orphan_key(ino));
        }
        if state.record.kind == FileKind::Regular {
            self.data.discard(inode, state, &mut self.batch)?;
        }
        let record = self.record(locked, ino);
        record.nlink = 0;
        // A directory may have a quota and, while that is being set or cleared, count for another.
        if self.core.quotas.knows(ino) {
            let key = records::quota_key(ino);
            self.core.marks.mark(&mut self.batch, &key);
            self.batch.delete(key);
        }
        self.erased.push(ino);
        Ok(())
    }

    fn erase_xattrs(&mut self, ino: u64) -> Result<(), VfsError> {
        let prefix = records::xattr_prefix(ino);
        let mut from = prefix.clone();
        loop {
            let page = self.core.store.scan(&prefix, &from, SCAN_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
            for (key, _) in page {
                self.core.marks.mark(&mut self.batch, &key);
                self.batch.delete(key);
            }
        }
    }

    /// Commits everything as one batch and then shows it. `locked` holds every inode that was changed.
    pub(crate) fn commit(mut self, locked: &mut Locked<'_>) -> Result<(), VfsError> {
        let core = self.core;
        let mut batch = std::mem::take(&mut self.batch);
        for inode in &self.born {
            let key = records::inode_key(inode.ino);
            core.marks.mark_new(&mut batch, &key);
            batch.put(key, inode.state.read().record.encode());
        }
        for (ino, record) in &self.inodes {
            if self.erased.contains(ino) {
                core.delete_inode(&mut batch, *ino);
            } else if !locked.state(*ino).gone {
                self.data.put_inode(*ino, locked.state(*ino), record, &mut batch)?;
            }
        }
        for ((parent, hash), bucket) in &self.buckets {
            let key = records::dentry_key(*parent, *hash);
            core.marks.mark(&mut batch, &key);
            if bucket.0.is_empty() {
                batch.delete(key);
            } else {
                batch.put(key, bucket.encode());
            }
        }
        // Before the commit: once the record is in the store, a reader of the table would make a second live inode of it.
        for inode in &self.born {
            core.inodes.insert(inode.clone());
        }
        let (born, erased) = (self.born.len() as u64, self.erased.len() as u64);
        if let Err(e) = core.commit_counted(batch, born, erased) {
            for inode in &self.born {
                inode.state.write().gone = true;
                core.inodes.drop_gone(inode.ino);
            }
            return Err(e);
        }
        self.show(locked);
        Ok(())
    }

    /// The counters that are no records.
    fn count(&mut self, locked: &mut Locked<'_>) {
        let (core, now) = (self.core, self.core.now());
        std::mem::replace(&mut self.admission, Admission::new(&core.quotas)).keep();
        for (root, used) in self.released.drain(..) {
            core.quotas.release(root, used);
        }
        for (ino, record) in self.inodes.iter().filter(|(ino, _)| self.erased.contains(ino)) {
            if record.quota != 0 {
                let blocks = locked.inode_mut(*ino).0.charged.load(Ordering::Relaxed);
                core.quotas.release(record.quota, QuotaUse { blocks, inodes: 1 });
            }
            if record.kind == FileKind::Directory {
                core.quotas.forget(*ino);
                core.places.forget(*ino);
            }
        }
        if let Some(blocks) = self.binned {
            core.trash.added(blocks, now);
        }
        if let Some(blocks) = self.unbinned {
            core.trash.removed(blocks, now);
        }
    }

    /// The store has it: now the memory.
    fn show(mut self, locked: &mut Locked<'_>) {
        self.count(locked);
        let core = self.core;
        for (ino, record) in self.inodes {
            let state = locked.state_mut(ino);
            state.record = record;
            state.lazy = false;
            if self.erased.contains(&ino) {
                state.gone = true;
                core.inodes.drop_gone(ino);
            }
        }
        for (id, bucket) in self.buckets {
            core.dentries.put(id, Arc::new(bucket));
        }
    }
}
