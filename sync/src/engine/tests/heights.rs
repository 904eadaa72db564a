//! Finality that stands still, and nodes that tell wrong heights.

use super::rig::{Rig, eventually};
use super::upkeep::{Owner, name, open_on};
use crate::chunk_store::{ChunkStore, Standing};
use crate::clock::Clock;
use crate::engine::Engine;
use crate::ledger::{Blocked, PackState};
use crate::limits::{COLUMNS, REPORT_DEADLINE};
use crate::sim::{DeclareFault, Fault};
use cessfs_crypto::PackSeq;
use std::sync::Arc;
use std::time::Duration;

/// A height that no chain comes to.
const MADE_UP: u32 = u32::MAX - 5;

async fn is_placing(engine: &Engine) {
    eventually("it is declared", || {
        engine.status().packs.contains_key(&PackState::Placing)
    })
    .await;
}

/// Reports that are not final yet cannot be seen. To take that for silence would send every pack again to others each five minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nothing_becomes_final_no_miner_is_blamed_for_being_silent() {
    for is_away in [false, true] {
        let rig = Rig::new(30, 931);
        (0..30).for_each(|number| rig.world.miners.set_fault(number, Some(Fault::Silent)));
        let engine = rig.open();
        let chunks = rig.chunks(2, 5000);
        rig.submit(&engine, &chunks);
        let settled = tokio::spawn(engine.settle());
        is_placing(&engine).await;
        eventually("all have their column", || rig.world.miners.fragments() == COLUMNS).await;
        match is_away {
            true => rig.world.chain.set_away(true),
            false => rig.world.chain.halt(true),
        }
        rig.world.clock.sleep(REPORT_DEADLINE * 3).await;
        assert_eq!(
            rig.world.miners.fragments(),
            COLUMNS,
            "away: {is_away}: nothing was sent again"
        );
        rig.world.chain.set_away(false);
        rig.world.chain.halt(false);
        (0..30).for_each(|number| rig.world.miners.set_fault(number, None));
        // They never report: now they had their time, and others take their places.
        settled.await.expect("no panic").expect("settle");
        rig.assert_fetch(&engine, &chunks).await;
    }
}

/// A declaration that was noted at a made-up height would be waited for until the chain gets there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declaration_noted_at_a_height_that_a_node_made_up_is_waited_for_no_longer() {
    let rig = Rig::new(13, 932);
    let owner = Arc::new(Owner::default());
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| {
        upkeep.read_back = Duration::from_secs(60);
    });
    let chunks = rig.chunks(2, 5000);
    name(&owner, &chunks);
    rig.world.chain.lie(Some(MADE_UP));
    rig.world.chain.fail_declarations([DeclareFault::Lost]);
    rig.submit(&engine, &chunks);
    let settled = tokio::spawn(engine.settle());
    rig.blocked(&engine, |reason| {
        matches!(reason, Blocked::ChainAway(_) | Blocked::Undecided { .. })
    })
    .await;
    rig.world.chain.lie(None);
    engine.poke();
    let astray = rig
        .blocked(&engine, |reason| matches!(reason, Blocked::Astray { .. }))
        .await;
    assert!(matches!(astray, Blocked::Astray { recorded: MADE_UP, now } if now < 10_000));
    settled.await.expect("no panic").expect("settle");
    assert!(chunks.iter().all(|(id, _)| engine.standing(*id) == Standing::Confirmed));
    let declared = rig.world.chain.declarations();
    assert!(declared.iter().all(|(_, times)| *times == 1), "F4: {declared:?}");
    drop(engine);
    let _engine = rig.open();
    assert!(
        rig.world.chain.noted_final() < 10_000,
        "nor does the next run begin with it"
    );
}

/// What was stored while a node made heights up keeps them only until the truth is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_height_that_was_made_up_does_not_outlive_the_truth_in_the_records() {
    let rig = Rig::new(12, 933);
    let engine = rig.open();
    rig.world.chain.lie(Some(MADE_UP));
    rig.submit(&engine, &rig.chunks(1, 5000));
    engine.settle().await.expect("settle");
    assert_eq!(engine.pack_state(PackSeq(1)), Some(PackState::Confirmed));
    drop(engine);
    let engine = rig.open();
    assert_eq!(
        rig.world.chain.noted_final(),
        MADE_UP,
        "it is believed as long as nobody says otherwise"
    );
    rig.world.chain.lie(None);
    rig.submit(&engine, &rig.chunks(1, 5000));
    engine.settle().await.expect("settle");
    drop(engine);
    let _engine = rig.open();
    assert!(rig.world.chain.noted_final() < 10_000);
}
