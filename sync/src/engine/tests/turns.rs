//! That nothing waits for ever for what goes before it, nor is hidden behind what cannot be told.

use super::rig::Rig;
use super::rig::eventually;
use super::upkeep::{Owner, forget, lose_columns, name, open, open_on, packs, seq_of};
use crate::chunk_store::ChunkStore;
use crate::clock::Clock;
use crate::ledger::PackState;
use crate::limits::{COLUMNS, UPKEEP_TICK};
use crate::sim::Fault;
use crate::upkeep::{Depth, UpkeepConfig};
use cessfs_crypto::PackSeq;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Damaged packs are rewritten and dead ones deleted, unasked; nothing is looked at or collected.
fn keeps(upkeep: &mut UpkeepConfig) {
    *upkeep = UpkeepConfig {
        repair: true,
        ..upkeep.clone()
    };
}

/// Each deletion takes until it is final. After a week there may be hundreds of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_about_to_be_lost_does_not_wait_until_everything_dead_is_deleted() {
    const DEAD: usize = 4;
    let rig = Rig::new(16, 941);
    let owner = Arc::new(Owner::default());
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| {
        upkeep.keep_history = Duration::from_secs(1 << 30);
    });
    packs(&rig, &engine, DEAD, 1).await;
    let emptied = engine.collect(false).await.expect("collect");
    assert_eq!(emptied.kept.len(), DEAD, "{emptied:?}");
    let living = packs(&rig, &engine, 1, 1).await.remove(0);
    name(&owner, &living);
    let seq = seq_of(&engine, living[0].0);
    lose_columns(&rig, &engine, living[0].0, 7);
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    assert_eq!(engine.status().damaged, [(seq, 5)]);
    drop(engine);

    let engine = open_on(&rig, rig.store.clone(), &owner, keeps);
    eventually("it drains", || engine.pack_state(seq) != Some(PackState::Confirmed)).await;
    let deleted = rig.world.chain.deletions().len();
    assert!((1..DEAD).contains(&deleted), "{deleted} packs went before it");
    eventually("all that is dead goes, too", || {
        let packs = engine.status().packs;
        !packs.contains_key(&PackState::Draining) && !packs.contains_key(&PackState::Deleting)
    })
    .await;
    assert!(rig.world.chain.deletions().len() > DEAD);
    rig.assert_fetch(&engine, &living).await;
}

/// Copies of what is damaged would never leave this machine, and take the place that its backlog has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_was_recovered_from_rewrites_nothing() {
    let rig = Rig::new(16, 942);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let living = packs(&rig, &engine, 1, 1).await.remove(0);
    name(&owner, &living);
    lose_columns(&rig, &engine, living[0].0, 7);
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    engine.ledger.fence(engine.ledger.epoch() + 1).expect("fence");
    drop(engine);
    let engine = open_on(&rig, rig.store.clone(), &owner, keeps);
    rig.world.clock.sleep(UPKEEP_TICK * 4).await;
    assert_eq!(engine.pack_state(PackSeq(1)), Some(PackState::Confirmed));
    assert_eq!((engine.last_pack(), rig.staged()), (PackSeq(1), 0));
    rig.assert_fetch(&engine, &living).await;
}

/// As many small chunks are in a few packs as are looked at in one go, and most of them may be dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_is_told_however_much_lies_beside_it() {
    let rig = Rig::new(12, 943);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let chunks = rig.chunks(2500, 40);
    rig.submit(&engine, &chunks);
    engine.settle().await.expect("settle");
    name(&owner, &chunks[..2000]);
    let found = engine.upkeep.living_in(&HashSet::from([PackSeq(1)]), 1);
    let named: HashSet<_> = chunks[..2000].iter().map(|(id, _)| *id).collect();
    assert_eq!(found.expect("the journal is there"), named);
}

/// Whoever declares an id again when its file was purged may give it hashes that are none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_under_the_id_of_a_pack_that_is_gone_is_in_nobodys_way() {
    let rig = Rig::new(12, 944);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let packs = packs(&rig, &engine, 3, 1).await;
    packs.iter().for_each(|chunks| name(&owner, chunks));
    let located = engine.locate(packs[0][0].0).expect("locate").expect("known");
    rig.world.chain.replace_by_nonsense(located.fid.expect("stored"));
    let seen = engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    assert_eq!((seen.packs, seen.damaged), (3, vec![(PackSeq(1), 0, "lost")]));
    assert_eq!(engine.health(PackSeq(3)).columns.len(), COLUMNS);
    packs.iter().for_each(|chunks| forget(&owner, chunks));
    let done = engine.collect(false).await.expect("collect");
    assert_eq!(done.deleted, [PackSeq(1), PackSeq(2), PackSeq(3)], "{done:?}");
}

/// It takes an hour and a half for each fragment, and a pack may have many: whoever waits for the pack would wait for as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_takes_its_time_beside_quick_ones_is_replaced() {
    let rig = Rig::new(13, 945);
    rig.world.miners.set_fault(3, Some(Fault::Trickles));
    let engine = rig.open();
    // Whichever is left out by chance: a few packs, and it is asked.
    for _ in 0..3 {
        rig.submit(&engine, &rig.chunks(1, 5000));
        engine.settle().await.expect("settle");
    }
    let told = engine.status().errors;
    let replaced = |text: &str| text.contains("replaced") && text.contains("far longer than others");
    assert!(told.iter().any(|trouble| replaced(&trouble.text)), "{told:?}");
}
