//! Stored -> Confirmed: random ranges of every column, read back from its miner and compared with the staged body.
//!
//! A miner that gives nothing or something else keeps the pack Stored and its body staged. An owner cannot repair a fragment
//! in place (F6), so reading back is simply tried again: most miners that fail are restarting or busy. Where it goes on failing
//! although this machine's network is fine, the miner lies or is gone for good, and the pack is Doubted: what is in it is sent again
//! ([`Upkeep::replace`](crate::upkeep)), to others; it itself waits here until all of that is Confirmed.
//!
//! The twelve are to be distinct (I8), and declarations see to it. The network's own repair only keeps a miner from taking a fragment
//! that it has: it may come to hold two columns. The second of them counts as not given back.

use super::body::read_column;
use super::reconcile::OnChain;
use super::{Pipeline, staging_lost};
use crate::chain::StoredFile;
use crate::fragment_store::MinerError;
use crate::ledger::{Blocked, Durable, PackRecord, PackState};
use crate::limits::{
    COLUMNS, READ_BACK_ANSWERS_MIN, VERIFY_COLUMNS_IN_FLIGHT, VERIFY_RANGES_PER_COLUMN, fragment_bytes,
    verify_range_bytes,
};
use crate::rules::{Rule, holds};
use crate::staging::store_error;
use cessfs_crypto::{AccountId, PackSeq, SS58_PREFIX};
use futures::StreamExt;
use std::ops::Range;
use std::time::Duration;

/// Since when one pack has not been given back whole, in this run, while enough miners answered, its own or others.
#[derive(Default)]
pub(super) struct Patience(Option<Duration>);

/// What is wrong with a column.
struct Trouble {
    miner: AccountId,
    what: String,
    /// The miner answered, though not what it should have.
    answered: bool,
    /// It is the miner's doing.
    blamed: bool,
}

/// The chain names the holders of the columns that the record does.
fn held_as_known(pack: &PackRecord, file: &StoredFile) -> bool {
    let (_, holders) = &file.segments[0];
    let known = pack.columns.iter().map(|column| column.miner);
    known.eq(holders.iter().map(|miner| Some(*miner)))
}

/// The miner of a column holds an earlier one, too.
fn held_twice(pack: &PackRecord, column: usize) -> Option<Trouble> {
    let miner = pack.columns[column].miner?;
    let first = pack.columns[..column]
        .iter()
        .position(|other| other.miner == Some(miner))?;
    Some(Trouble {
        miner,
        what: format!(
            "column {column} at {}: it has column {first}, too",
            miner.to_ss58(SS58_PREFIX)
        ),
        answered: true,
        blamed: false,
    })
}

impl Pipeline {
    /// Reads ranges of all columns back: Stored -> Confirmed, or -> Doubted when `patience` is over.
    pub(super) async fn verify(&self, pack: &PackRecord, patience: &mut Patience) -> Result<(), Blocked> {
        if !holds(Rule::ReadBack) {
            return self.confirm(pack.seq).await;
        }
        let _permit = self.verifies.acquire().await.expect("the semaphore is never closed");
        let columns = (0..COLUMNS as u8).map(|column| self.verify_column(pack, column));
        let outcomes: Vec<_> = futures::stream::iter(columns)
            .buffered(VERIFY_COLUMNS_IN_FLIGHT)
            .collect()
            .await;
        let mut troubles = Vec::new();
        for (column, outcome) in outcomes.into_iter().enumerate() {
            let trouble = outcome?.or_else(|| held_twice(pack, column));
            self.progress.change(pack.seq, column as u8, |progress| {
                progress.reported = true;
                progress.trouble = trouble.as_ref().map(|trouble| trouble.what.clone());
            });
            troubles.extend(trouble);
        }
        if troubles.is_empty() {
            return self.confirm(pack.seq).await;
        }
        let what: Vec<&str> = troubles.iter().map(|trouble| trouble.what.as_str()).collect();
        let what = what.join("; ");
        if !self.is_over(pack, patience, &troubles).await {
            return Err(Blocked::ReadBack(what));
        }
        // The network may have given a column to somebody else meanwhile (F6).
        if let OnChain::File(file) = self.reconcile(pack).await?
            && !held_as_known(pack, &file)
        {
            *patience = Patience::default();
            return self.enter_stored(pack, &file).await;
        }
        let blamed = troubles.iter().filter(|trouble| trouble.blamed);
        blamed.for_each(|trouble| self.miners.distrust(trouble.miner));
        self.doubt(pack.seq, what).await
    }

    async fn confirm(&self, seq: PackSeq) -> Result<(), Blocked> {
        self.advance(seq, Durable::Now, |pack| pack.state = PackState::Confirmed)
            .await?;
        self.confirmed.lock().insert(seq, self.clock.monotonic());
        Ok(())
    }

