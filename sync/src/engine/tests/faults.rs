//! Miners that refuse, stall, keep silent, lie or forget while packs are placed and read back.

use super::rig::{Chunk, Rig, eventually};
use super::upkeep::{Owner, holders, name, open_on};
use crate::chunk_store::{ChunkStore, Standing};
use crate::clock::Clock;
use crate::engine::Engine;
use crate::fragment_store::{Fid, FragmentBody, FragmentStore, MinerError, MinerStatus, Sha256Hash};
use crate::ledger::{Blocked, PackState};
use crate::limits::COLUMNS;
use crate::sim::{CutoffStore, Fault, SimMiners};
use crate::store::StoreError;
use crate::upkeep::{Depth, UpkeepConfig, Verdict};
use bytes::Bytes;
use cessfs_crypto::PackSeq;
use futures::future::BoxFuture;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

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
    let engine = open_on(&rig, rig.store.clone(), &Arc::default(), |upkeep| {
        upkeep.read_back = Duration::MAX;
    });
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

/// How long the tests below give miners, on the world's clock.
const READ_BACK: Duration = Duration::from_secs(60);

fn impatient(upkeep: &mut UpkeepConfig) {
    upkeep.read_back = READ_BACK;
}

/// A miner that reports what it then never gives back holds up nobody for ever: what lives in its packs goes to others, and whoever
/// waits for the network is told only then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_miner_reported_and_never_gives_back_is_sent_again_to_others() {
    let rig = Rig::new(14, 53);
    let owner = Arc::new(Owner::default());
    let engine = open_on(&rig, rig.store.clone(), &owner, impatient);
    let chunks = rig.chunks(6, 5000);
    name(&owner, &chunks[..4]);
    for number in [4, 7] {
        rig.world.miners.set_fault(number, Some(Fault::Forgets));
    }
    // Until both hold a column of the same pack.
    rig.submit(&engine, &chunks);
    engine.settle().await.expect("settle");
    let packs = engine.status().packs;
    let doubted = packs.get(&PackState::Draining).copied().unwrap_or(0);
    assert_eq!(packs.get(&PackState::Doubted), None, "{packs:?}");
    for (id, _) in &chunks[..4] {
        assert_eq!(engine.standing(*id), Standing::Confirmed);
        let holders = holders(&engine, *id);
        assert!(!holders.contains(&4) && !holders.contains(&7), "{holders:?}");
    }
    assert!(doubted > 0, "neither of the two was chosen: another seed is needed");
    eventually("no body is left", || rig.staged() == 0).await;
    // Nobody named the others, so they stay behind.
    assert_eq!(engine.standing(chunks[5].0), Standing::Unknown);
    rig.assert_fetch(&engine, &chunks).await;

    // The next pack goes past them at once.
    let next = rig.chunks(1, 5000);
    name(&owner, &next);
    rig.submit(&engine, &next);
    engine.settle().await.expect("settle");
    let packs = engine.status().packs;
    assert_eq!(packs.get(&PackState::Draining).copied(), Some(doubted), "{packs:?}");
}

/// With no miner left in place of the liar the pack waits and says so; what it is not is declared again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_another_miner_what_was_doubted_waits_and_says_so() {
    let rig = Rig::new(12, 54);
    let owner = Arc::new(Owner::default());
    rig.world.miners.set_fault(7, Some(Fault::Forgets));
    let engine = open_on(&rig, rig.store.clone(), &owner, impatient);
    let chunks = rig.chunks(2, 5000);
    name(&owner, &chunks);
    rig.submit(&engine, &chunks);
    let settled = tokio::spawn(engine.settle());
    rig.blocked(&engine, |reason| {
        matches!(reason, Blocked::FewMiners { willing: 11, .. })
    })
    .await;
    assert_eq!(engine.status().packs.get(&PackState::Doubted), Some(&1));
    assert_eq!(rig.staged(), 2, "the body stays until what was in it is safe elsewhere");
    assert!(!settled.is_finished());
    settled.abort();
    drop(engine);
    // Another start, and the miner has what it lacked: nothing was lost by waiting.
    rig.world.miners.set_fault(7, None);
    let engine = open_on(&rig, rig.store.clone(), &owner, impatient);
    engine.settle().await.expect("settle");
    rig.assert_fetch(&engine, &chunks).await;
    let packs = engine.status().packs;
    assert_eq!(packs.get(&PackState::Draining), Some(&1), "{packs:?}");
    eventually("no body is left", || rig.staged() == 0).await;
}

