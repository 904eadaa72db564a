//! Reads and writes in both layouts: against bytes in memory, through crashes, eviction and the network.

use super::*;
use crate::core::AtRest;
use crate::fakes::bench::{BOTH, Bench, copy_dir, pattern, scratch, wait};
use crate::limits::{BLOCK_BYTES, INLINE_BYTES_MAX, ROOM_WAIT_DEFAULT, YOUNG_BYTES_MAX};
use crate::records::Extent;
use cessfs_sync::{CutCause, MetaStore};

mod cut;
mod descriptors;
mod durable;
mod heartbeat;
mod listed;
mod logged;
mod model;
mod passing;
mod patched;
mod space;
mod young;

const MIB: usize = 1 << 20;

/// A file of `len` bytes that the network has and the cache has not.
fn absent(at_rest: AtRest, len: usize) -> Bench {
    let bench = Bench::new(at_rest);
    bench.create(5);
    bench.write(5, 0, &pattern(1, len));
    bench.make_absent();
    bench
}

#[test]
fn pieces_end_at_chunks() {
    let piece = |chunk, range| Piece { chunk, range };
    assert_eq!(pieces(5, 5), vec![]);
    assert_eq!(pieces(0, CHUNK), vec![piece(0, 0..MIB)]);
    assert_eq!(
        pieces(CHUNK - 1, 2 * CHUNK + 3),
        vec![piece(0, MIB - 1..MIB), piece(1, 0..MIB), piece(2, 0..3)]
    );
    let last = i64::MAX as u64;
    assert_eq!(pieces(last - 1, last), vec![piece(last / CHUNK, MIB - 2..MIB - 1)]);
    assert_eq!(
        (chunk_len(0, 0), chunk_len(CHUNK + 7, 0), chunk_len(CHUNK + 7, 1)),
        (0, MIB as u32, 7)
    );
}

#[test]
fn holes_read_as_zeros_and_count_no_blocks() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 3 * CHUNK + 5000, b"end");
        let record = bench.file(5).state.read().record.clone();
        assert_eq!(
            (record.size, record.blocks, record.inline),
            (3 * CHUNK + 5003, 1, false)
        );
        let content = bench.content(5);
        assert!(content[..3 * MIB + 5000].iter().all(|byte| *byte == 0));
        assert_eq!(&content[3 * MIB + 5000..], b"end");
        assert_eq!(bench.extent(5, 0), None);
    }
}

#[test]
fn the_largest_offset_works_and_no_larger() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        let last = i64::MAX as u64;
        bench.write(5, last - 10, b"0123456789");
        assert_eq!(bench.file(5).state.read().record.size, last);
        assert_eq!(bench.try_read(5, last - 12, 50).unwrap(), b"\0\x000123456789");
        assert!(matches!(bench.try_write(5, last - 1, b"xy"), Err(VfsError::TooLarge)));
        assert!(matches!(bench.try_write(5, u64::MAX, b"xy"), Err(VfsError::TooLarge)));
    }
}

#[test]
fn small_files_live_in_the_store_until_they_grow() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        let bytes = pattern(1, INLINE_BYTES_MAX);
        bench.write(5, 0, &bytes[..100]);
        bench.write(5, 100, &bytes[100..]);
        assert_eq!(bench.store.get(&records::inline_key(5)).unwrap().unwrap(), bytes);
        assert_eq!(bench.data.cache_bytes(), 0);
        assert_eq!(bench.data.extents(&bench.file(5)).unwrap()[0].len, 4096);
        let more = pattern(2, YOUNG_BYTES_MAX);
        bench.write(5, 4096, &more);
        assert_eq!(bench.content(5), [&bytes[..], &more].concat());
        assert_eq!(bench.file(5).state.read().record.blocks, 5);
        bench.fsync(5).unwrap();
        assert_eq!(bench.store.get(&records::inline_key(5)).unwrap(), None);
        bench.set_size(5, 10);
        assert_eq!(bench.content(5), &bytes[..10]);
        assert!(!bench.file(5).state.read().record.inline, "it never comes back");
    }
}

