//! The engine: builder, pipeline and reader wired into one [`ChunkStore`].
//!
//! ```text
//!             submit                     sealed packs
//!   vfs ------------------> Builder ---------------------> Pipeline ----> Chain, Miners
//!    ^ cut, sealed            |  staging/<seq>.body          |
//!    +------------------------+          |                   |
//!             fetch                      v                   v
//!   vfs ------------------> Reader <-- Staging            Ledger (journal)
//! ```
//!
//! Life: [`Engine::open`], [`attach`](Engine::attach), [`start`](Engine::start), [`shutdown`](Engine::shutdown). Dropping it
//! without shutdown is a crash, from which the next `open` on the same store and staging directory recovers.

mod config;
mod errors;
mod status;

pub use config::{Config, Seams};
pub(crate) use errors::Errors;
pub use errors::Trouble;
pub use status::{ChunkLocation, ColumnStatus, PackStatus, Status};

use crate::builder::{Builder, BuilderConfig, BuilderParts, run_sealer};
use crate::chain::Territory;
use crate::chunk_store::{Backlog, ChunkStore, CutCause, DeltaSource, FetchError, NetworkRoom, Standing};
use crate::dice::Dice;
use crate::ledger::{Ledger, PackState, stopped};
use crate::miners::Miners;
use crate::pipeline::{Pipeline, PipelineParts};
use crate::ranges::{Ranges, RangesParts};
use crate::reader::{Reader, ReaderParts};
use crate::staging::Staging;
use crate::store::{MetaStore, StoreError};
use crate::tasks::{Gone, Tasks};
use bytes::Bytes;
use cessfs_crypto::{ChunkId, PackSeq};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// See the module head.
pub struct Engine {
    store: Arc<dyn MetaStore>,
    ledger: Arc<Ledger>,
    builder: Arc<Builder>,
    pipeline: Arc<Pipeline>,
    reader: Arc<Reader>,
    miners: Arc<Miners>,
    errors: Arc<Errors>,
    tasks: Tasks,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Engine {
    /// Reads the journal and clears the staging directory of what is in no unconfirmed pack. Does nothing else yet.
    ///
    /// # Errors
    /// The store cannot be read, or the staging directory not be made.
    pub fn open(config: Config, seams: Seams) -> Result<Engine, StoreError> {
        let ledger = Arc::new(Ledger::load(seams.store.clone())?);
        let staging = Staging::open(&config.staging_dir)?;
        staging.sweep(|seq| ledger.get(seq).is_some_and(|pack| pack.state < PackState::Confirmed))?;
        let dice = Dice::new(seams.entropy);
        let errors = Arc::new(Errors::new(seams.clock.clone()));
        let miners = Arc::new(Miners::new(
            seams.chain.clone(),
            seams.fragments,
            seams.clock.clone(),
            dice.clone(),
        ));
        let builder = Arc::new(Builder::new(BuilderParts {
            config: BuilderConfig {
                territory: config.territory,
                target_bytes: config.pack_target_bytes,
                age_max: config.pack_age_max,
                backlog_bound_bytes: config.backlog_bound_bytes.max(2 * config.pack_target_bytes),
            },
            keys: seams.keys.clone(),
            labels: seams.labels,
            dice: dice.clone(),
            clock: seams.clock.clone(),
            ledger: ledger.clone(),
            staging: staging.clone(),
            may_wait: !seams.tasks.is_inline(),
        }));
        let pipeline = Arc::new(Pipeline::new(PipelineParts {
            chain: seams.chain.clone(),
            miners: miners.clone(),
            ledger: ledger.clone(),
            builder: builder.clone(),
            staging: staging.clone(),
            clock: seams.clock.clone(),
            dice,
            errors: errors.clone(),
            tasks: seams.tasks.clone(),
        }));
        let reader = Arc::new(Reader::new(ReaderParts {
            keys: seams.keys,
            ranges: Arc::new(Ranges::new(RangesParts {
                chain: seams.chain,
                miners: miners.clone(),
                clock: seams.clock,
                tasks: seams.tasks.clone(),
            })),
            ledger: ledger.clone(),
            builder: builder.clone(),
            staging,
            tasks: seams.tasks.clone(),
        }));
        Ok(Engine {
            store: seams.store,
            ledger,
            builder,
            pipeline,
            reader,
            miners,
            errors,
            tasks: seams.tasks,
            running: Mutex::default(),
        })
    }

    /// Names who writes the metadata delta; before [`start`](Engine::start).
    pub fn attach(&self, source: Arc<dyn DeltaSource>) {
        self.builder.attach(source);
    }

    /// Starts sealing and uploading; packs that were on their way go on where they were.
    pub fn start(&self) {
        let sealer = run_sealer(self.builder.clone(), self.errors.clone(), self.tasks.clone());
        let pipeline = self.pipeline.clone().run();
        *self.running.lock() = vec![self.tasks.spawn(sealer), self.tasks.spawn(pipeline)];
    }

    /// Stops cleanly. The open pack is thrown away, for its chunks are still dirty at their owner; sealed packs go on at the
    /// next start. Waiting `submit`s and `settle`s fail.
    ///
    /// # Errors
    /// The journal could not be made durable.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        let tasks = std::mem::take(&mut *self.running.lock());
        for task in tasks {
            task.abort();
            // Aborted is what it shall be.
            let _ = task.await;
        }
        let (builder, ledger, store) = (self.builder.clone(), self.ledger.clone(), self.store.clone());
        let stop = move || {
            builder.stop();
            ledger.close();
            store.barrier()
        };
        let stopped_now = self.tasks.blocking(stop).await;
        stopped_now.unwrap_or_else(|Gone| Err(stopped()))
    }

