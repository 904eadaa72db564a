//! What the chain says of miners, fragments and the territory, and how closely packs are looked at.

use super::rig::{Rig, eventually};
use super::upkeep::{Owner, holders, lose_columns, name, open, open_on, packs};
use crate::chain::{Miner, TerritoryState};
use crate::chunk_store::ChunkStore;
use crate::clock::Clock;
use crate::ledger::{Blocked, DrainCause, PackState};
use crate::limits::{AWAY_LOOK_INTERVAL, BLOCK_SECONDS, FRAGMENT_BYTES, PACKS_IN_FLIGHT};
use crate::sim::{Fault, SimMiners};
use crate::upkeep::{Depth, UpkeepConfig, Verdict};
use cessfs_crypto::PackSeq;
use std::sync::Arc;
use std::time::Duration;

/// Everything goes on in the background, as in a mount; packs are sampled every minute.
fn unasked(upkeep: &mut UpkeepConfig) {
    *upkeep = UpkeepConfig {
        scrub_interval: Duration::from_secs(60),
        scrub_rate: u64::MAX,
        keep_history: Duration::ZERO,
        grace: Duration::ZERO,
        ..UpkeepConfig::default()
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_of_miners_that_leave_count_as_bad_and_the_pack_is_rewritten() {
    let rig = Rig::new(17, 321);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let packs = packs(&rig, &engine, 1, 2).await;
    name(&owner, &packs[0]);
    let id = packs[0][0].0;
    let first = holders(&engine, id);
    let leaves = |miner| {
        Some(Miner {
            positive: false,
            leaving: true,
            ..miner
        })
    };
    for number in &first[..3] {
        rig.world.chain.change_miner(SimMiners::account(*number), leaves);
    }
    drop(engine);
    // What is not read again within half a minute is the list of miners.
    let engine = open(&rig, &owner);
    let seen = engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    assert_eq!(seen.damaged, [(PackSeq(1), 9, "watch")], "they still give everything");
    assert!(
        engine.health(PackSeq(1)).columns[..3]
            .iter()
            .all(|column| column.verdict == Verdict::Dropped)
    );
    drop(engine);

    // One more is not even listed any more: below nine the pack is rewritten, unasked.
    rig.world.chain.change_miner(SimMiners::account(first[3]), |_| None);
    let engine = open_on(&rig, rig.store.clone(), &owner, unasked);
    let fid = rig.world.chain.stored()[0];
    eventually("the pack of the leaving miners is rewritten and deleted", || {
        rig.world.chain.is_deleted(fid)
    })
    .await;
    let after = holders(&engine, id);
    assert!(first[..4].iter().all(|number| !after.contains(number)), "{after:?}");
    rig.assert_fetch(&engine, &packs[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_that_the_chain_says_are_unavailable_are_rewritten() {
    let rig = Rig::new(16, 322);
    let owner = Arc::new(Owner::default());
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| {
        unasked(upkeep);
        upkeep.repair = false;
    });
    let packs = packs(&rig, &engine, 1, 2).await;
    name(&owner, &packs[0]);
    let fid = rig.world.chain.stored()[0];
    rig.world.chain.set_unavailable(fid, &[(0, 1), (0, 4), (0, 5), (0, 11)]);
    let dropped = |column: usize| engine.health(PackSeq(1)).columns[column].verdict == Verdict::Dropped;
    eventually("the look in the background sees what the chain says", || dropped(11)).await;
    assert_eq!(engine.status().damaged, [(PackSeq(1), 8)]);
    assert!(dropped(1) && dropped(4) && dropped(5) && !dropped(0));
    drop(engine);
    let _engine = open_on(&rig, rig.store.clone(), &owner, unasked);
    eventually("the pack is rewritten and deleted", || rig.world.chain.is_deleted(fid)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_is_found_by_a_full_look_or_after_a_failed_audit_and_not_by_a_sample() {
    let rig = Rig::new(16, 323);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let packs = packs(&rig, &engine, 2, 2).await;
    packs.iter().for_each(|chunks| name(&owner, chunks));
    let flipped = |chunk: usize, count: usize| {
        let id = packs[chunk][0].0;
        let fid = engine.locate(id).expect("locate").expect("known").fid.expect("stored");
        let numbers = holders(&engine, id)[..count].to_vec();
        for number in &numbers {
            rig.world.miners.flip(*number, fid, FRAGMENT_BYTES / 3);
        }
        numbers
    };
    flipped(0, 1);
    let seen = engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    assert_eq!(seen.damaged, [], "one byte in eight million, and 64 KiB are read");
    let seen = engine.scrub(Depth::Full, Some(u64::MAX)).await.expect("scrub");
    assert_eq!(seen.damaged, [(PackSeq(1), 11, "watch")]);
    assert_eq!(engine.health(PackSeq(1)).columns[0].verdict, Verdict::Corrupt);

    // Miners that failed audits of the network are read whole by a sample, too.
    let failing = flipped(1, 4);
    drop(engine);
    for number in failing {
        let failed = |miner| {
            Some(Miner {
                failed_audits: 1,
                ..miner
            })
        };
        rig.world.chain.change_miner(SimMiners::account(number), failed);
    }
    let engine = open(&rig, &owner);
    let seen = engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    let second = seen.damaged.iter().find(|(seq, _, _)| *seq == PackSeq(2));
    assert_eq!(second, Some(&(PackSeq(2), 8, "rewrite")), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_kept() {
    let rig = Rig::new(12, 324);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    packs(&rig, &engine, 1, 1).await;
    let rate = 16 << 10;
    let began = rig.world.clock.monotonic();
    let seen = engine.scrub(Depth::Sample, Some(rate)).await.expect("scrub");
    let took = rig.world.clock.monotonic() - began;
    assert_eq!(seen.bytes, 12 * (64 << 10));
    assert!(
        took >= Duration::from_secs(seen.bytes / rate),
        "{} bytes in {took:?}",
        seen.bytes
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_territory_near_its_end_is_told() {
    let rig = Rig::new(12, 325);
    let owner = Arc::new(Owner::default());
    let engine = open_on(&rig, rig.store.clone(), &owner, unasked);
    let told = |what: &str| engine.status().errors.iter().any(|trouble| trouble.text.contains(what));
    let blocks_a_day = (86_400 / BLOCK_SECONDS) as u32;
    let ticks = rig.world.clock.sleep(Duration::from_secs(200));
    ticks.await;
    assert!(!told("renew it"), "far from its end: {:?}", engine.status().errors);
    rig.world.chain.set_deadline(blocks_a_day * 7 / 2);
    eventually("the deadline is told", || told("freezes in 3 days")).await;
    rig.world.chain.set_territory(Some((1 << 40, TerritoryState::Frozen)));
    eventually("a frozen territory is told", || told("is Frozen")).await;
}

/// What is about to be lost is declared before packs that were sealed before, and wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_urgent_is_sent_before_what_waited_longer() {
    let rig = Rig::new(16, 321);
    let owner = Arc::new(Owner::default());
    let mut config = rig.world.config(&rig.staging());
    config.upkeep.repair = false;
    config.backlog_bound_bytes = 16 * config.pack_target_bytes;
    let engine = rig.world.engine(config, rig.store.clone()).expect("open");
    engine.attach(owner.clone());
    engine.start();
    let damaged = packs(&rig, &engine, 1, 2).await;
    name(&owner, &damaged[0]);
    lose_columns(&rig, &engine, damaged[0][0].0, 7);
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");

    // Nothing can be declared, so packs pile up.
    let territory = |state| rig.world.chain.set_territory(Some((1 << 40, state)));
    territory(TerritoryState::Frozen);
    let mut settling = Vec::new();
    let mut waiting = Vec::new();
    for sealed in 0..PACKS_IN_FLIGHT + 4 {
        let chunks = rig.chunks(1, 5000);
        name(&owner, &chunks);
        rig.submit(&engine, &chunks);
        settling.push(tokio::spawn(engine.settle()));
        eventually("it is sealed", || engine.status().underway.len() > sealed).await;
        waiting.push(engine.locate(chunks[0].0).expect("locate").expect("sealed").seq);
    }
    let repaired = tokio::spawn(engine.repair());
    eventually("what lived in the damaged pack is in another", || {
        let located = engine.locate(damaged[0][0].0).expect("locate").expect("known");
        located.seq > waiting[waiting.len() - 1] && engine.pack_state(located.seq).is_some()
    })
    .await;
    let urgent = engine.locate(damaged[0][0].0).expect("locate").expect("known").seq;
    territory(TerritoryState::Active);
    let state = |seq| engine.pack_state(seq).expect("it is in the ledger");
    eventually("the urgent pack is declared", || state(urgent) >= PackState::Placing).await;
    let last = waiting[waiting.len() - 1];
    assert!(
        state(last) < PackState::Placing,
        "it waited longer, and is before it: {last:?} {urgent:?}"
    );
    repaired.await.expect("no panic").expect("repair");
    for settled in settling {
        settled.await.expect("no panic").expect("settle");
    }
    rig.assert_fetch(&engine, &damaged[0]).await;
}

/// A territory that stays expired is purged: the chain forgets its files, and the miners what is in them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_chain_purged_is_sent_again_from_this_machine_and_the_rest_is_told() {
    let rig = Rig::new(16, 325);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let packs = packs(&rig, &engine, 2, 2).await;
    packs.iter().for_each(|chunks| name(&owner, chunks));
    let (here, away) = (&packs[0], &packs[1]);
    owner.keep(here);
    rig.world.chain.set_territory(Some((0, TerritoryState::Expired)));
    for fid in rig.world.chain.stored() {
        (0..16).for_each(|number| rig.world.miners.lose(number, fid));
    }
    rig.world.chain.purge();
    let seen = engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    assert_eq!(seen.damaged, [(PackSeq(1), 0, "lost"), (PackSeq(2), 0, "lost")]);
    drop(engine);

    // Bought again, it is empty.
    rig.world.chain.set_territory(Some((1 << 40, TerritoryState::Active)));
    let engine = open(&rig, &owner);
    engine.repair().await.expect("repair");
    assert_eq!(owner.told_lost(), away.iter().map(|(id, _)| *id).collect());
    assert!(engine.fetch(away[0].0).await.is_err(), "never zeros");
    drop(engine);
    owner.keep(&[]);
    let engine = open(&rig, &owner);
    rig.assert_fetch(&engine, here).await;
}

/// What frees the territory must not wait behind what needs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_territory_and_backlog_full_what_may_be_deleted_is() {
    let rig = Rig::new(13, 326);
    let owner = Arc::new(Owner::default());
    let kept = |upkeep: &mut UpkeepConfig| upkeep.keep_history = Duration::from_secs(1 << 30);
    let engine = open_on(&rig, rig.store.clone(), &owner, kept);
    let all = packs(&rig, &engine, 4, 2).await;
    all[3..].iter().for_each(|chunks| name(&owner, chunks));
    let dead = engine.locate(all[0][0].0).expect("locate").expect("known");
    let done = engine.collect(false).await.expect("collect");
    assert!(done.deleted.is_empty() && done.kept.len() == 4, "{done:?}");
    let other = engine.locate(all[3][0].0).expect("locate").expect("known").seq;
    // Full to the last byte, and so much sealed that the backlog is still at its bound when the four are deleted.
    rig.world.chain.set_territory(Some((1, TerritoryState::Active)));
    owner.talk();
    for _ in 0..8 {
        engine.seal().expect("seal");
    }
    engine.builder.drain(&[other], DrainCause::Damaged).expect("drain");
    drop(engine);

    let engine = open_on(&rig, rig.store.clone(), &owner, unasked);
    rig.blocked(&engine, |reason| matches!(reason, Blocked::TerritoryFull(_)))
        .await;
    let refused = engine.repair().await.expect_err("nothing can be sent");
    assert!(refused.to_string().contains("the backlog is at its bound"), "{refused}");
    eventually("the dead pack is deleted", || {
        rig.world.chain.is_deleted(dead.fid.expect("stored"))
    })
    .await;
    rig.world.chain.set_territory(Some((1 << 40, TerritoryState::Active)));
    engine.poke();
    eventually("what drained is empty and deleted", || {
        engine.pack_state(other).is_none_or(|state| state == PackState::Gone)
    })
    .await;
    rig.assert_fetch(&engine, &all[3]).await;
}

/// Longer than a miner may be away.
const LONG: Duration = Duration::from_secs(7 * 3600);
/// Some rounds of repair.
const ROUNDS: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn miners_that_one_look_found_away_are_not_gone_and_those_that_two_did_are() {
    let rig = Rig::new(20, 327);
    let owner = Arc::new(Owner::default());
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| upkeep.repair = true);
    let packs = packs(&rig, &engine, 1, 2).await;
    name(&owner, &packs[0]);
    let first = holders(&engine, packs[0][0].0);
    let fault = |fault| {
        for number in &first[..4] {
            rig.world.miners.set_fault(*number, fault);
        }
    };
    let look = || engine.scrub(Depth::Sample, Some(u64::MAX));
    fault(Some(Fault::Gone));
    look().await.expect("scrub");
    fault(None);
    rig.world.clock.skip(LONG);
    rig.world.clock.sleep(ROUNDS).await;
    assert_eq!(engine.pack_state(PackSeq(1)), Some(PackState::Confirmed));
    assert_eq!(engine.status().damaged, [], "nobody has asked them since");
    assert_eq!(look().await.expect("scrub").damaged, []);

    fault(Some(Fault::Gone));
    assert_eq!(look().await.expect("scrub").damaged, []);
    rig.world.clock.skip(LONG);
    assert_eq!(look().await.expect("scrub").damaged, [(PackSeq(1), 8, "rewrite")]);
    eventually("it is rewritten", || {
        engine.pack_state(PackSeq(1)) != Some(PackState::Confirmed)
    })
    .await;
    rig.assert_fetch(&engine, &packs[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_reaches_nobody_blames_nobody() {
    let rig = Rig::new(20, 328);
    let owner = Arc::new(Owner::default());
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| upkeep.repair = true);
    let packs = packs(&rig, &engine, 1, 2).await;
    name(&owner, &packs[0]);
    let first = holders(&engine, packs[0][0].0);
    for depth in [Depth::Sample, Depth::Full] {
        (0..20).for_each(|number| rig.world.miners.set_fault(number, Some(Fault::Gone)));
        for _ in 0..2 {
            engine.scrub(depth, Some(u64::MAX)).await.expect("the chain answers");
            rig.world.clock.skip(LONG);
        }
        rig.world.clock.sleep(ROUNDS).await;
        assert_eq!(engine.pack_state(PackSeq(1)), Some(PackState::Confirmed));
        assert_eq!(engine.status().damaged, [], "this machine's own network was away");
        (0..20).for_each(|number| rig.world.miners.set_fault(number, None));
        engine.scrub(depth, Some(u64::MAX)).await.expect("scrub");
    }
    // Others are there: those nine are gone.
    for number in &first[..9] {
        rig.world.miners.set_fault(*number, Some(Fault::Gone));
    }
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    rig.world.clock.skip(LONG);
    let seen = engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    assert_eq!(seen.damaged, [(PackSeq(1), 3, "lost")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_with_a_miner_that_was_away_is_looked_at_again_before_long() {
    let rig = Rig::new(13, 329);
    let owner = Arc::new(Owner::default());
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| upkeep.scrub = true);
    let packs = packs(&rig, &engine, 1, 1).await;
    let first = holders(&engine, packs[0][0].0)[0];
    rig.world.miners.set_fault(first, Some(Fault::Gone));
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    rig.world.miners.set_fault(first, None);
    let verdict = || engine.health(PackSeq(1)).columns[0].verdict;
    assert_eq!(verdict(), Verdict::Away);
    rig.world.clock.skip(AWAY_LOOK_INTERVAL);
    eventually("it is looked at again", || verdict() == Verdict::Good).await;
}
