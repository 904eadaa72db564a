//! Looking again for packs that are not taken for granted any more: see [`Ledger`](crate::ledger)'s own room of this name.
//!
//! A pack is seen when the account's list has it and the file under its id is this pack and ours, both at a finalized head. One that is not
//! there counts as dropped by all its miners: a repair sends again what this machine has of it, and the rest is told.

use super::health::Verdict;
use super::{Upkeep, UpkeepError, is_pinned};
use crate::chain::{Head, StoredFile, TerritoryState};
use crate::ledger::{Drain, DrainCause, PackRecord, PackState};
use crate::limits::{BLOCK_SECONDS, COLUMNS, DECLARE_MORTAL_BLOCKS, SURVEYS_IN_FLIGHT, UPKEEP_TICK};
use crate::pipeline::is_far_above;
use cessfs_crypto::PackSeq;
use futures::StreamExt;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

impl Upkeep {
    /// Looks for packs that are to be seen again. Runs until it is aborted.
    pub(crate) async fn see_again(self: Arc<Self>) {
        let mut pause = UPKEEP_TICK;
        loop {
            let version = self.ledger.version();
            let unseen = self.ledger.unseen();
            if unseen.is_empty() {
                pause = UPKEEP_TICK;
                let ledger = self.ledger.clone();
                let noted = self.blocking(move || ledger.mark_seen(&[])).await;
                self.trouble("look", noted.err());
                self.ledger.changed_since(version).await;
                continue;
            }
            let looked = self.look_for(&unseen).await;
            let left = self.ledger.unseen();
            // What is gone does not come back soon.
            pause = match looked {
                Ok(true) => (pause * 2).min(self.config.scrub_interval.max(UPKEEP_TICK)),
                _ => UPKEEP_TICK,
            };
            self.trouble("look", looked.err());
            tokio::select! {
                biased;
                () = self.clock.sleep(pause) => {}
                () = self.more_or_none_unseen(&left) => pause = UPKEEP_TICK,
            }
        }
    }

    /// Waits until there is a pack to look for that is not one of these, or none at all.
    async fn more_or_none_unseen(&self, known: &[PackSeq]) {
        loop {
            let version = self.ledger.version();
            let unseen = self.ledger.unseen();
            if unseen.is_empty() || unseen.iter().any(|seq| !known.contains(seq)) {
                return;
            }
            self.ledger.changed_since(version).await;
        }
    }

    /// Whether all that is left to be seen is gone.
    async fn look_for(&self, unseen: &[PackSeq]) -> Result<bool, UpkeepError> {
        let listed: HashSet<_> = self.chain.files().await?.into_iter().collect();
        let packs: Vec<_> = unseen.iter().filter_map(|seq| self.ledger.get(*seq)).collect();
        let mut expired = HashSet::new();
        for name in packs.iter().map(|pack| pack.territory.clone()).collect::<HashSet<_>>() {
            let territory = self.chain.territory(&name).await?;
            if territory.is_none_or(|territory| territory.state == TerritoryState::Expired) {
                expired.insert(name);
            }
        }
        let looks = packs.into_iter().map(|pack| {
            let is_listed = listed.contains(&pack.encoded().fid);
            async move {
                let there = self.is_there(&pack, is_listed).await;
                (pack, there)
            }
        });
        let mut looks = futures::stream::iter(looks).buffer_unordered(SURVEYS_IN_FLIGHT);
        let (mut seen, mut gone) = (Vec::new(), Vec::new());
        while let Some((pack, there)) = looks.next().await {
            match there? {
                // It goes any moment.
                true if expired.contains(&pack.territory) => {}
                true => seen.push(pack.seq),
                false => gone.push(pack.seq),
            }
        }
        let (ledger, book) = (self.ledger.clone(), self.health.clone());
        let now_s = self.clock.wall().as_secs();
        self.blocking(move || {
            ledger.mark_seen(&seen)?;
            for seq in gone {
                let mut health = book.get(seq);
                (0..COLUMNS as u8).for_each(|column| health.see(column, 0, Verdict::Dropped, now_s));
                book.set(seq, health)?;
            }
            Ok(expired.is_empty())
        })
        .await
    }

    async fn is_there(&self, pack: &PackRecord, is_listed: bool) -> Result<bool, UpkeepError> {
        Ok(is_listed && self.is_ours(pack).await?)
    }

    /// The file under the pack's id is this pack, and this account's.
    async fn is_ours(&self, pack: &PackRecord) -> Result<bool, UpkeepError> {
        let account = self.chain.account();
        let encoded = pack.encoded();
        let file = self.file_of(pack).await?;
        let is_ours = |file: &StoredFile| {
            let hashes = file.segments.iter().map(|(hashes, _)| hashes);
            file.owners.iter().any(|(owner, _, _)| *owner == account) && hashes.eq(&encoded.segments)
        };
        Ok(file.is_some_and(|file| is_ours(&file)))
    }

