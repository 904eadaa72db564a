//! Blocks that an fsync put into the store instead of syncing their file, after the power went at the worst moment.

use super::durable::{Watched, old_or_new, torn_dir};
use super::*;
use crate::backing::{self, Backing};
use crate::data::logged::LOGGED_PREFIX;
use crate::limits::{LOGGED_AGE_MAX, LOGGED_BLOCKS_MAX};
use crate::request::SpaceChange;
use cessfs_sync::store::MemStore;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What is known of the disk under a sealed volume.
struct Disk {
    /// The cache directory as it was when a file was last synced: what a power cut leaves if it takes all the rest.
    safe: Mutex<tempfile::TempDir>,
    syncs: AtomicUsize,
    /// Copies in the store when a file was last synced.
    copies_then: AtomicUsize,
    fails: AtomicBool,
}

fn copies(store: &MemStore) -> usize {
    store.scan(LOGGED_PREFIX, LOGGED_PREFIX, usize::MAX).unwrap().len()
}

fn rig() -> (Bench, Arc<Disk>) {
    let bench = Bench::new(AtRest::Sealed);
    let backing = bench.data.shared().backing.clone();
    rig_over(bench, backing)
}

fn rig_over(mut bench: Bench, backing: Arc<dyn Backing>) -> (Bench, Arc<Disk>) {
    let disk = Arc::new(Disk {
        safe: Mutex::new(scratch()),
        syncs: AtomicUsize::new(0),
        copies_then: AtomicUsize::new(0),
        fails: AtomicBool::new(false),
    });
    copy_dir(bench.dir.path(), disk.safe.lock().path());
    let (seen, dir, store) = (disk.clone(), bench.dir.clone(), bench.store.clone());
    let synced = move || {
        if seen.fails.load(Ordering::Relaxed) {
            return Err(std::io::Error::from_raw_os_error(libc::EIO));
        }
        let safe = scratch();
        copy_dir(dir.path(), safe.path());
        *seen.safe.lock() = safe;
        seen.syncs.fetch_add(1, Ordering::Relaxed);
        seen.copies_then.store(copies(&store), Ordering::Relaxed);
        Ok(())
    };
    bench.data = Data::over(bench.core.clone(), Arc::new(Watched::new(backing, synced))).unwrap();
    bench.create(5);
    (bench, disk)
}

impl Disk {
    fn syncs(&self) -> usize {
        self.syncs.load(Ordering::Relaxed)
    }

    /// What is left when the power goes now and the disk took nothing that nobody waited for.
    fn left(&self, bench: &Bench) -> Bench {
        let (_, durable) = bench.store.progress();
        self.left_at(bench, durable)
    }

    fn left_at(&self, bench: &Bench, batches: usize) -> Bench {
        let image = scratch();
        copy_dir(self.safe.lock().path(), image.path());
        bench.crashed_copy(batches, image)
    }
}

/// A file of a MiB that is safe, as a whole.
fn with_file() -> (Bench, Arc<Disk>) {
    let (bench, disk) = rig();
    bench.write(5, 0, &pattern(1, MIB));
    for _ in 0..2 {
        bench.fsync(5).unwrap();
    }
    assert_eq!(
        (disk.syncs(), copies(&bench.store)),
        (1, 0),
        "so many blocks are synced"
    );
    (bench, disk)
}

#[test]
fn few_blocks_are_safe_without_a_sync_of_their_file() {
    let (bench, disk) = with_file();
    let old = bench.content(5);
    bench.write(5, 8000, &pattern(2, 5000));
    bench.fsync(5).unwrap();
    assert_eq!((disk.syncs(), copies(&bench.store)), (1, 3));
    let (_, durable) = bench.store.progress();
    assert_eq!(
        disk.left_at(&bench, durable - 1).content(5),
        old,
        "it is the copies that do it"
    );
    let after = disk.left(&bench);
    assert_eq!(after.content(5), bench.content(5));
    assert_eq!(copies(&after.store), 0);
    // Longer, and with an attribute: what the store says goes with it.
    bench.write(5, CHUNK + 5000, b"far");
    bench.data.fsync(&bench.file(5), false).unwrap();
    assert_eq!((disk.syncs(), copies(&bench.store)), (1, 4));
    assert_eq!(disk.left(&bench).content(5), bench.content(5));
    // And again, with nothing to say.
    let (before, _) = bench.store.progress();
    bench.fsync(5).unwrap();
    assert_eq!(bench.store.progress().0, before);
}

