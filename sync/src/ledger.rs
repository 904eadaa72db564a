//! The ledger: what the journal knows of packs and of the chunks in them.
//!
//! Packs (`P`) are few and held in memory too; chunk locations (`K`) are many and asked from the store. A change is visible
//! here only after it is in the store, and, where the caller asked for it, after it would survive a power cut.

mod lineage;
mod numbers;
mod place;
mod record;
mod settled;
mod sight;

pub(crate) use lineage::Lineage;
pub use place::Place;
pub use record::{Blocked, Column, Drain, DrainCause, Encoded, Intent, PackRecord, PackState};
pub(crate) use sight::INHERITED_KEY;

use crate::chunk_store::Standing;
use crate::limits::{CHECKPOINT_BYTES_MIN, CHECKPOINT_PACKS_MAX, CHECKPOINT_PACKS_MIN, CHECKPOINT_SMALL_BYTES};
use crate::store::{Batch, MetaStore, StoreError};
use crate::watched::Watched;
use cessfs_crypto::{ChunkId, PackKind, PackSeq};
use numbers::Numbers;
use parking_lot::{Mutex, RwLock};
use sight::Sight;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Highest number a pack ever had, so that numbers are not used again after packs are gone.
pub(crate) const LAST_SEQ_KEY: &[u8] = b"Slast_seq";
/// The newer epoch that was seen on the network, or this writer's own where a copy of it writes: once seen, this writer never
/// sends again.
const FENCED_KEY: &[u8] = b"Sfenced";
/// The last pack that this history and that of the newer epoch both have (8, little-endian).
const PARTED_KEY: &[u8] = b"Sparted";
/// Key of the note that a recovered volume is to make itself known (value: version, 1).
pub(crate) const CLAIM_KEY: &[u8] = b"Sclaim";
/// Records read per scan.
const SCAN_RECORDS: usize = 256;

/// Whether a change must survive a power cut before anything follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Durable {
    Now,
    Eventually,
}

pub(crate) struct Ledger {
    store: Arc<dyn MetaStore>,
    packs: RwLock<BTreeMap<PackSeq, Arc<PackRecord>>>,
    /// Serialises changes; held over the store's commit and barrier.
    change: Mutex<()>,
    numbers: Mutex<Numbers>,
    lineage: Mutex<Lineage>,
    /// The epoch of the writer that was seen; 0: none.
    fenced: AtomicU32,
    /// Confirmed packs that are not taken for granted.
    sight: RwLock<Sight>,
    /// Bytes of the packs that are neither Confirmed nor Doubted.
    unsent_bytes: AtomicU64,
    /// Why nothing can change any more.
    failed: Mutex<Option<StoreError>>,
    version: Watched<u64>,
}

pub(crate) fn pack_key(seq: PackSeq) -> Vec<u8> {
    let mut key = vec![b'P'];
    key.extend_from_slice(&seq.0.to_be_bytes());
    key
}

/// What is in a doubted pack counts again where it goes; if it counted here too, a backlog full of such packs would leave no room
/// to send them.
fn unsent_bytes(pack: &PackRecord) -> u64 {
    match pack.state >= PackState::Doubted {
        true => 0,
        false => pack.body_bytes(),
    }
}

