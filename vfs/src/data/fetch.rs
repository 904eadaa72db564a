//! What has to come from the network before an operation can go on, and how it gets into the cache.

use super::piece::ChunkAt;
use super::{BLOCK, Shared};
use crate::backing::Prepared;
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::limits::{FETCH_ROUNDS_MAX, ROOM_POLL};
use crate::records::{BlockMap, Extent};
use bytes::Bytes;
use cessfs_crypto::ChunkId;
use cessfs_sync::FetchError;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Chunks fetched for one operation, by number.
pub(super) type Fetched = BTreeMap<u64, (ChunkId, Bytes)>;

/// A chunk that an operation needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) chunk: u64,
    pub(super) id: ChunkId,
    pub(super) len: u32,
}

/// How far an operation came with what there is.
pub(super) enum Attempt<T> {
    Done(T),
    /// It needs these chunks; nothing was changed.
    Fetch(Vec<Want>),
    /// It needs room in the cache; nothing was changed.
    Room,
}

impl Shared {
    /// Fetches chunks and checks that they are as long as their extents say.
    pub(super) async fn fetch(&self, wants: &[Want], into: &mut Fetched) -> Result<(), VfsError> {
        let fetches = wants.iter().map(|want| self.core.chunks.fetch(want.id));
        let answers = futures::future::try_join_all(fetches).await?;
        for (want, bytes) in wants.iter().zip(answers) {
            if bytes.len() != want.len as usize {
                let told = format!("it has {} bytes instead of {}", bytes.len(), want.len);
                return Err(FetchError::Unavailable(told).into());
            }
            into.insert(want.chunk, (want.id, bytes));
        }
        Ok(())
    }

    /// Does again what `attempt` says is missing something, until it is done: fetches, makes room. `offset` is for the
    /// message if it cannot be.
    pub(super) async fn until_done<T>(
        &self,
        inode: &Inode,
        offset: u64,
        mut attempt: Attempt<T>,
        mut again: impl FnMut(&Fetched) -> Result<Attempt<T>, VfsError>,
    ) -> Result<T, VfsError> {
        let mut fetched = Fetched::new();
        for _ in 0..FETCH_ROUNDS_MAX {
            match attempt {
                Attempt::Done(done) => return Ok(done),
                Attempt::Room => self.await_room().await?,
                Attempt::Fetch(wants) => {
                    if let Err(e) = self.fetch(&wants, &mut fetched).await {
                        self.errors.add(format!("inode {} at byte {offset}: {e}", inode.ino));
                        return Err(e);
                    }
                }
            }
            attempt = again(&fetched)?;
        }
        match attempt {
            Attempt::Done(done) => Ok(done),
            _ => Err(FetchError::Unavailable("the content keeps changing while it is fetched".into()).into()),
        }
    }

    /// Puts fetched chunks that the operation did not put there itself into the cache. Failing to is no error: the bytes were
    /// delivered, the next reader fetches again. Of several readers of a chunk one does it. On a volume that must not change nobody does:
    /// no journal would know of it.
    pub(super) fn fill(&self, inode: &Arc<Inode>, fetched: &Fetched) {
        let bytes = fetched.values().map(|(_, bytes)| bytes.len() as u64).sum();
        if self.core.config.read_only || !self.has_room() || !self.disk_takes(bytes) {
            return;
        }
        let mut must_sync = false;
        // Held until what they did is durable where it has to be.
        let mut fillers = Vec::with_capacity(fetched.len());
        for (&chunk, (id, bytes)) in fetched {
            let at = ChunkAt { ino: inode.ino, chunk };
            let Some(filler) = self.filling.begin(at.ino, chunk) else {
                continue;
            };
            fillers.push(filler);
            match self.fill_ahead(inode, at, *id, bytes) {
                Ok(needs) => must_sync |= needs,
                Err(e) => {
                    self.errors
                        .add(format!("inode {}: a fetched chunk cannot be cached: {e}", inode.ino));
                    return;
                }
            }
        }
        if must_sync && let Err(e) = self.persist(inode) {
            self.errors.add(format!(
                "inode {}: fetched chunks cannot be made durable: {e}",
                inode.ino
            ));
        }
    }