/// Who reaches hardly anybody has no network: then no miner is to blame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_network_is_away_no_pack_is_doubted() {
    let rig = Rig::new(12, 55);
    let owner = Arc::new(Owner::default());
    rig.world.miners.set_fault(7, Some(Fault::Corrupts));
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| {
        upkeep.read_back = READ_BACK * 4;
    });
    let chunks = rig.chunks(2, 5000);
    name(&owner, &chunks);
    rig.submit(&engine, &chunks);
    let settled = tokio::spawn(engine.settle());
    rig.blocked(&engine, |reason| matches!(reason, Blocked::ReadBack(_)))
        .await;
    for number in 0..12 {
        rig.world.miners.set_fault(number, Some(Fault::Gone));
    }
    rig.world.clock.sleep(READ_BACK * 8).await;
    assert_eq!(engine.status().packs.get(&PackState::Stored), Some(&1));
    for number in 0..12 {
        rig.world.miners.set_fault(number, None);
    }
    engine.poke();
    settled.await.expect("it goes on").expect("settle");
    assert_eq!(engine.status().packs.get(&PackState::Confirmed), Some(&1));
}

/// An engine whose one pack all twelve miners have reported, which is not final; and whoever waits for that.
async fn reported(rig: &Rig) -> (Engine, Vec<Chunk>, JoinHandle<Result<(), StoreError>>) {
    let owner = Arc::new(Owner::default());
    let engine = open_on(rig, rig.store.clone(), &owner, impatient);
    let chunks = rig.chunks(2, 5000);
    name(&owner, &chunks);
    rig.submit(&engine, &chunks);
    let settled = tokio::spawn(engine.settle());
    eventually("all have reported, and that is not final", || {
        !rig.world.chain.stored().is_empty()
    })
    .await;
    (engine, chunks, settled)
}

/// Nine of the twelve are silent, or all there are. The others show whose fault it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_of_which_hardly_a_miner_answers_is_sent_again_while_others_do() {
    let rig = Rig::new(24, 60);
    let (engine, chunks, settled) = reported(&rig).await;
    let silent = holders(&engine, chunks[0].0)[..9].to_vec();
    (0..24).for_each(|number| rig.world.miners.set_fault(number, Some(Fault::Gone)));
    rig.blocked(&engine, |reason| matches!(reason, Blocked::ReadBack(_)))
        .await;
    rig.world.clock.sleep(READ_BACK * 8).await;
    assert_eq!(engine.status().packs, [(PackState::Stored, 1)].into());

    let others = (0..24).filter(|number| !silent.contains(number));
    others.for_each(|number| rig.world.miners.set_fault(number, None));
    engine.poke();
    settled.await.expect("it goes on").expect("settle");
    assert_eq!(engine.pack_state(PackSeq(1)), Some(PackState::Draining));
    for (id, _) in &chunks {
        assert_eq!(engine.standing(*id), Standing::Confirmed);
    }
}

/// Dies after every record on the way into and out of a doubted pack: nothing is lost, declared twice, or told to be safe too early.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_any_record_of_a_replacement_loses_no_chunk_and_declares_nothing_twice() {
    let rig = Rig::new(12, 56);
    let owner = Arc::new(Owner::default());
    rig.world.miners.set_fault(7, Some(Fault::Forgets));
    let chunks = rig.chunks(4, 5000);
    name(&owner, &chunks);
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| {
        upkeep.read_back = Duration::MAX;
    });
    rig.submit(&engine, &chunks);
    let settled = tokio::spawn(engine.settle());
    rig.blocked(&engine, |reason| matches!(reason, Blocked::ReadBack(_)))
        .await;
    settled.abort();
    drop(engine);
    let mut lives = 0;
    loop {
        lives += 1;
        assert!(lives < 60, "no progress: {:?}", rig.world.chain.declarations());
        let store = Arc::new(CutoffStore::new(rig.store.clone(), usize::div_ceil(lives, 2)));
        let engine = open_on(&rig, store.clone(), &owner, impatient);
        if engine.status().packs.contains_key(&PackState::Doubted) {
            // It was doubted for good; without another miner what was in it could go nowhere.
            rig.world.miners.set_fault(7, None);
        }
        let settled = tokio::spawn(engine.settle());
        eventually("the fuse blows or everything is on the network", || {
            store.is_cut_off() || settled.is_finished()
        })
        .await;
        if settled.is_finished() && settled.await.is_ok_and(|settled| settled.is_ok()) {
            let packs = engine.status().packs;
            assert_eq!(packs.get(&PackState::Doubted), None, "told too early: {packs:?}");
            for (id, _) in &chunks {
                assert_eq!(engine.standing(*id), Standing::Confirmed, "{packs:?}");
            }
            rig.assert_fetch(&engine, &chunks).await;
            break;
        }
    }
    assert!(lives > 5, "only {lives} records were crashed at");
    let declared = rig.world.chain.declarations();
    assert!(declared.iter().all(|(_, times)| *times == 1), "F4: {declared:?}");
}

