//! What only a snapshot needs: it stays where a snapshot finds it, also when it moves, and on another machine.

use super::purged::found;
use super::rig::{Chunk, Rig};
use super::upkeep::{Owner, forget, holders, lose_columns, name, open, open_on, packs, seq_of};
use crate::builder::Checkpoint;
use crate::chunk_store::ChunkStore;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::ledger::{DrainCause, PackState};
use crate::recovery::{Archive, ArchiveParts, At, Continuation, install, survey};
use crate::sim::{Fault, SimEntropy, SimMiners};
use crate::store::MemStore;
use crate::upkeep::Depth;
use cessfs_crypto::PackSeq;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Fills a pack that nobody needs.
async fn waste(rig: &Rig, engine: &Engine, count: usize) {
    packs(rig, engine, count, 1).await;
}

/// A round moves one chunk after the other, and a snapshot may be sealed in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_moves_after_a_snapshot_that_names_it_stays_for_that_snapshot() {
    let rig = Rig::new(13, 341);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let packs = packs(&rig, &engine, 4, 2).await;
    packs.iter().for_each(|chunks| name(&owner, chunks));
    let old = [PackSeq(1), PackSeq(2)];
    engine.builder.drain(&old, DrainCause::Dead).expect("drain");
    owner.pin(Some(PackSeq(4)));
    // What lived in the first moves in the round, what lived in the second comes again by itself.
    rig.submit(&engine, &packs[1]);
    engine.settle().await.expect("settle");
    engine.collect(false).await.expect("collect");
    let moved = [seq_of(&engine, packs[0][0].0), seq_of(&engine, packs[1][0].0)];
    assert!(moved.iter().all(|seq| *seq > PackSeq(4)), "{moved:?}");

    packs[..2].iter().for_each(|chunks| forget(&owner, chunks));
    waste(&rig, &engine, 2).await;
    let done = engine.collect(false).await.expect("collect");
    assert!(done.deleted.len() >= 2, "what was wasted goes: {done:?}");
    engine.collect(true).await.expect("count");
    drop(engine);
    let engine = open(&rig, &owner);
    for chunks in &packs {
        rig.assert_fetch(&engine, chunks).await;
    }
    owner.pin(None);
    waste(&rig, &engine, 1).await;
    let done = engine.collect(false).await.expect("collect");
    for seq in old.into_iter().chain(moved) {
        assert!(done.deleted.contains(&seq), "no snapshot any more: {seq:?} {done:?}");
    }
}

/// An engine of somebody who has nothing but the keys.
async fn recover(rig: &Rig, owner: &Arc<Owner>) -> Engine {
    let found = survey(rig.world.chain.as_ref(), &rig.world.labels, &|_| ()).await;
    let found = found.expect("survey").take(rig.world.keys.volume());
    let archive = Archive::new(ArchiveParts {
        chain: rig.world.chain.clone(),
        fragments: rig.world.miners.clone(),
        clock: rig.world.clock.clone(),
        entropy: Box::new(SimEntropy::new(99)),
        keys: rig.world.keys.clone(),
        tasks: Handle::current().into(),
    });
    let packs = archive.open(found, &|_| ()).await;
    let plan = packs.plan(At::Newest).expect("a plan");
    let store = Arc::new(MemStore::new());
    let continuation = Continuation::after(&packs, &mut SimEntropy::new(7));
    install(store.as_ref(), &packs, &plan, continuation).expect("install");
    open_on(rig, store, owner, |_| ())
}

