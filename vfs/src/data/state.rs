//! What is known in memory about the content of a live inode: its chunks, ahead of the store or not.
//!
//! A chunk has two states: as it is (`now`), and as the store has it (`journaled`). They may differ for a moment, so that a
//! stream of small writes costs few batches. [`stage`](DataState::stage) brings the store's to what is.
//!
//! One rule orders them: what the store says must never promise less than it promised before. A chunk that was fetched or
//! replaced as a whole counts in the store as *absent, ask the network* until its bytes in the backing file are durable
//! (`unsynced`). So a power cut gives back the old content or the new, never neither.

use super::logged::Logged;
use super::unsure::{self, Unsure};
use super::untold::Untold;
use crate::core::Core;
use crate::error::VfsError;
use crate::limits::{EXTENTS_CACHED_MAX, PENDING_BYTES_MAX, PENDING_CHUNKS_MAX, UNSYNCED_CHUNKS_MAX};
use crate::records::{self, BlockMap, Extent, InodeRecord};
use cessfs_sync::Batch;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// First byte of the keys that name dirty chunks.
pub(crate) const DIRTY_PREFIX: &[u8] = b"w";
/// First bytes of the keys that note: this file's `b` record is kept until the copy in its backing file is durable.
pub(crate) const SPILL_PREFIX: &[u8] = b"sspill";

/// First bytes of the keys that keep a record which was outgrown, for the network: an earlier pack has told it, and until one tells of
/// the file without it nobody shall find less. The value: the bytes.
pub(crate) const KEPT_PREFIX: &[u8] = b"skept";

/// Key of a record that is kept for the network.
pub(crate) fn kept_key(ino: u64) -> Vec<u8> {
    [KEPT_PREFIX, &ino.to_be_bytes()].concat()
}

/// First bytes of the keys that note how long a file was, at the least, before it was written where it had holes. Until a pack tells of
/// such a chunk it is a hole for the network, and must not be taken for one that lies behind the end. The value: the
/// generation of marks (8) and the size (8), little endian.
pub(crate) const HOLED_PREFIX: &[u8] = b"sholed";

/// Key of the note that a file was written where it had holes.
pub(crate) fn holed_key(ino: u64) -> Vec<u8> {
    [HOLED_PREFIX, &ino.to_be_bytes()].concat()
}

/// Its value.
pub(crate) fn encode_holed(generation: u64, size: u64) -> Vec<u8> {
    [generation.to_le_bytes(), size.to_le_bytes()].concat()
}

/// Generation and size; `None` for anything else.
pub(crate) fn decode_holed(value: &[u8]) -> Option<(u64, u64)> {
    let (generation, size) = value.split_first_chunk::<8>()?;
    let size = size.try_into().ok()?;
    Some((u64::from_le_bytes(*generation), u64::from_le_bytes(size)))
}

/// Key of the note that a chunk is dirty.
pub(crate) fn dirty_key(ino: u64, chunk: u64) -> Vec<u8> {
    let mut key = records::extent_key(ino, chunk);
    key[..1].copy_from_slice(DIRTY_PREFIX);
    key
}

/// Key of the note that a file has outgrown its `b` record.
pub(crate) fn spill_key(ino: u64) -> Vec<u8> {
    [SPILL_PREFIX, &ino.to_be_bytes()].concat()
}

