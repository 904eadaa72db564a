//! One column of a pack: one fragment of every segment to one miner, and its report.
//!
//! ```text
//! choose a miner --> send all segments --> wait for its report --> done
//!       ^                  | attempts used up       | deadline passed
//!       +------------------+------------------------+
//! ```

use super::backoff::Backoff;
use super::body::read_column;
use super::place::Placement;
use super::rows::rows_per_fragment;
use super::{Pipeline, staging_lost};
use crate::erasure::sha256;
use crate::fragment_store::{FragmentBody, MinerError};
use crate::ledger::{Blocked, Column, Durable};
use crate::limits::{
    CHAIN_POLL_MAX, COLUMNS, PUT_ATTEMPTS_MAX, REPORT_BLOCKS, REPORT_DEADLINE, RETRY_DELAY_MAX, RETRY_DELAY_MIN,
    fragment_bytes,
};
use crate::staging::store_error;
use crate::store::StoreError;
use cessfs_crypto::{AccountId, PackSeq};
use futures::StreamExt;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

/// Why a column starts over.
enum Setback {
    /// This miner will not do.
    Miner(AccountId, String),
    /// Something that another miner would not change.
    Blocked(Blocked),
}

impl From<Blocked> for Setback {
    fn from(reason: Blocked) -> Setback {
        Setback::Blocked(reason)
    }
}

impl Pipeline {
    /// Ends when the chain has a report for the column.
    pub(super) async fn column(&self, placement: &Placement, column: u8) {
        let mut backoff = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
        loop {
            let setback = tokio::select! {
                biased;
                () = reported(placement, column) => return,
                tried = self.try_column(placement, column) => tried,
            };
            match setback {
                Setback::Miner(miner, why) => {
                    let trouble = format!("{} replaced: {why}", miner.to_ss58(cessfs_crypto::SS58_PREFIX));
                    self.errors
                        .push(format!("pack {} column {column}: {trouble}", placement.pack.seq.0));
                    self.progress
                        .change(placement.pack.seq, column, |progress| progress.trouble = Some(trouble));
                    placement.shunned.lock().await.insert(miner);
                    self.unassign(placement, column, miner).await;
                }
                Setback::Blocked(lost @ Blocked::Staging(_)) => {
                    let _ = placement.unreadable.set(lost);
                }
                Setback::Blocked(reason) => self.block(placement.pack.seq, reason),
            }
            self.pause(backoff.next(&self.dice)).await;
        }
    }

    /// One miner's turn; comes back only with the reason why it is over without a report.
    async fn try_column(&self, placement: &Placement, column: u8) -> Setback {
        let (miner, delivered) = match self.assigned(placement, column).await {
            Ok(assigned) => assigned,
            Err(reason) => return reason.into(),
        };
        if !delivered && let Err(setback) = self.deliver(placement, column, miner).await {
            return setback;
        }
        self.had_its_time(placement).await;
        Setback::Miner(
            miner,
            format!("took its fragments but did not report in {REPORT_DEADLINE:?}"),
        )
    }

    /// A miner had its time to report, by the clock and by the blocks that were looked at: while the chain is away, or nothing becomes
    /// final, no report can be seen, and whatever was sent would be sent to others again and again.
    async fn had_its_time(&self, placement: &Placement) {
        let looked_at = || placement.looked_at.load(Ordering::Acquire);
        let mut began = looked_at();
        self.clock.sleep(REPORT_DEADLINE).await;
        loop {
            let now = looked_at();
            if began == 0 {
                began = now;
            }
            // A height that was forgotten as a mistake lies far above what comes after it.
            if now.abs_diff(began) >= REPORT_BLOCKS {
                return;
            }
            self.clock.sleep(CHAIN_POLL_MAX).await;
        }
    }

    /// The column's miner, chosen now if it has none: outside the other columns, and not one that failed this pack if there
    /// is any other.
    async fn assigned(&self, placement: &Placement, column: u8) -> Result<(AccountId, bool), Blocked> {
        let seq = placement.pack.seq;
        let shunned = placement.shunned.lock().await;
        let record = self
            .ledger
            .get(seq)
            .expect("a pack stays in the ledger while it is driven");
        let Column { miner, delivered } = record.columns[usize::from(column)];
        if let Some(miner) = miner {
            return Ok((miner, delivered));
        }
        let taken: HashSet<AccountId> = record.columns.iter().filter_map(|column| column.miner).collect();
        let room = u64::from(record.segments) * fragment_bytes() as u64;
        let avoided = &taken | &shunned;
        let mut willing = self.miners.willing(room, 1, &avoided).await?;
        if willing.is_empty() {
            willing = self.miners.willing(room, 1, &taken).await?;
        }
        let Some(miner) = willing.pop() else {
            return Err(Blocked::FewMiners {
                willing: taken.len() as u32,
                wanted: COLUMNS as u32,
            });
        };
        self.advance(seq, Durable::Eventually, move |pack| {
            pack.columns[usize::from(column)] = Column {
                miner: Some(miner),
                delivered: false,
            };
        })
        .await?;
        Ok((miner, false))
    }

