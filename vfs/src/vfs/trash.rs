//! What is done with the trash: shown, restored from, emptied, and kept within its time and room.
//!
//! A file in the trash is an inode without links whose record names an entry of the trash, which remembers where it was.
//! Entries are numbered in the order of deletion. They go by themselves when their time is over, and before that, the oldest
//! first, when the cache or its disk has no room for what is being written, or the territory none for what was.

use super::Vfs;
use crate::Later;
use crate::attr::{Attr, DirEntry, FileKind};
use crate::change::Change;
use crate::core::Core;
use crate::dentry::{check_name, is_dot};
use crate::error::VfsError;
use crate::inode::{Inode, ROOT_INO, lock_many};
use crate::limits::{BLOCK_BYTES, SCAN_PAGE, TRASH_BATCH, TRASH_ROOM_ROUNDS, TRASH_TICK};
use crate::pace::{Paced, Threads};
use crate::records::{self, InodeRecord, TrashRecord};
use crate::trash::{self, TrashItem, TrashSize};
use cessfs_sync::Batch;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Key of the size of the trash at the last clean close: two counters, files and blocks.
const SIZE_KEY: &[u8] = b"strash-size";

/// Reads how much is in the trash, as the last clean close wrote it; false if it did not.
pub(super) fn load_size(core: &Core) -> Result<bool, VfsError> {
    let Some(value) = core.store.get(SIZE_KEY)? else {
        return Ok(false);
    };
    let (files, blocks) = records::decode_pair(&value)?;
    core.trash.start(TrashSize { files, blocks });
    Ok(true)
}

/// Counts what is in the trash, entry by entry.
pub(super) fn count(core: &Core) -> Result<(), VfsError> {
    let mut size = TrashSize::default();
    let mut from = records::TRASH_PREFIX.to_vec();
    loop {
        let page = core.store.scan(records::TRASH_PREFIX, &from, SCAN_PAGE)?;
        let Some((last, _)) = page.last() else {
            core.trash.start(size);
            return Ok(());
        };
        from.clone_from(last);
        from.push(0);
        for (_, value) in &page {
            // A damaged record is an error for whoever needs the entry; the volume opens without it.
            let Ok(entry) = TrashRecord::decode(value) else {
                continue;
            };
            let record = core.store.get(&records::inode_key(entry.ino))?;
            if let Some(Ok(record)) = record.map(|value| InodeRecord::decode(&value)) {
                size.files += 1;
                size.blocks += record.blocks;
            }
        }
    }
}

impl Vfs {
    /// How much is in the trash.
    pub fn trash_size(&self) -> TrashSize {
        self.core.trash.size()
    }

    /// Up to `limit` entries of the trash after number `after` (0: from the oldest), in the order of deletion.
    pub fn trash_list(&self, after: u64, limit: usize) -> Result<Vec<TrashItem>, VfsError> {
        let from = records::trash_key(after.saturating_add(1));
        let page = self.core.store.scan(records::TRASH_PREFIX, &from, limit)?;
        let mut items = Vec::with_capacity(page.len());
        for (key, value) in page {
            let id = records::parse_ino_key(&key)?;
            let record = TrashRecord::decode(&value)?;
            let size = match self.inode(record.ino) {
                Ok(inode) => inode.state.read().record.size,
                Err(VfsError::Stale) => continue, // emptied meanwhile
                Err(e) => return Err(e),
            };
            let known = record.parent == ROOT_INO || !record.dir.is_empty();
            items.push(TrashItem {
                id,
                ino: record.ino,
                deleted: record.deleted,
                size,
                name: record.name,
                dir: known.then_some(record.dir),
            });
        }
        Ok(items)
    }

    /// Deletes an entry of the trash for good; false if there is none of that number. A file that is still open lives on
    /// until its last handle is closed.
    pub fn trash_purge(&self, id: u64) -> Result<bool, VfsError> {
        self.core.check_writable()?;
        let Some(inode) = self.trashed(id)? else {
            return Ok(false);
        };
        let ino = inode.ino;
        let _change = self.core.marks.enter();
        let mut locked = lock_many([&inode]);
        let state = locked.state(ino);
        if state.gone || state.record.trash != id {
            return Ok(false);
        }
        let is_open = state.opens > 0;
        let mut change = Change::new(&self.core, &self.data);
        change.leave_trash(&locked, ino);
        if is_open {
            change.batch.put(records::orphan_key(ino), records::encode_counter(0));
        } else {
            change.erase(&mut locked, ino)?;
        }
        change.commit(&mut locked)?;
        Ok(true)
    }

