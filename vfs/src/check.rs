//! Every invariant of the namespace, checked over a store's records.
//!
//! Reads everything and changes nothing; holds a few dozen bytes per inode. The volume must not be changing meanwhile.
//! What is found comes back as sentences, one per broken invariant, at most [`FINDINGS_MAX`].
//!
//! The invariants: the root is a directory and its own parent. Every name's hash is its key's, and names an inode of
//! the same kind. Every directory but the root has exactly one name, in the directory it calls its parent, and a way
//! up to the root; its links are 2 and one for each directory in it. Every other inode has as many links as names,
//! or none and an orphan note. Inodes count their xattrs right. Content belongs to regular files, and is where the
//! record says. No number of an inode or of something in the trash is at or above the counter, and inodes are counted
//! right. A file without links is either open or in the trash, and the trash and its files name each other. Directories
//! count for the quota of their parent or for their own, unless one is just being set; a quota that is counted for is
//! there, and so is its directory.

use crate::attr::FileKind;
use crate::data::size::deletion_key;
use crate::data::state::spill_key;
use crate::error::VfsError;
use crate::inode::ROOT_INO;
use crate::limits::{FINDINGS_MAX, SCAN_PAGE};
use crate::records::{self, DentryBucket, Extent, InodeRecord, QuotaPhase, QuotaRecord, TrashRecord, XattrBucket};
use cessfs_crypto::{AtRestKeys, VolumeKeys};
use cessfs_sync::{MetaStore, StoreError};
use std::collections::{BTreeMap, BTreeSet};

/// What a checker remembers of an inode.
struct Seen {
    kind: FileKind,
    nlink: u32,
    parent: u64,
    xattrs: u32,
    inline: bool,
    quota: u64,
    trash: u64,
    /// Names found for it.
    names: u32,
    /// Directories: directories found in it.
    subdirs: u32,
    /// Xattrs found.
    found_xattrs: u32,
}

struct Check<'a> {
    store: &'a dyn MetaStore,
    at_rest: AtRestKeys,
    inodes: BTreeMap<u64, Seen>,
    orphans: BTreeSet<u64>,
    /// The trash: id and inode.
    trash: BTreeMap<u64, u64>,
    quotas: BTreeMap<u64, QuotaPhase>,
    findings: Vec<String>,
}

/// Checks everything; an empty list means that every invariant holds. Fails only if the store cannot be read.
pub fn check_tree(store: &dyn MetaStore, keys: &VolumeKeys) -> Result<Vec<String>, VfsError> {
    let mut check = judge_names(store, keys)?;
    check.judge_counter()?;
    check.judge_quota_dirs()?;
    Ok(check.findings)
}

/// The same without the counters and the places of quotas, for whoever judges those itself.
pub(crate) fn check_names(store: &dyn MetaStore, keys: &VolumeKeys) -> Result<Vec<String>, VfsError> {
    Ok(judge_names(store, keys)?.findings)
}

fn judge_names<'a>(store: &'a dyn MetaStore, keys: &VolumeKeys) -> Result<Check<'a>, VfsError> {
    let mut check = Check {
        store,
        at_rest: keys.at_rest(),
        inodes: BTreeMap::new(),
        orphans: BTreeSet::new(),
        trash: BTreeMap::new(),
        quotas: BTreeMap::new(),
        findings: Vec::new(),
    };
    check.read_inodes()?;
    check.read_orphans()?;
    check.read_trash_and_quotas()?;
    check.read_names()?;
    check.read_xattrs()?;
    check.read_content()?;
    check.judge_inodes();
    check.judge_trash_and_quotas();
    check.judge_ways_up();
    Ok(check)
}

