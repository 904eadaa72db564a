//! Randomness of a world: streams that follow from the seed alone.

use cessfs_crypto::Entropy;
use std::time::Duration;

/// One stream (SplitMix64). Each part of a world has its own, so that a draw here moves nothing there.
#[derive(Clone, Debug)]
pub struct Dice(u64);

fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Dice {
    /// The stream of a seed for one purpose.
    pub fn new(seed: u64, purpose: &str) -> Dice {
        let hashed = purpose.bytes().fold(seed, |hash, byte| {
            mix(hash.wrapping_add(u64::from(byte)).wrapping_add(0x9e37_79b9_7f4a_7c15))
        });
        Dice(hashed)
    }

    /// The next number.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing to choose from");
        self.word() % bound
    }

    /// True once in `odds`.
    pub fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Puts them in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// A time from `from` to `to`, short ones as likely as long ones (by orders of magnitude).
    pub fn time(&mut self, from: Duration, to: Duration) -> Duration {
        let (from, to) = (from.as_micros().max(1) as f64, to.as_micros().max(1) as f64);
        let unit = self.below(1 << 20) as f64 / (1u64 << 20) as f64;
        Duration::from_micros((from * (to / from).powf(unit)) as u64)
    }

    /// Bytes that do not repeat.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.fill(&mut out);
        out
    }
}

impl Entropy for Dice {
    fn fill(&mut self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            part.copy_from_slice(&self.word().to_le_bytes()[..part.len()]);
        }
    }
}
