//! Files that are still young: records that are larger than small ones, and then files like any other.

use super::*;
use crate::limits::{YOUNG_AGE_MAX, YOUNG_FILES_MAX};
use crate::request::SpaceChange;
use std::sync::atomic::AtomicBool;

const LEN: usize = 10_000;

/// A volume with one young file, synced.
fn with_young(at_rest: AtRest) -> Bench {
    let bench = Bench::new(at_rest);
    bench.create(5);
    bench.write(5, 0, &pattern(1, LEN));
    bench.fsync(5).unwrap();
    bench
}

fn is_record(bench: &Bench, ino: u64) -> bool {
    let is_inline = bench.file(ino).state.read().record.inline;
    assert_eq!(is_inline, bench.store.get(&records::inline_key(ino)).unwrap().is_some());
    is_inline
}

#[test]
fn a_young_file_has_no_backing_file_until_it_is_older() {
    for at_rest in BOTH {
        let bench = with_young(at_rest);
        bench.keep_house();
        assert!(is_record(&bench, 5));
        assert_eq!((bench.data.cache_bytes(), bench.data.dirty_bytes()), (0, 0));
        assert_eq!(bench.file(5).state.read().record.blocks, 3);
        bench.clock.advance(YOUNG_AGE_MAX);
        bench.keep_house();
        assert_eq!(bench.content(5), pattern(1, LEN));
        assert!(bench.data.dirty_bytes() > 0, "it is sent like any other");
        bench.clock.advance(YOUNG_AGE_MAX);
        bench.keep_house();
        assert!(
            !is_record(&bench, 5),
            "the record goes when the backing file is durable"
        );
        assert_eq!(bench.file(5).state.read().record.blocks, 3);
        assert_eq!(bench.reopen().content(5), pattern(1, LEN));
    }
}

#[test]
fn what_is_gone_while_it_is_young_leaves_nothing() {
    for at_rest in BOTH {
        let bench = with_young(at_rest);
        bench.delete(5);
        assert_eq!(bench.store.get(&records::inline_key(5)).unwrap(), None);
        bench.clock.advance(YOUNG_AGE_MAX);
        bench.keep_house();
        assert_eq!(bench.data.cache_bytes(), 0);
        assert!(bench.data.shared().young.is_empty());
    }
}

#[test]
fn a_young_file_is_sent_as_a_chunk() {
    let bench = with_young(AtRest::Sealed);
    bench.settle();
    assert!(!is_record(&bench, 5));
    assert_eq!(bench.restore().content(5), pattern(1, LEN));
}

#[test]
fn cut_to_a_young_size_it_stays_a_record_and_grown_it_does_not() {
    for at_rest in BOTH {
        let bench = with_young(at_rest);
        bench.set_size(5, 9000);
        assert!(is_record(&bench, 5));
        assert_eq!(bench.content(5), pattern(1, 9000));
        bench.set_size(5, 12_000);
        let mut expected = pattern(1, 9000);
        expected.resize(12_000, 0);
        assert_eq!(bench.content(5), expected);
        bench.fsync(5).unwrap();
        assert!(!is_record(&bench, 5));
        // Nor is one with a hole in front of what is written.
        bench.create(6);
        bench.write(6, 8192, &pattern(1, 100));
        bench.fsync(6).unwrap();
        assert!(!is_record(&bench, 6));
    }
}

#[test]
fn no_more_are_young_than_may_be() {
    let bench = Bench::new(AtRest::Sealed);
    for ino in 0..=YOUNG_FILES_MAX as u64 {
        bench.create(5 + ino);
        bench.write(5 + ino, 0, &pattern(ino, 5000));
    }
    let last = 5 + YOUNG_FILES_MAX as u64;
    assert!(bench.file(last - 1).state.read().record.inline);
    assert!(!bench.file(last).state.read().record.inline);
    assert_eq!(bench.content(last), pattern(YOUNG_FILES_MAX as u64, 5000));
}

/// A power cut may leave nothing of the backing file that was just made, or all of it but one block.
#[test]
fn a_power_cut_while_it_gets_its_backing_file_loses_nothing() {
    for at_rest in BOTH {
        let bench = with_young(at_rest);
        let nothing = scratch();
        copy_dir(bench.dir.path(), nothing.path());
        bench.data.shared().settle_young(true);
        bench.data.shared().journal(&bench.file(5)).unwrap();
        bench.store.barrier().unwrap();
        assert!(!bench.file(5).state.read().record.inline);
        let (batches, _) = bench.store.progress();
        also_read_only(&bench, batches, nothing, &format!("{at_rest:?}: nothing"));
        for block in 0..3 {
            let image = scratch();
            copy_dir(bench.dir.path(), image.path());
            let path = image.path().join("05/0000000000000005");
            let mut raw = std::fs::read(&path).unwrap();
            // The first slot of a sealed chunk lies behind its table.
            let table = if at_rest == AtRest::Sealed { 16 << 10 } else { 0 };
            let end = raw.len().min(table + (block + 1) * 4096);
            raw[table + block * 4096..end].fill(0);
            std::fs::write(&path, raw).unwrap();
            also_read_only(&bench, batches, image, &format!("{at_rest:?}: without block {block}"));
        }
    }
}

