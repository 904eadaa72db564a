//! The heartbeat: a time in the store, [`HEARTBEAT_MARGIN`] before which what was written to backing files is in the store.
//!
//! Backing files have their times from the wall clock. That is set now and then, and goes on while the machine sleeps: what
//! was written a moment before it went forward looks old, and may not be in the store. So for that margin, and at most
//! twice as long, what is noted is the time that it would be without the step. A step back is noted at once.

use super::Shared;
use crate::error::VfsError;
use crate::limits::{HEARTBEAT_EVERY, HEARTBEAT_MARGIN};
use crate::records;
use cessfs_sync::{Batch, Clock};
use std::time::Duration;

/// Key of the heartbeat (a counter, seconds).
pub(crate) const HEARTBEAT_KEY: &[u8] = b"sheartbeat";

/// What both clocks said at once.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    wall: Duration,
    monotonic: Duration,
}

impl Moment {
    pub(crate) fn now(clock: &dyn Clock) -> Moment {
        Moment {
            wall: clock.wall(),
            monotonic: clock.monotonic(),
        }
    }

    /// What the wall clock would say at `monotonic` if nobody had set it since.
    fn wall_at(&self, monotonic: Duration) -> Duration {
        self.wall + monotonic.saturating_sub(self.monotonic)
    }
}

/// The last heartbeat, and how low the wall clock stood lately.
pub(super) struct Heartbeat {
    noted: Duration,
    /// The lowest since `since` (monotonic), and of the time before that.
    lowest: Moment,
    lowest_before: Moment,
    since: Duration,
}

impl Heartbeat {
    pub(super) fn new(clock: &dyn Clock) -> Heartbeat {
        let now = Moment::now(clock);
        Heartbeat {
            noted: Duration::ZERO,
            lowest: now,
            lowest_before: now,
            since: now.monotonic,
        }
    }

    /// The time that may be noted `now`.
    fn time(&mut self, now: Moment) -> Duration {
        if now.monotonic.saturating_sub(self.since) >= HEARTBEAT_MARGIN {
            self.lowest_before = std::mem::replace(&mut self.lowest, now);
            self.since = now.monotonic;
        }
        if now.wall < self.lowest.wall_at(now.monotonic) {
            self.lowest = now;
        }
        let before = self.lowest_before.wall_at(now.monotonic);
        before.min(self.lowest.wall_at(now.monotonic))
    }
}

impl Shared {
    /// Notes in the store how far it is up to date with the backing files: whoever brought it there began at `began`, and what was
    /// written since he may have missed.
    pub(crate) fn beat_since(&self, began: Moment) -> Result<(), VfsError> {
        let mut heartbeat = self.heartbeat.lock();
        // The clock may have been set back meanwhile.
        let time = heartbeat
            .time(began)
            .min(heartbeat.time(Moment::now(&*self.core.clock)));
        let progress = time.checked_sub(heartbeat.noted);
        if progress.is_some_and(|progress| progress < HEARTBEAT_EVERY) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(HEARTBEAT_KEY, records::encode_counter(time.as_secs()));
        self.core.store.commit(batch)?;
        heartbeat.noted = Duration::from_secs(time.as_secs());
        Ok(())
    }

    /// The same when nothing was written meanwhile.
    #[cfg(test)]
    pub(crate) fn beat(&self) -> Result<(), VfsError> {
        self.beat_since(Moment::now(&*self.core.clock))
    }
}