impl Ledger {
    /// Reads all pack records.
    pub(crate) fn load(store: Arc<dyn MetaStore>) -> Result<Ledger, StoreError> {
        let mut packs = BTreeMap::new();
        let mut from = b"P".to_vec();
        loop {
            let found = store.scan(b"P", &from, SCAN_RECORDS)?;
            let Some((last, _)) = found.last() else { break };
            from = last.clone();
            from.push(0);
            for (key, value) in &found {
                let record = PackRecord::decode(value)?;
                if *key != pack_key(record.seq) {
                    return Err(StoreError::Corrupt("pack record under another number".into()));
                }
                packs.insert(record.seq, Arc::new(record));
            }
        }
        let stored = match store.get(LAST_SEQ_KEY)? {
            None => 0,
            Some(bytes) => u64::from_le_bytes(
                bytes
                    .try_into()
                    .map_err(|_| StoreError::Corrupt("last pack number".into()))?,
            ),
        };
        let lineage = Lineage::read(store.as_ref())?.unwrap_or(Lineage {
            epoch: 1,
            head: PackSeq(stored),
        });
        let fenced = match store.get(FENCED_KEY)? {
            None => 0,
            Some(bytes) => u32::from_le_bytes(
                bytes
                    .try_into()
                    .map_err(|_| StoreError::Corrupt("epoch of the fence".into()))?,
            ),
        };
        let confirmed = packs.values().filter(|pack| pack.state == PackState::Confirmed);
        let sight = Sight::read(store.as_ref(), confirmed.map(|pack| pack.seq))?;
        let unsent = packs.values().map(|pack: &Arc<PackRecord>| unsent_bytes(pack)).sum();
        let highest = packs.last_key_value().map_or(0, |(seq, _)| seq.0);
        Ok(Ledger {
            store,
            packs: RwLock::new(packs),
            change: Mutex::new(()),
            numbers: Mutex::new(Numbers::new(stored.max(highest))),
            lineage: Mutex::new(lineage),
            fenced: AtomicU32::new(fenced),
            sight: RwLock::new(sight),
            unsent_bytes: AtomicU64::new(unsent),
            failed: Mutex::new(None),
            version: Watched::new(0),
        })
    }

    /// A number no pack had before. It is journaled with the pack; one that never gets so far leaves no trace of it.
    pub(crate) fn take_seq(&self) -> PackSeq {
        self.numbers.lock().take()
    }

    /// Epoch of the packs sealed here.
    pub(crate) fn epoch(&self) -> u32 {
        self.lineage.lock().epoch
    }

    /// The pack sealed last in this history; 0: none.
    pub(crate) fn head(&self) -> PackSeq {
        self.lineage.lock().head
    }

    /// The epoch of another writer that was seen on the network, if any: a newer one, or this one's own.
    pub(crate) fn fenced(&self) -> Option<u32> {
        Some(self.fenced.load(Ordering::Acquire)).filter(|epoch| *epoch > 0)
    }

    /// What stands in the way is a copy of this writer, of its own epoch.
    pub(crate) fn is_forked(&self) -> bool {
        self.fenced() == Some(self.epoch())
    }

    /// The highest number that was taken here, or below which none may be.
    pub(crate) fn last_seq(&self) -> PackSeq {
        self.numbers.lock().last()
    }

    /// No pack that was sealed here bears this number, though the open one, or one that was thrown away, may have taken it.
    pub(crate) fn is_unused(&self, seq: PackSeq) -> bool {
        self.numbers.lock().is_unused(seq)
    }

