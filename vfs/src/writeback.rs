//! Writeback: quiet dirty chunks are handed to the chunk store, and turn clean once their pack is sealed.
//!
//! ```text
//!   Waiting --due--> Taken --submitted--> Submitted --standing >= Sealed--> clean (out of the queue)
//!      ^               |                      |
//!      +---- write ----+------- write --------+---- standing Unknown: the open pack was lost --> Waiting
//! ```
//!
//! The copy of a chunk is taken under the inode's lock, everything slow happens without it. A ticket tells whether the chunk
//! was written meanwhile: then what was submitted is no longer its content, and it waits again. The journal says *dirty*
//! until the pack is sealed, so a crash at any point submits the chunk again, which costs nothing if its id is known.

mod complete;
mod queue;
mod workers;

pub(crate) use complete::Completions;
pub(crate) use queue::{DirtyQueue, Sent, Submitted};
pub(crate) use workers::Workers;

use crate::data::state::put_extent;
use crate::data::{Shared, chunk_len};
use crate::error::VfsError;
use crate::inode::Inode;
use crate::limits::{LAZY_BATCH, SETTLE_CHUNKS_MAX, WRITEBACK_RETRY};
use crate::records::{self, Extent, Kept};
use crate::stages;
use cessfs_crypto::ChunkId;
use cessfs_sync::{Batch, Standing, StoreError};
use parking_lot::RwLockWriteGuard;
use queue::Taken;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Why a chunk is written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// It has been quiet for long enough.
    Due,
    /// Somebody waits until what is there has been submitted.
    Asked,
}

