//! Recent latencies of ranged GETs and the hedge delay they suggest: twice the 95th percentile, so that one in twenty may take
//! its time and still is not given up.

use crate::limits::{HEDGE_DELAY_MAX, HEDGE_DELAY_MIN, HEDGE_DELAY_UNKNOWN, LATENCIES_KEPT};
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Default)]
pub(super) struct Latencies {
    recent: VecDeque<Duration>,
}

impl Latencies {
    pub(super) fn add(&mut self, latency: Duration) {
        if self.recent.len() == LATENCIES_KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(latency);
    }

    pub(super) fn hedge_delay(&self) -> Duration {
        if self.recent.is_empty() {
            return HEDGE_DELAY_UNKNOWN;
        }
        let mut sorted: Vec<Duration> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        let p95 = sorted[(sorted.len() - 1) * 95 / 100];
        (p95 * 2).clamp(HEDGE_DELAY_MIN, HEDGE_DELAY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hedge_delay_is_twice_the_p95_within_bounds() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.hedge_delay(), HEDGE_DELAY_UNKNOWN);
        for ms in 1..=100 {
            latencies.add(Duration::from_millis(ms * 10));
        }
        assert_eq!(latencies.hedge_delay(), Duration::from_millis(1900));
        for _ in 0..LATENCIES_KEPT {
            latencies.add(Duration::from_millis(1));
        }
        assert_eq!(latencies.hedge_delay(), HEDGE_DELAY_MIN);
        latencies = Latencies::default();
        latencies.add(Duration::from_secs(60));
        assert_eq!(latencies.hedge_delay(), HEDGE_DELAY_MAX);
    }
}
