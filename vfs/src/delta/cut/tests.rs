//! What a delta carries of files that are being written, and that a cut is of one instant.

use super::*;
use crate::core::AtRest;
use crate::delta::frame::{apply_delta, decode_frame};
use crate::fakes::bench::{Bench, pattern};
use cessfs_sync::MetaStore;
use cessfs_sync::store::MemStore;

const MIB: usize = 1 << 20;

fn last_delta(bench: &Bench) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let pack = bench.chunks.packs().pop().unwrap();
    pack.delta
        .iter()
        .flat_map(|frame| decode_frame(frame).unwrap())
        .collect()
}

fn told_size(bench: &Bench, ino: u64) -> Option<u64> {
    let value = last_delta(bench).remove(&records::inode_key(ino))?;
    value.map(|value| InodeRecord::decode(&value).unwrap().size)
}

/// Every chunk that the packs up to each one name is in them: any prefix of packs restores (I3).
fn prefixes_restore(bench: &Bench) {
    let store = MemStore::new();
    let mut there = BTreeSet::new();
    for pack in bench.chunks.packs() {
        there.extend(pack.chunks.iter().copied());
        apply_delta(&pack.delta, &store).unwrap();
        for (key, value) in store.scan(b"e", b"e", 10_000).unwrap() {
            let extent = Extent::decode(&value).unwrap();
            assert!(!extent.resident && !extent.dirty, "local matters do not travel");
            let (id, _) = extent.stored.expect("what travels is stored");
            assert!(
                there.contains(&id),
                "pack {} names a chunk that is not there: {key:?}",
                pack.seq.0
            );
        }
    }
}

#[test]
fn a_new_file_being_written_is_named_but_empty_in_a_full_pack() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, 2 * MIB));
    bench.data.released(&bench.file(5));
    bench.seal(CutCause::Full);
    assert_eq!(told_size(&bench, 5), Some(0));
    assert_eq!(bench.restore().content(5), b"");
    assert!(
        bench.data.delta_source().pending().is_some(),
        "its content is still to come"
    );
    bench.data.write_back_all().unwrap();
    bench.seal(CutCause::Full);
    assert_eq!(bench.restore().content(5), pattern(1, 2 * MIB));
    assert_eq!(bench.data.delta_source().pending(), None);
    prefixes_restore(&bench);
}

#[test]
fn a_known_file_being_written_stays_as_it_was_in_a_full_pack() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, 2 * MIB));
    bench.settle();
    bench.write(5, CHUNK, &pattern(2, 2 * MIB));
    bench.data.released(&bench.file(5));
    bench.seal(CutCause::Full);
    assert_eq!(told_size(&bench, 5), None, "left for later");
    assert_eq!(bench.restore().content(5), pattern(1, 2 * MIB));
    bench.settle();
    let expected = [&pattern(1, MIB)[..], &pattern(2, 2 * MIB)].concat();
    assert_eq!(bench.restore().content(5), expected);
    prefixes_restore(&bench);
}

/// Else an aged file that waits for room in the backlog would make a pack due again as soon as one was sealed.
#[test]
fn what_a_full_cut_leaves_stays_as_old_as_it_was_and_what_a_forced_one_leaves_is_young() {
    let bench = Bench::new(AtRest::Plain);
    let age = |bench: &Bench| bench.data.delta_source().pending().expect("something is pending").0;
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.data.released(&bench.file(5));
    bench.clock.advance(Duration::from_secs(1000));
    bench.seal(CutCause::Full);
    assert!(age(&bench) >= Duration::from_secs(1000));
    bench.seal(CutCause::Forced);
    assert_eq!(age(&bench), Duration::ZERO);
}

