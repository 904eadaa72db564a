//! Crashes between the cache and the journal.

use crate::EvictReport;
use crate::core::AtRest;
use crate::data::CHUNK;
use crate::fakes::bench::{BOTH, Bench, copy_dir, pattern, scratch};
use crate::limits::{BACKING_DIRS, BLOCK_BYTES, HEARTBEAT_EVERY, HEARTBEAT_MARGIN};
use cessfs_sync::{Clock, CutCause, MetaStore};
use std::os::unix::fs::FileExt;
use std::time::{Duration, UNIX_EPOCH};

const MIB: usize = 1 << 20;

#[test]
fn a_clean_chunk_that_was_written_turns_dirty() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 2 * MIB));
        bench.settle();
        bench.fsync(5).unwrap();
        let (journaled, _) = bench.store.progress();
        bench.write(5, 8192, &pattern(2, 10_000));
        // The write reached the cache and not the journal.
        let mut expected = pattern(1, 2 * MIB);
        expected[8192..18192].copy_from_slice(&pattern(2, 10_000));
        let bench = bench.crash_at(journaled);
        assert_eq!(bench.content(5), expected);
        assert!(bench.extent(5, 0).unwrap().dirty && !bench.extent(5, 1).unwrap().dirty);
        bench.settle();
        assert_eq!(bench.restore().content(5), expected, "and the next delta carries it");
    }
}

/// Its hash is that of more than is left of it, and was taken to say nothing: the file read as it was written, here, and as it was
/// before from the network.
#[test]
fn a_clean_chunk_that_was_cut_short_and_then_written_turns_dirty() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB));
        bench.settle();
        bench.set_size(5, 500_000);
        bench.settle();
        bench.fsync(5).unwrap();
        let (journaled, _) = bench.store.progress();
        bench.write(5, 8192, &pattern(2, 10_000));
        let mut expected = pattern(1, MIB)[..500_000].to_vec();
        expected[8192..18192].copy_from_slice(&pattern(2, 10_000));
        let bench = bench.crash_at(journaled);
        assert_eq!(bench.content(5), expected);
        bench.settle();
        assert_eq!(bench.restore().content(5), expected);
    }
}

#[test]
fn a_content_that_changed_after_its_delta_travels_again() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB));
        bench.data.write_back_all().unwrap();
        bench.fsync(5).unwrap();
        bench.seal(CutCause::Full);
        let (sealed, _) = bench.store.progress();
        // Dirty in the journal, unmarked, and now with other content: only recovery can know.
        bench.write(5, 0, &pattern(2, MIB));
        let bench = bench.crash_at(sealed);
        assert_eq!(bench.content(5), pattern(2, MIB));
        bench.settle();
        assert_eq!(bench.restore().content(5), pattern(2, MIB));
    }
}

#[test]
fn backing_files_of_inodes_that_are_no_more_are_removed() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        let (nothing, _) = bench.store.progress();
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB));
        assert!(bench.data.cache_bytes() >= CHUNK);
        let bench = bench.crash_at(nothing);
        assert_eq!(bench.data.cache_bytes(), 0);
        assert!(bench.find(5).is_none());
    }
}

#[test]
fn old_backing_files_of_inodes_that_are_no_more_are_removed_in_time() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        let part = |ino: u64| bench.dir.path().join(format!("{ino:02x}/{ino:016x}"));
        let parts = [part(5), part(7)];
        bench.create(6);
        bench.write(6, 0, &pattern(2, MIB));
        bench.fsync(6).unwrap();
        bench.create(7);
        bench.write(7, 0, b"a record");
        bench.clock.set(10 * HEARTBEAT_MARGIN);
        bench.data.shared().beat().unwrap();
        for part in &parts {
            std::fs::write(part, b"left by an inode that is no more, or is a record").unwrap();
            let file = std::fs::File::options().write(true).open(part).unwrap();
            file.set_modified(UNIX_EPOCH).unwrap();
        }
        let (all, _) = bench.store.progress();
        let bench = bench.crash_at(all);
        assert!(
            parts.iter().all(|part| part.exists()),
            "an old file is not worth waiting for"
        );
        (0..=BACKING_DIRS).for_each(|_| bench.keep_house());
        assert!(!parts.iter().any(|part| part.exists()));
        assert!(bench.content(6) == pattern(2, MIB));
        assert_eq!(bench.content(7), b"a record");
    }
}