#[test]
fn truncating_and_growing_again_shows_zeros() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 2 * MIB));
        bench.set_size(5, 5000);
        bench.set_size(5, 9000);
        let mut expected = pattern(1, 5000);
        expected.resize(9000, 0);
        assert_eq!(bench.content(5), expected);
        // A write beyond the cut must not bring back what was cut off in the same block.
        bench.write(5, 8200, b"tail");
        expected[8200..8204].copy_from_slice(b"tail");
        assert_eq!(bench.content(5), expected);
        bench.set_size(5, 2);
        bench.write(5, 4090, b"more");
        let mut expected = pattern(1, 2);
        expected.resize(4090, 0);
        expected.extend(b"more");
        assert_eq!(bench.content(5), expected);
        assert_eq!(bench.file(5).state.read().record.blocks, 1);
    }
}

#[test]
fn truncation_gives_space_back_after_the_journal_is_durable() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 8 * MIB));
        bench.fsync(5).unwrap();
        let full = bench.data.cache_bytes();
        bench.set_size(5, MIB as u64 / 2);
        assert_eq!(
            bench.data.cache_bytes(),
            full,
            "nothing is punched before the journal says so on the disk"
        );
        bench.keep_house();
        assert!(
            bench.data.cache_bytes() < full / 8,
            "{} of {full}",
            bench.data.cache_bytes()
        );
        assert_eq!(bench.content(5), pattern(1, MIB / 2));
        bench.delete(5);
        bench.keep_house();
        assert_eq!(bench.data.cache_bytes(), 0);
        assert_eq!(bench.store.scan(b"e", b"e", 10).unwrap(), vec![]);
        assert_eq!(bench.store.scan(b"w", b"w", 10).unwrap(), vec![]);
    }
}

#[test]
fn large_files_are_truncated_and_deleted_in_pages() {
    let bench = Bench::new(AtRest::Plain);
    for ino in [5, 6] {
        bench.create(ino);
        for chunk in 0..700 {
            bench.write(ino, chunk * CHUNK, b"x");
        }
        bench.data.released(&bench.file(ino));
    }
    assert_eq!(bench.file(5).state.read().record.blocks, 700);
    bench.set_size(5, 10 * CHUNK);
    assert_eq!(bench.file(5).state.read().record.blocks, 10);
    bench.delete(6);
    let left = |bench: &Bench, ino| bench.store.scan(&records::extent_prefix(ino), &[], 1000).unwrap().len();
    assert_eq!(left(&bench, 5), 10);
    assert!(left(&bench, 6) > 0, "the rest goes in the background");
    let bench = bench.reopen();
    assert_eq!(left(&bench, 6), 0);
    assert_eq!(bench.store.scan(b"t", b"t", 10).unwrap(), vec![]);
    assert_eq!(bench.content(5).len(), 10 * MIB);
}

#[test]
fn a_truncation_that_was_cut_short_has_counted_what_is_left() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    for chunk in 0..700 {
        bench.write(5, chunk * CHUNK, &pattern(1, (chunk as usize % 3 + 1) * BLOCK));
    }
    bench.data.released(&bench.file(5));
    let (before, _) = bench.store.progress();
    bench.set_size(5, 10 * CHUNK);
    let (after, _) = bench.store.progress();
    assert!(after > before + 2, "pages");
    for batches in before..=after {
        let store = bench.store.crashed_at(batches);
        let value = store.get(&records::inode_key(5)).unwrap().unwrap();
        let counted = InodeRecord::decode(&value).unwrap().blocks;
        let extents = store.scan(&records::extent_prefix(5), &[], 1000).unwrap();
        let allocated = extents
            .iter()
            .map(|(_, value)| Extent::decode(value).unwrap().allocated());
        assert_eq!(counted, allocated.sum::<u64>(), "after {batches} batches");
    }
}

#[test]
fn sequential_small_writes_cost_few_batches() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &[1; 8192]);
    let (before, _) = bench.store.progress();
    for block in 2..512 {
        bench.write(5, block * BLOCK_BYTES, &[1; 4096]);
    }
    let (after, _) = bench.store.progress();
    assert!(after - before <= 2, "{} batches for 510 writes", after - before);
    bench.data.released(&bench.file(5));
    assert_eq!(bench.extent(5, 1).unwrap().blocks.count(), 256);
}

