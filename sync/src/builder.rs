//! The pack builder: chunks in, sealed packs out.
//!
//! One pack is open at a time. `submit` appends sealed chunk frames to its staging file; when it is full, aged or asked for,
//! it is *sealed*: the metadata delta is cut into it, directory, pad and footer follow, the file is made durable, and one
//! atomic batch journals the pack, where its chunks lie, and what the delta's source wants to say about it.
//!
//! **Locks.** The gate is held for each append and for the whole of sealing. So no submit is in flight while
//! [`DeltaSource::cut`] runs, and a chunk whose standing is `Open` during a cut is in the pack being cut (I3). Standings,
//! noted changes and the backlog take other locks, for moments only, and may be asked from inside the cut or by whomever it
//! waits for. In return: whoever calls `submit` must hold no lock that its `cut`, `sealed`, `abandoned` or `pending` take,
//! and none of these may call `submit`.

mod moving;
mod open_pack;
mod sealer;

pub(crate) use sealer::run_sealer;

use crate::chain::Territory;
use crate::chunk_store::{Backlog, CutCause, DeltaSource, NetworkRoom, Standing, TerritoryRoom};
use crate::clock::Clock;
use crate::dice::Dice;
use crate::ledger::{Blocked, Column, Ledger, PackRecord, PackState, Place, stopped};
use crate::limits::{CHARGE_FACTOR, CHUNK_BYTES, COLUMNS, segment_bytes};
use crate::pack::{FOOTER_SEALED_BYTES, directory_sealed_bytes};
use crate::stages;
use crate::staging::Staging;
use crate::store::{Batch, StoreError};
use cessfs_crypto::{ChunkId, FrameId, LabelKey, PackKind, PackLabel, PackSeq, SEAL_OVERHEAD, VolumeKeys};
pub(crate) use moving::{Checkpoint, Moved};
use open_pack::OpenPack;
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// What the builder is told once.
pub(crate) struct BuilderConfig {
    pub(crate) territory: String,
    pub(crate) target_bytes: u64,
    /// As far as a pack goes on while an earlier one waits to be declared.
    pub(crate) bytes_max: u64,
    /// Sealed bytes of the directory at which a pack is full.
    pub(crate) directory_bytes_max: u64,
    pub(crate) age_max: Duration,
    pub(crate) backlog_bound_bytes: u64,
}

pub(crate) struct Builder {
    pub(crate) config: BuilderConfig,
    pub(crate) keys: VolumeKeys,
    pub(crate) labels: LabelKey,
    pub(crate) dice: Dice,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) staging: Staging,
    may_wait: bool,
    source: RwLock<Option<Arc<dyn DeltaSource>>>,
    gate: Mutex<Gate>,
    /// When metadata first changed since the last sealing. Not behind the gate: see `note_change`.
    changed_at: Mutex<Option<Duration>>,
    /// Bytes of the open pack; changed under the gate, read without it.
    open_bytes: AtomicU64,
    /// Chunks of the open pack.
    open: RwLock<HashMap<ChunkId, Place>>,
    /// Of these the ones that lie in a doubtful pack, too; and those of a pack that was thrown away since, until they come again.
    resent: Mutex<HashSet<ChunkId>>,
    /// Doubted packs of which something is nowhere to be had: nothing waits until it is.
    left_behind: Mutex<HashSet<PackSeq>>,
    /// Bytes of the territory as they were heard last: in all and free.
    territory: Mutex<Option<(u128, u128)>>,
    /// Signalled when the gate's state may let a waiting submit pass.
    room: Condvar,
    /// Wakes the sealer.
    wake: Notify,
}

#[derive(Default)]
struct Gate {
    pack: Option<OpenPack>,
    /// A submit found no room: the pack is to be sealed now.
    full: bool,
    /// Bytes kept free for the delta, as last estimated by its source.
    delta_reserve: u64,
    stopped: bool,
}

