//! What becomes of packs that the network holds: dead ones are collected, damaged ones rewritten, lost ones told.

use super::rig::{Chunk, Rig, eventually};
use crate::chunk_store::{ChunkSink, ChunkStore, CutCause, DeltaSource, Standing};
use crate::clock::Clock;
use crate::engine::Engine;
use crate::fragment_store::Fid;
use crate::ledger::PackState;
use crate::pipeline::UplinkLimit;
use crate::sim::{CutoffStore, Fault, SimMiners};
use crate::store::{Batch, MetaStore, StoreError};
use crate::upkeep::{Depth, UpkeepConfig, Verdict};
use bytes::Bytes;
use cessfs_crypto::{ChunkId, PackSeq};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// An owner of chunks: names some, has the content of some, and has a word for each checkpoint.
#[derive(Default)]
pub(super) struct Owner {
    named: Mutex<HashSet<ChunkId>>,
    cached: Mutex<HashMap<ChunkId, Bytes>>,
    lost: Mutex<HashSet<ChunkId>>,
    pinned: Mutex<Option<PackSeq>>,
    /// Has a word for every pack, not only for checkpoints.
    talks: Mutex<bool>,
}

impl Owner {
    /// Has the content of these, and of no others.
    pub(super) fn keep(&self, chunks: &[Chunk]) {
        *self.cached.lock() = chunks.iter().cloned().collect();
    }

    /// A snapshot needs this pack, and all before it.
    pub(super) fn pin(&self, newest: Option<PackSeq>) {
        *self.pinned.lock() = newest;
    }

    /// From now on metadata is pending whenever a pack is sealed.
    pub(super) fn talk(&self) {
        *self.talks.lock() = true;
    }

    /// Ids of what it was told is lost.
    pub(super) fn told_lost(&self) -> HashSet<ChunkId> {
        self.lost.lock().clone()
    }
}

impl DeltaSource for Owner {
    fn cut(
        &self,
        _seq: PackSeq,
        cause: CutCause,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match cause {
            CutCause::Checkpoint => sink(b"the whole tree"),
            CutCause::Full | CutCause::Forced if *self.talks.lock() => sink(b"a word"),
            CutCause::Full | CutCause::Forced => Ok(()),
        }
    }

    fn sealed(&self, _seq: PackSeq, _batch: &mut Batch) {}

    fn abandoned(&self, _seq: PackSeq) {}

    fn pending(&self) -> Option<(Duration, u64)> {
        self.talks.lock().then_some((Duration::ZERO, 6))
    }

    fn pinned(&self) -> Option<PackSeq> {
        *self.pinned.lock()
    }

    fn live(&self, visit: &mut dyn FnMut(ChunkId)) -> Result<bool, StoreError> {
        self.named.lock().iter().for_each(|id| visit(*id));
        Ok(true)
    }

    fn cached(&self, wanted: &dyn Fn(ChunkId) -> bool, give: &mut ChunkSink<'_>) -> Result<(), StoreError> {
        let cached = self.cached.lock().clone();
        cached
            .iter()
            .filter(|(id, _)| wanted(**id))
            .try_for_each(|(id, bytes)| give(*id, bytes))
    }

    fn lost(&self, chunks: &HashSet<ChunkId>) -> Result<(), StoreError> {
        *self.lost.lock() = chunks.clone();
        Ok(())
    }
}

/// An engine with an owner, whose settings are changed first.
pub(super) fn open_on(
    rig: &Rig,
    store: Arc<dyn MetaStore>,
    owner: &Arc<Owner>,
    change: impl FnOnce(&mut UpkeepConfig),
) -> Engine {
    let mut config = rig.world.config(&rig.staging());
    change(&mut config.upkeep);
    let engine = rig.world.engine(config, store).expect("open");
    engine.attach(owner.clone());
    engine.start();
    engine
}

pub(super) fn open(rig: &Rig, owner: &Arc<Owner>) -> Engine {
    open_on(rig, rig.store.clone(), owner, |_| ())
}

