//! Files that others write past the daemon: what is found of it, when, and what a crash leaves.

use super::*;
use crate::data::passthrough::PASS_PREFIX;
use crate::request::SpaceChange;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A file of these bytes that the network has.
fn confirmed(bench: &Bench, ino: u64, bytes: &[u8]) {
    bench.create(ino);
    bench.write(ino, 0, bytes);
    bench.settle();
    bench.keep_house();
}

/// Opens it to be written past the daemon.
#[track_caller]
fn pass(bench: &Bench, ino: u64) -> File {
    bench.open(ino, true).expect("the file is fit for it")
}

fn dirty_chunks(bench: &Bench, ino: u64) -> Vec<u64> {
    let is_dirty = |chunk: &u64| bench.extent(ino, *chunk).is_some_and(|extent| extent.dirty);
    (0..8).filter(is_dirty).collect()
}

fn notes(bench: &Bench) -> usize {
    bench.store.scan(PASS_PREFIX, PASS_PREFIX, 10).unwrap().len()
}

#[test]
fn a_change_of_one_byte_is_found_and_only_its_chunk_sent() {
    let bench = Bench::passing();
    confirmed(&bench, 5, &pattern(1, 3 * MIB));
    let file = pass(&bench, 5);
    assert_eq!(notes(&bench), 1);
    file.write_all_at(b"!", CHUNK + 77).unwrap();
    drop(file);
    bench.close(5);
    assert!(!bench.passes(5) && notes(&bench) == 0);
    assert_eq!(dirty_chunks(&bench, 5), [1]);
    bench.settle();
    let mut expected = pattern(1, 3 * MIB);
    expected[MIB + 77] = b'!';
    let restored = bench.restore();
    assert!(restored.content(5) == expected);
}

#[test]
fn what_was_not_written_is_not_even_compared() {
    let bench = Bench::passing();
    confirmed(&bench, 5, &pattern(1, 9 * MIB));
    drop(pass(&bench, 5));
    bench.close(5);
    bench.data.shared().look_at_all().unwrap();
    // From here on the times of the backing file are old enough to be trusted, and are those of the record.
    bench.clock.set(Duration::from_secs(1 << 40));
    let file = pass(&bench, 5);
    drop(file);
    bench.close(5);
    assert!(
        !bench.passes(5),
        "more chunks than a close may compare, and none to compare"
    );
    let file = pass(&bench, 5);
    file.write_all_at(b"!", 0).unwrap();
    drop(file);
    bench.close(5);
    assert!(bench.passes(5), "that is left to the background");
    bench.data.shared().tend_passes().unwrap();
    assert!(!bench.passes(5));
    assert_eq!(dirty_chunks(&bench, 5), [0]);
}

#[test]
fn bytes_in_the_last_block_after_what_is_stored_are_a_change() {
    let bench = Bench::passing();
    confirmed(&bench, 5, &pattern(1, 70_000));
    let file = pass(&bench, 5);
    file.write_all_at(b"more", 70_000).unwrap();
    bench.data.shared().look_at_all().unwrap();
    assert_eq!(dirty_chunks(&bench, 5), [0]);
    drop(file);
    bench.close(5);
    bench.settle();
    let content = bench.restore().content(5);
    assert_eq!((content.len(), &content[70_000..]), (70_004, &b"more"[..]));
}

#[test]
fn nothing_is_evicted_under_who_still_has_it() {
    let bench = Bench::passing();
    confirmed(&bench, 5, &pattern(1, 2 * MIB));
    let mapped = pass(&bench, 5);
    bench.close(5);
    // Closed, and yet somebody has it: a mapping looks the same.
    bench.data.evict_all().unwrap();
    let mut found = vec![0; 2 * MIB];
    mapped.read_exact_at(&mut found, 0).unwrap();
    assert!(found == pattern(1, 2 * MIB));
    mapped.write_all_at(b"stored", MIB as u64).unwrap();
    bench.data.shared().look_at_all().unwrap();
    assert_eq!(dirty_chunks(&bench, 5), [1]);
    mapped.write_all_at(b"STORED", 0).unwrap();
    drop(mapped);
    bench.data.shared().tend_passes().unwrap();
    assert!(!bench.passes(5));
    assert_eq!(dirty_chunks(&bench, 5), [0, 1]);
    bench.settle();
    let report = bench.data.evict_all().unwrap();
    assert_eq!((report.kept_bytes, report.evicted_bytes), (0, 2 * MIB as u64));
    assert_eq!(bench.try_read(5, MIB as u64, 6).unwrap(), b"stored");
    bench.data.shared().persist_all().unwrap();
    assert!(bench.open(5, false).is_none(), "one chunk is not here");
}