#[test]
fn a_forced_cut_tells_what_was_submitted_and_no_more() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, 2 * MIB));
    bench.data.write_back_all().unwrap();
    bench.write(5, 2 * CHUNK, &pattern(2, MIB));
    bench.data.released(&bench.file(5));
    bench.seal(CutCause::Forced);
    assert_eq!(told_size(&bench, 5), Some(2 * CHUNK), "no hole where the rest will be");
    assert_eq!(bench.restore().content(5), pattern(1, 2 * MIB));
    // Overwritten in the middle: the old content of that chunk, the rest as it is.
    bench.settle();
    bench.write(5, CHUNK, &pattern(3, MIB));
    bench.data.released(&bench.file(5));
    bench.seal(CutCause::Forced);
    let whole = [&pattern(1, 2 * MIB)[..], &pattern(2, MIB)].concat();
    assert_eq!(bench.restore().content(5), whole);
    bench.settle();
    let expected = [&pattern(1, MIB)[..], &pattern(3, MIB), &pattern(2, MIB)].concat();
    assert_eq!(bench.restore().content(5), expected);
    prefixes_restore(&bench);
}

/// `sync --wait` submits everything, and then seals: what is written over in between may not take back what was submitted, nor
/// may a later delta.
#[test]
fn what_was_submitted_and_then_written_over_is_told_until_something_newer_is() {
    let bench = Bench::new(AtRest::Sealed);
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB / 2));
    bench.settle();
    bench.write(5, 0, &pattern(2, MIB));
    bench.data.write_back_all().unwrap();
    bench.write(5, 100, &pattern(3, 5000));
    bench.data.released(&bench.file(5));
    bench.seal(CutCause::Forced);
    assert_eq!(bench.restore().content(5), pattern(2, MIB), "what was promised");
    // The store has learnt it: also after a crash no delta tells of less.
    bench.keep_house();
    bench.write(5, 200, &pattern(4, 5000));
    bench.data.released(&bench.file(5));
    bench.seal(CutCause::Forced);
    assert_eq!(bench.restore().content(5), pattern(2, MIB));
    let value = bench.store.get(&records::extent_key(5, 0)).unwrap().unwrap();
    let extent = Extent::decode(&value).unwrap();
    assert!(extent.dirty && extent.kept.is_some());
    assert_eq!(extent.stored.unwrap().0, bench.core.keys.chunk_id(&pattern(2, MIB)));
    // What was cut off since is not told of again.
    bench.set_size(5, 300);
    bench.data.released(&bench.file(5));
    bench.seal(CutCause::Forced);
    assert_eq!(bench.restore().content(5), &pattern(2, MIB)[..300]);
    bench.settle();
    // A cut goes to the store at once; what the store learns afterwards does not undo it.
    let other = Bench::new(AtRest::Sealed);
    other.create(6);
    other.write(6, 0, &pattern(5, MIB));
    other.data.write_back_all().unwrap();
    other.set_size(6, 1000);
    other.data.released(&other.file(6));
    other.seal(CutCause::Forced);
    other.keep_house();
    let value = other.store.get(&records::extent_key(6, 0)).unwrap().unwrap();
    let extent = Extent::decode(&value).unwrap();
    assert_eq!((extent.valid, extent.kept.unwrap().valid), (1000, 1000));
    assert_eq!(extent.stored.unwrap().0, other.core.keys.chunk_id(&pattern(5, MIB)));
    let mut now = pattern(2, 300);
    now[100..].copy_from_slice(&pattern(3, 200));
    now[200..].copy_from_slice(&pattern(4, 100));
    assert_eq!(bench.restore().content(5), now);
    prefixes_restore(&bench);
}

#[test]
fn a_replaced_file_leaves_nothing_of_the_old_behind() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, 4 * MIB));
    bench.settle();
    bench.set_size(5, 0);
    bench.write(5, 0, &pattern(2, MIB + 7));
    bench.data.released(&bench.file(5));
    bench.seal(CutCause::Forced);
    assert_eq!(
        bench.restore().content(5),
        b"",
        "nothing of the new was submitted, nothing of the old is left"
    );
    bench.settle();
    let other = bench.restore();
    assert_eq!(other.content(5), pattern(2, MIB + 7));
    assert_eq!(other.store.scan(b"e", b"e", 10).unwrap().len(), 2);
    prefixes_restore(&bench);
}

