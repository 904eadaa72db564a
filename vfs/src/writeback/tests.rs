//! When chunks are submitted, and when they may be called clean.

use super::Whose;
use crate::core::AtRest;
use crate::data::CHUNK;
use crate::data::room::ROOM;
use crate::fakes::bench::{BOTH, Bench, pattern};
use crate::limits::{BLOCK_BYTES, WRITEBACK_RETRY};
use cessfs_sync::{CutCause, StoreError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

fn dirty(bench: &Bench, chunk: u64) -> bool {
    bench.extent(5, chunk).unwrap().dirty
}

#[test]
fn a_quiet_chunk_is_submitted_and_turns_clean_with_its_pack() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        let shared = bench.data.shared();
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB + 100));
        assert!(!shared.write_back_next(), "not quiet for long enough");
        bench.clock.advance(bench.core.config.writeback_delay);
        assert!(shared.write_back_next() && shared.write_back_next());
        assert!(!shared.write_back_next());
        assert_eq!(bench.chunks.open_chunks(), 2);
        shared.settle_submitted().unwrap();
        assert!(dirty(&bench, 0) && dirty(&bench, 1), "the pack is still open");
        bench.seal(CutCause::Full);
        shared.settle_submitted().unwrap();
        assert!(!dirty(&bench, 0) && !dirty(&bench, 1));
        let (id, len) = bench.extent(5, 1).unwrap().stored.unwrap();
        assert_eq!(len, 100);
        assert_eq!(bench.chunks.content(id).unwrap(), pattern(1, MIB + 100)[MIB..]);
        assert_eq!(bench.data.dirty_bytes(), 0);
    }
}

#[test]
fn a_chunk_written_after_its_copy_stays_dirty() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, 2 * MIB));
    bench.data.write_back_all().unwrap();
    bench.write(5, 10, b"later");
    bench.set_size(5, CHUNK + 500);
    bench.seal(CutCause::Forced);
    bench.data.shared().settle_submitted().unwrap();
    assert!(dirty(&bench, 0) && dirty(&bench, 1));
    assert_eq!(bench.data.dirty_bytes(), CHUNK + BLOCK_BYTES);
    bench.settle();
    let (id, len) = bench.extent(5, 1).unwrap().stored.unwrap();
    assert_eq!((len, bench.chunks.content(id).unwrap().len()), (500, 500));
    assert!(!dirty(&bench, 0) && !dirty(&bench, 1));
}

#[test]
fn a_chunk_cut_to_nothing_and_written_again_is_queued_at_the_next_mount() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 8192, &pattern(1, 4594));
    bench.keep_house();
    bench.set_size(5, 8192);
    bench.write(5, 40 * BLOCK_BYTES, &pattern(2, 8192));
    let bench = bench.reopen();
    assert_eq!(bench.data.dirty_bytes(), 8192);
    bench.settle();
    assert_eq!(bench.restore().content(5), bench.content(5));
}

#[test]
fn what_a_crash_of_the_open_pack_forgot_is_submitted_again() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB));
        bench.data.write_back_all().unwrap();
        bench.fsync(5).unwrap();
        let (all, _) = bench.store.progress();
        let bench = bench.crash_at(all);
        assert_eq!(bench.data.dirty_bytes(), CHUNK);
        assert_eq!(bench.chunks.open_chunks(), 0);
        bench.settle();
        assert!(!dirty(&bench, 0));
        assert_eq!(bench.restore().content(5), pattern(1, MIB));
        // The same in a running volume: the pipeline lost it, the queue has not.
        bench.write(5, 0, &pattern(2, MIB));
        bench.data.write_back_all().unwrap();
        bench.chunks.crash();
        bench.data.shared().settle_submitted().unwrap();
        bench.settle();
        assert_eq!(bench.restore().content(5), pattern(2, MIB));
    }
}

