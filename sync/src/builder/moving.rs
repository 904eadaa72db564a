//! Chunks that move from pack to pack, and the checkpoint after which the old ones are not needed.
//!
//! Files name only chunk ids, so a chunk moves by being sealed into another pack: its location changes in the batch that
//! journals that pack, and not before.
//!
//! The race that this has to win: somebody submits content that lies in a pack which is about to go. A pack starts to drain
//! under the gate, which every submit passes with its last look at the standing. From then on chunks in it count as unknown,
//! so each later submit brings the content again. What was submitted before and is not named by a file yet is told `Unknown`
//! when its owner asks for its standing, and comes again, too.

use super::Builder;
use crate::chunk_store::{ChunkSink, CutCause};
use crate::ledger::{Blocked, Drain, DrainCause, Durable, PackRecord, PackState, stopped};
use crate::limits::MOVE_RESERVE_PACKS;
use crate::rules::{Rule, holds};
use crate::store::StoreError;
use cessfs_crypto::{ChunkId, FrameId, PackKind, PackSeq, SEAL_OVERHEAD};
use std::collections::HashSet;
use std::sync::Arc;

/// What became of a chunk that was to move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moved {
    /// It is in the open pack now.
    Appended,
    /// It lies elsewhere already.
    Already,
    /// The backlog is at its bound, and has no room for what moves either.
    NoRoom,
}

/// What became of a checkpoint that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Checkpoint {
    /// It has this number.
    Sealed(PackSeq),
    /// Nobody has anything to put into it.
    Nothing,
    /// Not before what lives in doubted packs has moved.
    Later,
}

impl Builder {
    /// Makes these packs take no more references, one record each. Only Confirmed and Lost ones can.
    pub(crate) fn drain(&self, seqs: &[PackSeq], cause: DrainCause) -> Result<(), StoreError> {
        let _gate = self.gate.lock();
        for seq in seqs {
            self.ledger.update(*seq, Durable::Now, |pack| {
                assert!(
                    matches!(pack.state, PackState::Confirmed | PackState::Lost) && !pack.beside,
                    "pack {} cannot drain: it is {}",
                    pack.seq.0,
                    pack.state
                );
                self.begin_drain(pack, PackState::Draining, cause);
            })?;
        }
        Ok(())
    }

    /// The same for a pack that is not given back, or cannot be placed, `why`: it is Doubted. So are checkpoints that were sealed after
    /// it and never declared: they name what is in it, and whoever recovers would begin with them while it is nowhere.
    pub(crate) fn doubt(&self, seq: PackSeq, why: String) -> Result<(), StoreError> {
        let _gate = self.gate.lock();
        let packs = self.ledger.all();
        let names_it = |pack: &&Arc<PackRecord>| {
            let is_later = pack.seq > seq && pack.kind == PackKind::Checkpoint;
            is_later && pack.state < PackState::Placing && pack.intent.is_none() && holds(Rule::Order)
        };
        // Those first: none of them is declared in between.
        for pack in packs.iter().filter(names_it) {
            self.doubt_one(
                pack.seq,
                format!("it names content of pack {}, which is sent again", seq.0),
            )?;
        }
        self.doubt_one(seq, why)
    }

    fn doubt_one(&self, seq: PackSeq, why: String) -> Result<(), StoreError> {
        self.ledger.update(seq, Durable::Now, |pack| {
            // Doubted with another one a moment ago.
            if pack.state > PackState::Stored {
                return;
            }
            if pack.state < PackState::Stored {
                // Before that the chain does not say which miner has which column.
                pack.columns = Default::default();
            }
            self.begin_drain(pack, PackState::Doubted, DrainCause::Doubted);
            pack.blocked = Some(Blocked::Doubted(why));
        })?;
        Ok(())
    }

    /// Something that lives in this doubted pack is nowhere to be had.
    pub(crate) fn leave_behind(&self, seq: PackSeq) {
        self.left_behind.lock().insert(seq);
    }