#[test]
fn deleted_and_unlinked_files_do_not_travel() {
    let bench = Bench::new(AtRest::Plain);
    for ino in [5, 6] {
        bench.create(ino);
        bench.write(ino, 0, &pattern(1, MIB));
    }
    bench.settle();
    bench.delete(5);
    let inode = bench.file(6);
    {
        let _guard = bench.core.marks.enter();
        let mut state = inode.state.write();
        state.record.nlink = 0;
        let mut batch = Batch::new();
        bench.core.put_inode(&mut batch, 6, &state.record);
        bench.core.store.commit(batch).unwrap();
    }
    bench.seal(CutCause::Full);
    let other = bench.restore();
    assert!(other.find(5).is_none() && other.find(6).is_none());
    assert_eq!(other.store.scan(b"e", b"e", 10).unwrap(), [], "nor does what they had");
    assert_eq!(bench.content(6), pattern(1, MIB), "still open here");
}

#[test]
fn a_cut_is_of_one_instant_whatever_is_written_meanwhile() {
    let bench = Bench::new(AtRest::Plain);
    // Three frames of inline files.
    for ino in 1..=700 {
        bench.create(ino);
        bench.write(ino, 0, &pattern(ino, 4096));
    }
    bench.create(9000);
    bench.write(9000, 0, &pattern(1, MIB));
    bench.data.write_back_all().unwrap();
    let source = bench.data.delta_source();
    let mut frames: Vec<Vec<u8>> = Vec::new();
    source
        .cut(PackSeq(1), CutCause::Full, &mut |frame| {
            if frames.is_empty() {
                for ino in 600..=700 {
                    bench.write(ino, 0, b"later");
                    bench.write(ino, 50, b"later still");
                }
                bench.delete(650);
                bench.create(800);
                bench.write(9000, 0, b"later");
                bench.data.released(&bench.file(9000));
            }
            frames.push(frame.to_vec());
            Ok(())
        })
        .unwrap();
    assert!(frames.len() >= 3);
    let store = MemStore::new();
    apply_delta(&frames, &store).unwrap();
    for ino in 1..=700 {
        assert_eq!(
            store.get(&records::inline_key(ino)).unwrap().unwrap(),
            pattern(ino, 4096),
            "inode {ino}"
        );
    }
    assert_eq!(store.get(&records::inode_key(800)).unwrap(), None);
    let extent = Extent::decode(&store.get(&records::extent_key(9000, 0)).unwrap().unwrap()).unwrap();
    assert_eq!(bench.chunks.content(extent.stored.unwrap().0).unwrap(), pattern(1, MIB));
    assert_eq!(
        bench.store.scan(b"v", b"v", 10).unwrap(),
        vec![],
        "what was saved for the cut is gone"
    );
    // Sealed after that: the changes in between are still marked.
    let mut batch = Batch::new();
    source.sealed(PackSeq(1), &mut batch);
    bench.store.commit(batch).unwrap();
    bench.settle();
    let later = bench.chunks.packs();
    apply_delta(&later[0].delta, &store).unwrap();
    assert!(store.get(&records::inode_key(800)).unwrap().is_some());
    assert_eq!(store.get(&records::inode_key(650)).unwrap(), None);
    assert_eq!(&store.get(&records::inline_key(660)).unwrap().unwrap()[..5], b"later");
    assert!(
        !last_delta(&bench).contains_key(&records::inode_key(7)),
        "what did not change does not travel again"
    );
}

