//! All arithmetic between offsets of a pack and places at miners.

use crate::limits::{fragment_bytes, segment_bytes};
use std::ops::Range;

/// A run of pack bytes that lies in one data fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Segment of the pack, from 0.
    pub segment: u32,
    /// Data column (0..4) that holds it.
    pub column: u8,
    /// Where in the fragment.
    pub range: Range<u32>,
}

/// Cuts `len` bytes at `offset` of a pack at fragment and segment borders, in order.
pub fn pieces(offset: u64, len: u32) -> Vec<Piece> {
    let end = offset + u64::from(len);
    let mut at = offset;
    let mut out = Vec::with_capacity(2);
    while at < end {
        let in_segment = at % segment_bytes() as u64;
        let in_fragment = at % fragment_bytes() as u64;
        let take = (fragment_bytes() as u64 - in_fragment).min(end - at);
        out.push(Piece {
            segment: (at / segment_bytes() as u64) as u32,
            column: (in_segment / fragment_bytes() as u64) as u8,
            range: in_fragment as u32..(in_fragment + take) as u32,
        });
        at += take;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{FRAGMENT_BYTES, SEGMENT_BYTES};

    const FRAGMENT: u64 = FRAGMENT_BYTES as u64;
    const SEGMENT: u64 = SEGMENT_BYTES as u64;

    #[track_caller]
    fn check(offset: u64, len: u32, expected: &[(u32, u8, Range<u32>)]) {
        let got: Vec<_> = pieces(offset, len)
            .into_iter()
            .map(|p| (p.segment, p.column, p.range))
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn pieces_are_cut_at_fragment_and_segment_borders() {
        check(0, 0, &[]);
        check(0, 10, &[(0, 0, 0..10)]);
        check(FRAGMENT - 1, 1, &[(0, 0, 8388607..8388608)]);
        check(FRAGMENT - 1, 3, &[(0, 0, 8388607..8388608), (0, 1, 0..2)]);
        check(SEGMENT - 2, 5, &[(0, 3, 8388606..8388608), (1, 0, 0..3)]);
        check(3 * SEGMENT + 2 * FRAGMENT, FRAGMENT_BYTES as u32, &[(3, 2, 0..8388608)]);
    }
}
