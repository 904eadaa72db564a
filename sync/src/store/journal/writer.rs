//! The writing half: from the queue into the log, and what the table lacks to the [table].
//!
//! Whoever holds the [`Writer`] appends: a thread for what nobody waits for, and everybody who waits, for himself and for those who
//! came before. Whoever holds the [`Marking`] flushes. It is taken before the writer, which is not held during a flush: who only wants
//! his change to outlive the process does not wait for the disk.

use super::log::{Append, Changes, Key, Log};
use super::{Queue, Shared, change_bytes, size, table};
use crate::limits::{
    JOURNAL_GATHER, JOURNAL_IDLE_FLUSH, JOURNAL_LOOKS, JOURNAL_MARK_EVERY, JOURNAL_MERGE_BYTES_MAX,
    JOURNAL_TABLE_BEHIND_BYTES_MAX,
};
use crate::stages;
use crate::store::mark::{MARK_KEY, Mark};
use crate::store::{Backend, StoreError};
use std::time::Instant;

/// The mark and when it was last set.
pub(super) struct Marking {
    pub(super) mark: Mark,
    /// The number that the journal has.
    pub(super) number: u64,
    pub(super) set: Option<Instant>,
}

/// What whoever writes has to itself.
pub(super) struct Writer {
    /// Something was written since the mark's number last was.
    pub(super) unmarked: bool,
    pub(super) log: Option<Log>,
    /// In the log, and not handed to the table yet.
    pub(super) fresh: Changes,
    pub(super) fresh_bytes: usize,
    /// The last batch in the log.
    pub(super) last: u64,
}

/// How far the log, or without one the backend, is.
struct Written {
    /// The last batch.
    last: u64,
    /// The mark's number that was put with it.
    marked: Option<u64>,
}

/// What the writer thread has to do next.
enum Work {
    Write,
    /// Make everything up to this batch durable.
    Flush(u64),
    /// Nothing was written for a while, and the table is behind.
    CatchUp,
    Stop,
}

impl<B: Backend> Shared<B> {
    pub(super) fn write_behind(&self) {
        loop {
            // Whoever asked for a barrier is told of a failure; so is everybody who comes later.
            let _told_to_others = match self.next_work() {
                Work::Write => self.write_queued(&mut self.writer.lock(), None).map(|_| ()),
                Work::Flush(target) => self.reach(target),
                Work::CatchUp => self.catch_up(),
                Work::Stop => {
                    let _the_rest_is_in_the_log = self.close();
                    self.table.stop();
                    return;
                }
            };
        }
    }