/// Packs of one segment each, with so many chunks of 5000 bytes in each: far from full.
pub(super) async fn packs(rig: &Rig, engine: &Engine, count: usize, chunks: usize) -> Vec<Vec<Chunk>> {
    let mut packs = Vec::new();
    for _ in 0..count {
        let pack = rig.chunks(chunks, 5000);
        rig.submit(engine, &pack);
        engine.settle().await.expect("settle");
        packs.push(pack);
    }
    packs
}

pub(super) fn name(owner: &Owner, chunks: &[Chunk]) {
    owner.named.lock().extend(chunks.iter().map(|(id, _)| *id));
}

pub(super) fn forget(owner: &Owner, chunks: &[Chunk]) {
    let gone: HashSet<ChunkId> = chunks.iter().map(|(id, _)| *id).collect();
    owner.named.lock().retain(|id| !gone.contains(id));
}

/// The numbers of the miners that hold a chunk's pack, by column.
pub(super) fn holders(engine: &Engine, id: ChunkId) -> Vec<u8> {
    let located = engine.locate(id).expect("locate").expect("known");
    let number = |holder: &Option<_>| {
        let (account, _): &(_, Option<String>) = holder.as_ref().expect("confirmed");
        SimMiners::number(*account)
    };
    located.miners.iter().map(number).collect()
}

/// So many miners of a chunk's pack lose their columns of it; the file it is.
pub(super) fn lose_columns(rig: &Rig, engine: &Engine, id: ChunkId, count: usize) -> Fid {
    let located = engine.locate(id).expect("locate").expect("known");
    let fid = located.fid.expect("stored");
    for number in &holders(engine, id)[..count] {
        rig.world.miners.lose(*number, fid);
    }
    fid
}

