//! Crashes between any two batches, and what an opening counts.

use super::*;
use crate::limits::INO_BLOCK;
use crate::records;
use cessfs_sync::{MetaStore, StoreError};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ThreadId;

/// A little of everything.
fn busy() -> World {
    let w = World::new();
    for dir in ["/a", "/b", "/a/sub"] {
        w.mkdir(dir).unwrap();
    }
    for i in 0..10 {
        w.touch_file(&format!("/a/{i}")).unwrap();
        w.link(&format!("/a/{i}"), &format!("/b/{i}")).unwrap();
    }
    let f = w.ino("/a/0");
    w.vfs.setxattr(f, b"user.a", b"v", XattrMode::Any).unwrap();
    let fh = w
        .open(
            "/a/0",
            OpenFlags {
                read: true,
                ..OpenFlags::default()
            },
        )
        .unwrap();
    w.rename("/a/1", "/b/0").unwrap();
    w.unlink("/a/0").unwrap();
    w.rename("/a/sub", "/b/moved").unwrap();
    w.rename_with(
        "/a/2",
        "/b/moved",
        RenameFlags {
            exchange: true,
            ..RenameFlags::default()
        },
    )
    .unwrap();
    w.vfs.release(f, fh).unwrap();
    w.rmdir("/a/2").unwrap();
    w.check();
    w
}

#[test]
fn every_prefix_of_batches_is_a_whole_tree() {
    let w = busy();
    let batches = w.store.progress().0;
    assert!(batches > 30);
    for kept in 0..=batches {
        let store = Arc::new(w.store.crashed_at(kept));
        if store.get(&records::inode_key(ROOT_INO)).unwrap().is_some() {
            let findings = check_tree(&*store, &KEYS).unwrap();
            assert!(findings.is_empty(), "after {kept} batches: {findings:#?}");
        }
        let crashed = World::on(store, |_| {});
        crashed.check();
        let counted = crashed.store.scan(b"i", b"i", usize::MAX).unwrap().len() as u64;
        assert_eq!(crashed.vfs.file_count(), counted);
    }
}

/// A store that counts the records it gives to one thread.
struct Counting {
    store: MemStore,
    given: AtomicUsize,
    to: ThreadId,
}

impl Counting {
    fn give(&self, records: usize) {
        if std::thread::current().id() == self.to {
            self.given.fetch_add(records, Ordering::Relaxed);
        }
    }
}

impl MetaStore for Counting {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.give(1);
        self.store.get(key)
    }
    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        let found = self.store.scan(prefix, from, limit)?;
        self.give(found.len());
        Ok(found)
    }
    fn commit(&self, batch: cessfs_sync::Batch) -> Result<(), StoreError> {
        self.store.commit(batch)
    }
    fn barrier(&self) -> Result<(), StoreError> {
        self.store.barrier()
    }
}

#[test]
fn a_mount_after_a_crash_reads_no_more_of_a_large_tree_than_of_a_small_one() {
    let read = |files: u64| {
        let w = World::new();
        for i in 0..files {
            w.touch_file(&format!("/{i}")).unwrap();
        }
        w.evict();
        w.touch_file("/last").unwrap();
        let store = Arc::new(Counting {
            store: w.store.crashed_at(w.store.progress().0),
            given: AtomicUsize::new(0),
            to: std::thread::current().id(),
        });
        let dir = scratch();
        let vfs = Vfs::open(VfsParts {
            store: store.clone(),
            clock: w.clock.clone(),
            chunks: Arc::new(w.chunks.clone()),
            keys: KEYS.clone(),
            config: config(&dir),
            entropy: Arc::new(Mutex::new(FakeEntropy::new(2))),
            trees: Arc::new(FakeTrees::default()),
        })
        .unwrap();
        let given = store.given.load(Ordering::Relaxed);
        assert_eq!(vfs.file_count(), files + 2);
        given
    };
    let (small, large) = (read(10), read(3000));
    assert!(
        large <= small + 20,
        "{large} records of a large tree, {small} of a small one"
    );
}

