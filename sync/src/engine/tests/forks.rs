//! Two copies of one journal: a directory that was put back from a backup, a clone, two recoveries of the same epoch.

use super::rig::{Chunk, Rig, eventually};
use super::upkeep::{Owner, name, open, packs};
use crate::chunk_store::ChunkStore;
use crate::engine::Engine;
use crate::ledger::{Blocked, Drain, DrainCause, Durable, LAST_SEQ_KEY, Lineage, PackState};
use crate::limits::EPOCH_SEQS;
use crate::store::{Batch, MemStore, MetaStore};
use cessfs_crypto::PackSeq;
use std::sync::Arc;

/// The journal as it is now, in a store of its own.
fn copy(store: &MemStore) -> Arc<MemStore> {
    Arc::new(store.crashed_at(store.progress().0))
}

/// A journal of epoch 2 whose numbers begin with this range.
fn recovered(range: u64) -> Arc<MemStore> {
    let mut batch = Batch::new();
    batch.put(LAST_SEQ_KEY, (range * EPOCH_SEQS).to_le_bytes());
    let lineage = Lineage {
        epoch: 2,
        head: PackSeq(0),
    };
    lineage.write(&mut batch);
    let store = MemStore::new();
    store.commit(batch).expect("commit");
    Arc::new(store)
}

async fn send(rig: &Rig, engine: &Engine) -> Vec<Chunk> {
    let chunks = rig.chunks(1, 5000);
    rig.submit(engine, &chunks);
    engine.settle().await.expect("settle");
    chunks
}

/// The engine has something to send and sends nothing, because it is a copy.
async fn is_stopped(rig: &Rig, engine: &Engine) {
    let declared = rig.world.chain.declarations();
    rig.submit(engine, &rig.chunks(1, 5000));
    let settled = tokio::spawn(engine.settle());
    rig.blocked(engine, |reason| *reason == Blocked::Forked).await;
    assert!(engine.is_forked() && engine.is_fenced() && !settled.is_finished());
    assert_eq!(rig.world.chain.declarations(), declared);
    settled.abort();
}

/// One pack ahead: the number is the one that the copy would take. More packs: numbers that it never took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_was_put_back_declares_nothing_beside_what_was_sent_since() {
    for ahead in [1, 3] {
        let rig = Rig::new(12, 401);
        let engine = rig.open();
        send(&rig, &engine).await;
        let older = copy(&rig.store);
        let mut since = Vec::new();
        for _ in 0..ahead {
            since.extend(send(&rig, &engine).await);
        }
        drop(engine);
        let reverted = rig.open_on(older.clone());
        is_stopped(&rig, &reverted).await;
        drop(reverted);
        let again = rig.open_on(older);
        assert!(again.is_forked(), "it is remembered");
        drop(again);
        // The newer one goes on.
        let engine = rig.open();
        send(&rig, &engine).await;
        assert!(!engine.is_fenced());
        rig.assert_fetch(&engine, &since).await;
    }
}

/// An engine on a journal that lacks the newest pack that was sent.
async fn put_back_a_pack(rig: &Rig) -> Engine {
    let engine = rig.open();
    send(rig, &engine).await;
    let older = copy(&rig.store);
    send(rig, &engine).await;
    drop(engine);
    rig.open_on(older)
}

/// A deletion looks at the list while a pack is open whose number the newer copy has sent already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_is_open_does_not_hide_the_one_that_a_copy_sent_under_its_number() {
    let rig = Rig::new(12, 406);
    let reverted = put_back_a_pack(&rig).await;
    rig.submit(&reverted, &rig.chunks(1, 5000));
    let going = reverted.ledger.update(PackSeq(1), Durable::Now, |pack| {
        pack.state = PackState::Deleting;
        pack.drain = Some(Drain {
            cause: DrainCause::Dead,
            since_s: 0,
            checkpoint: None,
        });
    });
    going.expect("journal");
    let deleted = reverted.pipeline.delete(PackSeq(1)).await;
    assert_eq!(deleted, Err(Blocked::Forked));
    assert_eq!(rig.world.chain.deletions(), []);
    is_stopped(&rig, &reverted).await;
}

/// A disk without room throws packs away that were just begun, with their numbers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_was_thrown_away_does_not_hide_the_pack_that_a_copy_sent_under_it() {
    let rig = Rig::new(12, 407);
    let reverted = put_back_a_pack(&rig).await;
    assert_eq!(reverted.ledger.take_seq(), PackSeq(2));
    is_stopped(&rig, &reverted).await;
}

/// Both copies run: who comes second with a number stops, and the other goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_clones_one_goes_on() {
    let rig = Rig::new(12, 402);
    let engine = rig.open();
    send(&rig, &engine).await;
    let clone = copy(&rig.store);
    // In a staging directory of its own, as on a machine of its own.
    let dir = tempfile::tempdir().expect("temporary directory");
    let clone = rig.world.engine(rig.world.config(dir.path()), clone).expect("open");
    clone.start();
    send(&rig, &clone).await;
    is_stopped(&rig, &engine).await;
    send(&rig, &clone).await;
    assert!(!clone.is_fenced());
}

/// Two recoveries that did not see each other are of one epoch; the second to begin stops before it sends anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_recoveries_in_one_epoch_the_second_to_send_stops() {
    for (first, second) in [(10, 11), (11, 10)] {
        let rig = Rig::new(12, 403);
        let one = rig.open_on(recovered(first));
        send(&rig, &one).await;
        let other = rig.open_on(recovered(second));
        is_stopped(&rig, &other).await;
        drop(other);
        send(&rig, &one).await;
        assert!(!one.is_fenced());
    }
}

/// A pack that was deleted, and forgotten here, is still listed by a node that is late: no fork.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_late_node_still_lists_is_no_fork() {
    let rig = Rig::new(12, 404);
    let owner = Arc::new(Owner::default());
    let engine = open(&rig, &owner);
    let packs = packs(&rig, &engine, 3, 1).await;
    name(&owner, &packs[2]);
    engine.collect(false).await.expect("collect");
    // Counting forgets what is gone.
    engine.collect(false).await.expect("collect");
    assert_eq!(engine.pack_state(PackSeq(1)), None);
    drop(engine);
    rig.world.chain.undelete();
    let engine = open(&rig, &owner);
    let chunks = rig.chunks(1, 5000);
    rig.submit(&engine, &chunks);
    engine.settle().await.expect("settle");
    assert!(!engine.is_fenced());
}

/// What a node does not show the moment it is asked is asked again: it may be a pack of a newer epoch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_pack_that_the_node_could_not_show_at_first_ends_this_writer_all_the_same() {
    let rig = Rig::new(12, 405);
    let engine = rig.open();
    send(&rig, &engine).await;
    let before = rig.world.chain.stored();
    let newer = rig.open_on(recovered(9));
    send(&rig, &newer).await;
    drop(newer);
    let mut hidden = rig.world.chain.stored();
    hidden.retain(|fid| !before.contains(fid));
    rig.world.chain.hide(&hidden);
    send(&rig, &engine).await;
    rig.world.chain.hide(&[]);
    rig.submit(&engine, &rig.chunks(1, 5000));
    let settled = tokio::spawn(engine.settle());
    eventually("it is fenced", || engine.fenced() == Some(2)).await;
    settled.abort();
}
