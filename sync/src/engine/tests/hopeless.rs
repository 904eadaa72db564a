//! Packs that can never be placed: what is in them goes into others, and nothing waits for them for ever.

use super::rig::{Chunk, Rig, eventually};
use super::upkeep::{Owner, name, open_on, seq_of};
use crate::builder::Checkpoint;
use crate::chain::{Chain, Head, TerritoryState};
use crate::chunk_store::{ChunkStore, Standing};
use crate::clock::Clock;
use crate::engine::Engine;
use crate::fragment_store::Fid;
use crate::ledger::{Blocked, PackState};
use crate::limits::{PACKS_IN_FLIGHT, SEGMENT_BYTES, SEGMENT_CHARGE_BYTES};
use crate::sim::Fault;
use crate::upkeep::UpkeepConfig;
use cessfs_crypto::PackSeq;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// How long a pack may stand still, on the world's clock.
const READ_BACK: Duration = Duration::from_secs(60);

fn impatient(upkeep: &mut UpkeepConfig) {
    upkeep.read_back = READ_BACK;
}

/// What becomes of a staged body.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Harm {
    Gone,
    /// Every byte of the first MiB is another one.
    Changed,
}

fn harm_bodies(rig: &Rig, harm: Harm) {
    for body in std::fs::read_dir(rig.staging()).expect("staging directory") {
        let path = body.expect("entry").path();
        match harm {
            Harm::Gone => std::fs::remove_file(path).expect("remove"),
            Harm::Changed => {
                let mut bytes = std::fs::read(&path).expect("read");
                bytes[..1 << 20].iter_mut().for_each(|byte| *byte ^= 0x55);
                std::fs::write(&path, bytes).expect("write");
            }
        }
    }
}

/// Everything is on the network, under other ids than those that were lost, and each was declared once at the most.
async fn assert_settled(rig: &Rig, engine: &Engine, chunks: &[Chunk]) {
    engine.settle().await.expect("settle");
    for (id, _) in chunks {
        assert_eq!(engine.standing(*id), Standing::Confirmed);
    }
    let packs = engine.status().packs;
    assert_eq!(packs.get(&PackState::Draining), Some(&1), "{packs:?}");
    let declared = rig.world.chain.declarations();
    assert!(declared.iter().all(|(_, times)| *times == 1), "F4: {declared:?}");
    rig.assert_fetch(engine, chunks).await;
    // The record is read back, and what never was on the network is given back in its time.
    engine.collect(false).await.expect("collect");
    assert_eq!(engine.status().packs.get(&PackState::Draining), None);
}

/// Waits until a pack is declared, of which no miner takes anything; then somebody else has its id, and miners take what comes.
async fn declared_away(rig: &Rig, engine: &Engine) -> Fid {
    eventually("it is declared", || {
        engine.status().packs.contains_key(&PackState::Placing)
    })
    .await;
    let (fid, _) = rig.world.chain.declarations()[0];
    rig.world.chain.hijack(fid);
    (0..13).for_each(|number| rig.world.miners.set_fault(number, None));
    fid
}

/// Whoever sees a pending id may declare it, with another content: the deal that stands then is his.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_declared_away_is_sent_again_in_another_pack() {
    let rig = Rig::new(13, 411);
    let owner = Arc::new(Owner::default());
    (0..13).for_each(|number| rig.world.miners.set_fault(number, Some(Fault::Silent)));
    let engine = open_on(&rig, rig.store.clone(), &owner, impatient);
    let chunks = rig.chunks(3, 5000);
    name(&owner, &chunks);
    rig.submit(&engine, &chunks);
    let settled = tokio::spawn(engine.settle());
    let fid = declared_away(&rig, &engine).await;
    settled.await.expect("no panic").expect("settle");
    assert!(!rig.world.chain.stored().contains(&fid));
    assert_settled(&rig, &engine, &chunks).await;
    drop(engine);
    let engine = open_on(&rig, rig.store.clone(), &owner, impatient);
    rig.assert_fetch(&engine, &chunks).await;
}