/// It went back to the block as it was before the damaged one, which is no tear, and sent that over what the network had.
#[test]
fn a_damaged_block_of_a_clean_chunk_comes_from_the_network_and_not_from_its_older_version() {
    let bench = Bench::new(AtRest::Sealed);
    bench.create(5);
    bench.write(5, 0, &pattern(1, 40 * 4096));
    bench.settle();
    bench.write(5, 3 * BLOCK_BYTES, &pattern(2, 4096));
    bench.settle();
    let expected = bench.content(5);
    // Its second place; the first one still has what was there.
    let at = (16 << 10) + CHUNK + 3 * BLOCK_BYTES;
    let path = bench.dir.path().join("05/0000000000000005");
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at + 100).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at + 100).unwrap();
    let (all, _) = bench.store.progress();
    let bench = bench.crash_at(all);
    let extent = bench.extent(5, 0).unwrap();
    assert!(!extent.dirty && !extent.resident, "{extent:?}");
    assert!(bench.content(5) == expected);
}

#[test]
fn a_clean_chunk_written_over_as_the_power_went_is_what_it_was_without_the_network() {
    let bench = Bench::new(AtRest::Sealed);
    bench.create(5);
    bench.write(5, 0, &pattern(1, 40 * 4096));
    bench.settle();
    let (all, _) = bench.store.progress();
    let expected = bench.content(5);
    bench.write(5, 3 * BLOCK_BYTES, &pattern(2, 4096));
    // Of what was written the entry reached the disk, the block did not.
    let path = bench.dir.path().join("05/0000000000000005");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0; 4096], (16 << 10) + CHUNK + 3 * BLOCK_BYTES)
        .unwrap();
    let bench = bench.crash_at(all);
    let extent = bench.extent(5, 0).unwrap();
    assert!(!extent.dirty && extent.resident, "{extent:?}");
    assert!(bench.content(5) == expected);
    assert_eq!(bench.chunks.calls().1, 0, "nothing was fetched");
}

/// What was to be given back was in memory only: the cache was smaller for good.
#[test]
fn what_was_not_given_back_before_a_crash_is_in_time() {
    let unneeded: [fn(&Bench); 3] = [
        |bench| {
            bench.settle();
            let shared = bench.data.shared();
            shared.evict_inode(5, u64::MAX, &mut EvictReport::default()).unwrap();
        },
        |bench| bench.set_size(5, 0),
        |bench| bench.set_size(5, 8192),
    ];
    for (at_rest, unneeded) in BOTH.into_iter().flat_map(|at_rest| unneeded.map(|cut| (at_rest, cut))) {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 4 * MIB));
        bench.create(6);
        bench.write(6, 0, &pattern(2, MIB + 50_000));
        bench.data.persist_all().unwrap();
        let kept = bench.data.cache_bytes() - 4 * CHUNK;
        unneeded(&bench);
        let expected = bench.file(5).state.read().record.size;
        bench.store.barrier().unwrap();
        let (all, _) = bench.store.progress();
        let bench = bench.crash_at(all);
        assert!(
            bench.data.cache_bytes() >= 4 * CHUNK,
            "{at_rest:?}: there is something to find"
        );
        (0..=BACKING_DIRS).for_each(|_| bench.keep_house());
        let left = bench.data.cache_bytes();
        assert!(
            left < kept + CHUNK / 2,
            "{at_rest:?}: {left} are left, with {kept} of the other"
        );
        assert!(
            bench.content(5) == pattern(1, 4 * MIB)[..expected as usize],
            "{at_rest:?}"
        );
        assert!(bench.content(6) == pattern(2, MIB + 50_000), "{at_rest:?}");
    }
}

#[test]
fn what_is_only_read_is_not_read_again_after_a_crash() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.settle();
    bench.data.evict_all().unwrap();
    bench.keep_house();
    let before = beat(&bench);
    bench.clock.advance(10 * HEARTBEAT_MARGIN);
    assert_eq!(bench.content(5), pattern(1, MIB));
    bench.keep_house();
    assert!(beat(&bench) > before, "fetched content is content that came");
    let last = beat(&bench);
    (0..10).for_each(|_| bench.keep_house());
    assert_eq!(beat(&bench), last, "and a quiet volume writes nothing");
}