    /// Content of doubted packs, other than these, is still to move: a checkpoint that is sealed now would name it where it cannot be
    /// had from the network.
    pub(super) fn awaits_replacement(&self, but: &HashSet<PackSeq>) -> bool {
        let left_behind = self.left_behind.lock();
        let mut unreplaced = self.ledger.unreplaced().into_iter();
        unreplaced.any(|seq| !but.contains(&seq) && !left_behind.contains(&seq)) && holds(Rule::Order)
    }

    fn begin_drain(&self, pack: &mut PackRecord, state: PackState, cause: DrainCause) {
        let since_s = self.clock.wall().as_secs();
        pack.state = state;
        pack.changed_at_s = since_s;
        pack.drain = Some(Drain {
            cause,
            since_s,
            checkpoint: None,
        });
    }

    /// Appends a chunk that lies in one of the packs `from`, which it leaves. Never waits for room: what makes room may be a deletion,
    /// which comes after whoever moves.
    pub(crate) fn relocate(&self, id: ChunkId, plaintext: &[u8], from: &HashSet<PackSeq>) -> Result<Moved, StoreError> {
        let mut sealed = Vec::with_capacity(plaintext.len() + SEAL_OVERHEAD);
        self.keys
            .seal(FrameId::Chunk(id), plaintext, &mut self.dice.clone(), &mut sealed);
        let mut gate = self.gate.lock();
        loop {
            if gate.stopped {
                return Err(stopped());
            }
            if !self.find(id)?.is_some_and(|place| from.contains(&place.seq)) {
                return Ok(Moved::Already);
            }
            if self.fits(&gate, sealed.len()) {
                break;
            }
            self.seal_gated(&mut gate, CutCause::Full)?;
        }
        if self.over_bound(sealed.len(), MOVE_RESERVE_PACKS * self.config.target_bytes) {
            return Ok(Moved::NoRoom);
        }
        self.append(&mut gate, id, &sealed)?;
        Ok(Moved::Appended)
    }

    /// Seals the open pack, or a new one, as a checkpoint, after what lives in these packs has moved.
    pub(crate) fn seal_checkpoint(&self, moved: &HashSet<PackSeq>) -> Result<Checkpoint, StoreError> {
        let mut gate = self.gate.lock();
        if gate.stopped {
            return Err(stopped());
        }
        if self.awaits_replacement(moved) {
            return Ok(Checkpoint::Later);
        }
        match gate.pack.as_mut() {
            Some(pack) => pack.turn(PackKind::Checkpoint, self.ledger.checkpoint_bytes_max())?,
            None => gate.pack = Some(self.begin_as(PackKind::Checkpoint)?),
        }
        let sealed = self.seal_gated(&mut gate, CutCause::Checkpoint)?;
        Ok(sealed.map_or(Checkpoint::Nothing, Checkpoint::Sealed))
    }

    /// Visits every chunk that lives, see [`DeltaSource::live`](crate::DeltaSource::live). Submits wait meanwhile.
    pub(crate) fn live(&self, visit: &mut dyn FnMut(ChunkId)) -> Result<bool, StoreError> {
        let _gate = self.gate.lock();
        match self.source() {
            Some(source) => source.live(visit),
            None => Ok(false),
        }
    }

    /// The newest pack that a snapshot needs.
    pub(crate) fn pinned(&self) -> Option<PackSeq> {
        self.source().and_then(|source| source.pinned())
    }

    /// See [`DeltaSource::cached`](crate::DeltaSource::cached).
    pub(crate) fn cached(&self, wanted: &dyn Fn(ChunkId) -> bool, give: &mut ChunkSink<'_>) -> Result<(), StoreError> {
        match self.source() {
            Some(source) => source.cached(wanted, give),
            None => Ok(()),
        }
    }

    /// See [`DeltaSource::lost`](crate::DeltaSource::lost).
    pub(crate) fn tell_lost(&self, chunks: &HashSet<ChunkId>) -> Result<(), StoreError> {
        match self.source() {
            Some(source) => source.lost(chunks),
            None => Ok(()),
        }
    }
}
