//! Draining: what lives in a pack goes elsewhere, then a checkpoint says so.
//!
//! In this order, from a pack that drains: which of its chunks live, at one instant after it began to drain (so nobody can
//! come to need another one: see [`moving`](crate::builder)); those are fetched and appended to the open pack; a checkpoint is
//! sealed; each of them is looked for, in a pack that stays; the checkpoint's number goes into the record. A crash anywhere
//! before the last step begins again with what is left, and costs a checkpoint at most.

use super::health::Grade;
use super::{Upkeep, UpkeepError};
use crate::builder::{Checkpoint, Moved};
use crate::chunk_store::CutCause;
use crate::ledger::{Durable, PackRecord, PackState};
use crate::limits::{LOST_CHUNKS_MAX, MOVE_CHUNKS_MAX, MOVES_IN_FLIGHT};
use crate::rules::{Rule, holds};
use crate::store::StoreError;
use cessfs_crypto::{ChunkId, PackSeq};
use futures::StreamExt;
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;

/// What was moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Emptied {
    pub(super) packs: Vec<PackSeq>,
    pub(super) chunks: u64,
    pub(super) bytes: u64,
    /// Nothing that was to move stayed behind.
    pub(super) is_all: bool,
}

/// Chunks on the move, and those that could not be had.
#[derive(Default)]
struct Tally {
    moved: Vec<ChunkId>,
    bytes: u64,
    unmoved: Vec<(ChunkId, PackSeq)>,
    /// The backlog took no more.
    no_room: bool,
}

impl Upkeep {
    /// Empties every pack that drains, or is doubted, and is not empty yet.
    pub(super) async fn empty(self: &Arc<Self>, state: PackState) -> Result<Emptied, UpkeepError> {
        let mut leaving: HashSet<PackSeq> = self.full(state).collect();
        if leaving.is_empty() {
            return Ok(Emptied::default());
        }
        // The checkpoint names what is in doubted packs, too, and that has to be elsewhere.
        leaving.extend(self.full(PackState::Doubted));
        let leaving = Arc::new(leaving);
        let before = self.ledger.head();
        let urgent = leaving.iter().any(|seq| self.grade(*seq) >= Grade::Urgent);
        let tally = self.move_living(&leaving).await?;
        if tally.no_room {
            if urgent && !tally.moved.is_empty() {
                let builder = self.builder.clone();
                self.blocking(move || builder.seal(CutCause::Forced)).await?;
                self.prefer_since(before);
            }
            return Err(UpkeepError::NoRoom);
        }
        let stuck: HashSet<PackSeq> = tally.unmoved.iter().map(|(_, seq)| *seq).collect();
        self.give_up(&stuck).await?;
        let mut emptied = Emptied {
            chunks: tally.moved.len() as u64,
            bytes: tally.bytes,
            ..Emptied::default()
        };
        if stuck.len() == leaving.len() && tally.moved.is_empty() {
            return Ok(emptied);
        }
        let (builder, moved_out) = (self.builder.clone(), leaving.clone());
        let seal = move || {
            if urgent {
                // The checkpoint has to wait for every pack before it; what is about to be lost has not.
                builder.seal(CutCause::Forced)?;
            }
            builder.seal_checkpoint(&moved_out)
        };
        let checkpoint = match self.blocking(seal).await? {
            Checkpoint::Sealed(seq) => seq,
            Checkpoint::Nothing => return Err(UpkeepError::NobodyKnows),
            // Another pack is doubted since: the next round takes it, too.
            Checkpoint::Later => return Ok(emptied),
        };
        if urgent {
            self.prefer_since(before);
        }
        emptied.packs = self.settle(&leaving, stuck, tally.moved, checkpoint).await?;
        emptied.is_all = emptied.packs.len() == leaving.len();
        Ok(emptied)
    }

    /// What was sealed after this pack goes before everything else.
    fn prefer_since(&self, before: PackSeq) {
        let packs = self.ledger.all();
        let fresh = packs.iter().filter(|pack| pack.seq > before);
        fresh.for_each(|pack| self.pipeline.prefer(pack.seq));
    }

    /// Packs in this state out of which not everything has moved.
    pub(super) fn full(&self, state: PackState) -> impl Iterator<Item = PackSeq> + use<> {
        let packs = self.ledger.all().into_iter();
        let full = move |pack: &Arc<PackRecord>| {
            pack.state == state && pack.drain.is_some_and(|drain| drain.checkpoint.is_none())
        };
        packs.filter(full).map(|pack| pack.seq)
    }

