//! Whoever uses the mount goes before what is sent.
//!
//! A lower priority of the background's threads is not enough. What they began goes on: on the other core, in the kernel, on
//! the disk, and at whoever takes what is sent, if that is on the same machine or the same line. Small requests, of which a
//! program makes thousands one after the other, wait behind it. So background work that is cut into pieces asks before each
//! piece ([`Foreground::hold`]), and steps aside while many small requests come.
//!
//! ```text
//!             few small requests                           many
//!   +--------------------------------+      +--------------------------------+
//!   | go; what may be held grows by  |----->| wait, as long as there is some- |
//!   | three times the time           |<-----| thing left of what may be held  |
//!   +--------------------------------+      +--------------------------------+
//! ```
//!
//! Promises: background work is never held longer than [`FOREGROUND_HELD_MAX`] in one piece, and in the long run gets at least a
//! quarter of the time however busy the mount is. Large reads and writes hold nothing: they are not one waiting for the other,
//! and a copy of many gigabytes would only be sent later.
//! Refuses: to know what the work is, or who asks. Whatever waits for the work itself asks nothing meanwhile, and so holds nothing.

use crate::clock::Clock;
use crate::limits::{
    FOREGROUND_HELD_MAX, FOREGROUND_PAUSE, FOREGROUND_REFILL, FOREGROUND_REQUESTS_MIN, FOREGROUND_WINDOW,
};
use crate::stages;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// See the module head.
pub struct Foreground {
    clock: Arc<dyn Clock>,
    /// A [`Recent`], packed.
    recent: AtomicU64,
    budget: Mutex<Budget>,
}

/// Small requests of the running window of time, and of the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Recent {
    /// Number of the running window.
    window: u32,
    before: u16,
    now: u16,
}

impl Recent {
    fn unpack(packed: u64) -> Recent {
        Recent {
            window: (packed >> 32) as u32,
            before: (packed >> 16) as u16,
            now: packed as u16,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.window) << 32 | u64::from(self.before) << 16 | u64::from(self.now)
    }

    /// What it has become when this window runs.
    fn at(self, window: u32) -> Recent {
        match window.wrapping_sub(self.window) {
            0 => self,
            1 => Recent {
                window,
                before: self.now,
                now: 0,
            },
            _ => Recent {
                window,
                ..Recent::default()
            },
        }
    }

    fn one_more(self) -> Recent {
        Recent {
            now: self.now.saturating_add(1),
            ..self
        }
    }

    fn is_many(self) -> bool {
        self.before.saturating_add(self.now) >= FOREGROUND_REQUESTS_MIN
    }
}

/// How long the background may still be held.
struct Budget {
    left: Duration,
    /// When that was so.
    at: Duration,
    /// It is held since then.
    holds: bool,
}

impl Foreground {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Foreground {
        let budget = Budget {
            left: FOREGROUND_HELD_MAX,
            at: clock.monotonic(),
            holds: false,
        };
        Foreground {
            clock,
            recent: AtomicU64::new(0),
            budget: Mutex::new(budget),
        }
    }

    /// Somebody waits for the answer to a small request.
    pub fn note(&self) {
        let window = self.window(self.clock.monotonic());
        let counted = |packed| Some(Recent::unpack(packed).at(window).one_more().pack());
        let _it_never_refuses = self.recent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
    }

    /// Before a piece of background work: how long to wait before asking again, or `None` to go on. Asked by several at once, it
    /// gives all the same answer.
    pub fn hold(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        let recent = Recent::unpack(self.recent.load(Ordering::Relaxed));
        let many = recent.at(self.window(now)).is_many();
        let mut budget = self.budget.lock();
        let passed = now.saturating_sub(budget.at);
        // Whoever was held asks again soon. If nobody did, nobody was.
        let held = if budget.holds {
            passed.min(FOREGROUND_PAUSE * 2)
        } else {
            Duration::ZERO
        };
        let refilled = (passed - held).saturating_mul(FOREGROUND_REFILL);
        budget.left = budget
            .left
            .saturating_sub(held)
            .saturating_add(refilled)
            .min(FOREGROUND_HELD_MAX);
        budget.at = now;
        budget.holds = many && budget.left >= FOREGROUND_PAUSE;
        budget.holds.then_some(FOREGROUND_PAUSE)
    }

