//! Looking at what miners hold.
//!
//! | look | asks | finds |
//! |---|---|---|
//! | sample | the file on chain; one range of 64 KiB of one segment from all twelve holders, compared with each other; whole fragments only of holders that stand out, or failed an audit of the network | miners that are away, lost everything, or damaged much |
//! | full | every fragment, hashed and compared with the chain | every wrong byte |
//!
//! A look that finds the chain away finds nothing: what is not known is not written down. One that reaches fewer than four miners of the
//! twelve blames nobody for silence, unless others show that this machine's own network is fine.

use super::health::{Health, Verdict};
use super::odd::odd_ones;
use super::{Upkeep, UpkeepError};
use crate::chain::StoredFile;
use crate::erasure::sha256;
use crate::fragment_store::MinerError;
use crate::ledger::PackRecord;
use crate::limits::{COLUMNS, READ_BACK_ANSWERS_MIN, SCRUB_FRAGMENTS_IN_FLIGHT, fragment_bytes, scrub_range_bytes};
use cessfs_crypto::{AccountId, PackSeq};
use futures::StreamExt;
use std::time::Duration;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// One random range of every column.
    Sample,
    /// Every byte.
    Full,
}

/// Keeps what is read below a number of bytes a second, on average since it began.
pub(super) struct Pace {
    began: Duration,
    rate: u64,
    pub(super) bytes: u64,
}

impl Pace {
    pub(super) fn new(upkeep: &Upkeep, rate: u64) -> Pace {
        Pace {
            began: upkeep.clock.monotonic(),
            rate: rate.max(1),
            bytes: 0,
        }
    }

    /// Waits until so many more bytes are within the rate.
    async fn spend(&mut self, upkeep: &Upkeep, bytes: u64) {
        self.bytes += bytes;
        let due = self.began + Duration::from_secs_f64(self.bytes as f64 / self.rate as f64);
        let now = upkeep.clock.monotonic();
        if due > now {
            upkeep.clock.sleep(due - now).await;
        }
    }
}

impl Upkeep {
    /// Looks at one pack and writes down what was seen.
    pub(super) async fn scrub_pack(&self, seq: PackSeq, depth: Depth, pace: &mut Pace) -> Result<Health, UpkeepError> {
        let Some(pack) = self.ledger.get(seq) else {
            return Ok(Health::default());
        };
        let mut health = self.health.get(seq);
        let now_s = self.clock.wall().as_secs();
        let file = self.file_of(&pack).await?;
        let ours = |file: &StoredFile| {
            file.segments
                .iter()
                .map(|(hashes, _)| hashes)
                .eq(&pack.encoded().segments)
        };
        match file.filter(ours) {
            None => (0..COLUMNS as u8).for_each(|column| health.see(column, 0, Verdict::Dropped, now_s)),
            Some(file) => {
                let answered = match depth {
                    Depth::Sample => self.sample(&pack, &file, &mut health, now_s, pace).await?,
                    Depth::Full => self.read_all(&pack, &file, &mut health, now_s, pace).await?,
                };
                if !self.is_online(answered, &file).await {
                    health.excuse(now_s);
                }
                self.ask_chain_about_holders(&file, &mut health, now_s).await?;
            }
        }
        health.sampled_at_s = now_s;
        if depth == Depth::Full {
            health.read_at_s = now_s;
        }
        let book = self.health.clone();
        self.blocking(move || book.set(seq, health)).await?;
        Ok(health)
    }

    /// Enough miners answer for the silent ones to be to blame: so many of the file's own, and others in place of those that lack.
    async fn is_online(&self, answered: usize, file: &StoredFile) -> bool {
        let holders = file.segments.iter().flat_map(|(_, holders)| holders).copied();
        match READ_BACK_ANSWERS_MIN.saturating_sub(answered) {
            0 => true,
            lacking => self.miners.reaches(lacking, &holders.collect()).await,
        }
    }

    /// What the chain itself says: fragments given up, miners that leave or left, or that have two columns: they go together.
    async fn ask_chain_about_holders(
        &self,
        file: &StoredFile,
        health: &mut Health,
        now_s: u64,
    ) -> Result<(), UpkeepError> {
        self.miners.look().await?;
        for (segment, (_, holders)) in (0..).zip(&file.segments) {
            for (column, holder) in (0..).zip(holders) {
                let again = holders[..usize::from(column)].contains(holder);
                if again || self.miners.leaves(*holder) || file.unavailable.contains(&(segment, column)) {
                    health.see(column, segment, Verdict::Dropped, now_s);
                }
            }
        }
        Ok(())
    }