#[test]
fn a_chunk_that_cannot_be_submitted_waits_and_tries_again() {
    let bench = Bench::new(AtRest::Plain);
    let shared = bench.data.shared();
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.chunks.fail_submit(Some(StoreError::Full));
    assert!(bench.data.write_back_all().is_err());
    bench.clock.advance(Duration::from_secs(1));
    assert!(!shared.write_back_next(), "not at once");
    bench.clock.advance(WRITEBACK_RETRY);
    assert!(shared.write_back_next());
    assert!(
        bench.data.errors().iter().any(|error| error.contains("chunk 0 waits")),
        "{:?}",
        bench.data.errors()
    );
    bench.chunks.fail_submit(None);
    bench.clock.advance(WRITEBACK_RETRY);
    assert!(shared.write_back_next());
    assert_eq!(bench.chunks.open_chunks(), 1);
}

/// On a disk full of what was sent nothing more could be, if that did not go, also where the cache may be as large as it is.
#[test]
fn what_was_sent_gives_way_to_the_pack_of_what_is_to_be() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, 4 * MIB));
    bench.settle();
    bench.create(6);
    bench.write(6, 0, &pattern(2, MIB));
    let before = bench.data.cache_bytes();
    // Where the disk has room it is the backlog that has none.
    ROOM.set(Some(u64::MAX));
    bench.chunks.full_once();
    bench.data.write_back_all().expect_err("there is no room");
    assert_eq!(bench.data.cache_bytes(), before);
    ROOM.set(Some(8 << 20));
    assert!(!bench.data.give_way(), "nobody needs the room");
    bench.chunks.full_once();
    bench.data.write_back_all().unwrap();
    assert!(bench.data.all_submitted());
    assert!(bench.data.cache_bytes() < 4 * CHUNK, "{}", bench.data.cache_bytes());
    ROOM.set(None);
}

#[test]
fn a_chunk_whose_handing_over_panicked_waits_and_tries_again() {
    let bench = Bench::new(AtRest::Plain);
    let shared = bench.data.shared();
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.clock.advance(bench.core.config.writeback_delay);
    bench.chunks.panic_at_submit(true);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shared.write_back_next()));
    assert!(panicked.is_err());
    bench.chunks.panic_at_submit(false);
    bench.clock.advance(WRITEBACK_RETRY);
    assert!(shared.write_back_next(), "it is due again");
    assert_eq!(bench.chunks.open_chunks(), 1);
}

#[test]
fn equal_content_is_submitted_under_one_id() {
    let bench = Bench::new(AtRest::Sealed);
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.write(5, 4 * CHUNK, &pattern(1, MIB));
    bench.settle();
    assert_eq!(bench.extent(5, 0).unwrap().stored, bench.extent(5, 4).unwrap().stored);
    assert_eq!(bench.chunks.packs()[0].chunks.len(), 1);
}

#[test]
fn the_threads_do_it_by_themselves_and_end() {
    let bench = Bench::new(AtRest::Sealed);
    bench.create(5);
    bench.data.start().unwrap();
    bench.write(5, 0, &pattern(1, MIB));
    bench.clock.advance(Duration::from_secs(60));
    let started = Instant::now();
    while bench.chunks.open_chunks() == 0 {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing was submitted");
        std::thread::sleep(Duration::from_millis(20));
    }
    bench.seal(CutCause::Full);
    while bench.data.dirty_bytes() > 0 {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing turned clean");
        std::thread::sleep(Duration::from_millis(20));
    }
    bench.data.stop().unwrap();
    bench.write(5, 0, b"more");
    bench.clock.advance(Duration::from_secs(60));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(bench.chunks.open_chunks(), 0, "nobody is there any more");
}