#[test]
fn an_abandoned_or_failed_cut_loses_nothing() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, b"first");
    let (age, bytes) = bench.data.delta_source().pending().unwrap();
    assert!(age.is_zero() && bytes > 0);
    bench
        .chunks
        .abandon(&*bench.data.delta_source(), CutCause::Full)
        .unwrap();
    bench.create(6);
    let failing = bench
        .data
        .delta_source()
        .cut(PackSeq(1), CutCause::Full, &mut |_| Err(StoreError::Full));
    assert!(matches!(failing, Err(StoreError::Full)));
    bench.clock.advance(Duration::from_secs(9));
    let (age, _) = bench.data.delta_source().pending().unwrap();
    assert_eq!(age, Duration::from_secs(9), "the oldest change counts");
    bench.seal(CutCause::Full);
    let other = bench.restore();
    assert_eq!(other.content(5), b"first");
    assert_eq!(other.content(6), b"");
    assert_eq!(bench.data.delta_source().pending(), None);
}

#[test]
fn marks_survive_a_crash_and_an_interrupted_cut() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, b"first");
    let source = bench.data.delta_source();
    source.cut(PackSeq(1), CutCause::Full, &mut |_| Ok(())).unwrap();
    bench.write(5, 0, b"again");
    bench.store.barrier().unwrap();
    let (all, _) = bench.store.progress();
    drop(source);
    let bench = bench.crash_at(all);
    assert!(bench.data.delta_source().pending().is_some());
    bench.seal(CutCause::Full);
    assert_eq!(bench.restore().content(5), b"again");
    let marks = &bench.data.shared().core.marks;
    let mut counted = 0;
    let mut count = |_: u64, _: &[u8], _: &[u8]| {
        counted += 1;
        Ok(())
    };
    marks.each(u64::MAX, &mut count).unwrap();
    assert_eq!(counted, 0, "no mark counts any more");
    while marks.sweep().unwrap() {}
    assert_eq!(bench.store.scan(b"m", b"m", 10).unwrap(), vec![]);
}

/// Whoever saw a small file to the network was promised it: that it grew must not take it back before its first chunk is sent.
#[test]
fn a_file_that_outgrows_its_record_is_told_as_it_was_until_its_first_chunk_is() {
    for cause in [CutCause::Forced, CutCause::Checkpoint] {
        let bench = Bench::new(AtRest::Sealed);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 3000));
        bench.settle();
        bench.write(5, 3000, &pattern(2, 20_000));
        bench.data.released(&bench.file(5));
        bench.seal(cause);
        assert_eq!(bench.restore().content(5), pattern(1, 3000), "{cause:?}");
        prefixes_restore(&bench);
        bench.settle();
        assert_eq!(bench.restore().content(5), bench.content(5), "{cause:?}");
        assert_eq!(bench.restore().content(5).len(), 23_000);
        prefixes_restore(&bench);
    }
}

#[test]
fn nor_does_the_end_of_its_record_take_it_back() {
    for cause in [CutCause::Forced, CutCause::Checkpoint] {
        let bench = Bench::new(AtRest::Sealed);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 3000));
        bench.settle();
        bench.write(5, 3000, &pattern(2, 2 * MIB));
        bench.data.shared().persist_all().unwrap();
        assert_eq!(bench.store.get(&records::inline_key(5)).unwrap(), None, "it has gone");
        bench.seal(cause);
        assert_eq!(bench.restore().content(5), pattern(1, 3000), "{cause:?}");
        bench.seal(cause);
        assert_eq!(bench.restore().content(5), pattern(1, 3000), "{cause:?}");
        prefixes_restore(&bench);
        bench.settle();
        assert_eq!(bench.restore().content(5), bench.content(5));
        assert_eq!(bench.restore().store.scan(b"b", b"b", 10).unwrap(), vec![]);
        assert_eq!(kept(&bench), 0, "its first chunk was told");
    }
}

/// Records that are kept for the network.
fn kept(bench: &Bench) -> usize {
    bench.store.scan(KEPT_PREFIX, KEPT_PREFIX, 10).unwrap().len()
}

