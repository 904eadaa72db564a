//! What is noted for the next sync.

use super::*;
use crate::fakes::bench::scratch;
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
