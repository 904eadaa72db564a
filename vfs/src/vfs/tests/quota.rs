//! Quotas of directory trees: what counts, what is refused, and that nothing makes the count wrong.

use super::*;
use crate::quota::QuotaUse;
use crate::records::{self, QuotaPhase, QuotaRecord};
use cessfs_sync::MetaStore;

const FILE: OpenFlags = OpenFlags {
    read: true,
    write: true,
    append: false,
    truncate: false,
    direct: false,
    sync: false,
};

/// Writes `data` at `offset` of a file.
fn write(w: &World, path: &str, offset: u64, data: &[u8]) -> Result<u32, VfsError> {
    let (ino, fh) = (w.ino(path), w.open(path, FILE)?);
    let written = match w.vfs.write(ino, fh, offset, data, false) {
        Ok(crate::Later::Ready(n)) => Ok(n),
        Ok(_) => panic!("nothing is absent here"),
        Err(e) => Err(e),
    };
    w.vfs.release(ino, fh).unwrap();
    written
}

#[track_caller]
fn used(w: &World, path: &str) -> (u64, u64) {
    let report = w.vfs.quota_of(w.ino(path)).unwrap().expect("a quota holds there");
    (report.used.blocks, report.used.inodes)
}

/// What the trees use by the attributes of everything in them.
fn by_walking(w: &World, path: &str) -> (u64, u64) {
    let tree = w.vfs.quota_of(w.ino(path)).unwrap().map(|report| report.root);
    let mut sum = (w.stat(path).blocks / 8, 1);
    if w.stat(path).kind == FileKind::Directory {
        for name in w.list(path) {
            let below = format!("{path}/{name}");
            if w.vfs.quota_of(w.ino(&below)).unwrap().map(|report| report.root) == tree {
                let (blocks, inodes) = by_walking(w, &below);
                sum = (sum.0 + blocks, sum.1 + inodes);
            }
        }
    }
    sum
}

fn tree() -> World {
    let w = World::new();
    w.mkdir("/t").unwrap();
    w.mkdir("/t/d").unwrap();
    w.mkdir("/out").unwrap();
    for path in ["/t/a", "/t/d/b", "/out/c"] {
        w.touch_file(path).unwrap();
        write(&w, path, 0, &[7; 5000]).unwrap();
    }
    w
}

#[test]
fn what_is_there_counts_when_a_quota_is_set_and_not_when_it_is_cleared() {
    let w = tree();
    let t = w.ino("/t");
    let report = w.vfs.set_quota(t, 1 << 20, 100).unwrap();
    assert_eq!(report.used, QuotaUse { blocks: 4, inodes: 4 });
    assert_eq!(used(&w, "/t/d/b"), (4, 4));
    assert_eq!(w.vfs.quota_of(w.ino("/out")).unwrap(), None);
    w.check();
    assert_eq!(
        w.vfs.set_quota(t, 1 << 30, 0).unwrap().used.inodes,
        4,
        "another limit counts nothing twice"
    );
    assert!(w.vfs.clear_quota(t).unwrap());
    assert!(!w.vfs.clear_quota(t).unwrap());
    assert_eq!(w.vfs.quota_of(w.ino("/t/d/b")).unwrap(), None);
    assert!(w.vfs.quotas().is_empty());
    w.check();
}