    /// One range of each column; how many miners answered.
    async fn sample(
        &self,
        pack: &PackRecord,
        file: &StoredFile,
        health: &mut Health,
        now_s: u64,
        pace: &mut Pace,
    ) -> Result<usize, UpkeepError> {
        // Every other look goes where a column was found bad: only there can it be seen to have been mended.
        let bad = health
            .columns
            .iter()
            .find(|c| matches!(c.verdict, Verdict::Missing | Verdict::Corrupt));
        let segment = match bad.filter(|_| self.dice.below(2) == 0) {
            Some(column) if column.segment < pack.segments => column.segment,
            _ => self.dice.below(u64::from(pack.segments)) as u32,
        };
        let start = self.dice.below((fragment_bytes() - scrub_range_bytes()) as u64 + 1) as u32;
        let range = start..start + scrub_range_bytes() as u32;
        let (hashes, holders) = &file.segments[segment as usize];
        let gets = (0..COLUMNS).map(|column| {
            let fid = pack.encoded().fid;
            self.miners
                .get(holders[column], fid, hashes.fragments[column], range.clone())
        });
        let answers = futures::future::join_all(gets).await;
        pace.spend(self, (COLUMNS * scrub_range_bytes()) as u64).await;
        let mut given = Vec::with_capacity(COLUMNS);
        let mut answered = 0;
        for (column, answer) in (0u8..).zip(answers) {
            answered += usize::from(!matches!(answer, Err(MinerError::Unreachable(_))));
            match answer {
                Ok(bytes) => given.push((column, bytes)),
                Err(error) => health.see(column, segment, verdict(&error), now_s),
            }
        }
        let columns: Vec<u8> = given.iter().map(|(column, _)| *column).collect();
        let suspects = self
            .blocking(move || Ok(odd_ones(&given)))
            .await?
            .unwrap_or(columns.clone());
        for column in columns {
            let holder = holders[usize::from(column)];
            let seen = match suspects.contains(&column) || self.miners.failed_audit(holder) {
                true => self.whole(pack, holder, segment, column, pace).await?,
                false => Verdict::Good,
            };
            health.see(column, segment, seen, now_s);
        }
        Ok(answered)
    }

    /// A whole fragment against its hash on chain.
    async fn whole(
        &self,
        pack: &PackRecord,
        holder: AccountId,
        segment: u32,
        column: u8,
        pace: &mut Pace,
    ) -> Result<Verdict, UpkeepError> {
        pace.spend(self, fragment_bytes() as u64).await;
        self.hashed(pack, holder, segment, column).await
    }

    async fn hashed(
        &self,
        pack: &PackRecord,
        holder: AccountId,
        segment: u32,
        column: u8,
    ) -> Result<Verdict, UpkeepError> {
        let encoded = pack.encoded();
        let hash = encoded.segments[segment as usize].fragments[usize::from(column)];
        match self
            .miners
            .get(holder, encoded.fid, hash, 0..fragment_bytes() as u32)
            .await
        {
            Err(error) => Ok(verdict(&error)),
            Ok(bytes) => {
                let right = self.blocking(move || Ok(sha256(&bytes) == hash)).await?;
                if !right {
                    self.miners.failed(holder);
                }
                Ok(if right { Verdict::Good } else { Verdict::Corrupt })
            }
        }
    }

    /// Every fragment; a column is what its worst segment is. How many miners answered.
    async fn read_all(
        &self,
        pack: &PackRecord,
        file: &StoredFile,
        health: &mut Health,
        now_s: u64,
        pace: &mut Pace,
    ) -> Result<usize, UpkeepError> {
        let mut worst = [(Verdict::Good, 0); COLUMNS];
        let mut answered = [false; COLUMNS];
        for segment in 0..pack.segments {
            pace.spend(self, (COLUMNS * fragment_bytes()) as u64).await;
            let holders = file.segments[segment as usize].1;
            let columns = (0..COLUMNS as u8).map(|column| async move {
                let seen = self.hashed(pack, holders[usize::from(column)], segment, column).await;
                (column, seen)
            });
            let mut columns = futures::stream::iter(columns).buffer_unordered(SCRUB_FRAGMENTS_IN_FLIGHT);
            while let Some((column, seen)) = columns.next().await {
                let seen = seen?;
                answered[usize::from(column)] |= seen != Verdict::Away;
                let before = &mut worst[usize::from(column)];
                if seen as u8 > before.0 as u8 {
                    *before = (seen, segment);
                }
            }
        }
        for (column, (verdict, segment)) in (0u8..).zip(worst) {
            // All segments were looked at: whatever was said of one of them is out of date.
            if verdict == Verdict::Good {
                health.columns[usize::from(column)].segment = segment;
            }
            health.see(column, segment, verdict, now_s);
        }
        Ok(answered.into_iter().filter(|answered| *answered).count())
    }
}

fn verdict(error: &MinerError) -> Verdict {
    match error {
        MinerError::Missing(_) => Verdict::Missing,
        MinerError::Wrong(_) => Verdict::Corrupt,
        MinerError::Unreachable(_) | MinerError::Refused(_) => Verdict::Away,
    }
}
