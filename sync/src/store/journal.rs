//! The write-behind journal: a [`Backend`] made into a [`MetaStore`].
//!
//! `commit` puts a batch into an ordered queue and into an overlay that every read looks at first, and returns: metadata
//! operations run at memory speed. One writer thread takes what has queued up, merges it into a single atomic batch and
//! applies it, so that a crash always leaves a prefix of the committed batches. `barrier` waits until everything
//! committed before it is applied and flushed; callers that come together share one flush (group commit).
//!
//! The queue is bounded: past [`JOURNAL_QUEUE_BYTES_MAX`] `commit` waits for the writer. After a failed write the journal is
//! poisoned: reads still answer, changes and barriers fail, because memory is then ahead of the disk.
//!
//! Beside the backend lies a [mark](super::mark), so that a database that fell behind what was once safe is seen to have.
//!
//! Values are sealed on their way down and opened on their way up when the volume seals what rests on disk.

use super::mark::{MARK_KEY, Mark};
use super::{Backend, BarrierBegun, Batch, MetaStore, Record, StoreError};
use crate::limits::{
    JOURNAL_IDLE_FLUSH, JOURNAL_MARK_EVERY, JOURNAL_MERGE_BYTES_MAX, JOURNAL_OP_BYTES, JOURNAL_QUEUE_BYTES_MAX,
};
use crate::stages;
use cessfs_crypto::{AtRestKeys, Entropy, RECORD_NONCE_BYTES};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

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

/// Changes of a range that wait for the writer.
type WaitingRange = HashMap<Vec<u8>, Option<Arc<[u8]>>>;

/// A value that waits for the writer, and the number of the batch that brought it. `None` is a deletion.
type Waiting = (u64, Option<Arc<[u8]>>);

#[derive(Default)]
struct Queue {
    batches: VecDeque<(u64, Batch)>,
    bytes: usize,
    /// Number of the last batch committed, applied to the backend, and flushed.
    committed: u64,
    applied: u64,
    durable: u64,
    /// Highest batch number that a barrier waits for.
    wanted: u64,
    failed: Option<StoreError>,
    stopping: bool,
}

/// The mark and when it was last set.
struct Marking {
    mark: Mark,
    /// The number that the backend has.
    number: u64,
    set: Option<Instant>,
    /// Something was applied since.
    behind: bool,
}

struct Shared<B> {
    backend: B,
    marking: Option<Mutex<Marking>>,
    sealer: Option<Sealer>,
    overlay: RwLock<BTreeMap<Vec<u8>, Waiting>>,
    queue: Mutex<Queue>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes those who wait for room or for a barrier.
    done: Condvar,
}

/// A [`MetaStore`] over a [`Backend`], write-behind with group commit.
pub struct Journal<B: Backend> {
    shared: Arc<Shared<B>>,
    writer: Option<JoinHandle<()>>,
}

impl<B: Backend> Journal<B> {
    /// Starts the writer thread over `backend`, without a mark.
    pub fn new(backend: B, sealer: Option<Sealer>) -> Journal<B> {
        Journal::start(backend, sealer, None)
    }

