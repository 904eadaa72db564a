//! A network on paper: packs are sealed and confirmed when the test says so, and a power cut on this machine takes nothing
//! from it.
//!
//! Or the real engine, whose chain does not answer: it seals packs into its staging directory, and there they stay.
//!
//! Where a chunk lies is a record in the volume's own store, on paper as in the real one, written in the batch that turns the chunk
//! clean. Which packs miners hold is remembered with the moment they were confirmed at, so that a disk of an earlier moment
//! meets the network of that moment.

use bytes::Bytes;
use cessfs_crypto::{ChunkId, PackSeq, VolumeKeys};
use cessfs_sync::chunk_store::Backlog;
use cessfs_sync::engine::{Engine, Seams};
use cessfs_sync::sim::World;
use cessfs_sync::{Batch, ChunkStore, CutCause, DeltaSource, FetchError, FrameSink, MetaStore, Standing, StoreError};
use cessfs_vfs::TreeStores;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

#[derive(Clone, Default)]
struct Known {
    content: BTreeMap<ChunkId, Bytes>,
    open: BTreeSet<ChunkId>,
    packs: u64,
    /// Packs that miners hold, and since when.
    confirmed: BTreeMap<u64, usize>,
}

/// Where packs go.
#[derive(Clone)]
pub enum Network {
    Paper(Paper),
    Staged(Staged),
}

/// The real engine in a world whose chain is away.
#[derive(Clone)]
pub struct Staged {
    engine: Arc<Engine>,
    world: Arc<World>,
}

impl Staged {
    fn open(world: Arc<World>, dir: &Path, store: Arc<dyn MetaStore>, keys: VolumeKeys) -> Staged {
        let seams = Seams {
            keys,
            ..world.seams(store)
        };
        let mut config = world.config(&dir.join("staging"));
        // Nothing of it is ever sent: it must not stop the work.
        config.backlog_bound_bytes = 1 << 30;
        let engine = Engine::open(config, seams).expect("the engine opens");
        Staged {
            engine: Arc::new(engine),
            world,
        }
    }

    fn seal(&self) {
        self.engine
            .seal()
            .expect("the journal and the staging directory take it");
    }
}

impl Network {
    /// A new network for a new volume below `dir`.
    pub fn new(staged: bool, dir: &Path, store: Arc<dyn MetaStore>, keys: VolumeKeys) -> Network {
        if !staged {
            return Network::Paper(Paper::new(store));
        }
        let world = World::new(0, 1);
        world.chain.set_away(true);
        Network::Staged(Staged::open(Arc::new(world), dir, store, keys))
    }

    /// The network as it was at `position` of the log, for a volume over `store`.
    pub fn at(&self, position: usize, dir: &Path, store: Arc<dyn MetaStore>, keys: VolumeKeys) -> Network {
        match self {
            Network::Paper(paper) => Network::Paper(paper.at(position, store)),
            Network::Staged(staged) => Network::Staged(Staged::open(staged.world.clone(), dir, store, keys)),
        }
    }

    /// Only what the journal knows of the network, for a check that must touch nothing: a real engine would clear its staging
    /// directory.
    pub fn on_paper(&self, position: usize, store: Arc<dyn MetaStore>) -> Arc<dyn ChunkStore> {
        Arc::new(match self {
            Network::Paper(paper) => paper.at(position, store),
            Network::Staged(_) => Paper::new(store),
        })
    }

    pub fn chunks(&self) -> Arc<dyn ChunkStore> {
        match self {
            Network::Paper(paper) => Arc::new(paper.clone()),
            Network::Staged(staged) => staged.engine.clone(),
        }
    }

    /// Names who writes the metadata.
    pub fn attach(&self, source: Arc<dyn DeltaSource>) {
        if let Network::Staged(staged) = self {
            staged.engine.attach(source);
        }
    }

    /// Seals what is there; durable when it returns.
    pub fn seal(&self, source: &dyn DeltaSource, cause: CutCause) {
        match self {
            Network::Paper(paper) => paper.seal(source, cause).expect("the store takes it"),
            Network::Staged(staged) => staged.seal(),
        }
    }

    /// Miners hold every pack from `position` of the log on; those whose chain is away never do.
    pub fn confirm(&self, position: usize) {
        if let Network::Paper(paper) = self {
            paper.confirm(position);
        }
    }

    /// Before the volume is closed.
    pub fn close(&self, runtime: &Handle) {
        if let Network::Staged(staged) = self {
            runtime
                .block_on(staged.engine.shutdown())
                .expect("the journal takes it");
        }
    }
}

