//! The background threads: some write back, one keeps house (journal, clean flags, space, eviction, heartbeat).
//!
//! The waiting here is only a pace: what is due is decided by the clock of the volume.

use crate::data::Shared;
use crate::error::VfsError;
use crate::limits::{MARK_SWEEP_PAGES, TICK, WRITEBACK_THREADS};
use parking_lot::{Condvar, Mutex};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The threads of a volume, once started.
#[derive(Default)]
pub(crate) struct Workers {
    stop: Arc<Stop>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits; true when it is time to end.
    #[expect(
        clippy::disallowed_methods,
        reason = "a pace of real threads; a simulated volume has none"
    )]
    fn wait(&self, pause: Duration) -> bool {
        let mut asked = self.asked.lock();
        if !*asked {
            self.changed.wait_for(&mut asked, pause);
        }
        *asked
    }

    /// Waits as long as writing back has to step aside; true when it is time to end.
    fn while_aside(&self, shared: &Shared) -> bool {
        while let Some(pause) = shared.write_back_steps_aside() {
            if self.wait(pause) {
                return true;
            }
        }
        *self.asked.lock()
    }
}

impl Workers {
    pub(crate) fn start(&self, shared: &Arc<Shared>) -> Result<(), VfsError> {
        for number in 0..WRITEBACK_THREADS {
            self.spawn(format!("writeback-{number}"), shared, |shared, stop| {
                while !stop.while_aside(shared) && shared.write_back_next() {}
            })?;
        }
        self.spawn("passthrough".into(), shared, |shared, _| {
            // What failed is in `errors`, and tried again.
            let _ = shared.tend_passes();
        })?;
        self.spawn("cache".into(), shared, |shared, _| {
            if let Err(e) = shared.keep_house() {
                shared.errors.add(format!("the cache cannot be kept in order: {e}"));
            }
        })
    }

    fn spawn(&self, name: String, shared: &Arc<Shared>, step: fn(&Shared, &Stop)) -> Result<(), VfsError> {
        let (weak, stop): (Weak<Shared>, _) = (Arc::downgrade(shared), self.stop.clone());
        #[expect(clippy::disallowed_methods, reason = "only where the volume was opened with threads")]
        let thread = thread::Builder::new().name(name).spawn(move || {
            cessfs_sync::priority::step_back();
            while !stop.wait(TICK) {
                let Some(shared) = weak.upgrade() else { return };
                step(&shared, &stop);
            }
        })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Asks the threads to end, and waits for them.
    pub(crate) fn stop(&self) {
        *self.stop.asked.lock() = true;
        self.stop.changed.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // A thread that panicked has said so; there is nothing left of it to wait for.
            let _ = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        *self.stop.asked.lock() = true;
        self.stop.changed.notify_all();
    }
}

impl Shared {
    /// One round of housekeeping. A step that fails, for one bad file perhaps, keeps no other from its work.
    pub(crate) fn keep_house(&self) -> Result<(), VfsError> {
        let _span = crate::stages::HOUSEKEEPING.enter();
        let content_came = self.content_came();
        self.settle_young(false);
        let steps = [
            self.persist_aged(),
            self.settle_submitted(),
            if content_came { self.beat() } else { Ok(()) },
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