impl Shared {
    /// Hands one chunk to the chunk store. Blocks while the backlog of unsent bytes is at its bound.
    fn write_back(&self, mut taken: Taken, whose: Whose) -> Result<(), VfsError> {
        let result = catch_unwind(AssertUnwindSafe(|| self.copy_and_submit(&mut taken, whose)));
        // After a panic, too: nobody else would come back to it before the next sync.
        if !matches!(result, Ok(Ok(()))) {
            let retry_at = self.core.clock.monotonic() + WRITEBACK_RETRY;
            self.dirty.lock().put_back(taken, retry_at);
        }
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn copy_and_submit(&self, taken: &mut Taken, whose: Whose) -> Result<(), VfsError> {
        let Some(inode) = self.if_there(taken.ino)? else {
            self.dirty.lock().forget_from(taken.ino, 0);
            return Ok(());
        };
        if let Some(pause) = self.complete_soon(&inode, taken.chunk)? {
            // Behind those that need not wait.
            let due = self.core.clock.monotonic() + self.ahead_of_time() + pause;
            self.dirty.lock().put_back(*taken, due);
            return Ok(());
        }
        let Some((plaintext, shape)) = self.copy_dirty(&inode, taken, whose)? else {
            return Ok(());
        };
        let hashing = stages::HASH_CHUNK.enter();
        let id = self.core.keys.chunk_id(&plaintext);
        drop(hashing);
        let submitted = match self.core.chunks.submit(id, &plaintext) {
            // The pack lies beside the cache, which holds what was sent before.
            Err(StoreError::Full) if self.give_way_to_pack() => self.core.chunks.submit(id, &plaintext),
            submitted => submitted,
        };
        match submitted {
            Ok(()) => {}
            Err(StoreError::Full) => return Err(VfsError::NoSpace("the staging disk is full")),
            Err(e) => return Err(e.into()),
        }
        self.dirty.lock().submitted(*taken, id, plaintext.len() as u32, shape);
        Ok(())
    }

    /// The inode, unless it is gone.
    pub(crate) fn if_there(&self, ino: u64) -> Result<Option<Arc<Inode>>, VfsError> {
        match self.core.inodes.get(&self.core, ino) {
            Ok(inode) => Ok(Some(inode)),
            Err(VfsError::Stale) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The chunk's content and what of it counts, journaled so that the store knows every block the copy has; `None` if it is no
    /// longer dirty, or no longer taken by whoever only had it due, or lacks a part again.
    fn copy_dirty(
        &self,
        inode: &Arc<Inode>,
        taken: &mut Taken,
        whose: Whose,
    ) -> Result<Option<(Vec<u8>, Kept)>, VfsError> {
        let unsynced = {
            let state = inode.state.read();
            state
                .data
                .with_slot(&self.core, inode.ino, taken.chunk, |slot| slot.unsynced.is_some())?
        };
        if unsynced {
            self.persist(inode)?;
        }
        let guard = self.core.marks.enter_unseen();
        let mut state = inode.state.write();
        self.journal_locked(inode.ino, &mut state, None)?;
        let state = RwLockWriteGuard::downgrade(state);
        drop(guard);
        if state.gone || !self.holds(taken, whose) {
            return Ok(None);
        }
        let extent = state.data.extent(&self.core, inode.ino, taken.chunk)?;
        let len = chunk_len(state.record.size, taken.chunk);
        if !extent.dirty || len == 0 {
            self.dirty.lock().forget(inode.ino, taken.chunk);
            return Ok(None);
        }
        if extent.is_patched() {
            // It became another, and was written over, since it was complete.
            self.dirty.lock().put_back(*taken, self.core.clock.monotonic());
            return Ok(None);
        }
        let at = crate::data::ChunkAt {
            ino: inode.ino,
            chunk: taken.chunk,
        };
        match self.read_chunk(at, &extent, len) {
            Ok(plaintext) => {
                let (valid, blocks) = (extent.valid, extent.blocks);
                Ok(Some((plaintext, Kept { valid, blocks })))
            }
            Err(e) => {
                self.errors.add(format!(
                    "inode {}: chunk {} cannot be written back: {e}",
                    inode.ino, taken.chunk
                ));
                Err(e)
            }
        }
    }

    /// Whether the chunk is taken by its ticket, with the inode's lock held: nobody writes to it meanwhile.
    fn holds(&self, taken: &mut Taken, whose: Whose) -> bool {
        let mut dirty = self.dirty.lock();
        if dirty.still_taken(*taken) {
            return true;
        }
        match whose {
            // Written since: it is due again later.
            Whose::Due => false,
            // Whoever waits was promised what was there when he asked. What is there now has that in it, too.
            Whose::Asked => match dirty.take(taken.ino, taken.chunk) {
                Some(again) => {
                    *taken = again;
                    true
                }
                // Somebody else has submitted just this, or nothing is dirty.
                None => false,
            },
        }
    }

    /// How long before its time a chunk is due. In a full cache every chunk is: writers wait for the room it takes.
    fn ahead_of_time(&self) -> Duration {
        if self.has_room() {
            Duration::ZERO
        } else {
            self.core.config.writeback_delay
        }
    }

    /// Writes back the chunk that has been due for longest; false if none is due.
    pub(crate) fn write_back_next(&self) -> bool {
        let ahead = self.ahead_of_time();
        let hurries = !ahead.is_zero();
        let now = self.core.clock.monotonic();
        let Some(taken) = self.dirty.lock().take_due(now + ahead) else {
            return false;
        };
        let Err(e) = self.write_back(taken, Whose::Due) else {
            return true;
        };
        self.errors
            .add(format!("inode {}: chunk {} waits: {e}", taken.ino, taken.chunk));
        // In a hurry it would be taken again at once.
        !hurries
    }

    /// How long to let those go first who use the mount, if something is due; not in a full cache, where they wait for just that.
    pub(crate) fn write_back_steps_aside(&self) -> Option<Duration> {
        let due = self.dirty.lock().is_due(self.core.clock.monotonic());
        if due && self.has_room() {
            self.core.chunks.step_aside()
        } else {
            None
        }
    }

    /// Submits everything that is dirty at the call, and makes it durable here: whoever asks wants it to outlive this machine. A
    /// disk that fails keeps nothing from being submitted. What was written over a part of a chunk that is not here is only made
    /// durable, and the rest asked for: see [`complete_all`](Shared::complete_all).
    pub(crate) fn write_back_all(&self) -> Result<(), VfsError> {
        let looked = self.look_at_all();
        self.settle_young(true);
        let durable = looked.and(self.make_durable());
        // What a lost pack had waits again, and is submitted with the rest.
        let mut first_error = durable.and(self.settle_submitted()).err();
        let all = self.dirty.lock().not_submitted();
        for (ino, chunk) in all {
            let Some(taken) = self.dirty.lock().take(ino, chunk) else {
                continue;
            };
            first_error = first_error.or(self.write_back(taken, Whose::Asked).err());
        }
        self.settle_submitted()?;
        first_error.map_or(Ok(()), Err)
    }

    /// Turns chunks clean whose packs are sealed; submits those again that a crash of the open pack forgot.
    pub(crate) fn settle_submitted(&self) -> Result<(), VfsError> {
        let submitted = self.dirty.lock().all_submitted();
        let now = self.core.clock.monotonic();
        let mut ready: Vec<Submitted> = Vec::new();
        for entry in submitted {
            match self.core.chunks.standing(entry.id) {
                Standing::Unknown => {
                    self.note_untold();
                    self.dirty.lock().put_back(entry.taken, now);
                }
                Standing::Open => {}
                Standing::Sealed | Standing::Stored | Standing::Confirmed => ready.push(entry),
            }
        }
        for some in ready.chunks(SETTLE_CHUNKS_MAX) {
            let durable = self.durable(some)?;
            for group in durable.chunk_by(|a, b| a.taken.ino == b.taken.ino) {
                for page in group.chunks(LAZY_BATCH) {
                    self.turn_clean(page)?;
                }
                for entry in group {
                    self.tidy(entry.taken.ino, entry.taken.chunk);
                }
            }
        }
        self.settle_behind()
    }

    /// Makes the files of these chunks durable here, and returns those of which that succeeded: after a power cut, what the cache
    /// has of a clean chunk is taken for newer than what the network has.
    fn durable(&self, ready: &[Submitted]) -> Result<Vec<Submitted>, VfsError> {
        let mut inodes: Vec<Arc<Inode>> = Vec::new();
        for entry in ready {
            let known = inodes.last().is_some_and(|last| last.ino == entry.taken.ino);
            inodes.extend(if known { None } else { self.if_there(entry.taken.ino)? });
        }
        self.persist_many(&inodes, &|_| true)?;
        let failed = |inode: &&Arc<Inode>| inode.state.read().data.failure.is_some();
        let failed: BTreeSet<u64> = inodes.iter().filter(failed).map(|inode| inode.ino).collect();
        let durable = ready.iter().filter(|entry| !failed.contains(&entry.taken.ino));
        Ok(durable.copied().collect())
    }

    /// Of chunks that were written since they were submitted, the store says what the network has now: later deltas must not
    /// tell of less than earlier ones.
    fn settle_behind(&self) -> Result<(), VfsError> {
        let behind = self.dirty.lock().behind();
        for (at, sent) in behind {
            match self.core.chunks.standing(sent.id) {
                Standing::Open => continue,
                Standing::Unknown => self.note_untold(),
                Standing::Sealed | Standing::Stored | Standing::Confirmed => self.tell_sent(at, &sent)?,
            }
            self.dirty.lock().forget_sent(at, &sent);
        }
        Ok(())
    }

    fn tell_sent(&self, (ino, chunk): (u64, u64), sent: &Sent) -> Result<(), VfsError> {
        let Some(inode) = self.if_there(ino)? else {
            return Ok(());
        };
        // The delta that was sealed with it told of it, or told nothing of the file: nothing is marked.
        let _guard = self.core.marks.enter_unseen();
        let state = inode.state.write();
        // Others may have told of something newer while this one waited: an earlier pack would be told over a later one.
        if state.gone || !self.dirty.lock().is_last_sent((ino, chunk), sent) {
            return Ok(());
        }
        let now = state.data.with_slot(&self.core, ino, chunk, |slot| slot.now)?;
        // What the store itself says: a cut goes there at once, and is not noted in the slot. It learns nothing else here.
        let Some(value) = self.core.store.get(&records::extent_key(ino, chunk))? else {
            return Ok(());
        };
        let journaled = Extent::decode(&value)?;
        if !(journaled.dirty && now.dirty) {
            return Ok(());
        }
        let mut told = journaled;
        told.stored = Some((sent.id, sent.len));
        told.kept = Some(sent.kept_in(&now));
        let mut batch = Batch::new();
        put_extent(&mut batch, ino, chunk, &journaled, &told);
        self.core.store.commit(batch)?;
        state.data.with_slot(&self.core, ino, chunk, |slot| {
            for extent in [&mut slot.journaled, &mut slot.now] {
                (extent.stored, extent.kept) = (told.stored, told.kept.filter(|_| extent.dirty));
            }
        })
    }

    /// Journals that these chunks of one inode are what the network has, unless they were written since.
    fn turn_clean(&self, entries: &[Submitted]) -> Result<(), VfsError> {
        let Some(first) = entries.first() else { return Ok(()) };
        let ino = first.taken.ino;
        let Some(inode) = self.if_there(ino)? else {
            return Ok(());
        };
        // The delta that carried the ids is sealed already: nothing is marked. But a cut must see the records of one instant.
        let _guard = self.core.marks.enter_unseen();
        let state = inode.state.write();
        let mut batch = Batch::new();
        let mut cleaned = Vec::new();
        for entry in entries {
            let chunk = entry.taken.chunk;
            if state.gone || !self.dirty.lock().still_taken(entry.taken) {
                continue;
            }
            let (journaled, clean) = state.data.with_slot(&self.core, ino, chunk, |slot| {
                let mut clean = slot.now;
                clean.stored = Some((entry.id, entry.len));
                clean.dirty = false;
                clean.kept = None;
                (slot.journaled, clean)
            })?;
            put_extent(&mut batch, ino, chunk, &journaled, &clean);
            cleaned.push((entry.taken, clean));
        }
        self.core.store.commit(batch)?;
        for (taken, clean) in cleaned {
            state.data.with_slot(&self.core, ino, taken.chunk, |slot| {
                slot.now = clean;
                slot.journaled = clean;
            })?;
            self.dirty.lock().forget(ino, taken.chunk);
        }
        Ok(())
    }

    fn tidy(&self, ino: u64, chunk: u64) {
        if let Err(e) = self.backing.tidy(ino, chunk) {
            self.errors.add(format!(
                "inode {ino}: older versions of chunk {chunk} cannot be removed: {e}"
            ));
        }
    }

    /// Older content of chunks that were written since, which the chunk store has in the pack being sealed or before.
    pub(crate) fn behind(&self) -> Vec<((u64, u64), Sent)> {
        let mut behind = self.dirty.lock().behind();
        let all = behind.len();
        behind.retain(|(_, sent)| self.core.chunks.standing(sent.id) >= Standing::Open);
        if behind.len() < all {
            self.note_untold();
        }
        behind
    }

    /// Chunks whose content the chunk store has in the pack being sealed or before, though the store still calls them dirty. Notes
    /// if some that were submitted are in none any more.
    pub(crate) fn submitted_ids(&self) -> Vec<((u64, u64), (ChunkId, u32))> {
        let mut submitted = self.dirty.lock().all_submitted();
        let all = submitted.len();
        submitted.retain(|entry| self.core.chunks.standing(entry.id) >= Standing::Open);
        if submitted.len() < all {
            self.note_untold();
        }
        let place = |entry: Submitted| ((entry.taken.ino, entry.taken.chunk), (entry.id, entry.len));
        submitted.into_iter().map(place).collect()
    }

    /// Something that was submitted is in no pack any more, or a pack was sealed that did not tell of it.
    fn note_untold(&self) {
        self.untold.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