/// A pack that only a snapshot needs was copied, and the machine is lost; the pack itself is there, or gone for good.
async fn recovered(seed: u64, is_gone: bool) {
    let rig = Rig::new(16, seed);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let all: Vec<Vec<Chunk>> = packs(&rig, &engine, 4, 2).await;
    all[1..].iter().for_each(|chunks| name(&owner, chunks));
    owner.pin(Some(PackSeq(2)));
    let fid = lose_columns(&rig, &engine, all[0][0].0, 5);
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    engine.repair().await.expect("repair");
    let stand_in = seq_of(&engine, all[0][0].0);
    assert!(stand_in > PackSeq(4));
    // A checkpoint, so that the newest point needs nothing before it.
    let sealed = engine.builder.seal_checkpoint(&HashSet::new()).expect("seal");
    assert!(matches!(sealed, Checkpoint::Sealed(_)));
    engine.settle().await.expect("settle");
    drop(engine);
    if is_gone {
        (0..16).for_each(|number| rig.world.miners.lose(number, fid));
    }

    let engine = recover(&rig, &owner).await;
    waste(&rig, &engine, 2).await;
    let done = engine.collect(false).await.expect("collect");
    assert!(!done.deleted.is_empty(), "what was wasted goes: {done:?}");
    assert!(!done.deleted.contains(&stand_in), "{done:?}");
    rig.assert_fetch(&engine, &all[0]).await;
    owner.pin(None);
    waste(&rig, &engine, 1).await;
    let done = engine.collect(false).await.expect("collect");
    assert!(done.deleted.contains(&stand_in), "no snapshot any more: {done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_for_a_pack_is_known_after_a_recovery() {
    recovered(342, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_for_a_pack_that_cannot_be_read_is_known_after_a_recovery() {
    recovered(343, true).await;
}

/// Nothing is sealed for a copy that did not come about, however often it is tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_stays_and_cannot_be_read_costs_no_pack_per_round() {
    let rig = Rig::new(24, 344);
    let owner = Arc::new(Owner::default());
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| upkeep.repair = true);
    let all = packs(&rig, &engine, 1, 1).await;
    owner.pin(Some(PackSeq(1)));
    owner.talk();
    let first = holders(&engine, all[0][0].0);
    lose_columns(&rig, &engine, all[0][0].0, 7);
    for number in &first[7..10] {
        rig.world.miners.set_fault(*number, Some(Fault::Gone));
    }
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    assert_eq!(engine.status().damaged, [(PackSeq(1), 5)]);
    for _ in 0..10 {
        let repaired = engine.repair().await.expect("repair");
        assert_eq!((repaired.chunks, repaired.packs), (0, vec![PackSeq(1)]));
    }
    rig.world.clock.sleep(Duration::from_secs(300)).await;
    // The one beside it is the checkpoint that tells the tree without it.
    assert_eq!(engine.status().packs, [(PackState::Confirmed, 2)].into());
    for number in &first[7..10] {
        rig.world.miners.set_fault(*number, None);
    }
    let repaired = engine.repair().await.expect("repair");
    assert_eq!(repaired.chunks, 1);
    rig.assert_fetch(&engine, &all[0]).await;
}

/// A lost pack keeps all older ones from being deleted, so it must not stay lost when its miners are back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_stays_and_was_lost_is_copied_when_its_miners_are_back() {
    let rig = Rig::new(24, 345);
    let owner = Arc::new(Owner::default());
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| {
        upkeep.thresholds.away = Duration::ZERO;
    });
    let all = packs(&rig, &engine, 1, 2).await;
    owner.pin(Some(PackSeq(1)));
    let first = holders(&engine, all[0][0].0);
    let fault = |fault| {
        for number in &first[..9] {
            rig.world.miners.set_fault(*number, fault);
        }
    };
    fault(Some(Fault::Gone));
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    let repaired = engine.repair().await.expect("repair");
    assert_eq!(repaired.lost, [PackSeq(1)]);
    fault(None);
    lose_columns(&rig, &engine, all[0][0].0, 5);
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    let repaired = engine.repair().await.expect("repair");
    assert_eq!((repaired.lost, repaired.chunks), (vec![], 2));
    assert_eq!(engine.pack_state(PackSeq(1)), Some(PackState::Confirmed));
    assert!(seq_of(&engine, all[0][0].0) > PackSeq(1));
    rig.assert_fetch(&engine, &all[0]).await;
}

/// So many miners of a pack lose their columns of it.
fn lose_columns_of(rig: &Rig, engine: &Engine, seq: PackSeq, count: usize) {
    let pack = engine.ledger.get(seq).expect("known");
    for column in &pack.columns[..count] {
        let holder = column.miner.expect("stored");
        rig.world.miners.lose(SimMiners::number(holder), pack.encoded().fid);
    }
}

/// The second of four packs that a snapshot needs is damaged, repaired as far as that goes, and lost.
async fn tree_beyond_a_pack_that_stays(seed: u64, chunks_in_it: usize) {
    let rig = Rig::new(16, seed);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    owner.talk();
    for seq in 1..=4 {
        let chunks = rig.chunks(if seq == 2 { chunks_in_it } else { 1 }, 5000);
        name(&owner, &chunks);
        rig.submit(&engine, &chunks);
        engine.settle().await.expect("settle");
    }
    owner.pin(Some(PackSeq(4)));
    let damaged = PackSeq(2);
    assert_eq!(
        engine.ledger.get(damaged).expect("sealed").chunks as usize,
        chunks_in_it
    );
    lose_columns_of(&rig, &engine, damaged, 5);
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    engine.repair().await.expect("repair");
    engine.settle().await.expect("settle");
    let sealed = engine.ledger.newest();
    engine.repair().await.expect("repair");
    assert_eq!(engine.ledger.newest(), sealed, "one is enough");
    lose_columns_of(&rig, &engine, damaged, 12);
    drop(engine);
    let (plan, _) = found(&rig).await;
    assert!(plan.head >= PackSeq(4), "{plan:?}");
    assert_eq!(plan.missing, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_pack_that_stays_does_not_take_the_newest_tree_with_it() {
    tree_beyond_a_pack_that_stays(346, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_one_that_has_metadata_only() {
    tree_beyond_a_pack_that_stays(347, 0).await;
}