/// The state of a live inode's content in memory.
#[derive(Debug, Default)]
pub struct DataState {
    /// Readers look chunks up while they share the inode's lock: a lock of its own, never held while another is taken.
    pub(crate) chunks: Mutex<ChunkCache>,
    pub(crate) cursor: Mutex<ReadCursor>,
    /// Size, times or chunks are ahead of the store.
    pub(crate) ahead: Option<Ahead>,
    /// Content that came without times, where whoever writes tells them.
    pub(crate) untold: Untold,
    /// Changes of content so far: the clock that `unsynced` is measured with. See [`last_change`](DataState::last_change).
    changes: u64,
    /// Changes up to this one are durable in the backing file.
    pub(crate) synced: u64,
    /// The change up to which the sync covers that began last.
    covered: AtomicU64,
    /// The store has, or may have, a note of [unsure] blocks.
    unsure_noted: AtomicBool,
    /// Changes of what the store says of size and chunks, made or to be made.
    told: u64,
    /// Those up to this one passed a barrier.
    promised: u64,
    /// The file outgrew its `b` record, which stays until this change is durable.
    pub(crate) spill: Option<Spill>,
    /// Blocks of which the store has copies.
    pub(crate) logged: Logged,
    /// What was written could not be made durable: every later fsync fails, and nothing that needs a sync is journaled.
    pub(crate) failure: Option<VfsError>,
    /// Others read and write the backing file.
    pub(crate) pass: Option<super::passthrough::Pass>,
    /// All of the file is here, and the backing file holds nothing else: holes are holes, and what is cut off is zeros.
    pub(crate) exact: bool,
    /// The directory a file was made in, until it is closed for the first time; 0: not made since this mount.
    pub(crate) born_in: u64,
}

/// Since when and by how much an inode is ahead of the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead {
    pub(crate) since: Duration,
    pub(crate) bytes: u64,
}

/// A file that has outgrown its `b` record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spill {
    pub(crate) change: u64,
    /// The store has the note.
    pub(crate) noted: bool,
    /// It was empty, so there is no such record.
    pub(crate) of_nothing: bool,
}

/// Where a reader will go on if it is a sequential one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadCursor {
    pub(crate) next: u64,
    pub(crate) streak: u32,
    /// Chunks below this were hinted at.
    pub(crate) hinted: u64,
}

/// Chunks of one inode, least recently used ones dropped.
#[derive(Debug, Default)]
pub(crate) struct ChunkCache {
    slots: HashMap<u64, Slot>,
    tick: u64,
}

/// A chunk in memory. A hole is `Extent::default()`: no record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    pub(crate) now: Extent,
    /// As the store has it.
    pub(crate) journaled: Extent,
    /// The change that brought the bytes the store must not speak of before they are durable.
    pub(crate) unsynced: Option<u64>,
    /// Blocks that a power cut may give back as they were before they were cut off or punched out.
    pub(crate) unsure: Unsure,
    /// The delta has to carry the chunk, and the store does not know yet.
    pub(crate) needs_mark: bool,
    /// Generation of the mark the store has.
    pub(crate) marked: u64,
    /// The last change of its content.
    pub(crate) changed: u64,
    used: u64,
}

impl Slot {
    /// A change now has to be marked when it is journaled. A mark of this generation is not enough if the store calls the
    /// chunk clean: a cut before the journal hears of the change would carry the chunk as it was and clear the mark. A
    /// chunk it calls dirty is marked again by the cut itself.
    pub(crate) fn lacks_mark(&self, generation: u64) -> bool {
        self.marked != generation || !self.journaled.dirty
    }

    fn awaits_sync(&self) -> bool {
        self.unsynced.is_some() || !self.unsure.is_empty()
    }

    fn is_ahead(&self) -> bool {
        self.needs_mark || self.now != self.journaled
    }
}

/// What a batch brings the store to, to be told to [`DataState::staged`] once it is committed.
pub(crate) struct Staged {
    chunks: Vec<(u64, Extent)>,
    generation: u64,
    spill_noted: bool,
    any_unsure: bool,
}

impl Staged {
    /// Dirty chunks of which the network has nothing, ascending.
    pub(crate) fn untold(&self) -> impl Iterator<Item = u64> {
        let untold = self.chunks.iter().filter(|(_, now)| now.dirty && now.stored.is_none());
        untold.map(|(chunk, _)| *chunk)
    }

    /// A chunk is in the batch.
    pub(crate) fn tells_of_chunks(&self) -> bool {
        !self.chunks.is_empty()
    }
}

impl ChunkCache {
    pub(crate) fn get_mut(&mut self, chunk: u64) -> Option<&mut Slot> {
        self.tick += 1;
        let slot = self.slots.get_mut(&chunk)?;
        slot.used = self.tick;
        Some(slot)
    }