#[test]
fn memory_does_not_grow_with_the_file() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    let chunks = 3 * crate::limits::EXTENTS_CACHED_MAX as u64;
    for chunk in 0..chunks {
        bench.write(5, chunk * CHUNK, b"x");
    }
    bench.data.released(&bench.file(5));
    for chunk in 0..chunks {
        assert_eq!(bench.try_read(5, chunk * CHUNK, 1).unwrap(), b"x");
    }
    let inode = bench.file(5);
    let known = inode.state.read().data.chunks.lock().numbers_from(0).len();
    assert!(
        known <= 2 * crate::limits::EXTENTS_CACHED_MAX,
        "{known} chunks in memory"
    );
}

#[test]
fn absent_chunks_are_fetched_once_and_only_when_needed() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 2 * MIB));
        bench.settle();
        bench.keep_house();
        assert_eq!(bench.data.evict_all().unwrap().evicted_bytes, 2 * CHUNK);
        assert_eq!(bench.chunks.calls().1, 0);
        // Replaced as a whole: nothing to fetch.
        bench.write(5, 0, &pattern(2, MIB));
        assert_eq!(bench.chunks.calls().1, 0);
        // In part: the rest has to come first.
        assert!(matches!(
            bench.data.write(&bench.file(5), CHUNK + 10, b"part").unwrap(),
            Later::Wait(_)
        ));
        bench.write(5, CHUNK + 10, b"part");
        assert_eq!(bench.chunks.calls().1, 1);
        let mut expected = [pattern(2, MIB), pattern(1, 2 * MIB)[MIB..].to_vec()].concat();
        expected[MIB + 10..MIB + 14].copy_from_slice(b"part");
        assert_eq!(bench.content(5), expected);
        bench.make_absent();
        assert_eq!(bench.try_read(5, 0, 10).unwrap(), expected[..10]);
        assert_eq!(bench.chunks.calls().1, 2);
        assert_eq!(bench.content(5), expected);
        assert_eq!(bench.chunks.calls().1, 3);
        let again = wait(bench.data.read(&bench.file(5), 0, 10).unwrap()).unwrap();
        assert!(again.fetched.is_none(), "it stays in the cache");
    }
}

#[test]
fn who_reads_what_is_absent_has_it_before_the_cache() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB));
        bench.make_absent();
        let read = || wait(bench.data.read(&bench.file(5), 10, 20).unwrap()).unwrap();
        let dropped = read();
        assert_eq!(dropped.bytes(), &pattern(1, MIB)[10..30]);
        drop(dropped);
        let late = read();
        assert_eq!(bench.chunks.calls().1, 2, "what is dropped is fetched again");
        // Meanwhile it is written: what was fetched is not put over it.
        bench.write(5, 0, &pattern(2, MIB));
        assert_eq!(late.keep(), pattern(1, MIB)[10..30]);
        assert_eq!(bench.content(5), pattern(2, MIB));
        bench.make_absent();
        assert_eq!(read().keep(), pattern(2, MIB)[10..30]);
        assert!(read().fetched.is_none(), "it is in the cache");
        bench.make_absent();
        let too_late = read();
        assert!(too_late.fetched.is_some());
        bench.data.stop().unwrap();
        too_late.keep();
        assert!(read().fetched.is_some(), "a closed volume's cache is left alone");
    }
}

/// Nobody evicts there, and no journal knew of it afterwards: the cache was smaller for good.
#[test]
fn a_volume_that_must_not_change_keeps_nothing_of_what_it_fetches() {
    for at_rest in BOTH {
        let bench = absent(at_rest, 2 * MIB);
        let (all, _) = bench.store.progress();
        let bench = bench.read_only_copy(all, scratch());
        let recounted = || {
            bench.data.shared().backing.recount(&mut |_| ()).unwrap();
            bench.data.cache_bytes()
        };
        let before = recounted();
        assert_eq!(bench.content(5), pattern(1, 2 * MIB));
        assert_eq!(bench.data.cache_bytes(), before, "{at_rest:?}");
        assert_eq!(recounted(), before, "{at_rest:?}");
        assert_eq!(bench.content(5), pattern(1, 2 * MIB));
    }
}