#[test]
fn growth_beyond_a_limit_is_refused_and_leaves_nothing() {
    let w = tree();
    w.vfs.set_quota(w.ino("/t"), 6 * 4096, 6).unwrap();
    w.touch_file("/t/e").unwrap();
    w.mkdir("/t/f").unwrap();
    for refused in [w.touch_file("/t/g").map(drop), w.mkdir("/t/d/g").map(drop)] {
        assert_eq!(errno(refused), libc::EDQUOT);
    }
    assert!(!w.exists("/t/g"));
    assert_eq!(errno(w.vfs.symlink(w.ino("/t"), b"l", b"x", USER)), libc::EDQUOT);
    write(&w, "/t/e", 0, &[7; 4096]).unwrap();
    write(&w, "/t/a", 8192, &[7; 4096]).unwrap();
    assert_eq!(used(&w, "/t"), (6, 6));
    assert_eq!(errno(write(&w, "/t/a", 1 << 20, &[7; 1])), libc::EDQUOT);
    assert_eq!(errno(write(&w, "/t/e", 4096, &[7; 1])), libc::EDQUOT);
    write(&w, "/t/a", 0, &[8; 5000]).expect("what is allocated already may be written");
    assert_eq!(w.stat("/t/a").size, 12288);
    w.unlink("/t/d/b").unwrap();
    assert_eq!(used(&w, "/t"), (4, 5));
    write(&w, "/t/a", 1 << 20, &[7; 4097]).unwrap();
    assert_eq!(used(&w, "/t"), by_walking(&w, "/t"));
    w.check();
}

#[test]
fn truncation_and_deletion_give_back() {
    let w = tree();
    w.vfs.set_quota(w.ino("/t"), 0, 0).unwrap();
    write(&w, "/t/a", 0, &[7; 40_000]).unwrap();
    assert_eq!(used(&w, "/t"), by_walking(&w, "/t"));
    let size = SetAttr {
        size: Some(5000),
        ..SetAttr::default()
    };
    w.vfs.setattr(w.ino("/t/a"), size, ROOT).unwrap();
    assert_eq!(used(&w, "/t"), (4, 4));
    let fh = w.open("/t/a", FILE).unwrap();
    let a = w.ino("/t/a");
    w.unlink("/t/a").unwrap();
    assert_eq!(used(&w, "/t"), (4, 4), "an open file goes on counting");
    w.vfs.release(a, fh).unwrap();
    assert_eq!(used(&w, "/t"), (2, 3));
    w.unlink("/t/d/b").unwrap();
    w.rmdir("/t/d").unwrap();
    assert_eq!(used(&w, "/t"), (0, 1));
    w.rmdir("/t").unwrap();
    assert!(w.vfs.quotas().is_empty(), "a quota goes with its directory");
    w.check();
}

#[test]
fn renames_between_trees_move_files_and_refuse_directories_and_links() {
    let w = tree();
    let t = w.ino("/t");
    w.vfs.set_quota(t, 5 * 4096, 0).unwrap();
    assert_eq!(errno(w.rename("/out/c", "/t/c")), libc::EDQUOT);
    assert!(w.exists("/out/c"));
    w.vfs.set_quota(t, 0, 5).unwrap();
    w.rename("/out/c", "/t/c").unwrap();
    assert_eq!(used(&w, "/t"), (6, 5));
    w.rename("/t/c", "/out/c").unwrap();
    assert_eq!(used(&w, "/t"), (4, 4));
    assert_eq!(errno(w.rename("/t/d", "/out/d")), libc::EXDEV);
    w.mkdir("/out/e").unwrap();
    assert_eq!(errno(w.rename("/out/e", "/t/e")), libc::EXDEV);
    assert_eq!(errno(w.link("/t/a", "/out/a")), libc::EXDEV);
    assert_eq!(errno(w.link("/out/c", "/t/c")), libc::EXDEV);
    w.link("/t/a", "/t/d/a").unwrap();
    assert_eq!(used(&w, "/t"), (4, 4), "a second name is no second inode");
    assert_eq!(errno(w.rename("/t/a", "/out/a")), libc::EXDEV);
    w.unlink("/t/d/a").unwrap();
    let exchange = RenameFlags {
        exchange: true,
        ..RenameFlags::default()
    };
    w.rename_with("/t/d/b", "/out/c", exchange).unwrap();
    assert_eq!(used(&w, "/t"), by_walking(&w, "/t"));
    w.rename("/t", "/out/t").expect("a tree moves with its quota");
    assert_eq!(used(&w, "/out/t"), (4, 4));
    w.check();
}

