//! The local metadata store: one ordered map of records, changed by atomic batches.
//!
//! vfs and sync share one store so that one batch is one transaction over both. The first byte of a key is its owner:
//! upper-case letters belong to sync (`P` packs, `K` chunk locations, `S` sync state), lower-case ones to vfs.

mod journal;
mod mark;
mod mem;
mod redb;
mod sled;

pub use self::journal::{Journal, LogSettings, Sealer};
pub use self::mem::MemStore;
pub use self::redb::RedbBackend;
pub use self::sled::SledBackend;

use cessfs_crypto::PackSeq;
use std::sync::Arc;

/// An atomic set of changes. Later operations on the same key win.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Key and new value; `None` deletes.
    pub ops: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }
    /// Sets a record.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.ops.push((key.into(), Some(value.into())));
    }
    /// Removes a record; removing what isn't there is no error.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.ops.push((key.into(), None));
    }
    /// Changes nothing.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
    /// Adds the changes of `other` after these.
    pub fn append(&mut self, other: Batch) {
        self.ops.extend(other.ops);
    }
}

/// What can go wrong with the local store.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk refused. After it the store takes no further change (`Poisoned`).
    #[error("the local journal cannot be written: {0}")]
    Io(Arc<std::io::Error>),
    /// The disk is full. Where the journal was refused room the store takes no further change; it says so with this, too.
    #[error("no space left on the disk that the journal and the packs lie on")]
    Full,
    /// A record does not read back as what was written.
    #[error("the local journal is damaged: {0}")]
    Corrupt(String),
    /// An earlier change failed; what is in memory may be ahead of the disk.
    #[error("the local journal failed earlier and takes no more changes")]
    Poisoned,
    /// The network was waited for, and has lost this pack; with repair switched off nobody sends it again.
    #[error("pack {} was on the network and is not there any more, and repair is switched off", .0.0)]
    Dropped(PackSeq),
}

/// One record of a scan.
pub type Record = (Vec<u8>, Vec<u8>);

/// An ordered map of records with atomic batches and a durability barrier.
///
/// Promises: a committed batch is visible to every later read; after a crash the store holds an atomic prefix of the
/// committed batches; everything committed before a [`barrier`](MetaStore::barrier) that returned `Ok` survives a power cut.
pub trait MetaStore: Send + Sync + 'static {
    /// The value of a record.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Records with keys `>= from` that start with `prefix`, in key order, at most `limit`.
    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Record>, StoreError>;
    /// Applies a batch: atomic, ordered after every batch committed before. Returns before it is on disk; blocks only while
    /// the write-behind queue is at its bound.
    fn commit(&self, batch: Batch) -> Result<(), StoreError>;
    /// Returns when everything committed before the call would survive a power cut (F11). Concurrent callers share one.
    fn barrier(&self) -> Result<(), StoreError>;
    /// Returns when everything committed before the call outlives this process, however it ends; says nothing of the power. Waits
    /// for no disk. A store for which that costs a barrier does nothing.
    fn put_down(&self) -> Result<(), StoreError> {
        Ok(())
    }
    /// Whether there is room for changes that do not make room. To be asked before them; deletions need not.
    ///
    /// # Errors
    /// `Full` while the disk has only what was set aside for deletions.
    fn admit(&self) -> Result<(), StoreError> {
        Ok(())
    }
    /// Begins a barrier without waiting for it: what the caller does before [`end_barrier`](MetaStore::end_barrier) goes on
    /// beside it. A store that cannot does everything at the end.
    fn begin_barrier(&self) -> BarrierBegun {
        BarrierBegun(None)
    }
    /// Returns when everything committed before the beginning would survive a power cut.
    fn end_barrier(&self, begun: BarrierBegun) -> Result<(), StoreError> {
        let BarrierBegun(_) = begun;
        self.barrier()
    }
}

/// A barrier on its way.
#[derive(Debug)]
#[must_use = "nothing is promised before its end"]
pub struct BarrierBegun(Option<u64>);

/// An ordered map on disk that a [`Journal`] writes to: plain, blocking, from one writer thread.
pub trait Backend: Send + Sync + 'static {
    /// The value of a record.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// As [`MetaStore::scan`].
    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Record>, StoreError>;
    /// Applies a batch atomically, after all earlier ones; keys are distinct. Need not be durable on return.
    fn apply(&self, batch: Batch) -> Result<(), StoreError>;
    /// Everything applied before survives a power cut once this returns.
    fn flush(&self) -> Result<(), StoreError>;
    /// Both; for backends that do them better together.
    fn apply_and_flush(&self, batch: Batch) -> Result<(), StoreError> {
        self.apply(batch)?;
        self.flush()
    }
    /// Bytes on disk.
    fn size_bytes(&self) -> Result<u64, StoreError>;
}

/// What the disk said, as the store says it.
fn from_io(e: std::io::Error) -> StoreError {
    // A database may tell the kind of an error only.
    match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::Io(Arc::new(e)),
    }
}

#[cfg(test)]
mod tests;
