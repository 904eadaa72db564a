//! The API boundary between files and packs.

use crate::deltas::FrameSink;
use crate::store::{Batch, StoreError};
use bytes::Bytes;
use cessfs_crypto::{ChunkId, PackSeq};
use futures::future::BoxFuture;
use std::collections::HashSet;
use std::time::Duration;

/// How far a chunk has come. Only `Confirmed` chunks may be dropped from the cache (I1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Standing {
    /// Never submitted, or forgotten by a crash before its pack was sealed: submit it (again).
    Unknown,
    /// In the open pack: not yet durable outside the caller's own copy.
    Open,
    /// In a sealed pack that rests on this disk.
    Sealed,
    /// The chain holds the pack at a finalized block.
    Stored,
    /// Read back from all twelve miners.
    Confirmed,
}

/// Why a pack is being sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CutCause {
    /// It is full: leave files that are still being written for a later delta.
    Full,
    /// Its oldest content reached the age deadline, or somebody waits for the network: carry every file.
    Forced,
    /// The pack is a checkpoint: carry everything there is, changed or not, so that recovery may start here.
    Checkpoint,
}

/// Why a chunk could not be had.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Fewer than four good fragments answered; asking again later may help.
    #[error("chunk cannot be read from the network: {0}")]
    Unavailable(String),
    /// No pack is known to hold it.
    #[error("chunk is in no known pack")]
    Unknown,
    /// The local store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where chunks go and come from. Knows no file.
pub trait ChunkStore: Send + Sync + 'static {
    /// Hands a chunk's plaintext (1..=1 MiB) to the open pack. Idempotent by id: known chunks (any standing above `Unknown`)
    /// cost nothing. Blocks while the backlog of unsent bytes is at its bound; fails with `StoreError::Full` when the
    /// staging disk is full.
    fn submit(&self, id: ChunkId, plaintext: &[u8]) -> Result<(), StoreError>;
    /// The plaintext of a chunk, from staging or from the network, verified. Single-flight per chunk.
    fn fetch(&self, id: ChunkId) -> BoxFuture<'static, Result<Bytes, FetchError>>;
    /// The plaintext of a chunk that was fetched lately, if it is still in memory. Waits for nothing.
    fn at_hand(&self, _id: ChunkId) -> Option<Bytes> {
        None
    }
    /// A hint that these chunks will be wanted soon. How many of them, from the first one on, are here or on their way now:
    /// when busy not all, and the rest is to be asked for again.
    fn prefetch(&self, ids: &[ChunkId]) -> usize;
    /// How far the chunk has come, at this instant. `Unknown` too while its pack is about to be deleted: who still needs the
    /// chunk submits it again.
    fn standing(&self, id: ChunkId) -> Standing;
    /// Whether some sealed pack, however it stands, may still give the chunk.
    fn is_held(&self, id: ChunkId) -> bool {
        self.standing(id) > Standing::Open
    }
    /// Metadata changed: an aged pack must be sealed even if no chunk comes.
    fn note_change(&self);
    /// Asked before a piece of work that nobody waits for: how long to step aside for those who use the mount before asking again;
    /// `None`: go on.
    fn step_aside(&self) -> Option<Duration> {
        None
    }
    /// Bytes submitted that no miner confirmed yet, and the bound.
    fn backlog(&self) -> Backlog;
    /// What the network still takes, as far as it was heard.
    fn network_room(&self) -> NetworkRoom {
        NetworkRoom::default()
    }
    /// Seals the open pack with whatever delta is pending, and returns when it is durable on this disk. Blocks on the disk;
    /// never on the network.
    fn seal(&self) -> Result<(), StoreError>;
    /// Hands over the delta frames of all packs that make the tree as of pack `seq`, oldest first; the first may be a
    /// checkpoint's. From this disk where the packs still are there, from miners otherwise.
    fn replay(&self, seq: PackSeq, sink: FrameSink) -> BoxFuture<'static, Result<(), FetchError>>;
    /// Hands over the delta frames of the packs that are sealed and not known to be on the network, oldest first.
    fn replay_unsent(&self, sink: FrameSink) -> BoxFuture<'static, Result<(), FetchError>>;
    /// The last pack that this history and that of the machine which took the volume over both have: whatever changed since
    /// then is in no tree that anybody else will see, sent or not. `None`: nobody took it over by a recovery.
    ///
    /// # Errors
    /// It is not known yet, and the network does not tell.
    fn parted_at(&self) -> BoxFuture<'static, Result<Option<PackSeq>, FetchError>>;
    /// Another machine has taken the volume over: nothing that is changed here will ever be sent.
    fn is_fenced(&self) -> bool;
    /// Seals the open pack (with whatever delta is pending) and resolves when every pack sealed so far is Confirmed.
    /// Where the chain is known to have dropped one that was, what this machine has of it is waited for in others; what it has
    /// not is not. Never fails by itself while the network is away: it waits.
    ///
    /// # Errors
    /// The local journal failed; or a pack was dropped that nobody sends again unasked.
    fn settle(&self) -> BoxFuture<'static, Result<(), StoreError>>;
}