#[test]
fn writing_back_steps_aside_when_there_is_something_to_do_and_room_to_wait() {
    let pause = Some(Duration::from_millis(25));
    let bench = Bench::with_room(AtRest::Plain, MIB as u64);
    let shared = bench.data.shared();
    bench.chunks.busy(pause);
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    assert_eq!(shared.write_back_steps_aside(), None, "nothing is due");
    bench.clock.advance(bench.core.config.writeback_delay);
    assert_eq!(shared.write_back_steps_aside(), pause);
    bench.chunks.busy(None);
    assert_eq!(shared.write_back_steps_aside(), None, "nobody is there");

    bench.chunks.busy(pause);
    let mut written = MIB as u64;
    while shared.has_room() {
        bench.write(5, written, &pattern(2, MIB));
        written += MIB as u64;
    }
    assert_eq!(shared.write_back_steps_aside(), None, "somebody waits for the room");
}

/// `cessfs sync --wait` of a file that somebody goes on writing to: what was there when it began is on the network.
#[test]
fn a_sync_hands_over_what_is_written_to_all_the_time() {
    let bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &vec![1; MIB]);
    bench.fsync(5).unwrap();
    let extent = bench.extent(5, 0).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // As a program does that writes the same bytes again and again.
        scope.spawn(|| {
            while !ended.load(Ordering::Acquire) {
                bench.data.shared().touch_dirty(5, 0, &extent);
            }
        });
        let told = (0..40_u64).all(|number| {
            bench.write(5, 0, &number.to_be_bytes());
            bench.data.write_back_all().unwrap();
            bench.seal(CutCause::Forced);
            bench.restore().content(5).starts_with(&number.to_be_bytes())
        });
        ended.store(true, Ordering::Release);
        assert!(told, "a sync left something behind");
    });
}

/// Whoever waits for the network learns that what he handed over got lost on its way, and hands it over again.
#[test]
fn what_a_lost_pack_had_is_counted_and_goes_again() {
    let bench = Bench::new(AtRest::Sealed);
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    let before = bench.data.untold();
    bench.data.write_back_all().unwrap();
    assert_eq!(bench.data.untold(), before);
    bench.chunks.crash();
    bench.seal(CutCause::Forced);
    assert_ne!(bench.data.untold(), before, "the pack did not tell of it");
    let before = bench.data.untold();
    bench.data.write_back_all().unwrap();
    bench.seal(CutCause::Forced);
    assert_ne!(bench.data.untold(), before, "it was put back meanwhile");
    let before = bench.data.untold();
    bench.settle();
    assert_eq!(bench.data.untold(), before);
    assert_eq!(bench.restore().content(5), pattern(1, MIB));
}

/// Who tells it may have been held up, and others have handed over something newer meanwhile.
#[test]
fn what_was_sent_is_not_told_after_something_newer() {
    let bench = Bench::new(AtRest::Plain);
    let shared = bench.data.shared();
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.data.write_back_all().unwrap();
    bench.write(5, 10, b"later");
    bench.seal(CutCause::Full);
    let behind = shared.dirty.lock().behind();
    let [(at, sent)] = behind[..] else { panic!("{behind:?}") };
    bench.settle();
    let newer = bench.extent(5, 0).unwrap().stored;
    bench.write(5, 20, b"later still");
    bench.data.released(&bench.file(5));
    assert!(dirty(&bench, 0));
    shared.tell_sent(at, &sent).unwrap();
    assert_eq!(bench.extent(5, 0).unwrap().stored, newer);
}

/// What was complete when it was looked at may lack a part when it is copied: a copy of another chunk may have taken its place.
#[test]
fn a_chunk_of_which_only_a_part_is_here_is_not_handed_over() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        let shared = bench.data.shared();
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB));
        bench.make_absent();
        bench.write(5, 8192, &pattern(2, 4096));
        for whose in [Whose::Asked, Whose::Due] {
            let mut taken = shared.dirty.lock().take(5, 0).unwrap();
            let copied = shared.copy_dirty(&bench.file(5), &mut taken, whose).unwrap();
            assert!(copied.is_none(), "{whose:?}");
        }
        bench.settle();
        let mut expected = pattern(1, MIB);
        expected[8192..12_288].copy_from_slice(&pattern(2, 4096));
        assert_eq!(bench.restore().content(5), expected);
    }
}
