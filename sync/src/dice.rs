//! The process's randomness, shared: sealing threads, miner choice and jitter draw from one source.

use cessfs_crypto::Entropy;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// A cheap handle on one [`Entropy`]. The source is locked for each draw only, so that threads can seal side by side.
#[derive(Clone)]
pub(crate) struct Dice {
    source: Arc<Mutex<Box<dyn Entropy>>>,
}

impl Dice {
    pub(crate) fn new(source: Box<dyn Entropy>) -> Dice {
        Dice {
            source: Arc::new(Mutex::new(source)),
        }
    }

    /// A number below `bound`. The bias of the remainder (below 2^-32 for any bound used here) does not matter for choices.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing to choose from");
        let mut bytes = [0; 8];
        self.source.lock().fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }

    /// Puts `items` in random order (Fisher-Yates).
    pub(crate) fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// Between half of `duration` and all of it, so that retries of many columns do not march in step.
    pub(crate) fn jitter(&self, duration: Duration) -> Duration {
        let half = duration / 2;
        half + Duration::from_nanos(self.below(half.as_nanos() as u64 + 1))
    }
}

impl Entropy for Dice {
    fn fill(&mut self, out: &mut [u8]) {
        self.source.lock().fill(out);
    }
}
