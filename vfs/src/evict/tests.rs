//! What may leave the cache, and that nothing else does.

use super::*;
use crate::core::AtRest;
use crate::data::CHUNK;
use crate::data::room::ROOM;
use crate::fakes::bench::{BOTH, Bench, copy_dir, pattern, scratch};
use crate::request::SpaceChange;
use std::os::unix::fs::FileExt;

const MIB: usize = 1 << 20;

#[test]
fn only_confirmed_chunks_go() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 3 * MIB));
        let kept_all = EvictReport {
            evicted_bytes: 0,
            kept_bytes: 3 * CHUNK,
            kept_unconfirmed_chunks: 3,
        };
        assert_eq!(bench.data.evict_all().unwrap(), kept_all, "dirty");
        bench.data.write_back_all().unwrap();
        assert_eq!(bench.data.evict_all().unwrap(), kept_all, "submitted");
        bench.seal(cessfs_sync::CutCause::Forced);
        assert_eq!(bench.data.evict_all().unwrap(), kept_all, "sealed");
        for chunk in 0..2 {
            bench
                .chunks
                .set_standing(bench.extent(5, chunk).unwrap().stored.unwrap().0, Standing::Confirmed);
        }
        let last = bench.extent(5, 2).unwrap().stored.unwrap().0;
        bench.chunks.set_standing(last, Standing::Stored);
        let report = bench.data.evict_all().unwrap();
        assert_eq!(report.evicted_bytes, 2 * CHUNK);
        assert_eq!((report.kept_bytes, report.kept_unconfirmed_chunks), (CHUNK, 1));
        assert!(bench.data.cache_bytes() < 5 * CHUNK / 2, "{}", bench.data.cache_bytes());
        assert!(bench.extent(5, 2).unwrap().resident);
        assert_eq!(bench.content(5), pattern(1, 3 * MIB));
    }
}

#[test]
fn a_chunk_changed_behind_the_journal_turns_dirty() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.settle();
    let path = bench.dir.path().join("05/0000000000000005");
    std::fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(b"behind", 5000)
        .unwrap();
    // What was handed over for a snapshot stays complete.
    bench.core.marks.freeze();
    let report = bench.data.evict_all().unwrap();
    assert_eq!(report.evicted_bytes, 0);
    assert!(!bench.extent(5, 0).unwrap().dirty && bench.extent(5, 0).unwrap().resident);
    bench.core.marks.thaw();
    let report = bench.data.evict_all().unwrap();
    assert_eq!((report.evicted_bytes, report.kept_unconfirmed_chunks), (0, 1));
    assert!(bench.extent(5, 0).unwrap().dirty);
    let mut expected = pattern(1, MIB);
    expected[5000..5006].copy_from_slice(b"behind");
    assert_eq!(bench.content(5), expected);
    bench.settle();
    assert_eq!(bench.restore().content(5), expected);
    assert_eq!(bench.data.evict_all().unwrap().evicted_bytes, CHUNK);
    assert_eq!(bench.content(5), expected);
}

/// What is left of it has another hash than the network's, and was journaled as the only copy though the disk did not have it yet: a power
/// cut left zeros, which were sent over what the network had.
#[test]
fn a_cut_chunk_that_was_just_fetched_is_not_told_as_the_only_copy() {
    for (at_rest, punches) in BOTH.into_iter().flat_map(|at_rest| [(at_rest, false), (at_rest, true)]) {
        let (bench, expected) = absent_and_cut(at_rest, punches);
        let image = scratch();
        copy_dir(bench.dir.path(), image.path());
        assert!(bench.content(5) == expected);
        evict_inode(&bench, 5);
        let (all, _) = bench.store.progress();
        let bench = bench.power_cut(all, image.path());
        assert!(bench.content(5) == expected, "{at_rest:?}, punched: {punches}");
        assert_eq!(bench.data.dirty_bytes(), 0, "{at_rest:?}, punched: {punches}");
    }
}

#[test]
fn nor_is_one_that_was_just_copied() {
    for at_rest in BOTH {
        let (bench, expected) = absent_and_cut(at_rest, false);
        assert!(bench.content(5) == expected);
        bench.data.persist_all().unwrap();
        let image = scratch();
        copy_dir(bench.dir.path(), image.path());
        bench.create(6);
        bench.copy((5, 0), (6, 0), expected.len() as u64);
        evict_inode(&bench, 6);
        let (all, _) = bench.store.progress();
        let bench = bench.power_cut(all, image.path());
        assert!(bench.content(6) == expected, "{at_rest:?}");
    }
}

/// A file of one chunk that is not here and of which a part was cut off, or punched out, since it was sent; and what is left of it.
fn absent_and_cut(at_rest: AtRest, punches: bool) -> (Bench, Vec<u8>) {
    let bench = Bench::new(at_rest);
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.make_absent();
    let mut left = pattern(1, MIB);
    if punches {
        bench.change_space(5, SpaceChange::Punch, 8192..65536, false).unwrap();
        left[8192..65536].fill(0);
    } else {
        bench.set_size(5, 600_000);
        left.truncate(600_000);
    }
    bench.settle();
    bench.fsync(5).unwrap();
    bench.data.reclaim().unwrap();
    // Nothing could come back of what was evicted.
    bench.data.shared().backing.sync(5).unwrap();
    (bench, left)
}

