//! A value that tasks wait on.
//!
//! What tokio's watch channel is, with one difference: whoever waits is woken in the order of waiting. The channel spreads
//! those who wait at random, and a simulation needs one seed to be one schedule.

use parking_lot::Mutex;
use std::pin::pin;
use tokio::sync::Notify;

/// See the module head.
#[derive(Default)]
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Watched<T> {
        Watched {
            value: Mutex::new(value),
            changed: Notify::new(),
        }
    }

    pub(crate) fn get(&self) -> T
    where
        T: Copy,
    {
        *self.value.lock()
    }

    /// Wakes everybody if `change` says that there is something new; returns what it says.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let news = change(&mut self.value.lock());
        if news {
            self.changed.notify_waiters();
        }
        news
    }

    /// Waits until `done` accepts the value, now or after a change.
    pub(crate) async fn until(&self, mut done: impl FnMut(&T) -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Waits from here on, so that a change between the look and the wait is not missed.
            changed.as_mut().enable();
            if done(&self.value.lock()) {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test(flavor = "current_thread")]
    async fn whoever_waits_sees_what_it_waits_for() {
        let watched = Watched::new(1);
        assert!(watched.until(|value| *value == 1).now_or_never().is_some());
        let mut two = pin!(watched.until(|value| *value == 2));
        assert!(two.as_mut().now_or_never().is_none());
        assert!(!watched.change(|_| false));
        assert!(two.as_mut().now_or_never().is_none());
        assert!(watched.change(|value| {
            *value += 1;
            true
        }));
        assert!(two.now_or_never().is_some());
        assert_eq!(watched.get(), 2);
    }
}
