//! `cessfs::fuzzing::config`, for cargo-fuzz.
#![no_main]

use cessfs_fuzz::{Bound, Counting, check};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// As in the replay of the corpus.
const BOUND: Bound = Bound {
    fixed: 128 << 10,
    per_byte: 1024,
};

fuzz_target!(|input: &[u8]| check(cessfs::fuzzing::config, BOUND, input));
