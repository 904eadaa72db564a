//! The table behind the log: the database, brought up to date in large, sorted, durable steps.
//!
//! One step at a time. Its changes and the number of the last record they come from are one transaction, so after a crash
//! the table is as it was at some record, and says at which.

use super::log::{Changes, Key, LOG_KEY, LogState};
use super::{Sealer, Shared};
use crate::stages;
use crate::store::{Backend, Batch, StoreError};
use parking_lot::{Condvar, Mutex};

/// What the table has to be brought.
pub(super) struct Job {
    pub(super) changes: Changes,
    /// The last batch among them.
    pub(super) last: u64,
    /// What the table says of the log afterwards.
    pub(super) state: LogState,
}

#[derive(Default)]
struct Progress {
    job: Option<Job>,
    /// A job is taken and not done.
    busy: bool,
    /// The table has the log's records up to this one.
    applied: u64,
    failed: Option<StoreError>,
    stopping: bool,
}

/// How far the table is.
#[derive(Default)]
pub(super) struct Table {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Table {
    /// No step is under way, and none has failed: after that none may follow, or the table would say that it has what it lacks.
    pub(super) fn is_idle(&self) -> bool {
        let progress = self.progress.lock();
        progress.job.is_none() && !progress.busy && progress.failed.is_none()
    }

    /// Waits for the step that is under way; the last record that the table has.
    pub(super) fn wait(&self) -> Result<u64, StoreError> {
        let mut progress = self.progress.lock();
        while progress.failed.is_none() && (progress.job.is_some() || progress.busy) {
            self.changed.wait(&mut progress);
        }
        progress.failed.clone().map_or(Ok(progress.applied), Err)
    }

    /// Hands a step to the table's thread. None is under way.
    pub(super) fn start(&self, job: Job) {
        let mut progress = self.progress.lock();
        assert!(
            progress.job.is_none() && !progress.busy && progress.failed.is_none(),
            "one step at a time, and none after one that failed"
        );
        progress.job = Some(job);
        self.changed.notify_all();
    }

    /// Lets the table's thread end.
    pub(super) fn stop(&self) {
        self.progress.lock().stopping = true;
        self.changed.notify_all();
    }

    /// The next step; `None` at the end.
    fn next(&self) -> Option<Job> {
        let mut progress = self.progress.lock();
        loop {
            if let Some(job) = progress.job.take() {
                progress.busy = true;
                return Some(job);
            }
            if progress.stopping {
                return None;
            }
            self.changed.wait(&mut progress);
        }
    }

    fn finish(&self, result: Result<u64, StoreError>) {
        let mut progress = self.progress.lock();
        progress.busy = false;
        match result {
            Ok(applied) => progress.applied = applied,
            Err(e) => progress.failed = Some(e),
        }
        self.changed.notify_all();
    }
}

impl<B: Backend> Shared<B> {
    /// Brings the table up to date whenever it is asked to.
    pub(super) fn keep_up(&self) {
        while let Some(job) = self.table.next() {
            let applied = job.state.applied;
            let result = self.bring(job);
            if let Err(e) = &result {
                self.fail(e);
            }
            self.table.finish(result.map(|()| applied));
        }
    }

    /// A step of its own, while none is under way.
    pub(super) fn apply(&self, job: Job) -> Result<(), StoreError> {
        let applied = job.state.applied;
        let result = self.bring(job);
        self.table.finish(result.clone().map(|()| applied));
        result
    }

    fn bring(&self, job: Job) -> Result<(), StoreError> {
        let keys: Vec<Key> = job.changes.keys().cloned().collect();
        apply(&self.backend, self.sealer.as_ref(), job.changes, Some(job.state))?;
        self.uncover(&keys, job.last);
        self.make_ballast();
        Ok(())
    }
}

/// Changes and what is said of the log, in one durable transaction.
pub(super) fn apply<B: Backend>(
    backend: &B,
    sealer: Option<&Sealer>,
    mut changes: Changes,
    state: Option<LogState>,
) -> Result<(), StoreError> {
    if let Some(state) = state {
        changes.insert(LOG_KEY.into(), Some(state.encode().into()));
    }
    let batch = batch(sealer, changes);
    let _span = stages::STORE_FLUSH.enter();
    backend.apply_and_flush(batch)
}

/// Changes as the backend takes them: sealed, in the order of its tree, so that neighbours are changed one after the other.
pub(super) fn batch(sealer: Option<&Sealer>, changes: Changes) -> Batch {
    let _span = stages::SEAL_RECORDS.enter();
    let mut ops: Vec<_> = changes
        .into_iter()
        .map(|(key, value)| (key.to_vec(), value.map(|value| value.to_vec())))
        .collect();
    if let Some(sealer) = sealer {
        sealer.seal_all(&mut ops);
    }
    Batch { ops }
}
