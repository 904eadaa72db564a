//! What goes into which pack, and when.

use super::rig::{Rig, eventually};
use crate::chunk_store::{ChunkStore, CutCause, DeltaSource, Standing};
use crate::engine::{Config, Engine};
use crate::ledger::PackState;
use crate::limits::{PACK_AGE_MAX, SEGMENT_BYTES};
use crate::pack::directory_sealed_bytes;
use crate::store::{Batch, MetaStore, StoreError};
use cessfs_crypto::{ChunkId, PackSeq};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A delta source that writes down what it is asked.
#[derive(Default)]
struct Scribe {
    pending: Mutex<Vec<Vec<u8>>>,
    pending_age: Mutex<Duration>,
    calls: Mutex<Vec<String>>,
    fail: AtomicBool,
    panics: AtomicBool,
    panics_when_asked: AtomicBool,
    /// Chunks whose standing it asks from inside the cut.
    engine: Mutex<Weak<Engine>>,
    watched: Mutex<Vec<ChunkId>>,
}

impl DeltaSource for Scribe {
    fn cut(
        &self,
        seq: PackSeq,
        cause: CutCause,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.calls.lock().push(format!("cut {} {cause:?}", seq.0));
        if let Some(engine) = self.engine.lock().upgrade() {
            // A cut may wait for a change that is doing just this.
            engine.note_change();
            assert!(engine.backlog().unsent_bytes <= engine.backlog().bound_bytes);
            for id in self.watched.lock().iter() {
                let standing = engine.standing(*id);
                self.calls.lock().push(format!("{standing:?}"));
            }
        }
        if self.fail.load(Ordering::SeqCst) {
            return Err(StoreError::Full);
        }
        assert!(
            !self.panics.swap(false, Ordering::SeqCst),
            "this panic is part of the test"
        );
        for frame in self.pending.lock().iter() {
            sink(frame)?;
        }
        Ok(())
    }

    fn sealed(&self, seq: PackSeq, batch: &mut Batch) {
        self.calls.lock().push(format!("sealed {}", seq.0));
        self.pending.lock().clear();
        batch.put("dscribe", seq.0.to_le_bytes());
    }

    fn abandoned(&self, seq: PackSeq) {
        self.calls.lock().push(format!("abandoned {}", seq.0));
    }

    fn pending(&self) -> Option<(Duration, u64)> {
        assert!(
            !self.panics_when_asked.swap(false, Ordering::SeqCst),
            "this panic is part of the test"
        );
        let pending = self.pending.lock();
        let bytes = pending.iter().map(|frame| frame.len() as u64).sum();
        (!pending.is_empty()).then(|| (*self.pending_age.lock(), bytes))
    }
}

fn attached(rig: &Rig) -> (Arc<Engine>, Arc<Scribe>) {
    attached_with(rig, rig.world.config(&rig.staging()))
}

