//! A journal in which an engine finds the packs of the network, and from which it goes on without confusing anybody.

use super::{Packs, Plan};
use crate::ledger::{CLAIM_KEY, INHERITED_KEY, LAST_SEQ_KEY, Lineage, Place, pack_key};
use crate::limits::{EPOCH_SEQS, EPOCH_STEPS, INSTALL_BATCH_RECORDS};
use crate::store::{Batch, MetaStore, StoreError};
use cessfs_crypto::{ChunkId, Entropy, PackSeq};
use std::collections::{HashMap, HashSet};

/// How a recovered volume goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// Its epoch: above every one seen.
    pub epoch: u32,
    /// Its packs have higher numbers than this.
    pub base: PackSeq,
    /// It takes the volume over: its first pack is sealed as soon as it is mounted, so that other writers come to know. Not so
    /// what goes back to an earlier point, perhaps only to look.
    pub claims: bool,
}

impl Continuation {
    /// A new epoch after these packs. Numbers begin at a random step beyond all that were seen, so that neither an older
    /// writer that still sends nor a second recovery that sent nothing yet ever shares one (I7, I10).
    pub fn after(packs: &Packs, entropy: &mut dyn Entropy) -> Continuation {
        let seqs = packs.good.keys().chain(packs.lost.keys());
        let highest = seqs.max().map_or(0, |seq| seq.0);
        let epochs = packs.good.values().map(|pack| pack.record.epoch);
        let epoch = epochs.chain(packs.lost.values().map(|lost| lost.epoch)).max();
        let mut random = [0; 8];
        entropy.fill(&mut random);
        let steps = u64::from_le_bytes(random) % (EPOCH_STEPS - 1) + 1;
        let epoch_begin = highest / (EPOCH_SEQS * EPOCH_STEPS) * (EPOCH_SEQS * EPOCH_STEPS);
        Continuation {
            epoch: epoch.unwrap_or(0).saturating_add(1),
            base: PackSeq(
                epoch_begin
                    .saturating_add(EPOCH_SEQS * EPOCH_STEPS)
                    .saturating_add(steps * EPOCH_SEQS),
            ),
            claims: true,
        }
    }
}

/// Writes packs, places of chunks and lineage into an empty journal. Chunks of every pack that can be read are known
/// afterwards, also of packs that are not in the restored history: they are what they are, and need not be sent again.
///
/// No pack says which others its chunks came from, but directories do: what lies in an older pack too may be named by a snapshot that
/// needs that one. Where one cannot be read, every later pack stands for it.
///
/// # Errors
/// The store fails.
pub fn install(
    store: &dyn MetaStore,
    packs: &Packs,
    plan: &Plan,
    continuation: Continuation,
) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    let history: HashSet<PackSeq> = packs.history(plan.head).into_iter().collect();
    let mut oldest: HashMap<&ChunkId, PackSeq> = HashMap::new();
    // What could not be read may be where any later pack has its chunks from.
    let unread = packs.lost.keys().next().copied();
    // Oldest first: a chunk that lies in two packs is read from the newer one.
    for (seq, pack) in &packs.good {
        let mut first = unread.map_or(*seq, |lost| lost.min(*seq));
        for entry in &pack.directory.chunks {
            first = first.min(*oldest.entry(&entry.id).or_insert(*seq));
            batch.put(Place::key(entry.id), Place::new(*seq, entry).encode());
            if batch.ops.len() >= INSTALL_BATCH_RECORDS {
                store.commit(std::mem::take(&mut batch))?;
            }
        }
        let mut record = pack.record.clone();
        // What this history does not build on is not ours to delete.
        record.beside = !history.contains(seq);
        record.stands_for = Some(first).filter(|first| first < seq);
        batch.put(pack_key(*seq), record.encode());
    }
    // Whoever wrote before may delete what this tree does without, until it comes to know.
    batch.put(INHERITED_KEY, [1]);
    batch.put(LAST_SEQ_KEY, continuation.base.0.to_le_bytes());
    let lineage = Lineage {
        epoch: continuation.epoch,
        head: plan.head,
    };
    lineage.write(&mut batch);
    if continuation.claims {
        batch.put(CLAIM_KEY, [1]);
    }
    store.commit(batch)
}

/// Whether the journal knows where a chunk lies.
///
/// # Errors
/// The store cannot be read.
pub fn has_chunk(store: &dyn MetaStore, id: ChunkId) -> Result<bool, StoreError> {
    Ok(store.get(&Place::key(id))?.is_some())
}
