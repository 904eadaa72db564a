//! Two packs under one number: two copies of one writer sealed at the same time (`docs/decisions/0025-forks.md`).
//!
//! Packs name the one before them by its number alone. So which of the two a later pack continues from is not known, and nothing is
//! replayed over either: a history goes on with the next checkpoint. The tree of each is whole by itself. The one that was sealed
//! later counts, of two sealed in the same second the one with the higher fid; the others are told.

use super::{Pack, Packs};
use crate::fragment_store::Fid;
use std::collections::btree_map::Entry;

impl Packs {
    /// Adds a pack that opened.
    pub(super) fn take(&mut self, pack: Pack) {
        let mut entry = match self.good.entry(pack.record.seq) {
            Entry::Vacant(entry) => {
                entry.insert(pack);
                return;
            }
            Entry::Occupied(entry) => entry,
        };
        let is_twin = !is_copy(entry.get(), &pack);
        let other = match rank(&pack) > rank(entry.get()) {
            true => entry.insert(pack),
            false => pack,
        };
        if is_twin {
            let others = self.twins.entry(other.record.seq).or_default();
            others.push(other.record.encoded().fid);
            others.sort_unstable();
        }
    }
}

fn rank(pack: &Pack) -> (u32, u64, Fid) {
    let record = &pack.record;
    (record.epoch, record.sealed_at_s, record.encoded().fid)
}

/// The same frames: somebody put the pack into the account once more, with another pad, which nothing authenticates.
fn is_copy(one: &Pack, other: &Pack) -> bool {
    let told = |pack: &Pack| (pack.previous, pack.record.sealed_at_s, pack.record.kind);
    told(one) == told(other) && one.directory == other.directory
}
