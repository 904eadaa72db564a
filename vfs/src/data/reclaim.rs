//! Space on the cache disk, given back in the one safe order: first the journal says that the bytes are not needed, then
//! that is made durable, then the hole is punched or the file removed.

use super::{CHUNK, Shared};
use crate::error::VfsError;
use crate::limits::CHUNK_BLOCKS;
use crate::records::{self, Extent};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::ops::Range;

/// What is to be given back, each kind on its own, and in any order.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Inodes that are no more: their extents and backing files.
    files: Vec<u64>,
    /// Inodes whose content is a record: their backing files.
    outgrown: Vec<u64>,
    /// By inode, whatever these chunks do not need.
    chunks: BTreeMap<u64, Vec<Range<u64>>>,
}

impl Waiting {
    /// Queues a file that is no more.
    pub(super) fn file(&mut self, ino: u64) {
        self.chunks.remove(&ino);
        self.files.push(ino);
    }

    /// Queues the backing file of an inode whose content is a record.
    pub(super) fn outgrown(&mut self, ino: u64) {
        self.outgrown.push(ino);
    }

    fn chunk(&mut self, ino: u64, chunk: u64) {
        let ranges = self.chunks.entry(ino).or_default();
        match ranges.last_mut() {
            Some(last) if last.end == chunk => last.end += 1,
            _ => ranges.push(chunk..chunk + 1),
        }
    }

    fn has_chunk(&self, ino: u64, chunk: u64) -> bool {
        self.chunks
            .get(&ino)
            .is_some_and(|ranges| ranges.iter().any(|range| range.contains(&chunk)))
    }

    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.outgrown.is_empty() && self.chunks.is_empty()
    }

    fn inodes(&self) -> impl Iterator<Item = u64> {
        let whole = self.files.iter().chain(&self.outgrown);
        whole.chain(self.chunks.keys()).copied()
    }

    /// Takes what could not be given back in again.
    fn put_back(&mut self, waiting: Waiting) {
        self.files.extend(waiting.files);
        self.outgrown.extend(waiting.outgrown);
        for (ino, ranges) in waiting.chunks {
            self.chunks.entry(ino).or_default().extend(ranges);
        }
    }
}

/// What waits to be given back.
#[derive(Default)]
pub(super) struct ReclaimQueue {
    waiting: Mutex<Waiting>,
    /// Held by whoever gives back what there was: who asks next returns when that is done, too.
    turn: Mutex<()>,
}

impl ReclaimQueue {
    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    /// Something waits, or is being given back.
    pub(super) fn is_busy(&self) -> bool {
        !self.waiting.lock().is_empty() || self.turn.is_locked()
    }
}

impl Shared {
    /// Queues chunks, ascending, for their space to be given back.
    pub(crate) fn give_back_chunks(&self, ino: u64, chunks: &[u64]) {
        let mut waiting = self.reclaim.lock();
        for &chunk in chunks {
            waiting.chunk(ino, chunk);
        }
    }

    /// Queues the chunks of a living file of which the disk has more than the store says: a crash came before that was given back, or
    /// undid it. What is not in the store yet is taken for too much, and found to be needed when its turn comes.
    pub(crate) fn give_back_leftovers(&self, ino: u64) -> Result<(), VfsError> {
        let mut from = 0;
        while let Some((chunk, mut left)) = self.backing.next_held(ino, from)? {
            let extent = match self.core.store.get(&records::extent_key(ino, chunk))? {
                Some(value) => Extent::decode(&value)?,
                None => Extent::default(),
            };
            let needed = extent.local().blocks;
            left.remove_all(&needed);
            if needed.is_empty() || !left.is_empty() {
                self.give_back_chunks(ino, &[chunk]);
            }
            from = chunk + 1;
        }
        Ok(())
    }

    /// Queues the backing file of an inode whose content is a record.
    pub(crate) fn outgrown(&self, ino: u64) {
        self.reclaim.lock().outgrown(ino);
    }

    /// Gives back everything queued so far. The caller holds no lock of an inode.
    pub(crate) fn reclaim(&self) -> Result<(), VfsError> {
        let _turn = self.reclaim.turn.lock();
        let waiting = std::mem::take(&mut *self.reclaim.lock());
        if waiting.is_empty() {
            return Ok(());
        }
        self.await_journal(&waiting);
        if let Err(e) = self.core.store.barrier() {
            self.reclaim.lock().put_back(waiting);
            return Err(e.into());
        }
        self.give_back(waiting)
    }