#[test]
fn a_tree_within_a_tree_counts_for_itself() {
    let w = tree();
    w.vfs.set_quota(w.ino("/t"), 0, 0).unwrap();
    w.vfs.set_quota(w.ino("/t/d"), 0, 0).unwrap();
    assert_eq!((used(&w, "/t"), used(&w, "/t/d")), ((2, 2), (2, 2)));
    w.vfs.set_quota(w.ino("/"), 0, 0).unwrap();
    assert_eq!(used(&w, "/"), (2, 3), "the root, /out and /out/c");
    w.check();
    w.vfs.clear_quota(w.ino("/t/d")).unwrap();
    assert_eq!(used(&w, "/t"), (4, 4), "what it held counts for the tree around it");
    w.vfs.clear_quota(w.ino("/t")).unwrap();
    assert_eq!(used(&w, "/"), by_walking(&w, "/"));
    w.check();
}

#[test]
fn the_count_survives_a_close_and_a_crash_at_any_record() {
    let w = tree();
    w.vfs.set_quota(w.ino("/t"), 1 << 20, 50).unwrap();
    write(&w, "/t/a", 0, &[7; 20_000]).unwrap();
    let before = used(&w, "/t");
    let w = w.reopen();
    assert_eq!(used(&w, "/t"), before);
    let report = w.vfs.quota_of(w.ino("/t")).unwrap().unwrap();
    assert_eq!((report.bytes_max, report.inodes_max), (1 << 20, 50));
    w.touch_file("/t/new").unwrap();
    w.rename("/out/c", "/t/c").unwrap();
    w.vfs.clear_quota(w.ino("/t")).unwrap();
    let (batches, _) = w.store.progress();
    for kept in 0..=batches {
        let crashed = World::on(Arc::new(w.store.crashed_at(kept)), |_| {});
        for report in crashed.vfs.quotas() {
            let path = ["/t"].into_iter().find(|path| crashed.exists(path)).unwrap();
            assert_eq!(crashed.ino(path), report.root);
            assert_eq!(
                used(&crashed, path),
                by_walking(&crashed, path),
                "after {kept} of {batches} batches"
            );
        }
        crashed.check();
    }
}

#[test]
fn statfs_tells_what_the_quota_leaves() {
    let w = tree();
    w.vfs.set_quota(w.ino("/t"), 10 * 4096, 10).unwrap();
    let room = w.vfs.statfs_at(w.ino("/t/d/b"));
    assert_eq!((room.blocks, room.free, room.files, room.files_free), (10, 6, 4, 6));
    assert_eq!(w.vfs.statfs_at(w.ino("/out")), w.vfs.statfs());
}

