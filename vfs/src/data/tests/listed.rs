//! Reading ahead from file to file.

use super::*;

/// Files of `len` bytes each that the network has and the cache has not, listed in this order.
fn listed(inos: std::ops::Range<u64>, len: usize) -> Bench {
    let bench = Bench::new(AtRest::Sealed);
    for ino in inos.clone() {
        bench.create(ino);
        bench.write(ino, 0, &pattern(ino, len));
    }
    bench.make_absent();
    bench.data.listed(2, true, &inos.collect::<Vec<_>>());
    bench
}

fn ids(bench: &Bench, inos: std::ops::Range<u64>) -> Vec<cessfs_crypto::ChunkId> {
    let id = |ino| bench.extent(ino, 0).unwrap().stored.unwrap().0;
    inos.map(id).collect()
}

#[test]
fn the_files_after_those_that_were_read_are_fetched_ahead() {
    let bench = listed(10..30, 5000 + YOUNG_BYTES_MAX);
    for ino in [10, 11] {
        bench.content(ino);
    }
    assert_eq!(bench.chunks.prefetched(), vec![]);
    // It has turns for some: the others are asked for again.
    bench.chunks.set_prefetches_max(4);
    bench.content(12);
    bench.data.shared().read_ahead();
    assert_eq!(bench.chunks.prefetched(), ids(&bench, 13..17));
    bench.data.shared().read_ahead();
    assert_eq!(bench.chunks.prefetched(), ids(&bench, 13..21));
}

#[test]
fn of_what_is_large_or_gone_nothing_is_fetched_ahead() {
    let bench = listed(10..16, 2 * MIB);
    for ino in 10..13 {
        bench.content(ino);
    }
    let read = bench.chunks.prefetched().len();
    bench.delete(14);
    bench.data.shared().read_ahead();
    assert_eq!(bench.chunks.prefetched().len(), read);
}

#[test]
fn what_rests_here_is_read_ahead_without_harm() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        for ino in 10..20 {
            bench.create(ino);
            bench.write(ino, 0, &pattern(ino, if ino % 2 == 0 { 100 } else { 40_000 }));
        }
        bench.settle();
        let bench = bench.reopen();
        bench.data.listed(2, true, &(10..20).collect::<Vec<_>>());
        for ino in 10..13 {
            bench.content(ino);
        }
        bench.data.shared().read_ahead();
        bench.write(15, 0, b"new");
        bench.delete(17);
        let mut expected = pattern(15, 40_000);
        expected[..3].copy_from_slice(b"new");
        assert_eq!(bench.content(15), expected);
        assert_eq!(bench.content(19), pattern(19, 40_000));
        assert_eq!(bench.chunks.prefetched(), vec![]);
    }
}
