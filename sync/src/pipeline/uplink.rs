//! How fast bytes may leave this machine, on average.
//!
//! The limit spaces the beginnings of transfers: each fragment of 8 MiB goes at the line's speed, and the next may begin when the
//! limit has paid for it. A transfer under way is never held up, so no miner sees it stall; and over a few fragments the
//! average is what was asked for.

use crate::clock::Clock;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) struct Uplink {
    clock: Arc<dyn Clock>,
    /// Bytes per second; 0: no limit.
    limit: AtomicU64,
    /// When the bytes that were let go so far will have been paid for.
    paid_at: Mutex<Duration>,
}

impl Uplink {
    pub(crate) fn new(clock: Arc<dyn Clock>, bytes_per_second: u64) -> Uplink {
        Uplink {
            clock,
            limit: AtomicU64::new(bytes_per_second),
            paid_at: Mutex::default(),
        }
    }

    /// Changes the limit; what waits already waits as long as it was told.
    pub(crate) fn set(&self, bytes_per_second: u64) {
        self.limit.store(bytes_per_second, Ordering::Relaxed);
        *self.paid_at.lock() = Duration::ZERO;
    }

    /// Waits until `bytes` may go. Who comes first goes first.
    pub(crate) async fn turn(&self, bytes: u64) {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit == 0 {
            return;
        }
        let wait = {
            let now = self.clock.monotonic();
            let mut paid_at = self.paid_at.lock();
            let begins = now.max(*paid_at);
            *paid_at = begins + Duration::from_secs_f64(bytes as f64 / limit as f64);
            begins - now
        };
        if !wait.is_zero() {
            self.clock.sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ByHand;
    use futures::FutureExt;

    fn send(uplink: &Uplink, times: usize) {
        for _ in 0..times {
            uplink.turn(8 << 20).now_or_never().expect("this clock does not wait");
        }
    }

    #[test]
    fn the_average_is_the_limit() {
        let clock = Arc::new(ByHand::default());
        let uplink = Uplink::new(clock.clone(), 1 << 20);
        send(&uplink, 11);
        // The first goes at once, and each pays for the one after it.
        assert_eq!(clock.monotonic(), Duration::from_secs(80));
    }

    #[test]
    fn no_limit_means_no_waiting_and_a_new_one_holds_at_once() {
        let clock = Arc::new(ByHand::default());
        let uplink = Uplink::new(clock.clone(), 0);
        send(&uplink, 100);
        assert_eq!(clock.monotonic(), Duration::ZERO);
        uplink.set(8 << 20);
        send(&uplink, 3);
        assert_eq!(clock.monotonic(), Duration::from_secs(2));
    }
}
