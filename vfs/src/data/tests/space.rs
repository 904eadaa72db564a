//! Reserving, zeroing, punching, seeking and copying: what costs a fetch and what does not, and what the disk gets back.

use super::*;
use crate::request::{Seek, SpaceChange};

fn blocks(bench: &Bench, ino: u64) -> u64 {
    bench.file(ino).state.read().record.blocks
}

fn punch(bench: &Bench, range: Range<u64>) {
    bench.change_space(5, SpaceChange::Punch, range, false).unwrap();
}

#[test]
fn absent_chunks_are_punched_without_fetching_them() {
    for at_rest in BOTH {
        let bench = absent(at_rest, 4 * MIB);
        let mut expected = pattern(1, 4 * MIB);
        // Whole chunks, whole blocks of a chunk, and everything up to the end, in the middle of a block.
        for range in [CHUNK..2 * CHUNK, 8192..65536, 4 * CHUNK - 10_001..4 * CHUNK] {
            punch(&bench, range.clone());
            expected[range.start as usize..range.end as usize].fill(0);
        }
        assert_eq!(bench.chunks.calls().1, 0, "nothing was fetched");
        assert_eq!(bench.extent(5, 1), None);
        assert_eq!(blocks(&bench, 5), 1024 - 256 - 14 - 2);
        assert_eq!(
            bench.data_ranges(5),
            vec![0..8192, 65536..CHUNK, 2 * CHUNK..4 * CHUNK - 8192]
        );
        assert_eq!(bench.data.dirty_bytes(), 0, "nothing has to be sent again");
        assert_eq!(bench.content(5), expected);
        // Another machine sees the same, from what was stored before.
        bench.seal(CutCause::Forced);
        let restored = bench.restore();
        assert_eq!(restored.content(5), expected);
        assert_eq!(restored.data_ranges(5), bench.data_ranges(5));
    }
}

#[test]
fn a_part_of_a_block_is_fetched_and_zeroed() {
    for at_rest in BOTH {
        let bench = absent(at_rest, 2 * MIB);
        let mut expected = pattern(1, 2 * MIB);
        punch(&bench, 100..9000);
        expected[100..9000].fill(0);
        assert_eq!(bench.chunks.calls().1, 1, "one chunk, of two");
        assert_eq!(bench.content(5), expected);
        assert_eq!(bench.data_ranges(5), vec![0..4096, 8192..2 * CHUNK]);
        bench.make_absent();
        assert_eq!(bench.content(5), expected);
    }
}

#[test]
fn what_was_punched_out_never_comes_back() {
    for at_rest in BOTH {
        let bench = absent(at_rest, MIB);
        punch(&bench, 0..8192);
        // The chunk is fetched for this, and is dirty now; the network knows only what it was before.
        bench.write(5, 4096, &[9; 100]);
        bench.fsync(5).unwrap();
        bench.seal(CutCause::Forced);
        let restored = bench.restore();
        assert_eq!(
            restored.content(5)[..8192],
            [0; 8192],
            "not what was there before the hole"
        );
        assert_eq!(restored.content(5)[8192..], pattern(1, MIB)[8192..]);
        bench.settle();
        assert_eq!(bench.restore().content(5)[4096..4196], [9; 100]);
    }
}

#[test]
fn a_hole_gives_space_back_once_the_journal_is_durable() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 8 * MIB));
        bench.fsync(5).unwrap();
        let full = bench.data.cache_bytes();
        punch(&bench, CHUNK + 4096..8 * CHUNK);
        assert_eq!(bench.data.cache_bytes(), full);
        bench.keep_house();
        assert!(bench.data.cache_bytes() < full / 6, "{}", bench.data.cache_bytes());
        assert_eq!(blocks(&bench, 5), 257);
        assert_eq!(bench.content(5)[..MIB + 4096], pattern(1, MIB + 4096));
        assert_eq!(bench.content(5).len(), 8 * MIB);
    }
}