/// The network's own repair only keeps a miner from taking a fragment that it has: a miner of one column may take another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_which_one_miner_has_two_columns_is_sent_again_to_twelve() {
    let rig = Rig::new(12, 57);
    let (engine, chunks, settled) = reported(&rig).await;
    (1..12).for_each(|number| rig.world.miners.copy(number, 0));
    [3, 7]
        .into_iter()
        .for_each(|column| rig.world.chain.move_column(column, SimMiners::account(0)));
    settled.await.expect("no panic").expect("settle");
    assert!(engine.locate(chunks[0].0).expect("locate").expect("known").seq > PackSeq(1));
    let distinct: HashSet<u8> = holders(&engine, chunks[0].0).into_iter().collect();
    assert_eq!(distinct.len(), COLUMNS);
    assert_eq!(engine.standing(chunks[0].0), Standing::Confirmed);

    // The same after it was confirmed: two columns that go together are one.
    (1..12).for_each(|number| rig.world.miners.copy(number, 0));
    [3, 7]
        .into_iter()
        .for_each(|column| rig.world.chain.move_column(column, SimMiners::account(0)));
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    let seq = engine.locate(chunks[0].0).expect("locate").expect("known").seq;
    assert_eq!(engine.health(seq).columns[7].verdict, Verdict::Dropped);
    rig.assert_fetch(&engine, &chunks).await;
}

/// Miners of whom the first that is asked for something ends in a panic of whoever asks.
struct Trap {
    miners: Arc<SimMiners>,
    is_set: AtomicBool,
}

impl FragmentStore for Trap {
    fn put(
        &self,
        endpoint: &str,
        fid: Fid,
        fragment: Sha256Hash,
        body: FragmentBody,
    ) -> BoxFuture<'static, Result<(), MinerError>> {
        self.miners.put(endpoint, fid, fragment, body)
    }

    fn get(
        &self,
        endpoint: &str,
        fid: Fid,
        fragment: Sha256Hash,
        range: Range<u32>,
    ) -> BoxFuture<'static, Result<Bytes, MinerError>> {
        assert!(
            !self.is_set.swap(false, Ordering::SeqCst),
            "this panic is part of the test"
        );
        self.miners.get(endpoint, fid, fragment, range)
    }

    fn probe(&self, endpoint: &str) -> BoxFuture<'static, Result<MinerStatus, MinerError>> {
        self.miners.probe(endpoint)
    }
}

fn trapped(rig: &Rig, is_set: bool) -> (crate::engine::Engine, Arc<Trap>) {
    let trap = Arc::new(Trap {
        miners: rig.world.miners.clone(),
        is_set: AtomicBool::new(is_set),
    });
    let mut seams = rig.world.seams(rig.store.clone());
    seams.fragments = trap.clone();
    let engine = crate::engine::Engine::open(rig.world.config(&rig.staging()), seams).expect("open");
    (engine, trap)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_panicked_is_not_that_of_all_later_readers() {
    let rig = Rig::new(12, 59);
    let (engine, trap) = trapped(&rig, false);
    engine.start();
    let chunks = rig.chunks(1, 1000);
    rig.submit(&engine, &chunks);
    engine.settle().await.expect("settle");
    trap.is_set.store(true, Ordering::SeqCst);
    let id = chunks[0].0;
    assert!(engine.fetch(id).await.is_err(), "the trap was not on its way");
    assert_eq!(engine.fetch(id).await.expect("a read of its own"), chunks[0].1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_whose_driver_panicked_is_driven_again() {
    let rig = Rig::new(12, 58);
    let (engine, _) = trapped(&rig, true);
    engine.start();
    let chunks = rig.chunks(1, 1000);
    rig.submit(&engine, &chunks);
    engine.settle().await.expect("settle");
    assert_eq!(engine.standing(chunks[0].0), Standing::Confirmed);
    let told = engine.status().errors;
    assert!(
        told.iter().any(|trouble| trouble.text.contains("a mistake in cessfs")),
        "{told:?}"
    );
}
