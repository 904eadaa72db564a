//! A volume's packs in a simulated network, read back by somebody who has nothing but the keys.

use super::*;
use crate::chunk_store::{ChunkStore, CutCause, DeltaSource, FetchError};
use crate::engine::{Engine, Trouble};
use crate::fragment_store::Fid;
use crate::ledger::Blocked;
use crate::sim::{Fault, SimEntropy, World};
use crate::store::{Batch, MemStore, MetaStore, StoreError};
use bytes::Bytes;
use cessfs_crypto::{ChunkId, Entropy, PackKind, PackSeq};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// What has not come after this time does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A source whose every delta is two frames that say of which pack and why it is.
struct Talker;

impl DeltaSource for Talker {
    fn cut(
        &self,
        seq: PackSeq,
        cause: CutCause,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        sink(format!("{} {cause:?}", seq.0).as_bytes())?;
        sink(&[7; 1000])
    }
    fn sealed(&self, _: PackSeq, _: &mut Batch) {}
    fn abandoned(&self, _: PackSeq) {}
    fn pending(&self) -> Option<(Duration, u64)> {
        Some((Duration::ZERO, 1000))
    }
}

struct Rig {
    world: World,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new(seed: u64) -> Rig {
        Rig {
            world: World::new(13, seed),
            dir: tempfile::tempdir().expect("temporary directory"),
        }
    }

    fn engine(&self, store: &Arc<MemStore>, staging: &str) -> Engine {
        let staging = self.dir.path().join(staging);
        let engine = self.world.engine(self.world.config(Path::new(&staging)), store.clone());
        let engine = engine.expect("open");
        engine.attach(Arc::new(Talker));
        engine.start();
        engine
    }

    fn chunk(&self, seed: u64) -> (ChunkId, Bytes) {
        let mut bytes = vec![0; 50_000];
        SimEntropy::new(seed).fill(&mut bytes);
        (self.world.keys.chunk_id(&bytes), bytes.into())
    }

    /// Seals so many packs with one chunk each, all of them Confirmed at the end.
    async fn packs(&self, engine: &Engine, chunks: std::ops::Range<u64>) {
        for seed in chunks {
            let (id, bytes) = self.chunk(seed);
            engine.submit(id, &bytes).expect("submit");
            engine.settle().await.expect("settle");
        }
    }

    fn archive(&self) -> Archive {
        Archive::new(ArchiveParts {
            chain: self.world.chain.clone(),
            fragments: self.world.miners.clone(),
            clock: self.world.clock.clone(),
            entropy: Box::new(SimEntropy::new(99)),
            keys: self.world.keys.clone(),
            tasks: Handle::current().into(),
        })
    }

    async fn found(&self) -> Vec<Found> {
        let mut survey = survey(self.world.chain.as_ref(), &self.world.labels, &|_| ())
            .await
            .expect("survey");
        survey.take(self.world.keys.volume())
    }

    async fn open(&self) -> (Archive, Packs) {
        let archive = self.archive();
        let packs = archive.open(self.found().await, &|_| ()).await;
        (archive, packs)
    }

    /// First frame of the delta of each pack of a plan.
    async fn replay(&self, archive: &Archive, packs: &Packs, plan: &Plan) -> Vec<String> {
        let mut said = Vec::new();
        for seq in &plan.replay {
            let mut frames = Vec::new();
            let sink = |frame| {
                frames.push(frame);
                Ok::<(), FetchError>(())
            };
            archive.deltas(&packs.good[seq], sink).await.expect("deltas");
            assert_eq!((frames.len(), &frames[1][..]), (2, &[7; 1000][..]));
            said.push(String::from_utf8(frames.swap_remove(0)).expect("text"));
        }
        said
    }

    /// The file of a pack.
    async fn fid(&self, seq: u64) -> Fid {
        let found = self.found().await;
        found.iter().find(|found| found.label.seq.0 == seq).expect("listed").fid
    }

    /// All but `kept` of the miners lose a pack.
    async fn lose(&self, seq: u64, kept: usize) {
        let fid = self.fid(seq).await;
        let found = self.found().await;
        let file = &found.iter().find(|found| found.fid == fid).expect("listed").file;
        for holder in &file.segments[0].1[..12 - kept] {
            self.world.miners.lose(crate::sim::SimMiners::number(*holder), fid);
        }
    }
}

