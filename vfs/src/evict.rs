//! Eviction: what the network is known to hold may leave the cache.
//!
//! A chunk goes only if its pack is Confirmed, nobody wrote to it, and the cached bytes still hash to the id the network
//! knows them by. A chunk that does not was changed behind the journal's back: it turns dirty instead (I1: a chunk's only
//! copy is never dropped).
//!
//! The order is: the journal says *absent*; that is made durable; then the hole is punched. The other way round a power cut
//! could leave a chunk that counts as resident and is not.

use crate::data::logged::blocks_of;
use crate::data::state::put_extent;
use crate::data::{ChunkAt, Shared};
use crate::error::VfsError;
use crate::inode::Inode;
use crate::limits::{BLOCK_BYTES, EVICT_BATCH, EVICT_FILES_MAX, EVICT_PAUSE, GIVE_WAY_BYTES, GIVE_WAY_WAIT};
use crate::records::{self, Extent};
use cessfs_sync::{Batch, Standing};
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What an eviction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvictReport {
    /// Bytes of content dropped from the cache.
    pub evicted_bytes: u64,
    /// Bytes of content kept.
    pub kept_bytes: u64,
    /// Chunks kept because the network is not known to hold them yet.
    pub kept_unconfirmed_chunks: u64,
}

/// What became of a chunk that was looked at.
enum Verdict {
    /// May go, if it is still as it was at this change.
    Evict(u64),
    /// The network does not have what the cache has.
    Changed(u64),
    Unconfirmed,
}

/// What tells which of two files goes first: the one that was not used for longer. Nothing is known of most that were not used
/// since the mount; those go before all others, the one that was not written for longer first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Age {
    used: Option<Duration>,
    modified: SystemTime,
    ino: u64,
}

impl Shared {
    /// Drops every chunk that the network is known to hold.
    pub(crate) fn evict_all(&self) -> Result<EvictReport, VfsError> {
        let _alone = self.evicting.lock();
        // A file that was closed a moment ago may still count as the kernel's, and would stay.
        self.end_passes();
        self.settle_submitted()?;
        self.persist_all()?;
        let mut inos = Vec::new();
        self.backing.recount(&mut |file| inos.push(file.ino))?;
        let mut report = EvictReport::default();
        for ino in inos {
            self.evict_inode(ino, u64::MAX, &mut report)?;
        }
        self.reclaim()?;
        self.backing.recount(&mut |_| ())?;
        Ok(report)
    }

    /// Evicts, least recently used files first, if the cache is larger than it may be, or its disk has too little room.
    pub(crate) fn make_room(&self) -> Result<(), VfsError> {
        self.make_room_by(EVICT_FILES_MAX)
    }

    /// The same, with so many files in memory at a time.
    fn make_room_by(&self, files_max: usize) -> Result<(), VfsError> {
        if self.bytes_too_many() == 0 {
            return Ok(());
        }
        // Somebody is making room already, for all: nobody else has to wait for the disk meanwhile.
        let Some(mut not_before) = self.evicting.try_lock() else {
            return Ok(());
        };
        self.evict_oldest(&mut not_before, files_max, 0..=u64::MAX).1
    }

    /// Before something is refused, or deleted, for want of room: gives up some of what the network has, or waits for who does. Whether
    /// there is more room now, or will be. Who asks may be an event loop, so it does not take long.
    pub(crate) fn give_way(&self) -> bool {
        if self.bytes_too_many() == 0 {
            return false;
        }
        let Some(mut not_before) = self.evicting.try_lock_for(GIVE_WAY_WAIT) else {
            return true;
        };
        if self.bytes_too_many() == 0 {
            return true;
        }
        self.evict_now(&mut not_before, 0)
    }

    /// A pack did not fit. If that is for want of room on the disk, gives up some of what the network has, however large the cache may be.
    /// Whether it did.
    pub(crate) fn give_way_to_pack(&self) -> bool {
        let lacks = self.pack_lacks().min(GIVE_WAY_BYTES);
        if lacks == 0 {
            return false;
        }
        match self.evicting.try_lock_for(GIVE_WAY_WAIT) {
            Some(mut not_before) => self.evict_now(&mut not_before, lacks),
            None => true,
        }
    }

    fn evict_now(&self, not_before: &mut Duration, bytes_min: u64) -> bool {
        let (evicted_bytes, done) = self.evict_oldest(not_before, EVICT_FILES_MAX, bytes_min..=GIVE_WAY_BYTES);
        if let Err(e) = done {
            self.errors.add(format!("the cache cannot make room: {e}"));
        }
        evicted_bytes > 0
    }

