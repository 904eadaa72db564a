//! Ranges that were read round a miner, one after the other: when it pays to rebuild their segment.
//!
//! A range decoded from four columns costs four times its bytes, a rebuilt segment 32 MiB. Whoever reads on and on round a miner
//! has paid for a segment after a fragment's worth of bytes; from then on segments are rebuilt. Who reads here and there never
//! comes to that.

use crate::fragment_store::Fid;
use crate::limits::{CHUNK_BYTES, DETOURS_KEPT, fragment_bytes, segment_bytes};
use lru::LruCache;
use std::num::NonZeroUsize;
use std::ops::Range;

/// One run of ranges.
#[derive(Clone, Copy)]
struct Run {
    end: u64,
    bytes: u64,
}

/// See the module head. By pack and segment; about 100 bytes each.
pub(super) struct Detours {
    runs: LruCache<(Fid, u64), Run>,
}

impl Default for Detours {
    fn default() -> Detours {
        Detours {
            runs: LruCache::new(NonZeroUsize::new(DETOURS_KEPT).expect("the limit is not zero")),
        }
    }
}

impl Detours {
    /// Notes a range that is about to be read round a miner; whether so many before it were read in a row that the whole segment is
    /// cheaper.
    pub(super) fn goes_on(&mut self, fid: Fid, range: &Range<u64>) -> bool {
        let key = (fid, range.start / segment_bytes() as u64);
        let len = range.end - range.start;
        // Fetches ahead overtake each other.
        let slack = 2 * CHUNK_BYTES as u64;
        let before = self.runs.get(&key).copied();
        let follows = before.filter(|run| range.start + slack >= run.end && range.start <= run.end + slack);
        let run = Run {
            end: follows.map_or(range.end, |run| run.end.max(range.end)),
            bytes: follows.map_or(len, |run| run.bytes.saturating_add(len)),
        };
        self.runs.put(key, run);
        run.bytes > fragment_bytes() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn rebuilds(starts: impl IntoIterator<Item = u64>) -> usize {
        let mut detours = Detours::default();
        let goes_on = |start: u64| detours.goes_on(Fid([1; 32]), &(start..start + MIB));
        starts.into_iter().map(goes_on).filter(|goes_on| *goes_on).count()
    }

    #[test]
    fn who_reads_on_has_the_segment_rebuilt_and_who_reads_here_and_there_has_not() {
        assert_eq!(rebuilds((0..8).map(|n| n * MIB)), 0, "a fragment's worth");
        assert_eq!(rebuilds((0..10).map(|n| n * MIB)), 2);
        assert_eq!(rebuilds([1, 0, 3, 2, 5, 4, 7, 6, 9, 8].map(|n| n * MIB)), 2);
        assert_eq!(rebuilds((0..200).map(|n| n * 7 % 32 * MIB)), 0);
    }
}