    /// Gives back what can be; the rest waits again, and the first reason why is returned.
    fn give_back(&self, waiting: Waiting) -> Result<(), VfsError> {
        let (mut left, mut failed) = (Waiting::default(), Ok(()));
        let mut is_done = |done: Result<(), VfsError>| {
            let ok = done.is_ok();
            failed = std::mem::replace(&mut failed, Ok(())).and(done);
            ok
        };
        for (ino, ranges) in waiting.chunks {
            for chunk in ranges.into_iter().flatten() {
                if !is_done(self.punch_unneeded(ino, chunk)) {
                    left.chunk(ino, chunk);
                }
            }
        }
        for ino in waiting.outgrown {
            // Until it is synced whatever the file grows to again is unsure. Rare: small files mostly are records from the start.
            let done = self.remove_outgrown(ino).and_then(|()| Ok(self.backing.sync(ino)?));
            if !is_done(done) {
                left.outgrown.push(ino);
            }
        }
        for ino in waiting.files {
            if !is_done(self.remove_file(ino)) {
                left.files.push(ino);
            }
        }
        self.reclaim.lock().put_back(left);
        failed
    }

    /// Waits until those who queued something have journaled it: they do both under the inode's lock.
    fn await_journal(&self, waiting: &Waiting) {
        for ino in waiting.inodes() {
            if let Some(inode) = self.core.inodes.peek(ino) {
                drop(inode.state.read());
            }
        }
    }

    fn remove_file(&self, ino: u64) -> Result<(), VfsError> {
        self.delete_content(ino)?;
        Ok(self.backing.remove(ino)?)
    }

    /// Removes the backing file of a file that is inline, unless it has outgrown its record meanwhile.
    fn remove_outgrown(&self, ino: u64) -> Result<(), VfsError> {
        let inode = match self.core.inodes.get(&self.core, ino) {
            Ok(inode) => inode,
            Err(VfsError::Stale) => return self.remove_later(ino),
            Err(e) => return Err(e),
        };
        let state = inode.state.write();
        if state.gone {
            return self.remove_later(ino);
        }
        if state.record.inline && state.data.pass.is_none() {
            self.backing.empty(ino)?;
        }
        Ok(())
    }

    /// Deleted while its backing file waited here, by who saw a record. In between it may have outgrown that: its deletion
    /// has to be durable first.
    fn remove_later(&self, ino: u64) -> Result<(), VfsError> {
        self.reclaim.lock().file(ino);
        Ok(())
    }

    /// Punches the blocks of a chunk that hold nothing the chunk needs, as it is now.
    fn punch_unneeded(&self, ino: u64, chunk: u64) -> Result<(), VfsError> {
        let inode = match self.core.inodes.get(&self.core, ino) {
            Ok(inode) => inode,
            // Deleted meanwhile: its file is queued to go as a whole.
            Err(VfsError::Stale) => return Ok(()),
            Err(e) => return Err(e),
        };
        let state = inode.state.write();
        if state.gone || state.data.pass.is_some() {
            return Ok(());
        }
        debug_assert!(chunk <= u64::MAX / CHUNK);
        // Cut again since the barrier: what is not needed now may be what the journal on the disk still names.
        if self.reclaim.lock().has_chunk(ino, chunk) {
            return Ok(());
        }
        let (extent, waits) = state.data.with_slot(&self.core, ino, chunk, |slot| {
            (slot.now, slot.unsynced.is_some() && slot.journaled.is_patched())
        })?;
        if waits {
            // Until the rest of it is durable the store says what was written over it, also where that was punched out since.
            self.give_back_chunks(ino, &[chunk]);
            return Ok(());
        }
        let local = extent.local();
        if local.blocks.is_empty() {
            return Ok(self.backing.punch(ino, chunk, 0..CHUNK_BLOCKS)?);
        }
        self.punch_holes(ino, chunk, &local)
    }

    fn punch_holes(&self, ino: u64, chunk: u64, extent: &Extent) -> Result<(), VfsError> {
        for (run, needed) in extent.blocks.runs(0..CHUNK_BLOCKS) {
            if !needed {
                self.backing.punch(ino, chunk, run)?;
            }
        }
        Ok(())
    }
}
