//! Without the chain.

use super::rig::Rig;
use crate::chunk_store::ChunkStore;
use crate::sim::Fault;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_the_network_is_read_after_a_restart_while_the_chain_is_away() {
    let rig = Rig::new(12, 91);
    let engine = rig.open();
    let chunks = rig.chunks(3, 50_000);
    rig.submit(&engine, &chunks);
    engine.settle().await.expect("settle");
    drop(engine);

    rig.world.chain.set_away(true);
    let engine = rig.open();
    rig.assert_fetch(&engine, &chunks).await;
    // Those that are gone since are gone round.
    for number in 0..8 {
        rig.world.miners.set_fault(number, Some(Fault::Gone));
    }
    drop(engine);
    let engine = rig.open();
    rig.assert_fetch(&engine, &chunks).await;
}