    /// The same with a mark in `dir`.
    ///
    /// # Errors
    /// `Corrupt` if the backend is behind its mark: it has lost what was safe.
    pub fn marked(backend: B, sealer: Option<Sealer>, dir: &Path) -> Result<Journal<B>, StoreError> {
        let mark = Mark::open(dir)?;
        let stored = backend.get(MARK_KEY)?;
        let stored = match (&sealer, stored) {
            (Some(sealer), Some(sealed)) => Some(sealer.open(MARK_KEY, &sealed)?),
            (_, stored) => stored,
        };
        let number = match stored {
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
        let marking = Marking {
            mark,
            number,
            set: None,
            behind: false,
        };
        Ok(Journal::start(backend, sealer, Some(marking)))
    }

    fn start(backend: B, sealer: Option<Sealer>, marking: Option<Marking>) -> Journal<B> {
        let shared = Arc::new(Shared {
            backend,
            marking: marking.map(Mutex::new),
            sealer,
            overlay: RwLock::default(),
            queue: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        #[expect(
            clippy::disallowed_methods,
            reason = "the writer behind; a simulation has a journal without one"
        )]
        let writer = std::thread::Builder::new().name("journal".into()).spawn({
            let shared = shared.clone();
            move || shared.write_behind()
        });
        Journal {
            shared,
            writer: Some(writer.expect("a thread can be started")),
        }
    }

    /// Bytes the backend takes on disk.
    pub fn size_bytes(&self) -> Result<u64, StoreError> {
        self.shared.backend.size_bytes()
    }
}

impl<B: Backend> Drop for Journal<B> {
    /// Writes out what is queued, flushes, and stops the writer.
    fn drop(&mut self) {
        self.shared.queue.lock().stopping = true;
        self.shared.work.notify_all();
        if let Some(writer) = self.writer.take() {
            // A panic of the writer has been printed by the panic hook; there is nobody left to tell.
            let _ = writer.join();
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
        let bytes = batch_bytes(&batch);
        let mut queue = self.shared.queue.lock();
        while queue.bytes > JOURNAL_QUEUE_BYTES_MAX && queue.failed.is_none() {
            self.shared.done.wait(&mut queue);
        }
        if queue.failed.is_some() {
            return Err(StoreError::Poisoned);
        }
        queue.committed += 1;
        let number = queue.committed;
        {
            let mut overlay = self.shared.overlay.write();
            for (key, value) in &batch.ops {
                overlay.insert(key.clone(), (number, value.as_deref().map(Arc::from)));
            }
        }
        queue.bytes += bytes;
        queue.batches.push_back((number, batch));
        self.shared.work.notify_one();
        Ok(())
    }

    fn barrier(&self) -> Result<(), StoreError> {
        self.end_barrier(self.begin_barrier())
    }

    fn begin_barrier(&self) -> BarrierBegun {
        let mut queue = self.shared.queue.lock();
        let target = queue.committed;
        queue.wanted = queue.wanted.max(target);
        self.shared.work.notify_one();
        BarrierBegun(Some(target))
    }

    fn end_barrier(&self, begun: BarrierBegun) -> Result<(), StoreError> {
        let _span = stages::STORE_BARRIER.enter();
        let target = begun.0.expect("it was begun here");
        let mut queue = self.shared.queue.lock();
        while queue.durable < target {
            if let Some(failed) = &queue.failed {
                return Err(failed.clone());
            }
            self.shared.done.wait(&mut queue);
        }
        // A failure after this point concerns later batches only, but memory is ahead of the disk: say so now.
        queue.failed.clone().map_or(Ok(()), Err)
    }
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
        let (waiting, waiting_end) = self.waiting(prefix, from, limit);
        let stored = self.backend.scan(prefix, from, limit)?;
        let stored_end = (stored.len() == limit).then(|| stored[limit - 1].0.clone());
        // Beyond the nearer of the two ends one side is unknown; both ends are inclusive.
        let end = match (waiting_end, stored_end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let within = |key: &[u8]| end.as_deref().is_none_or(|end| key <= end);
        let mut merged = BTreeMap::new();
        for (key, value) in stored
            .into_iter()
            .filter(|(key, _)| within(key) && !waiting.contains_key(key))
        {
            let opened = self.open(&key, value)?;
            merged.insert(key, opened);
        }
        let puts = waiting.into_iter().filter(|(key, _)| within(key));
        merged.extend(puts.filter_map(|(key, value)| value.map(|value| (key, value.to_vec()))));
        let full = merged.len() > limit;
        out.extend(merged.into_iter().take(limit));
        if full {
            return Ok(out.last().map(|(key, _)| after(key)));
        }
        Ok(end.map(|end| after(&end)))
    }

    /// Waiting changes of the range: at most `limit` puts and the deletions between them; where they stop, if cut short.
    fn waiting(&self, prefix: &[u8], from: &[u8], limit: usize) -> (WaitingRange, Option<Vec<u8>>) {
        let overlay = self.overlay.read();
        let range = overlay.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        let mut taken = HashMap::new();
        let mut puts = 0;
        for (key, (_, value)) in range.take_while(|(key, _)| key.starts_with(prefix)) {
            taken.insert(key.clone(), value.clone());
            puts += usize::from(value.is_some());
            if puts == limit {
                return (taken, Some(key.clone()));
            }
        }
        (taken, None)
    }

    fn write_behind(&self) {
        while let Some((batch, last, flush)) = self.next_work() {
            let bytes = batch_bytes(&batch);
            let keys: Vec<Vec<u8>> = batch.ops.iter().map(|(key, _)| key.clone()).collect();
            let result = self.write(batch, flush);
            if result.is_ok() {
                self.uncover(&keys, last);
            }
            self.finish(bytes, last, flush, result);
        }
        // What was flushed within the last moments is not marked yet.
        let behind = self.marking.as_ref().is_some_and(|marking| marking.lock().behind);
        if behind && self.queue.lock().failed.is_none() {
            // Whoever is interested in failure has asked for a barrier; a mark that stays behind only sees less.
            let _the_mark_stays_behind = self.write(Batch::new(), true);
        }
    }

    /// Waits for batches to apply or a barrier to serve; `None` when stopping with everything flushed.
    fn next_work(&self) -> Option<(Batch, u64, bool)> {
        let mut queue = self.queue.lock();
        loop {
            if queue.failed.is_some() && queue.stopping {
                return None;
            }
            let idle = queue.batches.is_empty();
            if queue.failed.is_none() && (!idle || queue.wanted > queue.durable) {
                break;
            }
            if queue.stopping {
                if queue.durable == queue.applied {
                    return None;
                }
                break;
            }
            if self.work.wait_for(&mut queue, JOURNAL_IDLE_FLUSH).timed_out()
                && queue.failed.is_none()
                && queue.durable < queue.applied
            {
                break;
            }
        }
        let mut merged = Batch::new();
        let mut bytes = 0;
        let mut last = queue.applied;
        while bytes < JOURNAL_MERGE_BYTES_MAX
            && let Some((number, batch)) = queue.batches.pop_front()
        {
            bytes += batch_bytes(&batch);
            last = number;
            merged.append(batch);
        }
        let caught_up = queue.batches.is_empty();
        let idle = merged.is_empty();
        let flush = queue.wanted > queue.durable && last >= queue.wanted || idle || queue.stopping && caught_up;
        Some((merged, last, flush))
    }

    fn write(&self, mut batch: Batch, flush: bool) -> Result<(), StoreError> {
        let marking = self.marking.as_ref().filter(|_| flush || !batch.is_empty());
        let mut marking = marking.map(|marking| marking.lock());
        let mut number = None;
        if let Some(marking) = &mut marking {
            marking.behind |= !batch.is_empty();
            let due = self.queue.lock().stopping || marking.set.is_none_or(|set| set.elapsed() >= JOURNAL_MARK_EVERY);
            if flush && due && marking.behind {
                batch.put(MARK_KEY, (marking.number + 1).to_le_bytes());
                number = Some(marking.number + 1);
            }
        }
        self.write_through(batch, flush)?;
        if let (Some(marking), Some(number)) = (&mut marking, number) {
            marking.mark.set(number)?;
            (marking.number, marking.behind) = (number, false);
            #[expect(clippy::disallowed_methods, reason = "only journals on a real disk have a mark")]
            let now = Instant::now();
            marking.set = Some(now);
        }
        Ok(())
    }

    fn write_through(&self, batch: Batch, flush: bool) -> Result<(), StoreError> {
        if batch.is_empty() {
            let _span = stages::STORE_FLUSH.enter();
            return if flush { self.backend.flush() } else { Ok(()) };
        }
        let batch = self.compact(batch);
        if flush {
            let _span = stages::STORE_FLUSH.enter();
            return self.backend.apply_and_flush(batch);
        }
        let _span = stages::STORE_APPLY.enter();
        self.backend.apply(batch)
    }

    /// Keeps the last change of each key, seals what remains, and puts it into the order of the backend's tree: neighbours
    /// are then changed one after the other.
    fn compact(&self, batch: Batch) -> Batch {
        let _span = stages::SEAL_RECORDS.enter();
        let changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = batch.ops.into_iter().collect();
        let mut ops: Vec<_> = changes.into_iter().collect();
        if let Some(sealer) = &self.sealer {
            sealer.seal_all(&mut ops);
        }
        Batch { ops }
    }

    /// Lets reads see the backend's copy of what has been applied, unless a later batch waits for the same key.
    fn uncover(&self, keys: &[Vec<u8>], last: u64) {
        // Piece by piece: whoever waits for the overlay does not wait for thousands of keys.
        for keys in keys.chunks(UNCOVER_KEYS) {
            let mut overlay = self.overlay.write();
            for key in keys {
                if overlay.get(key).is_some_and(|(number, _)| *number <= last) {
                    overlay.remove(key);
                }
            }
        }
    }

    fn finish(&self, bytes: usize, last: u64, flushed: bool, result: Result<(), StoreError>) {
        let mut queue = self.queue.lock();
        match result {
            Ok(()) => {
                queue.applied = last;
                if flushed {
                    queue.durable = last;
                }
                queue.bytes -= bytes;
            }
            Err(e) => queue.failed = Some(e),
        }
        self.done.notify_all();
    }
}

/// The smallest key greater than `key`.
fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

/// Bytes that a batch takes while it waits: here, and again in the overlay.
fn batch_bytes(batch: &Batch) -> usize {
    let op = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| {
        2 * (key.len() + value.as_ref().map_or(0, Vec::len)) + JOURNAL_OP_BYTES
    };
    batch.ops.iter().map(op).sum()
}

#[cfg(test)]
mod tests;
