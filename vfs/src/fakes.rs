//! The other sides of the seams, for tests: a chunk store whose packs the test seals and confirms by hand, a clock that
//! only moves when told, and randomness from a seed.

use crate::snapshot::TreeStores;
use bytes::Bytes;
use cessfs_crypto::{ChunkId, Entropy, PackSeq, Phrase, VolumeId, VolumeKeys};
use cessfs_sync::chunk_store::{Backlog, NetworkRoom};
use cessfs_sync::store::MemStore;
use cessfs_sync::{
    Batch, ChunkStore, Clock, CutCause, DeltaSource, FetchError, FrameSink, MetaStore, Standing, StoreError,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub mod bench;

/// A clock that stands still: [`advance`](FakeClock::advance) and whoever sleeps move it.
pub struct FakeClock {
    time: Arc<Mutex<Duration>>,
    /// Seconds by which the wall clock was set forward.
    ahead: Mutex<i64>,
}

impl FakeClock {
    /// Starts at one billion seconds after the epoch.
    pub fn new() -> FakeClock {
        FakeClock {
            time: Arc::new(Mutex::new(Duration::from_secs(1_000_000_000))),
            ahead: Mutex::new(0),
        }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        *self.time.lock() += by;
    }

    /// Jumps to this time since the epoch.
    pub fn set(&self, to: Duration) {
        *self.time.lock() = to;
    }

    /// Sets the wall clock forward, or back.
    pub fn step_wall(&self, seconds: i64) {
        *self.ahead.lock() += seconds;
    }
}

impl Clock for FakeClock {
    fn monotonic(&self) -> Duration {
        *self.time.lock()
    }
    fn wall(&self) -> Duration {
        let ahead = *self.ahead.lock();
        let by = Duration::from_secs(ahead.unsigned_abs());
        let time = *self.time.lock();
        if ahead < 0 { time.saturating_sub(by) } else { time + by }
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let now = self.time.clone();
        Box::pin(async move { *now.lock() += duration })
    }
}

/// Bytes that only depend on the seed.
pub struct FakeEntropy(u64);

impl FakeEntropy {
    /// A stream of its own for each seed.
    pub fn new(seed: u64) -> FakeEntropy {
        FakeEntropy(seed.wrapping_mul(2).wrapping_add(1))
    }
}

impl Entropy for FakeEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            // SplitMix64: every state is visited once, so nonces of one stream do not repeat.
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            *byte = (mixed >> 56) as u8;
        }
    }
}

/// How many cases a model is tried with: so many, or what `CESSFS_MODEL_CASES` says.
pub fn model_cases(usual: u32) -> u32 {
    let told = std::env::var("CESSFS_MODEL_CASES").ok();
    told.map_or(usual, |told| told.parse().expect("CESSFS_MODEL_CASES is a number"))
}

/// Keys of a volume that only tests have.
pub fn volume_keys() -> VolumeKeys {
    let words = format!("{}art", "abandon ".repeat(23));
    let phrase = Phrase::parse(&words).expect("the phrase of all-zero entropy");
    phrase.secret().volume_keys(VolumeId([7; 16]))
}

/// Stores of trees, in memory: they outlive whoever opens them.
#[derive(Clone, Default)]
pub struct FakeTrees(Arc<Mutex<BTreeMap<String, Arc<MemStore>>>>);

impl TreeStores for FakeTrees {
    fn open(&self, name: &str) -> Result<Arc<dyn MetaStore>, StoreError> {
        let mut trees = self.0.lock();
        Ok(trees.entry(name.to_owned()).or_default().clone())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.0.lock().remove(name);
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.0.lock().keys().cloned().collect())
    }
}

/// A pack as the fake store sealed it.
#[derive(Clone, Debug)]
pub struct FakePack {
    /// Its number.
    pub seq: PackSeq,
    /// The chunks submitted since the pack before.
    pub chunks: BTreeSet<ChunkId>,
    /// Frames of its metadata delta.
    pub delta: Vec<Vec<u8>>,
    /// Replay may start here.
    pub is_checkpoint: bool,
}

