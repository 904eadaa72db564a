//! Setting, showing and clearing quotas of directory trees.
//!
//! A quota is set on a directory and holds for everything below it. Whatever is there already has to be told that it counts
//! for it: a walk from the top, in which every directory is told before it is listed, so that what is made meanwhile is told
//! by birth or found by the walk. The record says that the walk is under way; a crash in between is made good at the next
//! mount.

use super::Vfs;
use crate::attr::FileKind;
use crate::core::Core;
use crate::error::VfsError;
use crate::inode::ROOT_INO;
use crate::limits::SCAN_PAGE;
use crate::quota::{QuotaReport, QuotaUse};
use crate::records::{self, DentryBucket, InodeRecord, QuotaPhase, QuotaRecord};
use crate::restore::each;
use cessfs_sync::Batch;
use std::sync::atomic::Ordering;

/// First bytes of the keys of what trees used at the last clean close: two counters, blocks and inodes.
const USE_PREFIX: &[u8] = b"squota-use";

/// Makes the quotas that the store has known.
pub(super) fn load(core: &Core) -> Result<(), VfsError> {
    for (root, record) in stored(core)? {
        core.quotas.set(root, &record);
    }
    Ok(())
}

/// Reads what trees use, as the last clean close wrote it; false if it did not.
pub(super) fn load_use(core: &Core) -> Result<bool, VfsError> {
    core.quotas.start_counting();
    for report in core.quotas.all() {
        let key = [USE_PREFIX, &report.root.to_be_bytes()].concat();
        let Some(value) = core.store.get(&key)? else {
            return Ok(false);
        };
        let (blocks, inodes) = records::decode_pair(&value)?;
        core.quotas.add(report.root, QuotaUse { blocks, inodes });
    }
    Ok(true)
}