#[test]
fn what_was_closed_a_moment_ago_is_evicted_too() {
    let bench = Bench::passing();
    confirmed(&bench, 5, &pattern(1, 9 * MIB));
    drop(pass(&bench, 5));
    bench.close(5);
    assert!(bench.passes(5), "more chunks than a close may compare");
    let report = bench.data.evict_all().unwrap();
    assert_eq!((report.kept_bytes, report.evicted_bytes), (0, 9 * MIB as u64));
}

#[test]
fn a_chunk_that_changes_after_it_was_submitted_is_sent_again() {
    let bench = Bench::passing();
    bench.create_open(5).expect("new files pass");
    let file = pass(&bench, 5);
    file.write_all_at(&pattern(1, MIB), 0).unwrap();
    bench.data.write_back_all().unwrap();
    // In the open pack now. What follows must not be taken for what was sent.
    file.write_all_at(b"later", 100).unwrap();
    drop(file);
    bench.close(5);
    bench.close(5);
    bench.seal(CutCause::Forced);
    bench.settle();
    assert_eq!(&bench.restore().content(5)[100..105], b"later");
}

#[test]
fn after_a_crash_the_backing_file_is_believed() {
    let bench = Bench::passing();
    confirmed(&bench, 5, &pattern(1, 2 * MIB));
    let old = pass(&bench, 5);
    let (_, durable) = bench.store.progress();
    old.write_all_at(&pattern(2, 70_000), MIB as u64 - 30_000).unwrap();
    old.set_len(MIB as u64 + 50_000).unwrap();
    let new = bench.create_open(6).unwrap();
    new.write_all_at(&pattern(3, MIB + 9), 0).unwrap();
    // Only what was durable before the first byte could be written over: the note is among it.
    let all = bench.store.progress().0;
    for kept in [durable, all] {
        let dir = scratch();
        copy_dir(bench.dir.path(), dir.path());
        let after = bench.crashed_copy(kept, dir);
        let mut expected = pattern(1, MIB + 50_000);
        expected[MIB - 30_000..MIB + 40_000].copy_from_slice(&pattern(2, 70_000));
        assert_eq!(after.file(5).state.read().record.size, expected.len() as u64);
        assert!(after.content(5) == expected && dirty_chunks(&after, 5) == [0, 1]);
        if kept == all {
            assert!(after.content(6) == pattern(3, MIB + 9));
        }
        assert_eq!((notes(&after), after.data.errors()), (0, Vec::new()));
        after.settle();
        assert!(after.restore().content(5) == expected);
    }
}

/// What the kernel wrote and made durable itself is what a volume shows that must not change, also in a file that the records know
/// as an empty one.
#[test]
fn after_a_crash_the_backing_file_is_read_also_where_nothing_may_change() {
    let bench = Bench::passing();
    confirmed(&bench, 5, &pattern(1, 2 * MIB));
    pass(&bench, 5).write_all_at(&pattern(2, 70_000), MIB as u64).unwrap();
    let born = bench.create_open(6).unwrap();
    born.write_all_at(&pattern(3, MIB + 9), 0).unwrap();
    bench.data.fsync(&bench.file(6), false).unwrap();
    let (_, durable) = bench.store.progress();
    let dir = scratch();
    copy_dir(bench.dir.path(), dir.path());
    let after = bench.read_only_copy(durable, dir);
    let mut expected = pattern(1, 2 * MIB);
    expected[MIB..MIB + 70_000].copy_from_slice(&pattern(2, 70_000));
    for (ino, expected) in [(5, expected), (6, pattern(3, MIB + 9))] {
        let inode = after.file(ino);
        let (stamp, _) = after
            .data
            .written_by_others(&inode.state.read())
            .unwrap()
            .expect("it passes");
        assert_eq!(stamp.size, expected.len() as u64);
        assert!(after.try_read(ino, 0, stamp.size as u32 + 10).unwrap() == expected);
        after.data.released(&inode);
        after.data.write_back_all().unwrap();
        assert!(after.try_read(ino, 0, stamp.size as u32).unwrap() == expected);
    }
    assert_eq!((notes(&after), after.data.errors()), (2, Vec::new()));
}

#[test]
fn what_a_sync_submitted_outlives_a_power_cut_though_nobody_synced_the_file() {
    let mut bench = Bench::passing();
    let on_disk = super::durable::as_synced_last(&mut bench);
    confirmed(&bench, 5, &pattern(1, 2 * MIB));
    let file = pass(&bench, 5);
    file.write_all_at(&pattern(2, 2 * MIB), 0).unwrap();
    bench.data.write_back_all().unwrap();
    let (all, _) = bench.store.progress();
    let image = std::mem::replace(&mut *on_disk.lock(), crate::fakes::bench::scratch());
    let bench = bench.power_cut(all, image.path());
    assert!(bench.content(5) == pattern(2, 2 * MIB));
    bench.settle();
    assert!(bench.restore().content(5) == pattern(2, 2 * MIB));
}

