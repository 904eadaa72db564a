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
use crate::clock::Clock;
use crate::deltas::{Deltas, FrameSink, Staged};
use crate::dice::Dice;
use crate::foreground::Foreground;
use crate::ledger::{Ledger, PackState, Place, stopped};
use crate::limits::PARTING_TIMEOUT;
use crate::miners::{Addresses, Miners};
use crate::pipeline::{Pipeline, PipelineParts, UplinkLimit};
use crate::ranges::{Ranges, RangesParts};
use crate::reader::{Reader, ReaderParts};
use crate::recovery::Parting;
use crate::staging::Staging;
use crate::store::{MetaStore, StoreError};
use crate::tasks::{Gone, Tasks};
use crate::upkeep::{
    CollectReport, Depth, Health, HealthBook, RepairReport, ScrubReport, Upkeep, UpkeepError, UpkeepParts,
};
use bytes::Bytes;
use cessfs_crypto::{ChunkId, PackSeq, VolumeKeys};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// See the module head.
pub struct Engine {
    store: Arc<dyn MetaStore>,
    ledger: Arc<Ledger>,
    builder: Arc<Builder>,
    pipeline: Arc<Pipeline>,
    reader: Arc<Reader>,
    upkeep: Arc<Upkeep>,
    read_only: bool,
    watches: bool,
    claims: bool,
    miners: Arc<Miners>,
    deltas: Arc<Deltas>,
    errors: Arc<Errors>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    foreground: Arc<Foreground>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Engine {
    /// Reads the journal and clears the staging directory of bodies that nobody needs. Does nothing else yet.
    ///
    /// # Errors
    /// The store cannot be read, or the staging directory not be made.
    pub fn open(config: Config, seams: Seams) -> Result<Engine, StoreError> {
        let ledger = Arc::new(Ledger::load(seams.store.clone())?);
        if let Some(height) = ledger.final_height() {
            seams.chain.note_final(height);
        }
        let staging = Staging::open(&config.staging_dir)?;
        staging.sweep(|seq| ledger.get(seq).is_some_and(|pack| pack.may_be_staged()))?;
        let dice = Dice::new(seams.entropy);
        let errors = Arc::new(Errors::new(seams.clock.clone()));
        let miners = Arc::new(Miners::new(
            seams.chain.clone(),
            seams.fragments,
            seams.clock.clone(),
            dice.clone(),
            Some(Addresses::load(seams.store.clone())?),
        ));
        let builder = Arc::new(Builder::new(BuilderParts {
            config: BuilderConfig {
                territory: config.territory,
                target_bytes: config.pack_target_bytes,
                bytes_max: config.pack_bytes_max.max(config.pack_target_bytes),
                directory_bytes_max: config.pack_directory_bytes_max,
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
        let foreground = Arc::new(Foreground::new(seams.clock.clone()));
        let pipeline = Arc::new(Pipeline::new(PipelineParts {
            foreground: foreground.clone(),
            chain: seams.chain.clone(),
            miners: miners.clone(),
            ledger: ledger.clone(),
            builder: builder.clone(),
            staging: staging.clone(),
            clock: seams.clock.clone(),
            dice: dice.clone(),
            errors: errors.clone(),
            tasks: seams.tasks.clone(),
            uplink: config.uplink,
            read_back: config.upkeep.read_back,
        }));
        let ranges = Arc::new(Ranges::new(RangesParts {
            chain: seams.chain.clone(),
            miners: miners.clone(),
            clock: seams.clock.clone(),
            tasks: seams.tasks.clone(),
        }));
        let staged = Staged {
            staging: staging.clone(),
            tasks: seams.tasks.clone(),
        };
        let deltas = Arc::new(Deltas::new(seams.keys.clone(), ranges.clone(), Some(staged)));
        let reader = reader(seams.keys, ranges, &builder, staging, &seams.tasks);
        let watches = config.upkeep.scrub;
        let upkeep = Arc::new(Upkeep::new(UpkeepParts {
            config: config.upkeep,
            chain: seams.chain,
            miners: miners.clone(),
            ledger: ledger.clone(),
            builder: builder.clone(),
            pipeline: pipeline.clone(),
            reader: reader.clone(),
            clock: seams.clock.clone(),
            dice,
            errors: errors.clone(),
            health: Arc::new(HealthBook::load(seams.store.clone())?),
            tasks: seams.tasks.clone(),
        }));
        Ok(Engine {
            upkeep,
            watches,
            read_only: config.read_only,
            claims: config.claims,
            store: seams.store,
            ledger,
            builder,
            pipeline,
            reader,
            miners,
            deltas,
            errors,
            clock: seams.clock,
            tasks: seams.tasks,
            foreground,
            running: Mutex::default(),
        })
    }

    /// Names who writes the metadata delta; before [`start`](Engine::start).
    pub fn attach(&self, source: Arc<dyn DeltaSource>) {
        self.builder.attach(source);
    }

    /// Starts sealing and uploading; packs that were on their way go on where they were. Nothing of a volume that is only
    /// [read](Config::read_only): each of these tasks changes the journal, or what the network has.
    pub fn start(&self) {
        if self.read_only {
            return;
        }
        let sealing = (self.builder.clone(), self.errors.clone(), self.tasks.clone());
        let seal = move || run_sealer(sealing.0.clone(), sealing.1.clone(), sealing.2.clone());
        let pipeline = self.pipeline.clone();
        let mut running = vec![
            self.lasting("seals packs", seal),
            self.lasting("sends packs", move || pipeline.clone().run()),
            self.upkeep("repairs and deletes", Upkeep::keep),
            self.upkeep("replaces doubted packs", Upkeep::replace),
            self.upkeep("looks for packs to be seen again", Upkeep::see_again),
            self.upkeep("takes stock after a recovery", Upkeep::settle_inheritance),
        ];
        if self.watches {
            running.push(self.upkeep("looks at what miners hold", Upkeep::watch));
        }
        match self.ledger.is_unclaimed() {
            Ok(true) if self.claims => running.push(self.upkeep("makes this machine known", Upkeep::claim)),
            Ok(_) => {}
            Err(error) => self
                .errors
                .push(format!("the journal does not say whether it was recovered: {error}")),
        }
        *self.running.lock() = running;
    }

    fn upkeep<F>(&self, what: &'static str, task: fn(Arc<Upkeep>) -> F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let upkeep = self.upkeep.clone();
        self.lasting(what, move || task(upkeep.clone()))
    }

    /// See [`Tasks::spawn_lasting`].
    fn lasting<F>(&self, what: &'static str, make: impl FnMut() -> F + Send + 'static) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (errors, clock) = (self.errors.clone(), self.clock.clone());
        self.tasks.spawn_lasting(what, errors, clock, make)
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

    /// To be told of every request of the mount that somebody waits for: sending goes behind them.
    pub fn foreground(&self) -> Arc<Foreground> {
        self.foreground.clone()
    }

    /// Makes blocked packs try again now: the user has paid, or the network is back.
    pub fn poke(&self) {
        self.pipeline.poke();
    }

    /// Limits what is sent to miners from now on. What is under way goes on.
    pub fn limit_uplink(&self, limit: UplinkLimit) {
        self.pipeline.limit_uplink(limit);
    }

    /// The territory was heard of: what [`network_room`](ChunkStore::network_room) tells goes by it.
    pub fn note_territory(&self, territory: &Territory) {
        self.builder.note_territory(territory);
    }

    /// A snapshot for people.
    pub fn status(&self) -> Status {
        Status::of(&self.ledger, &self.builder, &self.pipeline, &self.upkeep, &self.errors)
    }

    /// How far a pack has come; `None` if there is none of this number.
    pub fn pack_state(&self, seq: PackSeq) -> Option<PackState> {
        self.ledger.get(seq).map(|pack| pack.state)
    }

    /// A pack before this one is not known to be on the network yet.
    pub fn has_unconfirmed_before(&self, seq: PackSeq) -> bool {
        self.ledger.unconfirmed().iter().any(|pack| pack.seq < seq)
    }

    /// The epoch of another writer that was seen on the network, if there is one: another machine has taken the volume over, or
    /// [a copy](Engine::is_forked) of this one writes.
    pub fn fenced(&self) -> Option<u32> {
        self.ledger.fenced()
    }

    /// The writer that was seen is a copy of this one: its directory was put back from a backup, or is in use twice.
    pub fn is_forked(&self) -> bool {
        self.ledger.is_forked()
    }

    /// The highest number that a pack of this directory has, or below which none may have one.
    pub fn last_pack(&self) -> PackSeq {
        self.ledger.last_seq()
    }

    /// The newest pack of this history that the network is known to hold with all packs before it, so that its tree can be had
    /// from there; `None` before there is one.
    pub fn newest_confirmed(&self) -> Option<PackSeq> {
        let packs = self.ledger.all();
        let there = packs.iter().take_while(|pack| pack.state >= PackState::Confirmed);
        there.filter(|pack| !pack.beside).last().map(|pack| pack.seq)
    }

    /// Looks at every pack that the network holds, now.
    pub fn scrub(&self, depth: Depth, rate: Option<u64>) -> BoxFuture<'static, Result<ScrubReport, UpkeepError>> {
        self.upkeep.clone().scrub_all(depth, rate).boxed()
    }

    /// What is known of the columns of a pack.
    pub fn health(&self, seq: PackSeq) -> Health {
        self.upkeep.health(seq)
    }

    /// Rewrites every pack of which a column is known to be bad, and resolves when the network holds it elsewhere.
    pub fn repair(&self) -> BoxFuture<'static, Result<RepairReport, UpkeepError>> {
        self.upkeep.clone().repair_all().boxed()
    }

    /// Empties packs of which little lives, and deletes those that nothing needs. `dry_run`: only says what it would do.
    pub fn collect(&self, dry_run: bool) -> BoxFuture<'static, Result<CollectReport, UpkeepError>> {
        self.upkeep.clone().collect_all(dry_run).boxed()
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

fn reader(
    keys: VolumeKeys,
    ranges: Arc<Ranges>,
    builder: &Arc<Builder>,
    staging: Staging,
    tasks: &Tasks,
) -> Arc<Reader> {
    Arc::new(Reader::new(ReaderParts {
        keys,
        tasks: tasks.clone(),
        ranges,
        ledger: builder.ledger.clone(),
        builder: builder.clone(),
        staging,
    }))
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

    fn at_hand(&self, id: ChunkId) -> Option<Bytes> {
        self.reader.at_hand(id)
    }

    fn prefetch(&self, ids: &[ChunkId]) -> usize {
        self.reader.prefetch(ids)
    }

    /// A store that cannot be read makes every chunk `Unknown`: nothing is dropped on the word of a broken journal (I1).
    fn standing(&self, id: ChunkId) -> Standing {
        self.builder.standing(id).unwrap_or(Standing::Unknown)
    }

    fn is_held(&self, id: ChunkId) -> bool {
        let held = |place: Place| {
            let state = self.ledger.get(place.seq).map(|pack| pack.state);
            state.is_some_and(|state| !matches!(state, PackState::Gone | PackState::Lost))
        };
        self.ledger.locate(id).is_ok_and(|place| place.is_some_and(held))
    }

    fn note_change(&self) {
        self.builder.note_change();
    }

    fn step_aside(&self) -> Option<Duration> {
        self.foreground.hold()
    }

    fn backlog(&self) -> Backlog {
        self.builder.backlog()
    }

    fn network_room(&self) -> NetworkRoom {
        self.builder.network_room()
    }

    fn seal(&self) -> Result<(), StoreError> {
        self.builder.seal(CutCause::Forced).map(drop)
    }

    fn replay(&self, seq: PackSeq, sink: FrameSink) -> BoxFuture<'static, Result<(), FetchError>> {
        let (deltas, ledger) = (self.deltas.clone(), self.ledger.clone());
        async move { deltas.replay(&ledger, seq, sink).await }.boxed()
    }

    fn replay_unsent(&self, mut sink: FrameSink) -> BoxFuture<'static, Result<(), FetchError>> {
        let (deltas, ledger) = (self.deltas.clone(), self.ledger.clone());
        async move {
            for pack in ledger.unconfirmed() {
                deltas.of_pack(&pack, &mut sink).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn parted_at(&self) -> BoxFuture<'static, Result<Option<PackSeq>, FetchError>> {
        if self.ledger.fenced().is_none() || self.ledger.is_forked() {
            return async { Ok(None) }.boxed();
        }
        let (pipeline, builder) = (self.pipeline.clone(), self.builder.clone());
        let (deltas, ledger, clock) = (self.deltas.clone(), self.ledger.clone(), self.clock.clone());
        async move {
            let parting = Parting {
                chain: &*pipeline.chain,
                labels: &builder.labels,
                volume: builder.keys.volume(),
                deltas: &deltas,
                ledger: &ledger,
            };
            let found = tokio::select! {
                biased;
                found = parting.find() => found,
                () = clock.sleep(PARTING_TIMEOUT) => Err(FetchError::Unavailable("the network does not tell".into())),
            };
            let known = ledger.parted_at()?;
            match found {
                Ok(seq) if known == Some(seq) => {}
                Ok(seq) => ledger.part_at(seq)?,
                // The packs that showed it may be gone since.
                Err(error) => return known.map_or(Err(error), |seq| Ok(Some(seq))),
            }
            found.map(Some)
        }
        .boxed()
    }

    fn is_fenced(&self) -> bool {
        self.ledger.fenced().is_some()
    }

    fn settle(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        let (builder, upkeep, tasks) = (self.builder.clone(), self.upkeep.clone(), self.tasks.clone());
        async move {
            let seal = move || builder.seal(CutCause::Forced);
            let sealed = tasks.blocking(seal).await;
            sealed.unwrap_or_else(|Gone| Err(stopped()))?;
            upkeep.arrived().await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
