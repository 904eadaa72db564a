//! Whoever waits for the network while the chain has dropped what was there.

use super::rig::{Chunk, Rig};
use super::sight::{purge, territory};
use super::upkeep::{Owner, name, open_on, packs, seq_of};
use crate::chunk_store::{ChunkStore, Standing};
use crate::engine::Engine;
use crate::ledger::PackState;
use crate::recovery::{Archive, ArchiveParts, At, Continuation, Plan, has_chunk, install, survey};
use crate::sim::SimEntropy;
use crate::store::{MemStore, StoreError};
use cessfs_crypto::{ChunkId, PackSeq};
use std::sync::Arc;
use tokio::runtime::Handle;

/// What somebody finds who has nothing but the phrase: how far the tree comes back, and the journal that he gets.
pub(super) async fn found(rig: &Rig) -> (Plan, MemStore) {
    let found = survey(rig.world.chain.as_ref(), &rig.world.labels, &|_| ()).await;
    let archive = Archive::new(ArchiveParts {
        chain: rig.world.chain.clone(),
        fragments: rig.world.miners.clone(),
        clock: rig.world.clock.clone(),
        entropy: Box::new(SimEntropy::new(98)),
        keys: rig.world.keys.clone(),
        tasks: Handle::current().into(),
    });
    let mut found = found.expect("survey");
    let packs = archive.open(found.take(rig.world.keys.volume()), &|_| ()).await;
    let plan = packs.plan(At::Newest).expect("a plan");
    let store = MemStore::new();
    let continuation = Continuation::after(&packs, &mut SimEntropy::new(97));
    install(&store, &packs, &plan, continuation).expect("install");
    (plan, store)
}

/// Two packs that this machine has the content of, one that it has not, and a territory that was purged and bought again since.
async fn purged(rig: &Rig, owner: &Arc<Owner>, repair: bool) -> (Engine, Vec<Vec<Chunk>>) {
    let engine = open_on(rig, rig.store.clone(), owner, |upkeep| upkeep.repair = repair);
    engine.note_territory(&territory(rig).await);
    let all = packs(rig, &engine, 3, 2).await;
    all.iter().for_each(|chunks| name(owner, chunks));
    owner.keep(&all[..2].concat());
    owner.talk();
    purge(rig);
    rig.world.chain.buy_again();
    (engine, all)
}

/// That the territory began anew is heard when the next pack is declared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_after_a_purge_ends_when_what_this_machine_has_is_there_again() {
    let rig = Rig::new(12, 431);
    let owner = Arc::new(Owner::default());
    let (engine, all) = purged(&rig, &owner, true).await;
    let next = rig.chunks(1, 5000);
    name(&owner, &next);
    rig.submit(&engine, &next);
    engine.settle().await.expect("settle");
    let kept: Vec<ChunkId> = all[..2].iter().chain([&next]).flatten().map(|(id, _)| *id).collect();
    for id in &kept {
        assert_eq!(engine.standing(*id), Standing::Confirmed);
    }
    assert_eq!(engine.pack_state(PackSeq(3)), Some(PackState::Lost));
    let lost = all[2].iter().map(|(id, _)| *id).collect();
    assert_eq!(owner.told_lost(), lost, "what nobody has is named");
    let (plan, found) = found(&rig).await;
    assert_eq!(plan.missing, []);
    assert!(plan.head > seq_of(&engine, next[0].0), "{plan:?}");
    for id in kept {
        assert!(has_chunk(&found, id).expect("the journal can be read"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_after_a_purge_fails_where_nobody_sends_again_what_was_there() {
    let rig = Rig::new(12, 432);
    let owner = Arc::new(Owner::default());
    let (engine, all) = purged(&rig, &owner, false).await;
    engine.note_territory(&territory(&rig).await);
    let settled = engine.settle().await;
    assert!(matches!(settled, Err(StoreError::Dropped(PackSeq(1)))), "{settled:?}");
    let told = settled.expect_err("seen above").to_string();
    assert!(told.contains("repair is switched off"), "{told}");
    engine.repair().await.expect("repair");
    engine.settle().await.expect("settle");
    for (id, _) in all[..2].iter().flatten() {
        assert_eq!(engine.standing(*id), Standing::Confirmed);
    }
}
