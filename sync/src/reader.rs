//! The reader: a chunk's plaintext from staging or from miners.
//!
//! A chunk that is still staged comes from there. Otherwise its frame is asked of the miner that holds the data column, as a
//! range; if that is slow, fails or does not open, the whole segment is rebuilt from any four fragments that match their hash on
//! chain. Promises (I9): what it returns passed the frame's AEAD tag; what it decodes from matched its hash; anything else is an
//! error that says how many answered. One fetch per chunk at a time, whoever asks.

mod cache;
mod rebuild;

use crate::builder::Builder;
use crate::chain::Chain;
use crate::chunk_store::FetchError;
use crate::clock::Clock;
use crate::fragment_store::Fid;
use crate::ledger::{Ledger, PackRecord, PackState, Place};
use crate::limits::{
    CHUNK_CACHE_BYTES, COLUMNS, FETCHES_IN_FLIGHT, HOLDERS_KEPT, PREFETCHES_IN_FLIGHT, REBUILDS_IN_FLIGHT,
    SEGMENT_CACHE_COUNT,
};
use crate::miners::Miners;
use crate::pack::{Piece, pieces};
use crate::staging::Staging;
use bytes::Bytes;
use cache::ChunkCache;
use cessfs_crypto::{AccountId, ChunkId, FrameId, VolumeKeys};
use futures::FutureExt;
use futures::future::{BoxFuture, Either, Shared, select, try_join_all};
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

type Flight = Shared<BoxFuture<'static, Result<Bytes, FetchError>>>;

/// What the reader works with.
pub(crate) struct ReaderParts {
    pub(crate) keys: VolumeKeys,
    pub(crate) chain: Arc<dyn Chain>,
    pub(crate) miners: Arc<Miners>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) builder: Arc<Builder>,
    pub(crate) staging: Staging,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runtime: Handle,
}

pub(crate) struct Reader {
    parts: ReaderParts,
    flights: Mutex<HashMap<ChunkId, Flight>>,
    chunks: Mutex<ChunkCache>,
    /// Segments that were rebuilt: their neighbours are likely to be asked for next.
    segments: Mutex<LruCache<(Fid, u32), Bytes>>,
    /// Holders asked of the chain again because those in the journal did not answer, by segment.
    holders: Mutex<LruCache<Fid, Arc<Vec<[AccountId; COLUMNS]>>>>,
    fetches: Semaphore,
    prefetches: Arc<Semaphore>,
    rebuilds: Semaphore,
}

/// A chunk's frame and the pack around it.
struct Target {
    id: ChunkId,
    place: Place,
    pack: Arc<PackRecord>,
}

impl Target {
    fn pieces(&self) -> Vec<Piece> {
        pieces(self.place.offset, self.place.len)
    }
}

impl Reader {
    pub(crate) fn new(parts: ReaderParts) -> Reader {
        let count = |limit| NonZeroUsize::new(limit).expect("the limit is not zero");
        Reader {
            parts,
            flights: Mutex::default(),
            chunks: Mutex::new(ChunkCache::new(CHUNK_CACHE_BYTES)),
            segments: Mutex::new(LruCache::new(count(SEGMENT_CACHE_COUNT))),
            holders: Mutex::new(LruCache::new(count(HOLDERS_KEPT))),
            fetches: Semaphore::new(FETCHES_IN_FLIGHT),
            prefetches: Arc::new(Semaphore::new(PREFETCHES_IN_FLIGHT)),
            rebuilds: Semaphore::new(REBUILDS_IN_FLIGHT),
        }
    }