impl Check<'_> {
    fn find(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// Visits every record under `prefix`.
    fn each(
        &mut self,
        prefix: &[u8],
        visit: impl Fn(&mut Self, &[u8], &[u8]) -> Result<(), VfsError>,
    ) -> Result<(), VfsError> {
        let mut from = prefix.to_vec();
        loop {
            let page = self.store.scan(prefix, &from, SCAN_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
            for (key, value) in &page {
                match visit(self, key, value) {
                    Ok(()) => {}
                    Err(VfsError::Store(StoreError::Corrupt(why))) => self.find(format!("record {key:02x?}: {why}")),
                    Err(e) => return Err(e),
                }
            }
        }
    }

    fn read_inodes(&mut self) -> Result<(), VfsError> {
        self.each(records::INODE_PREFIX, |check, key, value| {
            let ino = records::parse_ino_key(key)?;
            let record = InodeRecord::decode(value)?;
            let seen = Seen {
                kind: record.kind,
                nlink: record.nlink,
                parent: record.parent,
                xattrs: record.xattrs,
                inline: record.inline,
                quota: record.quota,
                trash: record.trash,
                names: 0,
                subdirs: 0,
                found_xattrs: 0,
            };
            check.inodes.insert(ino, seen);
            Ok(())
        })
    }

    fn read_orphans(&mut self) -> Result<(), VfsError> {
        self.each(records::ORPHAN_PREFIX, |check, key, _| {
            check.orphans.insert(records::parse_ino_key(key)?);
            Ok(())
        })
    }

    fn read_trash_and_quotas(&mut self) -> Result<(), VfsError> {
        self.each(records::TRASH_PREFIX, |check, key, value| {
            let ino = TrashRecord::decode(value)?.ino;
            check.trash.insert(records::parse_ino_key(key)?, ino);
            Ok(())
        })?;
        self.each(records::QUOTA_PREFIX, |check, key, value| {
            let phase = QuotaRecord::decode(value)?.phase;
            check.quotas.insert(records::parse_ino_key(key)?, phase);
            Ok(())
        })
    }

    fn judge_trash_and_quotas(&mut self) {
        let mut findings = Vec::new();
        for (id, ino) in &self.trash {
            if self.inodes.get(ino).map(|seen| seen.trash) != Some(*id) {
                findings.push(format!(
                    "entry {id} of the trash names inode {ino}, which does not name it"
                ));
            }
        }
        let settled = self.quotas.values().all(|phase| *phase == QuotaPhase::Active);
        for (ino, seen) in &self.inodes {
            if seen.trash != 0 && self.trash.get(&seen.trash) != Some(ino) {
                findings.push(format!(
                    "inode {ino} names entry {} of the trash, which does not name it",
                    seen.trash
                ));
            }
            // A file with names elsewhere outlives the tree that it counted for, and then counts for nobody.
            let is_free = seen.kind != FileKind::Directory && !self.inodes.contains_key(&seen.quota);
            if seen.quota != 0 && seen.nlink > 0 && !is_free && !self.quotas.contains_key(&seen.quota) {
                findings.push(format!(
                    "inode {ino} counts for the quota of {}, which has none",
                    seen.quota
                ));
            }
            let above = self.inodes.get(&seen.parent).map(|parent| parent.quota);
            let is_dir = seen.kind == FileKind::Directory && *ino != ROOT_INO;
            if settled && is_dir && seen.quota != *ino && above.is_some_and(|above| above != seen.quota) {
                findings.push(format!("directory {ino} counts for another quota than its parent"));
            }
        }
        for finding in findings {
            self.find(finding);
        }
    }

    fn read_names(&mut self) -> Result<(), VfsError> {
        self.each(records::DENTRY_PREFIX, |check, key, value| {
            let (parent, hash) = records::parse_dentry_key(key)?;
            let holder = check.inodes.get(&parent).map(|seen| seen.kind);
            if holder != Some(FileKind::Directory) {
                check.find(format!("inode {parent} has names but is {holder:?}"));
            }
            for dentry in DentryBucket::decode(value)?.0 {
                if check.at_rest.name_hash(parent, &dentry.name) != hash {
                    check.find(format!(
                        "a name of inode {} lies under a foreign hash in {parent}",
                        dentry.ino
                    ));
                }
                check.count_name(parent, dentry.ino, dentry.kind);
            }
            Ok(())
        })
    }

    fn count_name(&mut self, parent: u64, ino: u64, kind: FileKind) {
        let Some(seen) = self.inodes.get_mut(&ino) else {
            return self.find(format!("a name in {parent} has no inode {ino}"));
        };
        seen.names += 1;
        let (named, up) = (seen.kind, seen.parent);
        if named != kind {
            self.find(format!("inode {ino} is {named:?}, its name in {parent} says {kind:?}"));
        }
        if named != FileKind::Directory {
            return;
        }
        if up != parent {
            self.find(format!("directory {ino} lies in {parent} and calls {up} its parent"));
        }
        if let Some(holder) = self.inodes.get_mut(&parent) {
            holder.subdirs += 1;
        }
    }

    fn read_xattrs(&mut self) -> Result<(), VfsError> {
        self.each(records::XATTR_PREFIX, |check, key, value| {
            let (ino, hash) = records::parse_dentry_key(key)?;
            let bucket = XattrBucket::decode(value)?;
            if bucket
                .0
                .iter()
                .any(|xattr| check.at_rest.name_hash(ino, &xattr.name) != hash)
            {
                check.find(format!("an xattr of inode {ino} lies under a foreign hash"));
            }
            match check.inodes.get_mut(&ino) {
                Some(seen) => seen.found_xattrs += bucket.0.len() as u32,
                None => check.find(format!("xattrs without an inode {ino}")),
            }
            Ok(())
        })
    }

    fn read_content(&mut self) -> Result<(), VfsError> {
        self.each(records::INLINE_PREFIX, |check, key, _| {
            let ino = records::parse_ino_key(key)?;
            // A file that outgrew its bytes keeps them until their copy is durable.
            if check.store.get(&spill_key(ino))?.is_none() {
                check.judge_content(ino, true);
            }
            Ok(())
        })?;
        self.each(records::EXTENT_PREFIX, |check, key, value| {
            let (ino, _) = records::parse_extent_key(key)?;
            Extent::decode(value)?;
            // The extents of a large deleted file go page by page.
            if check.store.get(&deletion_key(ino))?.is_none() {
                check.judge_content(ino, false);
            }
            Ok(())
        })
    }

    fn judge_content(&mut self, ino: u64, inline: bool) {
        match self.inodes.get(&ino) {
            Some(seen) if seen.kind == FileKind::Regular && seen.inline == inline => {}
            Some(seen) => {
                let (kind, says) = (seen.kind, seen.inline);
                self.find(format!(
                    "inode {ino} ({kind:?}, inline: {says}) has content with inline: {inline}"
                ));
            }
            None => self.find(format!("content without an inode {ino}")),
        }
    }

    fn judge_inodes(&mut self) {
        let mut findings = Vec::new();
        match self.inodes.get(&ROOT_INO) {
            Some(root) if root.kind == FileKind::Directory && root.parent == ROOT_INO => {}
            Some(_) => findings.push("the root is no directory, or not its own parent".to_owned()),
            None => findings.push("there is no root".to_owned()),
        }
        for (&ino, seen) in &self.inodes {
            let Seen {
                kind,
                nlink,
                names,
                subdirs,
                ..
            } = *seen;
            let (want_names, want_links) = match kind {
                FileKind::Directory => (u32::from(ino != ROOT_INO), 2 + subdirs),
                _ => (nlink, names),
            };
            if names != want_names || nlink != want_links {
                findings.push(format!(
                    "inode {ino} ({kind:?}) has {nlink} links, {names} names, {subdirs} directories"
                ));
            }
            let is_orphan = self.orphans.contains(&ino);
            if is_orphan != (nlink == 0 && seen.trash == 0) {
                findings.push(format!("inode {ino} has {nlink} links, orphan note: {is_orphan}"));
            }
            if seen.xattrs != seen.found_xattrs {
                findings.push(format!(
                    "inode {ino} has {} xattrs and counts {}",
                    seen.found_xattrs, seen.xattrs
                ));
            }
        }
        for ino in &self.orphans {
            if !self.inodes.contains_key(ino) {
                findings.push(format!("an orphan note without an inode {ino}"));
            }
        }
        for finding in findings {
            self.find(finding);
        }
    }

    /// Every directory reaches the root by its parents. With one name each this also means that there is no loop.
    fn judge_ways_up(&mut self) {
        let mut reached = BTreeSet::from([ROOT_INO]);
        let mut lost = Vec::new();
        for (&ino, seen) in &self.inodes {
            if seen.kind != FileKind::Directory {
                continue;
            }
            let (mut way, mut at) = (BTreeSet::new(), ino);
            while !reached.contains(&at) && way.insert(at) {
                at = self.inodes.get(&at).map_or(at, |seen| seen.parent);
            }
            if reached.contains(&at) {
                reached.extend(way);
            } else {
                lost.push(ino);
            }
        }
        for ino in lost {
            self.find(format!("directory {ino} does not lead up to the root"));
        }
    }

    fn judge_quota_dirs(&mut self) -> Result<(), VfsError> {
        for root in self.quotas.keys().copied().collect::<Vec<_>>() {
            // A damaged record is a finding of its own.
            if self.store.get(&records::inode_key(root))?.is_none() {
                self.find(format!("a quota is set on directory {root}, which is no more"));
            }
        }
        Ok(())
    }

    fn judge_counter(&mut self) -> Result<(), VfsError> {
        if let Some(value) = self.store.get(records::FILES_KEY)? {
            let (counted, found) = (records::decode_counter(&value)?, self.inodes.len() as u64);
            if counted != found {
                self.find(format!("{found} inodes are there, {counted} are counted"));
            }
        }
        let inodes_and_trash = [self.inodes.keys().next_back(), self.trash.keys().next_back()];
        let last = inodes_and_trash.into_iter().flatten().max().copied().unwrap_or(0);
        if let Some(value) = self.store.get(records::NEXT_INO_KEY)? {
            let next = records::decode_counter(&value)?;
            if next <= last {
                self.find(format!("the next inode number is {next}, but {last} is taken"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
