//! Repair: packs that lost columns are rewritten while enough are left. An owner cannot put a fragment back (F6).
//!
//! | good columns | |
//! |---|---|
//! | 9 to 11 | watched |
//! | 6 to 8 | rewritten in the background, a budget of bytes at a time, and only when the last round is Confirmed |
//! | 4, 5 | rewritten at once, and sent ahead of everything else |
//! | below 4 | what this machine has is rewritten; if something lives in the pack that it has not, the pack is Lost: it stays, the files are named, and miners are asked again |
//!
//! A pack that stays (a snapshot needs it) keeps its metadata, which cannot be copied: a checkpoint after it tells the tree without it.
//!
//! The worst go first; one choice in ten is random, so that a pack that cannot be rewritten never keeps others waiting for ever.

use super::emptying::Emptied;
use super::health::Grade;
use super::{Upkeep, UpkeepError, is_pinned};
use crate::builder::Checkpoint;
use crate::dice::Dice;
use crate::ledger::{DrainCause, PackRecord, PackState};
use crate::limits::{COPY_RETRY, EXPLORE_ONE_IN, REPAIR_ROUND_BYTES};
use cessfs_crypto::{PackKind, PackSeq};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

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

/// What became of a pack that stays and was copied.
#[derive(Clone, Copy, Debug)]
pub(super) enum Copied {
    /// Nothing of it is left to do: all that lay in it lies in packs up to this one.
    UpTo(PackSeq),
    /// Something is left behind, and tried again at this time (monotonic) at the earliest.
    Partly(Duration),
}

impl Upkeep {
    /// One round. `all`: every pack that is not whole, at once, as asked for by hand.
    pub(super) async fn repair_round(self: &Arc<Self>, all: bool) -> Result<RepairReport, UpkeepError> {
        // Asked once: a snapshot that is deleted meanwhile makes no pack one that may drain.
        let pinned = self.builder.pinned();
        let rewritten = self.rewrite(all, pinned).await;
        // Where what moves found no room, too: a checkpoint takes little.
        let secured = self.secure_tree(all, pinned).await;
        let report = rewritten?;
        secured?;
        Ok(report)
    }

    async fn rewrite(self: &Arc<Self>, all: bool, pinned: Option<PackSeq>) -> Result<RepairReport, UpkeepError> {
        let chosen = self.choose(all, pinned);
        let stays = |pack: &Arc<PackRecord>| is_pinned(pack, pinned) || pack.beside;
        let (staying, leaving): (Vec<_>, Vec<_>) = chosen.into_iter().partition(stays);
        let mut report = RepairReport::default();
        for pack in staying {
            let copied = self.copy_staying(&pack).await?;
            report.packs.extend(copied.packs);
            report.chunks += copied.chunks;
            report.bytes += copied.bytes;
        }
        let seqs: Vec<PackSeq> = leaving.iter().map(|pack| pack.seq).collect();
        let builder = self.builder.clone();
        self.blocking(move || builder.drain(&seqs, DrainCause::Damaged)).await?;
        let emptied = self.empty(PackState::Draining).await?;
        report.packs.extend(emptied.packs);
        report.chunks += emptied.chunks;
        report.bytes += emptied.bytes;
        self.tell_lost(all).await?;
        let packs = self.ledger.all();
        let lost = packs.iter().filter(|pack| pack.state == PackState::Lost);
        report.lost = lost.map(|pack| pack.seq).collect();
        Ok(report)
    }

    /// Copies a pack that itself stays. One of which something is left behind is tried again later; one that was lost is not any more
    /// when everything is elsewhere, and its metadata can be read.
    async fn copy_staying(self: &Arc<Self>, pack: &PackRecord) -> Result<Emptied, UpkeepError> {
        let grade = self.grade(pack.seq);
        let copied = match pack.state == PackState::Lost && grade < Grade::Rewrite {
            // Its miners are back, with all they had: there is nothing to copy.
            true => Emptied {
                is_all: true,
                ..Emptied::default()
            },
            false => {
                let copied = self.copy(pack.seq).await?;
                let done = match copied.is_all {
                    true => Copied::UpTo(self.ledger.head()),
                    false => Copied::Partly(self.clock.monotonic() + COPY_RETRY),
                };
                self.copied.lock().insert(pack.seq, done);
                copied
            }
        };
        if copied.is_all && pack.state == PackState::Lost && grade < Grade::Lost {
            let state = pack.drain.map_or(PackState::Confirmed, |_| PackState::Draining);
            self.change(pack.seq, move |pack| pack.state = state).await?;
        }
        Ok(copied)
    }

