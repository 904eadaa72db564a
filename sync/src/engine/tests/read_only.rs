//! A volume that is only read.

use super::rig::Rig;
use super::upkeep::Owner;
use crate::chunk_store::{ChunkStore, Standing};
use crate::clock::Clock;
use std::sync::Arc;
use std::time::Duration;

/// A pack that waits to be sent, and changes old enough to be sealed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_is_only_read_seals_sends_and_declares_nothing() {
    let rig = Rig::new(12, 351);
    let chunks = rig.chunks(1, 5000);
    let engine = rig.world.engine(rig.world.config(&rig.staging()), rig.store.clone());
    let engine = engine.expect("open");
    // Never started: sealed here, and not sent.
    rig.submit(&engine, &chunks);
    engine.seal().expect("seal");
    drop(engine);
    let (batches, bodies) = (rig.store.progress(), rig.staged());

    let mut config = rig.world.config(&rig.staging());
    let age = Duration::from_secs(60);
    config.pack_age_max = age;
    let writing = config.clone();
    config.read_only = true;
    let engine = rig.world.engine(config, rig.store.clone()).expect("open");
    let owner = Arc::new(Owner::default());
    owner.talk();
    engine.attach(owner);
    engine.start();
    engine.note_change();
    rig.world.clock.sleep(3 * age).await;
    assert_eq!(rig.world.chain.declarations(), [], "it declared something");
    assert_eq!(rig.staged(), bodies);
    assert_eq!(engine.standing(chunks[0].0), Standing::Sealed);
    rig.assert_fetch(&engine, &chunks).await;
    engine.shutdown().await.expect("shutdown");
    assert_eq!(rig.store.progress(), batches, "the journal was changed");
    drop(engine);

    // The next mount that may write goes on with it.
    let engine = rig.world.engine(writing, rig.store.clone()).expect("open");
    engine.start();
    engine.settle().await.expect("settle");
    assert_eq!(engine.standing(chunks[0].0), Standing::Confirmed);
}