pub(super) fn seq_of(engine: &Engine, id: ChunkId) -> PackSeq {
    engine.locate(id).expect("locate").expect("known").seq
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_full_packs_are_merged_and_what_is_dead_is_dropped() {
    let rig = Rig::new(13, 301);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let packs = packs(&rig, &engine, 4, 3).await;
    packs.iter().for_each(|chunks| name(&owner, chunks));
    forget(&owner, &packs[1]);
    assert_eq!(rig.world.chain.stored().len(), 4);

    let told = engine.collect(true).await.expect("dry run");
    assert_eq!(told.chosen.len(), 4);
    assert_eq!(told.gain_bytes, 3 * crate::limits::SEGMENT_CHARGE_BYTES);
    assert!(
        told.deleted.is_empty() && rig.world.chain.deletions().is_empty(),
        "a dry run does nothing"
    );
    assert_eq!(engine.status().packs[&PackState::Confirmed], 4);

    let done = engine.collect(false).await.expect("collect");
    assert_eq!(done.deleted.len(), 4, "{done:?}");
    assert_eq!(done.freed_bytes, 4 * crate::limits::SEGMENT_CHARGE_BYTES);
    assert_eq!(rig.world.chain.stored().len(), 1, "four packs became one");
    for (index, chunks) in packs.iter().enumerate() {
        match index {
            1 => assert!(engine.standing(chunks[0].0) == Standing::Unknown),
            _ => assert!(engine.standing(chunks[0].0) == Standing::Confirmed),
        }
    }
    drop(engine);
    let engine = open(&rig, &owner);
    for chunks in [&packs[0], &packs[2], &packs[3]] {
        rig.assert_fetch(&engine, chunks).await;
    }
    // The next count forgets the tombstones, and the locations in them.
    let told = engine.collect(true).await.expect("count");
    assert_eq!(engine.status().packs.get(&PackState::Gone), None);
    assert!(engine.locate(packs[1][0].0).expect("locate").is_none());
    assert!(told.chosen.is_empty(), "one pack alone gains nothing: {told:?}");
    assert_eq!(engine.status().living, Some((told.live_bytes, told.dead_bytes)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_deleted_while_nobody_says_what_lives() {
    let rig = Rig::new(12, 302);
    let engine = rig.open();
    packs(&rig, &engine, 3, 1).await;
    let refused = engine.collect(false).await.expect_err("nobody is attached");
    assert!(refused.to_string().contains("nothing is deleted"), "{refused}");
    assert_eq!(rig.world.chain.stored().len(), 3);
}

/// Dies after more and more records, in the middle of whatever that is, and goes on in the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_any_record_of_a_collection_loses_no_chunk_and_deletes_nothing_early() {
    let rig = Rig::new(13, 303);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let packs = packs(&rig, &engine, 3, 2).await;
    packs.iter().for_each(|chunks| name(&owner, &chunks[..1]));
    drop(engine);
    rig.world.chain.lose_delete_replies(1);
    crash_until_deleted(&rig, &owner, &packs, 3, |engine| {
        let collected = engine.collect(false);
        Box::pin(async move { collected.await.map(drop).map_err(|e| e.to_string()) })
    })
    .await;
}

/// The same while a damaged pack is rewritten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_any_record_of_a_repair_loses_no_chunk_and_declares_nothing_twice() {
    let rig = Rig::new(16, 304);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let packs = packs(&rig, &engine, 1, 2).await;
    name(&owner, &packs[0]);
    lose_columns(&rig, &engine, packs[0][0].0, 7);
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    assert_eq!(engine.status().damaged, [(PackSeq(1), 5)]);
    drop(engine);
    crash_until_deleted(&rig, &owner, &packs, 1, |engine| {
        let repaired = engine.repair();
        Box::pin(async move { repaired.await.map(drop).map_err(|e| e.to_string()) })
    })
    .await;
}

type Round = futures::future::BoxFuture<'static, Result<(), String>>;

/// Runs rounds in engines that die after 1, 1, 2, 2, 3 … records, until `dead` packs are deleted from the chain.
async fn crash_until_deleted(
    rig: &Rig,
    owner: &Arc<Owner>,
    packs: &[Vec<Chunk>],
    dead: usize,
    round: impl Fn(&Engine) -> Round,
) {
    let named: Vec<Chunk> = {
        let named = owner.named.lock();
        let all = packs.iter().flatten();
        all.filter(|(id, _)| named.contains(id)).cloned().collect()
    };
    let mut lives = 0;
    loop {
        lives += 1;
        assert!(lives < 100, "no progress: {:?}", rig.world.chain.deletions());
        let store = Arc::new(CutoffStore::new(rig.store.clone(), usize::div_ceil(lives, 2)));
        let engine = open_on(rig, store.clone(), owner, |_| ());
        let work = tokio::spawn(round(&engine));
        eventually("the fuse blows or the round is over", || {
            store.is_cut_off() || work.is_finished()
        })
        .await;
        let done = work.is_finished() && !store.is_cut_off();
        work.abort();
        for (id, _) in &named {
            let located = engine.locate(*id).expect("locate").expect("a living chunk is known");
            let gone = located.fid.is_some_and(|fid| rig.world.chain.is_deleted(fid));
            assert!(
                !gone,
                "life {lives}: a living chunk lies in pack {} which was deleted",
                located.seq.0
            );
        }
        drop(engine);
        if done && rig.world.chain.deletions().len() >= dead {
            break;
        }
    }
    assert!(lives > 5, "only {lives} records were crashed at");
    let declared = rig.world.chain.declarations();
    assert!(declared.iter().all(|(_, times)| *times == 1), "F4: {declared:?}");
    let engine = open(rig, owner);
    rig.assert_fetch(&engine, &named).await;
    assert_eq!(engine.status().packs.get(&PackState::Draining), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_pack_waits_for_whoever_may_have_recovered_the_volume() {
    let rig = Rig::new(12, 311);
    let owner = Arc::new(Owner::default());
    let patient = |upkeep: &mut UpkeepConfig| upkeep.grace = Duration::from_secs(1 << 30);
    let engine = open_on(&rig, rig.store.clone(), &owner, patient);
    let packs = packs(&rig, &engine, 3, 2).await;
    name(&owner, &packs[0]);
    let done = engine.collect(false).await.expect("collect");
    assert!(done.deleted.is_empty() && done.kept.len() == 3, "too early: {done:?}");
    drop(engine);
    let engine = open_on(&rig, rig.store.clone(), &owner, patient);
    let done = engine.collect(false).await.expect("collect");
    assert!(done.deleted.is_empty(), "a restart makes it no older: {done:?}");
    drop(engine);
    let engine = open(&rig, &owner);
    let done = engine.collect(false).await.expect("collect");
    assert!(done.deleted.len() >= 3, "no grace now: {done:?}");
    rig.assert_fetch(&engine, &packs[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grace_passes_while_nothing_is_mounted_too() {
    let rig = Rig::new(12, 313);
    let owner = Arc::new(Owner::default());
    let grace = Duration::from_secs(36_000);
    let patient = |upkeep: &mut UpkeepConfig| upkeep.grace = grace;
    let engine = open_on(&rig, rig.store.clone(), &owner, patient);
    let packs = packs(&rig, &engine, 3, 2).await;
    name(&owner, &packs[0]);
    let done = engine.collect(false).await.expect("collect");
    assert!(done.deleted.is_empty(), "too early: {done:?}");
    let engine = reopened(&rig, engine, &owner, patient, grace / 2);
    let done = engine.collect(false).await.expect("collect");
    assert!(done.deleted.is_empty(), "half of it: {done:?}");
    // What was sent after a note counts from the next one on.
    let engine = reopened(&rig, engine, &owner, patient, grace / 2);
    engine.collect(false).await.expect("collect");
    let engine = reopened(&rig, engine, &owner, patient, grace);
    let done = engine.collect(false).await.expect("collect");
    assert!(done.deleted.len() >= 3, "the chain went on meanwhile: {done:?}");
    rig.assert_fetch(&engine, &packs[0]).await;
}

/// The next run, after such a while.
fn reopened(
    rig: &Rig,
    engine: Engine,
    owner: &Arc<Owner>,
    tune: impl FnOnce(&mut UpkeepConfig),
    after: Duration,
) -> Engine {
    drop(engine);
    rig.world.clock.skip(after);
    open_on(rig, rig.store.clone(), owner, tune)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_comes_after_one_whose_answer_was_lost_is_done() {
    let rig = Rig::new(12, 312);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let packs = packs(&rig, &engine, 2, 1).await;
    let first = rig.world.chain.stored();
    rig.world.chain.lose_delete_replies(2);
    let done = engine.collect(false).await;
    assert!(done.is_err(), "nobody knows yet: {done:?}");
    let done = engine.collect(false).await.expect("both are gone");
    assert!(
        packs
            .iter()
            .all(|chunks| engine.standing(chunks[0].0) == Standing::Unknown)
    );
    assert!(done.deleted.len() >= 2, "{done:?}");
    let calls = rig.world.chain.deletions();
    let again = calls.iter().filter(|(fid, calls)| first.contains(fid) && *calls == 2);
    assert!(again.count() > 0, "asked for twice: {calls:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_comes_again_while_its_pack_drains_is_sent_again() {
    let rig = Rig::new(12, 305);
    let owner = Arc::new(Owner::default());
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| {
        upkeep.keep_history = Duration::from_secs(1 << 30)
    });
    let packs = packs(&rig, &engine, 3, 2).await;
    name(&owner, &packs[0]);
    let done = engine.collect(false).await.expect("collect");
    assert!(
        done.deleted.is_empty() && done.kept.len() == 3,
        "history keeps them: {done:?}"
    );
    let again = &packs[2][0];
    assert_eq!(engine.standing(again.0), Standing::Unknown, "its pack drains");
    rig.assert_fetch(&engine, std::slice::from_ref(again)).await;

    // Written again: the old location must not count.
    rig.submit(&engine, std::slice::from_ref(again));
    assert_eq!(engine.standing(again.0), Standing::Open);
    name(&owner, std::slice::from_ref(again));
    engine.settle().await.expect("settle");
    assert_eq!(engine.standing(again.0), Standing::Confirmed);
    drop(engine);

    let engine = open(&rig, &owner);
    let done = engine.collect(false).await.expect("collect");
    assert!(done.deleted.len() >= 3, "no history now: {done:?}");
    rig.assert_fetch(&engine, &packs[0]).await;
    rig.assert_fetch(&engine, std::slice::from_ref(again)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_in_which_something_lives_after_all_is_not_deleted() {
    let rig = Rig::new(12, 306);
    let owner = Arc::new(Owner::default());
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| {
        upkeep.keep_history = Duration::from_secs(1 << 30)
    });
    let packs = packs(&rig, &engine, 3, 1).await;
    engine.collect(false).await.expect("collect");
    drop(engine);
    // No owner that keeps its word does this; the second look is there for one that does not.
    name(&owner, &packs[1]);
    let engine = open(&rig, &owner);
    engine.collect(false).await.expect("collect");
    engine.collect(false).await.expect("once more: it was emptied again");
    rig.assert_fetch(&engine, &packs[1]).await;
    assert!(
        engine
            .status()
            .errors
            .iter()
            .any(|trouble| trouble.text.contains("something lives in it"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_snapshot_needs_stays_and_is_rewritten_whole() {
    let rig = Rig::new(16, 307);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let packs = packs(&rig, &engine, 5, 2).await;
    // Of the first pack nothing is in the tree any more; a snapshot has it.
    packs[1..].iter().for_each(|chunks| name(&owner, chunks));
    *owner.pinned.lock() = Some(PackSeq(2));
    let done = engine.collect(false).await.expect("collect");
    assert_eq!(done.deleted, [PackSeq(3), PackSeq(4), PackSeq(5)]);

    let fid = lose_columns(&rig, &engine, packs[0][0].0, 5);
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    let repaired = engine.repair().await.expect("repair");
    assert_eq!((repaired.packs, repaired.chunks), (vec![PackSeq(1)], 2));
    assert!(!rig.world.chain.is_deleted(fid), "its metadata is still needed");
    let stand_in = seq_of(&engine, packs[0][0].0);
    assert!(stand_in > PackSeq(5));

    // Nothing in the stand-in is in the tree, but the snapshot that needs the first pack needs it.
    let kept = engine.collect(false).await.expect("collect");
    assert!(!kept.chosen.contains(&stand_in), "{kept:?}");
    for number in 0..16 {
        rig.world.miners.lose(number, fid);
    }
    drop(engine);
    let engine = open(&rig, &owner);
    rig.assert_fetch(&engine, &packs[0]).await;

    *owner.pinned.lock() = None;
    let done = engine.collect(false).await.expect("collect");
    assert!(
        done.deleted.contains(&PackSeq(1)) && done.deleted.contains(&stand_in),
        "{done:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_and_rewritten_before_too_much_is_gone() {
    let rig = Rig::new(16, 308);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let packs = packs(&rig, &engine, 1, 3).await;
    name(&owner, &packs[0]);
    let id = packs[0][0].0;
    let fid = rig.world.chain.stored()[0];
    let before = holders(&engine, id);
    let clean = engine.scrub(Depth::Full, Some(u64::MAX)).await.expect("scrub");
    assert_eq!((clean.packs, clean.damaged.len()), (1, 0));
    assert_eq!(clean.bytes, 12 * (8 << 20));

    rig.world.miners.lose(before[0], fid);
    rig.world.miners.set_fault(before[5], Some(Fault::Corrupts));
    rig.world.miners.lose(before[11], fid);
    let seen = engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    assert_eq!(seen.damaged, [(PackSeq(1), 9, "watch")]);
    let verdicts: Vec<Verdict> = engine
        .health(PackSeq(1))
        .columns
        .iter()
        .map(|column| column.verdict)
        .collect();
    assert_eq!(
        (verdicts[0], verdicts[5], verdicts[11], verdicts[6]),
        (Verdict::Missing, Verdict::Corrupt, Verdict::Missing, Verdict::Good)
    );
    assert!(
        seen.bytes < 10 << 20,
        "one whole fragment, for the one that stood out: {}",
        seen.bytes
    );

    rig.world.miners.lose(before[7], fid);
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    let repaired = engine.repair().await.expect("repair");
    assert_eq!(
        (repaired.packs.len(), repaired.deleted.len(), repaired.lost.len()),
        (1, 1, 0)
    );
    rig.world.miners.set_fault(before[5], None);
    let after = holders(&engine, id);
    drop(engine);
    for number in &after[..8] {
        rig.world.miners.set_fault(*number, Some(Fault::Gone));
    }
    let engine = open(&rig, &owner);
    rig.assert_fetch(&engine, &packs[0]).await;
    assert!(rig.world.chain.is_deleted(fid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_background_packs_are_looked_at_and_rewritten_unasked() {
    let rig = Rig::new(16, 309);
    let owner = Arc::new(Owner::default());
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| {
        *upkeep = UpkeepConfig {
            scrub_interval: Duration::from_secs(60),
            scrub_rate: u64::MAX,
            keep_history: Duration::ZERO,
            grace: Duration::ZERO,
            ..UpkeepConfig::default()
        };
    });
    let packs = packs(&rig, &engine, 1, 2).await;
    name(&owner, &packs[0]);
    engine.limit_uplink(UplinkLimit::Paused);
    let fid = lose_columns(&rig, &engine, packs[0][0].0, 4);
    rig.world.clock.sleep(Duration::from_secs(200)).await;
    assert!(
        engine.status().damaged.is_empty(),
        "a paused line is not used to look either"
    );
    engine.limit_uplink(UplinkLimit::Any);
    eventually("the damaged pack is rewritten and deleted", || {
        rig.world.chain.is_deleted(fid)
    })
    .await;
    rig.assert_fetch(&engine, &packs[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_is_told_and_asked_for_again_until_it_is_back() {
    let rig = Rig::new(24, 310);
    let owner = Arc::new(Owner::default());
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| {
        upkeep.thresholds.away = Duration::ZERO
    });
    let packs = packs(&rig, &engine, 1, 2).await;
    name(&owner, &packs[0]);
    let (here, away) = (&packs[0][0], &packs[0][1]);
    owner.keep(std::slice::from_ref(here));
    let first = holders(&engine, here.0);
    for number in &first[..9] {
        rig.world.miners.set_fault(*number, Some(Fault::Gone));
    }
    drop(engine);
    let engine = open_on(&rig, rig.store.clone(), &owner, |upkeep| {
        upkeep.thresholds.away = Duration::ZERO
    });
    let seen = engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    assert_eq!(seen.damaged, [(PackSeq(1), 3, "lost")]);
    let repaired = engine.repair().await.expect("repair");
    assert_eq!(repaired.lost, [PackSeq(1)]);
    assert_eq!(owner.told_lost(), HashSet::from([away.0]));
    assert_eq!(engine.status().packs[&PackState::Lost], 1);
    assert!(
        seq_of(&engine, here.0) > PackSeq(1),
        "what this machine had is elsewhere"
    );
    assert!(engine.fetch(away.0).await.is_err());

    for number in &first[..9] {
        rig.world.miners.set_fault(*number, None);
    }
    engine.scrub(Depth::Sample, Some(u64::MAX)).await.expect("scrub");
    let repaired = engine.repair().await.expect("repair");
    assert!(
        repaired.lost.is_empty() && repaired.deleted == [PackSeq(1)],
        "{repaired:?}"
    );
    assert!(owner.told_lost().is_empty());
    rig.assert_fetch(&engine, &packs[0]).await;
}