    /// Seals a checkpoint where a damaged pack stays, and none after it is known or on its way. Chunks are copied out of such a pack,
    /// metadata is not: when that is lost, whoever recovers gets no further than to the pack before it, whatever was sent since.
    async fn secure_tree(self: &Arc<Self>, all: bool, pinned: Option<PackSeq>) -> Result<(), UpkeepError> {
        let packs = self.ledger.all();
        let own = || packs.iter().filter(|pack| !pack.beside);
        let mut checkpoints = own().filter(|pack| pack.kind == PackKind::Checkpoint);
        let checkpoint = checkpoints.rfind(|pack| pack.state <= PackState::Confirmed);
        let since = checkpoint.map_or(PackSeq(0), |pack| pack.seq);
        let stays = |pack: &&Arc<PackRecord>| match pack.state {
            PackState::Confirmed => is_pinned(pack, pinned),
            PackState::Draining => pack.drain.is_some_and(|drain| drain.checkpoint.is_none()),
            state => state == PackState::Lost,
        };
        let staying = own().filter(|pack| pack.seq >= since).filter(stays);
        let worst = staying.map(|pack| self.grade(pack.seq)).max();
        let Some(worst) = worst.filter(|grade| is_damaged(*grade, all)) else {
            return Ok(());
        };
        let builder = self.builder.clone();
        match self.blocking(move || builder.seal_checkpoint(&HashSet::new())).await? {
            Checkpoint::Sealed(seq) if worst >= Grade::Urgent => self.pipeline.prefer(seq),
            // Where another pack is doubted, the checkpoint comes when that is replaced, or in the next round.
            Checkpoint::Sealed(_) | Checkpoint::Later => {}
            Checkpoint::Nothing => return Err(UpkeepError::NobodyKnows),
        }
        Ok(())
    }