#[test]
fn reserved_space_counts_and_holds_no_data() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 10_000));
        let reserve = |range, grows| bench.change_space(5, SpaceChange::Reserve, range, grows).unwrap();
        reserve(0..3 * CHUNK, false);
        assert_eq!(bench.file(5).state.read().record.size, 10_000);
        assert_eq!(blocks(&bench, 5), 768);
        reserve(CHUNK..4 * CHUNK, true);
        assert_eq!(bench.file(5).state.read().record.size, 4 * CHUNK);
        assert_eq!(blocks(&bench, 5), 1024);
        assert_eq!(bench.data_ranges(5), vec![0..12288]);
        let mut expected = pattern(1, 10_000);
        expected.resize(4 * MIB, 0);
        assert_eq!(bench.content(5), expected);
        // Writing takes nothing more.
        bench.write(5, 2 * CHUNK + 5, &[7; 5000]);
        expected[2 * MIB + 5..2 * MIB + 5005].fill(7);
        assert_eq!(blocks(&bench, 5), 1024);
        assert_eq!(bench.content(5), expected);
        bench.settle();
        let restored = bench.restore();
        assert_eq!((blocks(&restored, 5), restored.content(5)), (1024, expected));
        // To the same size: what is reserved within it stays, what is beyond goes.
        reserve(4 * CHUNK..5 * CHUNK, false);
        bench.set_size(5, 4 * CHUNK);
        assert_eq!(blocks(&bench, 5), 1024);
        bench.set_size(5, 0);
        assert_eq!(blocks(&bench, 5), 0);
        assert_eq!(bench.store.scan(b"e", b"e", 10).unwrap(), vec![]);
    }
}

#[test]
fn zeroed_space_stays_taken_and_costs_no_bytes() {
    for at_rest in BOTH {
        let bench = absent(at_rest, 2 * MIB);
        bench
            .change_space(5, SpaceChange::Zero, CHUNK - 4096..3 * CHUNK, true)
            .unwrap();
        assert_eq!((bench.chunks.calls().1, blocks(&bench, 5)), (0, 768));
        assert_eq!(bench.data_ranges(5), vec![0..CHUNK - 4096]);
        let mut expected = pattern(1, MIB - 4096);
        expected.resize(3 * MIB, 0);
        assert_eq!(bench.content(5), expected);
    }
}

#[test]
fn more_than_is_free_is_refused() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    let ask = |what, range| bench.data.change_space(&bench.file(5), what, range, true, 100);
    for what in [SpaceChange::Reserve, SpaceChange::Zero] {
        assert!(matches!(ask(what, 0..101 * 4096), Err(VfsError::NoSpace(_))));
        assert!(matches!(ask(what, 0..u64::MAX), Err(VfsError::TooLarge)));
    }
    assert_eq!((blocks(&bench, 5), bench.file(5).state.read().record.size), (0, 0));
    ask(SpaceChange::Reserve, 0..100 * 4096).unwrap();
    ask(SpaceChange::Punch, 0..crate::limits::FILE_BYTES_MAX).unwrap();
    assert_eq!(blocks(&bench, 5), 0);
}

#[test]
fn small_files_stay_small() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 1000));
        punch(&bench, 10..20);
        let mut expected = pattern(1, 1000);
        expected[10..20].fill(0);
        bench.change_space(5, SpaceChange::Reserve, 0..2000, true).unwrap();
        expected.resize(2000, 0);
        assert_eq!(bench.content(5), expected);
        assert_eq!(bench.data_ranges(5), vec![0..2000]);
        punch(&bench, 0..1 << 40);
        assert!(bench.file(5).state.read().record.inline);
        assert_eq!((blocks(&bench, 5), bench.data_ranges(5)), (0, vec![]));
        assert_eq!(bench.content(5), vec![0; 2000]);
        assert_eq!(bench.data.seek(&bench.file(5), 5, Seek::Hole).unwrap(), 5);
        assert!(matches!(
            bench.data.seek(&bench.file(5), 2000, Seek::Hole),
            Err(VfsError::NoOffset)
        ));
        bench.change_space(5, SpaceChange::Reserve, 0..5000, true).unwrap();
        assert!(!bench.file(5).state.read().record.inline);
        assert_eq!((blocks(&bench, 5), bench.content(5)), (2, vec![0; 5000]));
    }
}

#[test]
fn holes_are_found_in_files_of_any_size() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    let far = crate::limits::FILE_BYTES_MAX - 5000;
    bench.write(5, far, b"x");
    let block = far / 4096 * 4096;
    assert_eq!(bench.data_ranges(5), vec![block..far + 1]);
    punch(&bench, 0..far + 1);
    assert_eq!(bench.data_ranges(5), vec![]);
    assert_eq!(bench.file(5).state.read().record.size, far + 1);
}

#[test]
fn copies_share_what_the_network_has() {
    for at_rest in BOTH {
        let bench = absent(at_rest, 3 * MIB + 5000);
        bench.create(6);
        bench.copy((5, 0), (6, 0), 3 * CHUNK + 5000);
        assert_eq!(bench.chunks.calls().1, 0, "nothing was fetched");
        let (submits, _) = bench.chunks.calls();
        for chunk in 0..4 {
            let (source, target) = (bench.extent(5, chunk).unwrap(), bench.extent(6, chunk).unwrap());
            assert_eq!(source, target);
        }
        assert_eq!(blocks(&bench, 6), blocks(&bench, 5));
        bench.settle();
        assert_eq!(bench.chunks.calls().0, submits, "nothing is sent again");
        assert_eq!(bench.restore().content(6), pattern(1, 3 * MIB + 5000));
        // The copy is a file of its own.
        bench.write(6, 10, b"changed");
        punch(&bench, 0..CHUNK);
        let mut expected = pattern(1, 3 * MIB + 5000);
        expected[10..17].copy_from_slice(b"changed");
        assert_eq!(bench.content(6), expected);
        bench.delete(5);
        bench.make_absent();
        assert_eq!(bench.content(6), expected);
    }
}