#[test]
fn the_backing_file_looks_like_the_file_before_it_is_handed_out() {
    let bench = Bench::passing();
    bench.create(5);
    bench.write(5, 0, &pattern(1, 3 * MIB));
    bench.set_size(5, 5000);
    bench.set_size(5, 9000);
    bench.write(5, 2 * CHUNK, b"far away");
    assert!(
        bench.open(5, false).is_none(),
        "it has just outgrown its record, which the disk must have first"
    );
    bench.close(5);
    bench.fsync(5).unwrap();
    let file = pass(&bench, 5);
    let mut found = vec![1; 2 * MIB + 8];
    file.read_exact_at(&mut found, 0).unwrap();
    let mut expected = pattern(1, 5000);
    expected.resize(2 * MIB, 0);
    expected.extend(b"far away");
    assert!(found == expected);
    assert_eq!(file.metadata().unwrap().len(), expected.len() as u64);
    assert_eq!(bench.data_ranges(5).len(), 2, "the hole is one");
    drop(file);
    bench.close(5);
    assert!(bench.content(5) == expected);
}

#[test]
fn a_small_new_file_becomes_a_record_and_its_backing_file_goes() {
    let bench = Bench::passing();
    let file = bench.create_open(5).unwrap();
    file.write_all_at(&pattern(1, 4000), 0).unwrap();
    bench.data.shared().look_at_all().unwrap();
    assert!(bench.passes(5) && bench.file(5).state.read().record.inline);
    drop(file);
    bench.close(5);
    bench.keep_house();
    assert_eq!((bench.content(5), bench.data.cache_bytes()), (pattern(1, 4000), 0));
    // The next one beside it is likely to be small, too.
    assert!(bench.create_open(6).is_none());
    bench.write(6, 0, &pattern(2, MIB));
    bench.close(6);
    assert!(bench.create_open(7).is_some(), "that one was not");
}

#[test]
fn a_small_new_file_that_is_soon_gone_leaves_no_backing_file() {
    for closes in [false, true] {
        let mut bench = Bench::passing();
        let file = bench.create_open(5).unwrap();
        file.write_all_at(b"hello", 0).unwrap();
        drop(file);
        bench.close(5);
        bench.delete(5);
        if closes {
            bench = bench.reopen();
        }
        (0..3).for_each(|_| bench.keep_house());
        assert!(!bench.dir.path().join("05/0000000000000005").exists());
        assert_eq!(bench.data.cache_bytes(), 0);
    }
}

/// What reaches far beyond the end costs no more than what is there.
#[test]
fn only_what_is_there_is_punched_out() {
    let bench = Bench::passing();
    confirmed(&bench, 5, &pattern(1, 2 * MIB));
    let _file = pass(&bench, 5);
    bench
        .change_space(5, SpaceChange::Reserve, 0..4 * CHUNK, false)
        .unwrap();
    let blocks = || bench.file(5).state.read().record.blocks;
    assert_eq!(blocks(), 1024);
    bench
        .change_space(5, SpaceChange::Punch, CHUNK..100 * CHUNK, false)
        .unwrap();
    let known = bench.file(5).state.read().data.chunks.lock().numbers_from(4);
    assert!(known.is_empty(), "chunks that were looked at: {known:?}");
    bench.data.shared().look_at_all().unwrap();
    assert_eq!(blocks(), 256);
    let mut expected = pattern(1, MIB);
    expected.resize(2 * MIB, 0);
    assert!(bench.content(5) == expected);
}

#[test]
fn who_must_be_asked_is_not_passed_by() {
    let bench = Bench::passing();
    confirmed(&bench, 5, &pattern(1, MIB));
    bench.file(5).state.write().record.quota = 1;
    assert!(bench.open(5, true).is_none(), "its quota");
    bench.close(5);
    bench.file(5).state.write().record.quota = 0;
    bench.data.evict_all().unwrap();
    assert!(bench.open(5, false).is_none(), "the network");
    assert!(bench.open(5, true).is_none(), "who has it open already");
    bench.close(5);
    bench.close(5);
    bench.create(6);
    bench.write(6, 0, b"inline");
    assert!(bench.open(6, true).is_none(), "its record");
    confirmed(&bench, 7, &pattern(1, 64 << 10));
    assert!(bench.open(7, true).is_none(), "nobody, but it is not worth it");
}