    /// Waits for something to do.
    #[expect(
        clippy::disallowed_methods,
        reason = "a pace of real threads; a simulated journal has none"
    )]
    fn next_work(&self) -> Work {
        let mut queue = self.queue.lock();
        // The last batch that has waited long enough. Most never do: whoever made a change of names puts it down himself a moment
        // later, and would wait for this thread if it had begun with that.
        let mut waited = 0;
        let (mut seen, mut looks) = (queue.committed, 0);
        loop {
            if queue.stopping {
                return Work::Stop;
            }
            let works = queue.failed.is_none();
            if works && queue.wanted > queue.durable {
                return Work::Flush(queue.wanted);
            }
            if works && !queue.batches.is_empty() {
                if queue.written < waited || queue.bytes >= JOURNAL_MERGE_BYTES_MAX {
                    return Work::Write;
                }
                waited = queue.committed;
                self.work.wait_for(&mut queue, JOURNAL_GATHER);
                continue;
            }
            if queue.committed != seen {
                (seen, looks) = (queue.committed, 0);
            }
            if works && looks < JOURNAL_LOOKS {
                looks += 1;
                self.work.wait_for(&mut queue, JOURNAL_GATHER);
                continue;
            }
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
    pub(super) fn reach(&self, target: u64) -> Result<(), StoreError> {
        let _span = stages::STORE_BARRIER.enter();
        if self.is_past(target, |queue| queue.durable)? {
            return Ok(());
        }
        let mut marking = self.marking.lock();
        if self.is_past(target, |queue| queue.durable)? {
            return Ok(());
        }
        let flushed = self.flush_queued(&mut marking);
        flushed.inspect_err(|e| self.fail(e))
    }

    /// Returns when batch `target` is in the log, and so outlives the process. Without a log it does nothing: there only a flush
    /// makes sure of that.
    pub(super) fn put_down(&self, target: u64) -> Result<(), StoreError> {
        if self.log_bytes == 0 || self.is_past(target, |queue| queue.written)? {
            return Ok(());
        }
        let mut writer = self.writer.lock();
        // Whoever wrote meanwhile may have taken it along.
        if self.is_past(target, |queue| queue.written)? {
            return Ok(());
        }
        self.write_queued(&mut writer, None).map(|_| ())
    }

    fn is_past(&self, target: u64, reached: impl Fn(&Queue) -> u64) -> Result<bool, StoreError> {
        let queue = self.queue.lock();
        // A failure may concern later batches only, but memory is ahead of the disk: say so now.
        match &queue.failed {
            Some(failed) => Err(failed.clone()),
            None => Ok(reached(&queue) >= target),
        }
    }

    pub(super) fn fail(&self, error: &StoreError) {
        let mut queue = self.queue.lock();
        queue.failed.get_or_insert_with(|| error.clone());
        self.done.notify_all();
    }

    /// Writes what has been committed and makes it durable.
    fn flush_queued(&self, marking: &mut Option<Marking>) -> Result<(), StoreError> {
        let (written, log) = {
            let mut writer = self.writer.lock();
            let written = self.write_queued(&mut writer, Some(marking))?;
            (written, writer.log.as_mut().and_then(Log::begin_sync))
        };
        // Others append meanwhile; what they do is the next flush's.
        if let Some(log) = log {
            log.sync()?;
        }
        if let (Some(number), Some(marking)) = (written.marked, marking) {
            self.with_room(|| marking.set(number))?;
        }
        self.queue.lock().durable = written.last;
        Ok(())
    }

    /// Writes what has been committed. `flush`: it is to be made durable, by the caller, or here if there is no log; the mark's
    /// next number goes along if it is time. A failure poisons the journal.
    fn write_queued(&self, writer: &mut Writer, flush: Option<&Option<Marking>>) -> Result<Written, StoreError> {
        let result = self.try_write_queued(writer, flush);
        result.inspect_err(|e| self.fail(e))
    }

    fn try_write_queued(&self, writer: &mut Writer, flush: Option<&Option<Marking>>) -> Result<Written, StoreError> {
        let (until, failed) = {
            let queue = self.queue.lock();
            (queue.committed, queue.failed.clone())
        };
        if let Some(failed) = failed {
            return Err(failed);
        }
        loop {
            let (mut changes, last, bytes) = self.take_queued();
            writer.unmarked |= !changes.is_empty();
            let flush = flush.filter(|_| last >= until);
            let marked = flush.and_then(|marking| writer.mark_due(marking.as_ref(), &mut changes, false));
            if writer.log.is_none() {
                self.write_through(changes, last, flush.is_some())?;
            } else if !changes.is_empty() {
                self.append(writer, changes, last)?;
            }
            let mut queue = self.queue.lock();
            if writer.log.is_some() || flush.is_none() {
                queue.behind |= last > queue.written;
            } else {
                queue.behind = false;
            }
            queue.written = last;
            queue.bytes -= bytes;
            self.done.notify_all();
            if last >= until {
                return Ok(Written { last, marked });
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
        let mut appended = self.with_room(|| log.append(&changes, self.sealer.as_ref()))?;
        if appended == Append::Full {
            self.turn(writer)?;
            let log = writer.log.as_mut().expect("the caller looked");
            appended = self.with_room(|| log.append(&changes, self.sealer.as_ref()))?;
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
    fn catch_up(&self) -> Result<(), StoreError> {
        self.make_ballast();
        if self.log_bytes == 0 {
            let written = self.queue.lock().written;
            return self.reach(written);
        }
        let mut writer = self.writer.lock();
        if self.table.is_idle() {
            self.queue.lock().behind = false;
            if !writer.fresh.is_empty() {
                self.table.start(writer.hand_over());
            }
        }
        Ok(())
    }

    /// Writes out everything; the log is not needed any more.
    fn close(&self) -> Result<(), StoreError> {
        let mut marking = self.marking.lock();
        if self.queue.lock().failed.is_some() {
            return Ok(());
        }
        let number = if self.log_bytes == 0 {
            self.flush_queued(&mut marking).inspect_err(|e| self.fail(e))?;
            let mut writer = self.writer.lock();
            let mut changes = Changes::new();
            // What was flushed within the last moments is not marked yet.
            let number = writer.mark_due(marking.as_ref(), &mut changes, true);
            if number.is_some() {
                self.write_through(changes, writer.last, true)?;
            }
            number
        } else {
            let mut writer = self.writer.lock();
            self.write_queued(&mut writer, None)?;
            self.table.wait()?;
            let mut job = writer.hand_over();
            job.state.in_use = false;
            writer.unmarked |= !job.changes.is_empty();
            let number = writer.mark_due(marking.as_ref(), &mut job.changes, true);
            self.apply(job)?;
            number
        };
        match (number, marking.as_mut()) {
            (Some(number), Some(marking)) => self.with_room(|| marking.set(number)),
            _ => Ok(()),
        }
    }
}

impl Writer {
    /// Adds the mark's next number to `changes`, if it is time and there was something new.
    #[expect(
        clippy::disallowed_methods,
        reason = "a pace of real threads; a simulated journal has none"
    )]
    fn mark_due(&mut self, marking: Option<&Marking>, changes: &mut Changes, closing: bool) -> Option<u64> {
        let marking = marking?;
        let due = closing || marking.set.is_none_or(|set| set.elapsed() >= JOURNAL_MARK_EVERY);
        if !due || !self.unmarked {
            return None;
        }
        let number = marking.number + 1;
        changes.insert(MARK_KEY.into(), Some(number.to_le_bytes()[..].into()));
        // Whatever comes after it will want a number of its own; if this one is not set, the journal is poisoned.
        self.unmarked = false;
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
        self.number = number;
        #[expect(clippy::disallowed_methods, reason = "only journals on a real disk have a mark")]
        let now = Instant::now();
        self.set = Some(now);
        Ok(())
    }
}
