//! Change marks: which records the next metadata delta has to carry.
//!
//! | key | value |
//! |---|---|
//! | `m` generation key | one byte: 1 if the record did not exist when it was marked first, else 0 |
//! | `v` key | while a cut is being written: the record as it was at the instant of the cut (0, or 1 and the value) |
//!
//! Marks carry a generation, which moves on at the instant of a cut. So a change that happens while the pack is being
//! sealed leaves a mark of its own, and clearing the marks of a sealed cut can never lose it.
//!
//! Marks that a sealed delta carried may be millions. They are not deleted with the pack's record: one number says up to which
//! generation marks no longer count ([`CLEARED_KEY`]), and housekeeping deletes those page by page.
//!
//! A cut has to see all records at one instant, but nobody may stop while thousands of records are read. So the gate is
//! closed only to move the generation on. From then until the cut is written, the first change of a record saves the old
//! value beside the new one in the same batch; the cut reads the saved value where there is one.

use super::freeze::Freeze;
use cessfs_sync::{Batch, ChunkStore, Clock, MetaStore, StoreError};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::{DELTA_RECORD_BYTES, MARKS_COUNTED_MAX, SCAN_PAGE, SWEEP_PAGE};
use crate::records::{MARK_PREFIX, RecordError, decode_pair, encode_pair};

mod tried;

use tried::Tried;

/// First byte of the keys of saved values.
pub(crate) const SAVED_PREFIX: &[u8] = b"v";

/// Key of the last generation whose marks no longer count (with a second number, 0).
pub(crate) const CLEARED_KEY: &[u8] = b"smarks-cleared";
/// Key of the generation and the number of marks at the last clean close. It goes in the batch that takes away the note of
/// that close, and is believed only by whoever takes it away: one that is left over knows nothing of later generations, and marks
/// made in a generation that was cleared already would never travel.
const TALLY_KEY: &[u8] = b"smarks-tally";

/// Held while a change computes and commits its batch.
pub type MutationGuard<'a> = RwLockReadGuard<'a, ()>;

/// Sees marks: generation, key, value.
type MarkVisitor<'a> = &'a mut dyn FnMut(u64, &[u8], &[u8]) -> Result<(), StoreError>;

/// Marks records as changed since the last sealed cut.
pub struct Marks {
    store: Arc<dyn MetaStore>,
    clock: Arc<dyn Clock>,
    chunks: Arc<dyn ChunkStore>,
    /// Shared by every change from before it reads what it changes until its batch is committed; exclusively held only to
    /// move the generation on.
    gate: RwLock<()>,
    /// While it is on, changes by users wait before the gate.
    freeze: Freeze,
    /// Generation of marks made now. Only written with the gate held exclusively.
    generation: AtomicU64,
    /// A cut is being written: first changes save the old value. Only written with the gate held exclusively.
    saving: AtomicBool,
    /// A value could not be saved: the running cut must fail.
    save_failed: AtomicBool,
    tally: Mutex<Tally>,
    /// Generation and number of marks that a clean close left, from [`take_tally`](Marks::take_tally) on.
    left: Mutex<Option<(u64, u64)>>,
    /// Marks of this generation that may be there.
    tried: Tried,
    /// Marks up to this generation no longer count, and marks up to that one are deleted.
    cleared: AtomicU64,
    swept: AtomicU64,
}

/// What is waiting for a delta.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Monotonic time of the oldest mark.
    oldest: Option<Duration>,
    records: u64,
    /// The same for what a cut took and no pack has sealed yet.
    taken: Option<(Duration, u64)>,
}

impl Marks {
    /// Marks in this store. Call [`open`](Marks::open) before the first change.
    pub fn new(store: Arc<dyn MetaStore>, clock: Arc<dyn Clock>, chunks: Arc<dyn ChunkStore>) -> Marks {
        Marks {
            store,
            clock,
            chunks,
            gate: RwLock::new(()),
            freeze: Freeze::default(),
            generation: AtomicU64::new(1),
            saving: AtomicBool::new(false),
            save_failed: AtomicBool::new(false),
            tally: Mutex::new(Tally::default()),
            left: Mutex::default(),
            tried: Tried::new(),
            cleared: AtomicU64::new(0),
            swept: AtomicU64::new(0),
        }
    }