#[test]
fn what_lies_beyond_the_first_part_is_moved_to_the_second() {
    let bench = Bench::passing();
    let part = crate::limits::BACKING_PART_CHUNKS * CHUNK;
    let file = bench.create_open(5).unwrap();
    file.write_all_at(&pattern(1, 5000), part - 4096).unwrap();
    bench.data.shared().look_at_all().unwrap();
    assert_eq!(bench.file(5).state.read().record.size, part, "not yet");
    drop(file);
    bench.close(5);
    assert_eq!(bench.file(5).state.read().record.size, part + 904);
    assert_eq!(bench.try_read(5, part - 4096, 9000).unwrap(), pattern(1, 5000));
    assert!(bench.open(5, true).is_none(), "one file cannot hold it");
    bench.close(5);
    let bench = bench.reopen();
    assert_eq!(bench.try_read(5, part - 4096, 9000).unwrap(), pattern(1, 5000));
}

#[test]
fn an_unlinked_file_goes_with_its_last_close() {
    let bench = Bench::passing();
    let file = bench.create_open(5).unwrap();
    file.write_all_at(&pattern(1, MIB), 0).unwrap();
    bench.delete(5);
    bench.keep_house();
    assert_eq!((notes(&bench), bench.data.cache_bytes()), (0, 0));
}

/// Blocks are counted right whatever becomes of them: each is a hole, reserved or data, and the model knows which.
#[test]
fn reserved_blocks_are_counted_whatever_became_of_them_before() {
    const BLOCKS: u64 = 512;
    const BLOCK: u64 = 4096;
    for seed in 1..40_u64 {
        let bench = Bench::passing();
        let file = bench.create_open(5).unwrap();
        file.set_len(BLOCKS * BLOCK).unwrap();
        let (mut random, mut model) = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), [false; BLOCKS as usize]);
        let mut did = Vec::new();
        for _ in 0..12 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let start = (random >> 8) % BLOCKS;
            let end = start + 1 + (random >> 24) % (BLOCKS - start);
            let (range, blocks) = (start * BLOCK..end * BLOCK, start as usize..end as usize);
            let change = |what| bench.change_space(5, what, range.clone(), false).unwrap();
            let taken = match random % 6 {
                0 => bench.data.shared().look_at_all().map(|()| None).unwrap(),
                1 => {
                    let ones = vec![1; (range.end - range.start) as usize];
                    file.write_all_at(&ones, range.start).unwrap();
                    Some((blocks, true))
                }
                2 => Some((blocks, true)).inspect(|_| change(SpaceChange::Reserve)),
                3 => Some((blocks, true)).inspect(|_| change(SpaceChange::Zero)),
                4 => Some((blocks, false)).inspect(|_| change(SpaceChange::Punch)),
                _ => {
                    bench.set_size(5, range.start);
                    bench.set_size(5, BLOCKS * BLOCK);
                    Some((start as usize..BLOCKS as usize, false))
                }
            };
            did.push((random % 6, start, end));
            if let Some((blocks, taken)) = taken {
                model[blocks].fill(taken);
            }
        }
        drop(file);
        bench.close(5);
        bench.data.shared().tend_passes().unwrap();
        assert!(!bench.passes(5), "seed {seed}");
        let expected = model.iter().filter(|taken| **taken).count() as u64;
        assert_eq!(
            bench.file(5).state.read().record.blocks,
            expected,
            "seed {seed}: {did:?}"
        );
        let data: u64 = bench.data_ranges(5).iter().map(|run| run.end - run.start).sum();
        assert!(data <= expected * BLOCK, "seed {seed}");
    }
}

/// What is handed over for a snapshot is complete: what the kernel wrote is found before, or after.
#[test]
fn nothing_is_found_while_a_snapshot_is_taken_but_by_who_takes_it() {
    let bench = Bench::passing();
    confirmed(&bench, 5, &pattern(1, 2 * MIB));
    let file = pass(&bench, 5);
    file.write_all_at(b"!", CHUNK + 7).unwrap();
    bench.core.marks.freeze();
    bench.data.shared().tend_passes().unwrap();
    drop(file);
    bench.close(5);
    bench.data.shared().tend_passes().unwrap();
    assert!(bench.passes(5) && dirty_chunks(&bench, 5).is_empty());
    bench.data.shared().look_at_all().unwrap();
    assert_eq!(dirty_chunks(&bench, 5), [1]);
    bench.core.marks.thaw();
    bench.data.shared().tend_passes().unwrap();
    assert!(!bench.passes(5));
    bench.settle();
    assert!(bench.restore().content(5) == bench.content(5));
}

#[test]
fn without_a_descriptor_to_spare_a_file_goes_through_the_daemon() {
    let bench = Bench::passing();
    confirmed(&bench, 5, &pattern(1, 100_000));
    // Were its backing file open already, none would be opened.
    let bench = bench.reopen();
    let (none, many) = (0, usize::MAX);
    crate::backing::DESCRIPTORS.set(none);
    assert!(bench.open(5, true).is_none());
    crate::backing::DESCRIPTORS.set(many);
    assert!(bench.content(5) == pattern(1, 100_000));
    bench.close(5);
    drop(pass(&bench, 5));
}
