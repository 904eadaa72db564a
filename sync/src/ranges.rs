//! Ranges of packs that the network holds, from their miners.
//!
//! A range is asked of the miners that hold its data columns. If that is slow, fails or is not what it should be, it is decoded
//! from the same range of any four columns, which costs four times its bytes; hashes say nothing about ranges, so there the
//! tag alone decides. If that fails too, or a segment's ranges had to be decoded again and again and its neighbours are
//! wanted, the whole segment is rebuilt from any four fragments that match their hash on chain. Who asks says what it should
//! be: nothing is handed out that the asker's check (an AEAD tag) has not accepted (I9).
//!
//! Nobody waits for a miner that is known to be slow or failing: the way round it is taken at once.

mod rebuild;

use crate::chain::{Chain, StoredFile};
use crate::chunk_store::FetchError;
use crate::clock::Clock;
use crate::fragment_store::Fid;
use crate::ledger::PackRecord;
use crate::limits::{
    COLUMNS, DECODED_SEGMENTS_KEPT, HOLDERS_KEPT, RANGES_BEFORE_REBUILD, REBUILDS_IN_FLIGHT, SEGMENT_CACHE_COUNT,
};
use crate::miners::Miners;
use crate::pack::pieces;
use crate::tasks::Tasks;
use bytes::Bytes;
use cessfs_crypto::AccountId;
use futures::future::{Either, select, try_join_all};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
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
    /// How often ranges of a segment were decoded from other columns.
    decoded: Mutex<LruCache<(Fid, u32), u32>>,
    rebuilds: Semaphore,
}

/// What to do when the holders of the data columns do not give a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Neighbours {
    /// Rebuild the segment once that has happened a few times: the bytes beside it are likely to be asked for next.
    Wanted,
    /// Decode just the range.
    Unwanted,
}

/// Turns bytes into what was asked for, or says why they are not it.
pub(crate) trait Accept<T>: Fn(&[u8]) -> Result<T, String> + Sync {}

impl<T, F: Fn(&[u8]) -> Result<T, String> + Sync> Accept<T> for F {}

impl Ranges {
    pub(crate) fn new(parts: RangesParts) -> Ranges {
        let count = |limit| NonZeroUsize::new(limit).expect("the limit is not zero");
        Ranges {
            parts,
            segments: Mutex::new(LruCache::new(count(SEGMENT_CACHE_COUNT))),
            holders: Mutex::new(LruCache::new(count(HOLDERS_KEPT))),
            decoded: Mutex::new(LruCache::new(count(DECODED_SEGMENTS_KEPT))),
            rebuilds: Semaphore::new(REBUILDS_IN_FLIGHT),
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
        if self.lags(pack, &range) {
            let round = self.degraded(pack, range.clone(), neighbours, &accept).await;
            return match round {
                Err(error) => self.direct(pack, range, &accept).await.map_err(|_| error),
                got => got,
            };
        }
        let mut direct = pin!(self.direct(pack, range.clone(), &accept));
        let delay = self.parts.miners.hedge_delay();
        let early = tokio::select! {
            biased;
            got = &mut direct => Some(got),
            () = self.parts.clock.sleep(delay) => None,
        };
        match early {
            Some(Ok(got)) => return Ok(got),
            Some(Err(_)) => return self.degraded(pack, range, neighbours, &accept).await,
            None => self.overdue(pack, &range, delay),
        }
        // Slow: whoever comes first. If the first to come has failed, the other one decides.
        match select(direct, pin!(self.degraded(pack, range, neighbours, &accept))).await {
            Either::Left((Ok(got), _)) | Either::Right((Ok(got), _)) => Ok(got),
            Either::Left((Err(_), rebuilt)) => rebuilt.await,
            Either::Right((Err(error), direct)) => direct.await.map_err(|_| error),
        }
    }

    /// Whether one of those who hold the range is not worth waiting for. Now and then it is asked all the same, by nobody.
    fn lags(&self, pack: &PackRecord, range: &Range<u64>) -> bool {
        let encoded = pack.encoded();
        let mut lags = false;
        for piece in pieces(range.start, (range.end - range.start) as u32) {
            let holder = self.holders(pack, piece.segment)[usize::from(piece.column)];
            if !self.parts.miners.lags(holder) {
                continue;
            }
            lags = true;
            if self.parts.miners.explores() {
                let hash = encoded.segments[piece.segment as usize].fragments[usize::from(piece.column)];
                let (miners, fid) = (self.parts.miners.clone(), encoded.fid);
                self.parts.tasks.spawn(async move {
                    // What it says is booked as its reputation; the bytes are nobody's.
                    let _ = miners.get(holder, fid, hash, piece.range).await;
                });
            }
        }
        lags
    }

    /// The holders of the range have taken so long.
    fn overdue(&self, pack: &PackRecord, range: &Range<u64>, waited: Duration) {
        for piece in pieces(range.start, (range.end - range.start) as u32) {
            let holder = self.holders(pack, piece.segment)[usize::from(piece.column)];
            self.parts.miners.overdue(holder, waited);
        }
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
        let parts = try_join_all(gets).await.map_err(|error| error.to_string())?;
        let accepted = accept(&parts.concat());
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
        accept(&bytes).ok()
    }

    /// From other columns than those that hold it.
    async fn degraded<T>(
        &self,
        pack: &PackRecord,
        range: Range<u64>,
        neighbours: Neighbours,
        accept: &impl Accept<T>,
    ) -> Result<T, FetchError> {
        if (neighbours == Neighbours::Unwanted || !self.often_decoded(pack, &range))
            && let Some(got) = self.decoded(pack, range.clone(), accept).await
        {
            return Ok(got);
        }
        self.rebuilt(pack, range, accept).await
    }

    /// Counts that ranges of these segments are decoded; true if that was done often enough.
    fn often_decoded(&self, pack: &PackRecord, range: &Range<u64>) -> bool {
        let fid = pack.encoded().fid;
        let mut counts = self.decoded.lock();
        let mut often = false;
        for piece in pieces(range.start, (range.end - range.start) as u32) {
            let count = counts.get_or_insert_mut((fid, piece.segment), || 0);
            *count += 1;
            often |= *count > RANGES_BEFORE_REBUILD;
        }
        often
    }

    /// Out of the same range of any four columns; `None` if fewer than four answered, or one of them lied.
    async fn decoded<T>(&self, pack: &PackRecord, range: Range<u64>, accept: &impl Accept<T>) -> Option<T> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        for piece in pieces(range.start, (range.end - range.start) as u32) {
            bytes.extend_from_slice(&self.piece(pack, &piece).await?);
        }
        accept(&bytes).ok()
    }

    /// Out of segments rebuilt for it.
    async fn rebuilt<T>(&self, pack: &PackRecord, range: Range<u64>, accept: &impl Accept<T>) -> Result<T, FetchError> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        for piece in pieces(range.start, (range.end - range.start) as u32) {
            let segment = self.segment(pack, piece.segment).await?;
            bytes.extend_from_slice(rebuild::slice(&segment, &piece));
        }
        accept(&bytes).map_err(|error| {
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