    async fn unassign(&self, placement: &Placement, column: u8, miner: AccountId) {
        let unassigned = self.advance(placement.pack.seq, Durable::Eventually, move |pack| {
            let column = &mut pack.columns[usize::from(column)];
            if column.miner == Some(miner) {
                *column = Column::default();
            }
        });
        if let Err(reason) = unassigned.await {
            self.block(placement.pack.seq, reason);
        }
    }

    async fn deliver(&self, placement: &Placement, column: u8, miner: AccountId) -> Result<(), Setback> {
        let seq = placement.pack.seq;
        self.progress.change(seq, column, |progress| progress.sent_bytes = 0);
        for segment in 0..placement.pack.segments {
            self.deliver_fragment(placement, segment, column, miner).await?;
            self.progress
                .change(seq, column, |progress| progress.sent_bytes += fragment_bytes() as u64);
        }
        self.advance(seq, Durable::Eventually, move |pack| {
            let column = &mut pack.columns[usize::from(column)];
            // Meanwhile the chain may have attributed the column to somebody else.
            column.delivered |= column.miner == Some(miner);
        })
        .await?;
        Ok(())
    }

    async fn deliver_fragment(
        &self,
        placement: &Placement,
        segment: u32,
        column: u8,
        miner: AccountId,
    ) -> Result<(), Setback> {
        let mut backoff = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
        for attempt in 1.. {
            let Err(error) = self.put_fragment(placement, segment, column, miner).await? else {
                break;
            };
            if attempt == PUT_ATTEMPTS_MAX {
                self.check_body(placement, segment, column).await?;
                return Err(Setback::Miner(miner, error.to_string()));
            }
            self.pause(backoff.next(&self.dice)).await;
        }
        Ok(())
    }

    /// A miner may have refused a fragment because it is not what was encoded: then no other would take it.
    async fn check_body(&self, placement: &Placement, segment: u32, column: u8) -> Result<(), Blocked> {
        let (staging, seq) = (self.staging.clone(), placement.pack.seq);
        let hashed = self.blocking(move || {
            let body = staging.body(seq).map_err(store_error)?;
            let fragment = read_column(&body, segment, column, 0..fragment_bytes() as u32);
            Ok(sha256(&fragment.map_err(store_error)?))
        });
        let expected = placement.pack.encoded().segments[segment as usize].fragments[usize::from(column)];
        match hashed.await.map_err(staging_lost)? == expected {
            true => Ok(()),
            false => Err(staging_lost("it is not what it was when it was encoded")),
        }
    }

    /// Sends a fragment; it is made piece by piece while it is being sent.
    async fn put_fragment(
        &self,
        placement: &Placement,
        segment: u32,
        column: u8,
        miner: AccountId,
    ) -> Result<Result<(), MinerError>, Setback> {
        let mut lane = self.lanes.enter().await;
        self.uplink.turn(fragment_bytes() as u64).await;
        lane.begin();
        let encoded = placement.pack.encoded();
        let hash = encoded.segments[segment as usize].fragments[usize::from(column)];
        let lost = Arc::new(OnceLock::new());
        let body = self.fragment(placement.pack.seq, segment, column, lost.clone());
        let sent = tokio::select! {
            biased;
            sent = self.miners.put(miner, encoded.fid, hash, body) => sent,
            () = lane.overdue() => {
                self.miners.failed(miner);
                Err(MinerError::Unreachable("it takes far longer than others".into()))
            }
        };
        let is_slowest = match &sent {
            Ok(()) => {
                lane.arrived();
                false
            }
            Err(_) => lane.given_up(),
        };
        // A body that could not be read breaks the request off; the miner is not to blame.
        match (lost.get(), sent) {
            (Some(error), _) => Err(staging_lost(error).into()),
            (None, Err(error)) if is_slowest => Err(Setback::Miner(miner, error.to_string())),
            (None, sent) => Ok(sent),
        }
    }

    /// The pieces of a fragment; why they end before their time is left in `lost`.
    fn fragment(&self, seq: PackSeq, segment: u32, column: u8, lost: Arc<OnceLock<StoreError>>) -> FragmentBody {
        let rows = self.rows.clone();
        let pieces = (0..rows_per_fragment()).map(move |row| {
            let (rows, lost) = (rows.clone(), lost.clone());
            async move {
                rows.part(seq, (segment, row), column).await.map_err(|error| {
                    let told = std::io::Error::other(error.to_string());
                    let _ = lost.set(error);
                    told
                })
            }
        });
        futures::stream::iter(pieces).buffered(1).boxed()
    }
}

async fn reported(placement: &Placement, column: u8) {
    placement.reported.until(|reported| reported[usize::from(column)]).await;
}