fn attached_with(rig: &Rig, config: Config) -> (Arc<Engine>, Arc<Scribe>) {
    let engine = rig.world.engine(config, rig.store.clone()).expect("open");
    let engine = Arc::new(engine);
    let scribe = Arc::new(Scribe::default());
    *scribe.engine.lock() = Arc::downgrade(&engine);
    engine.attach(scribe.clone());
    (engine, scribe)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settling_with_nothing_to_say_makes_no_pack() {
    let rig = Rig::new(12, 61);
    let (engine, scribe) = attached(&rig);
    engine.start();
    engine.settle().await.expect("settle");
    engine.note_change();
    engine.settle().await.expect("settle");
    assert_eq!((scribe.calls.lock().len(), rig.staged()), (0, 0));

    scribe.pending.lock().push(b"only metadata".to_vec());
    engine.settle().await.expect("settle");
    assert_eq!(*scribe.calls.lock(), ["cut 1 Forced", "sealed 1"]);
    assert_eq!(engine.status().packs[&PackState::Confirmed], 1);
    assert_eq!(
        rig.store.get(b"dscribe").expect("get"),
        Some(1u64.to_le_bytes().to_vec())
    );
    assert_eq!(rig.world.chain.stored().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_is_known_costs_nothing() {
    let rig = Rig::new(12, 62);
    let (engine, scribe) = attached(&rig);
    engine.start();
    let chunks = rig.chunks(2, 10_000);
    rig.submit(&engine, &chunks);
    let open_bytes = engine.backlog().unsent_bytes;
    rig.submit(&engine, &chunks);
    assert_eq!(engine.backlog().unsent_bytes, open_bytes);
    *scribe.watched.lock() = chunks.iter().map(|(id, _)| *id).collect();
    engine.settle().await.expect("settle");
    assert_eq!(*scribe.calls.lock(), ["cut 1 Forced", "Open", "Open", "sealed 1"]);
    rig.submit(&engine, &chunks);
    assert_eq!(engine.backlog().unsent_bytes, 0);
    engine.settle().await.expect("settle");
    assert_eq!(engine.status().packs[&PackState::Confirmed], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_cannot_be_cut_is_abandoned_and_its_chunks_are_unknown() {
    let rig = Rig::new(12, 63);
    let (engine, scribe) = attached(&rig);
    engine.start();
    let chunks = rig.chunks(1, 100);
    rig.submit(&engine, &chunks);
    scribe.fail.store(true, Ordering::SeqCst);
    let error = engine.settle().await.expect_err("the cut fails");
    assert!(matches!(error, StoreError::Full));
    assert_eq!(*scribe.calls.lock(), ["cut 1 Forced", "abandoned 1"]);
    assert_eq!(engine.standing(chunks[0].0), Standing::Unknown);
    assert_eq!((rig.staged(), engine.backlog().unsent_bytes), (0, 0));
    scribe.fail.store(false, Ordering::SeqCst);
    rig.submit(&engine, &chunks);
    engine.settle().await.expect("settle");
    assert_eq!(
        engine.locate(chunks[0].0).expect("locate").expect("known").seq,
        PackSeq(2)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_whose_cut_panics_is_abandoned_and_the_next_one_goes() {
    let rig = Rig::new(12, 73);
    let (engine, scribe) = attached(&rig);
    engine.start();
    let chunks = rig.chunks(1, 100);
    rig.submit(&engine, &chunks);
    scribe.panics.store(true, Ordering::SeqCst);
    let error = engine.settle().await.expect_err("the cut panics");
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
    assert_eq!(*scribe.calls.lock(), ["cut 1 Forced", "abandoned 1"]);
    assert_eq!(engine.standing(chunks[0].0), Standing::Unknown);
    rig.submit(&engine, &chunks);
    engine.settle().await.expect("settle");
    assert_eq!(engine.standing(chunks[0].0), Standing::Confirmed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aged_content_and_aged_metadata_are_sealed_unasked() {
    let rig = Rig::new(12, 64);
    let mut config = rig.world.config(&rig.staging());
    config.pack_age_max = PACK_AGE_MAX;
    let (engine, scribe) = attached_with(&rig, config);
    engine.start();
    let chunks = rig.chunks(1, 100);
    rig.submit(&engine, &chunks);
    eventually("the chunk is confirmed", || {
        engine.standing(chunks[0].0) == Standing::Confirmed
    })
    .await;
    assert_eq!(scribe.calls.lock()[0], "cut 1 Forced");
    scribe.pending.lock().push(b"renamed".to_vec());
    *scribe.pending_age.lock() = PACK_AGE_MAX;
    eventually("the metadata is sealed", || scribe.calls.lock().len() == 4).await;
    assert_eq!(scribe.calls.lock()[2..], ["cut 2 Forced", "sealed 2"]);
    scribe.pending.lock().push(b"renamed again".to_vec());
    *scribe.pending_age.lock() = Duration::ZERO;
    engine.note_change();
    eventually("a noted change is sealed", || scribe.calls.lock().len() == 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealer_that_panicked_begins_again() {
    let rig = Rig::new(12, 74);
    let mut config = rig.world.config(&rig.staging());
    config.pack_age_max = PACK_AGE_MAX;
    let (engine, scribe) = attached_with(&rig, config);
    scribe.panics_when_asked.store(true, Ordering::SeqCst);
    engine.start();
    eventually("the sealer panics", || !scribe.panics_when_asked.load(Ordering::SeqCst)).await;
    let chunks = rig.chunks(1, 100);
    rig.submit(&engine, &chunks);
    eventually("what is aged is sealed unasked, and confirmed", || {
        engine.standing(chunks[0].0) == Standing::Confirmed
    })
    .await;
    let told = engine.status().errors;
    assert!(
        told.iter().any(|trouble| trouble.text.contains("what seals packs")),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aged_metadata_waits_while_another_pack_would_pass_the_bound() {
    let rig = Rig::new(12, 67);
    rig.world.chain.set_away(true);
    let mut config = rig.world.config(&rig.staging());
    config.pack_age_max = PACK_AGE_MAX;
    let (engine, scribe) = attached_with(&rig, config);
    *scribe.pending_age.lock() = PACK_AGE_MAX;
    engine.start();
    for sealed in [2, 4] {
        scribe.pending.lock().push(b"renamed".to_vec());
        eventually("the metadata is sealed", || scribe.calls.lock().len() == sealed).await;
    }
    scribe.pending.lock().push(b"renamed".to_vec());
    // Half a minute of the simulated clock, in which the sealer looks thirty times.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((scribe.calls.lock().len(), rig.staged()), (4, 2));
    rig.world.chain.set_away(false);
    engine.poke();
    eventually("there is room", || scribe.calls.lock().len() == 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_packs_are_sealed_and_the_backlog_has_a_bound() {
    let rig = Rig::new(12, 65);
    rig.world.chain.set_away(true);
    let (engine, scribe) = attached(&rig);
    engine.start();
    let chunks = rig.chunks(80, 1 << 20);
    let submitted = Arc::new(AtomicUsize::new(0));
    let writer = {
        let (engine, chunks, submitted) = (engine.clone(), chunks.clone(), submitted.clone());
        std::thread::spawn(move || {
            for (id, bytes) in &chunks {
                engine.submit(*id, bytes)?;
                submitted.fetch_add(1, Ordering::SeqCst);
            }
            Ok::<(), StoreError>(())
        })
    };
    // Two packs of 31 whole chunks each: a third would pass the bound of two segments.
    eventually("the writer is held back", || submitted.load(Ordering::SeqCst) == 62).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(submitted.load(Ordering::SeqCst), 62);
    assert!(engine.backlog().unsent_bytes <= engine.backlog().bound_bytes);
    assert_eq!(engine.backlog().bound_bytes, 2 * SEGMENT_BYTES as u64);
    assert!(scribe.calls.lock().contains(&"cut 1 Full".to_string()));
    rig.world.chain.set_away(false);
    engine.poke();
    eventually("the writer goes on", || submitted.load(Ordering::SeqCst) == 80).await;
    writer.join().expect("no panic").expect("all submitted");
    engine.settle().await.expect("settle");
    assert_eq!(engine.status().packs[&PackState::Confirmed], 3);
    rig.assert_fetch(&engine, &chunks[60..64]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_of_tiny_chunks_is_full_when_its_directory_is() {
    let rig = Rig::new(12, 68);
    let mut config = rig.world.config(&rig.staging());
    config.pack_directory_bytes_max = directory_sealed_bytes(10, 1);
    let engine = rig.world.engine(config, rig.store.clone()).expect("open");
    engine.start();
    let chunks = rig.chunks(25, 1);
    rig.submit(&engine, &chunks);
    eventually("two packs are full", || {
        engine.status().packs.get(&PackState::Confirmed) == Some(&2)
    })
    .await;
    rig.assert_fetch(&engine, &chunks[..20]).await;
    assert_eq!(engine.standing(chunks[20].0), Standing::Open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_grows_while_the_one_before_it_waits_to_be_declared_and_no_longer() {
    let rig = Rig::new(12, 67);
    rig.world.chain.set_away(true);
    let mut config = rig.world.config(&rig.staging());
    config.pack_bytes_max = 3 * SEGMENT_BYTES as u64;
    config.backlog_bound_bytes = 8 * SEGMENT_BYTES as u64;
    let engine = rig.world.engine(config, rig.store.clone()).expect("open");
    engine.start();
    let chunks = rig.chunks(170, 1 << 20);
    rig.submit(&engine, &chunks[..75]);
    let sealed = || engine.status().underway.len();
    assert_eq!(
        sealed(),
        1,
        "the first is full at a segment, the second goes on beyond one"
    );
    // Three segments, though nothing was declared.
    rig.submit(&engine, &chunks[75..140]);
    eventually("the second is full at its bound", || sealed() == 2).await;
    // More than a segment waits in the third; it is sealed as soon as it waits for nobody.
    rig.submit(&engine, &chunks[140..]);
    rig.world.chain.set_away(false);
    engine.poke();
    eventually("the third does not wait for its age", || {
        engine.status().packs.get(&PackState::Confirmed) == Some(&3)
    })
    .await;
    rig.assert_fetch(&engine, &chunks[120..160]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_lets_nobody_wait_and_the_next_start_goes_on() {
    let rig = Rig::new(12, 66);
    rig.world.chain.set_away(true);
    let (engine, _scribe) = attached(&rig);
    engine.start();
    let chunks = rig.chunks(2, 1000);
    rig.submit(&engine, &chunks[..1]);
    let settled = tokio::spawn(engine.settle());
    eventually("the first chunk is sealed", || {
        engine.standing(chunks[0].0) == Standing::Sealed
    })
    .await;
    rig.submit(&engine, &chunks[1..]);
    assert_eq!(rig.staged(), 2);
    engine.shutdown().await.expect("shutdown");
    assert!(settled.await.expect("no panic").is_err());
    assert!(engine.submit(chunks[1].0, &chunks[1].1).is_err());
    assert_eq!(rig.staged(), 1, "the open pack is thrown away, the sealed one stays");
    drop(engine);

    rig.world.chain.set_away(false);
    let engine = rig.open();
    assert_eq!(engine.standing(chunks[0].0), Standing::Sealed);
    assert_eq!(engine.standing(chunks[1].0), Standing::Unknown);
    engine.settle().await.expect("settle");
    assert_eq!(engine.standing(chunks[0].0), Standing::Confirmed);
}
