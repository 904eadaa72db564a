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
//! poisoned: reads still answer, changes and barriers fail, because memory is then ahead of the disk.
//!
//! Beside the backend lies a [mark](super::mark), so that a journal that fell behind what was once safe is seen to have.
//!
//! Values are sealed on their way down and opened on their way up when the volume seals what rests on disk.

mod log;
mod table;

pub use self::log::LogSettings;

use self::log::{Append, Changes, Key, LOG_KEY, Log, LogState, Value};
use self::table::Table;
use super::mark::{MARK_KEY, Mark};
use super::{Backend, BarrierBegun, Batch, MetaStore, Record, StoreError};
use crate::limits::{
    JOURNAL_BEHIND_BYTES_MAX, JOURNAL_GATHER, JOURNAL_IDLE_FLUSH, JOURNAL_MARK_EVERY, JOURNAL_MERGE_BYTES_MAX,
    JOURNAL_OP_BYTES, JOURNAL_SCAN_PAGE_MIN, JOURNAL_SEGMENT_BYTES, JOURNAL_TABLE_BEHIND_BYTES_MAX,
};
use crate::stages;
use cessfs_crypto::{AtRestKeys, Entropy, RECORD_NONCE_BYTES};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Seals values on their way to the disk.
pub struct Sealer {
    keys: AtRestKeys,
    entropy: Mutex<Box<dyn Entropy>>,
}

impl Sealer {
    /// A sealer with the volume's at-rest keys.
    pub fn new(keys: AtRestKeys, entropy: Box<dyn Entropy>) -> Sealer {
        Sealer {
            keys,
            entropy: Mutex::new(entropy),
        }
    }

    /// Seals every value. The nonces come from one call for randomness, which may be a system call.
    fn seal_all(&self, ops: &mut [(Vec<u8>, Option<Vec<u8>>)]) {
        let values = ops.iter().filter(|(_, value)| value.is_some()).count();
        let mut nonces = Drawn(vec![0; values * RECORD_NONCE_BYTES]);
        self.entropy.lock().fill(&mut nonces.0);
        for (key, value) in ops {
            if let Some(value) = value {
                *value = self.keys.seal_record(key, value, &mut nonces);
            }
        }
    }

    /// Seals one piece, bound to `aad`.
    fn seal(&self, aad: &[u8], bytes: &[u8]) -> Vec<u8> {
        self.keys.seal_record(aad, bytes, self.entropy.lock().as_mut())
    }

    fn open(&self, key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let damaged = |_| StoreError::Corrupt(format!("record {} does not open", hex::encode(key)));
        self.keys.open_record(key, sealed).map_err(damaged)
    }
}

/// Random bytes drawn before they are needed; each is given out once.
struct Drawn(Vec<u8>);

impl Entropy for Drawn {
    fn fill(&mut self, out: &mut [u8]) {
        let rest = self
            .0
            .len()
            .checked_sub(out.len())
            .expect("as many were drawn as are needed");
        out.copy_from_slice(&self.0[rest..]);
        self.0.truncate(rest);
    }
}

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

/// The mark and when it was last set.
struct Marking {
    mark: Mark,
    /// The number that the journal has.
    number: u64,
    set: Option<Instant>,
    /// Something was written since.
    behind: bool,
}

/// What whoever writes has to itself.
struct Writer {
    marking: Option<Marking>,
    log: Option<Log>,
    /// In the log, and not handed to the table yet.
    fresh: Changes,
    fresh_bytes: usize,
    /// The last batch in the log.
    last: u64,
}

struct Shared<B> {
    backend: B,
    sealer: Option<Sealer>,
    overlay: RwLock<BTreeMap<Key, Waiting>>,
    /// Memory that the overlay takes.
    overlay_bytes: AtomicUsize,
    queue: Mutex<Queue>,
    /// Taken before `queue`, which is taken before `overlay`.
    writer: Mutex<Writer>,
    table: Table,
    /// Wakes the writer thread.
    work: Condvar,
    /// Wakes those who wait for room.
    done: Condvar,
    log_bytes: u64,
}

/// A [`MetaStore`] over a [`Backend`], write-behind with group commit.
pub struct Journal<B: Backend> {
    shared: Arc<Shared<B>>,
    threads: Vec<JoinHandle<()>>,
}

impl<B: Backend> Journal<B> {
    /// Starts the writer thread over `backend`, with neither a log nor a mark.
    pub fn new(backend: B, sealer: Option<Sealer>) -> Journal<B> {
        Journal::start(backend, sealer, None, None)
    }

