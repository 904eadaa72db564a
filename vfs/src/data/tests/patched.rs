//! Whole blocks written over a chunk that is not here: nobody waits for the network, and nothing of either is lost.

use super::durable::{Watched, torn_dir};
use super::*;
use crate::limits::{COMPLETION_POLL, COMPLETIONS_MAX};
use crate::request::SpaceChange;
use std::os::unix::fs::FileExt;

fn stored(bench: &Bench, chunk: u64) -> cessfs_crypto::ChunkId {
    bench.extent(5, chunk).unwrap().stored.unwrap().0
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    file.resize(file.len().max(at + bytes.len()), 0);
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn whole_blocks_are_written_without_the_network() {
    for at_rest in BOTH {
        let bench = absent(at_rest, MIB + 5000);
        let mut expected = pattern(1, MIB + 5000);
        for (at, len) in [(8192, 4096), (40_960, 8192), (MIB + 4096, 904), (MIB + 8192, 100)] {
            let bytes = pattern(at as u64, len);
            bench.write(5, at as u64, &bytes);
            put(&mut expected, at, &bytes);
            assert_eq!(bench.try_read(5, at as u64, len as u32).unwrap(), bytes);
        }
        bench.fsync(5).unwrap();
        assert_eq!(bench.chunks.calls().1, 0, "nothing was fetched");
        assert!(bench.extent(5, 0).unwrap().is_patched() && bench.extent(5, 1).unwrap().is_patched());
        // What a crash leaves can be read, and written over, too.
        let (all, _) = bench.store.progress();
        let bench = bench.crash_at(all);
        assert_eq!(bench.try_read(5, 8192, 4096).unwrap(), expected[8192..12_288]);
        assert_eq!(bench.chunks.calls().1, 0);
        bench.write(5, 8192, &pattern(3, 4096));
        put(&mut expected, 8192, &pattern(3, 4096));
        assert_eq!(bench.content(5), expected, "the rest comes from the network");
        bench.make_absent();
        assert_eq!(bench.content(5), expected);
        assert_eq!(bench.restore().content(5), expected);
    }
}

#[test]
fn a_chunk_written_over_as_a_whole_is_not_fetched() {
    for at_rest in BOTH {
        let bench = absent(at_rest, 2 * MIB);
        let new = pattern(2, 2 * MIB);
        for part in 0..8 {
            let at = part * MIB / 4;
            bench.write(5, at as u64, &new[at..at + MIB / 4]);
        }
        assert_eq!(bench.content(5), new);
        bench.settle();
        assert_eq!(bench.chunks.calls().1, 0, "nothing was fetched");
        assert_eq!(bench.restore().content(5), new);
        bench.make_absent();
        assert_eq!(bench.content(5), new);
    }
}

#[test]
fn a_part_of_a_block_is_fetched_before_it_is_written() {
    for at_rest in BOTH {
        for (at, len) in [(8000, 300), (8192, 5000), (5000, 3192), (MIB - 1, 1)] {
            let bench = absent(at_rest, MIB);
            bench.write(5, 16_384, &pattern(7, 4096));
            let bytes = pattern(2, len);
            bench.write(5, at as u64, &bytes);
            assert_eq!(bench.chunks.calls().1, 1);
            let mut expected = pattern(1, MIB);
            put(&mut expected, 16_384, &pattern(7, 4096));
            put(&mut expected, at, &bytes);
            assert_eq!(bench.content(5), expected);
            // Within what was written over nothing has to be fetched.
            let bench = absent(at_rest, MIB);
            bench.write(5, 16_384, &pattern(7, 4096));
            bench.write(5, 17_000, b"part");
            assert_eq!(bench.chunks.calls().1, 0);
        }
    }
}

#[test]
fn what_was_cut_off_beneath_stays_cut_off() {
    for at_rest in BOTH {
        let bench = absent(at_rest, 300_000);
        bench.set_size(5, 100_100);
        bench.write(5, 204_800, &pattern(2, 4096));
        bench.set_size(5, 280_000);
        let mut expected = pattern(1, 100_100);
        put(&mut expected, 204_800, &pattern(2, 4096));
        expected.resize(280_000, 0);
        assert_eq!(bench.content(5), expected);
        bench.make_absent();
        assert_eq!(bench.content(5), expected);
        bench.make_absent();
        // And what was written over is gone if that is cut off, or punched out.
        bench.write(5, 212_992, &pattern(3, 4096));
        bench.set_size(5, 208_896);
        bench.write(5, 8192, &pattern(4, 4096));
        bench.change_space(5, SpaceChange::Punch, 8192..12_288, false).unwrap();
        assert_eq!(bench.data.dirty_bytes(), 0, "nothing is left that was written");
        expected.truncate(208_896);
        expected[8192..12_288].fill(0);
        assert_eq!(bench.content(5), expected);
        bench.seal(CutCause::Forced);
        assert_eq!(bench.restore().content(5), expected);
    }
}

#[test]
fn a_silent_network_keeps_nothing_else_from_being_sent() {
    for at_rest in BOTH {
        let bench = absent(at_rest, 2 * MIB);
        let shared = bench.data.shared();
        let (first, second) = (stored(&bench, 0), stored(&bench, 1));
        bench.chunks.hold_back(true);
        bench.create(6);
        bench.write(5, 0, &pattern(2, 4096));
        bench.write(5, CHUNK, &pattern(3, 4096));
        bench.write(6, 0, &pattern(4, 100_000));
        let submitted = bench.chunks.open_chunks();
        bench.data.write_back_all().unwrap();
        assert_eq!(bench.chunks.open_chunks(), submitted + 1, "the other file went");
        bench.fsync(5).unwrap();
        assert!(bench.extent(5, 0).unwrap().is_patched() && bench.extent(5, 1).unwrap().is_patched());
        assert_eq!((stored(&bench, 0), stored(&bench, 1)), (first, second));
        // What packs tell meanwhile is what the network has.
        bench.seal(CutCause::Forced);
        bench.chunks.hold_back(false);
        assert_eq!(bench.restore().content(5), pattern(1, 2 * MIB));
        bench.clock.advance(bench.core.config.writeback_delay + COMPLETION_POLL);
        while shared.write_back_next() {}
        bench.settle();
        let mut expected = pattern(1, 2 * MIB);
        put(&mut expected, 0, &pattern(2, 4096));
        put(&mut expected, MIB, &pattern(3, 4096));
        assert_eq!(bench.restore().content(5), expected);
        assert_eq!(bench.content(5), expected);
    }
}

#[test]
fn what_cannot_be_fetched_is_told_and_what_was_written_stays() {
    for at_rest in BOTH {
        let bench = absent(at_rest, MIB);
        bench.chunks.lose(stored(&bench, 0));
        bench.write(5, 8192, &pattern(2, 4096));
        bench.fsync(5).unwrap();
        assert!(bench.try_read(5, 0, 4096).is_err(), "nobody has it");
        assert_eq!(bench.try_read(5, 8192, 4096).unwrap(), pattern(2, 4096));
        let completed = wait(crate::Later::Wait(bench.data.complete_all()));
        assert!(matches!(completed, Err(VfsError::Fetch(_))), "{completed:?}");
        assert!(bench.data.write_back_all().is_err());
        assert!(
            bench
                .data
                .errors()
                .iter()
                .any(|told| told.contains("cannot be completed"))
        );
        assert_eq!(bench.try_read(5, 8192, 4096).unwrap(), pattern(2, 4096));
    }
}

#[test]
fn completing_brings_every_chunk_here() {
    for at_rest in BOTH {
        let bench = absent(at_rest, 20 * MIB);
        let mut expected = pattern(1, 20 * MIB);
        for chunk in 0..20 {
            bench.write(5, chunk * CHUNK + 4096, &pattern(chunk, 8192));
            put(&mut expected, chunk as usize * MIB + 4096, &pattern(chunk, 8192));
        }
        wait(crate::Later::Wait(bench.data.complete_all())).unwrap();
        assert_eq!(bench.chunks.calls().1, 20);
        assert_eq!(bench.content(5), expected);
        bench.settle();
        assert_eq!(bench.chunks.calls().1, 20, "once each");
        assert_eq!(bench.restore().content(5), expected);
    }
}

/// A write over a block, an fsync, all of it fetched, and the block punched out: a crash shows the block as written or as zeros.
#[test]
fn what_lies_beneath_does_not_come_back() {
    for at_rest in BOTH {
        let bench = absent(at_rest, MIB);
        bench.write(5, 8192, &pattern(2, 4096));
        bench.fsync(5).unwrap();
        assert_eq!(bench.content(5).len(), MIB, "fetched, and not durable");
        bench.change_space(5, SpaceChange::Punch, 8192..12_288, false).unwrap();
        bench.data.shared().reclaim().unwrap();
        let (all, durable) = bench.store.progress();
        for batches in [durable, all] {
            let copy = scratch();
            copy_dir(bench.dir.path(), copy.path());
            let found = bench.crashed_copy(batches, copy).try_read(5, 8192, 4096).unwrap();
            assert!(found == pattern(2, 4096) || found == [0; 4096]);
        }
        assert_eq!(bench.try_read(5, 8192, 4096).unwrap(), [0; 4096]);
        bench.keep_house();
        bench.make_absent();
        let mut expected = pattern(1, MIB);
        expected[8192..12_288].fill(0);
        assert_eq!(bench.content(5), expected);
    }
}

/// Readers bring what was asked for, too. Then nobody comes for it, and it takes the place of others no longer.
#[test]
fn what_readers_completed_keeps_nothing_else_from_being_completed() {
    let chunks = COMPLETIONS_MAX as u64 + 1;
    let bench = absent(AtRest::Sealed, chunks as usize * MIB);
    let shared = bench.data.shared();
    let write_back = || {
        bench.clock.advance(bench.core.config.writeback_delay);
        while shared.write_back_next() {}
    };
    bench.chunks.hold_back(true);
    for chunk in 0..chunks - 1 {
        bench.write(5, chunk * CHUNK, &pattern(2, 4096));
    }
    write_back();
    bench.chunks.hold_back(false);
    bench.try_read(5, 0, ((chunks - 1) * CHUNK) as u32).unwrap();
    bench.write(5, (chunks - 1) * CHUNK, &pattern(3, 4096));
    write_back();
    bench.clock.advance(COMPLETION_POLL);
    write_back();
    let extent = |chunk| bench.extent(5, chunk).unwrap();
    assert!((0..chunks).all(|chunk| extent(chunk).resident && extent(chunk).dirty));
    assert!(bench.data.all_submitted());
}

/// The cache of a chunk that was just fetched is damaged, its place is written over, and a reader brings the rest while that is
/// made durable.
#[test]
fn an_fsync_survives_over_a_damaged_chunk_that_is_fetched_again() {
    let mut bench = Bench::new(AtRest::Sealed);
    let reader = Arc::new(Mutex::new(None::<(Data, Arc<Inode>)>));
    let beside = reader.clone();
    let synced = move || {
        if let Some((data, inode)) = beside.lock().take() {
            wait(data.read(&inode, 0, MIB as u32).unwrap()).unwrap().keep();
        }
        Ok(())
    };
    let backing = Watched::new(bench.data.shared().backing.clone(), synced);
    bench.data = Data::over(bench.core.clone(), Arc::new(backing)).unwrap();
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.make_absent();
    assert_eq!(bench.content(5), pattern(1, MIB));
    let path = bench.dir.path().join("05/0000000000000005");
    std::fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(b"damage", 16 * 1024 + 7)
        .unwrap();
    bench.chunks.hold_back(true);
    assert!(matches!(
        bench.data.read(&bench.file(5), 0, 10).unwrap(),
        crate::Later::Wait(_)
    ));
    bench.write(5, 8192, &pattern(2, 4096));
    bench.chunks.hold_back(false);
    *reader.lock() = Some((bench.data.clone(), bench.file(5)));
    bench.fsync(5).unwrap();
    let (_, durable) = bench.store.progress();
    assert_eq!(
        bench.crash_at(durable).try_read(5, 8192, 4096).unwrap(),
        pattern(2, 4096)
    );
}

/// A disk without seals keeps some sectors of a block that was never there before, and the network has what belongs to the others.
#[test]
fn what_lies_beneath_survives_on_a_disk_that_keeps_any_sectors() {
    for mask in 0..16_u32 {
        let bench = absent(AtRest::Plain, MIB);
        // Nothing could come back of what was evicted.
        bench.data.shared().backing.sync(5).unwrap();
        let durable_dir = scratch();
        copy_dir(bench.dir.path(), durable_dir.path());
        bench.write(5, 8192, &pattern(2, 12_288));
        bench.data.shared().journal(&bench.file(5)).unwrap();
        let new = pattern(2, 12_288);
        let keeps = |sector: usize| mask >> (sector % 4) & 1 == 1;
        let image = torn_dir(durable_dir.path(), bench.dir.path(), 512, &keeps);
        let (all, _) = bench.store.progress();
        let copy = scratch();
        copy_dir(image.path(), copy.path());
        let shown = bench.read_only_copy(all, copy).try_read(5, 8192, 12_288).unwrap();
        let found = bench.power_cut(all, image.path()).try_read(5, 8192, 12_288).unwrap();
        let old = pattern(1, MIB)[8192..20_480].to_vec();
        for (at, found) in [("", found), (", read only", shown)] {
            for (number, sector) in found.chunks(512).enumerate() {
                let at_byte = number * 512..number * 512 + 512;
                assert!(
                    sector == &old[at_byte.clone()] || sector == &new[at_byte],
                    "mask {mask:04b}{at}: sector {number} is neither old nor new"
                );
            }
        }
    }
}