/// What lives in such a pack moves; what only a snapshot names is nowhere else than in its body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_snapshot_needs_of_a_pack_that_was_declared_away_stays_on_this_disk() {
    let rig = Rig::new(13, 911);
    let owner = Arc::new(Owner::default());
    owner.talk();
    (0..13).for_each(|number| rig.world.miners.set_fault(number, Some(Fault::Silent)));
    let engine = open_on(&rig, rig.store.clone(), &owner, impatient);
    let chunks = rig.chunks(3, 5000);
    name(&owner, &chunks[..2]);
    rig.submit(&engine, &chunks);
    engine.seal().expect("seal");
    let pack = seq_of(&engine, chunks[2].0);
    owner.pin(Some(pack));
    let settled = tokio::spawn(engine.settle());
    // The words after it are declared, too.
    eventually("it is declared", || engine.pack_state(pack) == Some(PackState::Placing)).await;
    let located = engine.locate(chunks[2].0).expect("locate").expect("known");
    let fid = located.fid.expect("it is declared");
    rig.world.chain.hijack(fid);
    (0..13).for_each(|number| rig.world.miners.set_fault(number, None));
    settled.await.expect("no panic").expect("settle");
    eventually("other bodies go", || rig.staged() == 1).await;
    assert_eq!(engine.pack_state(pack), Some(PackState::Draining));
    engine.collect(false).await.expect("collect");
    drop(engine);
    let engine = open_on(&rig, rig.store.clone(), &owner, impatient);
    assert_eq!(rig.staged(), 1, "nor does the next run remove it");
    engine.replay(pack, Box::new(|_| Ok(()))).await.expect("its metadata");
    rig.assert_fetch(&engine, &chunks).await;
    // Without the snapshot it goes.
    owner.pin(None);
    engine.settle().await.expect("settle");
    engine.collect(false).await.expect("collect");
    eventually("no body is left", || rig.staged() == 0).await;
}

/// The same where the chain has the pack, and hardly any of its miners do: this disk had it whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_snapshot_needs_of_a_pack_that_miners_never_gave_back_stays_on_this_disk() {
    let rig = Rig::new(12, 912);
    let owner = Arc::new(Owner::default());
    owner.talk();
    (0..9).for_each(|number| rig.world.miners.set_fault(number, Some(Fault::Forgets)));
    let engine = open_on(&rig, rig.store.clone(), &owner, impatient);
    let chunks = rig.chunks(3, 5000);
    name(&owner, &chunks[..2]);
    rig.submit(&engine, &chunks);
    engine.seal().expect("seal");
    let pack = seq_of(&engine, chunks[2].0);
    let body = rig.staging().join(format!("{}.body", pack.0));
    owner.pin(Some(pack));
    let settled = tokio::spawn(engine.settle());
    rig.blocked(&engine, |reason| matches!(reason, Blocked::ReadBack(_)))
        .await;
    // What they forgot is gone; what comes to them from now on is not.
    (0..9).for_each(|number| rig.world.miners.set_fault(number, None));
    for _ in 0..12 {
        rig.world.miners.add();
    }
    settled.await.expect("no panic").expect("settle");
    assert!(body.exists());
    assert_eq!(engine.pack_state(pack), Some(PackState::Draining));
    drop(engine);
    let engine = open_on(&rig, rig.store.clone(), &owner, impatient);
    assert!(body.exists(), "nor does the next run remove it");
    engine.replay(pack, Box::new(|_| Ok(()))).await.expect("its metadata");
    rig.assert_fetch(&engine, &chunks).await;
    // Without the snapshot it goes.
    owner.pin(None);
    engine.settle().await.expect("settle");
    engine.collect(false).await.expect("collect");
    eventually("its body is gone", || !body.exists()).await;
}