    /// Finds the marks that an earlier mount left and drops what an interrupted cut had saved. A clean close has left their
    /// number; after a crash a rough one will do: they are counted up to [`MARKS_COUNTED_MAX`].
    pub fn open(&self) -> Result<(), StoreError> {
        self.drop_saved()?;
        if let Some(value) = self.store.get(CLEARED_KEY)? {
            let (cleared, _) = decode_pair(&value).map_err(damaged)?;
            self.cleared.store(cleared, Ordering::Release);
        }
        let left = self.left.lock().take();
        let (newest, records) = match left {
            Some(left) => left,
            None => self.survey()?,
        };
        // Packs may have been sealed after the close, too.
        let newest = newest.max(self.cleared.load(Ordering::Acquire));
        let _closed = self.gate.write();
        self.generation.store(newest + 1, Ordering::Release);
        self.tried.clear();
        let mut tally = self.tally.lock();
        tally.records = records;
        tally.oldest = (records > 0).then(|| self.clock.monotonic());
        Ok(())
    }

    /// The newest generation there is, and how many marks count, up to [`MARKS_COUNTED_MAX`].
    fn survey(&self) -> Result<(u64, u64), StoreError> {
        let cleared = self.cleared.load(Ordering::Acquire);
        let (mut newest, mut records) = (cleared, 0);
        let mut from = mark_key(cleared + 1, &[]);
        loop {
            let page = self.store.scan(MARK_PREFIX, &from, SWEEP_PAGE)?;
            let Some((last, _)) = page.last() else { break };
            newest = parse_mark(last)?.0;
            records += page.len() as u64;
            from.clone_from(last);
            from.push(0);
            if records >= MARKS_COUNTED_MAX {
                break;
            }
        }
        // Of the rest only the generations matter, of which there are few.
        while let Some((found, _)) = self.store.scan(MARK_PREFIX, &mark_key(newest + 1, &[]), 1)?.pop() {
            newest = parse_mark(&found)?.0;
        }
        Ok((newest, records))
    }

    /// Takes what a clean close left, for [`open`](Marks::open). It is deleted by the batch that takes away the note of the close.
    pub(crate) fn take_tally(&self, batch: &mut Batch) -> Result<(), StoreError> {
        let value = self.store.get(TALLY_KEY)?;
        *self.left.lock() = value.map(|value| decode_pair(&value).map_err(damaged)).transpose()?;
        batch.delete(TALLY_KEY);
        Ok(())
    }

    /// Adds the number of marks to the batch of a clean close.
    pub(crate) fn put_tally(&self, batch: &mut Batch) {
        let tally = self.tally.lock();
        let records = tally.records + tally.taken.map_or(0, |(_, records)| records);
        batch.put(TALLY_KEY, encode_pair(self.generation(), records));
    }

    /// Deletes a page of marks that no longer count; false if there are none left.
    pub(crate) fn sweep(&self) -> Result<bool, StoreError> {
        let cleared = self.cleared.load(Ordering::Acquire);
        if self.swept.load(Ordering::Relaxed) == cleared {
            return Ok(false);
        }
        let page = self.store.scan(MARK_PREFIX, MARK_PREFIX, SWEEP_PAGE)?;
        let mut batch = Batch::new();
        for (mark, _) in page {
            if parse_mark(&mark)?.0 > cleared {
                break;
            }
            batch.delete(mark);
        }
        if batch.is_empty() {
            self.swept.store(cleared, Ordering::Relaxed);
            return Ok(false);
        }
        self.store.commit(batch)?;
        Ok(true)
    }