    /// The same with a log and a mark in `dir`; see [`logged`](Journal::logged).
    ///
    /// # Errors
    /// See [`logged`](Journal::logged).
    pub fn marked(backend: B, sealer: Option<Sealer>, dir: &Path) -> Result<Journal<B>, StoreError> {
        let settings = LogSettings {
            segment_bytes: JOURNAL_SEGMENT_BYTES,
            synced: true,
        };
        Journal::logged(backend, sealer, dir, settings)
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
            behind: false,
        };
        Ok(Journal::start(
            backend,
            sealer,
            Some(marking),
            log.map(|log| (log, settings)),
        ))
    }

    fn start(
        backend: B,
        sealer: Option<Sealer>,
        marking: Option<Marking>,
        log: Option<(Log, LogSettings)>,
    ) -> Journal<B> {
        let log_bytes = log.as_ref().map_or(0, |(_, settings)| Log::size_bytes(*settings));
        let has_log = log.is_some();
        let shared = Arc::new(Shared {
            backend,
            sealer,
            overlay: RwLock::default(),
            overlay_bytes: AtomicUsize::new(0),
            queue: Mutex::default(),
            writer: Mutex::new(Writer {
                marking,
                log: log.map(|(log, _)| log),
                fresh: Changes::new(),
                fresh_bytes: 0,
                last: 0,
            }),
            table: Table::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            log_bytes,
        });
        let mut threads = vec![spawn("journal", &shared, Shared::write_behind)];
        if has_log {
            threads.push(spawn("journal-table", &shared, Shared::keep_up));
        }
        Journal { shared, threads }
    }

    /// Bytes that backend and log take on disk.
    pub fn size_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.shared.backend.size_bytes()? + self.shared.log_bytes)
    }
}

fn spawn<B: Backend>(name: &str, shared: &Arc<Shared<B>>, work: fn(&Shared<B>)) -> JoinHandle<()> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the writer behind; a simulation has a journal without one"
    )]
    let thread = std::thread::Builder::new().name(name.into()).spawn({
        let shared = shared.clone();
        move || work(&shared)
    });
    thread.expect("a thread can be started")
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
        if queue.failed.is_some() {
            return Err(StoreError::Poisoned);
        }
        queue.committed += 1;
        let number = queue.committed;
        self.shared.cover(&batch, number);
        queue.bytes += bytes;
        queue.batches.push_back((number, batch));
        if queue.sleeps || queue.bytes >= JOURNAL_MERGE_BYTES_MAX {
            self.shared.work.notify_one();
        }
        Ok(())
    }

    fn barrier(&self) -> Result<(), StoreError> {
        let target = self.shared.queue.lock().committed;
        self.shared.reach(target)
    }

    fn begin_barrier(&self) -> BarrierBegun {
        let mut queue = self.shared.queue.lock();
        let target = queue.committed;
        queue.wanted = queue.wanted.max(target);
        self.shared.work.notify_one();
        BarrierBegun(Some(target))
    }

    fn end_barrier(&self, begun: BarrierBegun) -> Result<(), StoreError> {
        self.shared.reach(begun.0.expect("it was begun here"))
    }
}

/// What the writer thread has to do next.
enum Work {
    Write,
    Flush,
    /// Nothing was written for a while, and the table is behind.
    CatchUp,
    Stop,
}

impl<B: Backend> Shared<B> {
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

    fn write_behind(&self) {
        loop {
            let work = self.next_work();
            let mut writer = self.writer.lock();
            // Whoever asked for a barrier is told of a failure; so is everybody who comes later.
            let _told_to_others = match work {
                Work::Write => self.write_queued(&mut writer, false),
                Work::Flush => self.write_queued(&mut writer, true),
                Work::CatchUp => self.catch_up(&mut writer),
                Work::Stop => {
                    let _the_rest_is_in_the_log = self.close(&mut writer);
                    self.table.stop();
                    return;
                }
            };
        }
    }