    /// When a pack was Confirmed (monotonic), if it was in this run.
    pub(crate) fn confirmed_at(&self, seq: PackSeq) -> Option<Duration> {
        self.confirmed.lock().get(&seq).copied()
    }

    /// The miners that did not give their columns back had their time. It passes only while this machine's own network is there: so
    /// many of the twelve answer, or others in place of those that lack.
    async fn is_over(&self, pack: &PackRecord, patience: &mut Patience, troubles: &[Trouble]) -> bool {
        let silent = troubles.iter().filter(|trouble| !trouble.answered).count();
        let lacking = READ_BACK_ANSWERS_MIN.saturating_sub(COLUMNS - silent);
        if lacking > 0 {
            let holders = pack.columns.iter().filter_map(|column| column.miner).collect();
            if !self.miners.reaches(lacking, &holders).await {
                patience.0 = None;
                return false;
            }
        }
        let now = self.clock.monotonic();
        let since = *patience.0.get_or_insert(now);
        now.saturating_sub(since) >= self.read_back
    }

    /// -> Doubted.
    pub(super) async fn doubt(&self, seq: PackSeq, why: String) -> Result<(), Blocked> {
        self.errors
            .push(format!("pack {}: {}", seq.0, Blocked::Doubted(why.clone())));
        let builder = self.builder.clone();
        let doubted = self.blocking(move || {
            builder.doubt(seq, why)?;
            builder.wake_submitters();
            Ok(())
        });
        doubted.await.map_err(|error| Blocked::Journal(error.to_string()))
    }

    /// Doubted -> Draining: waits until all that lives in the pack, and a checkpoint that says so, are Confirmed in others, so that
    /// whoever waits for this pack to be on the network has what he waits for.
    pub(super) async fn await_replacement(&self, seq: PackSeq) -> Result<(), Blocked> {
        loop {
            let version = self.ledger.version();
            let pack = self
                .ledger
                .get(seq)
                .expect("a pack stays in the ledger while it is driven");
            let checkpoint = pack.drain.and_then(|drain| drain.checkpoint);
            // What moved may be in any pack up to the checkpoint. One of those may be doubted, too; the last is not waited for.
            let is_there = |until: u64| {
                let unconfirmed = self.ledger.unconfirmed();
                unconfirmed.iter().all(|other| other.seq <= seq || other.seq.0 > until)
            };
            if checkpoint.is_some_and(is_there) {
                break;
            }
            self.ledger.changed_since(version).await;
        }
        self.advance(seq, Durable::Now, |pack| pack.state = PackState::Draining)
            .await?;
        Ok(())
    }

    /// What is wrong with a column, if anything.
    async fn verify_column(&self, pack: &PackRecord, column: u8) -> Result<Option<Trouble>, Blocked> {
        let miner = pack.columns[usize::from(column)]
            .miner
            .expect("a Stored pack knows its miners; decode refuses others");
        for _ in 0..VERIFY_RANGES_PER_COLUMN {
            let segment = self.dice.below(u64::from(pack.segments)) as u32;
            let start = self.dice.below((fragment_bytes() - verify_range_bytes()) as u64 + 1) as u32;
            let range = start..start + verify_range_bytes() as u32;
            if let Some((why, answered)) = self.verify_range(pack, column, miner, segment, range).await? {
                let what = format!("column {column} at {}: {why}", miner.to_ss58(SS58_PREFIX));
                let blamed = true;
                return Ok(Some(Trouble {
                    miner,
                    what,
                    answered,
                    blamed,
                }));
            }
        }
        Ok(None)
    }

    /// What is wrong with what the miner gives, if anything, and whether it answered at all.
    async fn verify_range(
        &self,
        pack: &PackRecord,
        column: u8,
        miner: AccountId,
        segment: u32,
        range: Range<u32>,
    ) -> Result<Option<(String, bool)>, Blocked> {
        let (staging, seq, wanted) = (self.staging.clone(), pack.seq, range.clone());
        let expected = self.blocking(move || {
            let body = staging.body(seq).map_err(store_error)?;
            read_column(&body, segment, column, wanted).map_err(store_error)
        });
        let expected = expected.await.map_err(staging_lost)?;
        let encoded = pack.encoded();
        let hash = encoded.segments[segment as usize].fragments[usize::from(column)];
        Ok(match self.miners.get(miner, encoded.fid, hash, range).await {
            Ok(bytes) if bytes == expected => None,
            Ok(_) => {
                self.miners.failed(miner);
                Some(("gave back other bytes than it was given".into(), true))
            }
            Err(error) => Some((error.to_string(), !matches!(error, MinerError::Unreachable(_)))),
        })
    }
}