    /// Opens a change: hold the guard from before reading what will be changed until the batch is committed.
    ///
    /// Taken before any inode's lock, and never twice by one thread: a cut waiting between the two would never end. Waits
    /// while a snapshot is being taken.
    pub fn enter(&self) -> MutationGuard<'_> {
        let _span = crate::stages::LOCK_MARKS.enter();
        loop {
            self.freeze.wait();
            let open = self.gate.read();
            // Asked again: a freeze may have begun, and waited for those inside, before this one was.
            if !self.freeze.is_on() {
                return open;
            }
        }
    }

    /// The same for what changes nothing that anybody could see (content that is handed on, records that catch up with memory):
    /// it goes on while a snapshot is being taken, and has to.
    pub(crate) fn enter_unseen(&self) -> MutationGuard<'_> {
        self.gate.read()
    }

    /// From now on, until [`thaw`](Marks::thaw), nobody changes anything. Returns when nobody is in the middle of a change.
    pub(crate) fn freeze(&self) {
        self.freeze.begin();
        drop(self.gate.write());
    }

    /// Changes go on.
    pub(crate) fn thaw(&self) {
        self.freeze.end();
    }

    /// Nobody has changed anything since [`freeze`](Marks::freeze).
    pub(crate) fn is_frozen(&self) -> bool {
        self.freeze.is_on()
    }

    /// Adds the mark of `key` to the batch that changes it (once per cut). The caller holds [`enter`](Marks::enter).
    pub fn mark(&self, batch: &mut Batch, key: &[u8]) {
        let mark = mark_key(self.generation(), key);
        if self.tried.insert(key) && matches!(self.store.get(&mark), Ok(Some(_))) {
            return;
        }
        // Whether the record is new only matters for inodes; what it was only while a cut is being written.
        let saving = self.saving.load(Ordering::Acquire);
        let mut is_new = false;
        if saving || key.starts_with(crate::records::INODE_PREFIX) {
            match self.store.get(key) {
                Ok(old) => {
                    is_new = old.is_none();
                    if saving {
                        batch.put(saved_key(key), encode_saved(old));
                    }
                }
                Err(_) => self.save_failed.store(true, Ordering::Release),
            }
        }
        batch.put(mark, vec![u8::from(is_new)]);
        self.count(1);
    }

    /// The same for a record under a key that never had one (a new inode's): nothing has to be looked up.
    pub fn mark_new(&self, batch: &mut Batch, key: &[u8]) {
        if self.saving.load(Ordering::Acquire) {
            batch.put(saved_key(key), encode_saved(None));
        }
        self.tried.insert(key);
        batch.put(mark_key(self.generation(), key), vec![1]);
        self.count(1);
    }

    /// Generation of marks made now; it only moves while nobody is inside [`enter`](Marks::enter).
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Age of the oldest mark and a rough size in bytes of all marked records; `None` without marks.
    pub(crate) fn pending(&self) -> Option<(Duration, u64)> {
        let tally = self.tally.lock();
        let (mut oldest, mut records) = (tally.oldest, tally.records);
        if let Some((taken_oldest, taken_records)) = tally.taken {
            oldest = Some(oldest.map_or(taken_oldest, |own| own.min(taken_oldest)));
            records += taken_records;
        }
        oldest.map(|since| {
            (
                self.clock.monotonic().saturating_sub(since),
                records * DELTA_RECORD_BYTES,
            )
        })
    }

    fn count(&self, records: u64) {
        let mut tally = self.tally.lock();
        tally.records += records;
        let first = records > 0 && tally.oldest.is_none();
        if first {
            tally.oldest = Some(self.clock.monotonic());
        }
        drop(tally);
        if first {
            self.chunks.note_change();
        }
    }

    /// The instant of a cut: runs `freeze` while no change is under way. Returns the last generation the cut takes.
    pub(super) fn begin_cut<R>(&self, freeze: impl FnOnce() -> R) -> (u64, R) {
        let _closed = self.gate.write();
        let until = self.generation.fetch_add(1, Ordering::AcqRel);
        let cleared = self.cleared.load(Ordering::Acquire);
        assert!(
            until > cleared,
            "marks of generation {until} would not count: {cleared} is cleared"
        );
        self.tried.clear();
        self.save_failed.store(false, Ordering::Release);
        self.saving.store(true, Ordering::Release);
        let mut tally = self.tally.lock();
        let (oldest, records) = (tally.oldest.take(), std::mem::take(&mut tally.records));
        tally.taken = match (tally.taken, oldest) {
            (None, None) => None,
            (Some(taken), None) => Some(taken),
            (None, Some(oldest)) => Some((oldest, records)),
            (Some((since, before)), Some(oldest)) => Some((since.min(oldest), before + records)),
        };
        drop(tally);
        (until, freeze())
    }

    /// The cut is written (or failed): nothing is saved any more. Fails if a value could not be saved meanwhile.
    pub(super) fn end_cut(&self) -> Result<(), StoreError> {
        {
            let _closed = self.gate.write();
            self.saving.store(false, Ordering::Release);
        }
        self.drop_saved()?;
        if self.save_failed.load(Ordering::Acquire) {
            return Err(StoreError::Corrupt(
                "a record could not be read while a delta was cut".into(),
            ));
        }
        Ok(())
    }

    /// The record as it was at the instant of the running cut.
    pub(super) fn value_at_cut(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        // In this order: if nothing is saved after the record was read, then what was read is what the cut saw.
        let current = self.store.get(key)?;
        match self.store.get(&saved_key(key))? {
            Some(saved) => decode_saved(saved),
            None => Ok(current),
        }
    }

    /// The record did not exist before the marks up to generation `until`: no sealed delta has carried it.
    pub(super) fn is_new(&self, until: u64, key: &[u8]) -> Result<bool, StoreError> {
        let mut from = self.first();
        while let Some((found, _)) = self.store.scan(MARK_PREFIX, &from, 1)?.pop() {
            let (generation, _) = parse_mark(&found)?;
            if generation > until {
                break;
            }
            if self
                .store
                .get(&mark_key(generation, key))?
                .is_some_and(|value| value == [1])
            {
                return Ok(true);
            }
            from = mark_key(generation + 1, &[]);
        }
        Ok(false)
    }

    /// The record did not exist at the instant of the last cut: no delta has carried it, and none that is being written will.
    pub(crate) fn is_new_since_the_last_cut(&self, key: &[u8]) -> Result<bool, StoreError> {
        let mark = self.store.get(&mark_key(self.generation(), key))?;
        Ok(mark.is_some_and(|value| value == [1]))
    }

    /// Where the marks that count begin.
    fn first(&self) -> Vec<u8> {
        mark_key(self.cleared.load(Ordering::Acquire) + 1, &[])
    }

    /// Visits the marks of all generations up to `until`: generation, key, value.
    pub(super) fn each(&self, until: u64, visit: MarkVisitor<'_>) -> Result<(), StoreError> {
        let mut from = self.first();
        loop {
            let page = self.store.scan(MARK_PREFIX, &from, SCAN_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
            for (mark, value) in &page {
                let (generation, key) = parse_mark(mark)?;
                if generation > until {
                    return Ok(());
                }
                visit(generation, key, value)?;
            }
        }
    }

    /// Visits the keys of all marks that count.
    pub(crate) fn each_pending(
        &self,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.each(u64::MAX, &mut |_, key, _| visit(key))
    }

    /// Marks `keys` again although nothing changed: the cut left them for the next one. If they are as old as they were
    /// (`aged`), the next may be due at once. After a cut that carried all there was to carry they are not: what they wait
    /// for is content, and another cut would find no more than this one did.
    pub(super) fn carry_over(&self, keys: &[Vec<u8>], aged: bool) -> Result<(), StoreError> {
        for page in keys.chunks(SCAN_PAGE) {
            let _open = self.enter_unseen();
            let mut batch = Batch::new();
            for key in page {
                let mark = mark_key(self.generation(), key);
                self.tried.insert(key);
                if self.store.get(&mark)?.is_none() {
                    batch.put(mark, vec![0]);
                }
            }
            let added = batch.ops.len() as u64;
            self.store.commit(batch)?;
            match aged {
                true => self.count_old(added),
                false => self.count(added),
            }
        }
        Ok(())
    }

    /// Counts records that have been waiting since before the running cut.
    fn count_old(&self, records: u64) {
        let mut tally = self.tally.lock();
        tally.records += records;
        if let (true, Some((since, _))) = (records > 0, tally.taken) {
            tally.oldest = Some(tally.oldest.map_or(since, |own| own.min(since)));
        }
    }

    /// Adds to `batch` that marks up to generation `until` no longer count: their delta is durable.
    pub(super) fn clear(&self, until: u64, batch: &mut Batch) {
        let cleared = self.cleared.fetch_max(until, Ordering::AcqRel).max(until);
        batch.put(CLEARED_KEY, encode_pair(cleared, 0));
        self.tally.lock().taken = None;
    }

    /// What the cut took is pending again.
    pub(super) fn give_back(&self) {
        let mut tally = self.tally.lock();
        if let Some((since, records)) = tally.taken.take() {
            tally.records += records;
            tally.oldest = Some(tally.oldest.map_or(since, |own| own.min(since)));
        }
    }

    fn drop_saved(&self) -> Result<(), StoreError> {
        loop {
            let page = self.store.scan(SAVED_PREFIX, SAVED_PREFIX, SCAN_PAGE)?;
            if page.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for (key, _) in page {
                batch.delete(key);
            }
            self.store.commit(batch)?;
        }
    }
}