/// Who is asked to cut and told of sealing, and the store it is committed to.
type Wiring = (std::sync::Weak<dyn DeltaSource>, std::sync::Weak<dyn MetaStore>);

#[derive(Default)]
struct State {
    wiring: Option<Wiring>,
    fenced: bool,
    parted: Option<Result<PackSeq, FetchError>>,
    chunks: BTreeMap<ChunkId, (Bytes, Standing)>,
    packs: Vec<FakePack>,
    open: BTreeSet<ChunkId>,
    lost: BTreeSet<ChunkId>,
    silent: bool,
    at_hand: BTreeSet<ChunkId>,
    submit_error: Option<StoreError>,
    submit_full_once: bool,
    submit_panics: bool,
    aside: Option<Duration>,
    submits: u64,
    fetches: u64,
    prefetched: Vec<ChunkId>,
    /// `None`: all.
    prefetches_max: Option<usize>,
    changes: u64,
    room: NetworkRoom,
}

/// A chunk store in memory. Nothing is sealed unless the test says so; `settle` only confirms what is.
#[derive(Clone, Default)]
pub struct FakeChunks(Arc<Mutex<State>>);

impl FakeChunks {
    /// An empty store.
    pub fn new() -> FakeChunks {
        FakeChunks::default()
    }

    /// From now on `ChunkStore::seal` seals with this source and store.
    pub fn attach(&self, source: &Arc<dyn DeltaSource>, store: Arc<dyn MetaStore>) {
        self.0.lock().wiring = Some((Arc::downgrade(source), Arc::downgrade(&store)));
    }

    /// Another machine takes the volume over.
    pub fn fence(&self) {
        self.0.lock().fenced = true;
    }

    /// Where the history of that other machine leaves this one.
    pub fn part(&self, at: Result<PackSeq, FetchError>) {
        self.0.lock().parted = Some(at);
    }

    /// Seals the open pack with the delta of `source`, as the pipeline does.
    pub fn seal(
        &self,
        source: &dyn DeltaSource,
        store: &dyn MetaStore,
        cause: CutCause,
    ) -> Result<PackSeq, StoreError> {
        let (seq, delta) = self.cut(source, cause)?;
        let mut batch = Batch::new();
        source.sealed(seq, &mut batch);
        store.commit(batch)?;
        let mut state = self.0.lock();
        let chunks = std::mem::take(&mut state.open);
        for id in &chunks {
            if let Some((_, standing)) = state.chunks.get_mut(id) {
                *standing = Standing::Sealed;
            }
        }
        state.packs.push(FakePack {
            seq,
            chunks,
            delta,
            is_checkpoint: cause == CutCause::Checkpoint,
        });
        Ok(seq)
    }

    /// Cuts a delta and then gives the pack up.
    pub fn abandon(&self, source: &dyn DeltaSource, cause: CutCause) -> Result<(), StoreError> {
        let (seq, _) = self.cut(source, cause)?;
        source.abandoned(seq);
        Ok(())
    }

    fn cut(&self, source: &dyn DeltaSource, cause: CutCause) -> Result<(PackSeq, Vec<Vec<u8>>), StoreError> {
        let seq = PackSeq(self.0.lock().packs.len() as u64 + 1);
        let mut delta = Vec::new();
        source.cut(seq, cause, &mut |frame| {
            assert!(
                frame.len() <= cessfs_sync::limits::CHUNK_BYTES,
                "a delta frame is too long"
            );
            delta.push(frame.to_vec());
            Ok(())
        })?;
        Ok((seq, delta))
    }

    /// Every sealed pack is now held and verified by the network.
    pub fn confirm(&self) {
        for (_, standing) in self.0.lock().chunks.values_mut() {
            if *standing == Standing::Sealed {
                *standing = Standing::Confirmed;
            }
        }
    }

