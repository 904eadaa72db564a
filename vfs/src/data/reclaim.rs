//! Space on the cache disk, given back in the one safe order: first the journal says that the bytes are not needed, then
//! that is made durable, then the hole is punched or the file removed.

use super::{CHUNK, Shared};
use crate::error::VfsError;
use crate::limits::CHUNK_BLOCKS;
use crate::records::Extent;
use parking_lot::{Mutex, MutexGuard};
use std::ops::Range;

/// Something to give back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reclaim {
    /// Whatever these chunks of an inode do not need.
    Chunks(u64, Range<u64>),
    /// Extents and backing file of an inode that is no more.
    File(u64),
    /// Backing file of an inode whose content is a record.
    Outgrown(u64),
}

/// What waits to be given back.
#[derive(Default)]
pub(super) struct ReclaimQueue {
    entries: Mutex<Vec<Reclaim>>,
    /// Held by whoever gives back what there was: who asks next returns when that is done, too.
    turn: Mutex<()>,
}

impl ReclaimQueue {
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Reclaim>> {
        self.entries.lock()
    }
}

impl Shared {
    /// Queues chunks, ascending, for their space to be given back.
    pub(crate) fn give_back_chunks(&self, ino: u64, chunks: &[u64]) {
        let mut queue = self.reclaim.lock();
        for &chunk in chunks {
            match queue.last_mut() {
                Some(Reclaim::Chunks(last_ino, range)) if *last_ino == ino && range.end == chunk => range.end += 1,
                _ => queue.push(Reclaim::Chunks(ino, chunk..chunk + 1)),
            }
        }
    }

    fn is_queued(&self, ino: u64, chunk: u64) -> bool {
        let queue = self.reclaim.lock();
        queue
            .iter()
            .any(|entry| matches!(entry, Reclaim::Chunks(other, chunks) if *other == ino && chunks.contains(&chunk)))
    }

    pub(super) fn give_back_file(&self, ino: u64) {
        let mut queue = self.reclaim.lock();
        queue.retain(|entry| !matches!(entry, Reclaim::Chunks(other, _) if *other == ino));
        queue.push(Reclaim::File(ino));
    }

    /// Gives back everything queued so far. The caller holds no lock of an inode.
    pub(crate) fn reclaim(&self) -> Result<(), VfsError> {
        let _turn = self.reclaim.turn.lock();
        let queue = std::mem::take(&mut *self.reclaim.lock());
        if queue.is_empty() {
            return Ok(());
        }
        self.await_journal(&queue);
        let done = self.core.store.barrier().map_err(VfsError::from).and_then(|()| {
            queue.iter().try_for_each(|entry| match entry {
                Reclaim::File(ino) => self.remove_file(*ino),
                Reclaim::Outgrown(ino) => {
                    self.remove_outgrown(*ino)?;
                    // Until then whatever the file grows to again is unsure. Rare: small files mostly are records from the start.
                    Ok(self.backing.sync(*ino)?)
                }
                Reclaim::Chunks(ino, chunks) => chunks.clone().try_for_each(|chunk| self.punch_unneeded(*ino, chunk)),
            })
        });
        if done.is_err() {
            self.reclaim.lock().extend(queue);
        }
        done
    }

    /// Waits until those who queued something have journaled it: they do both under the inode's lock.
    fn await_journal(&self, queue: &[Reclaim]) {
        for entry in queue {
            let (Reclaim::Chunks(ino, _) | Reclaim::File(ino) | Reclaim::Outgrown(ino)) = entry;
            if let Some(inode) = self.core.inodes.peek(*ino) {
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
            Err(VfsError::Stale) => return Ok(()),
            Err(e) => return Err(e),
        };
        let state = inode.state.write();
        if state.record.inline && state.data.pass.is_none() && !state.gone {
            self.backing.empty(ino)?;
        }
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
        if self.is_queued(ino, chunk) {
            return Ok(());
        }
        let extent = state.data.extent(&self.core, ino, chunk)?;
        if !extent.resident {
            return Ok(self.backing.punch(ino, chunk, 0..CHUNK_BLOCKS)?);
        }
        self.punch_holes(ino, chunk, &extent)
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