#[test]
fn copies_of_resident_chunks_are_resident() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.create(6);
        bench.write(5, 4096, &pattern(1, 2 * MIB));
        bench.settle();
        bench.write(6, 0, &pattern(2, 2 * MIB + 4096));
        bench.fsync(6).unwrap();
        bench.copy((5, 0), (6, 0), 2 * CHUNK + 4096);
        let expected = [vec![0; 4096], pattern(1, 2 * MIB)].concat();
        assert_eq!(bench.content(6), expected);
        bench.keep_house();
        let extent = bench.extent(6, 0).unwrap();
        assert!(extent.resident && !extent.dirty && !extent.blocks.contains(0));
        assert_eq!(bench.data.dirty_bytes(), 0);
        assert_eq!(bench.content(6), expected);
        assert_eq!(bench.chunks.calls().1, 0);
        // Killed right after a copy that nobody synced: the network's copy counts.
        bench.create(7);
        bench.copy((5, 0), (7, 0), 2 * CHUNK + 4096);
        let (all, _) = bench.store.progress();
        let after = bench.crash_at(all);
        assert_eq!(after.content(7), expected);
    }
}

#[test]
fn copies_at_other_offsets_keep_holes() {
    for at_rest in BOTH {
        let bench = absent(at_rest, MIB);
        bench.set_size(5, 5 * CHUNK);
        bench.write(5, 4 * CHUNK, &pattern(3, MIB));
        let source = bench.content(5);
        bench.create(6);
        bench.write(6, 0, &pattern(4, 2 * MIB));
        bench.copy((5, 4096), (6, 8192), 5 * CHUNK - 4096);
        let expected = [&pattern(4, 8192)[..], &source[4096..]].concat();
        assert_eq!(bench.content(6), expected);
        assert_eq!(blocks(&bench, 6), 2 + 255 + 256);
        // Within a file.
        bench.copy((6, 0), (6, 10 * CHUNK), CHUNK);
        assert_eq!(bench.content(6)[10 * MIB..], expected[..MIB]);
        let onto_itself = bench.data.copy(&bench.file(6), 0, &bench.file(6), CHUNK - 1, CHUNK);
        assert!(matches!(onto_itself, Err(VfsError::Invalid(_))));
    }
}

#[test]
fn small_files_are_copied_into_and_out_of() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        for ino in [5, 6, 7] {
            bench.create(ino);
        }
        bench.write(5, 0, &pattern(1, 100));
        bench.copy((5, 0), (6, 50), 100);
        assert_eq!(bench.content(6), [vec![0; 50], pattern(1, 100)].concat());
        assert!(bench.file(6).state.read().record.inline);
        bench.copy((5, 0), (6, CHUNK), 100);
        assert_eq!(bench.content(6)[MIB..], pattern(1, 100));
        bench.copy((6, 0), (7, 0), CHUNK + 100);
        assert_eq!(bench.content(7), bench.content(6));
    }
}

#[test]
fn a_cut_between_a_write_and_the_journal_loses_nothing() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        // The journal has a clean chunk, marked, when the write comes; and hears of the write after the cut.
        bench.change_space(5, SpaceChange::Reserve, 4096..4097, false).unwrap();
        bench.write(5, 0, &pattern(1, 200_000));
        bench.seal(CutCause::Forced);
        bench.settle();
        assert_eq!(bench.restore().content(5), pattern(1, 200_000));
        // The same after a truncation.
        bench.set_size(5, 100_000);
        bench.write(5, 50_000, &pattern(2, 80_000));
        bench.seal(CutCause::Forced);
        bench.settle();
        let expected = [&pattern(1, 50_000)[..], &pattern(2, 80_000)].concat();
        assert_eq!(bench.restore().content(5), expected);
    }
}

#[test]
fn zeros_in_a_chunk_that_was_submitted_are_sent_again() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 100_000));
        bench.data.write_back_all().unwrap();
        // No whole block: the block map stays what it is, and the chunk was dirty before.
        bench.change_space(5, SpaceChange::Punch, 9_282..13_354, false).unwrap();
        bench.settle();
        let mut expected = pattern(1, 100_000);
        expected[9_282..13_354].fill(0);
        assert_eq!(bench.restore().content(5), expected);
    }
}