fn evict_inode(bench: &Bench, ino: u64) {
    let mut report = EvictReport::default();
    bench.data.shared().evict_inode(ino, u64::MAX, &mut report).unwrap();
}

#[test]
fn the_journal_says_absent_durably_before_the_hole_is_punched() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB));
        bench.make_absent();
        // Whatever prefix of the journal a crash leaves from here on, the chunk is not called resident.
        let (_, durable) = bench.store.progress();
        let after = bench.crash_at(durable);
        assert!(!after.extent(5, 0).unwrap().resident);
        assert_eq!(after.content(5), pattern(1, MIB));
    }
}

#[test]
fn a_chunk_that_came_back_before_the_punch_is_not_punched() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB));
        bench.settle();
        let shared = bench.data.shared();
        shared.evict_inode(5, u64::MAX, &mut EvictReport::default()).unwrap();
        // Evicted and queued; now somebody reads, and somebody writes.
        assert_eq!(bench.content(5), pattern(1, MIB));
        bench.write(5, 4096, &[7; 4096]);
        bench.core.store.barrier().unwrap();
        shared.reclaim().unwrap();
        let mut expected = pattern(1, MIB);
        expected[4096..8192].fill(7);
        assert_eq!(bench.content(5), expected);
    }
}

/// Housekeeping may be at it: whoever evicts then must not say that there is room, or how much is left, before there is.
#[test]
fn nobody_who_gives_space_back_is_done_before_all_of_it_is() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.settle();
    let shared = bench.data.shared();
    shared.evict_inode(5, u64::MAX, &mut EvictReport::default()).unwrap();
    let file = bench.file(5);
    std::thread::scope(|scope| {
        // As if its change were being journaled: what is queued waits for that.
        let busy = file.state.write();
        let both = [(), ()].map(|()| scope.spawn(|| shared.reclaim().unwrap()));
        std::thread::sleep(Duration::from_millis(100));
        assert!(both.iter().all(|one| !one.is_finished()), "one left it to the other");
        drop(busy);
    });
    assert!(bench.data.cache_bytes() < CHUNK / 2, "{}", bench.data.cache_bytes());
}

#[test]
fn room_is_made_from_the_least_recently_used_files() {
    room_is_made_by(EVICT_FILES_MAX);
    // Also where they are more than are remembered at a time.
    room_is_made_by(2);
    room_is_made_by(1);
}

fn room_is_made_by(files_max: usize) {
    let bench = Bench::with_room(AtRest::Plain, 10 << 20);
    for ino in 1..=9 {
        bench.create(ino);
        bench.write(ino, 0, &pattern(ino, MIB));
        bench.clock.advance(Duration::from_secs(1));
    }
    bench.settle();
    bench.keep_house();
    assert!(
        (1..=9).all(|ino| bench.extent(ino, 0).unwrap().resident),
        "the cache is not full yet"
    );
    bench.clock.advance(Duration::from_secs(1));
    bench.try_read(1, 0, 10).unwrap();
    bench.clock.advance(Duration::from_secs(1));
    bench.create(10);
    bench.write(10, 0, &pattern(10, 2 * MIB));
    bench.data.shared().make_room_by(files_max).unwrap();
    bench.keep_house();
    assert!(bench.data.cache_bytes() <= 9 << 20, "{}", bench.data.cache_bytes());
    let is_resident = |ino: &u64| bench.extent(*ino, 0).unwrap().resident;
    let evicted: Vec<u64> = (1..=10).filter(|ino| !is_resident(ino)).collect();
    assert_eq!(
        evicted,
        vec![2, 3, 4],
        "the oldest, down to 90 %; not the one that was just read"
    );
}

#[test]
fn what_the_network_has_gives_way_on_a_disk_that_is_nearly_full() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        for ino in 1..=7 {
            bench.create(ino);
            bench.write(ino, 0, &pattern(ino, MIB));
            bench.clock.advance(Duration::from_secs(1));
        }
        ROOM.set(Some(8 << 20));
        bench.keep_house();
        assert!(!bench.data.give_way(), "nobody else has any of it");
        assert!(bench.data.cache_bytes() >= 7 * CHUNK);
        bench.settle();
        bench.keep_house();
        let is_resident = |ino: &u64| bench.extent(*ino, 0).unwrap().resident;
        let kept: Vec<u64> = (1..=7).filter(is_resident).collect();
        assert!(
            !kept.is_empty() && kept.len() < 5 && kept.ends_with(&[7]),
            "{kept:?} are left"
        );
        assert!(bench.data.cache_bytes() <= 4 * CHUNK, "{}", bench.data.cache_bytes());
        // Whoever reads has it all the same, and is not in the way of who writes.
        for ino in 1..=7 {
            assert_eq!(bench.content(ino), pattern(ino, MIB));
            assert!(bench.data.cache_bytes() <= 8 * CHUNK);
        }
        ROOM.set(None);
    }
}
