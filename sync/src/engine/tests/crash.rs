//! The engine dies, again and again, and the next one goes on.

use super::rig::{Rig, eventually};
use crate::chunk_store::{ChunkStore, Standing};
use crate::sim::CutoffStore;
use std::sync::Arc;
use std::time::Duration;

/// One record per life: whatever follows from a record may happen, then the process is gone. The owner of the chunks does
/// what vfs does: it submits again what nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_every_single_record_neither_declares_twice_nor_loses_a_chunk() {
    let rig = Rig::new(13, 11);
    let chunks = rig.chunks(3, 100_000);
    let mut lives = 0;
    loop {
        lives += 1;
        assert!(lives < 200, "no progress: {:?}", rig.world.chain.declarations());
        let store = Arc::new(CutoffStore::new(rig.store.clone(), 1));
        let engine = rig.open_on(store.clone());
        if chunks.iter().all(|(id, _)| engine.standing(*id) == Standing::Confirmed) {
            break;
        }
        rig.submit(&engine, &chunks);
        let settled = engine.settle();
        let confirmed = || chunks.iter().all(|(id, _)| engine.standing(*id) == Standing::Confirmed);
        let crashed = eventually("the store takes no more", || store.is_cut_off() || confirmed());
        // The settle fails with the journal; only that it ends matters.
        let _ = tokio::join!(settled, crashed);
    }
    // At least Sealed, Declaring, the intent, Placing, Stored and Confirmed; columns add to them.
    assert!(lives > 6, "only {lives} records were crashed at");
    let declared = rig.world.chain.declarations();
    assert!(declared.iter().all(|(_, times)| *times == 1), "F4: {declared:?}");
    assert_eq!(declared.len(), 1);
    let engine = rig.open();
    rig.assert_fetch(&engine, &chunks).await;
    engine.settle().await.expect("nothing is left to do");
    eventually("the body is gone", || rig.staged() == 0).await;
}

/// Not between records but at any moment, in the middle of a declaration too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_at_any_moment_neither_declare_twice_nor_lose_a_chunk() {
    let rig = Rig::new(14, 12);
    let chunks = rig.chunks(3, 50_000);
    for life in 0u64.. {
        assert!(life < 300, "no progress: {:?}", rig.world.chain.declarations());
        let engine = rig.open();
        if chunks.iter().all(|(id, _)| engine.standing(*id) == Standing::Confirmed) {
            break;
        }
        rig.submit(&engine, &chunks);
        let settled = engine.settle();
        // One that died before its declaration went out has to be waited out: every tenth life is long enough for that.
        let life_ms = match life % 10 {
            9 => 8_000,
            _ => 5 + (life * 137) % (20 + life * 80),
        };
        let _ = tokio::time::timeout(Duration::from_millis(life_ms), settled).await;
    }
    let declared = rig.world.chain.declarations();
    assert!(declared.iter().all(|(_, times)| *times == 1), "F4: {declared:?}");
    let engine = rig.open();
    rig.assert_fetch(&engine, &chunks).await;
}

/// Behind one address may be several nodes, and the first that answers the next run may be one that lags.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_run_knows_how_far_finality_was_when_the_last_pack_was_stored() {
    let rig = Rig::new(12, 13);
    let engine = rig.open();
    assert_eq!(rig.world.chain.noted_final(), 0, "nothing is known yet");
    let chunks = rig.chunks(1, 5000);
    rig.submit(&engine, &chunks);
    engine.settle().await.expect("settle");
    let (fid, _) = rig.world.chain.declarations()[0];
    drop(engine);
    let _engine = rig.open();
    let noted = rig.world.chain.noted_final();
    assert!(noted >= rig.world.chain.born(fid), "{noted}");
}