    fn insert(&mut self, chunk: u64, slot: Slot) -> &mut Slot {
        if self.slots.len() >= 2 * EXTENTS_CACHED_MAX {
            self.shrink();
        }
        self.tick += 1;
        let entry = self.slots.entry(chunk).or_insert(slot);
        entry.used = self.tick;
        entry
    }

    /// Drops all but the most recently used half of what may be dropped.
    fn shrink(&mut self) {
        let settled = |slot: &Slot| !slot.is_ahead() && !slot.awaits_sync();
        let mut ages: Vec<u64> = self
            .slots
            .values()
            .filter(|slot| settled(slot))
            .map(|slot| slot.used)
            .collect();
        if ages.len() <= EXTENTS_CACHED_MAX {
            return;
        }
        let keep = ages.len() - EXTENTS_CACHED_MAX;
        let (_, &mut oldest_kept, _) = ages.select_nth_unstable(keep);
        self.slots.retain(|_, slot| !settled(slot) || slot.used >= oldest_kept);
    }

    /// Blocks a power cut may give back as they were, by chunk, ascending.
    fn unsure(&self) -> Vec<(u64, BlockMap)> {
        let unsure = |(&chunk, slot): (&u64, &Slot)| (!slot.unsure.is_empty()).then(|| (chunk, slot.unsure.blocks()));
        let mut found: Vec<_> = self.slots.iter().filter_map(unsure).collect();
        found.sort_unstable_by_key(|(chunk, _)| *chunk);
        found
    }

    /// Forgets the chunks from `first` on: they are no more.
    pub(crate) fn forget_from(&mut self, first: u64) {
        self.slots.retain(|&chunk, _| chunk < first);
    }

    /// Chunks in memory from `first` on.
    pub(crate) fn numbers_from(&self, first: u64) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.slots.keys().copied().filter(|&chunk| chunk >= first).collect();
        numbers.sort_unstable();
        numbers
    }

    /// The chunk if it is in memory, without counting that as a use; and when it was used last.
    pub(crate) fn peek(&self, chunk: u64) -> Option<(Extent, u64)> {
        self.slots.get(&chunk).map(|slot| (slot.now, slot.used))
    }
}

impl DataState {
    /// The chunk as it is. Reads the store if it must.
    pub(crate) fn extent(&self, core: &Core, ino: u64, chunk: u64) -> Result<Extent, VfsError> {
        self.with_slot(core, ino, chunk, |slot| slot.now)
    }

    /// Looks at or changes one chunk.
    pub(crate) fn with_slot<R>(
        &self,
        core: &Core,
        ino: u64,
        chunk: u64,
        then: impl FnOnce(&mut Slot) -> R,
    ) -> Result<R, VfsError> {
        if let Some(slot) = self.chunks.lock().get_mut(chunk) {
            return Ok(then(slot));
        }
        let journaled = match core.store.get(&records::extent_key(ino, chunk))? {
            Some(value) => Extent::decode(&value)?,
            None => Extent::default(),
        };
        let slot = Slot {
            now: journaled,
            journaled,
            changed: self.last_change(),
            ..Slot::default()
        };
        // Nobody changes the record without the inode's exclusive lock, so what another reader inserted is the same.
        Ok(then(self.chunks.lock().insert(chunk, slot)))
    }

    /// Nobody asks any more: takes the note of unsure blocks, if there may be one.
    pub(super) fn drop_unsure(&self, ino: u64, batch: &mut Batch) {
        if self.unsure_noted.swap(false, Ordering::Relaxed) {
            batch.delete(unsure::note_key(ino));
        }
    }