#[test]
fn a_clean_close_remembers_what_the_cache_takes() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB));
        let bench = bench.reopen();
        let told = bench.data.cache_bytes();
        assert!(told >= CHUNK, "{told}");
        bench.data.shared().backing.recount(&mut |_| ()).unwrap();
        assert_eq!(bench.data.cache_bytes(), told);
    }
}

#[test]
fn blocks_that_never_reached_the_disk_are_holes_and_told() {
    let bench = Bench::new(AtRest::Sealed);
    bench.create(5);
    bench.write(5, 0, &pattern(1, 4 * 4096));
    bench.fsync(5).unwrap();
    let image = crate::fakes::bench::scratch();
    crate::fakes::bench::copy_dir(bench.dir.path(), image.path());
    bench.write(5, 4 * BLOCK_BYTES, &pattern(2, 2 * 4096));
    bench.data.released(&bench.file(5));
    let (all, _) = bench.store.progress();
    // The journal came through, the last two blocks did not.
    let bench = bench.power_cut(all, image.path());
    let mut expected = pattern(1, 4 * 4096);
    expected.resize(6 * 4096, 0);
    assert_eq!(bench.content(5), expected);
    assert_eq!(bench.file(5).state.read().record.blocks, 4);
    assert!(
        bench
            .data
            .errors()
            .iter()
            .any(|error| error.contains("8192 bytes of chunk 0")),
        "{:?}",
        bench.data.errors()
    );
}

#[test]
fn old_files_are_not_read_again() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.settle();
    bench.fsync(5).unwrap();
    // A heartbeat far after the file was last written, as the disk's own clock has it.
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    bench.clock.set(now + 10 * HEARTBEAT_MARGIN);
    bench.data.shared().beat().unwrap();
    let path = bench.dir.path().join("05/0000000000000005");
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 0).unwrap();
    file.set_modified(modified).unwrap();
    bench.store.barrier().unwrap();
    let (all, _) = bench.store.progress();
    let bench = bench.crash_at(all);
    assert!(
        !bench.extent(5, 0).unwrap().dirty,
        "nobody looked, because nothing can have changed since the heartbeat"
    );
}

#[test]
fn a_file_that_was_never_synced_and_lost_its_name_reads_as_a_hole() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 100_000));
        bench.data.released(&bench.file(5));
        let (batches, _) = bench.store.progress();
        // The journal came through, the backing file did not: nobody had asked for either.
        let nothing = crate::fakes::bench::scratch();
        let bench = bench.power_cut(batches, nothing.path());
        assert_eq!(bench.content(5), vec![0; 100_000], "{at_rest:?}");
        bench.write(5, 50_000, &pattern(2, 1000));
        bench.settle();
        assert_eq!(
            bench.restore().content(5)[50_000..51_000],
            pattern(2, 1000),
            "{at_rest:?}"
        );
    }
}

/// An orphan is swept before anybody has looked at the notes: what it had outgrown goes then.
#[test]
fn a_record_that_was_outgrown_goes_with_its_inode() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 3000));
        bench.write(5, 3000, &pattern(2, 20_000));
        bench.data.released(&bench.file(5));
        bench.file(5).state.write().data.spill = None;
        bench.delete(5);
        let left = |bench: &Bench| {
            let keys = [crate::records::inline_key(5), crate::data::state::spill_key(5)];
            keys.map(|key| bench.store.get(&key).unwrap().is_some())
        };
        assert_eq!(left(&bench), [true, true], "{at_rest:?}");
        let (all, _) = bench.store.progress();
        assert_eq!(left(&bench.crash_at(all)), [false, false], "{at_rest:?}");
    }
}

const DAY: i64 = 86_400;

/// The last heartbeat.
fn beat(bench: &Bench) -> Option<u64> {
    let value = bench.store.get(crate::data::HEARTBEAT_KEY).unwrap();
    value.map(|value| crate::records::decode_counter(&value).unwrap())
}

/// A volume with a file that the network has, and a heartbeat of this moment.
fn beating() -> Bench {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.settle();
    bench.fsync(5).unwrap();
    bench.clock.advance(10 * HEARTBEAT_MARGIN);
    bench.data.shared().beat().unwrap();
    assert_eq!(beat(&bench), Some(bench.clock.wall().as_secs()));
    bench
}

/// The file is written now, as the wall clock has it, and the journal does not hear of it.
fn write_unheard(bench: &Bench) {
    let path = bench.dir.path().join("05/0000000000000005");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 0).unwrap();
    file.set_modified(UNIX_EPOCH + bench.clock.wall()).unwrap();
}

