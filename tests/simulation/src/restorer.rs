//! Who has nothing but the phrase: what `cessfs recover` does, on a fresh disk.

use crate::chain::Link;
use crate::device::Outside;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::miners::SimMiners;
use cessfs_sync::recovery::{Archive, ArchiveParts, At, Continuation, NoPlan, Packs, Plan, has_chunk, install, survey};
use cessfs_sync::store::MemStore;
use cessfs_sync::{FetchError, MetaStore, StoreError, Tasks};
use cessfs_vfs::delta::frame::apply_delta;
use cessfs_vfs::restore::finish;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// How the words begin that tell of a tree which is not whole.
pub const MISTAKES: &str = "a tree with mistakes";

/// Asks the network for a volume, and puts it on a fresh disk; `None` if nothing of it can be recovered yet, which
/// `cessfs recover` refuses.
///
/// # Errors
/// Something that must be there is not, in words.
pub async fn restore(
    outside: &Outside,
    link: Link,
    miners: SimMiners,
    dice: &mut Dice,
    root: PathBuf,
) -> Result<Option<Disk>, String> {
    use cessfs_sync::Clock;
    let secrets = &outside.secrets;
    let clock = outside.clock.clone();
    let mut survey = survey(&link, &secrets.labels, &|_| ())
        .await
        .map_err(|error| error.to_string())?;
    let found = survey.take(secrets.keys.volume());
    outside.trace.note(format_args!("restorer: {} packs", found.len()));
    if found.is_empty() {
        return Ok(None);
    }
    let relying = miners.clone();
    let archive = Archive::new(ArchiveParts {
        chain: Arc::new(link),
        fragments: Arc::new(miners),
        clock: Arc::new(clock.clone()),
        entropy: Box::new(Dice::new(dice.word(), "archive")),
        keys: secrets.keys.clone(),
        tasks: Tasks::inline(Handle::current(), move || clock.sleep(Duration::from_millis(1))),
    });
    let mut packs = archive.open(found, &|_| ()).await;
    let (plan, store) = loop {
        let plan = match packs.plan(At::Newest) {
            Ok(plan) => plan,
            // The first packs are still on their way.
            Err(NoPlan::NothingComplete) if packs.lost.is_empty() => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let store = Arc::new(MemStore::new());
        match replay(&archive, &packs, &plan, &store).await? {
            None => break (plan, store),
            Some((seq, why)) => packs.lose_deltas(seq, why),
        }
    };
    if !packs.lost.is_empty() {
        return Err(format!("packs cannot be read: {:?}", packs.lost));
    }
    outside.trace.note(format_args!("restorer: {:?}", plan));
    if !plan.missing.is_empty() {
        // Packs may overtake each other, and the writer died before this one was sent. Whether the tree is old enough for
        // that is judged like that of any other.
        outside.trace.count("recoveries before a pack that was never sent");
    }
    for pack in packs.good.values() {
        relying.recovered_from(pack.record.encoded().fid);
    }
    let continuation = Continuation::after(&packs, dice);
    install(store.as_ref(), &packs, &plan, continuation).map_err(|error| error.to_string())?;
    let has = |id| has_chunk(store.as_ref(), id);
    let restored = finish(store.as_ref(), &secrets.keys, &has).map_err(|error| error.to_string())?;
    if !restored.findings.is_empty() || restored.missing_files > 0 {
        return Err(format!("{MISTAKES}: {:?} {:?}", restored.findings, restored.missing));
    }
    store.barrier().map_err(|error| error.to_string())?;
    outside.trace.count("recoveries from the phrase");
    Ok(Some(Disk::with_journal(root, store)))
}

type Unreadable = Option<(cessfs_crypto::PackSeq, String)>;

async fn replay(archive: &Archive, packs: &Packs, plan: &Plan, store: &Arc<MemStore>) -> Result<Unreadable, String> {
    for seq in &plan.replay {
        let apply = |frame| apply_delta([frame], store.as_ref()).map_err(FetchError::from);
        match archive.deltas(&packs.good[seq], apply).await {
            Ok(()) => {}
            Err(FetchError::Store(StoreError::Corrupt(why))) => return Err(format!("pack {}: {why}", seq.0)),
            Err(error) => return Ok(Some((*seq, error.to_string()))),
        }
    }
    Ok(None)
}