/// The parts a builder is made of; see [`Builder`].
pub(crate) struct BuilderParts {
    pub(crate) config: BuilderConfig,
    pub(crate) keys: VolumeKeys,
    pub(crate) labels: LabelKey,
    pub(crate) dice: Dice,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) staging: Staging,
    /// Another thread seals and confirms while `submit` waits; else it seals itself, and fails at the backlog's bound.
    pub(crate) may_wait: bool,
}

impl Builder {
    pub(crate) fn new(parts: BuilderParts) -> Builder {
        Builder {
            config: parts.config,
            keys: parts.keys,
            labels: parts.labels,
            dice: parts.dice,
            clock: parts.clock,
            ledger: parts.ledger,
            staging: parts.staging,
            may_wait: parts.may_wait,
            source: RwLock::default(),
            gate: Mutex::default(),
            changed_at: Mutex::default(),
            open_bytes: AtomicU64::new(0),
            open: RwLock::default(),
            resent: Mutex::default(),
            left_behind: Mutex::default(),
            territory: Mutex::default(),
            room: Condvar::new(),
            wake: Notify::new(),
        }
    }

    pub(crate) fn attach(&self, source: Arc<dyn DeltaSource>) {
        *self.source.write() = Some(source);
    }

    fn source(&self) -> Option<Arc<dyn DeltaSource>> {
        self.source.read().clone()
    }

    /// Where a chunk lies: in the open pack, or in one that was sealed.
    pub(crate) fn find(&self, id: ChunkId) -> Result<Option<Place>, StoreError> {
        if let Some(place) = self.open.read().get(&id) {
            return Ok(Some(*place));
        }
        self.ledger.locate(id)
    }

    /// The truth at this instant. `Open` means: in the pack that takes appends, or that is being cut.
    pub(crate) fn standing(&self, id: ChunkId) -> Result<Standing, StoreError> {
        if self.open.read().contains_key(&id) {
            return Ok(Standing::Open);
        }
        if self.resent.lock().contains(&id) {
            return Ok(Standing::Unknown);
        }
        self.ledger.standing(id)
    }

    /// The chunk need not be brought again.
    fn is_known(&self, id: ChunkId) -> Result<bool, StoreError> {
        let standing = self.standing(id)?;
        Ok(standing == Standing::Open || standing > Standing::Unknown && !self.ledger.is_doubtful(id)?)
    }

    /// See [`crate::ChunkStore::submit`].
    pub(crate) fn submit(&self, id: ChunkId, plaintext: &[u8]) -> Result<(), StoreError> {
        assert!((1..=CHUNK_BYTES).contains(&plaintext.len()), "a chunk has 1..=1 MiB");
        if self.is_known(id)? {
            return Ok(());
        }
        let mut sealed = Vec::with_capacity(plaintext.len() + SEAL_OVERHEAD);
        let span = stages::SEAL_CHUNK.enter();
        self.keys
            .seal(FrameId::Chunk(id), plaintext, &mut self.dice.clone(), &mut sealed);
        drop(span);
        let waiting = stages::PACK_WAIT.enter();
        let mut gate = self.gate.lock();
        loop {
            if gate.stopped {
                return Err(stopped());
            }
            // Asked again: another thread may have brought it while this one sealed or waited.
            if self.is_known(id)? {
                return Ok(());
            }
            let full = !self.fits(&gate, sealed.len());
            if full {
                gate.full = true;
                self.wake.notify_one();
            } else if !self.over_bound(sealed.len(), 0) {
                break;
            }
            match self.may_wait {
                true => self.room.wait(&mut gate),
                // There is no other thread that could seal, or see a pack confirmed.
                false if full => drop(self.seal_gated(&mut gate, CutCause::Full)?),
                false => return Err(StoreError::Full),
            }
        }
        drop(waiting);
        let _span = stages::PACK_APPEND.enter();
        self.append(&mut gate, id, &sealed)
    }

