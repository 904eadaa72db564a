//! Confirmed packs that are not taken for granted.
//!
//! | which | since | until | meanwhile |
//! |---|---|---|---|
//! | unseen | the territory expired, was bought again, or is charged for less than was stored | the chain shows the pack again | counts as Stored, and content in it is sent again if it is submitted; whoever waits for the network waits for it, too; the next pack is a checkpoint, if it would be read before this one |
//! | inherited | a recovery | this machine made itself known, and the list was read after whoever wrote before has stopped deleting | content in it is sent again if it is submitted |
//!
//! Content that the recovered tree names stays where it is, whoever deletes beside it (`docs/decisions/0020-two-machines.md`), so
//! inherited packs may be read from and relied on; it is what no file named then that may be going.

use super::{Durable, Ledger, PackRecord, PackState};
use crate::chain::{Territory, TerritoryState};
use crate::limits::SEGMENT_CHARGE_BYTES;
use crate::store::{Batch, MetaStore, StoreError};
use cessfs_crypto::{ChunkId, PackSeq};
use std::collections::BTreeSet;

/// Key of the note that packs are to be seen again (value: version, 1).
const UNSEEN_KEY: &[u8] = b"Sunseen";
/// Key of the note that packs of older epochs may be going (value: version, 1).
pub(crate) const INHERITED_KEY: &[u8] = b"Sinherited";
/// Before a territory's name: the block it began at (4, little-endian).
const TERRITORY_PREFIX: &[u8] = b"Sterritory/";

/// What is not taken for granted.
#[derive(Default)]
pub(super) struct Sight {
    unseen: BTreeSet<PackSeq>,
    inherited: bool,
}

impl Sight {
    /// `confirmed`: the packs that are to be seen again if the journal says so; it does not say which.
    pub(super) fn read(store: &dyn MetaStore, confirmed: impl Iterator<Item = PackSeq>) -> Result<Sight, StoreError> {
        Ok(Sight {
            unseen: match store.get(UNSEEN_KEY)? {
                Some(_) => confirmed.collect(),
                None => BTreeSet::new(),
            },
            inherited: store.get(INHERITED_KEY)?.is_some(),
        })
    }

    /// This pack or a later one is to be seen again, or was when it was given up.
    pub(super) fn is_any_unseen_from(&self, seq: PackSeq) -> bool {
        self.unseen.range(seq..).next().is_some()
    }
}

impl Ledger {
    /// The chain told of a territory. Where what was stored in it may be gone, its packs are to be seen again.
    pub(crate) fn hear_territory(&self, territory: &Territory) -> Result<(), StoreError> {
        let _change = self.change.lock();
        let key = [TERRITORY_PREFIX, territory.name.as_bytes()].concat();
        let began = self.store.get(&key)?;
        let begins = territory.start_block.to_le_bytes().to_vec();
        let in_it: Vec<_> = {
            let packs = self.all();
            let confirmed = packs.into_iter().filter(|pack| pack.state == PackState::Confirmed);
            let unseen = &self.sight.read().unseen;
            let trusted = confirmed.filter(|pack| !unseen.contains(&pack.seq));
            trusted.filter(|pack| pack.territory == territory.name).collect()
        };
        let segments: u64 = in_it.iter().map(|pack| u64::from(pack.segments)).sum();
        let charged = u128::from(segments) * u128::from(SEGMENT_CHARGE_BYTES);
        let is_another = began.as_ref().is_some_and(|began| *began != begins);
        let is_doubtful = territory.state == TerritoryState::Expired || is_another || territory.used_bytes < charged;
        let mut batch = Batch::new();
        if began.as_ref() != Some(&begins) {
            batch.put(key, begins);
        }
        let unseen: Vec<PackSeq> = in_it.iter().map(|pack| pack.seq).filter(|_| is_doubtful).collect();
        if !unseen.is_empty() {
            batch.put(UNSEEN_KEY, [1]);
        }
        if batch.ops.is_empty() {
            return Ok(());
        }
        // First here, then in the journal: nothing is dropped in between.
        self.sight.write().unseen.extend(unseen);
        self.write(batch, Durable::Eventually)?;
        self.announce();
        Ok(())
    }

    /// These packs are to be seen again.
    pub(crate) fn mark_unseen(&self, seqs: impl IntoIterator<Item = PackSeq>) -> Result<(), StoreError> {
        let _change = self.change.lock();
        self.sight.write().unseen.extend(seqs);
        let mut batch = Batch::new();
        batch.put(UNSEEN_KEY, [1]);
        self.write(batch, Durable::Eventually)?;
        self.announce();
        Ok(())
    }

    /// The chain shows these packs. When none is left that is to be seen again, the journal says so.
    pub(crate) fn mark_seen(&self, seqs: &[PackSeq]) -> Result<(), StoreError> {
        let _change = self.change.lock();
        let left = {
            let mut sight = self.sight.write();
            sight.unseen.retain(|seq| !seqs.contains(seq));
            self.still_confirmed(&sight.unseen).len()
        };
        let is_over = left == 0 && self.store.get(UNSEEN_KEY)?.is_some();
        if is_over {
            let mut batch = Batch::new();
            batch.delete(UNSEEN_KEY);
            self.write(batch, Durable::Eventually)?;
        }
        if is_over || !seqs.is_empty() {
            self.announce();
        }
        Ok(())
    }

    /// Packs that are to be seen again, oldest first.
    pub(crate) fn unseen(&self) -> Vec<PackSeq> {
        self.still_confirmed(&self.sight.read().unseen)
    }

    fn still_confirmed(&self, seqs: &BTreeSet<PackSeq>) -> Vec<PackSeq> {
        let is_confirmed = |seq: &&PackSeq| self.get(**seq).is_some_and(|pack| pack.state == PackState::Confirmed);
        seqs.iter().filter(is_confirmed).copied().collect()
    }

    pub(crate) fn is_unseen(&self, seq: PackSeq) -> bool {
        self.sight.read().unseen.contains(&seq)
    }

    /// What lies in packs of older epochs, and was not named when they were recovered, may be going.
    pub(crate) fn inherits(&self) -> bool {
        self.sight.read().inherited
    }

    /// What there is of older epochs stays.
    pub(crate) fn settle_inheritance(&self) -> Result<(), StoreError> {
        let _change = self.change.lock();
        let mut batch = Batch::new();
        batch.delete(INHERITED_KEY);
        self.write(batch, Durable::Now)?;
        self.sight.write().inherited = false;
        Ok(())
    }

    /// Content that is submitted is not taken for stored where its location says.
    pub(crate) fn is_doubtful(&self, id: ChunkId) -> Result<bool, StoreError> {
        let Some(place) = self.locate(id)? else {
            return Ok(false);
        };
        let sight = self.sight.read();
        let inherited = |pack: &PackRecord| pack.epoch < self.epoch() && pack.state == PackState::Confirmed;
        let older = || self.get(place.seq).is_some_and(|pack| inherited(&pack));
        Ok(sight.unseen.contains(&place.seq) || sight.inherited && older())
    }
}