fn damaged(error: RecordError) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

fn mark_key(generation: u64, key: &[u8]) -> Vec<u8> {
    let mut mark = Vec::with_capacity(MARK_PREFIX.len() + 8 + key.len());
    mark.extend_from_slice(MARK_PREFIX);
    mark.extend_from_slice(&generation.to_be_bytes());
    mark.extend_from_slice(key);
    mark
}

fn parse_mark(mark: &[u8]) -> Result<(u64, &[u8]), StoreError> {
    let (generation, key) = mark
        .get(MARK_PREFIX.len()..)
        .and_then(|rest| rest.split_first_chunk::<8>())
        .ok_or_else(|| StoreError::Corrupt("a change mark is too short".into()))?;
    Ok((u64::from_be_bytes(*generation), key))
}

fn saved_key(key: &[u8]) -> Vec<u8> {
    [SAVED_PREFIX, key].concat()
}

fn encode_saved(value: Option<Vec<u8>>) -> Vec<u8> {
    match value {
        None => vec![0],
        Some(mut value) => {
            value.insert(0, 1);
            value
        }
    }
}

fn decode_saved(mut saved: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
    match saved.first() {
        Some(0) if saved.len() == 1 => Ok(None),
        Some(1) => Ok(Some(saved.split_off(1))),
        _ => Err(StoreError::Corrupt("a saved record is malformed".into())),
    }
}