/// What is journaled in another way than by the one that looks for what waits does not keep its inode, and wakes nobody up.
#[test]
fn what_waits_for_nothing_is_let_go() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 2 * MIB));
        bench.settle();
        bench.keep_house();
        bench.change_space(5, SpaceChange::Punch, 0..CHUNK, false).unwrap();
        bench.settle();
        for _ in 0..3 {
            bench.clock.advance(crate::limits::PENDING_AGE_MAX);
            bench.keep_house();
        }
        assert!(bench.data.shared().pending.lock().is_empty(), "{at_rest:?}");
        assert!(!bench.data.shared().content_came(), "{at_rest:?}");
    }
}

/// In words, and as it is done.
type Way = (&'static str, fn(&Bench));

/// Somebody else's batch (a change of the mode) told of it, and then it was gone before the next.
#[test]
fn a_new_chunk_that_is_soon_a_hole_leaves_no_note() {
    let ways: [Way; 2] = [
        ("punched out", |bench| punch(bench, CHUNK..2 * CHUNK)),
        ("cut off", |bench| bench.set_size(5, CHUNK + 10)),
    ];
    for at_rest in BOTH {
        for (what, ends) in ways {
            let bench = Bench::new(at_rest);
            bench.create(5);
            bench.write(5, 0, &pattern(1, MIB));
            bench.data.shared().persist_all().unwrap();
            bench.write(5, CHUNK + 4096, &pattern(2, 4096));
            let inode = bench.file(5);
            let mut batch = Batch::new();
            let state = inode.state.write();
            bench.data.put_inode(5, &state, &state.record, &mut batch).unwrap();
            drop(state);
            bench.store.commit(batch).unwrap();
            let note = || bench.store.get(&state::dirty_key(5, 1)).unwrap();
            assert!(note().is_some(), "{at_rest:?}, {what}");
            ends(&bench);
            bench.data.shared().persist_all().unwrap();
            assert_eq!((note(), bench.extent(5, 1)), (None, None), "{at_rest:?}, {what}");
        }
    }
}

/// In words, and as it is done.
type Growth = (&'static str, fn(&Bench));

/// What the store says of an inode's blocks is what its extents take there, also while a chunk that was fetched and written
/// waits for a sync: a power cut then, or a pack, leaves both as they are.
#[test]
fn a_record_counts_the_blocks_that_the_journal_has() {
    let grown: [Growth; 5] = [
        ("written", |bench| bench.write(5, 100, &pattern(2, 300_000))),
        ("replaced", |bench| bench.write(5, 0, &pattern(2, 300_000))),
        ("reserved", |bench| {
            bench.write(5, 0, b"a");
            bench.change_space(5, SpaceChange::Reserve, 0..400_000, true).unwrap();
        }),
        ("written and cut", |bench| {
            bench.write(5, 100, &pattern(2, 300_000));
            bench.set_size(5, 250_000);
        }),
        ("written, of two chunks the second cut off", |bench| {
            bench.write(5, 0, &pattern(2, 100));
            bench.write(5, CHUNK, &pattern(2, 100_000));
            bench.set_size(5, CHUNK);
        }),
    ];
    for at_rest in BOTH {
        for (what, grow) in grown {
            let bench = Bench::new(at_rest);
            bench.create(5);
            bench.write(5, 0, &pattern(1, 200_000));
            bench.make_absent();
            grow(&bench);
            let inode = bench.file(5);
            assert!(
                inode.state.read().data.has_order(),
                "{at_rest:?}, {what}: nothing waits"
            );
            assert_counted(&bench, "before");
            bench.data.shared().journal(&inode).unwrap();
            assert_counted(&bench, what);
            let state = inode.state.write();
            let mut batch = Batch::new();
            bench.data.put_inode(5, &state, &state.record, &mut batch).unwrap();
            bench.store.commit(batch).unwrap();
            let now = state.record.blocks;
            drop(state);
            assert_counted(&bench, what);
            bench.fsync(5).unwrap();
            assert_eq!(assert_counted(&bench, what), now, "{at_rest:?}, {what}");
        }
    }
}

/// Blocks of inode 5, as the store tells them twice.
#[track_caller]
fn assert_counted(bench: &Bench, what: &str) -> u64 {
    let mut blocks = 0;
    let mut add = |_, extent: records::Extent| {
        blocks += extent.allocated();
        Ok(())
    };
    bench.data.shared().each_extent(5, 0, &mut add).unwrap();
    let value = bench.store.get(&records::inode_key(5)).unwrap().unwrap();
    let record = records::InodeRecord::decode(&value).unwrap();
    assert_eq!(record.blocks, blocks, "{what}");
    blocks
}
