//! Collecting what is dead: packs of which little lives are emptied into a new one, and deleted.
//!
//! Padding counts as dead, too. So half-full packs that were sealed because they were old are merged with their successors by
//! the same rule: a pack costs 96 MiB of territory for each of its segments, however little is in it (F2).

use super::usage::Usages;
use super::{Upkeep, UpkeepError, is_pinned};
use crate::ledger::{DrainCause, PackRecord, PackState};
use crate::limits::{GC_GAIN_SEGMENTS_MIN, GC_ROUND_BYTES, SEGMENT_CHARGE_BYTES, segment_bytes};
use cessfs_crypto::PackSeq;
use std::sync::Arc;

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Sealed bytes that files need.
    pub live_bytes: u64,
    /// Bytes of packs that nobody needs, padding included.
    pub dead_bytes: u64,
    /// Packs chosen to be emptied.
    pub chosen: Vec<PackSeq>,
    /// Sealed bytes that move out of them.
    pub moving_bytes: u64,
    /// Territory bytes that come back once they are deleted, less what the new packs cost.
    pub gain_bytes: u64,
    /// Packs that were deleted now.
    pub deleted: Vec<PackSeq>,
    /// Territory bytes that came back for them.
    pub freed_bytes: u64,
    /// Packs that are empty and kept for the history.
    pub kept: Vec<PackSeq>,
}

impl Upkeep {
    /// Counts, and chooses what is worth to be emptied. `asked`: by hand, so that one segment is gain enough.
    pub(super) async fn survey(self: &Arc<Self>, asked: bool) -> Result<CollectReport, UpkeepError> {
        let usages = self.count().await?;
        let packs = self.ledger.all();
        let stored = packs.iter().filter(|pack| {
            matches!(
                pack.state,
                PackState::Confirmed | PackState::Draining | PackState::Deleting | PackState::Lost
            )
        });
        let mut report = CollectReport::default();
        for pack in stored {
            let live = usages.get(&pack.seq).map_or(0, |usage| usage.live_bytes);
            report.live_bytes += live;
            report.dead_bytes += pack.body_bytes().saturating_sub(live);
        }
        let gain_min = if asked { 1 } else { GC_GAIN_SEGMENTS_MIN };
        if let Some((chosen, moving, gain)) = self.candidates(&packs, &usages, gain_min) {
            report.chosen = chosen;
            report.moving_bytes = moving;
            report.gain_bytes = gain * SEGMENT_CHARGE_BYTES;
        }
        Ok(report)
    }

    /// The packs to empty in one round, the bytes that move, and the segments that are gained.
    fn candidates(
        &self,
        packs: &[Arc<PackRecord>],
        usages: &Usages,
        gain_min: u64,
    ) -> Option<(Vec<PackSeq>, u64, u64)> {
        let pinned = self.builder.pinned();
        let live = |pack: &PackRecord| usages.get(&pack.seq).map_or(0, |usage| usage.live_bytes);
        let little = |pack: &&Arc<PackRecord>| {
            let live = live(pack);
            let free = match pack.state {
                PackState::Confirmed => live * 100 <= pack.body_bytes() * u64::from(self.config.live_percent_max),
                PackState::Lost => live == 0,
                _ => false,
            };
            free && !pack.beside && !is_pinned(pack, pinned)
        };
        let mut little: Vec<_> = packs.iter().filter(little).collect();
        little.sort_by_key(|pack| (live(pack), pack.seq));
        // They end in the pack that becomes the checkpoint, with all metadata.
        let cost = |moving: u64| {
            let bytes = moving + self.ledger.checkpoint_bytes_max();
            bytes.div_ceil(segment_bytes() as u64).max(1)
        };
        let (mut taken, mut moving, mut segments) = (0, 0, 0);
        let mut best: Option<(usize, u64, u64)> = None;
        for pack in &little {
            taken += 1;
            moving += live(pack);
            segments += u64::from(pack.segments);
            let gain = u64::saturating_sub(segments, cost(moving));
            if moving <= GC_ROUND_BYTES && gain >= gain_min && best.is_none_or(|(_, _, before)| gain >= before) {
                best = Some((taken, moving, gain));
            }
        }
        let (count, moving, gain) = best?;
        Some((little[..count].iter().map(|pack| pack.seq).collect(), moving, gain))
    }

    /// Empties what [`survey`](Upkeep::survey) chose.
    pub(super) async fn empty_chosen(self: &Arc<Self>, report: &CollectReport) -> Result<(), UpkeepError> {
        let (builder, chosen) = (self.builder.clone(), report.chosen.clone());
        self.blocking(move || builder.drain(&chosen, DrainCause::Dead)).await?;
        self.empty(PackState::Draining).await?;
        Ok(())
    }
}
