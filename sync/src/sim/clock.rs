//! A clock that runs faster than time: minutes of waiting pass in a moment, while work takes what it takes.

#![expect(clippy::disallowed_methods, reason = "this clock runs by the real one, only faster")]

use crate::clock::Clock;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// How much faster.
const SPEED: u32 = 100;

/// See the module head.
pub struct SimClock {
    began: Instant,
    skipped: Mutex<Duration>,
}

impl SimClock {
    /// Starts at zero.
    #[allow(clippy::new_without_default)]
    pub fn new() -> SimClock {
        SimClock {
            began: Instant::now(),
            skipped: Mutex::default(),
        }
    }

    /// So much time passes at once. Whoever sleeps does not notice.
    pub fn skip(&self, duration: Duration) {
        *self.skipped.lock() += duration;
    }
}

impl Clock for SimClock {
    fn monotonic(&self) -> Duration {
        self.began.elapsed() * SPEED + *self.skipped.lock()
    }

    fn wall(&self) -> Duration {
        Duration::from_secs(1_700_000_000) + self.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration / SPEED).boxed()
    }
}
