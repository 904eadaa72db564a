//! The disk of a machine, and what a crash leaves of it.
//!
//! The journal keeps every batch up to the last barrier and a random number of those after it: an atomic prefix, as its
//! contract says. Staged bodies that were made durable stay; a power cut damages any other. Backing files keep what was
//! written to them; what a power cut does to those is shown by other tests, below a real file system.

use crate::death::Death;
use crate::dice::Dice;
use crate::trace::Trace;
use cessfs_sync::ledger::{DrainCause, PackRecord, PackState};
use cessfs_sync::rules::{bodies_moved, was_persisted};
use cessfs_sync::store::{MemStore, Record};
use cessfs_sync::{Batch, MetaStore, StoreError};
use parking_lot::Mutex;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a machine goes down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process is killed.
    Kill,
    /// So is the machine.
    PowerCut,
}

/// What outlives a process.
pub struct Disk {
    root: PathBuf,
    journal: Arc<MemStore>,
    lives: u32,
}

impl Disk {
    /// An empty disk in a directory of its own.
    pub fn new(root: PathBuf) -> Disk {
        Disk::with_journal(root, Arc::new(MemStore::new()))
    }

    /// A disk with a journal, and nothing else.
    pub fn with_journal(root: PathBuf, journal: Arc<MemStore>) -> Disk {
        std::fs::create_dir_all(root.join("cache")).expect("a directory for the cache");
        Disk {
            root,
            journal,
            lives: 0,
        }
    }

    /// Where backing files lie.
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Where bodies of packs lie in this life.
    pub fn staging(&self) -> PathBuf {
        self.root.join(format!("staging-{}", self.lives))
    }

    /// The journal itself.
    pub fn journal(&self) -> Arc<MemStore> {
        self.journal.clone()
    }

    /// The journal for one life: it ends with it.
    pub fn lease(&self, fuse: Option<u64>, death: Death, trace: Trace, relied_on: ReliedOn) -> Arc<Lease> {
        Arc::new(Lease {
            journal: self.journal.clone(),
            fuse: Mutex::new(fuse),
            death,
            trace,
            relied_on,
        })
    }

    /// The machine goes down; returns how many batches of the journal are left.
    pub fn crash(&mut self, crash: Crash, dice: &mut Dice, trace: &Trace) -> usize {
        let (committed, durable) = self.journal.progress();
        let kept = durable + dice.below((committed - durable) as u64 + 1) as usize;
        trace.note(format_args!(
            "disk: {crash:?}, {kept} of {committed} batches are left, {durable} were durable"
        ));
        trace.add("journal batches lost in crashes", (committed - kept) as u64);
        self.journal = Arc::new(self.journal.crashed_at(kept));
        let before = self.staging();
        if crash == Crash::PowerCut && before.exists() {
            damage(&before, dice, trace);
        }
        self.lives += 1;
        // A new name, so that what is left of the old process cannot touch it.
        if before.exists() {
            std::fs::rename(&before, self.staging()).expect("bodies move to the next life");
            bodies_moved(&before, &self.staging());
        }
        kept
    }
}

/// What was not made durable is cut short, gone, or has holes.
fn damage(staging: &Path, dice: &mut Dice, trace: &Trace) {
    let listed = std::fs::read_dir(staging).expect("the staging directory");
    let mut bodies: Vec<PathBuf> = listed.map(|entry| entry.expect("an entry").path()).collect();
    bodies.sort();
    for path in bodies {
        let body = std::fs::OpenOptions::new().write(true).open(&path).expect("a body");
        let metadata = body.metadata().expect("its length");
        if was_persisted(&path) {
            continue;
        }
        trace.count("staged bodies damaged by power cuts");
        match dice.below(3) {
            0 => std::fs::remove_file(&path).expect("it was there"),
            1 => body.set_len(dice.below(metadata.len() + 1)).expect("cut short"),
            _ => {
                let at = dice.below(metadata.len().max(1));
                let hole = vec![0; 4096u64.min(metadata.len() - at.min(metadata.len())) as usize];
                body.write_all_at(&hole, at).expect("a hole");
            }
        }
    }
}

/// Told of every pack that the journal calls Confirmed or Doubted, and of each that was Doubted and is replaced.
pub type ReliedOn = Arc<dyn Fn(&PackRecord) + Send + Sync>;

/// The journal as one life has it: after so many batches, or when that life is over, it takes no more.
pub struct Lease {
    journal: Arc<MemStore>,
    fuse: Mutex<Option<u64>>,
    death: Death,
    trace: Trace,
    relied_on: ReliedOn,
}

impl Lease {
    fn alive(&self) -> Result<(), StoreError> {
        match self.death.has_come() {
            true => Err(StoreError::Poisoned),
            false => Ok(()),
        }
    }
}

impl MetaStore for Lease {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.alive()?;
        self.journal.get(key)
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        self.alive()?;
        self.journal.scan(prefix, from, limit)
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.alive()?;
        if let Some(left) = &mut *self.fuse.lock() {
            if *left == 0 {
                self.trace.count("crashes between two journal records");
                self.death.strike();
                return Err(StoreError::Poisoned);
            }
            *left -= 1;
        }
        for (key, value) in &batch.ops {
            if let (Some(b'P'), Some(value)) = (key.first(), value)
                && let Ok(pack) = PackRecord::decode(value)
            {
                let doubted = pack.drain.is_some_and(|drain| drain.cause == DrainCause::Doubted);
                match pack.state {
                    PackState::Confirmed | PackState::Doubted => (self.relied_on)(&pack),
                    PackState::Draining if doubted => (self.relied_on)(&pack),
                    _ => {}
                }
                if pack.state == PackState::Doubted && pack.drain.is_some_and(|drain| drain.checkpoint.is_none()) {
                    self.trace.count("packs doubted");
                }
                let PackRecord { seq, kind, state, .. } = &pack;
                let (chunks, deltas) = (pack.chunks, pack.delta_bytes);
                self.trace.note(format_args!(
                    "journal: pack {} {kind:?} {state:?}, {chunks} chunks, {deltas} bytes of metadata",
                    seq.0
                ));
            }
        }
        self.trace.add("journal batches", 1);
        self.journal.commit(batch)
    }

    fn barrier(&self) -> Result<(), StoreError> {
        self.alive()?;
        self.journal.barrier()
    }
}

/// All records, for comparing two runs.
pub fn dump(journal: &MemStore) -> Vec<Record> {
    journal.scan(b"", b"", usize::MAX).expect("memory does not fail")
}