    /// Whether a frame fits the open pack with the delta, the directory and the footer still to come. The first always does.
    fn fits(&self, gate: &Gate, frame_bytes: usize) -> bool {
        let Some(pack) = gate.pack.as_ref().filter(|pack| !pack.chunks.is_empty()) else {
            return true;
        };
        let directory = directory_sealed_bytes(pack.chunks.len() as u64 + 1, 1);
        if directory > self.config.directory_bytes_max {
            return false;
        }
        // A delta larger than half a pack grows the pack by segments; it must not starve the chunks.
        let delta = (gate.delta_reserve + pack.reserve).min(self.config.target_bytes / 2);
        let bytes = pack.len + frame_bytes as u64 + delta + directory + FOOTER_SEALED_BYTES as u64;
        bytes <= self.config.target_bytes || bytes <= self.config.bytes_max && self.ledger.is_one_undeclared()
    }

    fn over_bound(&self, frame_bytes: usize, reserve_bytes: u64) -> bool {
        self.unsent_bytes() + frame_bytes as u64 > self.config.backlog_bound_bytes + reserve_bytes
    }

    fn unsent_bytes(&self) -> u64 {
        self.ledger.unsent_bytes() + self.open_bytes.load(Ordering::Relaxed)
    }

    fn append(&self, gate: &mut Gate, id: ChunkId, sealed: &[u8]) -> Result<(), StoreError> {
        if gate.pack.is_none() {
            gate.pack = Some(self.begin()?);
        }
        let left = self.left_for(id)?;
        let pack = gate.pack.as_mut().expect("filled just above");
        let entry = pack.append_chunk(id, sealed)?;
        pack.stands_for = pack.stands_for.into_iter().chain(left).min();
        if self.ledger.is_doubtful(id)? {
            self.resent.lock().insert(id);
        }
        self.open.write().insert(id, Place::new(pack.seq, &entry));
        self.open_bytes.store(pack.len, Ordering::Relaxed);
        Ok(())
    }

    /// The lowest pack that a snapshot may name this chunk in, if it lies in one already: that one drains, or is doubted or lost. From
    /// the moment on that this pack is sealed its place is here, for snapshots that were sealed before it, too.
    fn left_for(&self, id: ChunkId) -> Result<Option<PackSeq>, StoreError> {
        let place = self.ledger.locate(id)?;
        let pack = place.and_then(|place| self.ledger.get(place.seq));
        Ok(pack
            .filter(|pack| pack.state != PackState::Gone)
            .map(|pack| pack.first()))
    }

    fn begin(&self) -> Result<OpenPack, StoreError> {
        let is_due = self.ledger.checkpoint_due() && !self.awaits_replacement(&HashSet::new());
        self.begin_as(match is_due {
            true => PackKind::Checkpoint,
            false => PackKind::Data,
        })
    }

    fn begin_as(&self, kind: PackKind) -> Result<OpenPack, StoreError> {
        let label = PackLabel {
            volume: self.keys.volume(),
            seq: self.ledger.take_seq(),
            epoch: self.ledger.epoch(),
            kind,
        };
        let mut pack = OpenPack::create(
            self.keys.clone(),
            self.dice.clone(),
            &self.staging,
            label,
            self.clock.monotonic(),
        )?;
        if label.kind == PackKind::Checkpoint {
            pack.reserve = self.ledger.checkpoint_bytes_max();
        }
        Ok(pack)
    }

    /// Remembers that metadata changed, so that the pack ages even if no chunk comes. Never waits for the gate: callers are
    /// in the middle of a change, and a cut, which holds the gate, may wait for just that change to end.
    pub(crate) fn note_change(&self) {
        let now = self.clock.monotonic();
        self.changed_at.lock().get_or_insert(now);
    }

    pub(crate) fn backlog(&self) -> Backlog {
        Backlog {
            unsent_bytes: self.unsent_bytes(),
            bound_bytes: self.config.backlog_bound_bytes,
        }
    }

    /// The territory was heard of.
    pub(crate) fn note_territory(&self, territory: &Territory) {
        *self.territory.lock() = Some((territory.total_bytes, territory.remaining_bytes));
        if let Err(error) = self.ledger.hear_territory(territory) {
            tracing::warn!(%error, "the journal does not take what was heard of the territory");
        }
    }