/// See the module head.
#[derive(Clone)]
pub struct Paper {
    known: Arc<Mutex<Known>>,
    store: Arc<dyn MetaStore>,
}

fn place_key(id: ChunkId) -> Vec<u8> {
    [&b"Z"[..], &id.0].concat()
}

impl Paper {
    fn new(store: Arc<dyn MetaStore>) -> Paper {
        Paper {
            known: Arc::default(),
            store,
        }
    }

    /// The network as it was at `position` of the log, for a volume over `store`.
    fn at(&self, position: usize, store: Arc<dyn MetaStore>) -> Paper {
        let mut known = self.known.lock().clone();
        known.open.clear();
        known.confirmed.retain(|_, since| *since <= position);
        Paper {
            known: Arc::new(Mutex::new(known)),
            store,
        }
    }

    /// Seals the open pack as the pipeline does.
    fn seal(&self, source: &dyn DeltaSource, cause: CutCause) -> Result<(), StoreError> {
        let seq = {
            let mut known = self.known.lock();
            known.packs += 1;
            known.packs
        };
        source.cut(PackSeq(seq), cause, &mut |_| Ok(()))?;
        let mut batch = Batch::new();
        source.sealed(PackSeq(seq), &mut batch);
        let chunks = std::mem::take(&mut self.known.lock().open);
        for id in &chunks {
            batch.put(place_key(*id), seq.to_le_bytes());
        }
        self.store.commit(batch)?;
        self.store.barrier()
    }

    fn confirm(&self, position: usize) {
        let mut known = self.known.lock();
        for seq in 1..=known.packs {
            known.confirmed.entry(seq).or_insert(position);
        }
    }
}

impl ChunkStore for Paper {
    fn submit(&self, id: ChunkId, plaintext: &[u8]) -> Result<(), StoreError> {
        if self.standing(id) == Standing::Unknown {
            let mut known = self.known.lock();
            known.content.insert(id, Bytes::copy_from_slice(plaintext));
            known.open.insert(id);
        }
        Ok(())
    }

    fn fetch(&self, id: ChunkId) -> BoxFuture<'static, Result<Bytes, FetchError>> {
        let known = self.standing(id) > Standing::Unknown;
        let content = self.known.lock().content.get(&id).filter(|_| known).cloned();
        async move { content.ok_or(FetchError::Unknown) }.boxed()
    }

    fn prefetch(&self, _ids: &[ChunkId]) -> usize {
        0
    }

    fn standing(&self, id: ChunkId) -> Standing {
        let place = self.store.get(&place_key(id)).expect("the store can be read");
        let known = self.known.lock();
        match place {
            Some(seq) => {
                let seq = u64::from_le_bytes(seq.try_into().expect("the value was written here"));
                if known.confirmed.contains_key(&seq) {
                    Standing::Confirmed
                } else {
                    Standing::Sealed
                }
            }
            None if known.open.contains(&id) => Standing::Open,
            None => Standing::Unknown,
        }
    }

    fn note_change(&self) {}

    fn backlog(&self) -> Backlog {
        Backlog {
            unsent_bytes: 0,
            bound_bytes: u64::MAX,
        }
    }

    fn seal(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn replay(&self, _seq: PackSeq, _sink: FrameSink) -> BoxFuture<'static, Result<(), FetchError>> {
        async { Err(FetchError::Unknown) }.boxed()
    }

    fn replay_unsent(&self, _sink: FrameSink) -> BoxFuture<'static, Result<(), FetchError>> {
        async { Ok(()) }.boxed()
    }

    fn parted_at(&self) -> BoxFuture<'static, Result<Option<PackSeq>, FetchError>> {
        async { Ok(None) }.boxed()
    }

    fn is_fenced(&self) -> bool {
        false
    }

    fn settle(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        async { Ok(()) }.boxed()
    }
}

/// The machine's clocks.
pub struct Machine(pub std::time::Instant);

impl cessfs_sync::Clock for Machine {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
    fn wall(&self) -> Duration {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.unwrap_or_default()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}

/// Nobody takes snapshots here.
pub struct NoTrees;

impl TreeStores for NoTrees {
    fn open(&self, name: &str) -> Result<Arc<dyn MetaStore>, StoreError> {
        Err(StoreError::Corrupt(format!("there is no tree {name}")))
    }
    fn remove(&self, _name: &str) -> Result<(), StoreError> {
        Ok(())
    }
    fn names(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }
}
