//! Threads at a pace: a step, a pause, the next step, until they are asked to end.
//!
//! Promises: a step that panics costs that step. The mistake is told, and the thread goes on after its pause: without it a volume
//! looks well, and nothing is written back, evicted or deleted until the next mount.

use parking_lot::{Condvar, Mutex};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What threads work for. They end with it.
pub(crate) trait Paced: Send + Sync + 'static {
    /// Keeps a sentence for whoever asks what is wrong.
    fn tell(&self, trouble: String);
}

/// Whether threads shall end.
#[derive(Default)]
pub(crate) struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits; true when it is time to end.
    #[expect(
        clippy::disallowed_methods,
        reason = "a pace of real threads; a simulated volume has none"
    )]
    pub(crate) fn wait(&self, pause: Duration) -> bool {
        let mut asked = self.asked.lock();
        if !*asked {
            self.changed.wait_for(&mut asked, pause);
        }
        *asked
    }

    pub(crate) fn is_asked(&self) -> bool {
        *self.asked.lock()
    }

    fn ask(&self) {
        *self.asked.lock() = true;
        self.changed.notify_all();
    }
}

/// Threads of a volume, once started.
#[derive(Default)]
pub(crate) struct Threads {
    stop: Arc<Stop>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Starts one that takes a step every `pause`, and steps back behind whoever waits for an answer.
    pub(crate) fn start<T: Paced>(
        &self,
        name: &str,
        pause: Duration,
        whose: &Arc<T>,
        step: fn(&T, &Stop),
    ) -> io::Result<()> {
        let (weak, stop): (Weak<T>, _) = (Arc::downgrade(whose), self.stop.clone());
        let what = name.to_owned();
        #[expect(clippy::disallowed_methods, reason = "only where the volume was opened with threads")]
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            cessfs_sync::priority::step_back();
            while !stop.wait(pause) {
                let Some(of) = weak.upgrade() else { return };
                // As a request that panics: its locks are open again, and what it had begun to journal is not in a batch.
                if catch_unwind(AssertUnwindSafe(|| step(&of, &stop))).is_err() {
                    of.tell(format!(
                        "a mistake in cessfs ended what the thread `{what}` did; it begins again, please report it"
                    ));
                }
            }
        })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Asks the threads to end, and waits for them.
    pub(crate) fn stop(&self) {
        self.stop.ask();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // It can only have panicked where it told of a panic: there is nothing left of it to wait for.
            let _ = thread.join();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Not joined: the last one to hold the volume may be such a thread itself.
        self.stop.ask();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    #[derive(Default)]
    struct Work {
        steps: AtomicU32,
        told: Mutex<Vec<String>>,
    }

    impl Paced for Work {
        fn tell(&self, trouble: String) {
            self.told.lock().push(trouble);
        }
    }

    #[test]
    fn a_step_that_panics_is_told_and_the_next_one_goes() {
        let (work, threads) = (Arc::new(Work::default()), Threads::default());
        let step = |work: &Work, _: &Stop| {
            assert!(work.steps.fetch_add(1, Ordering::SeqCst) > 0, "on purpose");
        };
        threads.start("upkeep", Duration::from_millis(1), &work, step).unwrap();
        let begun = Instant::now();
        while work.steps.load(Ordering::SeqCst) < 3 {
            assert!(begun.elapsed() < Duration::from_secs(30), "the thread has ended");
            thread::yield_now();
        }
        threads.stop();
        let told = work.told.lock();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains("a mistake in cessfs") && told[0].contains("upkeep"),
            "{told:?}"
        );
        drop(told);
        assert_eq!(Arc::strong_count(&work), 1, "its threads have ended");
    }
}
