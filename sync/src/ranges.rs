//! Ranges of packs that the network holds, from their miners.
//!
//! A range is asked of the miners that hold its data columns. If that is slow, fails or is not what it should be, it is decoded
//! from the same range of any four other columns; hashes say nothing about ranges, so there the tag alone decides. If that
//! fails too, or one range after the other was read this way, the whole segment is rebuilt from any four fragments that match
//! their hash on chain. Who asks says what it should be: nothing is handed out that the asker's check (an AEAD tag) has not
//! accepted (I9).
//!
//! A miner that was slow or failed when it was asked last is gone round at once, and tried beside that with a small range: the
//! first answer in time makes it one that is asked again.

mod detours;
mod rebuild;

use crate::chain::{Chain, StoredFile};
use crate::chunk_store::FetchError;
use crate::clock::Clock;
use crate::fragment_store::Fid;
use crate::ledger::PackRecord;
use crate::limits::{COLUMNS, HEDGES_IN_FLIGHT, HOLDERS_KEPT, REBUILDS_IN_FLIGHT, SEGMENT_CACHE_COUNT, TRIAL_BYTES};
use crate::miners::Miners;
use crate::pack::{Piece, pieces};
use crate::tasks::Tasks;
use bytes::Bytes;
use cessfs_crypto::AccountId;
use detours::Detours;
use futures::future::{Either, select, try_join_all};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What ranges are read with.
pub(crate) struct RangesParts {
    pub(crate) chain: Arc<dyn Chain>,
    pub(crate) miners: Arc<Miners>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: Tasks,
}

pub(crate) struct Ranges {
    parts: RangesParts,
    /// Segments that were rebuilt: their neighbours are likely to be asked for next.
    segments: Mutex<LruCache<(Fid, u32), Bytes>>,
    /// Holders asked of the chain again because those in the journal did not answer, by segment.
    holders: Mutex<LruCache<Fid, Arc<Vec<[AccountId; COLUMNS]>>>>,
    rebuilds: Semaphore,
    hedges: Semaphore,
    detours: Mutex<Detours>,
}

/// What to do when the holders of the data columns do not give a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Neighbours {
    /// The bytes beside it may be asked for next: if they are, the segment is rebuilt.
    Wanted,
    /// Only this range is decoded, whatever was read before.
    Unwanted,
}

/// Turns bytes into what was asked for, or says why they are not it.
pub(crate) trait Accept<T>: Fn(Bytes) -> Result<T, String> + Sync {}

impl<T, F: Fn(Bytes) -> Result<T, String> + Sync> Accept<T> for F {}

impl Ranges {
    pub(crate) fn new(parts: RangesParts) -> Ranges {
        let count = |limit| NonZeroUsize::new(limit).expect("the limit is not zero");
        Ranges {
            parts,
            segments: Mutex::new(LruCache::new(count(SEGMENT_CACHE_COUNT))),
            holders: Mutex::new(LruCache::new(count(HOLDERS_KEPT))),
            rebuilds: Semaphore::new(REBUILDS_IN_FLIGHT),
            hedges: Semaphore::new(HEDGES_IN_FLIGHT),
            detours: Mutex::default(),
        }
    }

    /// Bytes of a Stored pack, once `accept` took them.
    ///
    /// # Errors
    /// `Unavailable`: fewer than four good fragments answered, or all of them say what `accept` refuses.
    pub(crate) async fn read<T>(
        &self,
        pack: &PackRecord,
        range: Range<u64>,
        neighbours: Neighbours,
        accept: impl Accept<T>,
    ) -> Result<T, FetchError> {
        if let Some(got) = self.rebuilt_before(pack, range.clone(), &accept) {
            return Ok(got);
        }
        if self.goes_round(pack, &range) {
            return match self.degraded(pack, range.clone(), neighbours, &accept).await {
                Ok(got) => Ok(got),
                Err(error) => self.direct(pack, range, &accept).await.map_err(|_| error),
            };
        }
        let mut direct = pin!(self.direct(pack, range.clone(), &accept));
        let early = tokio::select! {
            biased;
            got = &mut direct => Some(got),
            () = self.parts.clock.sleep(self.parts.miners.hedge_delay()) => None,
        };
        let others = async {
            let _permit = self.hedges.acquire().await.expect("the semaphore is never closed");
            self.degraded(pack, range.clone(), neighbours, &accept).await
        };
        let got = match early {
            Some(Ok(got)) => return Ok(got),
            Some(Err(_)) => self.degraded(pack, range.clone(), neighbours, &accept).await,
            // Slow: whoever comes first. If the first to come has failed, the other one decides.
            None => match select(direct, pin!(others)).await {
                Either::Left((Ok(got), _)) | Either::Right((Ok(got), _)) => Ok(got),
                Either::Left((Err(_), others)) => others.await,
                Either::Right((Err(error), direct)) => direct.await.map_err(|_| error),
            },
        };
        self.goes_round(pack, &range);
        got
    }

