//! After an unclean end: what the cache holds is compared with what the journal says of it.
//!
//! The journal is an atomic prefix of what was committed; the backing files are whatever the disk took. Only dirty chunks, and
//! those of files that were written shortly before the last heartbeat, or after it, can differ from the journal in a way that
//! matters. When a file was written says nothing of dirty chunks: the journal speaks of what the disk's filesystem has not
//! written yet, and it may not have written that time either.
//!
//! | chunk | found | becomes |
//! |---|---|---|
//! | clean | hashes to its id | clean |
//! | clean | readable, another hash | dirty: it was written and the journal did not hear of it |
//! | clean, cut short since it was sent | readable | dirty: no hash tells whether it was written |
//! | clean | unreadable, or readable with older versions of blocks only, and then with another hash | absent: the network has it |
//! | any | blocks older than their copies in the journal ([logged](crate::data::logged)) | the copies |
//! | dirty | blocks torn | their last durable version (sealed layout) |
//! | dirty, a part here and the rest not | blocks that never reached the disk | what they were written over |
//! | dirty | blocks that never reached the disk | holes there, and told in `errors` |
//! | dirty | blocks noted as [unsure], and the machine was started since | holes there, and told in `errors` |
//!
//! Dirty chunks are submitted again by writeback, and marked again, because a delta may have carried an older content of them.

use crate::data::state::{DIRTY_PREFIX, SPILL_PREFIX, put_extent, spill_key};
use crate::data::unsure::{self, NOTE_PREFIX};
use crate::data::{BLOCK, ChunkAt, HEARTBEAT_KEY, Shared};
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::limits::{BACKING_DIRS, CHUNK_BLOCKS, HEARTBEAT_MARGIN, SCAN_PAGE};
use crate::records::{self, BlockMap, Extent};
use cessfs_sync::Batch;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Which chunks of a file are compared.
#[derive(Clone, Copy)]
enum Which {
    All,
    Dirty,
    /// Those of which a part is here.
    Patched,
}

impl Shared {
    /// Compares the cache with the journal, and repairs. The caller has swept orphans, and nobody else is there yet.
    pub(crate) fn recover(&self) -> Result<(), VfsError> {
        // What the kernel still holds of the last run is made durable, so that it counts as durable from here on.
        self.backing.sync_disk()?;
        let copied = self.put_copies_back()?;
        for ino in self.noted_inos(NOTE_PREFIX)? {
            self.recover_unsure(ino)?;
        }
        self.recover_spills()?;
        let heartbeat = match self.core.store.get(HEARTBEAT_KEY)? {
            Some(value) => Duration::from_secs(records::decode_counter(&value)?),
            None => Duration::ZERO,
        };
        // A heartbeat from the future says that the clock was set back, and nothing of what was written since.
        let since = match self.core.clock.wall() < heartbeat {
            true => UNIX_EPOCH,
            false => UNIX_EPOCH + heartbeat.saturating_sub(HEARTBEAT_MARGIN),
        };
        let mut suspects = Vec::new();
        // Of those that were never synced nothing may be there to be found, not even the name.
        let mut others = self.dirty_inos()?;
        self.backing.recount(&mut |file| {
            if file.modified >= since || copied.contains(&file.ino) {
                others.remove(&file.ino);
                suspects.push((file.ino, Which::All));
            }
        })?;
        let others = others.into_iter().map(|ino| (ino, Which::Dirty));
        for (ino, which) in suspects.into_iter().chain(others) {
            match self.core.inodes.get(&self.core, ino) {
                // To be believed, and looked at later.
                Ok(_) if self.is_noted(ino)? => {}
                // Its content is a record, and this was not yet gone from here.
                Ok(inode) if inode.state.read().record.inline => self.backing.empty(ino)?,
                Ok(inode) => self.recover_file(&inode, which)?,
                Err(VfsError::Stale) => self.backing.remove(ino)?,
                Err(e) => return Err(e),
            }
        }
        self.backing.sync_all()?;
        *self.strays.lock() = 0..BACKING_DIRS;
        self.mark_dirty_again()?;
        self.persist_all()?;
        // What was dropped, cut or removed here does not come back: versions of blocks may begin anew where it was.
        Ok(self.backing.sync_disk()?)
    }