    /// Deletes the oldest entries of the trash for good, at most `limit`, and gives their room back. Returns how many.
    pub fn trash_give_way(&self, limit: usize) -> Result<usize, VfsError> {
        let mut purged = 0;
        for (key, _) in self
            .core
            .store
            .scan(records::TRASH_PREFIX, records::TRASH_PREFIX, limit)?
        {
            purged += usize::from(self.trash_purge(records::parse_ino_key(&key)?)?);
        }
        if purged > 0 {
            self.data.reclaim()?;
        }
        Ok(purged)
    }

    /// Writes; if there is no room, first gives back what was deleted, then makes some from the trash.
    pub(super) fn write_with_room(&self, inode: &Arc<Inode>, offset: u64, data: &[u8]) -> Result<Later<u32>, VfsError> {
        for _ in 0..TRASH_ROOM_ROUNDS {
            match self.data.write(inode, offset, data) {
                Err(VfsError::NoSpace(_)) if self.data.give_back_waiting() => {}
                Err(VfsError::NoSpace(_)) if self.trash_give_way(TRASH_BATCH)? > 0 => {}
                written => return written,
            }
        }
        self.data.write(inode, offset, data)
    }

    /// The inode of an entry.
    fn trashed(&self, id: u64) -> Result<Option<Arc<Inode>>, VfsError> {
        let Some(value) = self.core.store.get(&records::trash_key(id))? else {
            return Ok(None);
        };
        match self.inode(TrashRecord::decode(&value)?.ino) {
            Ok(inode) => Ok(Some(inode)),
            Err(VfsError::Stale) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The number of the entry that is called so in the directory that shows the trash.
    fn trash_id(&self, entry: &[u8]) -> Result<(u64, TrashRecord), VfsError> {
        let id = trash::entry_id(entry).ok_or(VfsError::NotFound)?;
        let value = self
            .core
            .store
            .get(&records::trash_key(id))?
            .ok_or(VfsError::NotFound)?;
        let record = TrashRecord::decode(&value)?;
        if trash::entry_name(id, &record.name) != entry {
            return Err(VfsError::NotFound);
        }
        Ok((id, record))
    }

    /// Looks an entry up; counts one reference of the kernel.
    pub(super) fn trash_lookup(&self, entry: &[u8]) -> Result<Attr, VfsError> {
        let (_, record) = self.trash_id(entry)?;
        self.core.inodes.remember(record.ino);
        self.live_attr(record.ino).map_err(|e| {
            self.forget(record.ino, 1);
            match e {
                VfsError::Stale => VfsError::NotFound,
                other => other,
            }
        })
    }

    /// Tells the entries after number `after`. Their cookies are their numbers and 2.
    pub(super) fn trash_readdir(
        &self,
        mut after: u64,
        plus: bool,
        fill: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), VfsError> {
        loop {
            let from = records::trash_key(after.saturating_add(1));
            let page = self.core.store.scan(records::TRASH_PREFIX, &from, SCAN_PAGE)?;
            for (key, value) in &page {
                after = records::parse_ino_key(key)?;
                let record = TrashRecord::decode(value)?;
                let name = trash::entry_name(after, &record.name);
                // The reference first, as in every listing with attributes.
                let attr = if plus { self.trash_lookup(&name).ok() } else { None };
                let full = fill(DirEntry {
                    ino: record.ino,
                    cookie: after + 2,
                    kind: FileKind::Regular,
                    name: &name,
                    attr,
                });
                if full {
                    if attr.is_some() {
                        self.forget(record.ino, 1);
                    }
                    return Ok(());
                }
            }
            if page.len() < SCAN_PAGE {
                return Ok(());
            }
        }
    }

    /// Removes an entry by its name in the directory that shows the trash.
    pub(super) fn trash_unlink(&self, entry: &[u8]) -> Result<(), VfsError> {
        let (id, _) = self.trash_id(entry)?;
        if self.trash_purge(id)? {
            Ok(())
        } else {
            Err(VfsError::NotFound)
        }
    }

    /// Gives a file of the trash a name again, which must be free (`Exists`). It counts for the quota there (`Quota`).
    pub(super) fn trash_restore(&self, entry: &[u8], parent: u64, name: &[u8]) -> Result<(), VfsError> {
        check_name(name)?;
        if is_dot(name) {
            return Err(VfsError::Exists);
        }
        let (id, _) = self.trash_id(entry)?;
        let inode = self.trashed(id)?.ok_or(VfsError::NotFound)?;
        let (dir, ino) = (self.inode(parent)?, inode.ino);
        let _change = self.core.marks.enter();
        let mut locked = lock_many([&dir, &inode]);
        let state = locked.state(ino);
        if state.gone || state.record.trash != id {
            return Err(VfsError::NotFound);
        }
        if !self.still_names(&locked, parent, name, None)? {
            return Err(VfsError::Exists);
        }
        let now = self.core.now();
        let tree = locked.state(parent).record.quota;
        let mut change = Change::new(&self.core, &self.data);
        change.leave_trash(&locked, ino);
        change.count_for(&mut locked, ino, tree)?;
        let record = change.record(&locked, ino);
        record.nlink = 1;
        record.ctime = now;
        let dir_record = change.record(&locked, parent);
        dir_record.mtime = now;
        dir_record.ctime = now;
        change.set_entry(parent, name, ino, FileKind::Regular)?;
        change.commit(&mut locked)
    }

    /// Deletes what has been in the trash for its time; while there is no room, the oldest before it. True if there may be
    /// more to do at once.
    pub(super) fn sweep_trash(&self) -> Result<bool, VfsError> {
        if self.core.trash.size().files == 0 || self.core.check_writable().is_err() {
            return Ok(false);
        }
        if self.data.is_tight() && (self.data.give_way() || self.trash_give_way(TRASH_BATCH)? > 0) {
            return Ok(true);
        }
        if self.owes_territory() {
            let before = self.core.trash.size().blocks;
            let purged = self.trash_give_way(1)?;
            let given = before.saturating_sub(self.core.trash.size().blocks) * BLOCK_BYTES;
            self.sweeper.given.fetch_add(given, Ordering::Relaxed);
            return Ok(purged > 0);
        }
        let prefix = records::TRASH_PREFIX;
        let keep = i64::try_from(self.core.config.trash_keep.as_secs()).unwrap_or(i64::MAX);
        let now = self.core.now().secs;
        let page = self.core.store.scan(prefix, prefix, TRASH_BATCH)?;
        for (key, value) in &page {
            // In the order of deletion, unless the clock was set back: then the rest is looked at once this one is gone.
            if now.saturating_sub(TrashRecord::decode(value)?.deleted.secs) < keep {
                return Ok(false);
            }
            self.trash_purge(records::parse_ino_key(key)?)?;
        }
        Ok(page.len() == TRASH_BATCH)
    }

    /// Something waits because the territory is full, and more of it than the trash has given way to. That room is free once
    /// the network is told to delete, which takes its time: so no more goes than is wanted.
    fn owes_territory(&self) -> bool {
        if !self.core.chunks.network_room().is_full {
            self.sweeper.given.store(0, Ordering::Relaxed);
            return false;
        }
        let wanted = self.core.chunks.backlog().unsent_bytes + self.data.dirty_bytes();
        self.sweeper.given.load(Ordering::Relaxed) < wanted
    }

    pub(super) fn put_trash_size(&self, batch: &mut Batch) {
        let TrashSize { files, blocks } = self.core.trash.size();
        batch.put(SIZE_KEY, records::encode_pair(files, blocks));
    }

    /// Starts the thread that keeps the trash within its time and room.
    pub(super) fn start_sweeper(self: &Arc<Self>) -> Result<(), VfsError> {
        self.sweeper.threads.start("trash", TRASH_TICK, self, |vfs, stop| {
            loop {
                match vfs.sweep_trash() {
                    Ok(more) if more && !stop.is_asked() => {}
                    Ok(_) => break,
                    Err(e) => {
                        vfs.data.note_error(format!("the trash cannot be swept: {e}"));
                        break;
                    }
                }
            }
        })?;
        Ok(())
    }
}

impl Paced for Vfs {
    fn tell(&self, trouble: String) {
        self.data.note_error(trouble);
    }
}

/// What keeps the trash within its time and room.
#[derive(Default)]
pub(super) struct Sweeper {
    threads: Threads,
    /// Bytes deleted since the territory became full.
    given: AtomicU64,
}

impl Sweeper {
    /// Asks the thread to end, and waits for it.
    pub(super) fn stop(&self) {
        self.threads.stop();
    }
}