/// Unsent bytes and their bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Bytes submitted and not yet Confirmed.
    pub unsent_bytes: u64,
    /// Where `submit` starts to block.
    pub bound_bytes: u64,
}

/// Room on the network, in bytes of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkRoom {
    /// What the territory can hold and what of that is free, bytes on their way counted as there already; `None`: it was not
    /// heard yet.
    pub territory: Option<TerritoryRoom>,
    /// A pack waits because the territory is full.
    pub is_full: bool,
}

/// Bytes of content that a territory can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerritoryRoom {
    /// In all.
    pub total_bytes: u64,
    /// Of these, how many it does not hold.
    pub free_bytes: u64,
}

/// Takes a chunk's plaintext; may block.
pub type ChunkSink<'a> = dyn FnMut(ChunkId, &[u8]) -> Result<(), StoreError> + 'a;

/// Metadata that must travel with the chunks. Implemented by vfs; sync's only upcall.
///
/// Order of calls for pack N: `cut(N)`, then either `sealed(N)` (its batch is committed atomically with the pack's own
/// record, after the body is durable on disk) or `abandoned(N)`.
pub trait DeltaSource: Send + Sync + 'static {
    /// Writes the metadata changed since the last sealed cut, as frames of at most 1 MiB, into `sink`. Names only chunks in
    /// packs `<= seq` (I3): chunks with standing `Open` at this moment are in pack `seq`. For a checkpoint: all metadata there
    /// is; it counts as having carried the changes too.
    fn cut(
        &self,
        seq: PackSeq,
        cause: CutCause,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;
    /// The pack is durable on disk: turns the chunks it carries clean, clears the change marks of the cut.
    fn sealed(&self, seq: PackSeq, batch: &mut Batch);
    /// The pack could not be sealed: what the cut took is pending again.
    fn abandoned(&self, seq: PackSeq);
    /// Age of the oldest change not yet in a sealed delta, and a rough size in bytes of what is pending.
    fn pending(&self) -> Option<(Duration, u64)>;
    /// The newest pack that a snapshot needs; `None`: no snapshot. Packs up to it are never deleted, and what of them is
    /// rewritten is rewritten whole.
    fn pinned(&self) -> Option<PackSeq> {
        None
    }
    /// Visits the id of every chunk that any file names at one instant during the call, and maybe others; the same one more than
    /// once. `false`: it does not know, and nothing may be deleted. Never called while a cut is being written.
    fn live(&self, visit: &mut dyn FnMut(ChunkId)) -> Result<bool, StoreError> {
        let _ = visit;
        Ok(false)
    }
    /// Hands over the plaintext of those wanted chunks that this machine has itself, verified. `give` may block.
    fn cached(&self, wanted: &dyn Fn(ChunkId) -> bool, give: &mut ChunkSink<'_>) -> Result<(), StoreError> {
        let _ = (wanted, give);
        Ok(())
    }
    /// These chunks, and no others, cannot be had any more: tell whom it concerns. Told again whenever the set changes.
    fn lost(&self, chunks: &HashSet<ChunkId>) -> Result<(), StoreError> {
        let _ = chunks;
        Ok(())
    }
}
