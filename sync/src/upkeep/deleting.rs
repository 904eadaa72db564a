//! I4: an old pack goes only when each chunk that lives in it is Confirmed elsewhere and a later Confirmed checkpoint says so.
//!
//! The later checkpoint is also where history begins: nothing that this volume can still be recovered to is older. So a pack
//! stays until that checkpoint is as old as history is to be kept, or less while the territory has little room.
//!
//! Never less than the *grace*, counted from when everything up to that checkpoint was known to be on the network. Whoever
//! recovered the volume elsewhere did it before that, and needs the pack; or after, and does not. The former makes himself
//! known within the grace, by a pack of a newer epoch, and then nothing is deleted here any more
//! (`docs/decisions/0020-two-machines.md`).
//!
//! The wall clock may be wrong, then and now. So the grace has to pass in this run, too, by a clock that does not jump, or over runs
//! by the chain's height; the wall clock is believed to have advanced in this run by no more than the one that does not jump; and no pack
//! is taken to be older than one before it.

use super::{Upkeep, UpkeepError};
use crate::chain::Head;
use crate::ledger::{Blocked, DrainCause, PackRecord, PackState};
use crate::limits::{DELETE_ROUND, DELETIONS_AT_ONCE, HISTORY_ROOM_PERCENT, MOVE_CHUNKS_MAX, SEGMENT_CHARGE_BYTES};
use crate::rules::{Rule, holds};
use crate::store::StoreError;
use cessfs_crypto::{PackKind, PackSeq};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// What was given back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Deleted {
    pub(super) packs: Vec<PackSeq>,
    pub(super) freed_bytes: u64,
}

impl Upkeep {
    /// Deletes what may be deleted: a few packs, those that are oldest, and no more once [`DELETE_ROUND`] is over. Each takes as long as
    /// a transaction does, and what is urgent comes after it.
    pub(super) async fn delete_due(self: &Arc<Self>) -> Result<Deleted, UpkeepError> {
        let until = self.clock.monotonic() + DELETE_ROUND;
        let keep = match self.is_tight().await? {
            true => Duration::ZERO,
            false => self.config.keep_history,
        };
        let settled = self.settled().await?;
        self.release_due(keep, settled).await?;
        let mut going = self.going();
        // One that always fails late is not always the first.
        self.dice.shuffle(&mut going);
        let mut deleted = Deleted::default();
        let mut failed: Option<Blocked> = None;
        for pack in going {
            if self.clock.monotonic() >= until {
                break;
            }
            match self.pipeline.delete(pack.seq).await {
                Ok(()) => {
                    deleted.packs.push(pack.seq);
                    deleted.freed_bytes += u64::from(pack.segments) * SEGMENT_CHARGE_BYTES;
                }
                Err(reason) => failed = failed.or(Some(reason)),
            }
        }
        match failed {
            Some(reason) if deleted.packs.is_empty() => Err(UpkeepError::Blocked(reason)),
            Some(reason) => {
                self.errors
                    .push(format!("not every dead pack could be deleted yet: {reason}"));
                Ok(deleted)
            }
            None => Ok(deleted),
        }
    }

    /// Packs up to this one were known to be on the network for the grace, also if that was in an earlier run.
    async fn settled(&self) -> Result<PackSeq, UpkeepError> {
        let height = self.chain.height(Head::Finalized).await?;
        Ok(self.ledger.settled(height, self.clock.wall(), self.config.grace)?)
    }

    /// Deletes all that may be deleted, round by round. Between two of them others have their turn.
    pub(super) async fn delete_all_due(self: &Arc<Self>) -> Result<Deleted, UpkeepError> {
        let mut all = Deleted::default();
        loop {
            let round = {
                let _alone = self.alone.lock().await;
                self.delete_due().await
            };
            match round {
                Ok(round) if round.packs.is_empty() => return Ok(all),
                Ok(round) => {
                    all.packs.extend(round.packs);
                    all.packs.sort_unstable();
                    all.freed_bytes += round.freed_bytes;
                }
                Err(error) if all.packs.is_empty() => return Err(error),
                Err(error) => {
                    self.errors
                        .push(format!("not every dead pack could be deleted yet: {error}"));
                    return Ok(all);
                }
            }
        }
    }

    /// Packs that are being deleted.
    fn going(&self) -> Vec<Arc<PackRecord>> {
        let packs = self.ledger.all().into_iter();
        packs.filter(|pack| pack.state == PackState::Deleting).collect()
    }

    /// The territory has so little room that history has to yield.
    async fn is_tight(&self) -> Result<bool, UpkeepError> {
        if self.config.keep_history.is_zero() {
            return Ok(false);
        }
        let territory = self.chain.territory(&self.builder.config.territory).await?;
        Ok(territory.is_some_and(|territory| {
            territory.remaining_bytes.saturating_mul(100)
                < territory.total_bytes.saturating_mul(u128::from(HISTORY_ROOM_PERCENT))
        }))
    }

