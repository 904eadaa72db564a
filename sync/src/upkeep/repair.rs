//! Repair: packs that lost columns are rewritten while enough are left. An owner cannot put a fragment back (F6).
//!
//! | good columns | |
//! |---|---|
//! | 9 to 11 | watched |
//! | 6 to 8 | rewritten in the background, a budget of bytes at a time, and only when the last round is Confirmed |
//! | 4, 5 | rewritten at once, and sent ahead of everything else |
//! | below 4 | what this machine has is rewritten; if something lives in the pack that it has not, the pack is Lost: it stays, the files are named, and miners are asked again |
//!
//! The worst go first; one choice in ten is random, so that a pack that cannot be rewritten never keeps others waiting for ever.

use super::health::Grade;
use super::{Upkeep, UpkeepError, is_pinned};
use crate::ledger::{DrainCause, PackRecord, PackState};
use crate::limits::{EXPLORE_ONE_IN, REPAIR_ROUND_BYTES};
use cessfs_crypto::PackSeq;
use std::sync::Arc;

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Packs that were rewritten.
    pub packs: Vec<PackSeq>,
    /// Chunks that moved.
    pub chunks: u64,
    /// Plaintext bytes of those.
    pub bytes: u64,
    /// Packs that are lost.
    pub lost: Vec<PackSeq>,
    /// Packs that were deleted after it.
    pub deleted: Vec<PackSeq>,
}

impl Upkeep {
    /// One round. `all`: every pack that is not whole, at once, as asked for by hand.
    pub(super) async fn repair_round(self: &Arc<Self>, all: bool) -> Result<RepairReport, UpkeepError> {
        let chosen = self.choose(all);
        let pinned = self.builder.pinned();
        let stays = |pack: &Arc<PackRecord>| is_pinned(pack, pinned) || pack.beside;
        let (staying, leaving): (Vec<_>, Vec<_>) = chosen.into_iter().partition(stays);
        let mut report = RepairReport::default();
        for pack in staying {
            let stands_for = is_pinned(&pack, pinned).then_some(pack.stands_for.unwrap_or(pack.seq).min(pack.seq));
            let copied = self.copy(pack.seq, stands_for).await?;
            if copied.is_all {
                self.copied.lock().insert(pack.seq);
            }
            report.packs.extend(copied.packs);
            report.chunks += copied.chunks;
            report.bytes += copied.bytes;
        }
        let seqs: Vec<PackSeq> = leaving.iter().map(|pack| pack.seq).collect();
        let builder = self.builder.clone();
        self.blocking(move || builder.drain(&seqs, DrainCause::Damaged)).await?;
        let emptied = self.empty().await?;
        report.packs.extend(emptied.packs);
        report.chunks += emptied.chunks;
        report.bytes += emptied.bytes;
        self.tell_lost(all).await?;
        let packs = self.ledger.all();
        let lost = packs.iter().filter(|pack| pack.state == PackState::Lost);
        report.lost = lost.map(|pack| pack.seq).collect();
        Ok(report)
    }

    /// Which packs to rewrite now.
    fn choose(&self, all: bool) -> Vec<Arc<PackRecord>> {
        let packs = self.ledger.all();
        let counted = self.counted.lock().clone();
        let nothing_lies = |seq| counted.as_ref().is_some_and(|usages| !usages.contains_key(&seq));
        let pinned = self.builder.pinned();
        let wants = |pack: &&Arc<PackRecord>| {
            let grade = self.grade(pack.seq);
            let stays = is_pinned(pack, pinned) || pack.beside;
            let worth = match pack.state {
                // Copied away already, and kept for its metadata only.
                PackState::Confirmed if stays && (nothing_lies(pack.seq) || pack.chunks == 0) => false,
                PackState::Confirmed => grade >= Grade::Rewrite || all && grade > Grade::Whole,
                // It goes, but not before a snapshot made since does.
                PackState::Draining => is_pinned(pack, pinned) && grade >= Grade::Rewrite,
                // Found again, or tried again because somebody asked.
                PackState::Lost => !stays && (all || grade < Grade::Lost),
                _ => false,
            };
            worth && !self.copied.lock().contains(&pack.seq)
        };
        let mut chosen: Vec<Arc<PackRecord>> = packs.iter().filter(wants).cloned().collect();
        self.dice.shuffle(&mut chosen);
        chosen.sort_by_key(|pack| std::cmp::Reverse(self.grade(pack.seq)));
        if all {
            return chosen;
        }
        if chosen.len() > 1 && self.dice.below(EXPLORE_ONE_IN) == 0 {
            let explored = self.dice.below(chosen.len() as u64) as usize;
            chosen.swap(0, explored);
        }
        // What is not urgent waits until the last round has arrived.
        let under_way = packs.iter().any(|pack| {
            let cause = pack
                .drain
                .filter(|_| pack.state == PackState::Draining)
                .map(|drain| drain.cause);
            cause == Some(DrainCause::Damaged) && !self.is_settled(pack)
        });
        let mut budget = REPAIR_ROUND_BYTES;
        let mut within = |pack: &Arc<PackRecord>| {
            let urgent = self.grade(pack.seq) >= Grade::Urgent;
            let fits = !under_way && budget > 0;
            budget = budget.saturating_sub(pack.body_bytes());
            urgent || fits
        };
        chosen.retain(|pack| within(pack));
        chosen
    }

    /// The checkpoint that a draining pack waits for is Confirmed.
    fn is_settled(&self, pack: &PackRecord) -> bool {
        let checkpoint = pack.drain.and_then(|drain| drain.checkpoint);
        checkpoint.is_some_and(|seq| {
            self.ledger
                .get(PackSeq(seq))
                .is_none_or(|pack| pack.state >= PackState::Confirmed)
        })
    }
}