fn seqs(numbers: &[u64]) -> Vec<PackSeq> {
    numbers.iter().copied().map(PackSeq).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_comes_back_with_eight_of_twelve_miners_gone() {
    let rig = Rig::new(21);
    let store = Arc::new(MemStore::new());
    let engine = rig.engine(&store, "a");
    rig.packs(&engine, 0..3).await;
    drop(engine);
    for seq in 1..=3 {
        rig.lose(seq, 4).await;
    }
    let (archive, packs) = rig.open().await;
    assert_eq!(packs.lost.len(), 0, "{:?}", packs.lost);
    let plan = packs.plan(At::Newest).expect("plan");
    assert_eq!(plan.replay, seqs(&[1, 2, 3]));
    assert_eq!((&plan.beyond, &plan.missing), (&vec![], &vec![]));
    assert_eq!(
        rig.replay(&archive, &packs, &plan).await,
        ["1 Forced", "2 Forced", "3 Forced"]
    );
    // Earlier points are prefixes.
    for seq in 1..=3 {
        let plan = packs.plan(At::Pack(PackSeq(seq))).expect("plan");
        assert_eq!(plan.replay, seqs(&[1, 2, 3][..seq as usize]));
        let sealed_at = packs.good[&PackSeq(seq)].record.sealed_at_s;
        let by_time = packs.plan(At::Time(sealed_at)).expect("plan");
        assert!(by_time.head >= plan.head);
    }
    let first = packs.good[&PackSeq(1)].record.sealed_at_s;
    assert_eq!(packs.plan(At::Time(first - 1)), Err(NoPlan::BeforeFirst(first)));
    assert_eq!(packs.plan(At::Pack(PackSeq(4))), Err(NoPlan::NoSuchPack(PackSeq(4))));
    assert_eq!(packs.points().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_pack_ends_the_history_until_a_checkpoint_begins_it_again() {
    let rig = Rig::new(22);
    let store = Arc::new(MemStore::new());
    let engine = rig.engine(&store, "a");
    rig.packs(&engine, 0..3).await;
    rig.lose(2, 3).await;
    let (archive, packs) = rig.open().await;
    assert!(packs.lost[&PackSeq(2)].why.contains("3 of 12"), "{:?}", packs.lost);
    let plan = packs.plan(At::Newest).expect("plan");
    assert_eq!(plan.replay, seqs(&[1]));
    assert_eq!((plan.beyond.clone(), plan.missing.clone()), (seqs(&[3]), seqs(&[2])));
    assert_eq!(rig.replay(&archive, &packs, &plan).await, ["1 Forced"]);

    // Metadata here is small: the ninth pack is a checkpoint, and the loss costs only the lost pack's chunks.
    rig.packs(&engine, 3..10).await;
    drop(engine);
    let (archive, packs) = rig.open().await;
    assert_eq!(packs.good[&PackSeq(9)].record.kind, PackKind::Checkpoint);
    let plan = packs.plan(At::Newest).expect("plan");
    assert_eq!(plan.replay, seqs(&[9, 10]));
    assert_eq!((&plan.beyond, &plan.missing), (&vec![], &vec![]));
    assert_eq!(rig.replay(&archive, &packs, &plan).await, ["9 Checkpoint", "10 Forced"]);
    let store = MemStore::new();
    install(
        &store,
        &packs,
        &plan,
        Continuation::after(&packs, &mut SimEntropy::new(1)),
    )
    .expect("install");
    for seed in 0..10 {
        let (id, _) = rig.chunk(seed);
        assert_eq!(has_chunk(&store, id).expect("store"), seed != 1, "chunk {seed}");
    }
    // Before the checkpoint there is still what was there before it.
    assert_eq!(packs.plan(At::Pack(PackSeq(8))).expect("plan").head, PackSeq(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovered_volume_makes_itself_known_at_once_unless_it_only_looks() {
    let rig = Rig::new(29);
    let old_store = Arc::new(MemStore::new());
    let old = rig.engine(&old_store, "old");
    rig.packs(&old, 0..2).await;
    let (_, packs) = rig.open().await;
    let plan = packs.plan(At::Newest).expect("plan");
    let begin = |name: &str, store: &Arc<MemStore>, claims: bool| {
        let mut config = rig.world.config(&rig.dir.path().join(name));
        config.claims = claims;
        let engine = rig.world.engine(config, store.clone()).expect("open");
        engine.attach(Arc::new(Talker));
        engine.start();
        engine
    };
    for (claims, looks) in [(false, false), (true, true), (true, false)] {
        let store = Arc::new(MemStore::new());
        let continuation = Continuation {
            claims,
            ..Continuation::after(&packs, &mut SimEntropy::new(1))
        };
        install(&*store, &packs, &plan, continuation).expect("install");
        let engine = begin(&format!("{claims}-{looks}"), &store, !looks);
        let claimed = || async { rig.found().await.iter().any(|found| found.label.epoch == 2) };
        if !claims || looks {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(!claimed().await && engine.status().underway.is_empty());
            continue;
        }
        // Nobody writes anything.
        let claims = async {
            while !claimed().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, claims)
            .await
            .expect("it makes itself known");
        let newest = rig.found().await.into_iter().max_by_key(|found| found.label.seq);
        let label = newest.expect("it was found").label;
        assert_eq!((label.epoch, label.kind), (2, PackKind::Checkpoint));
        let (id, bytes) = rig.chunk(30);
        old.submit(id, &bytes).expect("submit");
        let known = async {
            while old.fenced().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let hears = async {
            tokio::select! {
                biased;
                () = known => {}
                sent = old.settle() => assert!(sent.is_err(), "the old one goes on"),
            }
        };
        tokio::time::timeout(PATIENCE, hears)
            .await
            .expect("the old one hears of it");
        assert_eq!(old.fenced(), Some(2));
        engine.shutdown().await.expect("shutdown");
        // Once is enough.
        let again = begin("true-false", &store, true);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(again.status().underway.iter().all(|pack| pack.seq == label.seq));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovered_volume_goes_on_in_an_epoch_of_its_own() {
    let rig = Rig::new(23);
    let old_store = Arc::new(MemStore::new());
    let old = rig.engine(&old_store, "old");
    rig.packs(&old, 0..2).await;
    let (_, packs) = rig.open().await;
    let plan = packs.plan(At::Newest).expect("plan");
    let continuation = Continuation::after(&packs, &mut SimEntropy::new(1));
    assert_eq!(continuation.epoch, 2);
    let store = Arc::new(MemStore::new());
    install(&*store, &packs, &plan, continuation).expect("install");
    let engine = rig.engine(&store, "new");
    for seed in 0..2 {
        let (id, bytes) = rig.chunk(seed);
        assert_eq!(engine.fetch(id).await.expect("fetch"), bytes);
        engine.submit(id, &bytes).expect("known chunks cost nothing");
    }
    assert_eq!(engine.newest_confirmed(), Some(PackSeq(2)));
    // A machine that was believed lost sends one more before it can know: it is beside the history.
    rig.packs(&old, 20..21).await;
    rig.packs(&engine, 10..12).await;
    let told = engine.status().errors;
    let late = |said: &&Trouble| said.text.contains("packs up to 3 is not");
    assert_eq!(told.iter().filter(late).count(), 1, "{told:?}");
    // From now on it is fenced: it keeps what it has and sends nothing.
    let declared = rig.world.chain.declarations().len();
    let (id, bytes) = rig.chunk(30);
    old.submit(id, &bytes).expect("submit");
    let settled = tokio::time::timeout(Duration::from_secs(3), old.settle()).await;
    assert!(settled.is_err(), "a fenced writer does not settle");
    let blocked: Vec<_> = old
        .status()
        .underway
        .into_iter()
        .filter_map(|pack| pack.blocked)
        .collect();
    assert_eq!(blocked, [Blocked::Fenced { epoch: 2 }]);
    assert_eq!(rig.world.chain.declarations().len(), declared);
    assert_eq!(old.fetch(id).await.expect("still here"), bytes);
    assert!(old.is_fenced() && !engine.is_fenced());
    assert_eq!(old.parted_at().await.expect("the network tells"), Some(PackSeq(2)));
    assert_eq!(engine.parted_at().await.expect("it was not taken over"), None);
    // It is remembered, without asking the network again.
    drop(old);
    let old = rig.engine(&old_store, "old");
    assert_eq!(old.fenced(), Some(2));
    rig.world.chain.set_away(true);
    assert_eq!(old.parted_at().await.expect("it is remembered"), Some(PackSeq(2)));
    rig.world.chain.set_away(false);
    // The newer one is not in its own way.
    rig.packs(&engine, 12..13).await;
    drop((engine, old));

    let (archive, packs) = rig.open().await;
    assert_eq!(packs.good.len(), 6);
    let base = continuation.base.0;
    let plan = packs.plan(At::Newest).expect("plan");
    assert_eq!(plan.replay, seqs(&[base + 1, base + 2, base + 3]));
    let said = rig.replay(&archive, &packs, &plan).await;
    assert!(
        said[0].ends_with("Checkpoint"),
        "the first pack of an epoch is one: {said:?}"
    );
    assert_eq!(packs.good[&PackSeq(base + 1)].previous, PackSeq(2));
    assert_eq!(packs.good[&PackSeq(base + 1)].record.epoch, 2);
    let points: Vec<u64> = packs.points().iter().map(|point| point.seq.0).collect();
    assert_eq!(
        points,
        [1, 2, base + 1, base + 2, base + 3],
        "pack 3 is of another history"
    );
    let next = Continuation::after(&packs, &mut SimEntropy::new(1));
    assert_eq!(next.epoch, 3);
    assert!(next.base.0 > base + 1_000_000);
    // A third machine goes on from the second: the first one's history still ends at the same pack, also if that was not known.
    let store = Arc::new(MemStore::new());
    install(&*store, &packs, &plan, next).expect("install");
    let engine = rig.engine(&store, "newest");
    rig.packs(&engine, 13..14).await;
    let mut batch = Batch::new();
    batch.delete(b"Sparted");
    old_store.commit(batch).expect("commit");
    let old = rig.engine(&old_store, "old");
    assert_eq!(old.parted_at().await.expect("the network tells"), Some(PackSeq(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_of_an_older_writer_and_of_two_recoveries_never_meet() {
    let mut bases = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let continuation = Continuation::after(&Packs::default(), &mut SimEntropy::new(seed));
        assert!(continuation.base.0 > 1_000_000_000_000);
        bases.insert(continuation.base.0);
    }
    assert_eq!(bases.len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_files_and_copied_labels_change_nothing() {
    let rig = Rig::new(24);
    let store = Arc::new(MemStore::new());
    let engine = rig.engine(&store, "a");
    rig.packs(&engine, 0..2).await;
    drop(engine);
    let mut found = rig.found().await;
    // Somebody gave our account a file of theirs under the name of our newest pack.
    let newest = found
        .iter()
        .find(|found| found.label.seq.0 == 2)
        .expect("there")
        .clone();
    let mut copy = found
        .iter()
        .find(|found| found.label.seq.0 == 1)
        .expect("there")
        .clone();
    (copy.label, copy.name) = (newest.label, newest.name.clone());
    found.insert(0, copy.clone());
    found.push(copy);
    let packs = rig.archive().open(found, &|_| ()).await;
    assert_eq!((packs.good.len(), packs.lost.len()), (2, 0));
    assert_eq!(
        packs.good[&PackSeq(2)].record.encoded.as_ref().expect("hashes").fid,
        newest.fid
    );

    let other = cessfs_crypto::Phrase::generate(&mut SimEntropy::new(5)).secret();
    let survey = survey(rig.world.chain.as_ref(), &other.label_key(), &|_| ()).await;
    let survey = survey.expect("survey");
    assert!(survey.volumes.is_empty());
    assert_eq!(survey.foreign, 2);
    rig.world.chain.set_away(true);
    assert!(survey_fails(&rig).await);
}

/// Two copies of a directory that sealed a pack of the same number before either could see the other. Nothing is replayed over one of the
/// two until a checkpoint; which of them counts depends on nothing but what they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_of_two_copies_are_never_mixed() {
    let rig = Rig::new(32);
    let store = Arc::new(MemStore::new());
    let engine = rig.engine(&store, "a");
    rig.packs(&engine, 0..1).await;
    let copy = Arc::new(store.crashed_at(store.progress().0));
    rig.packs(&engine, 1..3).await;
    drop(engine);
    let mine = rig.found().await;
    let fids: Vec<Fid> = mine.iter().map(|found| found.fid).collect();
    // The other copy is not shown what was sent meanwhile.
    rig.world.chain.hide(&fids);
    let engine = rig.engine(&copy, "b");
    rig.packs(&engine, 11..12).await;
    drop(engine);
    rig.world.chain.hide(&[]);
    let mut found = rig.found().await;
    let both: Vec<Fid> = found
        .iter()
        .filter(|found| found.label.seq == PackSeq(2))
        .map(|found| found.fid)
        .collect();
    assert_eq!(both.len(), 2);
    let mut counts = Vec::new();
    for _ in 0..4 {
        found.rotate_left(1);
        let packs = rig.archive().open(found.clone(), &|_| ()).await;
        let counting = packs.good[&PackSeq(2)].record.encoded().fid;
        let other: Vec<Fid> = both.iter().copied().filter(|fid| *fid != counting).collect();
        assert_eq!(packs.twins[&PackSeq(2)], other, "it is told");
        counts.push(counting);
        let plan = packs.plan(At::Newest).expect("plan");
        assert_eq!(
            (plan.head, &plan.beyond, &plan.missing),
            (PackSeq(2), &seqs(&[3]), &seqs(&[2]))
        );
    }
    counts.dedup();
    assert_eq!(counts.len(), 1, "in any order");

    // Whoever goes on seals a checkpoint at last; from there on everything is clear.
    let engine = rig.engine(&store, "a");
    rig.packs(&engine, 3..10).await;
    let (_, packs) = rig.open().await;
    let plan = packs.plan(At::Newest).expect("plan");
    assert_eq!((plan.replay, plan.beyond.len()), (seqs(&[9, 10]), 0));
}

async fn survey_fails(rig: &Rig) -> bool {
    survey(rig.world.chain.as_ref(), &rig.world.labels, &|_| ())
        .await
        .is_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn miners_that_lie_about_ranges_are_seen_through() {
    let rig = Rig::new(25);
    let store = Arc::new(MemStore::new());
    let engine = rig.engine(&store, "a");
    rig.packs(&engine, 0..1).await;
    drop(engine);
    let found = rig.found().await;
    let holders = found[0].file.segments[0].1;
    for holder in &holders[..6] {
        let number = crate::sim::SimMiners::number(*holder);
        rig.world.miners.set_fault(number, Some(Fault::Corrupts));
    }
    for holder in &holders[6..8] {
        let number = crate::sim::SimMiners::number(*holder);
        rig.world.miners.set_fault(number, Some(Fault::Stalls));
    }
    let (archive, packs) = rig.open().await;
    let plan = packs.plan(At::Newest).expect("plan");
    assert_eq!(rig.replay(&archive, &packs, &plan).await, ["1 Forced"]);
}

/// First frame of each delta that the engine replays up to a pack.
async fn replayed(engine: &Engine, seq: u64) -> Result<Vec<String>, FetchError> {
    let said = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let heard = said.clone();
    let sink = Box::new(move |frame: Vec<u8>| {
        // The other frame of each delta says nothing.
        heard
            .lock()
            .extend(String::from_utf8(frame).ok().filter(|said| !said.starts_with('\u{7}')));
        Ok(())
    });
    engine.replay(PackSeq(seq), sink).await?;
    let said = std::mem::take(&mut *said.lock());
    Ok(said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_replays_its_own_packs_from_this_disk_and_from_four_miners() {
    let rig = Rig::new(31);
    let store = Arc::new(MemStore::new());
    for number in 0..13 {
        rig.world.miners.set_fault(number, Some(Fault::Gone));
    }
    let engine = rig.engine(&store, "a");
    for seed in 0..2 {
        let (id, bytes) = rig.chunk(seed);
        engine.submit(id, &bytes).expect("submit");
        engine.seal().expect("seal");
    }
    assert_eq!(
        replayed(&engine, 2).await.expect("from staging"),
        ["1 Forced", "2 Forced"]
    );
    assert_eq!(replayed(&engine, 1).await.expect("a prefix"), ["1 Forced"]);
    let unsent = Arc::new(parking_lot::Mutex::new(0));
    let count = unsent.clone();
    let sink = Box::new(move |_| {
        *count.lock() += 1;
        Ok(())
    });
    engine.replay_unsent(sink).await.expect("from staging");
    assert_eq!(*unsent.lock(), 4, "two frames in each of two packs");

    for number in 0..13 {
        rig.world.miners.set_fault(number, None);
    }
    engine.poke();
    rig.packs(&engine, 2..10).await;
    for seq in 1..=10 {
        rig.lose(seq, 4).await;
    }
    drop(engine);
    let engine = rig.engine(&store, "a");
    assert_eq!(
        replayed(&engine, 2).await.expect("from miners"),
        ["1 Forced", "2 Forced"]
    );
    let said = replayed(&engine, 10).await.expect("from miners");
    assert_eq!(said, ["9 Checkpoint", "10 Forced"], "it starts at a checkpoint");
    assert!(replayed(&engine, 11).await.is_err(), "there is no such pack");
    rig.lose(1, 3).await;
    drop(engine);
    let engine = rig.engine(&store, "a");
    assert!(replayed(&engine, 2).await.is_err(), "three miners are too few");
    assert_eq!(replayed(&engine, 10).await.expect("it needs no pack before").len(), 2);
}
