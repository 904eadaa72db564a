//! Chunks of which a part is here, written over content that is not: the rest comes before they are written back.
//!
//! Writers do not wait for it; who writes back does not, either: a chunk that waits for the network keeps no other from being
//! sent. It is asked for, and taken out of the queue again a little later. A chunk that is written over as a whole needs nothing.

use super::DirtyQueue;
use crate::data::Shared;
use crate::error::VfsError;
use crate::inode::Inode;
use crate::limits::{COMPLETION_POLL, COMPLETIONS_MAX};
use crate::records::Extent;
use bytes::Bytes;
use cessfs_crypto::ChunkId;
use cessfs_sync::FetchError;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

type Fetch = BoxFuture<'static, Result<Bytes, FetchError>>;

/// What is on its way for chunks that are to be written back: [`COMPLETIONS_MAX`] of up to 1 MiB.
#[derive(Default)]
pub(crate) struct Completions(Mutex<BTreeMap<(u64, u64), (ChunkId, Fetch)>>);

impl Completions {
    /// The chunk's bytes if they have come; `None` if they are awaited. Begins to fetch them if there is room, for others than
    /// those that nobody writes back any more.
    fn poll(
        &self,
        at: (u64, u64),
        id: ChunkId,
        dirty: &Mutex<DirtyQueue>,
        fetch: impl FnOnce() -> Fetch,
    ) -> Option<Result<Bytes, FetchError>> {
        let mut fetches = self.0.lock();
        fetches.retain(|of, (awaited, _)| {
            if *of == at {
                *awaited == id
            } else {
                dirty.lock().has(of)
            }
        });
        if !fetches.contains_key(&at) && fetches.len() >= COMPLETIONS_MAX {
            return None;
        }
        let (_, fetch) = fetches.entry(at).or_insert_with(|| (id, fetch()));
        let answer = fetch.now_or_never()?;
        fetches.remove(&at);
        Some(answer)
    }

    /// Nothing is missing of the chunk, whoever brought it: others can be fetched in its place.
    fn forget(&self, at: (u64, u64)) {
        self.0.lock().remove(&at);
    }
}

impl Shared {
    /// Makes the chunk complete if what is missing is here, or has come; asks for it otherwise. How long to leave it alone if it is
    /// not complete yet.
    ///
    /// # Errors
    /// The network does not give it, or it cannot be put into the cache.
    pub(super) fn complete_soon(&self, inode: &Arc<Inode>, chunk: u64) -> Result<Option<Duration>, VfsError> {
        let extent = inode.state.read().data.extent(&self.core, inode.ino, chunk)?;
        let at = (inode.ino, chunk);
        let Some((id, len)) = extent.stored.filter(|_| extent.is_patched()) else {
            self.completions.forget(at);
            return Ok(None);
        };
        if extent.beneath().blocks.is_empty() {
            self.completions.forget(at);
            self.put_beneath(inode, chunk, id, &Bytes::new())?;
            return Ok(None);
        }
        match self
            .completions
            .poll(at, id, &self.dirty, || self.core.chunks.fetch(id))
        {
            None => Ok(Some(COMPLETION_POLL)),
            Some(answer) => {
                self.put_beneath(inode, chunk, id, &checked(answer?, len)?)?;
                Ok(None)
            }
        }
    }

    /// Puts what the network has of a chunk beneath what was written over it.
    fn put_beneath(&self, inode: &Arc<Inode>, chunk: u64, id: ChunkId, bytes: &Bytes) -> Result<(), VfsError> {
        let _guard = self.core.marks.enter_unseen();
        let mut state = inode.state.write();
        let extent = state.data.extent(&self.core, inode.ino, chunk)?;
        // Written meanwhile in a way that makes it need more than it did: another time.
        if !extent.is_patched() || (bytes.is_empty() && !extent.beneath().blocks.is_empty()) {
            return Ok(());
        }
        self.fill_chunk(inode, &mut state, chunk, id, bytes, None)
    }

    /// Fetches what is missing of every chunk that was written over in part before the call, and puts it there.
    ///
    /// # Errors
    /// The first of those that could not be completed; the others are.
    pub(crate) async fn complete_all(&self) -> Result<(), VfsError> {
        let all = self.dirty.lock().not_submitted();
        let each = futures::stream::iter(all).map(|(ino, chunk)| async move {
            let done = self.complete(ino, chunk).await;
            done.inspect_err(|e| {
                self.errors
                    .add(format!("inode {ino}: chunk {chunk} cannot be completed: {e}"))
            })
        });
        let outcomes = each.buffer_unordered(COMPLETIONS_MAX);
        outcomes.fold(Ok(()), |first, done| async { first.and(done) }).await
    }

    async fn complete(&self, ino: u64, chunk: u64) -> Result<(), VfsError> {
        let Some(inode) = self.if_there(ino)? else {
            return Ok(());
        };
        let missing = |extent: Extent| {
            let needs = extent.is_patched() && !extent.beneath().blocks.is_empty();
            extent.stored.filter(|_| needs)
        };
        let extent = inode.state.read().data.extent(&self.core, ino, chunk)?;
        match missing(extent) {
            Some((id, len)) => {
                let bytes = checked(self.core.chunks.fetch(id).await?, len)?;
                self.put_beneath(&inode, chunk, id, &bytes)
            }
            None => Ok(()),
        }
    }
}

/// What was fetched, if it is as long as it has to be.
fn checked(bytes: Bytes, len: u32) -> Result<Bytes, VfsError> {
    if bytes.len() != len as usize {
        let told = format!("it has {} bytes instead of {len}", bytes.len());
        return Err(FetchError::Unavailable(told).into());
    }
    Ok(bytes)
}