#[test]
fn what_was_fetched_a_moment_ago_is_read_from_memory() {
    let bench = Bench::new(AtRest::Sealed);
    bench.create(5);
    bench.write(5, 0, &pattern(1, 3 * 4096));
    bench.settle();
    bench.fsync(5).unwrap();
    let (id, _) = bench.extent(5, 0).unwrap().stored.unwrap();
    bench.chunks.take_in_hand(id);
    // Whoever opens a block of the cache notices.
    let path = bench.dir.path().join("05/0000000000000005");
    let mut raw = std::fs::read(&path).unwrap();
    raw[16 * 1024 + 4096 + 7] ^= 1;
    std::fs::write(&path, raw).unwrap();
    assert_eq!(bench.content(5), pattern(1, 3 * 4096));
    assert!(bench.data.errors().is_empty(), "{:?}", bench.data.errors());
    assert_eq!(bench.chunks.calls().1, 0);
    // What was cut off since is not in it, and once something is written it is not the content any more.
    bench.set_size(5, 5000);
    bench.set_size(5, 6000);
    let mut expected = pattern(1, 5000);
    expected.resize(6000, 0);
    assert_eq!(bench.content(5), expected);
    bench.write(5, 4096, &[9; 4096]);
    assert_eq!(bench.try_read(5, 4096, 4096).unwrap(), [9; 4096]);
}

#[test]
fn what_the_network_lost_is_an_error_and_told() {
    let bench = Bench::new(AtRest::Sealed);
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.make_absent();
    bench.chunks.lose(bench.extent(5, 0).unwrap().stored.unwrap().0);
    assert!(matches!(bench.try_read(5, 0, 10), Err(VfsError::Fetch(_))));
    assert!(matches!(bench.try_write(5, 5, b"x"), Err(VfsError::Fetch(_))));
    assert!(
        bench
            .data
            .errors()
            .iter()
            .any(|error| error.contains("inode 5 at byte 0")),
        "{:?}",
        bench.data.errors()
    );
    bench.write(5, 0, &pattern(3, MIB));
    assert_eq!(bench.content(5), pattern(3, MIB));
}

#[test]
fn sequential_readers_are_run_ahead_of() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, 6 * MIB));
    bench.make_absent();
    bench.try_read(5, 3 * CHUNK, 100).unwrap();
    bench.try_read(5, 0, 100).unwrap();
    assert_eq!(bench.chunks.prefetched(), vec![]);
    bench.chunks.set_prefetches_max(1);
    for at in 1..4 {
        bench.try_read(5, at * 100, 100).unwrap();
    }
    assert_eq!(
        bench.chunks.prefetched().len(),
        2,
        "one for each read, while others keep the miners busy"
    );
    bench.chunks.set_prefetches_max(9);
    for at in 4..6 {
        bench.try_read(5, at * 100, 100).unwrap();
    }
    let expected: Vec<_> = [1, 2, 4, 5]
        .map(|chunk| bench.extent(5, chunk).unwrap().stored.unwrap().0)
        .to_vec();
    assert_eq!(bench.chunks.prefetched(), expected, "each absent chunk ahead once");
}

#[test]
fn a_full_cache_holds_writers_back_and_then_says_so() {
    let bench = Bench::with_room(AtRest::Plain, 4 << 20);
    bench.create(5);
    let mut written = 0;
    let error = loop {
        match bench.data.write(&bench.file(5), written, &pattern(1, MIB)).unwrap() {
            Later::Ready(bytes) => written += u64::from(bytes),
            waiting => {
                let before = cessfs_sync::Clock::monotonic(&*bench.clock);
                let result = wait(waiting);
                assert!(cessfs_sync::Clock::monotonic(&*bench.clock) - before >= ROOM_WAIT_DEFAULT);
                break result.unwrap_err();
            }
        }
    };
    assert!(
        matches!(error, VfsError::NoSpace("cache is full of unsent data")),
        "{error:?}"
    );
    assert!((4 * CHUNK..32 * CHUNK).contains(&written), "{written}");
    // Once the network has it, room is made without anybody asking.
    bench.settle();
    bench.keep_house();
    bench.write(5, written, &pattern(1, MIB));
    bench.keep_house();
    assert!(bench.data.cache_bytes() <= 4 << 20, "{}", bench.data.cache_bytes());
}

