//! What is wrong takes nothing along that is right.

use super::*;
use crate::chunk_store::ChunkStore;
use crate::recovery::{Packs, take_staged};
use crate::sim::World;
use crate::store::MemStore;

/// Only the body has what is in such a pack, and a rebuilt journal takes it up again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_whose_record_cannot_be_read_keeps_its_body_and_its_places() {
    let world = World::new(12, 951);
    let dir = tempfile::tempdir().expect("temporary directory");
    let staging = dir.path().join("staging");
    let store = Arc::new(MemStore::new());
    // Never started: nothing is sent.
    let engine = world.engine(world.config(&staging), store.clone()).expect("open");
    let content = [7; 5000];
    let id = world.keys.chunk_id(&content);
    engine.submit(id, &content).expect("submit");
    engine.seal().expect("seal");
    drop(engine);
    opens(store.clone()).expect("every record can be read");
    let mut junk = Batch::new();
    junk.put(pack_key(PackSeq(1)), b"junk");
    store.commit(junk).expect("commit");

    let check = check_packs(store.as_ref(), &world.keys, &staging, true).expect("check");
    let told = check.findings;
    assert!(told.len() == 1 && !told[0].repairable, "{told:?}");
    assert_eq!(bodies(&staging).expect("list"), [PackSeq(1)]);
    assert!(store.get(&Place::key(id)).expect("get").is_some());
    assert!(opens(store).is_err(), "so that it is rebuilt");
    let mut packs = Packs::default();
    let staged = take_staged(&mut packs, &staging, &world.keys, &world.labels, "main").expect("read");
    assert_eq!(staged.taken, [PackSeq(1)]);
}
