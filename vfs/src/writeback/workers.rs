//! The background threads: some write back, one keeps house (journal, clean flags, space, eviction, heartbeat).
//!
//! The waiting here is only a pace: what is due is decided by the clock of the volume.

use crate::data::{Moment, Shared};
use crate::error::VfsError;
use crate::limits::{MARK_SWEEP_PAGES, TICK, WRITEBACK_THREADS};
use crate::pace::{Paced, Stop, Threads};
use std::sync::Arc;
use std::time::Duration;

/// The threads of a volume, once started.
#[derive(Default)]
pub(crate) struct Workers(Threads);

impl Workers {
    pub(crate) fn start(&self, shared: &Arc<Shared>) -> Result<(), VfsError> {
        for number in 0..WRITEBACK_THREADS {
            self.0
                .start(&format!("writeback-{number}"), TICK, shared, |shared, stop| {
                    while !is_asked_once_aside(shared, stop) && shared.write_back_next() {}
                })?;
        }
        self.0.start("passthrough", TICK, shared, |shared, _| {
            // What failed is in `errors`, and tried again.
            let _ = shared.tend_passes();
        })?;
        self.0
            .start("read-ahead", Duration::ZERO, shared, |shared, _| shared.read_ahead())?;
        self.0.start("cache", TICK, shared, |shared, _| {
            if let Err(e) = shared.keep_house() {
                shared.errors.add(format!("the cache cannot be kept in order: {e}"));
            }
        })?;
        Ok(())
    }

    /// Asks the threads to end, and waits for them.
    pub(crate) fn stop(&self) {
        self.0.stop();
    }
}

/// Waits as long as writing back has to step aside; true when it is time to end.
fn is_asked_once_aside(shared: &Shared, stop: &Stop) -> bool {
    while let Some(pause) = shared.write_back_steps_aside() {
        if stop.wait(pause) {
            return true;
        }
    }
    stop.is_asked()
}

impl Paced for Shared {
    fn tell(&self, trouble: String) {
        self.errors.add(trouble);
    }
}

impl Shared {
    /// One round of housekeeping. A step that fails, for one bad file perhaps, keeps no other from its work.
    pub(crate) fn keep_house(&self) -> Result<(), VfsError> {
        let _span = crate::stages::HOUSEKEEPING.enter();
        let content_came = self.content_came();
        let began = Moment::now(&*self.core.clock);
        self.settle_young(false);
        let steps = [
            self.persist_aged(),
            self.settle_submitted(),
            if content_came { self.beat_since(began) } else { Ok(()) },
            self.reclaim(),
            self.remove_strays(),
            self.sweep_marks(),
            self.make_room(),
            self.send_for_room(),
        ];
        steps.into_iter().collect()
    }

    fn sweep_marks(&self) -> Result<(), VfsError> {
        for _ in 0..MARK_SWEEP_PAGES {
            if !self.core.marks.sweep()? {
                break;
            }
        }
        Ok(())
    }
}
