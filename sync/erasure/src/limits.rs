//! Sizes of the network's erasure code.

/// Bytes of a CESS fragment (facts 1.2).
pub const FRAGMENT_BYTES: usize = 8 << 20;
/// Data fragments of a segment.
pub const DATA_FRAGMENTS: usize = 4;
/// Parity fragments of a segment.
pub const PARITY_FRAGMENTS: usize = 8;
/// Columns (miners) of a pack.
pub const COLUMNS: usize = DATA_FRAGMENTS + PARITY_FRAGMENTS;
/// Bytes of a CESS segment (facts 1.2).
pub const SEGMENT_BYTES: usize = 32 << 20;
/// Stripe of the Reed-Solomon encoder: fastest on the machines measured (docs/decisions).
pub const STRIPE_BYTES: usize = 64 << 10;

const _: () = assert!(SEGMENT_BYTES == DATA_FRAGMENTS * FRAGMENT_BYTES);
const _: () = assert!(FRAGMENT_BYTES.is_multiple_of(STRIPE_BYTES));
