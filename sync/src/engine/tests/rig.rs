//! What every engine test needs: a world, a store, a staging directory, and chunks.

use crate::chunk_store::ChunkStore;
use crate::engine::Engine;
use crate::ledger::Blocked;
use crate::sim::{SimEntropy, World};
use crate::store::{MemStore, MetaStore};
use bytes::Bytes;
use cessfs_crypto::{ChunkId, Entropy};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) type Chunk = (ChunkId, Bytes);

pub(super) struct Rig {
    pub(super) world: World,
    pub(super) store: Arc<MemStore>,
    dir: tempfile::TempDir,
    content: Mutex<SimEntropy>,
}

/// Real time after which something that should happen is a failure; far above what any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

impl Rig {
    pub(super) fn new(miners: u8, seed: u64) -> Rig {
        Rig {
            world: World::new(miners, seed),
            store: Arc::new(MemStore::new()),
            dir: tempfile::tempdir().expect("temporary directory"),
            content: Mutex::new(SimEntropy::new(!seed)),
        }
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.dir.path().join("staging")
    }

    /// Bodies in the staging directory.
    pub(super) fn staged(&self) -> usize {
        std::fs::read_dir(self.staging()).expect("staging directory").count()
    }

    /// A started engine with nobody's delta.
    pub(super) fn open(&self) -> Engine {
        self.open_on(self.store.clone())
    }

    pub(super) fn open_on(&self, store: Arc<dyn MetaStore>) -> Engine {
        let engine = self
            .world
            .engine(self.world.config(&self.staging()), store)
            .expect("open");
        engine.start();
        engine
    }

    pub(super) fn chunks(&self, count: usize, len: usize) -> Vec<Chunk> {
        let chunk = |_| {
            let mut bytes = vec![0; len];
            self.content.lock().fill(&mut bytes);
            (self.world.keys.chunk_id(&bytes), Bytes::from(bytes))
        };
        (0..count).map(chunk).collect()
    }

    pub(super) fn submit(&self, engine: &Engine, chunks: &[Chunk]) {
        for (id, bytes) in chunks {
            engine.submit(*id, bytes).expect("submit");
        }
    }

    pub(super) async fn assert_fetch(&self, engine: &Engine, chunks: &[Chunk]) {
        for (number, (id, bytes)) in chunks.iter().enumerate() {
            let fetched = engine.fetch(*id).await;
            let fetched = fetched.unwrap_or_else(|error| panic!("chunk {number}: {error}"));
            assert!(fetched == *bytes, "chunk {number} came back different");
        }
    }

    /// Waits until a pack is blocked for a reason that `is` accepts, and returns it.
    pub(super) async fn blocked(&self, engine: &Engine, is: impl Fn(&Blocked) -> bool) -> Blocked {
        let mut found = None;
        eventually("a pack is blocked as expected", || {
            let status = engine.status();
            found = status
                .underway
                .into_iter()
                .filter_map(|pack| pack.blocked)
                .find(|reason| is(reason));
            found.is_some()
        })
        .await;
        found.expect("eventually saw it")
    }
}

/// Polls until `done`.
pub(super) async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
