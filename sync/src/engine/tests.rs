//! Engine, chain and miners together, in a simulated world. Time runs a hundred times faster there.

mod away;
mod blocked;
mod builder;
mod counting;
mod crash;
mod faults;
mod forks;
mod heights;
mod hopeless;
mod purged;
mod read_only;
mod rig;
mod sight;
mod snapshots;
mod turns;
mod upkeep;
mod watching;

use crate::chunk_store::{ChunkStore, FetchError, Standing};
use crate::clock::Clock;
use crate::ledger::PackState;
use crate::limits::{COLUMNS, GET_DEADLINE, PREFETCHES_IN_FLIGHT, TRIAL_INTERVAL};
use crate::sim::{Fault, SimMiners};
use rig::{Rig, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_are_readable_with_eight_of_twelve_miners_gone() {
    let rig = Rig::new(13, 1);
    // Ten of them are a whole MiB: one frame straddles the border of two fragments.
    let mut chunks = rig.chunks(10, 1 << 20);
    chunks.extend(rig.chunks(3, 777));
    let engine = rig.open();
    rig.submit(&engine, &chunks);
    assert!(chunks.iter().all(|(id, _)| engine.standing(*id) == Standing::Open));
    rig.assert_fetch(&engine, &chunks).await;
    engine.settle().await.expect("settle");
    assert!(chunks.iter().all(|(id, _)| engine.standing(*id) == Standing::Confirmed));
    eventually("the body is gone", || rig.staged() == 0).await;
    assert_eq!(engine.backlog().unsent_bytes, 0);
    assert_eq!(engine.status().packs[&PackState::Confirmed], 1);
    assert_eq!(rig.world.miners.fragments(), COLUMNS);

    let located = engine.locate(chunks[0].0).expect("locate").expect("known");
    let holders: Vec<u8> = located
        .miners
        .iter()
        .map(|holder| SimMiners::number(holder.as_ref().expect("confirmed").0))
        .collect();
    drop(engine);

    // A fresh process has nothing cached.
    let engine = rig.open();
    for number in &holders[..8] {
        rig.world.miners.set_fault(*number, Some(Fault::Gone));
    }
    rig.assert_fetch(&engine, &chunks).await;
    drop(engine);

    let engine = rig.open();
    rig.world.miners.set_fault(holders[8], Some(Fault::Corrupts));
    let error = engine
        .fetch(chunks[0].0)
        .await
        .expect_err("three good fragments are too few");
    assert!(matches!(&error, FetchError::Unavailable(_)), "{error}");
    assert!(
        error.to_string().contains("pack 1") && error.to_string().contains("3 of 12"),
        "{error}"
    );
    rig.world.miners.set_fault(holders[8], None);
    rig.assert_fetch(&engine, &chunks).await;
    engine.shutdown().await.expect("shutdown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_and_slow_miners_cost_time_but_never_wrong_bytes() {
    let rig = Rig::new(12, 2);
    let chunks = rig.chunks(9, 1 << 20);
    let engine = rig.open();
    rig.submit(&engine, &chunks);
    engine.settle().await.expect("settle");
    let located = engine.locate(chunks[0].0).expect("locate").expect("known");
    let first = located.miners[0].as_ref().expect("confirmed").0;
    drop(engine);

    for fault in [Fault::Corrupts, Fault::Stalls] {
        let engine = rig.open();
        rig.world.miners.set_fault(SimMiners::number(first), Some(fault));
        rig.assert_fetch(&engine, &chunks).await;
        drop(engine);
    }

    // The column moves to a miner that did not exist before; the others keep only as many as are needed with it.
    let newcomer = rig.world.miners.add();
    let engine = rig.open();
    rig.world.miners.copy(SimMiners::number(first), newcomer);
    rig.world.chain.move_column(0, SimMiners::account(newcomer));
    for holder in &located.miners[4..] {
        let number = SimMiners::number(holder.as_ref().expect("confirmed").0);
        rig.world.miners.set_fault(number, Some(Fault::Gone));
    }
    rig.world.miners.set_fault(SimMiners::number(first), Some(Fault::Gone));
    rig.assert_fetch(&engine, &chunks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_stalls_is_gone_round_until_it_answers_again() {
    let rig = Rig::new(12, 4);
    // All of them in the first fragment of their segment, so with one miner.
    let chunks = rig.chunks(14, 1 << 19);
    let engine = rig.open();
    rig.submit(&engine, &chunks);
    engine.settle().await.expect("settle");
    let located = engine.locate(chunks[0].0).expect("locate").expect("known");
    let first = SimMiners::number(located.miners[0].as_ref().expect("confirmed").0);
    drop(engine);

    let engine = rig.open();
    rig.world.miners.set_fault(first, Some(Fault::Stalls));
    let before = rig.world.miners.asked(first);
    rig.assert_fetch(&engine, &chunks[..5]).await;
    // Once by the first reader, and tried once beside: that try does not come back either.
    assert!(rig.world.miners.asked(first) - before <= 2);

    rig.world.miners.set_fault(first, None);
    // What stalled is given up after a minute; then it is tried again, and asked as before.
    let clock = rig.world.clock.clone();
    clock.sleep(GET_DEADLINE + TRIAL_INTERVAL).await;
    rig.assert_fetch(&engine, &chunks[5..6]).await;
    clock.sleep(TRIAL_INTERVAL).await;
    let others = |miners: &SimMiners| (0..12).filter(|n| *n != first).map(|n| miners.asked(n)).sum::<usize>();
    let mut asked = Vec::new();
    for chunk in &chunks[6..] {
        let (its, theirs) = (rig.world.miners.asked(first), others(&rig.world.miners));
        rig.assert_fetch(&engine, std::slice::from_ref(chunk)).await;
        asked.push((rig.world.miners.asked(first) - its, others(&rig.world.miners) - theirs));
    }
    // A thread of this clock, which is a hundred times as fast, may come late: then others are asked beside it.
    assert!(asked.contains(&(1, 0)), "never alone: {asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_says_how_much_of_it_is_on_its_way() {
    let rig = Rig::new(12, 3);
    let chunks = rig.chunks(PREFETCHES_IN_FLIGHT + 3, 5000);
    let engine = rig.open();
    rig.submit(&engine, &chunks);
    engine.settle().await.expect("settle");
    drop(engine);
    let engine = rig.open();
    for number in 0..12 {
        rig.world.miners.set_fault(number, Some(Fault::Stalls));
    }
    let ids: Vec<_> = chunks.iter().map(|(id, _)| *id).collect();
    assert_eq!(engine.prefetch(&ids), PREFETCHES_IN_FLIGHT);
    assert_eq!(engine.prefetch(&ids), PREFETCHES_IN_FLIGHT, "those are on their way");
    assert_eq!(engine.prefetch(&ids[PREFETCHES_IN_FLIGHT..]), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefetched_chunks_are_there_when_asked_for_and_unknown_ones_are_errors() {
    let rig = Rig::new(12, 3);
    let chunks = rig.chunks(4, 5000);
    let engine = rig.open();
    rig.submit(&engine, &chunks);
    engine.settle().await.expect("settle");
    drop(engine);
    let engine = rig.open();
    let ids: Vec<_> = chunks.iter().map(|(id, _)| *id).collect();
    assert_eq!(engine.prefetch(&ids), ids.len());
    rig.assert_fetch(&engine, &chunks).await;
    for number in 0..12 {
        rig.world.miners.set_fault(number, Some(Fault::Gone));
    }
    rig.assert_fetch(&engine, &chunks).await;
    let stranger = rig.chunks(1, 10)[0].0;
    assert!(matches!(engine.fetch(stranger).await, Err(FetchError::Unknown)));
    assert!(engine.locate(stranger).expect("locate").is_none());
}