    /// Waits for something to do.
    fn next_work(&self) -> Work {
        let mut queue = self.queue.lock();
        let mut gathered = false;
        loop {
            if queue.stopping {
                return Work::Stop;
            }
            let works = queue.failed.is_none();
            if works && queue.wanted > queue.durable {
                return Work::Flush;
            }
            if works && !queue.batches.is_empty() {
                if gathered || queue.bytes >= JOURNAL_MERGE_BYTES_MAX {
                    return Work::Write;
                }
                self.work.wait_for(&mut queue, JOURNAL_GATHER);
                gathered = true;
                continue;
            }
            gathered = false;
            queue.sleeps = true;
            let idle = if works && queue.behind {
                self.work.wait_for(&mut queue, JOURNAL_IDLE_FLUSH).timed_out()
            } else {
                self.work.wait(&mut queue);
                false
            };
            queue.sleeps = false;
            if idle && queue.batches.is_empty() && queue.failed.is_none() {
                return Work::CatchUp;
            }
        }
    }

    /// Returns when batch `target` would survive a power cut: the caller does itself what is left to do for that.
    fn reach(&self, target: u64) -> Result<(), StoreError> {
        let _span = stages::STORE_BARRIER.enter();
        let is_there = || {
            let queue = self.queue.lock();
            // A failure may concern later batches only, but memory is ahead of the disk: say so now.
            match &queue.failed {
                Some(failed) => Err(failed.clone()),
                None => Ok(queue.durable >= target),
            }
        };
        if is_there()? {
            return Ok(());
        }
        let mut writer = self.writer.lock();
        if is_there()? {
            return Ok(());
        }
        self.write_queued(&mut writer, true)
    }

    /// Writes what has been committed, and makes it durable if asked to. A failure poisons the journal.
    fn write_queued(&self, writer: &mut Writer, flush: bool) -> Result<(), StoreError> {
        let result = self.try_write_queued(writer, flush);
        if let Err(e) = &result {
            self.fail(e);
        }
        result
    }

    fn fail(&self, error: &StoreError) {
        let mut queue = self.queue.lock();
        queue.failed.get_or_insert_with(|| error.clone());
        self.done.notify_all();
    }

    fn try_write_queued(&self, writer: &mut Writer, flush: bool) -> Result<(), StoreError> {
        let (until, failed) = {
            let queue = self.queue.lock();
            (queue.committed, queue.failed.clone())
        };
        if let Some(failed) = failed {
            return Err(failed);
        }
        loop {
            let (mut changes, last, bytes) = self.take_queued();
            let flush = flush && last >= until;
            let marked = if flush {
                writer.mark_due(!changes.is_empty(), &mut changes, false)
            } else {
                None
            };
            if let Some(marking) = &mut writer.marking {
                marking.behind |= !changes.is_empty();
            }
            self.write(writer, changes, last, flush)?;
            if let (Some(number), Some(marking)) = (marked, &mut writer.marking) {
                marking.set(number)?;
            }
            let mut queue = self.queue.lock();
            queue.behind |= last > queue.written && (writer.log.is_some() || !flush);
            queue.behind &= writer.log.is_some() || !flush;
            queue.written = last;
            queue.bytes -= bytes;
            if flush {
                queue.durable = last;
            }
            self.done.notify_all();
            if last >= until {
                return Ok(());
            }
        }
    }

    /// Takes what fits one record: the last change of each key, the number of the last batch, and what waited.
    fn take_queued(&self) -> (Changes, u64, usize) {
        let mut queue = self.queue.lock();
        let mut changes = Changes::new();
        let mut bytes = 0;
        let mut last = queue.written;
        while bytes < JOURNAL_MERGE_BYTES_MAX
            && let Some((number, batch)) = queue.batches.pop_front()
        {
            bytes += batch.iter().map(change_bytes).sum::<usize>();
            last = number;
            changes.extend(batch);
        }
        (changes, last, bytes)
    }

    fn write(&self, writer: &mut Writer, changes: Changes, last: u64, flush: bool) -> Result<(), StoreError> {
        if writer.log.is_none() {
            return self.write_through(changes, last, flush);
        }
        if !changes.is_empty() {
            self.append(writer, changes, last)?;
        }
        match (flush, &mut writer.log) {
            (true, Some(log)) => log.sync(),
            _ => Ok(()),
        }
    }

    /// Straight to the backend.
    fn write_through(&self, changes: Changes, last: u64, flush: bool) -> Result<(), StoreError> {
        if changes.is_empty() {
            let _span = stages::STORE_FLUSH.enter();
            return if flush { self.backend.flush() } else { Ok(()) };
        }
        let keys: Vec<Key> = changes.keys().cloned().collect();
        let batch = table::batch(self.sealer.as_ref(), changes);
        if flush {
            let _span = stages::STORE_FLUSH.enter();
            self.backend.apply_and_flush(batch)?;
        } else {
            let _span = stages::STORE_APPLY.enter();
            self.backend.apply(batch)?;
        }
        self.uncover(&keys, last);
        Ok(())
    }

