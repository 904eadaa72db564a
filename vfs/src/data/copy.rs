//! Copies made here: no byte of them goes through the caller.
//!
//! | from | to |
//! |---|---|
//! | a hole | a hole |
//! | a whole chunk that the network has, to the start of a chunk that holds nothing else | the same chunk id: no new byte for the network, and none fetched if the cache has it not |
//! | anything else | the bytes, read and written here |
//!
//! What is copied by its id and is resident is copied within the cache, too (the disk may share its blocks), so that the
//! copy reads as fast as what it was copied from.

use super::piece::ChunkAt;
use super::space::SpaceCall;
use super::{BLOCK, CHUNK, Shared};
use crate::Later;
use crate::error::VfsError;
use crate::inode::{Inode, InodeState, lock_many};
use crate::limits::{CHUNK_BLOCKS, COPY_BYTES_MAX, FILE_BYTES_MAX};
use crate::records::Extent;
use crate::request::SpaceChange;
use std::sync::Arc;

/// One step of a copy: bytes that lie in one chunk on either side.
struct Step<'a> {
    from: &'a Arc<Inode>,
    from_offset: u64,
    to: &'a Arc<Inode>,
    to_offset: u64,
    /// 1..=1 MiB.
    len: u64,
}

impl Shared {
    /// Copies `len` bytes, at most [`COPY_BYTES_MAX`]; tells how many. Bytes beyond the end of `from` are zeros.
    pub(super) fn copy(
        self: Arc<Self>,
        from: &Arc<Inode>,
        from_offset: u64,
        to: &Arc<Inode>,
        to_offset: u64,
        len: u64,
    ) -> Result<Later<u64>, VfsError> {
        let overlap = from_offset < to_offset.saturating_add(len) && to_offset < from_offset.saturating_add(len);
        if from.ino == to.ino && overlap {
            return Err(VfsError::Invalid("a range cannot be copied onto itself"));
        }
        for offset in [from_offset, to_offset] {
            if offset.checked_add(len).is_none_or(|end| end > FILE_BYTES_MAX) {
                return Err(VfsError::TooLarge);
            }
        }
        let len = len.min(COPY_BYTES_MAX);
        let (from, to) = (from.clone(), to.clone());
        Ok(Later::Wait(Box::pin(async move {
            let mut done = 0;
            while done < len {
                let (from_offset, to_offset) = (from_offset + done, to_offset + done);
                let step = Step {
                    from: &from,
                    from_offset,
                    to: &to,
                    to_offset,
                    len: (len - done)
                        .min(CHUNK - from_offset % CHUNK)
                        .min(CHUNK - to_offset % CHUNK),
                };
                match self.copy_step(&step).await {
                    Ok(copied) => done += copied,
                    Err(e) if done == 0 => return Err(e),
                    Err(_) => break,
                }
            }
            Ok(done)
        })))
    }

    async fn copy_step(self: &Arc<Self>, step: &Step<'_>) -> Result<u64, VfsError> {
        if let Some(copied) = self.copy_passing((step.from, step.from_offset), (step.to, step.to_offset), step.len)? {
            return Ok(copied);
        }
        if self.share_chunk(step)? {
            return Ok(step.len);
        }
        let (is_hole, len) = self.run_at(step)?;
        let len = len.min(step.len);
        if is_hole {
            let call = SpaceCall {
                what: SpaceChange::Punch,
                range: step.to_offset..step.to_offset + len,
                grows: true,
                free_blocks: u64::MAX,
            };
            self.clone().change_space(step.to, call)?.settled().await?;
            return Ok(len);
        }
        let mut bytes = self
            .clone()
            .read(step.from, step.from_offset, len as u32)?
            .settled()
            .await?
            .keep();
        bytes.resize(len as usize, 0);
        let written = self.clone().write(step.to, step.to_offset, &bytes)?.settled().await?;
        Ok(u64::from(written))
    }

    /// Whether there is a hole at the step's start, and how many bytes from there on are alike.
    fn run_at(&self, step: &Step<'_>) -> Result<(bool, u64), VfsError> {
        let state = step.from.state.read();
        state.check_alive()?;
        if let Some(pass) = &state.data.pass {
            return Shared::run_passing(&pass.file, step.from_offset, step.len);
        }
        let left = state.record.size.saturating_sub(step.from_offset);
        if left == 0 {
            return Ok((true, step.len));
        }
        if state.record.inline {
            return Ok((state.record.blocks == 0, left));
        }
        let chunk = step.from_offset / CHUNK;
        let extent = state.data.extent(&self.core, step.from.ino, chunk)?;
        let within = step.from_offset % CHUNK;
        let there = extent.blocks.contains(within as usize / BLOCK);
        let end = extent
            .blocks
            .first(within as usize / BLOCK, !there)
            .unwrap_or(CHUNK_BLOCKS);
        Ok((!there, (end * BLOCK) as u64 - within))
    }