    /// Remembers that another machine has taken the volume over, or, with the epoch of this writer, that it has a copy.
    pub(crate) fn fence(&self, epoch: u32) -> Result<(), StoreError> {
        if self.fenced.swap(epoch, Ordering::AcqRel) == epoch {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(FENCED_KEY, epoch.to_le_bytes());
        self.write(batch, Durable::Eventually)?;
        self.announce();
        Ok(())
    }

    /// The last pack that this history and the newer one both have, if that was found out.
    pub(crate) fn parted_at(&self) -> Result<Option<PackSeq>, StoreError> {
        let corrupt = || StoreError::Corrupt("the pack at which histories part".into());
        let Some(bytes) = self.store.get(PARTED_KEY)? else {
            return Ok(None);
        };
        let seq = bytes.try_into().map_err(|_| corrupt())?;
        Ok(Some(PackSeq(u64::from_le_bytes(seq))))
    }

    /// Remembers it: the packs that show it may go.
    pub(crate) fn part_at(&self, seq: PackSeq) -> Result<(), StoreError> {
        let _change = self.change.lock();
        let mut batch = Batch::new();
        batch.put(PARTED_KEY, seq.0.to_le_bytes());
        self.write(batch, Durable::Eventually)
    }

    /// Whether the next pack should carry all metadata. The first of an epoch after the first one does: it closes what
    /// other writers may still send. Later ones do when they are nearly free, or when what recovery would have to read
    /// has doubled since the last; or when what a recovery would begin with may not be there any more.
    pub(crate) fn checkpoint_due(&self) -> bool {
        let lineage = *self.lineage.lock();
        let sight = self.sight.read();
        let packs = self.packs.read();
        let Some((_, newest)) = packs.last_key_value() else {
            return lineage.epoch > 1;
        };
        if newest.epoch < lineage.epoch {
            return true;
        }
        let mut newest_first = packs.values().rev();
        let checkpoint = newest_first.find(|pack| pack.kind == PackKind::Checkpoint);
        if sight.is_any_unseen_from(checkpoint.map_or(PackSeq(0), |pack| pack.seq)) {
            return true;
        }
        let (since_packs, since_bytes, checkpoint_bytes) = metadata(&packs);
        since_packs >= CHECKPOINT_PACKS_MAX
            || since_bytes >= checkpoint_bytes.max(CHECKPOINT_BYTES_MIN)
            || (since_packs >= CHECKPOINT_PACKS_MIN && checkpoint_bytes + since_bytes <= CHECKPOINT_SMALL_BYTES)
    }

    /// This volume was recovered, to go on from where it was, and no pack of its epoch is sealed yet: whoever wrote here before
    /// cannot know.
    pub(crate) fn is_unclaimed(&self) -> Result<bool, StoreError> {
        let epoch = self.epoch();
        let is_first = self.packs.read().values().all(|pack| pack.epoch < epoch);
        Ok(is_first && self.store.get(CLAIM_KEY)?.is_some())
    }

    /// At most so many bytes a checkpoint takes, apart from what no pack carried yet.
    pub(crate) fn checkpoint_bytes_max(&self) -> u64 {
        let (_, since_bytes, checkpoint_bytes) = metadata(&self.packs.read());
        since_bytes + checkpoint_bytes
    }

    pub(crate) fn get(&self, seq: PackSeq) -> Option<Arc<PackRecord>> {
        self.packs.read().get(&seq).cloned()
    }

    /// Every pack, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<PackRecord>> {
        self.packs.read().values().cloned().collect()
    }

    /// Packs on their way, oldest first.
    pub(crate) fn unconfirmed(&self) -> Vec<Arc<PackRecord>> {
        let packs = self.packs.read();
        let on_their_way = packs.values().filter(|pack| pack.state < PackState::Confirmed);
        on_their_way.cloned().collect()
    }

    /// Packs that are doubted, and out of which not everything has moved yet.
    pub(crate) fn unreplaced(&self) -> Vec<PackSeq> {
        let packs = self.packs.read();
        let is_full = |pack: &PackRecord| pack.drain.is_some_and(|drain| drain.checkpoint.is_none());
        let doubted = packs.values().filter(|pack| pack.state == PackState::Doubted);
        doubted.filter(|pack| is_full(pack)).map(|pack| pack.seq).collect()
    }

    /// The highest block that is known to have been final, as the packs' records have it.
    pub(crate) fn final_height(&self) -> Option<u32> {
        let packs = self.packs.read();
        let heights = packs.values().filter_map(|pack| Some(pack.intent?.height));
        heights.max()
    }

    /// The highest block of all records was a mistake: those of packs that were stored, or are not to be, know of none above this one.
    pub(crate) fn lower_heights(&self, height: u32) -> Result<(), StoreError> {
        let is_above = |pack: &PackRecord| pack.intent.is_some_and(|intent| intent.height > height);
        let packs = self.all();
        for pack in packs
            .iter()
            .filter(|pack| pack.state >= PackState::Stored && is_above(pack))
        {
            self.update(pack.seq, Durable::Eventually, |pack| {
                if let Some(intent) = &mut pack.intent {
                    intent.height = intent.height.min(height);
                }
            })?;
        }
        Ok(())
    }

    /// Whether a pack was sealed and not declared yet.
    pub(crate) fn is_one_undeclared(&self) -> bool {
        self.packs.read().values().any(|pack| pack.state < PackState::Placing)
    }

