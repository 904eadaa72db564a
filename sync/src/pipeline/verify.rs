//! Stored -> Confirmed: random ranges of every column, read back from its miner and compared with the staged body.
//!
//! A miner that gives nothing or something else keeps the pack Stored and its body staged. An owner cannot repair a fragment
//! in place (F6), so reading back is simply tried again: most miners that fail are restarting or busy.

use super::body::read_column;
use super::{Pipeline, staging_lost};
use crate::ledger::{Blocked, Durable, PackRecord, PackState};
use crate::limits::{COLUMNS, VERIFY_COLUMNS_IN_FLIGHT, VERIFY_RANGES_PER_COLUMN, fragment_bytes, verify_range_bytes};
use crate::rules::{Rule, holds};
use crate::staging::store_error;
use cessfs_crypto::{AccountId, SS58_PREFIX};
use futures::StreamExt;
use std::ops::Range;

impl Pipeline {
    pub(super) async fn verify(&self, pack: &PackRecord) -> Result<(), Blocked> {
        if !holds(Rule::ReadBack) {
            self.advance(pack.seq, Durable::Now, |pack| pack.state = PackState::Confirmed)
                .await?;
            return Ok(());
        }
        let _permit = self.verifies.acquire().await.expect("the semaphore is never closed");
        let columns = (0..COLUMNS as u8).map(|column| self.verify_column(pack, column));
        let outcomes: Vec<_> = futures::stream::iter(columns)
            .buffered(VERIFY_COLUMNS_IN_FLIGHT)
            .collect()
            .await;
        let mut troubles = Vec::new();
        for (column, outcome) in outcomes.into_iter().enumerate() {
            let trouble = outcome?;
            self.progress.change(pack.seq, column as u8, |progress| {
                progress.reported = true;
                progress.trouble = trouble.clone();
            });
            troubles.extend(trouble);
        }
        if !troubles.is_empty() {
            return Err(Blocked::ReadBack(troubles.join("; ")));
        }
        self.advance(pack.seq, Durable::Now, |pack| pack.state = PackState::Confirmed)
            .await?;
        Ok(())
    }

    /// What is wrong with a column, if anything.
    async fn verify_column(&self, pack: &PackRecord, column: u8) -> Result<Option<String>, Blocked> {
        let miner = pack.columns[usize::from(column)]
            .miner
            .expect("a Stored pack knows its miners; decode refuses others");
        for _ in 0..VERIFY_RANGES_PER_COLUMN {
            let segment = self.dice.below(u64::from(pack.segments)) as u32;
            let start = self.dice.below((fragment_bytes() - verify_range_bytes()) as u64 + 1) as u32;
            let range = start..start + verify_range_bytes() as u32;
            if let Some(trouble) = self.verify_range(pack, column, miner, segment, range).await? {
                let miner = miner.to_ss58(SS58_PREFIX);
                return Ok(Some(format!("column {column} at {miner}: {trouble}")));
            }
        }
        Ok(None)
    }

    async fn verify_range(
        &self,
        pack: &PackRecord,
        column: u8,
        miner: AccountId,
        segment: u32,
        range: Range<u32>,
    ) -> Result<Option<String>, Blocked> {
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
                Some("gave back other bytes than it was given".into())
            }
            Err(error) => Some(error.to_string()),
        })
    }
}
