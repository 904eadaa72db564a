//! Snapshots: the tree as it was, under a name.
//!
//! A snapshot is the number of a pack: what the deltas up to that pack make is the tree at the moment it was taken. Taking one
//! costs a pack and nothing per file. Its record travels in that very pack, so who has the pack has the snapshot.
//!
//! ```text
//! create: freeze ── hand over what is dirty ── seal: the cut carries the record ── thaw    (Vfs::create_snapshot)
//! look:   packs back to a checkpoint ── deltas ── a store of its own (shelf) ── a tree that is only read (tree)
//! ```
//!
//! This room holds what is known of snapshots, [`number`]s for their inodes, the trees on the [`shelf`], and how two trees
//! [`diff`]er. A snapshot's content is never copied: chunks are fetched by id as those of the live tree are. Refuses to
//! change anything in a snapshot.

pub mod diff;
pub(crate) mod number;
mod shelf;
mod tree;

pub use shelf::TreeStores;
pub(crate) use shelf::{Shelf, Wait};
pub use tree::Tree;

use crate::attr::Timestamp;
use crate::core::Core;
use crate::error::VfsError;
use crate::limits::SNAPSHOT_NUMBERS;
use crate::records::{self, RecordError, SnapshotRecord};
use cessfs_crypto::PackSeq;
use cessfs_sync::{Batch, MetaStore};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A snapshot, for whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number in inode numbers and keys. May be used again long after it was deleted.
    pub number: u64,
    /// The rest.
    pub record: SnapshotRecord,
}

/// One that the next cut shall be.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) taken: Timestamp,
}

/// What is known of the volume's snapshots.
#[derive(Default)]
pub(crate) struct Snapshots {
    inner: Mutex<Inner>,
    /// Held while one is taken: they are taken one after the other.
    pub(crate) taking: Mutex<()>,
}

#[derive(Default)]
struct Inner {
    known: BTreeMap<u64, Arc<Snapshot>>,
    wanted: Option<Wanted>,
    /// In a cut that is written and not sealed.
    cut: Option<Arc<Snapshot>>,
    /// The number given last.
    last: u64,
    /// When one came or went last.
    changed: Timestamp,
}

impl Inner {
    /// The kernel takes its listing for stale when this moves: it has to each time, also when the clock does not or goes back,
    /// and when one was deleted after the moment that another shows.
    fn touch(&mut self, now: Timestamp) {
        self.changed = now.or_after(self.changed);
    }
}

impl Snapshots {
    /// Reads them from the store.
    pub(crate) fn load(&self, store: &dyn MetaStore) -> Result<(), VfsError> {
        let mut inner = self.inner.lock();
        crate::restore::each(store, records::SNAPSHOT_PREFIX, |key, value| {
            let number = records::parse_ino_key(key)?;
            if !(1..=SNAPSHOT_NUMBERS).contains(&number) {
                return Err(RecordError::Field("number of a snapshot").into());
            }
            let record = SnapshotRecord::decode(value)?;
            inner.changed = inner.changed.max(record.taken);
            inner.last = inner.last.max(number);
            inner.known.insert(number, Arc::new(Snapshot { number, record }));
            Ok(())
        })
    }

    /// By number.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<Snapshot>> {
        self.inner.lock().known.get(&number).cloned()
    }

    /// By name.
    pub(crate) fn find(&self, name: &[u8]) -> Option<Arc<Snapshot>> {
        let inner = self.inner.lock();
        let mut known = inner.known.values();
        known.find(|snapshot| snapshot.record.name.as_bytes() == name).cloned()
    }

    /// All with numbers above `after`, in the order of their numbers.
    pub(crate) fn after(&self, after: u64) -> Vec<Arc<Snapshot>> {
        let inner = self.inner.lock();
        inner
            .known
            .range(after.saturating_add(1)..)
            .map(|(_, snapshot)| snapshot.clone())
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.inner.lock().known.len()
    }

    /// When one came or went last.
    pub(crate) fn changed(&self) -> Timestamp {
        self.inner.lock().changed
    }

    /// The next cut made while changes are frozen shall be this snapshot. Returns its number.
    pub(crate) fn want(&self, name: &str, taken: Timestamp) -> u64 {
        let mut inner = self.inner.lock();
        let mut number = inner.last;
        loop {
            number = number % SNAPSHOT_NUMBERS + 1;
            if !inner.known.contains_key(&number) {
                break;
            }
        }
        inner.last = number;
        inner.wanted = Some(Wanted {
            number,
            name: name.to_owned(),
            taken,
        });
        number
    }

    /// Nobody wants one any more.
    pub(crate) fn give_up(&self) {
        self.inner.lock().wanted = None;
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.inner.lock().wanted.is_some()
    }

    /// A cut was written, and carries this snapshot if any.
    pub(crate) fn cut(&self, snapshot: Option<(u64, SnapshotRecord)>) {
        if let Some((number, record)) = snapshot {
            self.inner.lock().cut = Some(Arc::new(Snapshot { number, record }));
        }
    }

    /// The cut's pack is durable: adds its snapshot to the batch, and to what is known.
    pub(crate) fn sealed(&self, pack: PackSeq, batch: &mut Batch) {
        let mut inner = self.inner.lock();
        if let Some(snapshot) = inner.cut.take_if(|snapshot| snapshot.record.pack == pack) {
            batch.put(records::snapshot_key(snapshot.number), snapshot.record.encode());
            inner.touch(snapshot.record.taken);
            inner.known.insert(snapshot.number, snapshot);
        }
    }

    /// The cut's pack was given up.
    pub(crate) fn abandoned(&self, pack: PackSeq) {
        self.inner.lock().cut.take_if(|snapshot| snapshot.record.pack == pack);
    }

    /// It is no more.
    pub(crate) fn removed(&self, number: u64, now: Timestamp) {
        let mut inner = self.inner.lock();
        inner.known.remove(&number);
        inner.touch(now);
    }

    /// The newest pack that one of them needs.
    pub(crate) fn pinned(&self) -> Option<PackSeq> {
        let inner = self.inner.lock();
        let all = inner.known.values().chain(&inner.cut);
        all.map(|snapshot| snapshot.record.pack).max()
    }
}

impl Core {
    /// The snapshot that the cut beginning now is, if changes are frozen for one. They go on as soon as the cut has begun.
    pub(crate) fn take_wanted_snapshot(&self) -> Option<Wanted> {
        if !self.marks.is_frozen() {
            return None;
        }
        let wanted = self.snapshots.inner.lock().wanted.take()?;
        self.marks.thaw();
        Some(wanted)
    }
}