    /// Bytes of the packs on their way.
    pub(crate) fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes.load(Ordering::Relaxed)
    }

    /// Where a chunk lies, if its pack was sealed.
    pub(crate) fn locate(&self, id: ChunkId) -> Result<Option<Place>, StoreError> {
        match self.store.get(&Place::key(id))? {
            None => Ok(None),
            Some(bytes) => Place::decode(&bytes).map(Some),
        }
    }

    /// How far a chunk's pack has come. A location whose pack is unknown counts for nothing. One in a pack that is doubted,
    /// goes, or is lost does neither: whoever needs the chunk brings it again. A pack that is to be seen again is no more than Stored.
    pub(crate) fn standing(&self, id: ChunkId) -> Result<Standing, StoreError> {
        let Some(place) = self.locate(id)? else {
            return Ok(Standing::Unknown);
        };
        Ok(match self.get(place.seq).map(|pack| pack.state) {
            None => Standing::Unknown,
            Some(PackState::Doubted | PackState::Draining) => Standing::Unknown,
            Some(PackState::Deleting | PackState::Gone | PackState::Lost) => Standing::Unknown,
            Some(PackState::Sealed | PackState::Declaring | PackState::Placing) => Standing::Sealed,
            Some(PackState::Stored) => Standing::Stored,
            Some(PackState::Confirmed) if self.is_unseen(place.seq) => Standing::Stored,
            Some(PackState::Confirmed) => Standing::Confirmed,
        })
    }

    /// Journals a new pack with everything that belongs to it, durably. Blocks on the disk.
    pub(crate) fn insert(&self, record: PackRecord, mut batch: Batch) -> Result<(), StoreError> {
        let _change = self.change.lock();
        let seq = record.seq;
        batch.put(pack_key(seq), record.encode());
        batch.put(LAST_SEQ_KEY, seq.0.to_le_bytes());
        let lineage = Lineage {
            epoch: record.epoch,
            head: seq,
        };
        lineage.write(&mut batch);
        self.write(batch, Durable::Now)?;
        *self.lineage.lock() = lineage;
        self.numbers.lock().sealed(seq);
        self.unsent_bytes.fetch_add(unsent_bytes(&record), Ordering::Relaxed);
        let before = self.packs.write().insert(seq, Arc::new(record));
        assert!(before.is_none(), "pack {} was sealed twice", seq.0);
        self.announce();
        Ok(())
    }

    /// Changes a pack's record. Blocks on the disk if it must be durable.
    pub(crate) fn update(
        &self,
        seq: PackSeq,
        durable: Durable,
        change: impl FnOnce(&mut PackRecord),
    ) -> Result<Arc<PackRecord>, StoreError> {
        let _change = self.change.lock();
        let before = self.get(seq).expect("only packs of the ledger are changed");
        let mut after = PackRecord::clone(&before);
        change(&mut after);
        if after == *before {
            return Ok(before);
        }
        let mut batch = Batch::new();
        batch.put(pack_key(seq), after.encode());
        self.write(batch, durable)?;
        self.unsent_bytes.fetch_add(unsent_bytes(&after), Ordering::Relaxed);
        self.unsent_bytes.fetch_sub(unsent_bytes(&before), Ordering::Relaxed);
        let after = Arc::new(after);
        self.packs.write().insert(seq, after.clone());
        self.announce();
        Ok(after)
    }

    /// Locations of chunks whose keys are `>= from`, in key order, at most so many, and where to go on.
    pub(crate) fn places(&self, from: &[u8], limit: usize) -> Result<Vec<(ChunkId, Place)>, StoreError> {
        let found = self.store.scan(b"K", from, limit)?;
        found
            .into_iter()
            .map(|(key, value)| {
                let id = key.get(1..).and_then(|id| id.try_into().ok());
                let id = id.ok_or_else(|| StoreError::Corrupt("key of a chunk location".into()))?;
                Ok((ChunkId(id), Place::decode(&value)?))
            })
            .collect()
    }

    /// Forgets locations in packs that are no more, unless the chunk has come to lie elsewhere meanwhile. Of a pack that is just being
    /// inserted the locations can be read before it is known itself, so whoever found it unknown is not taken at his word.
    pub(crate) fn forget_places(&self, gone: &[(ChunkId, PackSeq)]) -> Result<(), StoreError> {
        if gone.is_empty() {
            return Ok(());
        }
        let _change = self.change.lock();
        let mut batch = Batch::new();
        for (id, seq) in gone {
            let is_no_more = self.get(*seq).is_none_or(|pack| pack.state == PackState::Gone);
            if is_no_more && self.locate(*id)?.is_some_and(|place| place.seq == *seq) {
                batch.delete(Place::key(*id));
            }
        }
        self.write(batch, Durable::Eventually)
    }

    /// Forgets a pack that is gone, with what else is known of it under `keys`.
    pub(crate) fn remove(&self, seq: PackSeq, keys: Vec<Vec<u8>>) -> Result<(), StoreError> {
        let _change = self.change.lock();
        let is_gone = |pack: Arc<PackRecord>| pack.state == PackState::Gone;
        assert!(self.get(seq).is_some_and(is_gone), "only what is gone is forgotten");
        let mut batch = Batch::new();
        batch.delete(pack_key(seq));
        keys.into_iter().for_each(|key| batch.delete(key));
        // Numbers are not used again: the highest is remembered by itself.
        self.write(batch, Durable::Eventually)?;
        self.packs.write().remove(&seq);
        self.announce();
        Ok(())
    }

    fn write(&self, batch: Batch, durable: Durable) -> Result<(), StoreError> {
        let done = self.store.commit(batch).and_then(|()| match durable {
            Durable::Now => self.store.barrier(),
            Durable::Eventually => Ok(()),
        });
        if let Err(error) = &done {
            self.fail(error.clone());
        }
        done
    }

    /// Nothing changes any more: whoever waits learns why.
    fn fail(&self, error: StoreError) {
        self.failed.lock().get_or_insert(error);
        self.announce();
    }

    /// Ends all waiting; for shutdown.
    pub(crate) fn close(&self) {
        self.fail(stopped());
    }

    fn announce(&self) {
        self.version.change(|version| {
            *version += 1;
            true
        });
    }

    /// Counts changes.
    pub(crate) fn version(&self) -> u64 {
        self.version.get()
    }

    /// Waits for a change after this version.
    pub(crate) async fn changed_since(&self, version: u64) {
        self.version.until(|now| *now != version).await;
    }

    /// The newest pack there is; 0: none.
    pub(crate) fn newest(&self) -> PackSeq {
        self.packs.read().last_key_value().map_or(PackSeq(0), |(seq, _)| *seq)
    }

    /// Whether whoever waits for a change may go on waiting.
    ///
    /// # Errors
    /// There will be none, and why.
    pub(crate) fn may_change(&self) -> Result<(), StoreError> {
        self.failed.lock().clone().map_or(Ok(()), Err)
    }

    /// Waits until every pack that exists now is Confirmed.
    pub(crate) async fn confirmed(&self) -> Result<(), StoreError> {
        let last = self.newest();
        loop {
            let version = self.version();
            if self.unconfirmed().iter().all(|pack| pack.seq > last) {
                return Ok(());
            }
            self.may_change()?;
            self.changed_since(version).await;
        }
    }
}

/// Packs and bytes of deltas since the last checkpoint, and its bytes.
fn metadata(packs: &BTreeMap<PackSeq, Arc<PackRecord>>) -> (usize, u64, u64) {
    let (mut since_packs, mut since_bytes) = (0, 0);
    for pack in packs.values().rev() {
        if pack.kind == PackKind::Checkpoint {
            return (since_packs, since_bytes, pack.delta_bytes);
        }
        since_packs += 1;
        since_bytes += pack.delta_bytes;
    }
    (since_packs, since_bytes, 0)
}

/// The engine was shut down while somebody waited for it.
pub(crate) fn stopped() -> StoreError {
    let why = io::Error::new(io::ErrorKind::Interrupted, "the engine is stopped");
    StoreError::Io(Arc::new(why))
}

#[cfg(test)]
mod tests;