#[track_caller]
fn assert_looked_at_after_a_crash(bench: Bench) {
    let (all, _) = bench.store.progress();
    let bench = bench.crash_at(all);
    assert!(bench.extent(5, 0).unwrap().dirty, "nobody looked");
}

#[test]
fn a_clock_that_is_set_back_hides_nothing_that_was_written_since() {
    let bench = beating();
    bench.clock.step_wall(-DAY);
    bench.data.shared().beat().unwrap();
    write_unheard(&bench);
    // However late it is when the volume is mounted again.
    bench.clock.step_wall(7 * DAY);
    assert_looked_at_after_a_crash(bench);

    let bench = beating();
    bench.clock.step_wall(-DAY);
    write_unheard(&bench);
    assert_looked_at_after_a_crash(bench);
}

#[test]
fn a_clock_that_is_set_forward_hides_nothing_that_was_written_before() {
    let bench = beating();
    write_unheard(&bench);
    bench.clock.step_wall(DAY);
    bench.clock.advance(HEARTBEAT_EVERY);
    bench.data.shared().beat().unwrap();
    assert_looked_at_after_a_crash(bench);

    // What was written before is in the store by and by.
    let bench = beating();
    bench.clock.step_wall(DAY);
    let behind = |bench: &Bench| Duration::from_secs(bench.clock.wall().as_secs() - beat(bench).unwrap());
    for round in 0..150 {
        bench.clock.advance(HEARTBEAT_EVERY);
        bench.data.shared().beat().unwrap();
        assert!(behind(&bench) >= HEARTBEAT_MARGIN || HEARTBEAT_EVERY * round > HEARTBEAT_MARGIN);
    }
    assert_eq!(behind(&bench), Duration::ZERO);
}

/// A heartbeat far after anything was written, as the disk's own clock has it: as if the disk's filesystem had written no time since.
fn outlast_the_disk(bench: &Bench) {
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    bench.clock.set(now + 10 * HEARTBEAT_MARGIN);
    bench.data.shared().beat().unwrap();
}

/// The journal speaks of a version of a block of which the entry came to the disk, and of one of which nothing did.
#[test]
fn dirty_chunks_are_looked_at_however_old_their_file_looks() {
    let bench = Bench::new(AtRest::Sealed);
    bench.create(5);
    // More than goes by way of the journal alone.
    bench.write(5, 0, &pattern(1, 40 * 4096));
    bench.fsync(5).unwrap();
    outlast_the_disk(&bench);
    let image = scratch();
    copy_dir(bench.dir.path(), image.path());
    bench.write(5, BLOCK_BYTES, &pattern(2, 4096));
    let entries = std::fs::read(bench.dir.path().join("05/0000000000000005")).unwrap();
    bench.write(5, 40 * BLOCK_BYTES, &pattern(3, 4096));
    bench.data.released(&bench.file(5));
    let (all, _) = bench.store.progress();
    let file = std::fs::File::options()
        .write(true)
        .open(image.path().join("05/0000000000000005"));
    file.unwrap().write_all_at(&entries[..16 << 10], 0).unwrap();
    let bench = bench.power_cut(all, image.path());
    let mut expected = pattern(1, 40 * 4096);
    expected.resize(41 * 4096, 0);
    assert_eq!(bench.content(5), expected, "what was synced, and a hole");
    bench.settle();
    assert_eq!(bench.restore().content(5), expected, "and it can be sent");
}

#[test]
fn what_lies_beneath_shows_again_however_old_its_file_looks() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB));
        bench.make_absent();
        // Nothing could come back of what was evicted.
        bench.data.shared().backing.sync(5).unwrap();
        outlast_the_disk(&bench);
        let image = scratch();
        copy_dir(bench.dir.path(), image.path());
        bench.write(5, 8192, &pattern(2, 4096));
        bench.data.released(&bench.file(5));
        assert!(bench.extent(5, 0).unwrap().is_patched());
        let (all, _) = bench.store.progress();
        let copy = scratch();
        copy_dir(image.path(), copy.path());
        assert_eq!(bench.read_only_copy(all, copy).content(5), pattern(1, MIB));
        assert_eq!(bench.power_cut(all, image.path()).content(5), pattern(1, MIB));
    }
}