    /// Waits until the next piece of background work may go on.
    pub(crate) async fn give_way(&self) {
        let Some(mut pause) = self.hold() else { return };
        let _span = stages::GIVE_WAY.enter();
        loop {
            self.clock.sleep(pause).await;
            match self.hold() {
                Some(next) => pause = next,
                None => return,
            }
        }
    }

    /// The low bits of its number; only neighbours are told apart.
    fn window(&self, now: Duration) -> u32 {
        (now.as_nanos() / FOREGROUND_WINDOW.as_nanos()) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ByHand;
    use futures::FutureExt;

    fn foreground() -> (Arc<ByHand>, Foreground) {
        let clock = Arc::new(ByHand::default());
        clock.pass(Duration::from_secs(100));
        (clock.clone(), Foreground::new(clock))
    }

    fn many(foreground: &Foreground) {
        (0..FOREGROUND_REQUESTS_MIN).for_each(|_| foreground.note());
    }

    #[test]
    fn few_requests_hold_nothing_and_many_do_until_they_are_over() {
        let (clock, foreground) = foreground();
        (1..FOREGROUND_REQUESTS_MIN).for_each(|_| foreground.note());
        assert_eq!(foreground.hold(), None);
        foreground.note();
        assert_eq!(foreground.hold(), Some(FOREGROUND_PAUSE));
        clock.pass(FOREGROUND_WINDOW);
        assert!(foreground.hold().is_some(), "they were only just there");
        clock.pass(FOREGROUND_WINDOW);
        assert_eq!(foreground.hold(), None);
    }

    #[test]
    fn requests_far_apart_are_few() {
        let (clock, foreground) = foreground();
        for _ in 0..100 {
            foreground.note();
            assert_eq!(foreground.hold(), None);
            clock.pass(FOREGROUND_WINDOW);
        }
    }

    /// A busy mount for so long, and background work in pieces of 10 ms: how long that worked, and the longest time it was held.
    fn busy_for(clock: &ByHand, foreground: &Foreground, duration: Duration) -> (Duration, Duration) {
        let end = clock.monotonic() + duration;
        let (mut worked, mut longest) = (Duration::ZERO, Duration::ZERO);
        while clock.monotonic() < end {
            let began = clock.monotonic();
            many(foreground);
            while let Some(pause) = foreground.hold() {
                clock.pass(pause);
                many(foreground);
            }
            longest = longest.max(clock.monotonic() - began);
            let piece = Duration::from_millis(10);
            clock.pass(piece);
            worked += piece;
        }
        (worked, longest)
    }

    #[test]
    fn a_mount_that_is_always_busy_leaves_a_quarter_of_the_time() {
        let (clock, foreground) = foreground();
        let minute = Duration::from_secs(60);
        let (_, longest) = busy_for(&clock, &foreground, minute);
        assert!(
            longest <= FOREGROUND_HELD_MAX && longest > FOREGROUND_HELD_MAX * 9 / 10,
            "{longest:?}"
        );
        let (worked, longest) = busy_for(&clock, &foreground, minute);
        assert!(worked >= minute / 4 && worked < minute / 3, "{worked:?} of a minute");
        assert!(longest < Duration::from_millis(100), "{longest:?}");
    }

    #[test]
    fn a_pause_of_the_mount_gives_back_what_may_be_held() {
        let (clock, foreground) = foreground();
        busy_for(&clock, &foreground, Duration::from_secs(60));
        clock.pass(FOREGROUND_HELD_MAX);
        many(&foreground);
        let mut held = Duration::ZERO;
        while let Some(pause) = foreground.hold() {
            clock.pass(pause);
            held += pause;
            many(&foreground);
        }
        assert!(held > FOREGROUND_HELD_MAX * 9 / 10, "{held:?}");
    }

    #[test]
    fn who_gives_way_goes_on_when_the_mount_is_quiet() {
        let (clock, foreground) = foreground();
        many(&foreground);
        let before = clock.monotonic();
        foreground.give_way().now_or_never().expect("this clock does not wait");
        let waited = clock.monotonic() - before;
        assert!(
            waited >= FOREGROUND_WINDOW && waited <= FOREGROUND_WINDOW * 3,
            "{waited:?}"
        );
    }
}