    /// Forgets what only the open pack held, as a crash does.
    pub fn crash(&self) {
        let mut state = self.0.lock();
        for id in std::mem::take(&mut state.open) {
            state.chunks.remove(&id);
        }
    }

    /// Sets the standing of a chunk that is there.
    pub fn set_standing(&self, id: ChunkId, to: Standing) {
        if let Some((_, standing)) = self.0.lock().chunks.get_mut(&id) {
            *standing = to;
        }
    }

    /// From now on the network does not answer, or does again.
    pub fn hold_back(&self, silent: bool) {
        self.0.lock().silent = silent;
    }

    /// From now on the chunk cannot be fetched.
    pub fn lose(&self, id: ChunkId) {
        self.0.lock().lost.insert(id);
    }

    /// From now on no pack gives its metadata.
    pub fn lose_packs(&self) {
        self.0.lock().packs.iter_mut().for_each(|pack| pack.delta.clear());
    }

    /// From now on the chunk is in memory.
    pub fn take_in_hand(&self, id: ChunkId) {
        self.0.lock().at_hand.insert(id);
    }

    /// From now on `submit` fails like this, or works again.
    pub fn fail_submit(&self, error: Option<StoreError>) {
        self.0.lock().submit_error = error;
    }

    /// The next `submit` finds the disk full.
    pub fn full_once(&self) {
        self.0.lock().submit_full_once = true;
    }

    /// From now on `submit` panics, or works again.
    pub fn panic_at_submit(&self, panics: bool) {
        self.0.lock().submit_panics = panics;
    }

    /// From now on background work is told to step aside for so long, or not at all.
    pub fn busy(&self, aside: Option<Duration>) {
        self.0.lock().aside = aside;
    }

    /// The plaintext of a chunk.
    pub fn content(&self, id: ChunkId) -> Option<Bytes> {
        self.0.lock().chunks.get(&id).map(|(bytes, _)| bytes.clone())
    }

    /// Packs sealed so far, oldest first.
    pub fn packs(&self) -> Vec<FakePack> {
        self.0.lock().packs.clone()
    }

    /// The delta frames that make the tree as of this pack, from the last checkpoint on.
    pub fn frames(&self, seq: PackSeq) -> Vec<Vec<u8>> {
        let mut packs = self.packs();
        packs.retain(|pack| pack.seq <= seq);
        let start = packs.iter().rposition(|pack| pack.is_checkpoint).unwrap_or(0);
        packs.drain(..start);
        packs.into_iter().flat_map(|pack| pack.delta).collect()
    }

    /// Chunks of the open pack.
    pub fn open_chunks(&self) -> usize {
        self.0.lock().open.len()
    }

    /// Calls of `submit` and `fetch` so far.
    pub fn calls(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.submits, state.fetches)
    }

    /// Chunks hinted at so far.
    pub fn prefetched(&self) -> Vec<ChunkId> {
        self.0.lock().prefetched.clone()
    }

    /// From now on so many chunks of a hint are taken up.
    pub fn set_prefetches_max(&self, max: usize) {
        self.0.lock().prefetches_max = Some(max);
    }

    /// From now on the network has this room.
    pub fn set_room(&self, room: NetworkRoom) {
        self.0.lock().room = room;
    }

    /// Calls of `note_change` so far.
    pub fn changes(&self) -> u64 {
        self.0.lock().changes
    }
}

impl ChunkStore for FakeChunks {
    fn submit(&self, id: ChunkId, plaintext: &[u8]) -> Result<(), StoreError> {
        assert!(
            (1..=cessfs_sync::limits::CHUNK_BYTES).contains(&plaintext.len()),
            "chunk length {}",
            plaintext.len()
        );
        let mut state = self.0.lock();
        state.submits += 1;
        assert!(!state.submit_panics, "on purpose");
        if std::mem::take(&mut state.submit_full_once) {
            return Err(StoreError::Full);
        }
        if let Some(error) = &state.submit_error {
            return Err(error.clone());
        }
        if let Some((known, _)) = state.chunks.get(&id) {
            assert_eq!(known, plaintext, "one id for two contents");
            return Ok(());
        }
        state
            .chunks
            .insert(id, (Bytes::copy_from_slice(plaintext), Standing::Open));
        state.open.insert(id);
        Ok(())
    }