    /// See [`crate::ChunkStore::fetch`]. Goes on if the caller loses interest: others may have joined.
    pub(crate) fn fetch(self: &Arc<Self>, id: ChunkId) -> BoxFuture<'static, Result<Bytes, FetchError>> {
        if let Some(bytes) = self.chunks.lock().get(id) {
            return futures::future::ready(Ok(bytes)).boxed();
        }
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&id) {
            return flight.clone().boxed();
        }
        let reader = self.clone();
        let task = self.parts.runtime.spawn(async move {
            let outcome = reader.load(id).await;
            if let Ok(bytes) = &outcome {
                reader.chunks.lock().put(id, bytes.clone());
            }
            reader.flights.lock().remove(&id);
            outcome
        });
        let landed = task.map(|joined| joined.unwrap_or_else(|error| Err(FetchError::Unavailable(error.to_string()))));
        let flight: Flight = landed.boxed().shared();
        flights.insert(id, flight.clone());
        flight.boxed()
    }

    /// See [`crate::ChunkStore::prefetch`].
    pub(crate) fn prefetch(self: &Arc<Self>, ids: &[ChunkId]) {
        for id in ids {
            if self.chunks.lock().contains(*id) || self.flights.lock().contains_key(id) {
                continue;
            }
            let Ok(permit) = self.prefetches.clone().try_acquire_owned() else {
                return;
            };
            let fetch = self.fetch(*id);
            self.parts.runtime.spawn(async move {
                // A hint has nobody to tell; whoever reads the chunk gets the error itself.
                let _ = fetch.await;
                drop(permit);
            });
        }
    }

    async fn load(&self, id: ChunkId) -> Result<Bytes, FetchError> {
        let place = self.parts.builder.find(id)?.ok_or(FetchError::Unknown)?;
        let staged = self
            .parts
            .ledger
            .get(place.seq)
            .is_none_or(|pack| pack.state < PackState::Confirmed);
        let why_not_staged = match staged {
            false => None,
            true => match self.read_staged(id, place).await {
                Ok(bytes) => return Ok(bytes),
                Err(why) => Some(why),
            },
        };
        // Asked again: a pack confirmed in between has no staged body any more.
        let pack = self.parts.ledger.get(place.seq).ok_or(FetchError::Unknown)?;
        if pack.state < PackState::Stored {
            let why = why_not_staged.unwrap_or_default();
            return Err(FetchError::Unavailable(format!(
                "pack {}: staged body: {why}",
                pack.seq.0
            )));
        }
        self.download(Target { id, place, pack }).await
    }

    async fn read_staged(&self, id: ChunkId, place: Place) -> Result<Bytes, String> {
        let staging = self.parts.staging.clone();
        let read = move || staging.read(place.seq, place.offset, place.len);
        let frame = self.parts.runtime.spawn_blocking(read).await;
        let frame = frame
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        self.open(id, &frame)
    }

    fn open(&self, id: ChunkId, frame: &[u8]) -> Result<Bytes, String> {
        match self.parts.keys.open(FrameId::Chunk(id), frame) {
            Ok(plaintext) => Ok(plaintext.into()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn download(&self, target: Target) -> Result<Bytes, FetchError> {
        let _permit = self.fetches.acquire().await.expect("the semaphore is never closed");
        if let Some(bytes) = self.rebuilt_before(&target) {
            return Ok(bytes);
        }
        let mut direct = pin!(self.direct(&target));
        let early = tokio::select! {
            got = &mut direct => Some(got),
            () = self.parts.clock.sleep(self.parts.miners.hedge_delay()) => None,
        };
        match early {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(_)) => self.rebuilt(&target).await,
            // Slow: whoever comes first. If the first to come has failed, the other one decides.
            None => match select(direct, pin!(self.rebuilt(&target))).await {
                Either::Left((Ok(bytes), _)) | Either::Right((Ok(bytes), _)) => Ok(bytes),
                Either::Left((Err(_), rebuilt)) => rebuilt.await,
                Either::Right((Err(error), direct)) => direct.await.map_err(|_| error),
            },
        }
    }

    /// The frame as ranges from the holders of its data columns.
    async fn direct(&self, target: &Target) -> Result<Bytes, String> {
        let encoded = target.pack.encoded();
        let pieces = target.pieces();
        let gets = pieces.iter().map(|piece| {
            let holder = self.holders(&target.pack, piece.segment)[usize::from(piece.column)];
            let hash = encoded.segments[piece.segment as usize].fragments[usize::from(piece.column)];
            self.parts.miners.get(holder, encoded.fid, hash, piece.range.clone())
        });
        let parts = try_join_all(gets).await.map_err(|error| error.to_string())?;
        let opened = self.open(target.id, &parts.concat());
        if opened.is_err() {
            for piece in &pieces {
                let holder = self.holders(&target.pack, piece.segment)[usize::from(piece.column)];
                self.parts.miners.failed(holder);
            }
        }
        opened
    }

    /// The chunk out of segments that are rebuilt already.
    fn rebuilt_before(&self, target: &Target) -> Option<Bytes> {
        let fid = target.pack.encoded().fid;
        let mut frame = Vec::with_capacity(target.place.len as usize);
        for piece in target.pieces() {
            let segment = self.segments.lock().get(&(fid, piece.segment)).cloned()?;
            frame.extend_from_slice(rebuild::slice(&segment, &piece));
        }
        self.open(target.id, &frame).ok()
    }

    /// The chunk out of segments rebuilt for it.
    async fn rebuilt(&self, target: &Target) -> Result<Bytes, FetchError> {
        let mut frame = Vec::with_capacity(target.place.len as usize);
        for piece in target.pieces() {
            let segment = self.segment(&target.pack, piece.segment).await?;
            frame.extend_from_slice(rebuild::slice(&segment, &piece));
        }
        self.open(target.id, &frame).map_err(|error| {
            let seq = target.pack.seq.0;
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
}