fn stored(core: &Core) -> Result<Vec<(u64, QuotaRecord)>, VfsError> {
    let prefix = records::QUOTA_PREFIX;
    let mut found = Vec::new();
    let mut from = prefix.to_vec();
    loop {
        let page = core.store.scan(prefix, &from, SCAN_PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        from.clone_from(last);
        from.push(0);
        for (key, value) in &page {
            found.push((records::parse_ino_key(key)?, QuotaRecord::decode(value)?));
        }
    }
}

impl Vfs {
    /// Sets the quota of a directory's tree (0: no limit of that kind). What is there already counts, also beyond a limit;
    /// then nothing can be added. Waits while the tree is walked; nothing moves to another directory meanwhile.
    ///
    /// # Errors
    /// `NotDirectory`, `NotFound` (removed).
    pub fn set_quota(&self, ino: u64, bytes_max: u64, inodes_max: u64) -> Result<QuotaReport, VfsError> {
        self.core.check_writable()?;
        self.check_quota_dir(ino)?;
        let _walk = self.walks.write();
        // A phase other than active is what a walk left that failed: it is walked again.
        let phase = match self.quota_record(ino)? {
            Some(QuotaRecord {
                phase: QuotaPhase::Active,
                ..
            }) => QuotaPhase::Active,
            _ => QuotaPhase::Spreading,
        };
        let record = QuotaRecord {
            phase,
            bytes_max,
            inodes_max,
        };
        self.put_quota(ino, Some(&record))?;
        if phase == QuotaPhase::Spreading {
            self.spread(ino, &record)?;
        }
        self.core.quotas.report(ino).ok_or(VfsError::NotFound)
    }

    /// Takes the quota from a directory's tree: it counts for the tree around it again, if that has one. False if it had none.
    pub fn clear_quota(&self, ino: u64) -> Result<bool, VfsError> {
        self.core.check_writable()?;
        self.check_quota_dir(ino)?;
        let _walk = self.walks.write();
        if self.quota_record(ino)?.is_none() {
            return Ok(false);
        }
        let unlimited = QuotaRecord {
            phase: QuotaPhase::Clearing,
            bytes_max: 0,
            inodes_max: 0,
        };
        self.put_quota(ino, Some(&unlimited))?;
        self.retract(ino)?;
        Ok(true)
    }

    /// The quota that an inode counts for; `None` if it counts for none.
    pub fn quota_of(&self, ino: u64) -> Result<Option<QuotaReport>, VfsError> {
        let tree = self.inode(ino)?.state.read().record.quota;
        Ok(self.core.quotas.report(tree))
    }

    /// Every quota of the volume.
    pub fn quotas(&self) -> Vec<QuotaReport> {
        self.core.quotas.all()
    }

    /// Ends the walks that the last mount did not. One that fails again is left to the next mount, and `status` tells: what one
    /// directory is allowed to hold keeps nobody from the rest.
    pub(super) fn resume_quotas(&self) -> Result<(), VfsError> {
        let _walk = self.walks.write();
        for (root, record) in stored(&self.core)? {
            let ended = match self.inode(root).map(|_| record.phase) {
                Ok(QuotaPhase::Active) => Ok(()),
                Ok(QuotaPhase::Spreading) => self.spread(root, &record),
                Ok(QuotaPhase::Clearing) => self.retract(root),
                Err(VfsError::Stale) => self.drop_quota(root),
                Err(e) => Err(e),
            };
            if let Err(e) = ended {
                let what = format!("the quota of directory {root} is not settled: {e}");
                self.data.note_error(what);
            }
        }
        Ok(())
    }

    /// Deletes the quota of a directory that is no more.
    fn drop_quota(&self, root: u64) -> Result<(), VfsError> {
        let _change = self.core.marks.enter();
        let key = records::quota_key(root);
        let mut batch = Batch::new();
        self.core.marks.mark(&mut batch, &key);
        batch.delete(key);
        self.core.store.commit(batch)?;
        self.core.quotas.forget(root);
        Ok(())
    }

    /// Adds what is only counted in memory to the batch of a clean close.
    pub(super) fn put_counters(&self, batch: &mut Batch) {
        for report in self.core.quotas.all() {
            let key = [USE_PREFIX, &report.root.to_be_bytes()].concat();
            batch.put(key, records::encode_pair(report.used.blocks, report.used.inodes));
        }
        self.put_trash_size(batch);
    }

    fn check_quota_dir(&self, ino: u64) -> Result<(), VfsError> {
        let inode = self.inode(ino)?;
        let state = inode.state.read();
        super::check_dir(&state)
    }

    fn quota_record(&self, root: u64) -> Result<Option<QuotaRecord>, VfsError> {
        let value = self.core.store.get(&records::quota_key(root))?;
        Ok(value.map(|value| QuotaRecord::decode(&value)).transpose()?)
    }

    /// Journals a quota, or that there is none, unless the directory is gone; and tells the table while the directory is
    /// locked, so that whoever removes it finds in the table what the store has.
    pub(super) fn put_quota(&self, root: u64, record: Option<&QuotaRecord>) -> Result<(), VfsError> {
        let inode = self.inode(root)?;
        let _change = self.core.marks.enter();
        let state = inode.state.read();
        super::check_dir(&state)?;
        let key = records::quota_key(root);
        let mut batch = Batch::new();
        self.core.marks.mark(&mut batch, &key);
        match record {
            Some(record) => batch.put(key, record.encode()),
            None => batch.delete(key),
        }
        self.core.store.commit(batch)?;
        match record {
            Some(record) => self.core.quotas.set(root, record),
            None => self.core.quotas.forget(root),
        }
        Ok(())
    }

    /// Tells every inode of the tree that it counts for it. `walks` is held exclusively.
    fn spread(&self, root: u64, record: &QuotaRecord) -> Result<(), VfsError> {
        self.walk(root, root)?;
        let active = QuotaRecord {
            phase: QuotaPhase::Active,
            ..*record
        };
        self.put_quota(root, Some(&active))
    }

    /// Tells every inode of the tree that it counts for the tree around it. `walks` is held exclusively.
    fn retract(&self, root: u64) -> Result<(), VfsError> {
        let around = match root {
            ROOT_INO => 0,
            _ => {
                let above = self.inode(root)?.state.read().record.parent;
                self.inode(above)?.state.read().record.quota
            }
        };
        self.walk(root, around)?;
        self.release_rest(root, around)?;
        match self.put_quota(root, None) {
            // Removed meanwhile, and with it its quota.
            Err(VfsError::Stale | VfsError::NotFound) => Ok(()),
            put => put,
        }
    }

    /// Takes the tree's quota from what no name in it leads to any more: files that were deleted and are open go on counting
    /// where the others do now, those that only have names elsewhere for nobody. Without it they would count again, and never
    /// have been counted, once the directory gets another quota.
    fn release_rest(&self, root: u64, around: u64) -> Result<(), VfsError> {
        let mut rest = Vec::new();
        each(&*self.core.store, records::INODE_PREFIX, |key, value| {
            // A damaged record is an error for whoever needs the inode.
            if let Ok(record) = InodeRecord::decode(value)
                && record.quota == root
            {
                rest.push((records::parse_ino_key(key)?, record.nlink));
            }
            Ok(())
        })?;
        for (ino, nlink) in rest {
            self.recount(ino, root, if nlink == 0 { around } else { 0 })?;
        }
        Ok(())
    }

    /// Makes everything from `root` down count for `tree`, except for trees within it.
    fn walk(&self, root: u64, tree: u64) -> Result<(), VfsError> {
        let mut pending = vec![root];
        while let Some(dir) = pending.pop() {
            // The directory before what it holds: what is made in it from now on counts right from its birth.
            if !self.recount(dir, root, tree)? {
                continue;
            }
            let prefix = records::dentry_prefix(dir);
            let mut from = prefix.clone();
            loop {
                let page = self.core.store.scan(&prefix, &from, SCAN_PAGE)?;
                let Some((last, _)) = page.last() else { break };
                from.clone_from(last);
                from.push(0);
                for (_, value) in &page {
                    for dentry in DentryBucket::decode(value)?.0 {
                        if dentry.kind == FileKind::Directory {
                            pending.push(dentry.ino);
                        } else {
                            self.recount(dentry.ino, root, tree)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes one inode count for `tree`; false if it is gone or the top of another tree.
    fn recount(&self, ino: u64, root: u64, tree: u64) -> Result<bool, VfsError> {
        let inode = match self.inode(ino) {
            Ok(inode) => inode,
            Err(VfsError::Stale) => return Ok(false),
            Err(e) => return Err(e),
        };
        let _change = self.core.marks.enter();
        let mut state = inode.state.write();
        if state.gone || (state.record.quota == ino && ino != root) {
            return Ok(false);
        }
        if state.record.trash != 0 {
            return Ok(true);
        }
        let from = state.record.quota;
        if from != tree {
            if from == 0 {
                inode.charged.store(state.record.blocks, Ordering::Relaxed);
            }
            let used = QuotaUse {
                blocks: inode.charged.load(Ordering::Relaxed),
                inodes: 1,
            };
            let mut record = state.record.clone();
            record.quota = tree;
            let mut batch = Batch::new();
            self.core.quotas.add(tree, used);
            self.core.quotas.release(from, used);
            self.data.put_inode(ino, &state, &record, &mut batch)?;
            self.core.store.commit(batch)?;
            state.record = record;
            state.lazy = false;
        }
        Ok(true)
    }
}