    fn fetch(&self, id: ChunkId) -> BoxFuture<'static, Result<Bytes, FetchError>> {
        let this = self.clone();
        Box::pin(async move {
            while this.0.lock().silent {
                tokio::task::yield_now().await;
            }
            let mut state = this.0.lock();
            state.fetches += 1;
            if state.lost.contains(&id) {
                return Err(FetchError::Unavailable("the test lost it".into()));
            }
            state
                .chunks
                .get(&id)
                .map(|(bytes, _)| bytes.clone())
                .ok_or(FetchError::Unknown)
        })
    }

    fn at_hand(&self, id: ChunkId) -> Option<Bytes> {
        let state = self.0.lock();
        let (bytes, _) = state.chunks.get(&id).filter(|_| state.at_hand.contains(&id))?;
        Some(bytes.clone())
    }

    fn step_aside(&self) -> Option<Duration> {
        self.0.lock().aside
    }

    fn prefetch(&self, ids: &[ChunkId]) -> usize {
        let mut state = self.0.lock();
        let taken = ids.len().min(state.prefetches_max.unwrap_or(usize::MAX));
        state.prefetched.extend_from_slice(&ids[..taken]);
        taken
    }

    fn standing(&self, id: ChunkId) -> Standing {
        self.0
            .lock()
            .chunks
            .get(&id)
            .map_or(Standing::Unknown, |(_, standing)| *standing)
    }

    fn note_change(&self) {
        self.0.lock().changes += 1;
    }

    fn backlog(&self) -> Backlog {
        let state = self.0.lock();
        let unsent = state
            .chunks
            .values()
            .filter(|(_, standing)| *standing != Standing::Confirmed);
        Backlog {
            unsent_bytes: unsent.map(|(bytes, _)| bytes.len() as u64).sum(),
            bound_bytes: u64::MAX,
        }
    }

    fn network_room(&self) -> NetworkRoom {
        self.0.lock().room
    }

    fn seal(&self) -> Result<(), StoreError> {
        let wiring = self.0.lock().wiring.clone();
        let (source, store) = wiring.expect("whoever seals was attached");
        let (source, store) = (source.upgrade(), store.upgrade());
        let (source, store) = source.zip(store).expect("both live as long as the volume");
        FakeChunks::seal(self, &*source, &*store, CutCause::Forced).map(drop)
    }

    fn replay(&self, seq: PackSeq, mut sink: FrameSink) -> BoxFuture<'static, Result<(), FetchError>> {
        let frames = self.frames(seq);
        Box::pin(async move { frames.into_iter().try_for_each(|frame| Ok(sink(frame)?)) })
    }

    fn replay_unsent(&self, mut sink: FrameSink) -> BoxFuture<'static, Result<(), FetchError>> {
        let state = self.0.lock();
        let unsent = |pack: &&FakePack| {
            let mut standings = pack.chunks.iter().filter_map(|id| state.chunks.get(id));
            standings.any(|(_, standing)| *standing != Standing::Confirmed)
        };
        let packs: Vec<FakePack> = state.packs.iter().filter(unsent).cloned().collect();
        Box::pin(async move {
            for frame in packs.into_iter().flat_map(|pack| pack.delta) {
                sink(frame)?;
            }
            Ok(())
        })
    }

    fn parted_at(&self) -> BoxFuture<'static, Result<Option<PackSeq>, FetchError>> {
        let parted = self.0.lock().parted.clone();
        Box::pin(async move { parted.transpose() })
    }

    fn is_fenced(&self) -> bool {
        self.0.lock().fenced
    }

    fn settle(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        let this = self.clone();
        Box::pin(async move {
            this.confirm();
            Ok(())
        })
    }
}