#[test]
fn a_new_file_is_safe_before_the_disk_has_its_name() {
    let (bench, disk) = rig();
    bench.write(5, 0, &pattern(1, 20_000));
    bench.fsync(5).unwrap();
    bench.write(5, 100, b"once more");
    bench.fsync(5).unwrap();
    assert_eq!((disk.syncs(), copies(&bench.store)), (0, 5));
    let after = disk.left(&bench);
    assert_eq!(after.content(5), bench.content(5));
    after.settle();
    assert_eq!(after.restore().content(5), bench.content(5));
}

#[test]
fn whatever_is_left_of_later_writes_the_copy_or_something_newer_is_there() {
    for keep in 0..7_usize {
        let (bench, disk) = with_file();
        bench.write(5, 8000, &pattern(2, 9000));
        bench.fsync(5).unwrap();
        let old = bench.content(5);
        for round in 3..6 {
            bench.write(5, 8000, &pattern(round, 3000));
            bench.write(5, 12_288, &pattern(round, 4096));
        }
        let new = bench.content(5);
        let keeps = |unit: usize| match keep {
            0 => true,
            1 => unit.is_multiple_of(2),
            2 => !unit.is_multiple_of(2),
            3 => unit % 3 == 1,
            4 => unit < 5,
            5 => unit >= 5,
            _ => unit.is_multiple_of(7),
        };
        let image = torn_dir(disk.safe.lock().path(), bench.dir.path(), 512, &keeps);
        let (_, durable) = bench.store.progress();
        let after = bench.power_cut(durable, image.path());
        old_or_new(&after.content(5), &old, &new, &format!("cut {keep}"));
        after.write(5, 0, b"on");
        assert_eq!(after.try_read(5, 0, 2).unwrap(), b"on");
    }
}

/// A sync of the file alone promises without a barrier: the copy is still there, and old.
#[test]
fn a_copy_never_replaces_what_was_synced_after_it() {
    for keep in 0..7_usize {
        let (bench, disk) = with_file();
        bench.write(5, 8192, &pattern(2, 4096));
        bench.fsync(5).unwrap();
        let (_, durable) = bench.store.progress();
        bench.write(5, 0, &pattern(3, 400_000));
        bench.fsync(5).unwrap();
        assert_eq!((disk.syncs(), bench.store.progress().1), (2, durable), "only the file");
        let old = bench.content(5);
        bench.write(5, 8192, &pattern(4, 4096));
        let new = bench.content(5);
        let keeps = |unit: usize| keep < 6 && (unit + keep).is_multiple_of(keep + 1);
        let image = torn_dir(disk.safe.lock().path(), bench.dir.path(), 512, &keeps);
        let after = bench.power_cut(durable, image.path());
        assert_eq!(copies(&after.store), 0);
        old_or_new(&after.content(5), &old, &new, &format!("cut {keep}"));
    }
}

#[test]
fn a_copy_goes_when_its_file_was_synced_and_not_before() {
    let (bench, disk) = with_file();
    bench.write(5, 8192, &pattern(2, 8192));
    bench.fsync(5).unwrap();
    bench.keep_house();
    assert_eq!((disk.syncs(), copies(&bench.store)), (1, 2), "young copies stay");
    // One that comes while the file is being synced is not for that sync to end.
    bench.clock.advance(LOGGED_AGE_MAX);
    bench.keep_house();
    assert_eq!((disk.syncs(), copies(&bench.store)), (2, 0));
    assert_eq!(disk.copies_then.load(Ordering::Relaxed), 2, "the sync came first");
    let (all, _) = bench.store.progress();
    assert_eq!(disk.left_at(&bench, all).content(5), bench.content(5));
}

#[test]
fn copies_stay_while_their_file_cannot_be_synced() {
    let (bench, disk) = with_file();
    bench.write(5, 8192, &pattern(2, 8192));
    bench.fsync(5).unwrap();
    disk.fails.store(true, Ordering::Relaxed);
    bench.clock.advance(LOGGED_AGE_MAX);
    bench.keep_house();
    assert_eq!(copies(&bench.store), 2);
    disk.fails.store(false, Ordering::Relaxed);
    assert!(
        matches!(bench.fsync(5), Err(VfsError::Disk(_))),
        "and nobody is told that it is safe"
    );
    bench.keep_house();
    assert_eq!(copies(&bench.store), 2);
    assert_eq!(disk.left(&bench).content(5), bench.content(5));
}