    /// Gives `to` the chunk by its id, if that is all there is to copy; false if not.
    fn share_chunk(&self, step: &Step<'_>) -> Result<bool, VfsError> {
        if !step.from_offset.is_multiple_of(CHUNK) || !step.to_offset.is_multiple_of(CHUNK) {
            return Ok(false);
        }
        let guard = self.core.marks.enter();
        let mut locked = lock_many([step.from, step.to]);
        let (from, to) = (locked.state(step.from.ino), locked.state(step.to.ino));
        from.check_alive()?;
        to.check_alive()?;
        // Who passes is not known to be what its records say.
        if from.data.pass.is_some() || to.data.pass.is_some() {
            return Ok(false);
        }
        if from.record.inline || to.record.inline && to.record.size > 0 {
            return Ok(false);
        }
        let (from_chunk, to_chunk) = (step.from_offset / CHUNK, step.to_offset / CHUNK);
        let source = from.data.extent(&self.core, step.from.ino, from_chunk)?;
        let target = to.data.extent(&self.core, step.to.ino, to_chunk)?;
        let whole = step.len >= u64::from(source.valid.max(target.valid));
        if source.stored.is_none() || source.dirty || !whole {
            return Ok(false);
        }
        let mut shared = Extent {
            resident: false,
            reserved: target.reserved,
            ..source
        };
        shared.reserved.remove_all(&shared.blocks);
        let (to, state) = locked.inode_mut(step.to.ino);
        self.set_shared(to, state, step, &shared)?;
        if source.resident && self.has_room() && self.disk_takes(CHUNK) {
            let at = ChunkAt {
                ino: step.from.ino,
                chunk: from_chunk,
            };
            self.fill_from(to, locked.state_mut(step.to.ino), to_chunk, at, &source);
        }
        let must_sync = locked.state(step.to.ino).data.must_sync();
        drop(locked);
        drop(guard);
        if must_sync {
            self.persist(step.to)?;
        }
        Ok(true)
    }

    /// Journals that the chunk is what the network has under that id; whatever was there is given back.
    fn set_shared(
        &self,
        to: &Arc<Inode>,
        state: &mut InodeState,
        step: &Step<'_>,
        shared: &Extent,
    ) -> Result<(), VfsError> {
        if state.record.inline {
            self.spill(to.ino, state)?;
        }
        let chunk = step.to_offset / CHUNK;
        let before = state.data.extent(&self.core, to.ino, chunk)?;
        let growth = shared.allocated().saturating_sub(before.allocated());
        self.core.quotas.admit_growth(to, &state.record, growth)?;
        self.set_extent(to.ino, state, chunk, shared)?;
        state.data.will_tell();
        state.record.size = state.record.size.max(step.to_offset + step.len);
        let now = self.core.now();
        state.record.mtime = now;
        state.record.ctime = now;
        state.data.set_ahead(self.core.clock.monotonic(), 0);
        self.keep_pending(to);
        self.journal_locked(to.ino, state, None)?;
        self.give_back_chunks(to.ino, &[chunk]);
        self.touch_recent(to.ino);
        Ok(())
    }

    /// Makes a shared chunk resident from the chunk it was copied from. Failing to is no error: the network has it.
    fn fill_from(&self, to: &Arc<Inode>, state: &mut InodeState, chunk: u64, from: ChunkAt, source: &Extent) {
        let target = ChunkAt { ino: to.ino, chunk };
        let copied = source
            .blocks
            .runs(0..CHUNK_BLOCKS)
            .into_iter()
            .filter(|(_, there)| *there)
            .try_for_each(|(run, _)| -> Result<(), VfsError> {
                if self
                    .backing
                    .copy(from.block(run.start), target.block(run.start), run.len())?
                {
                    return Ok(());
                }
                let mut bytes = vec![0; run.len() * BLOCK];
                self.backing.read(from.block(run.start), &mut bytes)?;
                Ok(self.backing.write(target.block(run.start), &bytes)?)
            });
        let change = state.data.next_change();
        let filled = copied.and_then(|()| {
            state.data.with_slot(&self.core, to.ino, chunk, |slot| {
                slot.now.resident = true;
                slot.unsynced = Some(change);
            })
        });
        match filled {
            Ok(()) => self.keep_pending(to),
            Err(e) => tracing::debug!(ino = to.ino, chunk, "the copy of a chunk is not cached: {e}"),
        }
    }
}