    /// Counts a change of content.
    pub(crate) fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.exact = false;
        self.last_change()
    }

    /// The last change of content. Never 0: what happened before this state was in memory counts as change 1, which is not
    /// known to be durable before the first sync.
    pub(crate) fn last_change(&self) -> u64 {
        self.changes + 1
    }

    /// A sync of the backing file begins: tells up to which change it covers, to be told to
    /// [`set_synced`](DataState::set_synced) when it has succeeded.
    pub(crate) fn begin_sync(&self) -> u64 {
        let change = self.last_change();
        self.covered.fetch_max(change, Ordering::Relaxed);
        change
    }

    /// Notes that a power cut may give back what these blocks of a chunk held before, until `change` is durable.
    pub(crate) fn set_unsure(&self, slot: &mut Slot, change: u64, blocks: &BlockMap) {
        slot.unsure.add(change, self.covered.load(Ordering::Relaxed), blocks);
    }

    /// Notes that the store says, or will say, something else of size or chunks.
    pub(crate) fn will_tell(&mut self) {
        self.told += 1;
    }

    /// The last of those changes. Never 0: what happened before this state was in memory is not known to be durable.
    pub(crate) fn told(&self) -> u64 {
        self.told + 1
    }

    /// Those changes up to `told` passed a barrier.
    pub(crate) fn set_promised(&mut self, told: u64) {
        self.promised = self.promised.max(told);
    }

    /// Everything the store has to know to find the content again passed a barrier: only the content itself has to be made
    /// durable. Times may be ahead.
    pub(crate) fn is_promised(&self) -> bool {
        self.promised == self.told() && !self.needs_sync() && !self.chunks.lock().slots.values().any(Slot::is_ahead)
    }

    /// Notes that the inode is ahead of the store.
    pub(crate) fn set_ahead(&mut self, now: Duration, bytes: u64) {
        let ahead = self.ahead.get_or_insert(Ahead { since: now, bytes: 0 });
        ahead.bytes += bytes;
    }

    /// Too much is ahead of the store to wait any longer.
    pub(crate) fn must_journal(&self, now: Duration) -> bool {
        let Some(ahead) = self.ahead else { return false };
        ahead.bytes >= PENDING_BYTES_MAX
            || now.saturating_sub(ahead.since) >= crate::limits::PENDING_AGE_MAX
            || self.chunks.lock().slots.values().filter(|slot| slot.is_ahead()).count() >= PENDING_CHUNKS_MAX
    }

    /// Too many chunks wait for a sync.
    pub(crate) fn must_sync(&self) -> bool {
        self.unsynced_chunks() >= UNSYNCED_CHUNKS_MAX
    }

    fn unsynced_chunks(&self) -> usize {
        self.chunks
            .lock()
            .slots
            .values()
            .filter(|slot| slot.awaits_sync())
            .count()
    }

    /// Something waits for a sync.
    pub(crate) fn needs_sync(&self) -> bool {
        self.spill.is_some() || self.has_order()
    }

    /// Something has to be durable in the backing file before the store may say what is.
    pub(crate) fn has_order(&self) -> bool {
        let keeps = |spill: Spill| !spill.of_nothing;
        self.spill.is_some_and(keeps) || self.unsure_noted.load(Ordering::Relaxed) || self.unsynced_chunks() > 0
    }

    /// Nothing is ahead of the store or waits for a sync: the state may be dropped.
    pub(crate) fn is_settled(&self) -> bool {
        self.ahead.is_none()
            && self.failure.is_none()
            && self.logged.is_empty()
            && !self.needs_sync()
            && !self.chunks.lock().slots.values().any(Slot::is_ahead)
    }

    /// Changes up to `change` are durable.
    pub(crate) fn set_synced(&mut self, change: u64) {
        self.synced = self.synced.max(change);
        for slot in self.chunks.lock().slots.values_mut() {
            if slot.unsynced.is_some_and(|since| since <= change) {
                slot.unsynced = None;
            }
            slot.unsure.settle(change);
        }
    }

    /// Adds the inode's record to a batch with what [`stage`](DataState::stage) adds: it counts the blocks that the store has then.
    pub(crate) fn put_record(&self, core: &Core, ino: u64, record: &InodeRecord, batch: &mut Batch) {
        core.put_inode_with(batch, ino, record, self.journaled_blocks(record.blocks));
    }

    /// Blocks of the inode without what waits for a sync, of `now` with it: the store has those chunks as they were.
    fn journaled_blocks(&self, now: u64) -> u64 {
        let cache = self.chunks.lock();
        let waiting = cache.slots.values().filter(|slot| slot.unsynced.is_some());
        let (ahead, journaled) = waiting.fold((0, 0), |(ahead, journaled), slot| {
            (ahead + slot.now.allocated(), journaled + slot.journaled.allocated())
        });
        (now + journaled).saturating_sub(ahead)
    }

    /// Adds to `batch` every chunk that is ahead of the store and may be journaled. Where there is any, the inode's record
    /// has to go with it. After the commit, still holding the inode's lock, the caller calls [`staged`](DataState::staged).
    pub(crate) fn stage(&self, core: &Core, ino: u64, batch: &mut Batch) -> Staged {
        let generation = core.marks.generation();
        let cache = self.chunks.lock();
        let mut chunks: Vec<(u64, Slot)> = cache
            .slots
            .iter()
            .filter(|(_, slot)| slot.is_ahead() && slot.unsynced.is_none())
            .map(|(&chunk, slot)| (chunk, slot.clone()))
            .collect();
        let unsure = cache.unsure();
        drop(cache);
        chunks.sort_unstable_by_key(|(chunk, _)| *chunk);
        for (chunk, slot) in &chunks {
            let key = records::extent_key(ino, *chunk);
            if slot.needs_mark {
                core.marks.mark(batch, &key);
            }
            put_extent(batch, ino, *chunk, &slot.journaled, &slot.now);
            // A batch that cut the chunk may have deleted its note since `journaled` was true.
            match (slot.needs_mark, slot.now.dirty) {
                (true, true) => batch.put(dirty_key(ino, *chunk), records::encode_counter(0)),
                // Nor does `journaled` tell of one that went with somebody else's batch.
                (true, false) => batch.delete(dirty_key(ino, *chunk)),
                (false, _) => {}
            }
        }
        let spill_noted = self.spill.is_some_and(|spill| !spill.noted);
        if spill_noted {
            batch.put(spill_key(ino), records::encode_counter(0));
        }
        if !unsure.is_empty() {
            self.unsure_noted.store(true, Ordering::Relaxed);
            batch.put(unsure::note_key(ino), unsure::encode(&core.config.boot, &unsure));
        } else if self.unsure_noted.load(Ordering::Relaxed) {
            batch.delete(unsure::note_key(ino));
        }
        Staged {
            any_unsure: !unsure.is_empty(),
            chunks: chunks.into_iter().map(|(chunk, slot)| (chunk, slot.now)).collect(),
            generation,
            spill_noted,
        }
    }

    /// The batch that was staged is in the store.
    pub(crate) fn staged(&mut self, staged: Staged) {
        if !staged.chunks.is_empty() || staged.spill_noted {
            self.will_tell();
        }
        let mut cache = self.chunks.lock();
        for (chunk, now) in staged.chunks {
            let Some(slot) = cache.slots.get_mut(&chunk) else {
                continue;
            };
            slot.journaled = now;
            if std::mem::take(&mut slot.needs_mark) {
                slot.marked = staged.generation;
            }
        }
        drop(cache);
        self.unsure_noted.fetch_and(staged.any_unsure, Ordering::Relaxed);
        self.ahead = None;
        if let (true, Some(spill)) = (staged.spill_noted, &mut self.spill) {
            spill.noted = true;
        }
    }
}

/// Adds a chunk's record to `batch`, and the note that it is dirty, or that it no longer is.
pub(crate) fn put_extent(batch: &mut Batch, ino: u64, chunk: u64, journaled: &Extent, now: &Extent) {
    let key = records::extent_key(ino, chunk);
    if *now == Extent::default() {
        batch.delete(key);
    } else {
        batch.put(key, now.encode());
    }
    match (journaled.dirty, now.dirty) {
        (false, true) => batch.put(dirty_key(ino, chunk), records::encode_counter(0)),
        (true, false) => batch.delete(dirty_key(ino, chunk)),
        _ => {}
    }
}