#[test]
fn a_record_is_kept_only_for_a_file_that_a_pack_told_and_goes_with_it() {
    let bench = Bench::new(AtRest::Plain);
    for (ino, told) in [(5, false), (6, true)] {
        bench.create(ino);
        bench.write(ino, 0, &pattern(1, 3000));
        if told {
            bench.seal(CutCause::Forced);
        }
        bench.write(ino, 3000, &pattern(2, 2 * MIB));
        bench.data.shared().persist_all().unwrap();
        assert_eq!(kept(&bench), usize::from(told));
    }
    bench.delete(6);
    assert_eq!(kept(&bench), 0);
}

/// A hole that a pack has told is part of the file, also while what was written there was not sent.
#[test]
fn a_file_that_is_written_where_it_had_a_hole_is_told_as_long_as_it_was() {
    for cause in [CutCause::Forced, CutCause::Checkpoint] {
        let bench = Bench::new(AtRest::Sealed);
        bench.create(5);
        bench.set_size(5, 10_000);
        bench.settle();
        assert_eq!(bench.restore().content(5), vec![0; 10_000]);
        bench.write(5, 7000, &pattern(1, 14_000));
        bench.data.shared().persist_all().unwrap();
        bench.seal(cause);
        assert_eq!(bench.restore().content(5), vec![0; 10_000], "{cause:?}");
        prefixes_restore(&bench);
        bench.settle();
        assert_eq!(bench.restore().content(5), bench.content(5));
        assert_eq!(bench.store.scan(HOLED_PREFIX, HOLED_PREFIX, 10).unwrap(), vec![]);
    }
}

/// So it is where the hole came to be while the chunk had not been sent, and the first to journal it is whoever changes the inode.
#[test]
fn nor_is_it_shorter_where_the_hole_was_cut_a_moment_ago() {
    for cause in [CutCause::Forced, CutCause::Checkpoint] {
        let bench = Bench::new(AtRest::Sealed);
        bench.create(5);
        bench.write(5, 10_000, &pattern(1, 20_000));
        bench.settle();
        bench.write(5, 12_000, &pattern(2, 100));
        bench.data.shared().persist_all().unwrap();
        bench.set_size(5, 3_000);
        bench.seal(cause);
        assert_eq!(bench.restore().content(5), vec![0; 3_000], "{cause:?}");
        bench.write(5, 4_000, &pattern(3, 9_000));
        let inode = bench.file(5);
        let state = inode.state.write();
        let mut batch = Batch::new();
        bench.data.put_inode(5, &state, &state.record, &mut batch).unwrap();
        bench.store.commit(batch).unwrap();
        drop(state);
        bench.seal(cause);
        assert_eq!(bench.restore().content(5), vec![0; 3_000], "{cause:?}");
        bench.data.shared().persist_all().unwrap();
        bench.seal(cause);
        assert_eq!(bench.restore().content(5), vec![0; 3_000], "{cause:?}");
        prefixes_restore(&bench);
        bench.settle();
        assert_eq!(bench.restore().content(5), bench.content(5));
        assert_eq!(bench.store.scan(HOLED_PREFIX, HOLED_PREFIX, 10).unwrap(), vec![]);
    }
}

/// In a new file it is better than nothing.
#[test]
fn a_new_file_is_told_as_the_record_it_was() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, 3000));
    bench.write(5, 3000, &pattern(2, 20_000));
    bench.data.released(&bench.file(5));
    bench.seal(CutCause::Forced);
    assert_eq!(bench.restore().content(5), pattern(1, 3000));
    bench.settle();
    assert_eq!(bench.restore().content(5), bench.content(5));
}

/// Whoever wants it is told to try again; the pack is one like any other, and not thrown away.
#[test]
fn a_snapshot_for_which_not_all_was_handed_over_is_not_taken() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.data.shared().persist_all().unwrap();
    bench.core.marks.freeze();
    let number = bench.core.snapshots.want("now", bench.core.now());
    bench.seal(CutCause::Forced);
    assert!(bench.core.snapshots.get(number).is_none() && !bench.core.marks.is_frozen());
    bench.settle();
    assert_eq!(bench.restore().content(5), pattern(1, MIB));
}
