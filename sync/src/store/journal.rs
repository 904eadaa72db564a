//! The write-behind journal: a [`Backend`] made into a [`MetaStore`].
//!
//! `commit` puts a batch into an ordered queue and into an overlay that every read looks at first, and returns: metadata
//! operations run at memory speed. What has queued up is merged into one record of a [write-ahead log](log), by a writer thread
//! soon afterwards or by whoever calls `barrier`, so that a crash always leaves a prefix of the committed batches. `barrier`
//! makes the log durable; callers that come together share one flush (group commit). The backend, the *table*, is brought up to
//! date behind the log, merged and in key order: when a segment of the log is full, when too much is in memory, after some time
//! without work, and at the end. The overlay has what the table does not have yet.
//!
//! Without a log (none was asked for, or the disk has no room) each merged batch goes to the backend at once, and `barrier`
//! flushes that.
//!
//! Memory is bounded: past [`JOURNAL_BEHIND_BYTES_MAX`] `commit` waits. After a failed write the journal is
//! poisoned: reads still answer, changes and barriers fail, because memory is then ahead of the disk. Where the write failed for want of
//! room, what was [set aside](crate::ballast) is given up first.
//!
//! Beside the backend lies a [mark](super::mark), so that a journal that fell behind what was once safe is seen to have.
//!
//! Values are sealed on their way down and opened on their way up when the volume seals what rests on disk.

mod log;
mod sealer;
mod table;
mod writer;

pub use self::log::LogSettings;
pub use self::sealer::Sealer;

use self::log::{Changes, Key, LOG_KEY, Log, LogState, Value};
use self::table::Table;
use self::writer::{Marking, Writer};
use super::mark::{MARK_KEY, Mark};
use super::{Backend, BarrierBegun, Batch, MetaStore, Record, StoreError};
use crate::ballast::Ballast;
use crate::limits::{
    JOURNAL_BEHIND_BYTES_MAX, JOURNAL_MERGE_BYTES_MAX, JOURNAL_OP_BYTES, JOURNAL_SCAN_PAGE_MIN, JOURNAL_SEGMENT_BYTES,
};
use crate::stages;
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

/// Keys taken out of the overlay at a time.
const UNCOVER_KEYS: usize = 64;

/// Changes of a range that wait for the table.
type WaitingRange = HashMap<Key, Value>;

/// A value that waits for the table, and the number of the batch that brought it. `None` is a deletion.
type Waiting = (u64, Value);

/// A batch that waits for the writer.
type Queued = Vec<(Key, Value)>;

#[derive(Default)]
struct Queue {
    batches: VecDeque<(u64, Queued)>,
    bytes: usize,
    /// Number of the last batch committed, written (to the log, or to the backend if there is none), and durable.
    committed: u64,
    written: u64,
    durable: u64,
    /// Highest batch number that the writer shall make durable.
    wanted: u64,
    /// The table lacks something, or has something that is not durable.
    behind: bool,
    failed: Option<StoreError>,
    stopping: bool,
    /// The writer sleeps until there is work.
    sleeps: bool,
}

struct Shared<B> {
    backend: B,
    sealer: Option<Sealer>,
    overlay: RwLock<BTreeMap<Key, Waiting>>,
    /// Memory that the overlay takes.
    overlay_bytes: AtomicUsize,
    queue: Mutex<Queue>,
    /// Held by whoever flushes; taken before `writer`.
    marking: Mutex<Option<Marking>>,
    /// Taken before `queue`, which is taken before `overlay`.
    writer: Mutex<Writer>,
    table: Table,
    /// Wakes the writer thread.
    work: Condvar,
    /// Wakes those who wait for room.
    done: Condvar,
    log_bytes: u64,
    ballast: Option<Arc<Ballast>>,
}

/// A [`MetaStore`] over a [`Backend`], write-behind with group commit.
pub struct Journal<B: Backend> {
    shared: Arc<Shared<B>>,
    threads: Vec<JoinHandle<()>>,
}

impl<B: Backend> Journal<B> {
    /// Starts the writer thread over `backend`, with neither a log nor a mark.
    ///
    /// # Errors
    /// `Io` if the system has no more threads.
    pub fn new(backend: B, sealer: Option<Sealer>) -> Result<Journal<B>, StoreError> {
        Journal::start(backend, sealer, None, None, None)
    }