/// Whoever recovers begins with the newest checkpoint, and must not find there what is nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_names_what_was_declared_away_is_not_sent() {
    let rig = Rig::new(13, 931);
    let owner = Arc::new(Owner::default());
    (0..13).for_each(|number| rig.world.miners.set_fault(number, Some(Fault::Silent)));
    let engine = open_on(&rig, rig.store.clone(), &owner, impatient);
    let chunks = rig.chunks(3, 5000);
    name(&owner, &chunks);
    rig.submit(&engine, &chunks[..2]);
    engine.seal().expect("seal");
    rig.submit(&engine, &chunks[2..]);
    let sealed = engine.builder.seal_checkpoint(&HashSet::new()).expect("seal");
    assert_eq!(sealed, Checkpoint::Sealed(PackSeq(2)));
    declared_away(&rig, &engine).await;
    engine.settle().await.expect("settle");
    let checkpoint = engine.ledger.get(PackSeq(2)).expect("it is known");
    assert!(checkpoint.intent.is_none() && checkpoint.state >= PackState::Draining);
    for (id, _) in &chunks {
        assert_eq!(engine.standing(*id), Standing::Confirmed);
        assert!(seq_of(&engine, *id) > PackSeq(2));
    }
    rig.assert_fetch(&engine, &chunks).await;
    engine.collect(false).await.expect("collect");
    assert!(!engine.status().packs.contains_key(&PackState::Draining));
}

/// A deal that cannot even be read is as little ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nonsense_was_declared_over_is_sent_again_in_another_pack() {
    let rig = Rig::new(13, 921);
    let owner = Arc::new(Owner::default());
    (0..13).for_each(|number| rig.world.miners.set_fault(number, Some(Fault::Silent)));
    let engine = open_on(&rig, rig.store.clone(), &owner, impatient);
    let chunks = rig.chunks(3, 5000);
    name(&owner, &chunks);
    rig.submit(&engine, &chunks);
    let settled = tokio::spawn(engine.settle());
    eventually("it is declared", || {
        engine.status().packs.contains_key(&PackState::Placing)
    })
    .await;
    let (fid, _) = rig.world.chain.declarations()[0];
    rig.world.chain.garble(fid);
    (0..13).for_each(|number| rig.world.miners.set_fault(number, None));
    rig.blocked(&engine, |reason| matches!(reason, Blocked::Taken(_))).await;
    settled.await.expect("no panic").expect("settle");
    assert_settled(&rig, &engine, &chunks).await;
}

/// A body that is gone before its pack was encoded, or gone or changed before it is placed: the cache has what is in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_in_a_body_that_is_gone_or_changed_is_sent_again_from_the_cache() {
    let cases = [
        (PackState::Sealed, Harm::Gone),
        (PackState::Declaring, Harm::Gone),
        (PackState::Declaring, Harm::Changed),
    ];
    for (when, harm) in cases {
        let rig = Rig::new(13, 412);
        let owner = Arc::new(Owner::default());
        let chunks = rig.chunks(3, 5000);
        name(&owner, &chunks);
        owner.keep(&chunks);
        let mut config = rig.world.config(&rig.staging());
        impatient(&mut config.upkeep);
        let engine = rig.world.engine(config, rig.store.clone()).expect("open");
        engine.attach(owner.clone());
        if when == PackState::Declaring {
            rig.world.chain.set_territory(Some((1 << 40, TerritoryState::Frozen)));
            engine.start();
        }
        rig.submit(&engine, &chunks);
        engine.seal().expect("seal");
        let settled = tokio::spawn(engine.settle());
        if when == PackState::Declaring {
            rig.blocked(&engine, |reason| matches!(reason, Blocked::TerritoryInactive(_)))
                .await;
        }
        harm_bodies(&rig, harm);
        rig.world.chain.set_territory(Some((1 << 40, TerritoryState::Active)));
        if when == PackState::Sealed {
            engine.start();
        }
        settled.await.expect("no panic").expect("settle");
        assert_settled(&rig, &engine, &chunks).await;
        drop(engine);
        let engine = open_on(&rig, rig.store.clone(), &owner, impatient);
        rig.assert_fetch(&engine, &chunks).await;
    }
}