    /// After a recovery: waits until whoever wrote before has stopped deleting, and takes stock of what he left. Ends then.
    pub(crate) async fn settle_inheritance(self: Arc<Self>) {
        while self.ledger.inherits() {
            let version = self.ledger.version();
            let epoch = self.ledger.epoch();
            let packs = self.ledger.all();
            let mut own = packs.iter().filter(|pack| pack.epoch == epoch);
            if !own.any(|pack| pack.state >= PackState::Confirmed && pack.was_stored()) {
                self.ledger.changed_since(version).await;
                continue;
            }
            let settled = self.take_stock().await;
            let failed = settled.is_err();
            self.trouble("stock", settled.err());
            if failed {
                self.clock.sleep(UPKEEP_TICK).await;
            }
        }
    }

    /// Waits until no transaction that was sent by now can be in a block to come. A chain that is away for a moment begins nothing anew: with
    /// one that often is, this would never end.
    async fn outlive_transactions(&self) {
        let mut began: Option<u32> = None;
        loop {
            if let Ok(height) = self.chain.height(Head::Finalized).await {
                let since = *began.get_or_insert(height);
                // Where the first height was a mistake, the count begins with this one.
                began = Some(if is_far_above(since, height) { height } else { since });
                if height.saturating_sub(since) >= DECLARE_MORTAL_BLOCKS {
                    return;
                }
            }
            self.clock.sleep(Duration::from_secs(BLOCK_SECONDS)).await;
        }
    }

    /// A pack of this epoch is final. As long as a transaction lives, a deletion that was sent before may still come.
    async fn take_stock(self: &Arc<Self>) -> Result<(), UpkeepError> {
        self.outlive_transactions().await;
        let listed: HashSet<_> = self.chain.files().await?.into_iter().collect();
        let (epoch, packs) = (self.ledger.epoch(), self.ledger.all());
        let older = packs
            .iter()
            .filter(|pack| pack.epoch < epoch && pack.state == PackState::Confirmed);
        let unlisted = older.filter(|pack| !listed.contains(&pack.encoded().fid));
        let (gone, mut unseen) = self.part_unlisted(unlisted.cloned().collect()).await?;
        let now_s = self.clock.wall().as_secs();
        let upkeep = self.clone();
        self.blocking(move || {
            let alive = match gone.is_empty() {
                true => None,
                false => upkeep.alive_in(&gone)?,
            };
            // Where nobody knows what lives, everything may.
            let is_dead = |seq: &&PackSeq| alive.as_ref().is_some_and(|alive| !alive.contains(*seq));
            for seq in gone.iter().filter(is_dead) {
                upkeep.ledger.update(*seq, crate::ledger::Durable::Now, |pack| {
                    pack.state = PackState::Gone;
                    pack.changed_at_s = now_s;
                    pack.drain = Some(Drain {
                        cause: DrainCause::Dead,
                        since_s: now_s,
                        checkpoint: None,
                    });
                })?;
            }
            unseen.extend(gone.iter().filter(|seq| !is_dead(seq)));
            if !unseen.is_empty() {
                upkeep.ledger.mark_unseen(unseen)?;
            }
            upkeep.ledger.settle_inheritance()
        })
        .await
    }

    /// Of packs that the list lacks, those that are gone unless something lives in them, and those that are not, whatever lives: a
    /// snapshot needs them, or the file is there. A list may be short because a node withholds, or because the chain dropped it
    /// with another territory, and what is forgotten here can be neither read nor given back any more.
    async fn part_unlisted(
        &self,
        packs: Vec<Arc<PackRecord>>,
    ) -> Result<(HashSet<PackSeq>, Vec<PackSeq>), UpkeepError> {
        let pinned = self.builder.pinned();
        let (kept, others): (Vec<_>, Vec<_>) = packs.into_iter().partition(|pack| is_pinned(pack, pinned));
        let mut unseen: Vec<PackSeq> = kept.into_iter().map(|pack| pack.seq).collect();
        let looks = others.into_iter().map(|pack| async move {
            let ours = self.is_ours(&pack).await;
            (pack.seq, ours)
        });
        let mut looks = futures::stream::iter(looks).buffer_unordered(SURVEYS_IN_FLIGHT);
        let mut gone = HashSet::new();
        while let Some((seq, ours)) = looks.next().await {
            match ours? {
                true => unseen.push(seq),
                false => drop(gone.insert(seq)),
            }
        }
        Ok((gone, unseen))
    }
}