    /// Draining -> Deleting, after one more look that nothing lives there: the oldest few, so that history yields no more than it has
    /// to.
    async fn release_due(self: &Arc<Self>, keep: Duration, settled: PackSeq) -> Result<(), UpkeepError> {
        let mut due: Vec<PackSeq> = self.due(keep, settled).into_iter().collect();
        due.sort_unstable();
        // One at the least: those before it may never come to their end.
        due.truncate(DELETIONS_AT_ONCE.saturating_sub(self.going().len()).max(1));
        let due: HashSet<PackSeq> = due.into_iter().collect();
        if due.is_empty() {
            return Ok(());
        }
        let (upkeep, packs) = (self.clone(), due.clone());
        let alive = self.blocking(move || upkeep.alive_in(&packs)).await?;
        let alive = alive.ok_or(UpkeepError::NobodyKnows)?;
        let mut due: Vec<PackSeq> = due.into_iter().collect();
        due.sort_unstable();
        for seq in due {
            let lives = alive.contains(&seq) && holds(Rule::Moved);
            if lives {
                self.errors.push(format!(
                    "pack {} was to be deleted, but something lives in it: it is emptied again",
                    seq.0
                ));
            }
            self.change(seq, move |pack| match (lives, &mut pack.drain) {
                (true, Some(drain)) => drain.checkpoint = None,
                _ => pack.state = PackState::Deleting,
            })
            .await?;
        }
        Ok(())
    }

    /// Packs in which something lives after all. Blocks on the disk.
    pub(super) fn alive_in(&self, packs: &HashSet<PackSeq>) -> Result<Option<HashSet<PackSeq>>, StoreError> {
        let mut alive = HashSet::new();
        let mut from = Some(b"K".to_vec());
        while let Some(at) = from {
            let (stock, next) = self.stock(packs, at, MOVE_CHUNKS_MAX)?;
            let Some(living) = self.living(&stock)? else {
                return Ok(None);
            };
            alive.extend(stock.iter().filter(|(id, _)| living.contains(id)).map(|(_, seq)| *seq));
            from = next;
        }
        Ok(Some(alive))
    }

    fn due(&self, keep: Duration, settled: PackSeq) -> HashSet<PackSeq> {
        let packs = self.ledger.all();
        let pinned = self.builder.pinned();
        let grace = self.config.grace;
        let now = self.clock.monotonic();
        let (began, began_wall) = self.began;
        let now_s = (began_wall + now.saturating_sub(began))
            .min(self.clock.wall())
            .as_secs();
        let sealed_s = sealing_times(&packs, now_s);
        let ages = Ages {
            is_old: &|other| sealed_s[&other.seq] <= now_s.saturating_sub(keep.as_secs()),
            is_settled: &|other| {
                let since = self.pipeline.confirmed_at(other.seq).unwrap_or(began);
                let is_past = other.changed_at_s <= now_s;
                let in_this_run = now.saturating_sub(since) >= grace
                    && (!is_past || other.changed_at_s <= now_s.saturating_sub(grace.as_secs()));
                in_this_run || other.seq <= settled
            },
        };
        let due = packs.iter().filter(|pack| {
            let Some(checkpoint) = pack.drain.and_then(|drain| drain.checkpoint) else {
                return false;
            };
            pack.state == PackState::Draining
                && !super::is_pinned(pack, pinned)
                && is_superseded(&packs, pack, PackSeq(checkpoint), &ages)
        });
        due.map(|pack| pack.seq).collect()
    }
}

/// When each pack was sealed: not before any that was sealed before it. Times that are yet to come make only their own packs young.
fn sealing_times(packs: &[Arc<PackRecord>], now_s: u64) -> HashMap<PackSeq, u64> {
    let mut latest = 0;
    let sealed = packs.iter().map(|pack| {
        if pack.sealed_at_s <= now_s {
            latest = pack.sealed_at_s.max(latest);
        }
        (pack.seq, pack.sealed_at_s.max(latest))
    });
    sealed.collect()
}

/// How old packs are.
struct Ages<'a> {
    /// Sealed so long ago that history may begin with it.
    is_old: &'a dyn Fn(&PackRecord) -> bool,
    /// Known to be on the network for the grace.
    is_settled: &'a dyn Fn(&PackRecord) -> bool,
}