#[test]
fn files_made_by_many_threads_use_a_limit_up_exactly() {
    let w = tree();
    let d = w.ino("/t/d");
    w.vfs.set_quota(w.ino("/t"), 0, 104).unwrap();
    let w = &w;
    let made: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                scope.spawn(move || {
                    let make = |i: &u32| {
                        let name = format!("{thread}-{i}");
                        w.vfs
                            .mknod(d, name.as_bytes(), FileKind::Regular, 0o644, 0, USER)
                            .is_ok()
                    };
                    (0..60).filter(make).count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(made, 100);
    assert_eq!(used(w, "/t"), by_walking(w, "/t"));
}

fn quota_in(phase: QuotaPhase) -> QuotaRecord {
    QuotaRecord {
        phase,
        bytes_max: 1 << 20,
        inodes_max: 100,
    }
}

fn put(w: &World, key: Vec<u8>, value: Vec<u8>) {
    let mut batch = cessfs_sync::Batch::new();
    batch.put(key, value);
    w.store.commit(batch).unwrap();
}

#[test]
fn a_quota_whose_directory_is_gone_keeps_nobody_from_mounting() {
    for phase in [QuotaPhase::Clearing, QuotaPhase::Spreading, QuotaPhase::Active] {
        let w = tree();
        w.vfs.close().unwrap();
        put(&w, records::quota_key(999), quota_in(phase).encode());
        let w = World::on(w.store.clone(), |_| {});
        assert!(w.vfs.quotas().is_empty(), "{phase:?}");
        assert_eq!(w.vfs.errors(), Vec::<String>::new());
        w.check();
    }
}

#[test]
fn a_directory_removed_while_its_quota_is_set_takes_it_along() {
    let w = tree();
    w.mkdir("/t/e").unwrap();
    let e = w.ino("/t/e");
    // As far as this before the walk has come to the directory.
    w.vfs.put_quota(e, Some(&quota_in(QuotaPhase::Spreading))).unwrap();
    w.rmdir("/t/e").unwrap();
    assert_eq!(w.store.get(&records::quota_key(e)).unwrap(), None);
    assert!(w.vfs.quotas().is_empty());
    w.check();
    // And so does one that another directory replaces.
    w.mkdir("/t/e").unwrap();
    w.mkdir("/t/f").unwrap();
    w.vfs
        .put_quota(w.ino("/t/e"), Some(&quota_in(QuotaPhase::Clearing)))
        .unwrap();
    w.rename("/t/f", "/t/e").unwrap();
    w.check();
}

#[test]
fn a_walk_that_fails_is_told_and_tried_again_at_each_mount() {
    let w = tree().reopen();
    let (t, key) = (w.ino("/t"), records::inode_key(w.ino("/t/d/b")));
    let good = w.store.get(&key).unwrap().unwrap();
    w.vfs.close().unwrap();
    put(&w, key.clone(), b"junk".to_vec());
    let w = World::on(w.store.clone(), |_| {});
    assert!(w.vfs.set_quota(t, 1 << 20, 100).is_err());
    let w = w.reopen();
    assert!(w.vfs.errors().iter().any(|error| error.contains("quota")), "it is told");
    w.vfs.close().unwrap();
    put(&w, key, good);
    let w = World::on(w.store.clone(), |_| {});
    assert_eq!(used(&w, "/t"), by_walking(&w, "/t"));
    w.check();
}

/// `/out/c` is also `/t/c`, and counts for `/t`, which has a quota.
fn straddling() -> World {
    let w = tree();
    w.link("/out/c", "/t/c").unwrap();
    w.vfs.set_quota(w.ino("/t"), 1 << 20, 100).unwrap();
    assert_eq!(used(&w, "/t"), (6, 5));
    w
}

#[test]
fn a_file_with_names_elsewhere_is_renamed_where_it_is_and_freed_with_the_quota() {
    let w = straddling();
    w.rename("/out/c", "/out/d").expect("it stays in its directory");
    assert_eq!(errno(w.rename("/out/d", "/d")), libc::EXDEV);
    assert_eq!(used(&w, "/t"), (6, 5));
    w.unlink("/t/c").unwrap();
    w.link("/out/d", "/out/e")
        .expect_err("it counts for the tree it was in");
    w.vfs.clear_quota(w.ino("/t")).unwrap();
    w.check();
    w.link("/out/d", "/out/e").expect("it counts for nobody");
    // What was never counted again is not taken away from the next quota.
    w.vfs.set_quota(w.ino("/t"), 1 << 20, 100).unwrap();
    write(&w, "/out/d", 0, &[7; 1]).unwrap();
    w.unlink("/out/d").unwrap();
    w.unlink("/out/e").unwrap();
    assert_eq!(used(&w, "/t"), by_walking(&w, "/t"));
    w.check();
}

#[test]
fn a_file_with_names_elsewhere_is_free_when_the_tree_is_removed() {
    let w = straddling();
    for path in ["/t/a", "/t/c", "/t/d/b"] {
        w.unlink(path).unwrap();
    }
    w.rmdir("/t/d").unwrap();
    w.rmdir("/t").unwrap();
    w.check();
    w.link("/out/c", "/out/d").unwrap();
    w.rename("/out/c", "/c").unwrap();
    let w = w.reopen();
    w.vfs.set_quota(w.ino("/out"), 1 << 20, 100).unwrap();
    assert_eq!(used(&w, "/out"), by_walking(&w, "/out"));
    w.check();
}

#[test]
fn a_deleted_file_that_is_open_while_a_quota_comes_and_goes_keeps_the_count_right() {
    for around in [false, true] {
        let w = tree();
        if around {
            w.vfs.set_quota(ROOT_INO, 0, 0).unwrap();
        }
        let t = w.ino("/t");
        w.vfs.set_quota(t, 1 << 20, 100).unwrap();
        let (a, fh) = (w.ino("/t/a"), w.open("/t/a", FILE).unwrap());
        w.unlink("/t/a").unwrap();
        w.vfs.clear_quota(t).unwrap();
        if around {
            let (blocks, inodes) = by_walking(&w, "/");
            assert_eq!(used(&w, "/"), (blocks + 2, inodes + 1), "it counts until it is closed");
        }
        w.vfs.set_quota(t, 1 << 20, 100).unwrap();
        w.vfs.release(a, fh).unwrap();
        assert_eq!(used(&w, "/t"), by_walking(&w, "/t"));
        let w = w.reopen();
        assert_eq!(used(&w, "/t"), by_walking(&w, "/t"));
        if around {
            assert_eq!(used(&w, "/"), by_walking(&w, "/"));
        }
        w.check();
    }
}

#[test]
fn a_directory_is_renamed_where_it_is_after_a_walk_and_not_during_one() {
    let w = tree();
    let t = w.ino("/t");
    // As far as a walk that has told /t, and not yet what is in it.
    w.vfs.put_quota(t, Some(&quota_in(QuotaPhase::Spreading))).unwrap();
    let inode = w.vfs.inode(t).unwrap();
    inode.state.write().record.quota = t;
    let walk = w.vfs.walks.write();
    let (began, begins) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let renamed = scope.spawn(|| {
            began.send(()).unwrap();
            w.rename("/t/d", "/t/e")
        });
        begins.recv().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(!renamed.is_finished() && w.exists("/t/d"), "it waits for the walk");
        drop(walk);
        renamed.join().unwrap().expect("it moves to no other tree");
    });
}