/// What waiting mends is waited for, however long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_lack_of_a_territory_or_a_chain_no_pack_is_doubted() {
    let rig = Rig::new(12, 413);
    let owner = Arc::new(Owner::default());
    rig.world.chain.set_territory(None);
    let engine = open_on(&rig, rig.store.clone(), &owner, impatient);
    let chunks = rig.chunks(1, 5000);
    name(&owner, &chunks);
    rig.submit(&engine, &chunks);
    let settled = tokio::spawn(engine.settle());
    rig.blocked(&engine, |reason| matches!(reason, Blocked::NoTerritory(_)))
        .await;
    rig.world.clock.sleep(READ_BACK * 4).await;
    rig.world.chain.set_away(true);
    engine.poke();
    rig.blocked(&engine, |reason| matches!(reason, Blocked::ChainAway(_)))
        .await;
    rig.world.clock.sleep(READ_BACK * 4).await;
    assert_eq!(engine.status().packs.get(&PackState::Doubted), None);
    rig.world.chain.set_away(false);
    rig.world.chain.set_territory(Some((1 << 40, TerritoryState::Active)));
    engine.poke();
    settled.await.expect("no panic").expect("settle");
    assert_eq!(rig.world.chain.declarations().len(), 1);
}

/// A pack that was sealed for a territory which is no more goes into the one that is configured now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_territory_that_is_gone_gives_way_to_the_one_configured_now() {
    let rig = Rig::new(12, 414);
    let mut config = rig.world.config(&rig.staging());
    config.territory = "given up".into();
    let engine = rig.world.engine(config, rig.store.clone()).expect("open");
    engine.start();
    let chunks = rig.chunks(1, 5000);
    rig.submit(&engine, &chunks);
    let settled = tokio::spawn(engine.settle());
    rig.blocked(&engine, |reason| matches!(reason, Blocked::NoTerritory(_)))
        .await;
    settled.abort();
    drop(engine);
    let engine = rig.open();
    engine.settle().await.expect("settle");
    rig.assert_fetch(&engine, &chunks).await;
    let fid = rig.world.chain.stored()[0];
    let file = rig
        .world
        .chain
        .file(fid, Head::Best)
        .await
        .expect("chain")
        .expect("stored");
    assert_eq!(file.owners[0].2, b"main");
}

/// Nor do packs wait for one that is there, and takes nothing: they would hold every place among those on their way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_territory_that_takes_nothing_gives_way_to_the_one_configured_now() {
    let full = (u128::from(SEGMENT_CHARGE_BYTES), TerritoryState::Active);
    for (room, state) in [full, (1 << 40, TerritoryState::Frozen)] {
        let rig = Rig::new(12, 415);
        let chain = &rig.world.chain;
        chain.set_other_territory("left", room, state);
        let mut config = rig.world.config(&rig.staging());
        config.territory = "left".into();
        config.backlog_bound_bytes = 8 * SEGMENT_BYTES as u64;
        let engine = rig.world.engine(config, rig.store.clone()).expect("open");
        engine.start();
        let chunks = rig.chunks(PACKS_IN_FLIGHT + 1, 5000);
        for chunk in &chunks {
            rig.submit(&engine, std::slice::from_ref(chunk));
            engine.seal().expect("seal");
        }
        eventually("every place is taken", || {
            let waiting = engine.status().underway.into_iter();
            waiting.filter(|pack| pack.blocked.is_some()).count() == PACKS_IN_FLIGHT
        })
        .await;
        drop(engine);
        let engine = rig.open();
        engine.settle().await.expect("settle");
        rig.assert_fetch(&engine, &chunks).await;
        let stored = chain.stored();
        assert_eq!(stored.len(), PACKS_IN_FLIGHT + 1);
        for fid in stored {
            let file = chain.file(fid, Head::Best).await.expect("chain").expect("stored");
            assert_eq!(file.owners[0].2, b"main");
        }
    }
}
