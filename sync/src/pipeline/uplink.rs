//! How fast bytes may leave this machine, on average.
//!
//! The limit spaces the beginnings of transfers: each fragment of 8 MiB goes at the line's speed, and the next may begin when the
//! limit has paid for it. A transfer under way is never held up, so no miner sees it stall; and over a few fragments the
//! average is what was asked for.

use crate::clock::Clock;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How fast bytes may leave this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UplinkLimit {
    /// As fast as they can.
    #[default]
    Any,
    /// So many in a second, on average; at least one.
    BytesPerSecond(u64),
    /// Not at all.
    Paused,
}

impl From<u64> for UplinkLimit {
    /// 0 is any number.
    fn from(bytes_per_second: u64) -> UplinkLimit {
        match bytes_per_second {
            0 => UplinkLimit::Any,
            bytes => UplinkLimit::BytesPerSecond(bytes),
        }
    }
}

pub(crate) struct Uplink {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// The limit is another.
    changed: Notify,
}

struct State {
    limit: UplinkLimit,
    /// When the bytes that were let go so far will have been paid for.
    paid_at: Duration,
}

impl Uplink {
    pub(crate) fn new(clock: Arc<dyn Clock>, limit: UplinkLimit) -> Uplink {
        let state = State {
            limit,
            paid_at: Duration::ZERO,
        };
        Uplink {
            clock,
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    /// Changes the limit. Who waits for his turn asks again: what was told by the old limit does not hold any more.
    pub(crate) fn set(&self, limit: UplinkLimit) {
        let mut state = self.state.lock();
        if state.limit == limit {
            return;
        }
        *state = State {
            limit,
            paid_at: Duration::ZERO,
        };
        drop(state);
        self.changed.notify_waiters();
    }

    /// Waits as long as nothing may be sent.
    pub(crate) async fn open(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if self.state.lock().limit != UplinkLimit::Paused {
                return;
            }
            changed.await;
        }
    }

    /// Waits until `bytes` may go. Who comes first goes first.
    pub(crate) async fn turn(&self, bytes: u64) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let begins_in = self.state.lock().begins_in(self.clock.monotonic(), bytes);
            let wait = match begins_in {
                Some(Duration::ZERO) => return,
                Some(wait) => wait,
                None => {
                    changed.await;
                    continue;
                }
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = self.clock.sleep(wait) => return,
            }
        }
    }
}

impl State {
    /// In what time so many bytes may go, which are taken for gone then; `None`: not before another limit.
    fn begins_in(&mut self, now: Duration, bytes: u64) -> Option<Duration> {
        match self.limit {
            UplinkLimit::Any => Some(Duration::ZERO),
            UplinkLimit::Paused => None,
            UplinkLimit::BytesPerSecond(limit) => {
                let begins = now.max(self.paid_at);
                self.paid_at = begins + Duration::from_secs_f64(bytes as f64 / limit.max(1) as f64);
                Some(begins - now)
            }
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
        let uplink = Uplink::new(clock.clone(), UplinkLimit::BytesPerSecond(1 << 20));
        send(&uplink, 11);
        // The first goes at once, and each pays for the one after it.
        assert_eq!(clock.monotonic(), Duration::from_secs(80));
    }

    #[test]
    fn no_limit_means_no_waiting_and_a_new_one_holds_at_once() {
        let clock = Arc::new(ByHand::default());
        let uplink = Uplink::new(clock.clone(), UplinkLimit::from(0));
        send(&uplink, 100);
        assert_eq!(clock.monotonic(), Duration::ZERO);
        uplink.set(UplinkLimit::from(8 << 20));
        send(&uplink, 3);
        assert_eq!(clock.monotonic(), Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_pause_holds_everything_that_has_not_begun_until_it_is_over() {
        let clock = Arc::new(ByHand::default());
        let uplink = Uplink::new(clock.clone(), UplinkLimit::Paused);
        let mut turn = Box::pin(uplink.turn(8 << 20));
        assert!((&mut turn).now_or_never().is_none());
        uplink.set(UplinkLimit::Paused);
        assert!((&mut turn).now_or_never().is_none(), "it is still paused");
        uplink.set(UplinkLimit::Any);
        turn.now_or_never().expect("nothing holds it");
        assert!(uplink.open().now_or_never().is_some());
    }

    /// A clock on which no wait ever ends.
    struct Still;

    impl Clock for Still {
        fn monotonic(&self) -> Duration {
            Duration::from_secs(1)
        }
        fn wall(&self) -> Duration {
            self.monotonic()
        }
        fn sleep(&self, _duration: Duration) -> futures::future::BoxFuture<'static, ()> {
            futures::future::pending().boxed()
        }
    }

    #[tokio::test]
    async fn who_waits_by_an_old_limit_goes_by_the_new_one() {
        let uplink = Uplink::new(Arc::new(Still), UplinkLimit::BytesPerSecond(1));
        assert!(uplink.turn(8 << 20).now_or_never().is_some());
        let mut second = Box::pin(uplink.turn(8 << 20));
        let mut third = Box::pin(uplink.turn(8 << 20));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        uplink.set(UplinkLimit::BytesPerSecond(1));
        assert!((&mut second).now_or_never().is_none(), "it is the same limit");
        uplink.set(UplinkLimit::Paused);
        assert!((&mut second).now_or_never().is_none());
        uplink.set(UplinkLimit::BytesPerSecond(2));
        assert!((&mut second).now_or_never().is_some(), "nothing went by this one yet");
        assert!((&mut third).now_or_never().is_none());
        uplink.set(UplinkLimit::Any);
        assert!((&mut third).now_or_never().is_some());
    }
}
