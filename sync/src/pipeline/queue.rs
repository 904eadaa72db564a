//! Which pack is taken next: the oldest, but urgent ones before all others.
//!
//! A checkpoint is declared only when everything before it was read back, and holds its place among the packs in flight meanwhile.
//! So whatever is before an urgent checkpoint goes before it: taken after it, it would wait for a place that is never given back.
//! Urgent content waits for nothing, and overtakes all of that.

use crate::ledger::PackRecord;
use cessfs_crypto::{PackKind, PackSeq};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// The next of the packs that wait, oldest first, and are not `driven` yet.
pub(super) fn next(
    waiting: &[Arc<PackRecord>],
    driven: &BTreeSet<PackSeq>,
    urgent: &HashSet<PackSeq>,
) -> Option<Arc<PackRecord>> {
    let is_urgent = |pack: &&Arc<PackRecord>| urgent.contains(&pack.seq);
    let checkpoint = waiting
        .iter()
        .rfind(|pack| is_urgent(pack) && pack.kind == PackKind::Checkpoint);
    let until = checkpoint.map_or(PackSeq(0), |pack| pack.seq);
    let undriven = waiting.iter().filter(|pack| !driven.contains(&pack.seq));
    let class = |pack: &&Arc<PackRecord>| match pack.kind {
        PackKind::Data if is_urgent(pack) => 0,
        _ if pack.seq <= until => 1,
        _ => 2,
    };
    undriven.min_by_key(|pack| (class(pack), pack.seq)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Column, PackState};
    use crate::limits::COLUMNS;

    fn pack(seq: u64, kind: PackKind) -> Arc<PackRecord> {
        Arc::new(PackRecord {
            seq: PackSeq(seq),
            kind,
            epoch: 1,
            segments: 1,
            chunks: 0,
            deltas: 1,
            delta_bytes: 100,
            label: "label".into(),
            territory: "main".into(),
            state: PackState::Sealed,
            blocked: None,
            encoded: None,
            intent: None,
            columns: [Column::default(); COLUMNS],
            sealed_at_s: 0,
            changed_at_s: 0,
            drain: None,
            stands_for: None,
            beside: false,
        })
    }

    /// All of them, in the order in which they are taken.
    fn order(waiting: &[Arc<PackRecord>], urgent: &[u64]) -> Vec<u64> {
        let urgent = urgent.iter().map(|seq| PackSeq(*seq)).collect();
        let (mut driven, mut order) = (BTreeSet::new(), Vec::new());
        while let Some(pack) = next(waiting, &driven, &urgent) {
            driven.insert(pack.seq);
            order.push(pack.seq.0);
        }
        order
    }

    #[test]
    fn the_oldest_goes_first_and_urgent_ones_before_it() {
        let waiting: Vec<_> = (1..=5).map(|seq| pack(seq, PackKind::Data)).collect();
        assert_eq!(order(&waiting, &[]), [1, 2, 3, 4, 5]);
        assert_eq!(order(&waiting, &[4, 3]), [3, 4, 1, 2, 5]);
    }

    /// Two urgent checkpoints held both places and waited for a pack that then never got one: nothing was sent any more.
    #[test]
    fn nothing_overtakes_into_a_place_where_it_waits_for_what_it_overtook() {
        let waiting: Vec<_> = (1..=6)
            .map(|seq| match seq {
                3 | 4 => pack(seq, PackKind::Checkpoint),
                _ => pack(seq, PackKind::Data),
            })
            .collect();
        assert_eq!(order(&waiting, &[3, 4]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(
            order(&waiting, &[4, 6]),
            [6, 1, 2, 3, 4, 5],
            "urgent content waits for nothing"
        );
    }
}
