//! The freeze: changes wait for a moment while a snapshot is being taken, so that it is the tree of one instant.
//!
//! Whoever changes something asks before it takes any lock, and waits at most [`SNAPSHOT_FREEZE_MAX`]: after that it ends the
//! freeze itself, and the snapshot is not taken. So nobody ever waits for a disk or a network that does not answer.

use crate::limits::SNAPSHOT_FREEZE_MAX;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
pub(super) struct Freeze {
    on: AtomicBool,
    lock: Mutex<()>,
    thawed: Condvar,
}

impl Freeze {
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::SeqCst)
    }

    pub(super) fn begin(&self) {
        self.on.store(true, Ordering::SeqCst);
    }

    pub(super) fn end(&self) {
        let _lock = self.lock.lock();
        self.on.store(false, Ordering::SeqCst);
        self.thawed.notify_all();
    }

    /// Returns when there is none.
    #[expect(
        clippy::disallowed_methods,
        reason = "a bound for real threads; a simulation has one, which never waits here"
    )]
    pub(super) fn wait(&self) {
        if !self.is_on() {
            return;
        }
        let mut lock = self.lock.lock();
        while self.is_on() {
            if self.thawed.wait_for(&mut lock, SNAPSHOT_FREEZE_MAX).timed_out() {
                self.on.store(false, Ordering::SeqCst);
                self.thawed.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn whoever_waits_too_long_ends_it() {
        let freeze = Arc::new(Freeze::default());
        freeze.wait();
        freeze.begin();
        let waiting = std::thread::spawn({
            let freeze = freeze.clone();
            move || freeze.wait()
        });
        waiting.join().unwrap();
        assert!(!freeze.is_on());
        freeze.begin();
        let waiting = std::thread::spawn({
            let freeze = freeze.clone();
            move || {
                freeze.wait();
                freeze.is_on()
            }
        });
        freeze.end();
        assert!(!waiting.join().unwrap());
    }
}