    /// See [`crate::ChunkStore::network_room`]. Every byte is charged [`CHARGE_FACTOR`] times.
    pub(crate) fn network_room(&self) -> NetworkRoom {
        let content = |charged: u128| u64::try_from(charged / u128::from(CHARGE_FACTOR)).unwrap_or(u64::MAX);
        let told = *self.territory.lock();
        let waits = |pack: &Arc<PackRecord>| matches!(pack.blocked, Some(Blocked::TerritoryFull(_)));
        NetworkRoom {
            territory: told.map(|(total, free)| TerritoryRoom {
                total_bytes: content(total),
                free_bytes: content(free).saturating_sub(self.unsent_bytes()),
            }),
            is_full: self.ledger.unconfirmed().iter().any(waits),
        }
    }

    /// Lets the sealer look again: a pack was declared, and the open one may have grown only because that took long.
    pub(crate) fn wake_sealer(&self) {
        self.wake.notify_one();
    }

    /// Lets waiting submits look again: a pack was confirmed.
    pub(crate) fn wake_submitters(&self) {
        let _gate = self.gate.lock();
        self.room.notify_all();
    }

    /// No more appends; waiting submits fail. Waits for a sealing under way.
    pub(crate) fn halt(&self) {
        let mut gate = self.gate.lock();
        gate.stopped = true;
        self.room.notify_all();
    }

    /// Halts, lets go of the delta's source and throws the open pack away: its chunks are still dirty at their owner.
    pub(crate) fn stop(&self) {
        self.halt();
        *self.source.write() = None;
        if let Some(pack) = self.gate.lock().pack.take() {
            self.throw_away(pack.seq);
        }
    }

    /// Why the open pack should be sealed now, if it should.
    fn due(&self, gate: &mut Gate) -> Option<CutCause> {
        let now = self.clock.monotonic();
        let pending = self.source().and_then(|source| source.pending());
        gate.delta_reserve = pending.map_or(0, |(_, bytes)| bytes + SEAL_OVERHEAD as u64);
        let old = |since: Option<Duration>| since.is_some_and(|since| now.saturating_sub(since) >= self.config.age_max);
        let delta_aged = pending.is_some_and(|(age, _)| age >= self.config.age_max);
        let content_aged = old(gate.pack.as_ref().map(|pack| pack.begun_at));
        let aged = delta_aged || content_aged || old(*self.changed_at.lock());
        if aged && self.has_room_for_another() {
            return Some(CutCause::Forced);
        }
        let grown = gate
            .pack
            .as_ref()
            .is_some_and(|pack| pack.len > self.config.target_bytes);
        (gate.full || grown && !self.ledger.is_one_undeclared()).then_some(CutCause::Full)
    }

    /// Whether the backlog stays within its bound if the open pack is sealed as it is. Beyond it an aged pack waits: it would
    /// only stand behind those before it, and cost its padding in space here and there.
    fn has_room_for_another(&self) -> bool {
        let segment = segment_bytes() as u64;
        let sealed = self.open_bytes.load(Ordering::Relaxed).max(1).next_multiple_of(segment);
        self.ledger.unsent_bytes() + sealed <= self.config.backlog_bound_bytes
    }

    /// Seals the open pack if it is full or aged. Blocks on the disk.
    pub(crate) fn seal_if_due(&self) -> Result<Option<PackSeq>, StoreError> {
        let mut gate = self.gate.lock();
        match self.due(&mut gate) {
            Some(cause) => self.seal_gated(&mut gate, cause),
            None => Ok(None),
        }
    }

    /// Seals the open pack with whatever delta is pending; `None` if there is neither chunk nor delta. Blocks on the disk.
    pub(crate) fn seal(&self, cause: CutCause) -> Result<Option<PackSeq>, StoreError> {
        self.seal_gated(&mut self.gate.lock(), cause)
    }