    /// The same with a log and a mark in `dir`, and with what is set aside for a full disk; see [`logged`](Journal::logged).
    ///
    /// # Errors
    /// See [`logged`](Journal::logged).
    pub fn marked(
        backend: B,
        sealer: Option<Sealer>,
        dir: &Path,
        ballast: Option<Arc<Ballast>>,
    ) -> Result<Journal<B>, StoreError> {
        let settings = LogSettings {
            segment_bytes: JOURNAL_SEGMENT_BYTES,
            synced: true,
        };
        Journal::open(backend, sealer, dir, settings, ballast)
    }

    /// Whether the journal in `backend` rests sealed; `None` if its own record tells neither. `sealer` is the volume's.
    ///
    /// # Errors
    /// The backend cannot be read.
    pub fn is_sealed(backend: &B, sealer: &Sealer) -> Result<Option<bool>, StoreError> {
        let Some(stored) = backend.get(LOG_KEY)? else {
            return Ok(None);
        };
        let plain = LogState::decode(&stored).map(|_| false);
        Ok(plain.or_else(|| sealer.open(LOG_KEY, &stored).ok().map(|_| true)))
    }

    /// The same with a log as wanted. What the log has and the backend lacks is brought into the backend first.
    ///
    /// # Errors
    /// `Corrupt` if backend and log together are behind the mark: they have lost what was safe; then nothing was changed.
    pub fn logged(
        backend: B,
        sealer: Option<Sealer>,
        dir: &Path,
        settings: LogSettings,
    ) -> Result<Journal<B>, StoreError> {
        Journal::open(backend, sealer, dir, settings, None)
    }

    fn open(
        backend: B,
        sealer: Option<Sealer>,
        dir: &Path,
        settings: LogSettings,
        ballast: Option<Arc<Ballast>>,
    ) -> Result<Journal<B>, StoreError> {
        let mark = Mark::open(dir)?;
        let stored = |key| match (&sealer, backend.get(key)?) {
            (Some(sealer), Some(sealed)) => sealer.open(key, &sealed).map(Some),
            (_, stored) => Ok(stored),
        };
        let state = match stored(LOG_KEY)? {
            Some(bytes) => LogState::decode(&bytes).ok_or_else(|| StoreError::Corrupt("state of the log".into()))?,
            None => LogState::default(),
        };
        let replay = if state.in_use {
            Some(log::read(dir, &state, sealer.as_ref())?)
        } else {
            None
        };
        let replayed = replay
            .as_ref()
            .and_then(|replay| replay.changes.get(MARK_KEY))
            .cloned()
            .flatten();
        let number = match replayed.map(|bytes| bytes.to_vec()).or(stored(MARK_KEY)?) {
            Some(bytes) => {
                let bytes = bytes.try_into().map_err(|_| StoreError::Corrupt("mark".into()))?;
                u64::from_le_bytes(bytes)
            }
            None => 0,
        };
        if mark.told.is_some_and(|told| told > number) {
            let told = mark.told.unwrap_or(0);
            return Err(StoreError::Corrupt(format!(
                "it has lost changes that were safe once: it is at {number} and was at {told}"
            )));
        }
        if let Some(replay) = replay {
            let caught_up = LogState {
                in_use: false,
                applied: replay.last,
                ..state
            };
            table::apply(&backend, sealer.as_ref(), replay.changes, Some(caught_up))?;
        }
        let log = Log::open(dir, settings, new_epoch(state.epoch))?;
        match &log {
            Some(log) => table::apply(&backend, sealer.as_ref(), Changes::new(), Some(log.state(true, 0)))?,
            None => tracing::warn!("the disk has no room for the journal's log: fsync takes longer without it"),
        }
        let marking = Marking {
            mark,
            number,
            set: None,
        };
        let log = log.map(|log| (log, settings));
        Journal::start(backend, sealer, Some(marking), log, ballast)
    }

    fn start(
        backend: B,
        sealer: Option<Sealer>,
        marking: Option<Marking>,
        log: Option<(Log, LogSettings)>,
        ballast: Option<Arc<Ballast>>,
    ) -> Result<Journal<B>, StoreError> {
        let log_bytes = log.as_ref().map_or(0, |(_, settings)| Log::size_bytes(*settings));
        let has_log = log.is_some();
        let shared = Arc::new(Shared {
            backend,
            sealer,
            overlay: RwLock::default(),
            overlay_bytes: AtomicUsize::new(0),
            queue: Mutex::default(),
            marking: Mutex::new(marking),
            writer: Mutex::new(Writer {
                unmarked: false,
                log: log.map(|(log, _)| log),
                fresh: Changes::new(),
                fresh_bytes: 0,
                last: 0,
            }),
            table: Table::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            log_bytes,
            ballast,
        });
        // Dropped on the way, it stops those that it has.
        let mut journal = Journal {
            shared,
            threads: Vec::new(),
        };
        journal.spawn("journal", Shared::write_behind)?;
        if has_log {
            journal.spawn("journal-table", Shared::keep_up)?;
        }
        Ok(journal)
    }

