//! Confirmed packs that are not taken for granted: after a territory was purged, and after a recovery beside a machine that still runs.

use super::rig::{Chunk, Rig, eventually};
use super::upkeep::{Owner, name, open, open_on, packs};
use crate::chain::{Chain, Head, Territory, TerritoryState};
use crate::chunk_store::{ChunkStore, Standing};
use crate::clock::Clock;
use crate::engine::Engine;
use crate::ledger::PackState;
use crate::recovery::{Archive, ArchiveParts, At, Continuation, install, survey};
use crate::sim::SimEntropy;
use crate::store::{MemStore, MetaStore};
use cessfs_crypto::PackSeq;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

pub(super) async fn territory(rig: &Rig) -> Territory {
    let asked = rig.world.chain.territory("main").await;
    asked.expect("the chain answers").expect("there is one")
}

/// Everything that was stored is gone, at the chain and at the miners.
pub(super) fn purge(rig: &Rig) {
    for fid in rig.world.chain.stored() {
        (0..12).for_each(|number| rig.world.miners.lose(number, fid));
    }
    rig.world.chain.purge();
}

/// Others are not waited for.
async fn send_again(rig: &Rig, engine: &Engine, chunks: &[Chunk]) {
    rig.submit(engine, chunks);
    engine.seal().expect("seal");
    for (id, _) in chunks {
        eventually("it is there again", || engine.standing(*id) == Standing::Confirmed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_purge_nothing_is_trusted_that_was_not_seen_again() {
    let rig = Rig::new(12, 421);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    engine.note_territory(&territory(&rig).await);
    let packs = packs(&rig, &engine, 2, 2).await;
    packs.iter().for_each(|chunks| name(&owner, chunks));
    engine.note_territory(&territory(&rig).await);
    assert_eq!(engine.standing(packs[0][0].0), Standing::Confirmed, "nothing is wrong");
    purge(&rig);
    rig.world.chain.buy_again();
    engine.note_territory(&territory(&rig).await);
    // What is no more than Stored does not leave the cache.
    for (id, _) in packs.iter().flatten() {
        assert_eq!(engine.standing(*id), Standing::Stored);
    }
    drop(engine);
    let engine = open(&rig, &owner);
    assert_eq!(engine.standing(packs[1][0].0), Standing::Stored, "it is remembered");
    send_again(&rig, &engine, &packs[0]).await;
    drop(engine);
    let engine = open(&rig, &owner);
    rig.assert_fetch(&engine, &packs[0]).await;
    assert_eq!(engine.standing(packs[0][0].0), Standing::Confirmed);
    rig.world.clock.sleep(Duration::from_secs(200)).await;
    assert_eq!(engine.standing(packs[1][0].0), Standing::Stored, "it is not there");
    // Whoever looks after packs hears of it without a look at the miners.
    assert!(
        engine.status().damaged.contains(&(PackSeq(2), 0)),
        "{:?}",
        engine.status().damaged
    );
}

/// A node that is late tells of less than was stored, too: then the packs are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_chain_shows_again_is_trusted_again() {
    let rig = Rig::new(12, 422);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let packs = packs(&rig, &engine, 2, 1).await;
    let id = packs[0][0].0;
    let mut heard = territory(&rig).await;
    heard.used_bytes -= 1;
    engine.note_territory(&heard);
    assert_eq!(engine.standing(id), Standing::Stored);
    eventually("it is seen again", || engine.standing(id) == Standing::Confirmed).await;
    let declared = rig.world.chain.declarations().len();
    rig.submit(&engine, &packs[0]);
    engine.settle().await.expect("settle");
    assert_eq!(rig.world.chain.declarations().len(), declared, "and not sent again");

    // While the territory is expired, what is still there goes any moment.
    rig.world.chain.set_territory(Some((1 << 40, TerritoryState::Expired)));
    engine.note_territory(&territory(&rig).await);
    rig.world.clock.sleep(Duration::from_secs(200)).await;
    assert_eq!(engine.standing(id), Standing::Stored);
    rig.world.chain.set_territory(Some((1 << 40, TerritoryState::Active)));
    eventually("it is seen again", || engine.standing(id) == Standing::Confirmed).await;
}

/// The volume as the network has it, in a new journal.
async fn recover(rig: &Rig, seed: u64) -> Arc<MemStore> {
    let mut found = survey(rig.world.chain.as_ref(), &rig.world.labels, &|_| ())
        .await
        .expect("survey");
    let archive = Archive::new(ArchiveParts {
        chain: rig.world.chain.clone(),
        fragments: rig.world.miners.clone(),
        clock: rig.world.clock.clone(),
        entropy: Box::new(SimEntropy::new(seed)),
        keys: rig.world.keys.clone(),
        tasks: Handle::current().into(),
    });
    let packs = archive.open(found.take(rig.world.keys.volume()), &|_| ()).await;
    let plan = packs.plan(At::Newest).expect("plan");
    let continuation = Continuation::after(&packs, &mut SimEntropy::new(seed));
    let store = Arc::new(MemStore::new());
    install(&*store, &packs, &plan, continuation).expect("install");
    store
}

fn start(rig: &Rig, owner: &Arc<Owner>, store: Arc<dyn MetaStore>, dir: &tempfile::TempDir) -> Engine {
    let engine = rig.world.engine(rig.world.config(dir.path()), store).expect("open");
    engine.attach(owner.clone());
    engine.start();
    engine
}

/// The old machine deletes a dead pack after the new one has read its directory. What was in it is written on the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_of_a_pack_that_the_old_machine_deletes_is_sent_again_by_the_new_one() {
    let rig = Rig::new(12, 423);
    let (old_owner, owner) = (Arc::new(Owner::default()), Arc::new(Owner::default()));
    let old = open_on(&rig, rig.store.clone(), &old_owner, |upkeep| {
        upkeep.keep_history = Duration::from_secs(1 << 30);
    });
    let packs = packs(&rig, &old, 3, 1).await;
    // Of the first pack nothing lives in either tree.
    for owner in [&old_owner, &owner] {
        packs[1..].iter().for_each(|chunks| name(owner, chunks));
    }
    let dead = &packs[0];
    let emptied = old.collect(false).await.expect("collect");
    assert!(emptied.kept.contains(&PackSeq(1)), "{emptied:?}");
    drop(old);
    let store = recover(&rig, 1).await;
    let old = open(&rig, &old_owner);
    let done = old.collect(false).await.expect("collect");
    assert!(done.deleted.contains(&PackSeq(1)), "{done:?}");
    let dir = tempfile::tempdir().expect("temporary directory");
    // Nor does it begin anew whenever the chain is away for a moment.
    rig.world.chain.lose_heights(5);
    let new = start(&rig, &owner, store.clone(), &dir);
    rig.submit(&new, dead);
    name(&owner, dead);
    new.settle().await.expect("settle");
    assert_eq!(new.standing(dead[0].0), Standing::Confirmed);

    // A third machine has it.
    let third_dir = tempfile::tempdir().expect("temporary directory");
    let third = start(&rig, &owner, recover(&rig, 2).await, &third_dir);
    rig.assert_fetch(&third, dead).await;
    drop(third);

    // When the old one must have seen the new one, what it left is what there is.
    eventually("the pack is known to be gone", || {
        new.pack_state(PackSeq(1)).is_none_or(|state| state == PackState::Gone)
    })
    .await;
    // This question may be the one that would have no answer.
    rig.world.chain.lose_heights(0);
    assert!(rig.world.chain.height(Head::Best).await.expect("the chain answers") > 164);
    let living = packs[1][0].0;
    eventually("the rest is seen", || new.standing(living) == Standing::Confirmed).await;
    let declared = rig.world.chain.declarations().len();
    rig.submit(&new, &packs[1]);
    new.settle().await.expect("settle");
    assert_eq!(
        rig.world.chain.declarations().len(),
        declared,
        "it is there, and not sent again"
    );
    drop(new);
    let new = start(&rig, &owner, store, &dir);
    eventually("it is trusted", || new.standing(living) == Standing::Confirmed).await;
    rig.assert_fetch(&new, dead).await;
}

/// A node withholds what there is, or the chain dropped the list with another territory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_short_list_lacks_is_not_forgotten_while_a_snapshot_needs_it_or_the_file_is_there() {
    let rig = Rig::new(12, 424);
    let owner = Arc::new(Owner::default());
    let old = open(&rig, &owner);
    owner.talk();
    // Of the first two nothing lives; the first is a snapshot's.
    let packs = packs(&rig, &old, 3, 1).await;
    name(&owner, &packs[2]);
    drop(old);
    owner.pin(Some(PackSeq(1)));
    let store = recover(&rig, 3).await;
    rig.world.chain.unlist(&rig.world.chain.stored());
    let dir = tempfile::tempdir().expect("temporary directory");
    let new = start(&rig, &owner, store, &dir);
    rig.submit(&new, &rig.chunks(1, 5000));
    new.settle().await.expect("settle");
    eventually("stock is taken", || !new.ledger.inherits()).await;
    for seq in 1..=3 {
        assert_eq!(new.pack_state(PackSeq(seq)), Some(PackState::Confirmed));
    }
    new.collect(true).await.expect("count");
    rig.world.chain.unlist(&[]);
    eventually("they are seen again", || new.ledger.unseen().is_empty()).await;
    rig.assert_fetch(&new, &packs.concat()).await;
    new.replay(PackSeq(1), Box::new(|_| Ok(())))
        .await
        .expect("the snapshot's tree");
}