    /// Fills a chunk, and seals it before the inode is locked. Whether the inode has to be synced then.
    fn fill_ahead(&self, inode: &Arc<Inode>, at: ChunkAt, id: ChunkId, bytes: &Bytes) -> Result<bool, VfsError> {
        let extent = inode.state.read().data.extent(&self.core, at.ino, at.chunk)?;
        if !awaits(&extent, id) {
            return Ok(false);
        }
        let is_whole = !extent.is_patched()
            && bytes.len() == extent.valid as usize
            && extent.blocks.count() == bytes.len().div_ceil(BLOCK) as u64;
        let ready = match is_whole {
            true => self.prepare_range(at, &(0..bytes.len()), bytes),
            false => None,
        };
        let _guard = self.core.marks.enter_unseen();
        let mut state = inode.state.write();
        self.fill_chunk(inode, &mut state, at.chunk, id, bytes, ready)?;
        Ok(state.data.must_sync())
    }

    /// Makes a chunk resident of which the network has all or a part, unless it is no longer the chunk that was fetched. `ready`:
    /// all of it, prepared. The caller holds the mutation guard.
    pub(crate) fn fill_chunk(
        &self,
        inode: &Arc<Inode>,
        state: &mut InodeState,
        chunk: u64,
        id: ChunkId,
        bytes: &Bytes,
        mut ready: Option<Prepared>,
    ) -> Result<(), VfsError> {
        let at = ChunkAt { ino: inode.ino, chunk };
        let extent = state.data.extent(&self.core, inode.ino, chunk)?;
        if state.gone || !awaits(&extent, id) {
            return Ok(());
        }
        if extent.is_patched() {
            // The store shall know what was written over it: whoever is making that durable just now counts on it, and from here on
            // the store is not told of the chunk before all of it is.
            self.journal_locked(inode.ino, state, None)?;
        }
        let beneath = extent.beneath();
        let valid = bytes.len().min(beneath.valid as usize);
        for (run, there) in beneath.blocks.runs(0..crate::limits::CHUNK_BLOCKS) {
            if !there {
                continue;
            }
            let (start, end) = (run.start * BLOCK, run.end * BLOCK);
            let ready = ready.take().filter(|_| (start, end) == (0, bytes.len()));
            match ready {
                Some(ready) if end <= valid => self.backing.write_prepared(at.block(0), bytes, ready)?,
                _ if end <= valid => self.backing.write(at.block(run.start), &bytes[start..end])?,
                _ => {
                    let mut padded = vec![0; end - start];
                    let there = valid.saturating_sub(start);
                    padded[..there].copy_from_slice(&bytes[start..start + there]);
                    self.backing.write(at.block(run.start), &padded)?;
                }
            }
        }
        let change = state.data.next_change();
        state.data.with_slot(&self.core, inode.ino, chunk, |slot| {
            slot.now.resident = true;
            slot.now.over = BlockMap::default();
            slot.unsynced = Some(change);
        })?;
        self.keep_pending(inode);
        Ok(())
    }

    /// Waits until the cache may grow.
    pub(super) async fn await_room(&self) -> Result<(), VfsError> {
        let mut waited = Duration::ZERO;
        while !self.has_room() {
            if waited >= self.core.config.room_wait {
                return Err(VfsError::NoSpace("cache is full of unsent data"));
            }
            self.make_room()?;
            if self.has_room() {
                break;
            }
            self.core.clock.sleep(ROOM_POLL).await;
            waited += ROOM_POLL;
        }
        Ok(())
    }
}

/// Whether a chunk is still the one that was fetched, and not all of it here.
fn awaits(extent: &Extent, id: ChunkId) -> bool {
    let same = extent.stored.is_some_and(|(stored, _)| stored == id);
    same && !extent.resident
}
