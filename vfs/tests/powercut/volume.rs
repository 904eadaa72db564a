//! A volume below a directory: real journal, real cache, real staging, whatever the disk under them is.

use crate::disk::Dice;
use crate::network::{Machine, NoTrees};
use cessfs_crypto::{Entropy, Phrase, VolumeId, VolumeKeys};
use cessfs_sync::store::{Journal, LogSettings, RedbBackend, Sealer, SledBackend};
use cessfs_sync::{Batch, ChunkStore, MetaStore, StoreError};
use cessfs_vfs::{AtRest, VfsConfig, VfsParts};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Which database lies under the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sled,
    /// sled, neither its log nor the journal's made durable: what the barrier of the journal is there to prevent.
    SledWithoutBarrier,
    /// sled, not made durable by itself; the journal's log is. It has what was promised until its segment is written over.
    SledUnderSyncedLog,
    Redb,
}

/// So small that a run writes each segment of the journal's log many times, and has batches that fit none.
const SEGMENT_BYTES: u64 = 32 << 10;

/// How a volume is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub database: Database,
    pub at_rest: AtRest,
    /// With the real engine, whose packs stay in the staging directory.
    pub staged: bool,
    /// What an fsync put into the journal of a file's content is gone after each power cut.
    pub forgets_copies: bool,
}

/// What the keys of that begin with (docs/FORMAT-cache.md).
const COPIES: &[u8] = b"l";

/// Copies of blocks in the journal.
pub fn copies(store: &dyn MetaStore) -> Result<usize, StoreError> {
    Ok(store.scan(COPIES, COPIES, usize::MAX)?.len())
}

/// Takes them out.
pub fn forget_copies(store: &dyn MetaStore) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    for (key, _) in store.scan(COPIES, COPIES, usize::MAX)? {
        batch.delete(key);
    }
    store.commit(batch)?;
    store.barrier()
}

impl Entropy for Dice {
    fn fill(&mut self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
    }
}

/// Made once: a phrase is slow to turn into keys, on purpose.
static KEYS: LazyLock<VolumeKeys> = LazyLock::new(|| {
    let words = format!("{}art", "abandon ".repeat(23));
    let phrase = Phrase::parse(&words).expect("the phrase of all-zero entropy");
    phrase.secret().volume_keys(VolumeId([7; 16]))
});

pub fn keys() -> VolumeKeys {
    KEYS.clone()
}

/// Makes the directories of a volume, durably, as `init` does before there is one.
pub fn make(dir: &Path) -> std::io::Result<()> {
    for part in ["journal", "cache", "staging"] {
        std::fs::create_dir(dir.join(part))?;
    }
    std::fs::File::open(dir)?.sync_all()
}

/// Opens the journal. Nonces differ from one opening to the next, as they must.
pub fn journal(dir: &Path, setup: Setup, nonces: u64) -> Result<Arc<dyn MetaStore>, StoreError> {
    let sealer = match setup.at_rest {
        AtRest::Sealed => Some(Sealer::new(keys().at_rest(), Box::new(Dice(nonces)))),
        AtRest::Plain => None,
    };
    let dir = dir.join("journal");
    let log = LogSettings {
        segment_bytes: SEGMENT_BYTES,
        synced: setup.database != Database::SledWithoutBarrier,
    };
    Ok(match setup.database {
        Database::Sled => Arc::new(Journal::logged(SledBackend::open(&dir)?, sealer, &dir, log)?),
        Database::SledWithoutBarrier | Database::SledUnderSyncedLog => {
            let backend = SledBackend::open_without_barrier(&dir)?;
            Arc::new(Journal::logged(backend, sealer, &dir, log)?)
        }
        Database::Redb => Arc::new(Journal::logged(RedbBackend::open(&dir)?, sealer, &dir, log)?),
    })
}

fn config(dir: &Path, setup: Setup) -> VfsConfig {
    let mut config = VfsConfig::new(dir.join("cache"));
    config.at_rest = setup.at_rest;
    config.writeback_delay = Duration::from_millis(30);
    config
}

/// What makes a volume over its journal.
pub fn parts(
    dir: &Path,
    setup: Setup,
    store: Arc<dyn MetaStore>,
    chunks: Arc<dyn ChunkStore>,
    nonces: u64,
) -> VfsParts {
    VfsParts {
        store,
        clock: Arc::new(Machine(Instant::now())),
        chunks,
        keys: keys(),
        config: config(dir, setup),
        entropy: Arc::new(Mutex::new(Dice(nonces))),
        trees: Arc::new(NoTrees),
    }
}