    /// Which packs to rewrite now.
    fn choose(&self, all: bool, pinned: Option<PackSeq>) -> Vec<Arc<PackRecord>> {
        let packs = self.ledger.all();
        let counted = self.counted.lock().clone();
        let nothing_lies = |seq| counted.as_ref().is_some_and(|counted| counted.is_bare(seq));
        let now = self.clock.monotonic();
        let copied = self.copied.lock().clone();
        let rests = |seq| match copied.get(&seq) {
            None => false,
            Some(Copied::UpTo(_)) => true,
            Some(Copied::Partly(again)) => !all && now < *again,
        };
        let wants = |pack: &&Arc<PackRecord>| {
            let grade = self.grade(pack.seq);
            let stays = is_pinned(pack, pinned) || pack.beside;
            let worth = match pack.state {
                // Copied away already, and kept for its metadata only.
                PackState::Confirmed if stays && (nothing_lies(pack.seq) || pack.chunks == 0) => false,
                PackState::Confirmed => is_damaged(grade, all),
                // It goes, but not before a snapshot made since does.
                PackState::Draining => is_pinned(pack, pinned) && grade >= Grade::Rewrite,
                // Found again, or tried again because somebody asked.
                PackState::Lost => all || grade < Grade::Lost,
                _ => false,
            };
            worth && !rests(pack.seq)
        };
        let chosen = packs.iter().filter(wants).cloned();
        let candidates = chosen.map(|pack| (self.grade(pack.seq), pack.body_bytes(), pack));
        let candidates = by_need(candidates.collect(), &self.dice);
        if all {
            return candidates.into_iter().map(|(_, _, pack)| pack).collect();
        }
        // What is not urgent waits until the last round has arrived.
        let under_way = packs.iter().any(|pack| {
            let cause = pack
                .drain
                .filter(|_| pack.state == PackState::Draining)
                .map(|drain| drain.cause);
            cause == Some(DrainCause::Damaged) && !self.is_settled(pack)
        });
        within_budget(candidates, under_way, &self.dice)
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

/// It is to be rewritten. `all`: whatever is not whole is.
fn is_damaged(grade: Grade, all: bool) -> bool {
    grade >= Grade::Rewrite || all && grade > Grade::Whole
}

/// A pack that may be rewritten: how bad it is, and its bytes.
type Candidate<T> = (Grade, u64, T);

/// The worst first; among equals nobody is.
fn by_need<T>(mut candidates: Vec<Candidate<T>>, dice: &Dice) -> Vec<Candidate<T>> {
    dice.shuffle(&mut candidates);
    candidates.sort_by_key(|(grade, _, _)| std::cmp::Reverse(*grade));
    candidates
}

/// What one round takes of `candidates`, which come the worst first: all that is urgent; of the rest as much as the budget has, and
/// nothing while the last round is under way.
fn within_budget<T>(mut candidates: Vec<Candidate<T>>, under_way: bool, dice: &Dice) -> Vec<T> {
    if candidates.len() > 1 && dice.below(EXPLORE_ONE_IN) == 0 {
        let explored = dice.below(candidates.len() as u64) as usize;
        candidates.swap(0, explored);
    }
    let mut budget = REPAIR_ROUND_BYTES;
    let taken = candidates.into_iter().filter(|(grade, bytes, _)| {
        let fits = !under_way && budget > 0;
        budget = budget.saturating_sub(*bytes);
        *grade >= Grade::Urgent || fits
    });
    taken.map(|(_, _, pack)| pack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PACK_TARGET_BYTES;
    use crate::sim::SimEntropy;

    /// Twenty to be rewritten, and two urgent ones at their end; each as large as packs become.
    fn candidates(dice: &Dice) -> Vec<Candidate<u32>> {
        let grade = |number| if number < 20 { Grade::Rewrite } else { Grade::Urgent };
        let all = (0..22).map(|number| (grade(number), PACK_TARGET_BYTES, number));
        by_need(all.collect(), dice)
    }

    fn dice() -> Dice {
        Dice::new(Box::new(SimEntropy::new(137)))
    }

    #[test]
    fn the_urgent_come_first_whatever_the_budget_and_the_rest_within_it() {
        let dice = dice();
        let room = (REPAIR_ROUND_BYTES / PACK_TARGET_BYTES) as usize;
        for _ in 0..200 {
            let all = candidates(&dice);
            assert!(all[..2].iter().all(|(_, _, number)| *number >= 20), "the worst first");
            let mut taken = within_budget(all, false, &dice);
            taken.sort_unstable();
            assert_eq!(taken[taken.len() - 2..], [20, 21], "all that is urgent: {taken:?}");
            // An urgent one that was swapped back comes beside the budget.
            assert!(taken.len() == room || taken.len() == room + 1, "{taken:?}");

            let mut taken = within_budget(candidates(&dice), true, &dice);
            taken.sort_unstable();
            assert_eq!(taken, [20, 21], "the last round is under way");
        }
    }

    #[test]
    fn one_choice_in_ten_is_random_and_everybody_gets_a_turn() {
        let dice = dice();
        let (rounds, mut explored) = (4000, 0);
        let mut turns = [0; 22];
        for _ in 0..rounds {
            let taken = within_budget(candidates(&dice), false, &dice);
            for number in &taken {
                turns[*number as usize] += 1;
            }
            explored += usize::from(taken[0] < 20);
        }
        // Of the choices made at random 20 in 22 fall on a pack that is not urgent.
        let expected = rounds / EXPLORE_ONE_IN as usize * 20 / 22;
        assert!(
            (expected * 8 / 10..expected * 12 / 10).contains(&explored),
            "{explored}, not about {expected}"
        );
        assert!(turns.iter().all(|turns| *turns > 0), "{turns:?}");
        assert_eq!(turns[20..], [rounds, rounds], "what is urgent is always taken");
    }
}