    /// Evicts until the cache is as large as it should be, or smaller by so many `bytes`. Tells how many went, and why not all could.
    fn evict_oldest(
        &self,
        not_before: &mut Duration,
        files_max: usize,
        bytes: RangeInclusive<u64>,
    ) -> (u64, Result<(), VfsError>) {
        let now = self.core.clock.monotonic();
        if now < *not_before {
            return (0, Ok(()));
        }
        let mut report = EvictReport::default();
        // What cannot be given back keeps nothing else from being evicted.
        let settled = self.settle_submitted().and(self.reclaim());
        let too_many = self.bytes_too_many().clamp(*bytes.start(), *bytes.end());
        let goal = self.backing.used_bytes().saturating_sub(too_many);
        let done = settled.and(self.evict_to(goal, files_max, &mut report));
        // What could not go now has to wait for the network: looking at every file again at once would not help.
        if self.backing.used_bytes() > goal {
            *not_before = now + EVICT_PAUSE;
        }
        (report.evicted_bytes, done)
    }

    fn evict_to(&self, goal: u64, files_max: usize, report: &mut EvictReport) -> Result<(), VfsError> {
        let mut done = Ok(());
        let mut files = self.oldest_files(None, files_max)?;
        while let Some(youngest) = files.last().copied() {
            let is_all = files.len() < files_max;
            for age in files {
                let used = self.backing.used_bytes();
                if used <= goal {
                    break;
                }
                let evicted = self.evict_inode(age.ino, used - goal, report);
                done = done.and(evicted).and(self.reclaim());
            }
            if is_all || self.backing.used_bytes() <= goal {
                break;
            }
            files = self.oldest_files(Some(youngest), files_max)?;
        }
        done
    }

    /// The least recently used files after this one, oldest first, and no more than so many.
    fn oldest_files(&self, after: Option<Age>, max: usize) -> Result<Vec<Age>, VfsError> {
        let mut oldest = BinaryHeap::new();
        self.backing.recount(&mut |file| {
            let age = Age {
                used: self.recent.lock().peek(&file.ino).copied(),
                modified: file.modified,
                ino: file.ino,
            };
            if after.is_none_or(|after| age > after) {
                oldest.push(age);
            }
            if oldest.len() > max {
                oldest.pop();
            }
        })?;
        Ok(oldest.into_sorted_vec())
    }

    /// Seals the open pack if the cache is full and what fills it waits there. Otherwise nothing would be sent until the pack is
    /// full or old, and a cache smaller than a pack never fills one: writers would wait for nothing.
    pub(crate) fn send_for_room(&self) -> Result<(), VfsError> {
        if self.has_room() {
            return Ok(());
        }
        let waits = self.submitted_ids();
        let mut waits = waits.into_iter().map(|(_, (id, _))| self.core.chunks.standing(id));
        if waits.any(|standing| standing == Standing::Open) {
            self.core.chunks.seal()?;
            self.settle_submitted()?;
        }
        Ok(())
    }

    /// Evicts chunks of one inode until `goal` bytes are gone.
    pub(crate) fn evict_inode(&self, ino: u64, goal: u64, report: &mut EvictReport) -> Result<(), VfsError> {
        let inode = match self.core.inodes.get(&self.core, ino) {
            Ok(inode) => inode,
            Err(VfsError::Stale) => return Ok(()),
            Err(e) => return Err(e),
        };
        // Whoever reads it through the kernel would find holes.
        if inode.state.read().data.pass.is_some() {
            return Ok(());
        }
        let mut gone = 0;
        for page in self.resident_chunks(&inode)?.chunks(EVICT_BATCH) {
            if gone >= goal {
                break;
            }
            let mut verdicts = Vec::new();
            for (chunk, extent) in page {
                let bytes = extent.blocks.count() * BLOCK_BYTES;
                match self.judge(&inode, *chunk)? {
                    Some(Verdict::Unconfirmed) => {
                        report.kept_bytes += bytes;
                        report.kept_unconfirmed_chunks += 1;
                    }
                    Some(verdict) => verdicts.push((*chunk, bytes, verdict)),
                    None => {}
                }
            }
            let evicted = self.journal_verdicts(&inode, &verdicts, report)?;
            gone += evicted;
            report.evicted_bytes += evicted;
        }
        Ok(())
    }

