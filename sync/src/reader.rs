//! The reader: a chunk's plaintext from staging or from miners.
//!
//! A chunk that is still staged comes from there, also out of a pack that never came to the network whole and is kept for a snapshot. Otherwise its frame is read from the miners ([`Ranges`]). Promises (I9): what
//! it returns passed the frame's AEAD tag; anything else is an error that says how many answered. One fetch per chunk at a
//! time, whoever asks.

mod cache;

use crate::builder::Builder;
use crate::chunk_store::FetchError;
use crate::ledger::{Ledger, PackRecord, PackState, Place};
use crate::limits::{CHUNK_CACHE_BYTES, FETCHES_IN_FLIGHT, PREFETCHES_IN_FLIGHT};
use crate::ranges::{Neighbours, Ranges};
use crate::stages;
use crate::staging::Staging;
use crate::tasks::Tasks;
use bytes::{Bytes, BytesMut};
use cache::ChunkCache;
use cessfs_crypto::{ChunkId, FrameId, VolumeKeys};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::Semaphore;

type Flight = Shared<BoxFuture<'static, Result<Bytes, FetchError>>>;

/// What the reader works with.
pub(crate) struct ReaderParts {
    pub(crate) keys: VolumeKeys,
    pub(crate) ranges: Arc<Ranges>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) builder: Arc<Builder>,
    pub(crate) staging: Staging,
    pub(crate) tasks: Tasks,
}

pub(crate) struct Reader {
    parts: ReaderParts,
    flights: Mutex<HashMap<ChunkId, Flight>>,
    chunks: Mutex<ChunkCache>,
    fetches: Semaphore,
    prefetches: Arc<Semaphore>,
}

impl Reader {
    pub(crate) fn new(parts: ReaderParts) -> Reader {
        Reader {
            parts,
            flights: Mutex::default(),
            chunks: Mutex::new(ChunkCache::new(CHUNK_CACHE_BYTES)),
            fetches: Semaphore::new(FETCHES_IN_FLIGHT),
            prefetches: Arc::new(Semaphore::new(PREFETCHES_IN_FLIGHT)),
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
        let task = self.parts.tasks.spawn(async move {
            // Whatever becomes of it, the next one is a read of its own.
            let loaded = AssertUnwindSafe(reader.load(id)).catch_unwind().await;
            let outcome = loaded.unwrap_or_else(|_| {
                let told = "a mistake in cessfs ended the read, please report it";
                Err(FetchError::Unavailable(told.into()))
            });
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

    /// See [`crate::ChunkStore::at_hand`].
    pub(crate) fn at_hand(&self, id: ChunkId) -> Option<Bytes> {
        self.chunks.lock().get(id)
    }

    /// See [`crate::ChunkStore::prefetch`].
    pub(crate) fn prefetch(self: &Arc<Self>, ids: &[ChunkId]) -> usize {
        for (taken, id) in ids.iter().enumerate() {
            if self.chunks.lock().contains(*id) || self.flights.lock().contains_key(id) {
                continue;
            }
            let Ok(permit) = self.prefetches.clone().try_acquire_owned() else {
                return taken;
            };
            let fetch = self.fetch(*id);
            self.parts.tasks.spawn(async move {
                // A hint has nobody to tell; whoever reads the chunk gets the error itself.
                let _ = fetch.await;
                drop(permit);
            });
        }
        ids.len()
    }

    async fn load(&self, id: ChunkId) -> Result<Bytes, FetchError> {
        let _span = stages::FETCH.enter();
        let place = self.parts.builder.find(id)?.ok_or(FetchError::Unknown)?;
        let staged = self.parts.ledger.get(place.seq).is_none_or(|pack| pack.may_be_staged());
        let why_not_staged = match staged {
            false => None,
            true => match self.read_staged(id, place).await {
                Ok(bytes) => return Ok(bytes),
                Err(why) => Some(why),
            },
        };
        // Asked again: a pack confirmed in between has no staged body any more.
        let pack = self.parts.ledger.get(place.seq).ok_or(FetchError::Unknown)?;
        if pack.state < PackState::Stored || !pack.was_stored() {
            let why = why_not_staged.unwrap_or_default();
            return Err(FetchError::Unavailable(format!(
                "pack {}: staged body: {why}",
                pack.seq.0
            )));
        }
        if pack.state == PackState::Gone {
            return Err(FetchError::Unavailable(format!("pack {} was deleted", pack.seq.0)));
        }
        self.download(id, place, &pack).await
    }

    async fn read_staged(&self, id: ChunkId, place: Place) -> Result<Bytes, String> {
        let staging = self.parts.staging.clone();
        let read = move || staging.read(place.seq, place.offset, place.len);
        let frame = self.parts.tasks.blocking(read).await;
        let frame = frame
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        self.open(id, frame)
    }

    /// Opened where it lies, unless somebody else holds the frame, too.
    fn open(&self, id: ChunkId, frame: Bytes) -> Result<Bytes, String> {
        let _span = stages::OPEN_CHUNK.enter();
        let mut frame: BytesMut = frame.into();
        match self.parts.keys.open_in_place(FrameId::Chunk(id), &mut frame) {
            Ok(plaintext) => Ok(frame.freeze().slice(plaintext)),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn download(&self, id: ChunkId, place: Place, pack: &PackRecord) -> Result<Bytes, FetchError> {
        let _permit = self.fetches.acquire().await.expect("the semaphore is never closed");
        let range = place.offset..place.offset + u64::from(place.len);
        self.parts
            .ranges
            .read(pack, range, Neighbours::Wanted, |frame| self.open(id, frame))
            .await
    }
}
