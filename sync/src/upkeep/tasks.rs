//! The tasks that look, keep, replace and claim, and what can be asked for by hand.

use super::deleting::Deleted;
use super::health::Grade;
use super::scrub::{Depth, Pace};
use super::{CollectReport, RepairReport, Upkeep, UpkeepError, is_held};
use crate::builder::Checkpoint;
use crate::ledger::{PackRecord, PackState};
use crate::limits::{AWAY_LOOK_INTERVAL, TERRITORY_WARNING, UPKEEP_TICK};
use cessfs_crypto::PackSeq;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// What a scrub saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Packs looked at.
    pub packs: u64,
    /// Bytes read from miners.
    pub bytes: u64,
    /// Packs that are not whole: number, good columns, grade.
    pub damaged: Vec<(PackSeq, u8, &'static str)>,
}

impl Upkeep {
    /// Looks at packs when it is time. Runs until it is aborted.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut warned_at: Option<Duration> = None;
        loop {
            self.clock.sleep(UPKEEP_TICK).await;
            let mut pace = Pace::new(&self, self.config.scrub_rate);
            self.watch_territory(&mut warned_at).await;
            while let Some((seq, depth)) = self.next_look() {
                self.pipeline.until_open().await;
                let looked = self.scrub_pack(seq, depth, &mut pace).await;
                let failed = looked.is_err();
                self.trouble("scrub", looked.err());
                if failed {
                    break;
                }
                // Looking may be behind for weeks.
                self.watch_territory(&mut warned_at).await;
            }
        }
    }

    /// The pack whose look is most overdue, and how closely to look.
    fn next_look(&self) -> Option<(PackSeq, Depth)> {
        let now_s = self.clock.wall().as_secs();
        let packs = self.ledger.all();
        let held = packs.iter().filter(|pack| is_held(pack));
        let overdue = held.filter_map(|pack| {
            let health = self.health.get(pack.seq);
            let late = |at_s: u64, every: Duration| late_s(now_s, [at_s, pack.sealed_at_s], every);
            match late(health.read_at_s, self.config.scrub_full_interval) {
                Some(late) => Some((late, pack.seq, Depth::Full)),
                None => {
                    let every = match health.is_undecided(&self.config.thresholds) {
                        true => AWAY_LOOK_INTERVAL.min(self.config.scrub_interval),
                        false => self.config.scrub_interval,
                    };
                    late(health.sampled_at_s, every).map(|late| (late, pack.seq, Depth::Sample))
                }
            }
        });
        overdue
            .max_by_key(|(late, seq, _)| (*late, std::cmp::Reverse(*seq)))
            .map(|(_, seq, depth)| (seq, depth))
    }

    /// Tells when the territory comes to its end, as often as packs are sampled: everything in it goes then.
    async fn watch_territory(&self, warned_at: &mut Option<Duration>) {
        let now = self.clock.monotonic();
        if warned_at.is_some_and(|at| now.saturating_sub(at) < self.config.scrub_interval) {
            return;
        }
        *warned_at = Some(now);
        let name = self.builder.config.territory.clone();
        let asked = futures::future::try_join(self.chain.territory(&name), self.chain.height(crate::chain::Head::Best));
        let Ok((Some(territory), height)) = asked.await else {
            return;
        };
        self.builder.note_territory(&territory);
        let blocks = territory.deadline_block.saturating_sub(height);
        let left = Duration::from_secs(u64::from(blocks) * crate::limits::BLOCK_SECONDS);
        if territory.state != crate::chain::TerritoryState::Active {
            self.errors.push(format!(
                "territory {name} is {:?}: renew it, or everything in it is deleted by the chain",
                territory.state
            ));
        } else if left < TERRITORY_WARNING {
            let days = left.as_secs() / 86_400;
            self.errors.push(format!(
                "territory {name} freezes in {days} days, and a week later everything in it is deleted by the chain: renew it"
            ));
        }
    }

    /// Makes this machine known: seals a checkpoint as the first pack of its epoch, and has it sent before anything else. When it
    /// is final, whoever wrote here before stops sending and deleting.
    pub(crate) async fn claim(self: Arc<Self>) {
        loop {
            let builder = self.builder.clone();
            match self.blocking(move || builder.seal_checkpoint(&HashSet::new())).await {
                Ok(Checkpoint::Sealed(seq)) => return self.pipeline.prefer(seq),
                Ok(Checkpoint::Nothing) => return self.trouble("claim", Some(UpkeepError::NobodyKnows)),
                Ok(Checkpoint::Later) => {}
                Err(error) => self.trouble("claim", Some(error)),
            }
            self.clock.sleep(UPKEEP_TICK).await;
        }
    }

    /// Repairs, empties, deletes and collects. Runs until it is aborted.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut collected_at = self.clock.monotonic();
        loop {
            self.clock.sleep(UPKEEP_TICK).await;
            if self.ledger.fenced().is_some() {
                // What moves would only be copied to this disk: nothing is sent from here any more.
                continue;
            }
            // Repair and collection read from miners what they send elsewhere.
            self.pipeline.until_open().await;
            let _alone = self.alone.lock().await;
            let works = self.config.repair || self.config.gc;
            if works {
                // First, for everything else may have to wait for the room that this makes.
                let deleted = self.delete_dead().await;
                self.trouble("delete", deleted.err());
            }
            if self.config.repair {
                let repaired = self.repair_round(false).await;
                self.trouble("repair", repaired.err());
            }
            if self.config.gc {
                let now = self.clock.monotonic();
                if now.saturating_sub(collected_at) >= self.config.gc_interval {
                    collected_at = now;
                    let collected = self.collect_round().await;
                    self.trouble("gc", collected.err());
                }
            }
            if works {
                let emptied = self.empty(PackState::Draining).await;
                self.trouble("empty", emptied.err());
            }
        }
    }

    /// Sends again what is in packs that miners do not give back. Runs until it is aborted; nobody has to wait for it, since a
    /// doubted pack is no other round's.
    pub(crate) async fn replace(self: Arc<Self>) {
        loop {
            let version = self.ledger.version();
            if self.full(PackState::Doubted).next().is_none() || self.ledger.fenced().is_some() {
                self.ledger.changed_since(version).await;
                continue;
            }
            let emptied = self.empty(PackState::Doubted).await;
            let stuck = emptied.as_ref().is_ok_and(|emptied| !emptied.is_all);
            let wait = emptied.is_err() || stuck;
            self.trouble("replace", emptied.err());
            if wait {
                self.clock.sleep(UPKEEP_TICK).await;
            }
        }
    }

    async fn collect_round(self: &Arc<Self>) -> Result<(), UpkeepError> {
        let report = self.survey(false).await?;
        self.tell_lost(true).await?;
        self.empty_chosen(&report).await
    }

    async fn delete_dead(self: &Arc<Self>) -> Result<(), UpkeepError> {
        let packs = self.ledger.all();
        let goes = |pack: &Arc<PackRecord>| matches!(pack.state, PackState::Draining | PackState::Deleting);
        if packs.iter().any(goes) {
            self.delete_due().await?;
        }
        Ok(())
    }

    pub(super) fn trouble(&self, task: &'static str, error: Option<UpkeepError>) {
        let mut troubles = self.troubles.lock();
        match error.map(|error| format!("{task}: {error}")) {
            None => drop(troubles.remove(task)),
            Some(text) if troubles.get(task) == Some(&text) => {}
            Some(text) => {
                self.errors.push(text.clone());
                troubles.insert(task, text);
            }
        }
    }

    /// Looks at every pack now.
    pub(crate) async fn scrub_all(
        self: Arc<Self>,
        depth: Depth,
        rate: Option<u64>,
    ) -> Result<ScrubReport, UpkeepError> {
        let mut pace = Pace::new(&self, rate.unwrap_or(self.config.scrub_rate));
        let mut report = ScrubReport::default();
        let packs = self.ledger.all();
        for pack in packs.iter().filter(|pack| is_held(pack)) {
            let health = self.scrub_pack(pack.seq, depth, &mut pace).await?;
            let grade = health.grade(&self.config.thresholds);
            report.packs += 1;
            if grade != Grade::Whole {
                let good = health.good(&self.config.thresholds);
                report.damaged.push((pack.seq, good, grade.name()));
            }
        }
        report.bytes = pace.bytes;
        Ok(report)
    }

    /// Rewrites every pack that is not whole, waits until the network has it, and deletes what may be deleted.
    pub(crate) async fn repair_all(self: Arc<Self>) -> Result<RepairReport, UpkeepError> {
        let alone = self.alone.lock().await;
        let before = self.delete_before().await;
        let mut report = self.repair_round(true).await?;
        // Rounds in the background go on meanwhile: what this waits for may need the room that they make.
        drop(alone);
        self.ledger.confirmed().await?;
        report.deleted = before.packs;
        report.deleted.extend(self.delete_all_due().await?.packs);
        Ok(report)
    }

    /// Collects now. `dry_run`: only tells what it would do.
    pub(crate) async fn collect_all(self: Arc<Self>, dry_run: bool) -> Result<CollectReport, UpkeepError> {
        let alone = self.alone.lock().await;
        let before = match dry_run {
            true => Deleted::default(),
            false => self.delete_before().await,
        };
        let mut report = self.survey(true).await?;
        if !dry_run {
            self.empty_chosen(&report).await?;
            drop(alone);
            self.ledger.confirmed().await?;
            let deleted = self.delete_all_due().await?;
            report.freed_bytes = before.freed_bytes + deleted.freed_bytes;
            report.deleted = before.packs;
            report.deleted.extend(deleted.packs);
        }
        let packs = self.ledger.all();
        let empty = packs.iter().filter(|pack| pack.state == PackState::Draining);
        report.kept = empty.map(|pack| pack.seq).collect();
        Ok(report)
    }

    /// What may be deleted before a round by hand, which may need the room. What fails is tried again after it, and told then.
    async fn delete_before(self: &Arc<Self>) -> Deleted {
        self.delete_due().await.unwrap_or_default()
    }

    /// How many held packs have which grade, those that are damaged, and the oldest last look (seconds since 1970; 0: some
    /// pack was never looked at).
    pub(crate) fn grades(&self) -> (BTreeMap<&'static str, u64>, Vec<(PackSeq, u8)>, u64) {
        let mut grades = BTreeMap::new();
        let (mut damaged, mut seen) = (Vec::new(), Vec::new());
        for pack in self.ledger.all().iter().filter(|pack| is_held(pack)) {
            let health = self.health.get(pack.seq);
            let grade = health.grade(&self.config.thresholds);
            *grades.entry(grade.name()).or_default() += 1;
            seen.push(health.sampled_at_s);
            if grade != Grade::Whole {
                damaged.push((pack.seq, health.good(&self.config.thresholds)));
            }
        }
        (grades, damaged, seen.into_iter().min().unwrap_or(0))
    }

    /// Live and dead bytes of all packs, as last counted.
    pub(crate) fn last_count(&self) -> Option<(u64, u64)> {
        let counted = self.counted.lock();
        let usages = &counted.as_ref()?.usages;
        let live: u64 = usages.values().map(|usage| usage.live_bytes).sum();
        let packs = self.ledger.all();
        let stored = packs.iter().filter(|pack| pack.state != PackState::Gone);
        let bytes: u64 = stored.map(|pack| pack.body_bytes()).sum();
        Some((live, bytes.saturating_sub(live)))
    }
}

/// By how many seconds something is late that is due so long after the later of two times; `None`: it is not due. A time that is yet to
/// come is one of a clock that was wrong: as good as none.
fn late_s(now_s: u64, since_s: [u64; 2], every: Duration) -> Option<u64> {
    let past = since_s.into_iter().filter(|at_s| *at_s <= now_s);
    let due_s = past.max().unwrap_or(0).saturating_add(every.as_secs().max(1));
    now_s.checked_sub(due_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_at_in_the_future_is_due() {
        let day = Duration::from_secs(86_400);
        let now_s = 1_700_000_000;
        assert_eq!(late_s(now_s, [now_s - 86_400, 5], day), Some(0));
        assert_eq!(late_s(now_s, [now_s - 86_399, 5], day), None);
        assert!(late_s(now_s, [now_s + 1, 5], day).is_some());
        assert!(late_s(now_s, [u64::MAX, u64::MAX], day).is_some());
    }
}