#[test]
fn a_damaged_clean_chunk_is_fetched_again_and_a_dirty_one_is_an_error() {
    let bench = Bench::new(AtRest::Sealed);
    for ino in [5, 6] {
        bench.create(ino);
        bench.write(ino, 0, &pattern(ino, 5 * 4096));
        if ino == 5 {
            bench.settle();
        }
        bench.fsync(ino).unwrap();
        let path = bench.dir.path().join(format!("{ino:02x}/{ino:016x}"));
        let mut raw = std::fs::read(&path).unwrap();
        raw[16 * 1024 + 4096 + 7] ^= 1;
        std::fs::write(&path, raw).unwrap();
    }
    assert_eq!(bench.content(5), pattern(5, 5 * 4096));
    assert_eq!(bench.chunks.calls().1, 1);
    match bench.try_read(6, 0, 5 * 4096) {
        Err(VfsError::Damaged { ino: 6, offset: 4096 }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(
        bench.try_read(6, 8192, 4096).unwrap(),
        pattern(6, 5 * 4096)[8192..12_288]
    );
    assert!(
        bench
            .data
            .errors()
            .iter()
            .any(|error| error.contains("nobody else has it")),
        "{:?}",
        bench.data.errors()
    );
    // A write into the damaged block does not launder it; one that replaces it heals it.
    assert!(matches!(bench.try_write(6, 4100, b"x"), Err(VfsError::Damaged { .. })));
    bench.write(6, 4096, &[9; 4096]);
    assert_eq!(bench.try_read(6, 4096, 4096).unwrap(), [9; 4096]);
}

/// It took what the chunk was before that for what it is, and answered zeros.
#[test]
fn a_reader_whose_fetch_comes_late_to_a_cache_that_is_damaged_meanwhile_gets_the_content() {
    let bench = absent(AtRest::Sealed, MIB);
    bench.chunks.hold_back(true);
    let late = bench.data.read(&bench.file(5), 0, MIB as u32).unwrap();
    assert!(matches!(late, Later::Wait(_)));
    bench.chunks.hold_back(false);
    assert!(bench.try_read(5, 0, 4096).unwrap() == pattern(1, 4096));
    let path = bench.dir.path().join("05/0000000000000005");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"damage", (16 << 10) + 4096).unwrap();
    assert!(wait(late).unwrap().keep() == pattern(1, MIB));
}

#[test]
fn explain_tells_each_chunk() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.make_absent();
    bench.write(5, 2 * CHUNK, b"dirty");
    let told = bench.data.extents(&bench.file(5)).unwrap();
    let flags: Vec<_> = told
        .iter()
        .map(|one| (one.index, one.len, one.stored.is_some(), one.resident, one.dirty))
        .collect();
    assert_eq!(
        flags,
        vec![(0, MIB as u32, true, false, false), (2, 5, false, true, true)]
    );
    assert_eq!(bench.data.dirty_bytes(), BLOCK_BYTES);
}

#[test]
fn a_delta_is_not_asked_for_twice() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, b"small");
    assert_eq!(bench.chunks.changes(), 1, "one note per cut");
    assert!(bench.data.delta_source().pending().is_some());
    bench.seal(CutCause::Full);
    assert_eq!(bench.data.delta_source().pending(), None);
}

#[test]
fn writers_readers_syncs_cuts_and_eviction_run_beside_each_other() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        let inos = [5, 6, 7];
        for ino in inos {
            bench.create(ino);
            bench.write(ino, 0, &pattern(ino, 2 * MIB));
        }
        std::thread::scope(|threads| {
            let bench = &bench;
            for ino in inos {
                threads.spawn(move || {
                    for round in 0..60 {
                        let at = (round * 37_123) % (2 * CHUNK - 9000);
                        bench.write(ino, at, &pattern(ino + round, 9000));
                        assert_eq!(bench.try_read(ino, at, 9000).unwrap(), pattern(ino + round, 9000));
                    }
                });
                threads.spawn(move || {
                    for round in 0..20 {
                        bench.fsync(ino).unwrap();
                        bench.try_read(ino, round * 50_000, 70_000).unwrap();
                    }
                });
            }
            threads.spawn(move || {
                for round in 0..15 {
                    bench.data.write_back_all().unwrap();
                    bench.seal(if round % 2 == 0 {
                        CutCause::Full
                    } else {
                        CutCause::Forced
                    });
                    bench.chunks.confirm();
                    bench.data.evict_all().unwrap();
                }
            });
            threads.spawn(move || (0..40).for_each(|_| bench.keep_house()));
        });
        let contents = inos.map(|ino| bench.content(ino));
        bench.settle();
        let other = bench.restore();
        for (ino, content) in inos.into_iter().zip(contents) {
            assert!(
                other.content(ino) == content,
                "{at_rest:?}: inode {ino} came back different"
            );
        }
        assert_eq!(bench.data.errors(), Vec::<String>::new());
    }
}