    /// Notes the checkpoint in those packs out of which everything has come to lie in packs that stay.
    async fn settle(
        self: &Arc<Self>,
        leaving: &Arc<HashSet<PackSeq>>,
        stuck: HashSet<PackSeq>,
        moved: Vec<ChunkId>,
        checkpoint: PackSeq,
    ) -> Result<Vec<PackSeq>, UpkeepError> {
        let (upkeep, leaving) = (self.clone(), leaving.clone());
        self.blocking(move || {
            let mut behind = stuck;
            for id in moved {
                // A pack that could not be sealed was thrown away, with what had been moved into it.
                if let Some(place) = upkeep.ledger.locate(id)?.filter(|place| leaving.contains(&place.seq)) {
                    behind.insert(place.seq);
                }
            }
            let mut done: Vec<PackSeq> = leaving.iter().filter(|seq| !behind.contains(seq)).copied().collect();
            done.sort_unstable();
            for seq in &done {
                upkeep.ledger.update(*seq, Durable::Now, |pack| {
                    let drain = pack
                        .drain
                        .as_mut()
                        .expect("a draining pack says why; decode refuses others");
                    drain.checkpoint = Some(checkpoint.0);
                })?;
            }
            Ok(done)
        })
        .await
    }

    async fn move_living(self: &Arc<Self>, leaving: &Arc<HashSet<PackSeq>>) -> Result<Tally, UpkeepError> {
        let mut tally = Tally::default();
        let mut from = Some(b"K".to_vec());
        while let Some(at) = from {
            let (upkeep, packs) = (self.clone(), leaving.clone());
            let page = self.blocking(move || {
                let (stock, next) = upkeep.stock(&packs, at, MOVE_CHUNKS_MAX)?;
                let living = upkeep.living(&stock)?;
                Ok((stock, living, next))
            });
            let (stock, living, next) = page.await?;
            let living = living.ok_or(UpkeepError::NobodyKnows)?;
            let mut live: Vec<_> = stock.into_iter().filter(|(id, _)| living.contains(id)).collect();
            if !holds(Rule::Moved) {
                live.clear();
            }
            self.move_chunks(live, leaving, &mut tally).await?;
            from = next.filter(|_| !tally.no_room);
        }
        Ok(tally)
    }

    /// Moves chunks; those that the network does not give from this machine's own copy, if it has one.
    async fn move_chunks(
        self: &Arc<Self>,
        chunks: Vec<(ChunkId, PackSeq)>,
        from: &Arc<HashSet<PackSeq>>,
        tally: &mut Tally,
    ) -> Result<(), UpkeepError> {
        let mut missing = Vec::new();
        let mut moves = futures::stream::iter(chunks)
            .map(|(id, seq)| async move {
                let outcome = self.move_chunk(id, from).await;
                (id, seq, outcome)
            })
            .buffer_unordered(MOVES_IN_FLIGHT);
        while let Some((id, seq, outcome)) = moves.next().await {
            match outcome? {
                Some((Moved::NoRoom, _)) => {
                    tally.no_room = true;
                    return Ok(());
                }
                Some((_, bytes)) => {
                    tally.moved.push(id);
                    tally.bytes += bytes;
                }
                None => missing.push((id, seq)),
            }
        }
        match missing.is_empty() {
            true => Ok(()),
            false => self.move_cached(missing, from, tally).await,
        }
    }

    /// Moves chunks out of this machine's own copy, if it has one.
    async fn move_cached(
        self: &Arc<Self>,
        missing: Vec<(ChunkId, PackSeq)>,
        from: &Arc<HashSet<PackSeq>>,
        tally: &mut Tally,
    ) -> Result<(), UpkeepError> {
        let (builder, from, wanted) = (self.builder.clone(), from.clone(), missing.clone());
        let found = self.blocking(move || {
            let wanted: HashSet<ChunkId> = wanted.into_iter().map(|(id, _)| id).collect();
            let (mut found, no_room) = (HashSet::new(), Cell::new(false));
            builder.cached(&|id| wanted.contains(&id) && !no_room.get(), &mut |id, plaintext| {
                match builder.relocate(id, plaintext, &from)? {
                    Moved::NoRoom => no_room.set(true),
                    Moved::Appended | Moved::Already => drop(found.insert(id)),
                }
                Ok(())
            })?;
            Ok((found, no_room.get()))
        });
        let (found, no_room) = found.await?;
        tally.no_room |= no_room;
        tally.moved.extend(&found);
        tally
            .unmoved
            .extend(missing.into_iter().filter(|(id, _)| !found.contains(id)));
        Ok(())
    }

    /// What became of it, and bytes moved; `None` if the network does not give the chunk.
    async fn move_chunk(
        self: &Arc<Self>,
        id: ChunkId,
        from: &Arc<HashSet<PackSeq>>,
    ) -> Result<Option<(Moved, u64)>, UpkeepError> {
        let plaintext = match self.reader.fetch(id).await {
            Ok(plaintext) => plaintext,
            Err(crate::FetchError::Store(error)) => return Err(error.into()),
            Err(error) => {
                tracing::debug!("a chunk cannot move: {error}");
                return Ok(None);
            }
        };
        let (builder, from) = (self.builder.clone(), from.clone());
        let moved = self.blocking(move || {
            let moved = builder.relocate(id, &plaintext, &from)?;
            Ok(match moved {
                Moved::Appended => (moved, plaintext.len() as u64),
                Moved::Already | Moved::NoRoom => (moved, 0),
            })
        });
        Ok(Some(moved.await?))
    }