/// The young file is there after this crash, and also if the volume is first mounted for reading only.
#[track_caller]
fn also_read_only(bench: &Bench, batches: usize, image: tempfile::TempDir, what: &str) {
    let other = scratch();
    copy_dir(image.path(), other.path());
    assert_eq!(bench.crashed_copy(batches, other).content(5), pattern(1, LEN), "{what}");
    let reader = bench.read_only_copy(batches, image);
    assert_eq!(reader.content(5), pattern(1, LEN), "{what}, read only");
    reader.data.released(&reader.file(5));
    let after = scratch();
    copy_dir(reader.dir.path(), after.path());
    let after = bench.crashed_copy(batches, after);
    assert_eq!(
        after.content(5),
        pattern(1, LEN),
        "{what}, after a mount that was read only"
    );
    assert!(after.store.get(&records::inline_key(5)).unwrap().is_none());
}

/// What is handed over for a snapshot is complete: nothing turns dirty behind it.
#[test]
fn youth_does_not_end_while_a_snapshot_is_taken() {
    let bench = with_young(AtRest::Sealed);
    bench.core.marks.freeze();
    bench.seal(CutCause::Full);
    assert!(bench.core.marks.is_frozen() && is_record(&bench, 5));
    assert_eq!(bench.data.dirty_bytes(), 0);
    bench.core.marks.thaw();
    assert_eq!(bench.restore().content(5), pattern(1, LEN));
    bench.data.shared().settle_young(true);
    assert!(!bench.file(5).state.read().record.inline);
}

/// The disk is full when it outgrows its record: it stays one, and what it was to become goes.
#[test]
fn a_backing_file_that_there_was_no_room_for_goes() {
    let mut bench = Bench::new(AtRest::Sealed);
    let full = Arc::new(AtomicBool::new(false));
    let is_full = full.clone();
    let takes = move |_: u64, len: usize| if is_full.load(Ordering::Relaxed) { 0 } else { len };
    let (entropy, keys) = (bench.core.entropy.clone(), bench.core.keys.at_rest());
    let narrow = backing::open_sealed_on(bench.dir.path(), keys, entropy, Arc::new(takes)).unwrap();
    bench.data = Data::over(bench.core.clone(), narrow).unwrap();
    bench.create(5);
    bench.write(5, 0, &pattern(1, LEN));
    full.store(true, Ordering::Relaxed);
    assert!(bench.try_write(5, LEN as u64, &pattern(2, 100_000)).is_err());
    let part = bench.dir.path().join("05/0000000000000005");
    assert!(part.exists() && is_record(&bench, 5));
    bench.delete(5);
    (0..3).for_each(|_| bench.keep_house());
    assert!(!part.exists());
}

#[test]
fn a_young_file_has_holes_when_they_are_asked_for() {
    for at_rest in BOTH {
        let block = BLOCK_BYTES;
        let young = || {
            let bench = Bench::new(at_rest);
            bench.create(5);
            bench.write(5, 0, &pattern(1, 3 * BLOCK));
            assert!(is_record(&bench, 5));
            bench
        };
        let holds = |bench: &Bench, zeros: std::ops::Range<usize>, blocks: u64, data: &[std::ops::Range<u64>]| {
            let mut expected = pattern(1, 3 * BLOCK);
            expected[zeros].fill(0);
            assert!(bench.content(5) == expected, "{at_rest:?}");
            let counted = bench.file(5).state.read().record.blocks;
            assert_eq!((counted, &bench.data_ranges(5)[..]), (blocks, data), "{at_rest:?}");
        };
        let bench = young();
        bench
            .change_space(5, SpaceChange::Punch, block..2 * block, false)
            .unwrap();
        let middle = [0..block, 2 * block..3 * block];
        holds(&bench, BLOCK..2 * BLOCK, 2, &middle);
        let (all, _) = bench.store.progress();
        let bench = bench.crash_at(all);
        holds(&bench, BLOCK..2 * BLOCK, 2, &middle);
        bench.settle();
        holds(&bench.restore(), BLOCK..2 * BLOCK, 2, &middle);

        let bench = young();
        bench.change_space(5, SpaceChange::Zero, 0..block, false).unwrap();
        let rest = block..3 * block;
        holds(&bench, 0..BLOCK, 3, std::slice::from_ref(&rest));

        let bench = young();
        bench.change_space(5, SpaceChange::Punch, 0..1 << 40, false).unwrap();
        holds(&bench, 0..3 * BLOCK, 0, &[]);
        // Nothing is taken by what is reserved where there is data.
        let bench = young();
        bench.change_space(5, SpaceChange::Reserve, 0..block, false).unwrap();
        assert!(is_record(&bench, 5));
    }
}
