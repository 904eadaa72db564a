//! Counts of what lives, beside everything else that goes on.

use super::rig::{Chunk, Rig, eventually};
use super::upkeep::{Owner, lose_columns, name, open, open_on, packs, seq_of};
use crate::chunk_store::{ChunkStore, Standing};
use crate::engine::Engine;
use crate::store::{Batch, MemStore, MetaStore, Record, StoreError};
use crate::upkeep::Depth;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A store in which a sweep over the locations stands still until a new pack is visible, whose flush then takes its time.
#[derive(Default)]
struct Paced {
    inner: MemStore,
    holds_sweep: AtomicBool,
    is_sweeping: AtomicBool,
    awaited: Mutex<Option<Vec<u8>>>,
    goes_on: Mutex<bool>,
    woken: Condvar,
}

/// Far longer than a sweep of a few locations takes.
const SLOW_FLUSH: Duration = Duration::from_millis(300);

impl MetaStore for Paced {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(key)
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        if prefix == b"K" && self.holds_sweep.swap(false, Ordering::SeqCst) {
            self.is_sweeping.store(true, Ordering::SeqCst);
            self.woken.wait_while(&mut self.goes_on.lock(), |goes_on| !*goes_on);
        }
        self.inner.scan(prefix, from, limit)
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.inner.commit(batch)
    }

    fn barrier(&self) -> Result<(), StoreError> {
        let mut awaited = self.awaited.lock();
        let is_there = |key: &Vec<u8>| self.inner.get(key).is_ok_and(|found| found.is_some());
        if awaited.take_if(|key| is_there(key)).is_some() {
            drop(awaited);
            *self.goes_on.lock() = true;
            self.woken.notify_all();
            std::thread::sleep(SLOW_FLUSH);
        }
        self.inner.barrier()
    }
}

fn assert_located(engine: &Engine, chunks: &[Chunk]) {
    for (id, _) in chunks {
        assert!(
            engine.locate(*id).expect("journal").is_some(),
            "its location is forgotten"
        );
        assert_eq!(engine.standing(*id), Standing::Confirmed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_beside_a_sealing_forgets_no_location() {
    let rig = Rig::new(13, 901);
    let store = Arc::new(Paced::default());
    let owner = Arc::new(Owner::default());
    let engine = Arc::new(open_on(&rig, store.clone(), &owner, |_| ()));
    let old = packs(&rig, &engine, 1, 1).await;
    name(&owner, &old[0]);
    store.holds_sweep.store(true, Ordering::SeqCst);
    let count = tokio::spawn(engine.collect(true));
    eventually("it sweeps", || store.is_sweeping.load(Ordering::SeqCst)).await;

    let fresh = rig.chunks(2, 5000);
    name(&owner, &fresh);
    rig.submit(&engine, &fresh);
    *store.awaited.lock() = Some([b"K".as_slice(), &fresh[0].0.0].concat());
    let sealer = engine.clone();
    let sealed = tokio::task::spawn_blocking(move || ChunkStore::seal(&*sealer)).await;
    sealed.expect("no panic").expect("seal");
    count.await.expect("no panic").expect("count");
    engine.settle().await.expect("settle");

    assert_located(&engine, &fresh);
    // With its locations forgotten the pack would look empty, and go.
    packs(&rig, &engine, 3, 1).await;
    engine.collect(false).await.expect("collect");
    rig.assert_fetch(&engine, &fresh).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_younger_than_the_last_count_is_repaired_for_a_snapshot() {
    let rig = Rig::new(24, 941);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let old = packs(&rig, &engine, 1, 1).await;
    name(&owner, &old[0]);
    engine.collect(true).await.expect("count");
    let young = packs(&rig, &engine, 1, 2).await;
    name(&owner, &young[0]);
    let seq = seq_of(&engine, young[0][0].0);
    owner.pin(Some(seq));
    lose_columns(&rig, &engine, young[0][0].0, 7);
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    let repaired = engine.repair().await.expect("repair");
    assert_eq!(repaired.packs, [seq]);
    assert_ne!(seq_of(&engine, young[0][0].0), seq, "it lies in a whole pack");
}
