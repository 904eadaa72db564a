//! The writing half: from the queue into the log, and what the table lacks to the [table].
//!
//! Whoever holds the [`Writer`] writes: a thread for what nobody waits for, and everybody who waits for a barrier for himself and
//! for those who came before.

use super::log::{Append, Changes, Key, Log};
use super::{Shared, change_bytes, size, table};
use crate::limits::{
    JOURNAL_GATHER, JOURNAL_IDLE_FLUSH, JOURNAL_MARK_EVERY, JOURNAL_MERGE_BYTES_MAX, JOURNAL_TABLE_BEHIND_BYTES_MAX,
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
    /// Something was written since.
    pub(super) behind: bool,
}

/// What whoever writes has to itself.
pub(super) struct Writer {
    pub(super) marking: Option<Marking>,
    pub(super) log: Option<Log>,
    /// In the log, and not handed to the table yet.
    pub(super) fresh: Changes,
    pub(super) fresh_bytes: usize,
    /// The last batch in the log.
    pub(super) last: u64,
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
    pub(super) fn write_behind(&self) {
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
    pub(super) fn reach(&self, target: u64) -> Result<(), StoreError> {
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

    pub(super) fn fail(&self, error: &StoreError) {
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