    /// Resident chunks, least recently used first.
    fn resident_chunks(&self, inode: &Arc<Inode>) -> Result<Vec<(u64, Extent)>, VfsError> {
        let mut found: BTreeMap<u64, (Extent, u64)> = BTreeMap::new();
        self.each_extent(inode.ino, 0, &mut |chunk, extent| {
            if extent.resident {
                found.insert(chunk, (extent, 0));
            }
            Ok(())
        })?;
        let state = inode.state.read();
        let cache = state.data.chunks.lock();
        for chunk in cache.numbers_from(0) {
            if let Some(known) = cache.peek(chunk) {
                found.insert(chunk, known);
            }
        }
        let mut chunks: Vec<(u64, u64, Extent)> = found
            .into_iter()
            .filter(|(_, (extent, _))| extent.resident)
            .map(|(chunk, (extent, used))| (used, chunk, extent))
            .collect();
        chunks.sort_unstable_by_key(|(used, chunk, _)| (*used, *chunk));
        Ok(chunks.into_iter().map(|(_, chunk, extent)| (chunk, extent)).collect())
    }

    /// Whether a chunk may go; `None` if it is no longer there.
    fn judge(&self, inode: &Arc<Inode>, chunk: u64) -> Result<Option<Verdict>, VfsError> {
        let (content, change, id) = {
            let state = inode.state.read();
            if state.gone {
                return Ok(None);
            }
            let (extent, change) = state
                .data
                .with_slot(&self.core, inode.ino, chunk, |slot| (slot.now, slot.changed))?;
            if !extent.resident {
                return Ok(None);
            }
            let Some((id, len)) = extent.stored.filter(|_| !extent.dirty) else {
                return Ok(Some(Verdict::Unconfirmed));
            };
            if self.core.chunks.standing(id) != Standing::Confirmed {
                return Ok(Some(Verdict::Unconfirmed));
            }
            let at = ChunkAt { ino: inode.ino, chunk };
            (self.read_chunk(at, &extent, len), change, id)
        };
        match content {
            Ok(content) if self.core.keys.chunk_id(&content) == id => Ok(Some(Verdict::Evict(change))),
            Ok(_) => Ok(Some(Verdict::Changed(change))),
            // The cached copy is worthless and the network has the content: nothing is lost by dropping it.
            Err(VfsError::Damaged { .. }) => Ok(Some(Verdict::Evict(change))),
            Err(e) => Err(e),
        }
    }

    /// Journals what was decided about chunks that nobody touched since. Returns the bytes that may be punched out.
    fn journal_verdicts(
        &self,
        inode: &Arc<Inode>,
        verdicts: &[(u64, u64, Verdict)],
        report: &mut EvictReport,
    ) -> Result<u64, VfsError> {
        let ino = inode.ino;
        let _guard = self.core.marks.enter_unseen();
        let mut state = inode.state.write();
        if state.data.pass.is_some() {
            return Ok(0);
        }
        state.data.exact = false;
        let mut batch = Batch::new();
        let mut decided = Vec::new();
        for (chunk, bytes, verdict) in verdicts {
            let (slot_change, unsynced, journaled, mut now) =
                state.data.with_slot(&self.core, ino, *chunk, |slot| {
                    (slot.changed, slot.unsynced.is_some(), slot.journaled, slot.now)
                })?;
            // The record that the store has counts it as it is there: both go with the next batch of the inode.
            if now.allocated() != journaled.allocated() {
                continue;
            }
            let evict = match verdict {
                Verdict::Evict(change) if *change == slot_change => true,
                Verdict::Changed(change) if *change == slot_change => false,
                _ => continue,
            };
            // Fetched a moment ago: until that is durable the store says that the network has it. And while a snapshot is taken, what was
            // handed over for it must not be dirty again. The next eviction finds either again.
            if !evict && (unsynced || self.core.marks.is_frozen()) {
                continue;
            }
            if state.gone || now.dirty || !now.resident {
                continue;
            }
            if evict {
                state.data.logged.void(ino, blocks_of(*chunk), &mut batch);
                now.resident = false;
            } else {
                now.turn_dirty();
                self.core.marks.mark(&mut batch, &records::extent_key(ino, *chunk));
                report.kept_bytes += bytes;
                report.kept_unconfirmed_chunks += 1;
            }
            put_extent(&mut batch, ino, *chunk, &journaled, &now);
            decided.push((*chunk, *bytes, now));
        }
        self.core.store.commit(batch)?;
        let mut evicted = 0;
        for (chunk, bytes, now) in decided {
            state.data.with_slot(&self.core, ino, chunk, |slot| {
                slot.now = now;
                slot.journaled = now;
                slot.unsynced = None;
            })?;
            if now.dirty {
                self.touch_dirty(ino, chunk, &now);
            } else {
                evicted += bytes;
                self.give_back_chunks(ino, &[chunk]);
            }
        }
        Ok(evicted)
    }
}

#[cfg(test)]
mod tests;
