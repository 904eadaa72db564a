//! How large the network's fragments are, asked at run time.
//!
//! CESS has one answer, and a process that is not a simulation never sees another: [`fragment_bytes`] is
//! [`FRAGMENT_BYTES`], and everything else follows from it. A simulation runs whole lives of a volume in a fraction of a
//! second; there 96 MiB of hashing for every pack would be all that it does. So it may say, before anybody has asked and once
//! for the whole process, that fragments are small. Formats, records and the code itself are the same for either.

use crate::limits::{DATA_FRAGMENTS, FRAGMENT_BYTES, SEGMENT_BYTES, STRIPE_BYTES};
use std::sync::OnceLock;

static FRAGMENT: OnceLock<usize> = OnceLock::new();

/// Bytes of a fragment. The first call decides for the life of the process.
#[inline]
pub fn fragment_bytes() -> usize {
    *FRAGMENT.get_or_init(|| FRAGMENT_BYTES)
}

/// Bytes of a segment: its data fragments.
#[inline]
pub fn segment_bytes() -> usize {
    DATA_FRAGMENTS * fragment_bytes()
}

/// Bytes of each column that are encoded at once.
#[inline]
pub(crate) fn stripe_bytes() -> usize {
    STRIPE_BYTES.min(fragment_bytes())
}

/// Whether sizes are those of CESS. Whoever wires real seams asserts it.
pub fn is_cess() -> bool {
    segment_bytes() == SEGMENT_BYTES
}

/// Makes this process one that simulates a network of smaller fragments.
///
/// # Panics
/// If sizes were asked for before, or the size is not a power of two from 4 KiB to that of CESS.
#[cfg(feature = "sim")]
pub fn simulate(bytes: usize) {
    let possible = bytes.is_power_of_two() && (4096..=FRAGMENT_BYTES).contains(&bytes);
    assert!(possible, "fragments of {bytes} bytes");
    let set = FRAGMENT.set(bytes);
    assert!(
        set.is_ok() || fragment_bytes() == bytes,
        "somebody works with the sizes of CESS already"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_simulation_sizes_are_those_of_cess() {
        assert!(is_cess());
        assert_eq!((fragment_bytes(), segment_bytes()), (8 << 20, 32 << 20));
        assert_eq!(stripe_bytes(), STRIPE_BYTES);
    }
}
