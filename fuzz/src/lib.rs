//! Hostile bytes for decoders: a corpus, mutations of it, and a bound on what a decoder may allocate.
//!
//! A target is a function of a room (`fuzzing.rs` in each) that takes any bytes, and panics where a decoder broke a promise:
//! no panic, no guess, what decodes encodes to the same bytes again. Every target runs in two ways:
//! * [`replay`], in the room's own unit tests: all of `fuzz/corpus/TARGET`, then some thousand seeded mutations of it;
//! * cargo-fuzz (`make fuzz`), which looks for new ones.
//!
//! In both the allocator counts, and a target that holds more at a time than its [`Bound`] fails. Knows no format.

mod alloc;
mod corpus;
mod mutate;

pub use alloc::{Counting, peak_bytes};
pub use corpus::{replay, seeds};

/// Most bytes a target may hold at a time, beside what it was given.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Whatever the input is.
    pub fixed: usize,
    /// For each byte of the input.
    pub per_byte: usize,
}

impl Bound {
    /// Most bytes for an input of this length.
    pub fn bytes(self, length: usize) -> usize {
        self.fixed + self.per_byte * length
    }
}

/// Runs a target on one input. Panics if it does, or if it held more memory than it may. The bound means something only
/// where [`Counting`] is the global allocator.
pub fn check(target: fn(&[u8]), bound: Bound, input: &[u8]) {
    let peak = peak_bytes(|| target(input));
    let most = bound.bytes(input.len());
    assert!(
        peak <= most,
        "{peak} bytes were held for an input of {}; {most} are allowed",
        input.len()
    );
}