#[test]
fn a_close_leaves_no_copies() {
    let (bench, _disk) = with_file();
    bench.write(5, 8192, &pattern(2, 8192));
    bench.fsync(5).unwrap();
    let content = bench.content(5);
    let after = bench.reopen();
    assert_eq!((copies(&after.store), after.content(5)), (0, content));
}

#[test]
fn so_many_copies_and_no_more() {
    let (bench, disk) = with_file();
    bench.write(5, 0, &pattern(1, 6 * MIB));
    bench.fsync(5).unwrap();
    let before = disk.syncs();
    let mut most = 0;
    for block in 0..LOGGED_BLOCKS_MAX as u64 + 8 {
        bench.write(5, block * 4096, &pattern(block, 4096));
        bench.fsync(5).unwrap();
        most = most.max(copies(&bench.store));
    }
    assert_eq!((most, disk.syncs()), (LOGGED_BLOCKS_MAX, before + 1));
    assert_eq!(copies(&bench.store), 7);
    assert_eq!(disk.left(&bench).content(5), bench.content(5));
}

#[test]
fn what_was_cut_off_does_not_come_back_with_its_copy() {
    let (bench, disk) = with_file();
    bench.write(5, 12_288, &pattern(2, 8192));
    bench.fsync(5).unwrap();
    bench.set_size(5, 16_384);
    assert_eq!(copies(&bench.store), 1, "that of the block that is left");
    bench.set_size(5, CHUNK);
    bench.store.barrier().unwrap();
    let mut expected = pattern(1, MIB);
    expected[12_288..16_384].copy_from_slice(&pattern(2, 8192)[..4096]);
    expected[16_384..].fill(0);
    assert_eq!(disk.left(&bench).content(5), expected);
    // Written again, it may come back as it was before the cut: the file has to be synced first.
    let syncs = disk.syncs();
    bench.write(5, 16_384, &pattern(3, 4096));
    bench.fsync(5).unwrap();
    assert_eq!(disk.syncs(), syncs + 1);
    expected[16_384..20_480].copy_from_slice(&pattern(3, 4096));
    assert_eq!(disk.left(&bench).content(5), expected);
}

/// Versions of blocks begin anew where something was punched out: a copy of before would be newer than what is there.
#[test]
fn a_copy_does_not_outlive_what_is_punched_out() {
    let (bench, disk) = with_file();
    bench.write(5, 12_288, &pattern(2, 8192));
    bench.fsync(5).unwrap();
    bench
        .change_space(5, SpaceChange::Punch, 12_288..16_384, false)
        .unwrap();
    assert_eq!(copies(&bench.store), 0);
    bench.data.reclaim().unwrap();
    let mut expected = bench.content(5);
    bench.store.barrier().unwrap();
    assert_eq!(disk.left(&bench).content(5), expected);
    let syncs = disk.syncs();
    bench.write(5, 12_288, &pattern(3, 4096));
    bench.fsync(5).unwrap();
    assert_eq!(
        (disk.syncs(), copies(&bench.store)),
        (syncs + 1, 0),
        "the punch must be durable"
    );
    expected[12_288..16_384].copy_from_slice(&pattern(3, 4096));
    assert_eq!(disk.left(&bench).content(5), expected);
    bench.write(5, 12_288, &pattern(4, 4096));
    bench.fsync(5).unwrap();
    assert_eq!((disk.syncs(), copies(&bench.store)), (syncs + 1, 1), "now it is");
    expected[12_288..16_384].copy_from_slice(&pattern(4, 4096));
    assert_eq!(disk.left(&bench).content(5), expected);
}

