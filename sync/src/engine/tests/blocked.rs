//! Everything that can stop a pack, one after the other, and how it goes on.

use super::rig::Rig;
use crate::chain::{ChainError, TerritoryState};
use crate::chunk_store::ChunkStore;
use crate::ledger::Blocked;
use crate::limits::SEGMENT_CHARGE_BYTES;
use crate::sim::{DeclareFault, Fault};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_pack_says_why_and_goes_on_when_it_can() {
    let rig = Rig::new(12, 21);
    let chain = &rig.world.chain;
    chain.set_away(true);
    chain.set_fragment_count(3);
    chain.set_territory(None);
    rig.world.miners.set_fault(5, Some(Fault::Gone));
    chain.fail_declarations([
        DeclareFault::Refused(ChainError::NoFunds("fee".into())),
        DeclareFault::Refused(ChainError::Paused("upload_declaration".into())),
    ]);
    let engine = rig.open();
    let chunks = rig.chunks(2, 3000);
    rig.submit(&engine, &chunks);
    let settled = tokio::spawn(engine.settle());

    rig.blocked(&engine, |reason| matches!(reason, Blocked::ChainAway(_)))
        .await;
    chain.set_away(false);
    engine.poke();
    rig.blocked(&engine, |reason| matches!(reason, Blocked::Shape(_))).await;
    rig.assert_fetch(&engine, &chunks).await;
    // What the chain is does not change under a running process: a chain of another shape takes another start.
    drop(engine);
    chain.set_fragment_count(12);
    let engine = rig.open();
    let settled_again = tokio::spawn(engine.settle());
    rig.blocked(&engine, |reason| matches!(reason, Blocked::NoTerritory(_)))
        .await;
    chain.set_territory(Some((1 << 40, TerritoryState::Frozen)));
    engine.poke();
    rig.blocked(&engine, |reason| matches!(reason, Blocked::TerritoryInactive(_)))
        .await;
    chain.set_territory(Some((u128::from(SEGMENT_CHARGE_BYTES), TerritoryState::Active)));
    engine.poke();
    rig.blocked(&engine, |reason| matches!(reason, Blocked::TerritoryFull(_)))
        .await;
    chain.set_territory(Some((u128::from(SEGMENT_CHARGE_BYTES) + 1, TerritoryState::Active)));
    engine.poke();
    let few = rig
        .blocked(&engine, |reason| matches!(reason, Blocked::FewMiners { .. }))
        .await;
    assert_eq!(
        few,
        Blocked::FewMiners {
            willing: 11,
            wanted: 12
        }
    );
    assert_eq!(
        chain.declarations(),
        [],
        "F5: nothing is declared before twelve miners are willing"
    );
    rig.world.miners.set_fault(5, None);
    engine.poke();
    rig.blocked(&engine, |reason| matches!(reason, Blocked::NoFunds(_)))
        .await;
    engine.poke();
    rig.blocked(&engine, |reason| matches!(reason, Blocked::CallPaused(_)))
        .await;
    engine.poke();
    settled_again.await.expect("no panic").expect("settled");
    assert!(settled.await.expect("no panic").is_err(), "its engine was dropped");
    assert_eq!(chain.declarations().len(), 1);
    assert_eq!(chain.declarations()[0].1, 1);
    assert!(
        engine
            .status()
            .errors
            .iter()
            .any(|trouble| trouble.text.contains("TCESS"))
    );
    rig.assert_fetch(&engine, &chunks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declaration_whose_fate_is_unknown_is_waited_out() {
    let faults = [DeclareFault::ReplyLost, DeclareFault::Late(20), DeclareFault::Lost];
    for (seed, fault) in (31..).zip(faults) {
        let rig = Rig::new(12, seed);
        rig.world.chain.fail_declarations([fault.clone()]);
        let engine = rig.open();
        let chunks = rig.chunks(1, 100);
        rig.submit(&engine, &chunks);
        engine.settle().await.expect("settle");
        let declared = rig.world.chain.declarations();
        assert!(declared.len() == 1 && declared[0].1 == 1, "{fault:?}: {declared:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deal_that_vanished_is_declared_again_after_its_time() {
    let rig = Rig::new(12, 41);
    rig.world.miners.set_fault(3, Some(Fault::Silent));
    let engine = rig.open();
    let chunks = rig.chunks(1, 100);
    rig.submit(&engine, &chunks);
    let settled = engine.settle();
    let vanish = async {
        super::rig::eventually("eleven miners have reported", || {
            let status = engine.status();
            status
                .underway
                .iter()
                .any(|pack| pack.columns.iter().filter(|column| column.progress.reported).count() == 11)
        })
        .await;
        rig.world.miners.set_fault(3, None);
        rig.world.chain.drop_deals();
    };
    let (settled, ()) = tokio::join!(settled, vanish);
    settled.expect("settle");
    assert_eq!(rig.world.chain.declarations()[0].1, 2);
}
