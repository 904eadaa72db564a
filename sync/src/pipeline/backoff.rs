//! Pauses between attempts: doubling up to a bound, with jitter.

use crate::dice::Dice;
use std::time::Duration;

pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff {
            first,
            longest,
            next: first,
        }
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    pub(super) fn next(&mut self, dice: &Dice) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(self.longest);
        dice.jitter(pause)
    }
}
