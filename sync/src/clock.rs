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