#[test]
fn numbers_are_never_issued_twice() {
    let w = World::new();
    let first = w.touch_file("/a").unwrap().ino;
    w.unlink("/a").unwrap();
    let crashed = World::on(Arc::new(w.store.crashed_at(w.store.progress().0)), |_| {});
    let second = crashed.touch_file("/b").unwrap().ino;
    assert!(second > first && second <= first + INO_BLOCK);
    // A clean close skips nothing.
    crashed.unlink("/b").unwrap();
    let reopened = crashed.reopen();
    assert_eq!(reopened.touch_file("/c").unwrap().ino, second + 1);
    // A restored store knows no counter: the inodes themselves say where it stands.
    let mut batch = cessfs_sync::Batch::new();
    batch.delete(records::NEXT_INO_KEY);
    reopened.store.commit(batch).unwrap();
    let restored = World::on(Arc::new(reopened.store.crashed_at(reopened.store.progress().0)), |_| {});
    assert_eq!(restored.touch_file("/d").unwrap().ino, second + 2);
    restored.check();
}

#[test]
fn numbers_outlast_a_block() {
    let w = World::new();
    let mut last = ROOT_INO;
    for i in 0..INO_BLOCK + 10 {
        let ino = w.touch_file(&format!("/{}", i % 7)).unwrap().ino;
        assert!(ino > last);
        last = ino;
        w.unlink(&format!("/{}", i % 7)).unwrap();
    }
    w.check();
}

#[test]
fn closing_is_durable_once_and_final() {
    let w = World::new();
    w.touch_file("/f").unwrap();
    w.vfs.close().unwrap();
    let (batches, durable) = w.store.progress();
    assert_eq!(batches, durable);
    assert!(w.store.get(records::CLEAN_KEY).unwrap().is_some());
    w.vfs.close().unwrap();
    assert_eq!(errno(w.touch_file("/g")), libc::EROFS);
    assert_eq!(w.store.progress().0, batches);
    let w = World::over(
        w.store.clone(),
        w.clock.clone(),
        w.dir.clone(),
        FakeChunks::new(),
        |_| {},
    );
    assert!(w.store.get(records::CLEAN_KEY).unwrap().is_none());
    assert_eq!((w.vfs.file_count(), w.list("/")), (2, vec!["f".to_owned()]));
}

#[test]
fn damaged_records_are_errors_not_panics() {
    let w = World::new();
    w.mkdir("/d").unwrap();
    w.touch_file("/d/f").unwrap();
    let d = w.ino("/d");
    let damage = |key: &[u8], value: &[u8]| {
        let store = w.store.crashed_at(w.store.progress().0);
        let mut batch = cessfs_sync::Batch::new();
        batch.put(key, value);
        store.commit(batch).unwrap();
        World::on(Arc::new(store), |_| {})
    };
    let hurt = damage(&records::inode_key(d), b"\x01rubbish");
    assert_eq!(errno(hurt.vfs.lookup(ROOT_INO, b"d")), libc::EIO);
    assert!(!check_tree(&*hurt.store, &KEYS).unwrap().is_empty());
    let hash = w.vfs.core.name_hash(d, b"f");
    let hurt = damage(&records::dentry_key(d, hash), b"");
    assert_eq!(errno(hurt.vfs.lookup(d, b"f")), libc::EIO);
    assert_eq!(errno(hurt.vfs.readdir(d, 0, false, &mut |_| false)), libc::EIO);
    // A name without an inode: an error, and no endless search.
    let dangling = records::DentryBucket(vec![records::Dentry {
        name: b"f".to_vec(),
        ino: 999_999,
        kind: FileKind::Regular,
    }]);
    let hurt = damage(&records::dentry_key(d, hash), &dangling.encode());
    assert_eq!(errno(hurt.unlink("/d/f")), libc::EIO);
}