    fn seal_gated(&self, gate: &mut Gate, cause: CutCause) -> Result<Option<PackSeq>, StoreError> {
        if gate.stopped {
            return Err(stopped());
        }
        gate.full = false;
        *self.changed_at.lock() = None;
        let pending = self.source().is_some_and(|source| source.pending().is_some());
        let mut pack = match gate.pack.take() {
            Some(pack) => pack,
            None if pending => self.begin()?,
            None => return Ok(None),
        };
        let _span = stages::PACK_SEAL.enter();
        // Whoever has chunks in this pack has to hear that they are in none, whatever ends it.
        let finished = catch_unwind(AssertUnwindSafe(|| self.finish(&mut pack, cause)));
        let finished =
            finished.unwrap_or_else(|_| Err(StoreError::Corrupt("a mistake in cessfs, please report it".into())));
        let sealed = match finished {
            Ok(true) => self.journal(&pack).map(|()| Some(pack.seq)),
            unsealed => {
                if let Some(source) = self.source() {
                    source.abandoned(pack.seq);
                }
                self.throw_away(pack.seq);
                unsealed.map(|_| None)
            }
        };
        // After the journal, never before: in between, a chunk's standing would be Unknown.
        self.forget_open();
        self.room.notify_all();
        sealed
    }

    /// Cuts the delta and completes the body on disk; `false` if the pack would be empty.
    fn finish(&self, pack: &mut OpenPack, cause: CutCause) -> Result<bool, StoreError> {
        let is_unasked = pack.label.kind == PackKind::Checkpoint && cause != CutCause::Checkpoint;
        if is_unasked && self.awaits_replacement(&HashSet::new()) {
            pack.turn(PackKind::Data, 0)?;
        }
        if let Some(source) = self.source() {
            let cause = match pack.label.kind {
                PackKind::Data => cause,
                PackKind::Checkpoint => CutCause::Checkpoint,
            };
            source.cut(pack.seq, cause, &mut |frame| pack.append_delta(frame))?;
        }
        if pack.chunks.is_empty() && pack.deltas.is_empty() {
            return Ok(false);
        }
        pack.close(self.ledger.head(), self.clock.wall().as_secs())?;
        self.staging.persist(pack.seq, &pack.file)?;
        Ok(true)
    }

    /// One batch: the pack, its chunks' places, and what the delta's source has to say. An error here leaves the journal
    /// poisoned, so the body stays: what is on disk decides at the next start.
    fn journal(&self, pack: &OpenPack) -> Result<(), StoreError> {
        let now_s = self.clock.wall().as_secs();
        let record = PackRecord {
            seq: pack.seq,
            kind: pack.label.kind,
            epoch: pack.label.epoch,
            segments: pack.segments(),
            chunks: pack.chunks.len() as u32,
            deltas: pack.deltas.len() as u32,
            delta_bytes: pack.delta_bytes(),
            label: self.labels.seal(&pack.label),
            territory: self.config.territory.clone(),
            state: PackState::Sealed,
            blocked: None,
            encoded: None,
            intent: None,
            columns: [Column::default(); COLUMNS],
            sealed_at_s: now_s,
            changed_at_s: now_s,
            drain: None,
            stands_for: pack.stands_for,
            beside: false,
        };
        let mut batch = Batch::new();
        for entry in &pack.chunks {
            batch.put(Place::key(entry.id), Place::new(pack.seq, entry).encode());
        }
        if let Some(source) = self.source() {
            source.sealed(pack.seq, &mut batch);
        }
        self.ledger.insert(record, batch)?;
        // What was sent again because of a doubtful pack lies in this one now.
        let mut resent = self.resent.lock();
        for entry in &pack.chunks {
            resent.remove(&entry.id);
        }
        Ok(())
    }

    fn forget_open(&self) {
        self.open.write().clear();
        self.open_bytes.store(0, Ordering::Relaxed);
    }

    fn throw_away(&self, seq: PackSeq) {
        self.forget_open();
        if let Err(error) = self.staging.remove(seq) {
            // Harmless: the sweep at the next start knows no pack by this number.
            tracing::warn!(seq = seq.0, %error, "staging file of an abandoned pack stays");
        }
    }
}
