//! Miners that refuse, stall, keep silent, lie or forget while packs are placed and read back.

use super::rig::{Rig, eventually};
use crate::chunk_store::{ChunkStore, Standing};
use crate::ledger::{Blocked, PackState};
use crate::sim::{Fault, SimMiners};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_move_away_from_miners_that_will_not_do() {
    let rig = Rig::new(15, 51);
    rig.world.miners.set_fault(0, Some(Fault::Refuses));
    rig.world.miners.set_fault(1, Some(Fault::Stalls));
    rig.world.miners.set_fault(2, Some(Fault::Silent));
    let engine = rig.open();
    let chunks = rig.chunks(2, 1000);
    rig.submit(&engine, &chunks);
    engine.settle().await.expect("settle");
    let located = engine.locate(chunks[0].0).expect("locate").expect("known");
    let mut holders: Vec<u8> = located
        .miners
        .iter()
        .map(|holder| SimMiners::number(holder.as_ref().expect("confirmed").0))
        .collect();
    holders.sort_unstable();
    assert_eq!(holders, (3..15).collect::<Vec<u8>>());
    assert_eq!(
        rig.world.chain.declarations()[0].1,
        1,
        "replacing a miner needs no new declaration"
    );
    rig.assert_fetch(&engine, &chunks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_is_not_confirmed_before_all_twelve_give_it_back() {
    let rig = Rig::new(12, 52);
    rig.world.miners.set_fault(4, Some(Fault::Corrupts));
    rig.world.miners.set_fault(7, Some(Fault::Forgets));
    let engine = rig.open();
    let chunks = rig.chunks(2, 1000);
    rig.submit(&engine, &chunks);
    let settled = tokio::spawn(engine.settle());
    let reason = rig
        .blocked(&engine, |reason| matches!(reason, Blocked::ReadBack(_)))
        .await;
    for number in [4, 7] {
        let miner = SimMiners::account(number).to_ss58(cessfs_crypto::SS58_PREFIX);
        assert!(reason.to_string().contains(&miner), "{reason}");
    }
    assert_eq!(engine.standing(chunks[0].0), Standing::Stored);
    assert_eq!(rig.staged(), 1, "the body stays");
    let status = engine.status();
    assert_eq!(status.underway[0].state, PackState::Stored);
    let troubled = |number: u8| {
        let miner = SimMiners::account(number);
        let column = status.underway[0]
            .columns
            .iter()
            .find(|column| column.miner == Some(miner));
        column.expect("holds a column").progress.trouble.is_some()
    };
    assert!(troubled(4) && troubled(7) && !troubled(5));
    rig.assert_fetch(&engine, &chunks).await;

    // One is good again; the other is repaired by the network: somebody else holds its column now.
    rig.world.miners.set_fault(4, None);
    engine.poke();
    eventually("only the forgetful one is left", || {
        let reason = engine.status().underway.first().and_then(|pack| pack.blocked.clone());
        let first = SimMiners::account(4).to_ss58(cessfs_crypto::SS58_PREFIX);
        matches!(reason, Some(Blocked::ReadBack(why)) if !why.contains(&first))
    })
    .await;
    assert!(!settled.is_finished());
    settled.abort();
}