    /// Into the log, and into what the table has yet to get.
    fn append(&self, writer: &mut Writer, changes: Changes, last: u64) -> Result<(), StoreError> {
        let log = writer.log.as_mut().expect("the caller looked");
        let mut appended = log.append(&changes, self.sealer.as_ref())?;
        if appended == Append::Full {
            self.turn(writer)?;
            let log = writer.log.as_mut().expect("the caller looked");
            appended = log.append(&changes, self.sealer.as_ref())?;
        }
        writer.fresh_bytes += changes.iter().map(|(key, value)| size(key, value)).sum::<usize>();
        writer.fresh.extend(changes);
        writer.last = last;
        if appended != Append::Done {
            // Larger than a segment: it is in the table before anything that comes after it is in the log.
            writer.log.as_mut().expect("the caller looked").skip();
            self.table.wait()?;
            return self.apply(writer.hand_over());
        }
        if writer.fresh_bytes >= JOURNAL_TABLE_BEHIND_BYTES_MAX && self.table.is_idle() {
            self.table.start(writer.hand_over());
        }
        Ok(())
    }

    /// Goes on in the other segment, and has the table brought up to date with this one.
    fn turn(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let mut applied = self.table.wait()?;
        let log = writer.log.as_ref().expect("only a log is full");
        if !log.may_turn(applied) {
            let job = writer.hand_over();
            applied = job.state.applied;
            self.apply(job)?;
        }
        writer.log.as_mut().expect("only a log is full").turn(applied);
        if !writer.fresh.is_empty() {
            self.table.start(writer.hand_over());
        }
        Ok(())
    }

    /// Has the table brought up to date after a time without work.
    fn catch_up(&self, writer: &mut Writer) -> Result<(), StoreError> {
        if writer.log.is_none() {
            return self.write_queued(writer, true);
        }
        if self.table.is_idle() {
            self.queue.lock().behind = false;
            if !writer.fresh.is_empty() {
                self.table.start(writer.hand_over());
            }
        }
        Ok(())
    }

    /// Writes out everything; the log is not needed any more.
    fn close(&self, writer: &mut Writer) -> Result<(), StoreError> {
        if self.queue.lock().failed.is_some() {
            return Ok(());
        }
        if writer.log.is_none() {
            let mut changes = Changes::new();
            self.write_queued(writer, true)?;
            // What was flushed within the last moments is not marked yet.
            if let Some(number) = writer.mark_due(false, &mut changes, true) {
                self.write_through(changes, writer.last, true)?;
                return writer.marking.as_mut().map_or(Ok(()), |marking| marking.set(number));
            }
            return Ok(());
        }
        self.write_queued(writer, false)?;
        self.table.wait()?;
        let mut job = writer.hand_over();
        job.state.in_use = false;
        let number = writer.mark_due(!job.changes.is_empty(), &mut job.changes, true);
        self.apply(job)?;
        match (number, &mut writer.marking) {
            (Some(number), Some(marking)) => marking.set(number),
            _ => Ok(()),
        }
    }
}

impl Writer {
    /// Adds the mark's next number to `changes`, if it is time; `more`: something else is in them.
    fn mark_due(&self, more: bool, changes: &mut Changes, closing: bool) -> Option<u64> {
        let marking = self.marking.as_ref()?;
        let due = closing || marking.set.is_none_or(|set| set.elapsed() >= JOURNAL_MARK_EVERY);
        if !due || !(more || marking.behind) {
            return None;
        }
        let number = marking.number + 1;
        changes.insert(MARK_KEY.into(), Some(number.to_le_bytes()[..].into()));
        Some(number)
    }

    /// What the table lacks, and what it says of the log once it has that.
    fn hand_over(&mut self) -> table::Job {
        self.fresh_bytes = 0;
        let log = self.log.as_ref().expect("without a log nothing is handed over");
        table::Job {
            changes: std::mem::take(&mut self.fresh),
            last: self.last,
            state: log.state(true, log.last()),
        }
    }
}

impl Marking {
    /// The journal is durable with this number.
    fn set(&mut self, number: u64) -> Result<(), StoreError> {
        self.mark.set(number)?;
        (self.number, self.behind) = (number, false);
        #[expect(clippy::disallowed_methods, reason = "only journals on a real disk have a mark")]
        let now = Instant::now();
        self.set = Some(now);
        Ok(())
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