    fn spawn(&mut self, name: &str, work: fn(&Shared<B>)) -> Result<(), StoreError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the writer behind; a simulation has a journal without one"
        )]
        let thread = std::thread::Builder::new().name(name.into()).spawn({
            let shared = self.shared.clone();
            move || work(&shared)
        });
        self.threads
            .push(thread.map_err(|error| StoreError::Io(Arc::new(error)))?);
        Ok(())
    }

    /// Bytes that backend and log take on disk.
    pub fn size_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.shared.backend.size_bytes()? + self.shared.log_bytes)
    }
}

/// A name that no epoch had before: the time, or the next number if the clock stands behind the last.
fn new_epoch(last: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "only journals on a real disk have a log")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX - 1));
    now.max(last + 1)
}

impl<B: Backend> Drop for Journal<B> {
    /// Writes out what is queued, brings the table up to date, and stops the threads.
    fn drop(&mut self) {
        self.shared.queue.lock().stopping = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of the thread has been printed by the panic hook; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl<B: Backend> MetaStore for Journal<B> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some((_, value)) = self.shared.overlay.read().get(key) {
            return Ok(value.as_ref().map(|value| value.to_vec()));
        }
        let span = stages::STORE_GET.enter();
        let stored = self.shared.backend.get(key)?;
        drop(span);
        stored.map(|value| self.shared.open(key, value)).transpose()
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        let mut from = from.max(prefix).to_vec();
        while records.len() < limit {
            match self
                .shared
                .scan_page(prefix, &from, limit - records.len(), &mut records)?
            {
                Some(next) => from = next,
                None => break,
            }
        }
        Ok(records)
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let _span = stages::STORE_COMMIT.enter();
        let batch: Queued = batch
            .ops
            .into_iter()
            .map(|(key, value)| (Key::from(key), value.map(Arc::from)))
            .collect();
        let bytes = batch.iter().map(change_bytes).sum::<usize>();
        let mut queue = self.shared.queue.lock();
        while self.shared.overlay_bytes.load(Ordering::Relaxed) > JOURNAL_BEHIND_BYTES_MAX && queue.failed.is_none() {
            self.shared.work.notify_one();
            self.shared.done.wait(&mut queue);
        }
        match &queue.failed {
            Some(StoreError::Full) => return Err(StoreError::Full),
            Some(_) => return Err(StoreError::Poisoned),
            None => {}
        }
        queue.committed += 1;
        let number = queue.committed;
        self.shared.cover(&batch, number);
        queue.bytes += bytes;
        queue.batches.push_back((number, batch));
        let wakes = std::mem::take(&mut queue.sleeps) || queue.bytes >= JOURNAL_MERGE_BYTES_MAX;
        // Not while it is locked: the lock would be handed to a thread that has yet to get a processor.
        drop(queue);
        if wakes {
            self.shared.work.notify_one();
        }
        Ok(())
    }

    fn barrier(&self) -> Result<(), StoreError> {
        let target = self.shared.queue.lock().committed;
        self.shared.reach(target)
    }

    fn put_down(&self) -> Result<(), StoreError> {
        let target = self.shared.queue.lock().committed;
        self.shared.put_down(target)
    }

    fn admit(&self) -> Result<(), StoreError> {
        self.shared.ballast.as_ref().map_or(Ok(()), |ballast| ballast.admit())
    }

    fn begin_barrier(&self) -> BarrierBegun {
        let mut queue = self.shared.queue.lock();
        let target = queue.committed;
        queue.wanted = queue.wanted.max(target);
        drop(queue);
        self.shared.work.notify_one();
        BarrierBegun(Some(target))
    }

    fn end_barrier(&self, begun: BarrierBegun) -> Result<(), StoreError> {
        self.shared.reach(begun.0.expect("it was begun here"))
    }
}

impl<B: Backend> Shared<B> {
    /// Writes beside the table, into what was set aside if the disk is full. Every try writes to the same place.
    fn with_room<T>(&self, mut write: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &self.ballast {
            Some(ballast) => ballast.write(write),
            None => write(),
        }
    }