/// From a checkpoint on that is old, everything is Confirmed and tells a tree without this pack; up to that checkpoint it is settled.
fn is_superseded(packs: &[Arc<PackRecord>], pack: &PackRecord, checkpoint: PackSeq, ages: &Ages<'_>) -> bool {
    let later = || packs.iter().filter(|other| other.seq > pack.seq && !other.beside);
    let stands = |other: &&Arc<PackRecord>| match other.state {
        PackState::Confirmed => true,
        // One that was doubted never was given back by all.
        PackState::Draining => other.drain.is_some_and(|drain| drain.cause != DrainCause::Doubted),
        _ => false,
    };
    if !holds(Rule::Superseded) {
        return true;
    }
    let found = later()
        .filter(|other| other.seq >= checkpoint && other.kind == PackKind::Checkpoint)
        .filter(stands)
        .find(|other| (ages.is_old)(other));
    let Some(found) = found else { return false };
    // One that drains was Confirmed before that; of one that goes, nobody needs anything.
    let is_settled =
        |other: &PackRecord| (ages.is_settled)(other) || other.state >= PackState::Deleting || !holds(Rule::Grace);
    // What moved may have gone into any pack up to that checkpoint, and on from there into later ones.
    later().all(|other| other.state != PackState::Lost)
        && later()
            .filter(|other| other.seq <= found.seq)
            .all(|other| other.state >= PackState::Confirmed && is_settled(other))
}

#[cfg(test)]
mod tests {
    use super::{Ages, is_superseded, sealing_times};
    use crate::ledger::{Column, Drain, DrainCause, Encoded, PackRecord, PackState};
    use crate::limits::COLUMNS;
    use cessfs_crypto::{PackKind, PackSeq};
    use std::sync::Arc;

    const NOW_S: u64 = 1000;

    fn record(seq: u64, kind: PackKind, state: PackState, cause: Option<DrainCause>) -> Arc<PackRecord> {
        Arc::new(PackRecord {
            seq: PackSeq(seq),
            kind,
            epoch: 1,
            segments: 0,
            chunks: 0,
            deltas: 0,
            delta_bytes: 0,
            label: String::new(),
            territory: "main".into(),
            state,
            blocked: None,
            encoded: Some(Encoded {
                fid: crate::fragment_store::Fid([0; 32]),
                segments: Vec::new(),
            }),
            intent: None,
            columns: [Column::default(); COLUMNS],
            sealed_at_s: seq,
            changed_at_s: seq,
            drain: cause.map(|cause| Drain {
                cause,
                since_s: seq,
                checkpoint: Some(2),
            }),
            stands_for: None,
            beside: false,
        })
    }

    const ALL_OLD: Ages<'static> = Ages {
        is_old: &|other| other.sealed_at_s <= NOW_S,
        is_settled: &|other| other.changed_at_s <= NOW_S,
    };

    /// Whether a dead data pack may go whose contents moved before a checkpoint in this state.
    fn may_go(state: PackState, cause: Option<DrainCause>) -> bool {
        let dead = record(1, PackKind::Data, PackState::Draining, Some(DrainCause::Dead));
        let packs = [dead.clone(), record(2, PackKind::Checkpoint, state, cause)];
        is_superseded(&packs, &dead, PackSeq(2), &ALL_OLD)
    }

    #[test]
    fn a_checkpoint_that_miners_never_gave_back_takes_the_place_of_nothing() {
        assert!(may_go(PackState::Confirmed, None));
        assert!(may_go(PackState::Draining, Some(DrainCause::Dead)));
        assert!(may_go(PackState::Draining, Some(DrainCause::Damaged)));
        assert!(!may_go(PackState::Draining, Some(DrainCause::Doubted)));
        assert!(!may_go(PackState::Doubted, Some(DrainCause::Doubted)));
        assert!(!may_go(PackState::Stored, None));
        assert!(!may_go(PackState::Lost, None));
    }

    #[test]
    fn a_later_checkpoint_takes_the_place_of_one_that_was_doubted() {
        let dead = record(1, PackKind::Data, PackState::Draining, Some(DrainCause::Dead));
        let doubted = record(2, PackKind::Checkpoint, PackState::Draining, Some(DrainCause::Doubted));
        let mut packs = vec![dead.clone(), doubted];
        packs.push(record(3, PackKind::Checkpoint, PackState::Confirmed, None));
        assert!(is_superseded(&packs, &dead, PackSeq(2), &ALL_OLD));
    }

    #[test]
    fn no_pack_is_older_than_one_before_it_and_one_from_the_future_is_young_alone() {
        let sealed = |seq: u64, at_s: u64| {
            let record = record(seq, PackKind::Data, PackState::Confirmed, None);
            Arc::new(PackRecord {
                sealed_at_s: at_s,
                ..PackRecord::clone(&record)
            })
        };
        let times = sealing_times(&[sealed(1, 500), sealed(2, 2000), sealed(3, 0), sealed(4, 700)], NOW_S);
        let times: Vec<u64> = (1..=4).map(|seq| times[&PackSeq(seq)]).collect();
        assert_eq!(times, [500, 2000, 500, 700]);
    }
}
