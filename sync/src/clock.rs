//! Time as a seam: the only clock that sync and vfs read.

use futures::future::BoxFuture;
use std::time::Duration;

/// A monotonic and a wall clock, and the way to wait.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed start; never goes back.
    fn monotonic(&self) -> Duration;
    /// Wall time since the Unix epoch.
    fn wall(&self) -> Duration;
    /// Waits.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// For tests: time that passes only by waiting, and by hand.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct ByHand(parking_lot::Mutex<Duration>);

#[cfg(test)]
impl ByHand {
    pub(crate) fn pass(&self, duration: Duration) {
        *self.0.lock() += duration;
    }
}

#[cfg(test)]
impl Clock for ByHand {
    fn monotonic(&self) -> Duration {
        *self.0.lock()
    }
    fn wall(&self) -> Duration {
        self.monotonic()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.pass(duration);
        Box::pin(async {})
    }
}