    /// What was given up is set aside again, once there is room.
    fn make_ballast(&self) {
        if let Some(ballast) = &self.ballast {
            ballast.make();
        }
    }

    fn open(&self, key: &[u8], value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        match &self.sealer {
            Some(sealer) => {
                let _span = stages::OPEN_RECORD.enter();
                sealer.open(key, &value)
            }
            None => Ok(value),
        }
    }

    /// Appends one page of merged records, in key order; returns where the next page starts, or `None` at the end.
    ///
    /// The overlay is read before the backend: a record moves only from the former to the latter, so none is missed.
    fn scan_page(
        &self,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
        out: &mut Vec<Record>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let _span = stages::STORE_SCAN.enter();
        let (waiting, waiting_end) = self.waiting(prefix, from, limit.max(JOURNAL_SCAN_PAGE_MIN));
        // Each of those may hide one that is stored.
        let page = limit.saturating_add(waiting.len());
        let stored = self.backend.scan(prefix, from, page)?;
        let stored_end = (stored.len() == page).then(|| stored[page - 1].0.clone());
        // Beyond the nearer of the two ends one side is unknown; both ends are inclusive.
        let end = match (waiting_end, stored_end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let within = |key: &[u8]| end.as_deref().is_none_or(|end| key <= end);
        let mut merged: BTreeMap<Vec<u8>, Option<Vec<u8>>> = stored
            .into_iter()
            .filter(|(key, _)| within(key) && !waiting.contains_key(&key[..]))
            .map(|(key, value)| (key, Some(value)))
            .collect();
        let puts = waiting.iter().filter(|(key, value)| within(key) && value.is_some());
        merged.extend(puts.map(|(key, _)| (key.to_vec(), None)));
        let full = merged.len() > limit;
        for (key, stored) in merged.into_iter().take(limit) {
            let value = match stored {
                Some(value) => self.open(&key, value)?,
                None => waiting[&key[..]].as_deref().expect("only puts were merged").to_vec(),
            };
            out.push((key, value));
        }
        if full {
            return Ok(out.last().map(|(key, _)| after(key)));
        }
        Ok(end.map(|end| after(&end)))
    }

    /// Waiting changes of the range: at most `limit`, deletions included; where they stop, if cut short.
    fn waiting(&self, prefix: &[u8], from: &[u8], limit: usize) -> (WaitingRange, Option<Vec<u8>>) {
        let overlay = self.overlay.read();
        let range = overlay.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        let mut taken = HashMap::new();
        for (key, (_, value)) in range.take_while(|(key, _)| key.starts_with(prefix)) {
            taken.insert(key.clone(), value.clone());
            if taken.len() == limit {
                return (taken, Some(key.to_vec()));
            }
        }
        (taken, None)
    }

    /// Shows a batch to readers.
    fn cover(&self, batch: &Queued, number: u64) {
        let mut overlay = self.overlay.write();
        for (key, value) in batch {
            let bytes = change_bytes(&(key.clone(), value.clone()));
            self.overlay_bytes.fetch_add(bytes, Ordering::Relaxed);
            if let Some((_, old)) = overlay.insert(key.clone(), (number, value.clone())) {
                self.overlay_bytes
                    .fetch_sub(change_bytes(&(key.clone(), old)), Ordering::Relaxed);
            }
        }
    }

    /// Lets reads see the table's copy of what it now has, unless a later batch waits for the same key.
    fn uncover(&self, keys: &[Key], last: u64) {
        // Piece by piece: whoever waits for the overlay does not wait for thousands of keys.
        for keys in keys.chunks(UNCOVER_KEYS) {
            let mut overlay = self.overlay.write();
            for key in keys {
                if overlay.get(key).is_some_and(|(number, _)| *number <= last)
                    && let Some((_, value)) = overlay.remove(key)
                {
                    self.overlay_bytes
                        .fetch_sub(change_bytes(&(key.clone(), value)), Ordering::Relaxed);
                }
            }
        }
        let _queue = self.queue.lock();
        self.done.notify_all();
    }
}

/// The smallest key greater than `key`.
fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

/// Memory that a change takes while the table lacks it.
fn change_bytes((key, value): &(Key, Value)) -> usize {
    size(key, value)
}

fn size(key: &Key, value: &Value) -> usize {
    key.len() + value.as_ref().map_or(0, |value| value.len()) + JOURNAL_OP_BYTES
}

#[cfg(test)]
mod tests;