#[test]
fn copies_go_with_their_file_and_with_what_is_evicted() {
    let (bench, disk) = with_file();
    bench.write(5, 12_288, &pattern(2, 8192));
    bench.fsync(5).unwrap();
    bench.delete(5);
    assert_eq!(copies(&bench.store), 0);
    bench.store.barrier().unwrap();
    assert!(disk.left(&bench).find(5).is_none());
    bench.create(6);
    bench.write(6, 0, &pattern(3, 17_000));
    bench.fsync(6).unwrap();
    let content = bench.content(6);
    // Sent without a sync in between.
    assert_eq!(copies(&bench.store), 5);
    bench.settle();
    bench.write(6, 0, &pattern(4, 100));
    bench.fsync(6).unwrap();
    assert!(copies(&bench.store) > 0);
    bench.write(6, 0, &content[..100]);
    bench.settle();
    bench.data.evict_all().unwrap();
    assert_eq!(copies(&bench.store), 0);
    assert!(!bench.extent(6, 0).unwrap().resident);
    assert_eq!(disk.left(&bench).content(6), content);
}

#[test]
fn a_file_that_outgrows_its_record_is_synced() {
    let (bench, disk) = rig();
    bench.write(5, 0, &pattern(1, 3000));
    bench.fsync(5).unwrap();
    assert_eq!((disk.syncs(), copies(&bench.store)), (0, 0), "a record is all there is");
    assert_eq!(disk.left(&bench).content(5), pattern(1, 3000));
    bench.write(5, 10_000, &pattern(2, 300));
    bench.fsync(5).unwrap();
    assert_eq!((disk.syncs(), copies(&bench.store)), (1, 0));
    assert_eq!(disk.left(&bench).content(5), bench.content(5));
}

#[test]
fn a_volume_that_must_not_change_still_shows_what_was_promised() {
    let (bench, disk) = with_file();
    bench.write(5, 8192, &pattern(2, 4096));
    bench.fsync(5).unwrap();
    let content = bench.content(5);
    let (_, durable) = bench.store.progress();
    let image = scratch();
    copy_dir(disk.safe.lock().path(), image.path());
    let after = bench.read_only_copy(durable, image);
    assert_eq!((after.content(5), copies(&after.store)), (content, 1));
}

/// The log promised a block, and the next write there fails half-way: no crash, and no time that passes, takes it away.
#[test]
fn what_the_log_promised_outlives_a_write_that_the_disk_has_no_room_for() {
    // Room for so many bytes of data: some of the new blocks fit; none does; what is there is torn.
    for room in [100_000, 4096, 2048] {
        let bench = Bench::new(AtRest::Sealed);
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let disk_room = left.clone();
        let takes = move |offset: u64, len: usize| {
            let room = disk_room.load(Ordering::Relaxed);
            let is_table = offset < 16 << 10;
            if is_table || room == usize::MAX {
                return len;
            }
            disk_room.store(room.saturating_sub(len), Ordering::Relaxed);
            len.min(room)
        };
        let entropy = bench.core.entropy.clone();
        let keys = bench.core.keys.at_rest();
        let narrow = backing::open_sealed_on(bench.dir.path(), keys, entropy, Arc::new(takes)).unwrap();
        let (bench, disk) = rig_over(bench, narrow);
        bench.write(5, 0, &pattern(1, 20_000));
        bench.fsync(5).unwrap();
        assert_eq!((disk.syncs(), copies(&bench.store)), (0, 5));
        left.store(room, Ordering::Relaxed);
        assert!(bench.try_write(5, 20_000, &pattern(2, 300_000)).is_err());
        left.store(usize::MAX, Ordering::Relaxed);
        let is_torn = room < 4096;
        assert_eq!(bench.try_read(5, 0, 20_000).is_err(), is_torn, "room for {room}");
        for _ in 0..2 {
            bench.clock.advance(LOGGED_AGE_MAX);
            bench.keep_house();
        }
        assert_eq!(copies(&bench.store) > 0, is_torn, "room for {room}");
        let after = disk.left(&bench);
        assert_eq!(after.content(5), pattern(1, 20_000), "room for {room}");
        if is_torn {
            bench.fsync(5).unwrap_err();
            // Also a kill alone brings it back.
            let (all, _) = bench.store.progress();
            assert_eq!(bench.crash_at(all).content(5), pattern(1, 20_000));
        } else {
            bench.write(5, 20_000, b"on");
            bench.fsync(5).unwrap();
            assert_eq!(bench.content(5)[..20_000], pattern(1, 20_000));
        }
    }
}
