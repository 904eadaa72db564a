//! What of each pack lives: a mark over the ids that files name, and a sweep over the locations.
//!
//! Marked ids are held as 8 bytes each, in the order of their hash, at most [`LIVE_IDS_MAX`] at a time: of a volume that has
//! more the ids are gone through in ranges. Two ids that share 8 bytes keep a dead chunk alive; never the other way round.
//! The sweep also forgets locations in packs that are no more.

use super::{Upkeep, UpkeepError};
use crate::ledger::PackState;
use crate::limits::{LIVE_IDS_MAX, PLACES_PAGE};
use crate::store::StoreError;
use cessfs_crypto::{ChunkId, PackSeq};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

/// What lies in one pack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Chunks that files name, and that are read from this pack.
    pub live_chunks: u64,
    /// Their sealed bytes.
    pub live_bytes: u64,
    /// Sealed bytes of chunks that no file names.
    pub dead_bytes: u64,
}

/// By pack; packs in which nothing lies are not in it.
pub type Usages = BTreeMap<PackSeq, Usage>;

/// What a count found.
#[derive(Clone)]
pub(super) struct Counted {
    pub(super) usages: Usages,
    /// The newest pack there was when it began: of later ones it knows nothing.
    pub(super) newest: PackSeq,
}

impl Counted {
    /// No chunk is read from this pack any more, be it needed or not.
    pub(super) fn is_bare(&self, seq: PackSeq) -> bool {
        seq <= self.newest && !self.usages.contains_key(&seq)
    }
}

/// Chunks with the packs they lie in.
pub(super) type Stock = Vec<(ChunkId, PackSeq)>;

/// First two bytes of ids.
type Prefixes = Range<u32>;
const PREFIXES: u32 = 1 << 16;

fn prefix(id: &ChunkId) -> u32 {
    u32::from(id.0[0]) << 8 | u32::from(id.0[1])
}

fn mark(id: &ChunkId) -> u64 {
    u64::from_be_bytes(*id.0.first_chunk().expect("ids have 32 bytes"))
}

impl Upkeep {
    /// Counts what lives everywhere.
    pub(super) async fn count(self: &std::sync::Arc<Self>) -> Result<Usages, UpkeepError> {
        let (upkeep, newest) = (
            self.clone(),
            self.ledger.all().last().map_or(PackSeq(0), |pack| pack.seq),
        );
        let counted = self.blocking(move || upkeep.count_now()).await?;
        let usages = counted.ok_or(UpkeepError::NobodyKnows)?;
        *self.counted.lock() = Some(Counted {
            usages: usages.clone(),
            newest,
        });
        Ok(usages)
    }

    /// `None`: nobody knows what lives. Blocks on the disk.
    fn count_now(&self) -> Result<Option<Usages>, StoreError> {
        let gone: Vec<PackSeq> = {
            let packs = self.ledger.all();
            let gone = packs.iter().filter(|pack| pack.state == PackState::Gone);
            gone.map(|pack| pack.seq).collect()
        };
        let mut usages = Usages::new();
        let (mut from, mut width) = (0, PREFIXES);
        while from < PREFIXES {
            let range = from..(from + width).min(PREFIXES);
            match self.marks(&range)? {
                Marks::Unknown => return Ok(None),
                Marks::TooMany => width = (width / 2).max(1),
                Marks::Sorted(marks) => {
                    self.sweep(&range, &marks, &mut usages)?;
                    from = range.end;
                }
            }
        }
        // No location names them any more: the sweep went over all of them.
        for seq in gone {
            self.ledger.remove(seq, vec![super::health::health_key(seq)])?;
            self.health.forget(seq);
        }
        Ok(Some(usages))
    }

    fn marks(&self, range: &Prefixes) -> Result<Marks, StoreError> {
        let narrow = range.len() > 1;
        let mut marks: Vec<u64> = Vec::new();
        let mut too_many = false;
        let known = self.builder.live(&mut |id| {
            if too_many || !range.contains(&prefix(&id)) {
                return;
            }
            marks.push(mark(&id));
            if marks.len() >= LIVE_IDS_MAX {
                marks.sort_unstable();
                marks.dedup();
                too_many = narrow && marks.len() > LIVE_IDS_MAX / 2;
            }
        })?;
        marks.sort_unstable();
        marks.dedup();
        Ok(match (known, too_many) {
            (false, _) => Marks::Unknown,
            (true, true) => Marks::TooMany,
            (true, false) => Marks::Sorted(marks),
        })
    }

    fn sweep(&self, range: &Prefixes, marks: &[u64], usages: &mut Usages) -> Result<(), StoreError> {
        let mut from = vec![b'K', (range.start >> 8) as u8, range.start as u8];
        loop {
            let page = self.ledger.places(&from, PLACES_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from = [b"K".as_slice(), &last.0, &[0]].concat();
            let mut homeless = Vec::new();
            for (id, place) in &page {
                if prefix(id) >= range.end {
                    self.ledger.forget_places(&homeless)?;
                    return Ok(());
                }
                if self
                    .ledger
                    .get(place.seq)
                    .is_none_or(|pack| pack.state == PackState::Gone)
                {
                    homeless.push((*id, place.seq));
                    continue;
                }
                let usage = usages.entry(place.seq).or_default();
                match marks.binary_search(&mark(id)).is_ok() {
                    true => {
                        usage.live_chunks += 1;
                        usage.live_bytes += u64::from(place.len);
                    }
                    false => usage.dead_bytes += u64::from(place.len),
                }
            }
            self.ledger.forget_places(&homeless)?;
        }
    }

    /// Of chunks that lie in these packs those that live. `None`: nobody knows. Blocks on the disk.
    pub(super) fn living(&self, stock: &[(ChunkId, PackSeq)]) -> Result<Option<HashSet<ChunkId>>, StoreError> {
        let wanted: HashSet<ChunkId> = stock.iter().map(|(id, _)| *id).collect();
        let mut living = HashSet::new();
        let known = self.builder.live(&mut |id| {
            if wanted.contains(&id) {
                living.insert(id);
            }
        })?;
        Ok(known.then_some(living))
    }

    /// Chunks that lie in these packs, from a key on, at most so many; and where to go on, if there may be more.
    pub(super) fn stock(
        &self,
        packs: &HashSet<PackSeq>,
        mut from: Vec<u8>,
        most: usize,
    ) -> Result<(Stock, Option<Vec<u8>>), StoreError> {
        let mut stock = Vec::new();
        loop {
            let page = self.ledger.places(&from, PLACES_PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok((stock, None));
            };
            from = [b"K".as_slice(), &last.0, &[0]].concat();
            let inside = page.iter().filter(|(_, place)| packs.contains(&place.seq));
            stock.extend(inside.map(|(id, place)| (*id, place.seq)));
            if stock.len() >= most {
                return Ok((stock, Some(from)));
            }
        }
    }
}

enum Marks {
    Unknown,
    TooMany,
    Sorted(Vec<u64>),
}
