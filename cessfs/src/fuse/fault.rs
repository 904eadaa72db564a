//! What becomes of failed requests: an errno for the caller, a line for the log, a count for a flood.

use crate::limits::{WARN_BURST, WARN_WINDOW};
use cessfs_sync::Clock;
use cessfs_vfs::VfsError;
use fuser::Errno;
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Turns errors into errnos and keeps the log readable.
pub struct Faults {
    clock: Arc<dyn Clock>,
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    started: Duration,
    logged: u32,
    swallowed: u32,
}

impl Faults {
    /// Nothing failed yet.
    pub fn new(clock: Arc<dyn Clock>) -> Faults {
        Faults {
            clock,
            window: Mutex::new(Window::default()),
        }
    }

    /// The errno of an error. What an application may expect (no such file) is logged at debug level; what it may not (I/O
    /// error, no space) is a warning, so many at a time.
    pub fn errno(&self, op: &'static str, ino: u64, error: &VfsError) -> Errno {
        let errno = error.errno();
        if matches!(errno, libc::EIO | libc::ENOSPC) {
            if let Some(swallowed) = self.may_warn() {
                tracing::warn!(op, ino, errno, swallowed, "{error}");
            }
        } else {
            tracing::debug!(op, ino, errno, "{error}");
        }
        Errno::from_i32(errno)
    }

    /// Runs a request. If it panics its reply, dropped on the way, answers EIO.
    pub fn guard(&self, op: &'static str, work: impl FnOnce()) {
        let _span = super::stages::of(op).enter();
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            // Where and why was logged when it happened.
            tracing::error!(op, "a request panicked; please report it");
        }
    }

    /// `Some(lines swallowed since the last one)` if another line may be written.
    fn may_warn(&self) -> Option<u32> {
        let now = self.clock.monotonic();
        let mut window = self.window.lock();
        if now.saturating_sub(window.started) >= WARN_WINDOW {
            window.started = now;
            window.logged = 0;
        }
        if window.logged >= WARN_BURST {
            window.swallowed += 1;
            return None;
        }
        window.logged += 1;
        Some(std::mem::take(&mut window.swallowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::BoxFuture;

    struct ManualClock(Mutex<Duration>);
    impl Clock for ManualClock {
        fn monotonic(&self) -> Duration {
            *self.0.lock()
        }
        fn wall(&self) -> Duration {
            self.monotonic()
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }
    }

    #[test]
    fn a_flood_is_counted_not_logged() {
        let clock = Arc::new(ManualClock(Mutex::new(Duration::from_secs(1000))));
        let faults = Faults::new(clock.clone());
        for _ in 0..WARN_BURST {
            assert_eq!(faults.may_warn(), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(faults.may_warn(), None);
        }
        *clock.0.lock() += WARN_WINDOW;
        assert_eq!(faults.may_warn(), Some(7));
        assert_eq!(faults.may_warn(), Some(0));
    }

    #[test]
    fn errnos_pass_through_and_panics_stop_here() {
        let faults = Faults::new(Arc::new(ManualClock(Mutex::new(Duration::ZERO))));
        assert_eq!(faults.errno("lookup", 1, &VfsError::NotFound).code(), libc::ENOENT);
        let mut after = false;
        faults.guard("read", || panic!("on purpose"));
        faults.guard("read", || after = true);
        assert!(after);
    }
}