    /// Whether a holder of the range is to be gone round; each that is gets its chance to show that it does better.
    fn goes_round(&self, pack: &PackRecord, range: &Range<u64>) -> bool {
        let encoded = pack.encoded();
        let mut avoids = false;
        for piece in pieces(range.start, (range.end - range.start) as u32) {
            let Piece { segment, column, range } = piece;
            let holder = self.holders(pack, segment)[usize::from(column)];
            let miners = &self.parts.miners;
            if !miners.is_to_be_avoided(holder) {
                continue;
            }
            avoids = true;
            if miners.may_try(holder) {
                let (miners, fid) = (miners.clone(), encoded.fid);
                let fragment = encoded.segments[segment as usize].fragments[usize::from(column)];
                let bytes = range.start..range.end.min(range.start + TRIAL_BYTES);
                self.parts.tasks.spawn(async move {
                    // Only to learn how the miner does, which `miners` remembers: nobody wants the bytes.
                    let _ = miners.get(holder, fid, fragment, bytes).await;
                    miners.trial_over(holder);
                });
            }
        }
        avoids
    }

    /// As ranges from the holders of the data columns.
    async fn direct<T>(&self, pack: &PackRecord, range: Range<u64>, accept: &impl Accept<T>) -> Result<T, String> {
        let encoded = pack.encoded();
        let pieces = pieces(range.start, (range.end - range.start) as u32);
        let gets = pieces.iter().map(|piece| {
            let holder = self.holders(pack, piece.segment)[usize::from(piece.column)];
            let hash = encoded.segments[piece.segment as usize].fragments[usize::from(piece.column)];
            self.parts.miners.get(holder, encoded.fid, hash, piece.range.clone())
        });
        let mut parts = try_join_all(gets).await.map_err(|error| error.to_string())?;
        let bytes = match parts.len() {
            1 => parts.remove(0),
            _ => parts.concat().into(),
        };
        let accepted = accept(bytes);
        if accepted.is_err() {
            for piece in &pieces {
                let holder = self.holders(pack, piece.segment)[usize::from(piece.column)];
                self.parts.miners.failed(holder);
            }
        }
        accepted
    }

    /// Out of segments that are rebuilt already.
    fn rebuilt_before<T>(&self, pack: &PackRecord, range: Range<u64>, accept: &impl Accept<T>) -> Option<T> {
        let fid = pack.encoded().fid;
        let mut bytes = Vec::new();
        for piece in pieces(range.start, (range.end - range.start) as u32) {
            let segment = self.segments.lock().get(&(fid, piece.segment)).cloned()?;
            bytes.extend_from_slice(rebuild::slice(&segment, &piece));
        }
        accept(bytes.into()).ok()
    }

    /// From other columns than those that hold it.
    async fn degraded<T>(
        &self,
        pack: &PackRecord,
        range: Range<u64>,
        neighbours: Neighbours,
        accept: &impl Accept<T>,
    ) -> Result<T, FetchError> {
        let goes_on = self.detours.lock().goes_on(pack.encoded().fid, &range);
        if (neighbours == Neighbours::Unwanted || !goes_on)
            && let Some(got) = self.decoded(pack, range.clone(), accept).await
        {
            return Ok(got);
        }
        self.rebuilt(pack, range, accept).await
    }

    /// Out of the same range of any four columns; `None` if fewer than four answered, or one of them lied.
    async fn decoded<T>(&self, pack: &PackRecord, range: Range<u64>, accept: &impl Accept<T>) -> Option<T> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        for piece in pieces(range.start, (range.end - range.start) as u32) {
            bytes.extend_from_slice(&self.piece(pack, &piece).await?);
        }
        accept(bytes.into()).ok()
    }

    /// Out of segments rebuilt for it.
    async fn rebuilt<T>(&self, pack: &PackRecord, range: Range<u64>, accept: &impl Accept<T>) -> Result<T, FetchError> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        for piece in pieces(range.start, (range.end - range.start) as u32) {
            let segment = self.segment(pack, piece.segment).await?;
            bytes.extend_from_slice(rebuild::slice(&segment, &piece));
        }
        accept(bytes.into()).map_err(|error| {
            let seq = pack.seq.0;
            FetchError::Unavailable(format!("pack {seq}: all fragments match their hashes, but: {error}"))
        })
    }

    /// Who holds the columns of a segment, as last told by the chain.
    fn holders(&self, pack: &PackRecord, segment: u32) -> [AccountId; COLUMNS] {
        let asked = self.holders.lock().get(&pack.encoded().fid).cloned();
        let again = asked.and_then(|holders| holders.get(segment as usize).copied());
        again.unwrap_or_else(|| {
            pack.columns.map(|column| {
                column
                    .miner
                    .expect("a Stored pack knows its miners; decode refuses others")
            })
        })
    }

    /// Remembers who holds the columns of a file's segments.
    fn learn(&self, fid: Fid, file: &StoredFile) {
        let holders = file.segments.iter().map(|(_, holders)| *holders).collect();
        self.holders.lock().put(fid, Arc::new(holders));
    }
}