    /// The same for a volume that must not change: what was promised can be read. What that takes is done in the cache and in memory;
    /// the store goes on saying what it said, to the next mount, which recovers. Nobody looks over what nobody promised: it may be
    /// damage here.
    pub(crate) fn recover_content(&self) -> Result<(), VfsError> {
        self.backing.sync_disk()?;
        self.backing.fall_back();
        self.put_copies_back()?;
        for ino in self.noted_inos(NOTE_PREFIX)? {
            self.recover_unsure(ino)?;
        }
        self.recover_spills()?;
        // What lies beneath was promised.
        for ino in self.dirty_inos()? {
            match self.core.inodes.get(&self.core, ino) {
                Ok(inode) => {
                    self.recover_file(&inode, Which::Patched)?;
                    self.keep_pending(&inode);
                }
                Err(VfsError::Stale) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Removes what is left of inodes that are no more, or are records, from the next of the directories that may hold
    /// any. That a file was not written lately does not mean that its inode is still there, but there is time to find out. Of those that
    /// are there goes what was to be given back before the crash: nobody else would ever come to it.
    pub(crate) fn remove_strays(&self) -> Result<(), VfsError> {
        let Some(number) = self.strays.lock().next() else {
            return Ok(());
        };
        let mut done = Ok(());
        for ino in self.backing.inodes_in(number)? {
            done = done.and(self.remove_stray(ino));
        }
        done
    }

    fn remove_stray(&self, ino: u64) -> Result<(), VfsError> {
        // What has content has a record since before it had content.
        let Some(value) = self.core.store.get(&records::inode_key(ino))? else {
            return Ok(self.backing.remove(ino)?);
        };
        match records::InodeRecord::decode(&value) {
            Ok(record) if record.inline => self.outgrown(ino),
            // Others may have written to it, and that was not looked at yet.
            Ok(_) if self.is_noted(ino)? => {}
            Ok(_) => self.give_back_leftovers(ino)?,
            Err(_) => {}
        }
        Ok(())
    }

    /// Takes the blocks out of a file that may be what they were before they were cut off. Ends the note.
    fn recover_unsure(&self, ino: u64) -> Result<(), VfsError> {
        let key = unsure::note_key(ino);
        let note = unsure::decode(&self.core.store.get(&key)?.unwrap_or_default())?;
        let is_same_boot = note.boot != [0; 16] && note.boot == self.core.config.boot;
        match self.core.inodes.get(&self.core, ino) {
            // What others wrote is to be believed, and began when nothing was unsure.
            Ok(inode) if !is_same_boot && !self.is_noted(ino)? => {
                for (chunk, unsure) in note.chunks {
                    let _guard = self.core.marks.enter();
                    let mut state = inode.state.write();
                    let before = state.data.extent(&self.core, ino, chunk)?;
                    if before.dirty {
                        let now = self.without_lost(ino, chunk, before, &before.local().blocks.common(&unsure));
                        self.settle_recovered(ino, &mut state, chunk, (before, now))?;
                    }
                }
                if self.core.config.read_only {
                    self.keep_pending(&inode);
                }
            }
            Ok(_) | Err(VfsError::Stale) => {}
            Err(e) => return Err(e),
        }
        if self.core.config.read_only {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.delete(key);
        Ok(self.core.store.commit(batch)?)
    }

    fn recover_spills(&self) -> Result<(), VfsError> {
        for ino in self.noted_inos(SPILL_PREFIX)? {
            match self.core.inodes.get(&self.core, ino) {
                Ok(inode) => self.recover_spill(&inode)?,
                Err(VfsError::Stale) => self.drop_spill(ino)?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The inode is no more: whoever deleted it did not know of the record that it had outgrown.
    fn drop_spill(&self, ino: u64) -> Result<(), VfsError> {
        if self.core.config.read_only {
            return Ok(());
        }
        let _guard = self.core.marks.enter();
        let mut batch = Batch::new();
        let key = records::inline_key(ino);
        self.core.marks.mark(&mut batch, &key);
        batch.delete(key);
        batch.delete(spill_key(ino));
        Ok(self.core.store.commit(batch)?)
    }

    /// Inodes named by the keys that start with `prefix` and end with a number.
    pub(crate) fn noted_inos(&self, prefix: &[u8]) -> Result<Vec<u64>, VfsError> {
        let mut inos = Vec::new();
        let mut from = prefix.to_vec();
        loop {
            let page = self.core.store.scan(prefix, &from, SCAN_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(inos) };
            from.clone_from(last);
            from.push(0);
            for (key, _) in &page {
                let number = key.last_chunk::<8>().filter(|_| key.len() == prefix.len() + 8);
                inos.push(
                    number
                        .map(|bytes| u64::from_be_bytes(*bytes))
                        .ok_or(records::RecordError::Short)?,
                );
            }
        }
    }

    /// Inodes with chunks that are not known to be in a sealed pack.
    fn dirty_inos(&self) -> Result<BTreeSet<u64>, VfsError> {
        let mut inos = BTreeSet::new();
        crate::restore::each(self.core.store.as_ref(), DIRTY_PREFIX, |key, _| {
            inos.insert(records::parse_extent_key(key)?.0);
            Ok(())
        })?;
        Ok(inos)
    }

    fn recover_file(&self, inode: &Arc<Inode>, which: Which) -> Result<(), VfsError> {
        let mut chunks = Vec::new();
        self.each_extent(inode.ino, 0, &mut |chunk, extent| {
            let wanted = match which {
                Which::All => extent.resident || extent.dirty,
                Which::Dirty => extent.dirty,
                Which::Patched => extent.is_patched(),
            };
            if wanted {
                chunks.push(chunk);
            }
            Ok(())
        })?;
        for chunk in chunks {
            self.recover_chunk(inode, chunk)?;
        }
        Ok(())
    }

    fn recover_chunk(&self, inode: &Arc<Inode>, chunk: u64) -> Result<(), VfsError> {
        let ino = inode.ino;
        let _guard = self.core.marks.enter();
        let mut state = inode.state.write();
        let before = state.data.extent(&self.core, ino, chunk)?;
        let now = if before.dirty {
            let lost = self.repair_dirty(ino, chunk, &before)?;
            self.without_lost(ino, chunk, before, &lost)
        } else {
            self.reassess(ino, chunk, before)?
        };
        self.settle_recovered(ino, &mut state, chunk, (before, now))
    }

    /// Goes back to what is durable of a chunk of which nobody else has all; the blocks of which nothing is.
    fn repair_dirty(&self, ino: u64, chunk: u64, extent: &Extent) -> Result<BlockMap, VfsError> {
        let local = extent.local().blocks;
        let mut lost = self.backing.repair(ino, chunk, &local)?;
        if extent.is_patched() {
            // What nothing was ever written to reads as zeros, and is not what is beneath.
            for block in (0..CHUNK_BLOCKS).filter(|block| local.contains(*block)) {
                if !self.backing.may_hold_older(ino, chunk, block..block + 1)? {
                    lost.insert(block);
                }
            }
        }
        Ok(lost)
    }

    /// Journals what a chunk is found to be.
    fn settle_recovered(
        &self,
        ino: u64,
        state: &mut InodeState,
        chunk: u64,
        (before, now): (Extent, Extent),
    ) -> Result<(), VfsError> {
        if now == before {
            return Ok(());
        }
        if self.core.config.read_only {
            state.record.blocks = (state.record.blocks + now.allocated()).saturating_sub(before.allocated());
            return state.data.with_slot(&self.core, ino, chunk, |slot| slot.now = now);
        }
        let mut batch = Batch::new();
        self.core.marks.mark(&mut batch, &records::extent_key(ino, chunk));
        let journaled = state.data.with_slot(&self.core, ino, chunk, |slot| slot.journaled)?;
        put_extent(&mut batch, ino, chunk, &journaled, &now);
        let mut record = state.record.clone();
        record.blocks = (record.blocks + now.allocated()).saturating_sub(before.allocated());
        self.core.put_inode(&mut batch, ino, &record);
        self.core.store.commit(batch)?;
        state.record = record;
        state.data.with_slot(&self.core, ino, chunk, |slot| {
            slot.now = now;
            slot.journaled = now;
        })?;
        if now.dirty {
            self.touch_dirty(ino, chunk, &now);
        }
        Ok(())
    }

    /// A dirty chunk without the blocks of which no version is left; what they were written over shows again.
    fn without_lost(&self, ino: u64, chunk: u64, mut extent: Extent, lost: &records::BlockMap) -> Extent {
        if !lost.is_empty() {
            let bytes = lost.count() * BLOCK as u64;
            self.errors.add(format!(
                "inode {ino}: {bytes} bytes of chunk {chunk} were written shortly before the crash, never synced, and lost"
            ));
            let kept = extent.kept.filter(|_| extent.is_patched());
            extent.over.remove_all(lost);
            extent.blocks.remove_all(lost);
            extent
                .blocks
                .insert_all(&lost.common(&kept.map_or(BlockMap::default(), |kept| kept.blocks)));
            extent.settle_if_bare();
        }
        extent
    }

    /// What a chunk that counts as clean really is.
    fn reassess(&self, ino: u64, chunk: u64, mut extent: Extent) -> Result<Extent, VfsError> {
        let Some((id, len)) = extent.stored else {
            return Ok(extent);
        };
        let at = ChunkAt { ino, chunk };
        let mut found = self.read_chunk(at, &extent, len);
        let is_torn = matches!(found, Err(VfsError::Damaged { .. }));
        if is_torn {
            self.backing.repair(ino, chunk, &extent.local().blocks)?;
            found = self.read_chunk(at, &extent, len);
        }
        match found {
            Ok(content) if self.core.keys.chunk_id(&content) == id => {}
            // An older version of a block is what the network has only if the newer one was written since. Else that is damaged; and what
            // else was written since, the journal did not hear of: nobody was promised it.
            Ok(_) | Err(VfsError::Damaged { .. }) if is_torn && self.core.chunks.is_held(id) => extent.resident = false,
            // Also one that was cut short since: the hash of the whole says nothing about what is left. It may have been written
            // over, and what is read here has to be what the network gives.
            Ok(_) => extent.turn_dirty(),
            Err(VfsError::Damaged { offset, .. }) => {
                self.errors.add(format!(
                    "inode {ino} is damaged at byte {offset}, and the network does not have it"
                ));
            }
            Err(e) => return Err(e),
        }
        Ok(extent)
    }

    /// Marks every dirty chunk, so that the next delta carries what it is now.
    fn mark_dirty_again(&self) -> Result<(), VfsError> {
        let mut from = DIRTY_PREFIX.to_vec();
        loop {
            let page = self.core.store.scan(DIRTY_PREFIX, &from, SCAN_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
            let _guard = self.core.marks.enter();
            let mut batch = Batch::new();
            for (key, _) in &page {
                let (ino, chunk) = records::parse_extent_key(key)?;
                self.core.marks.mark(&mut batch, &records::extent_key(ino, chunk));
            }
            self.core.store.commit(batch)?;
        }
    }
}

#[cfg(test)]
mod tests;