    /// Draining packs with chunks that nobody gives: Lost, if too few columns are good. Else they are tried again.
    async fn give_up(self: &Arc<Self>, stuck: &HashSet<PackSeq>) -> Result<(), UpkeepError> {
        let mut stuck: Vec<PackSeq> = stuck.iter().copied().collect();
        stuck.sort_unstable();
        for seq in stuck {
            let doubted = self.ledger.get(seq).filter(|pack| pack.state == PackState::Doubted);
            if doubted.is_some() {
                self.builder.leave_behind(seq);
            }
            if self.grade(seq) < Grade::Lost || doubted.is_some() {
                self.errors.push(format!(
                    "pack {}: not everything that lives in it can be read now; it is tried again",
                    seq.0
                ));
                continue;
            }
            self.errors.push(format!(
                "pack {} is lost: fewer than four of its miners have it, and this machine has not all of it; it is asked for again",
                seq.0
            ));
            self.change(seq, |pack| {
                pack.state = PackState::Lost;
                pack.drain = None;
            })
            .await?;
        }
        Ok(())
    }

    /// Copies everything that lies in a pack, living or not, which itself stays: a snapshot needs it, or another writer.
    pub(super) async fn copy(self: &Arc<Self>, seq: PackSeq) -> Result<Emptied, UpkeepError> {
        let from = Arc::new(HashSet::from([seq]));
        let mut tally = Tally::default();
        let mut at = Some(b"K".to_vec());
        while let Some(key) = at {
            let (upkeep, packs) = (self.clone(), from.clone());
            let page = self.blocking(move || upkeep.stock(&packs, key, MOVE_CHUNKS_MAX));
            let (stock, next) = page.await?;
            self.move_chunks(stock, &from, &mut tally).await?;
            at = next;
            if tally.no_room {
                return Err(UpkeepError::NoRoom);
            }
        }
        let mut is_all = tally.unmoved.is_empty();
        if !is_all && self.grade(seq) == Grade::Lost {
            self.change(seq, |pack| pack.state = PackState::Lost).await?;
        }
        let (chunks, bytes) = (tally.moved.len() as u64, tally.bytes);
        if chunks > 0 {
            is_all &= self.seal_copies(seq, tally.moved).await?;
        }
        Ok(Emptied {
            packs: vec![seq],
            chunks,
            bytes,
            is_all,
        })
    }

    /// Seals what was copied out of a pack; whether all of that has come to lie elsewhere.
    async fn seal_copies(self: &Arc<Self>, from: PackSeq, copies: Vec<ChunkId>) -> Result<bool, UpkeepError> {
        let (upkeep, before) = (self.clone(), self.ledger.head());
        let is_there = self.blocking(move || {
            upkeep.builder.seal(CutCause::Forced)?;
            for id in copies {
                if upkeep.ledger.locate(id)?.is_some_and(|place| place.seq == from) {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        let is_there = is_there.await?;
        if self.grade(from) >= Grade::Urgent {
            self.prefer_since(before);
        }
        Ok(is_there)
    }

    /// Living chunks in these packs, [`LOST_CHUNKS_MAX`] or hardly more; `page` of what lies there are looked at in one go. Blocks on the disk.
    pub(crate) fn living_in(&self, packs: &HashSet<PackSeq>, page: usize) -> Result<HashSet<ChunkId>, StoreError> {
        let mut chunks = HashSet::new();
        let mut from = (!packs.is_empty()).then(|| b"K".to_vec());
        while let Some(at) = from.filter(|_| chunks.len() < LOST_CHUNKS_MAX) {
            let (stock, next) = self.stock(packs, at, page)?;
            chunks.extend(self.living(&stock)?.unwrap_or_default());
            from = next;
        }
        Ok(chunks)
    }

    /// Tells whom it concerns which living chunks are in lost packs. `again`: also if these are the packs of the last time.
    pub(super) async fn tell_lost(self: &Arc<Self>, again: bool) -> Result<(), UpkeepError> {
        let packs = self.ledger.all();
        let lost: HashSet<PackSeq> = packs
            .iter()
            .filter(|pack| pack.state == PackState::Lost)
            .map(|pack| pack.seq)
            .collect();
        if *self.told_packs.lock() == lost && (lost.is_empty() || !again) {
            return Ok(());
        }
        let upkeep = self.clone();
        let work = move || -> Result<(), StoreError> {
            let chunks = upkeep.living_in(&lost, MOVE_CHUNKS_MAX)?;
            let mut told = upkeep.told_lost.lock();
            let tells = fingerprint(&chunks);
            if *told != tells {
                upkeep.builder.tell_lost(&chunks)?;
                *told = tells;
            }
            *upkeep.told_packs.lock() = lost;
            Ok(())
        };
        self.blocking(work).await
    }
}

/// What tells one set of chunks from another: their ids are hashes.
fn fingerprint(chunks: &HashSet<ChunkId>) -> (usize, u128) {
    let half = |id: &ChunkId| u128::from_be_bytes(*id.0.first_chunk().expect("ids have 32 bytes"));
    let sum = chunks.iter().map(half).fold(0, u128::wrapping_add);
    (chunks.len(), sum)
}