#[test]
fn a_link_within_a_tree_waits_for_a_walk_that_has_told_half_of_it() {
    let w = tree();
    let t = w.ino("/t");
    w.vfs.put_quota(t, Some(&quota_in(QuotaPhase::Spreading))).unwrap();
    w.vfs.inode(t).unwrap().state.write().record.quota = t;
    let walk = w.vfs.walks.write();
    let (began, begins) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let linked = scope.spawn(|| {
            began.send(()).unwrap();
            w.link("/t/d/b", "/t/b")
        });
        begins.recv().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(!linked.is_finished() && !w.exists("/t/b"), "it waits for the walk");
        w.vfs.inode(w.ino("/t/d/b")).unwrap().state.write().record.quota = t;
        drop(walk);
        linked.join().unwrap().expect("both are of one tree");
    });
}

#[test]
fn a_truncation_that_makes_a_file_longer_asks_the_quota() {
    let w = tree();
    w.touch_file("/t/e").unwrap();
    w.vfs.set_quota(w.ino("/t"), 4 * 4096, 0).unwrap();
    let longer = SetAttr {
        size: Some(100),
        ..SetAttr::default()
    };
    assert_eq!(errno(w.vfs.setattr(w.ino("/t/e"), longer, ROOT)), libc::EDQUOT);
    assert_eq!((w.stat("/t/e").size, used(&w, "/t")), (0, (4, 5)));
    w.vfs.set_quota(w.ino("/t"), 5 * 4096, 0).unwrap();
    w.vfs.setattr(w.ino("/t/e"), longer, ROOT).unwrap();
    assert_eq!(used(&w, "/t"), (5, 5));
    w.check();
}
