//! What is noted for the next sync.

use super::*;
use crate::fakes::bench::scratch;
use crate::limits::SYNC_EACH_MAX;
use std::cell::RefCell;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant;

const AT: PartAt = PartAt {
    ino: 5,
    part: 0,
    offset: 0,
};

#[test]
fn a_write_that_a_sync_ran_beside_is_synced_by_the_next() {
    let dir = scratch();
    let files = Files::open(dir.path(), Readahead::Disk).unwrap();
    let data = vec![7; 64 << 20];
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| files.write(AT, &data).unwrap());
        while !files.unsynced.lock().contains_key(&5) && !writer.is_finished() {
            std::hint::spin_loop();
        }
        files.sync(5).unwrap();
        writer.join().unwrap();
    });
    assert!(
        files.unsynced.lock().contains_key(&5),
        "not all of it was there to be synced"
    );
    files.sync(5).unwrap();
    assert!(files.unsynced.lock().is_empty());
}

#[test]
fn what_was_pinned_is_kept_open_within_the_limit_of_descriptors() {
    let dir = scratch();
    let mut files = Files::open(dir.path(), Readahead::Disk).unwrap();
    assert!(files.pins_max <= descriptors_max() / PARTS_PINNED_SHARE);
    files.open_max = 2;
    for ino in 1..=9 {
        files.pin(ino, true).unwrap().unwrap();
    }
    (1..=9).for_each(|ino| files.unpin(ino));
    assert_eq!((files.open.lock().len(), files.pinned.lock().len()), (2, 0));
}

#[test]
fn a_sync_of_all_waits_for_one_that_is_running() {
    let dir = scratch();
    let files = Files::open(dir.path(), Readahead::Disk).unwrap();
    std::thread::scope(|scope| {
        // As if a sync of the inode had taken its notes, and had not ended.
        let running = files.sync_locks[dir_of(5)].lock();
        let all = scope.spawn(|| files.sync_all().unwrap());
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(100) {
            assert!(!all.is_finished(), "it left that one behind");
            std::thread::yield_now();
        }
        drop(running);
    });
}

/// That may be due to somebody else's file, or to one of ours.
#[test]
fn a_disk_that_cannot_be_synced_fails_only_files_that_cannot() {
    let dir = scratch();
    let mut files = Files::open(dir.path(), Readahead::Disk).unwrap();
    let path_only = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(dir.path());
    files.root = path_only.unwrap();
    let inos = 1..SYNC_EACH_MAX as u64 + 3;
    let write_all = || {
        for ino in inos.clone() {
            files.write(PartAt { ino, ..AT }, &[7; 4096]).unwrap();
        }
    };
    write_all();
    // Its name cannot be made durable.
    let (home, away) = (dir.path().join("05"), dir.path().join("away"));
    fs::rename(&home, &away).unwrap();
    files.sync_all().unwrap_err();
    fs::rename(&away, &home).unwrap();
    for ino in inos.clone() {
        assert_eq!(files.sync(ino).is_err(), ino == 5, "inode {ino}");
    }
    write_all();
    // Who opens it again may not hear of a failure.
    files.open.lock().pop((7, 0));
    files.sync_all().unwrap_err();
    for ino in inos.clone() {
        assert_eq!(files.sync(ino).is_err(), [5, 7].contains(&ino), "inode {ino}");
    }
}

thread_local! {
    /// Whose parts are looked at as they go, and whether others could have had theirs each time.
    static GOING: RefCell<Option<(Arc<Files>, Vec<bool>)>> = const { RefCell::new(None) };
}

impl Drop for Part {
    fn drop(&mut self) {
        GOING.with_borrow_mut(|going| {
            if let Some((files, free)) = going {
                free.push(!files.open.is_locked() && !files.pinned.is_locked());
            }
        });
    }
}

#[test]
fn nobody_waits_for_the_space_of_a_removed_file() {
    let dir = scratch();
    let files = Arc::new(Files::open(dir.path(), Readahead::Disk).unwrap());
    files.write(AT, &[7; 4096]).unwrap();
    files.write(PartAt { part: 1, ..AT }, &[7; 4096]).unwrap();
    files.pin(5, false).unwrap();
    GOING.set(Some((files.clone(), Vec::new())));
    files.remove(5).unwrap();
    let (_, free) = GOING.take().unwrap();
    assert_eq!(free, [true, true], "one was pinned, one was open");
}

#[test]
fn where_no_descriptor_is_left_those_that_nobody_uses_go_first() {
    let dir = scratch();
    let files = Files::open(dir.path(), Readahead::Disk).unwrap();
    DESCRIPTORS.set(2);
    for ino in 0..8 {
        files.write(PartAt { ino, ..AT }, &[7; 4096]).unwrap();
    }
    files.sync_all().unwrap();
    files.pin(0, false).unwrap().unwrap();
    files.pin(1, false).unwrap().unwrap();
    let refused = files.pin(2, false).unwrap_err();
    assert!(lacks_descriptors(&refused), "those that are pinned stay");
    files.unpin(1);
    files.pin(2, false).unwrap().unwrap();
    DESCRIPTORS.set(usize::MAX);
}

#[test]
fn a_sync_that_had_no_descriptor_can_be_tried_again() {
    let dir = scratch();
    let files = Files::open(dir.path(), Readahead::Disk).unwrap();
    files.write(AT, &[7; 4096]).unwrap();
    files.open.lock().pop_oldest();
    DESCRIPTORS.set(0);
    assert!(lacks_descriptors(&files.sync(5).unwrap_err()));
    assert!(files.unsynced.lock().contains_key(&5), "it is still to be done");
    DESCRIPTORS.set(usize::MAX);
    files.sync(5).unwrap();
}