    /// Makes blocked packs try again now: the user has paid, or the network is back.
    pub fn poke(&self) {
        self.pipeline.poke();
    }

    /// The territory was heard of: what [`network_room`](ChunkStore::network_room) tells goes by it.
    pub fn note_territory(&self, territory: &Territory) {
        self.builder.note_territory(territory);
    }

    /// A snapshot for people.
    pub fn status(&self) -> Status {
        Status::of(&self.ledger, &self.builder, &self.pipeline, &self.errors)
    }

    /// The newest pack that the network is known to hold; `None` before there is one.
    pub fn newest_confirmed(&self) -> Option<PackSeq> {
        let packs = self.ledger.all();
        let confirmed = packs.iter().rev().find(|pack| pack.state == PackState::Confirmed);
        confirmed.map(|pack| pack.seq)
    }

    /// Where a chunk lies, down to miners and fragments; `None` if it was never submitted.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn locate(&self, id: ChunkId) -> Result<Option<ChunkLocation>, StoreError> {
        let place = self.builder.find(id)?;
        Ok(place.map(|place| ChunkLocation::of(place, &self.ledger, &self.miners)))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for task in self.running.lock().drain(..) {
            task.abort();
        }
        self.builder.halt();
        self.ledger.close();
    }
}

impl ChunkStore for Engine {
    fn submit(&self, id: ChunkId, plaintext: &[u8]) -> Result<(), StoreError> {
        self.builder.submit(id, plaintext)
    }

    fn fetch(&self, id: ChunkId) -> BoxFuture<'static, Result<Bytes, FetchError>> {
        self.reader.fetch(id)
    }

    fn prefetch(&self, ids: &[ChunkId]) {
        self.reader.prefetch(ids);
    }

    /// A store that cannot be read makes every chunk `Unknown`: nothing is dropped on the word of a broken journal (I1).
    fn standing(&self, id: ChunkId) -> Standing {
        self.builder.standing(id).unwrap_or(Standing::Unknown)
    }

    fn note_change(&self) {
        self.builder.note_change();
    }

    fn backlog(&self) -> Backlog {
        self.builder.backlog()
    }

    fn network_room(&self) -> NetworkRoom {
        self.builder.network_room()
    }

    fn settle(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        let (builder, ledger, tasks) = (self.builder.clone(), self.ledger.clone(), self.tasks.clone());
        async move {
            let seal = move || builder.seal(CutCause::Forced);
            let sealed = tasks.blocking(seal).await;
            sealed.unwrap_or_else(|Gone| Err(stopped()))?;
            ledger.confirmed().await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
