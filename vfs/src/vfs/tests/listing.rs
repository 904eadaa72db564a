//! Listing directories.

use super::restored::{read, write};
use super::*;
use crate::fakes::bench::pattern;
use crate::limits::LISTED_AHEAD_MIN;
use std::collections::BTreeSet;

/// Lists in portions of `portion` entries, as a small buffer would.
fn list_in_portions(w: &World, ino: u64, portion: usize) -> Vec<(Vec<u8>, u64)> {
    let mut all = Vec::new();
    let mut cookie = 0;
    loop {
        let (from, mut taken) = (cookie, 0);
        let mut fill = |entry: DirEntry<'_>| {
            if taken == portion {
                return true;
            }
            taken += 1;
            all.push((entry.name.to_vec(), entry.ino));
            cookie = entry.cookie;
            false
        };
        w.vfs.readdir(ino, from, false, &mut fill).unwrap();
        if taken == 0 {
            return all;
        }
    }
}

#[test]
fn every_portion_size_lists_everything_once() {
    let w = World::new();
    let d = w.mkdir("/d").unwrap().ino;
    for i in 0..600 {
        w.touch_file(&format!("/d/{i}")).unwrap();
    }
    let whole = list_in_portions(&w, d, usize::MAX);
    assert_eq!(whole.len(), 602);
    assert_eq!(whole[0], (b".".to_vec(), d));
    assert_eq!(whole[1], (b"..".to_vec(), ROOT_INO));
    let names: BTreeSet<&[u8]> = whole.iter().map(|(name, _)| &name[..]).collect();
    assert_eq!(names.len(), 602);
    for portion in [1, 2, 3, 255, 256, 257, 600] {
        assert_eq!(list_in_portions(&w, d, portion), whole, "portion {portion}");
    }
}

#[test]
fn removing_while_listing_loses_nobody_else() {
    let w = World::new();
    let d = w.mkdir("/d").unwrap().ino;
    for i in 0..100 {
        w.touch_file(&format!("/d/{i}")).unwrap();
    }
    // What `rm -r` does: list a portion, remove it, go on from its cookie.
    let mut cookie = 0;
    loop {
        let (from, mut names) = (cookie, Vec::new());
        let mut fill = |entry: DirEntry<'_>| {
            if names.len() == 7 {
                return true;
            }
            cookie = entry.cookie;
            names.push(entry.name.to_vec());
            false
        };
        w.vfs.readdir(d, from, false, &mut fill).unwrap();
        if names.is_empty() {
            break;
        }
        for name in names.iter().filter(|name| !matches!(&name[..], b"." | b"..")) {
            w.vfs.unlink(d, name).unwrap();
        }
    }
    w.rmdir("/d").unwrap();
    w.check();
}

#[test]
fn names_that_share_a_hash_are_seen_twice_rather_than_not() {
    let w = World::new();
    let d = w.mkdir("/d").unwrap().ino;
    let a = w.touch_file("/d/a").unwrap().ino;
    // No two names with one hash are known, so the bucket is written by hand.
    let hash = w.vfs.core.name_hash(d, b"a");
    let key = crate::records::dentry_key(d, hash);
    let dentry = |name: &[u8]| crate::records::Dentry {
        name: name.to_vec(),
        ino: a,
        kind: FileKind::Regular,
    };
    let bucket = crate::records::DentryBucket(vec![dentry(b"a"), dentry(b"b"), dentry(b"c")]);
    let mut batch = cessfs_sync::Batch::new();
    batch.put(key, bucket.encode());
    cessfs_sync::MetaStore::commit(&*w.store, batch).unwrap();
    let mut cookies = Vec::new();
    let mut fill = |entry: DirEntry<'_>| {
        cookies.push(entry.cookie);
        false
    };
    w.vfs.readdir(d, 2, false, &mut fill).unwrap();
    assert_eq!(cookies, [2, 2, hash + 3]);
    let names: BTreeSet<Vec<u8>> = list_in_portions(&w, d, 3).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 5);
}

#[test]
fn plus_tells_attributes_and_counts_references() {
    let w = World::new();
    let d = w.mkdir("/d").unwrap().ino;
    let f = w.touch_file("/d/f").unwrap();
    w.vfs.forget(f.ino, 1);
    let mut told = Vec::new();
    let mut fill = |entry: DirEntry<'_>| {
        told.push((entry.name.to_vec(), entry.attr));
        false
    };
    w.vfs.readdir(d, 0, true, &mut fill).unwrap();
    let attr = |name: &[u8]| told.iter().find(|(told, _)| told == name).unwrap().1;
    assert_eq!(attr(b"f"), Some(f));
    assert_eq!(attr(b".").map(|attr| attr.ino), Some(d));
    assert_eq!(attr(b"..").map(|attr| attr.ino), Some(ROOT_INO));
    // The listing's reference keeps the attributes of the removed file.
    w.unlink("/d/f").unwrap();
    assert_eq!(w.vfs.getattr(f.ino).unwrap().nlink, 0);
    w.vfs.forget(f.ino, 1);
    assert_eq!(errno(w.vfs.getattr(f.ino)), libc::ESTALE);
    // A refused entry counts nothing.
    let g = w.touch_file("/d/g").unwrap().ino;
    w.vfs.readdir(d, 2, true, &mut |_| true).unwrap();
    w.vfs.forget(g, 1);
    w.unlink("/d/g").unwrap();
    assert_eq!(errno(w.vfs.getattr(g)), libc::ESTALE);
}

#[test]
fn only_directories_are_listed() {
    let w = World::new();
    let f = w.touch_file("/f").unwrap().ino;
    assert_eq!(errno(w.vfs.readdir(f, 0, false, &mut |_| false)), libc::ENOTDIR);
    assert_eq!(errno(w.vfs.readdir(777, 0, false, &mut |_| false)), libc::ESTALE);
}

/// What is there all the time shows exactly once in every listing, whatever is made, renamed and removed beside it.
#[test]
fn listings_are_stable_under_concurrent_change() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let w = World::new();
    let d = w.mkdir("/d").unwrap().ino;
    let steady: BTreeSet<Vec<u8>> = (0..700).map(|i| format!("steady-{i}").into_bytes()).collect();
    for name in &steady {
        w.vfs.mknod(d, name, FileKind::Regular, 0o644, 0, USER).unwrap();
    }
    let (w, ended) = (&w, &AtomicBool::new(false));
    std::thread::scope(|scope| {
        for thread in 0..2 {
            scope.spawn(move || {
                for round in (0..).take_while(|_| !ended.load(Ordering::Relaxed)) {
                    let name = |kind: &str| format!("{kind}-{thread}-{}", round % 40).into_bytes();
                    let made = w.vfs.mknod(d, &name("new"), FileKind::Regular, 0o644, 0, USER);
                    w.vfs
                        .rename(d, &name("new"), d, &name("moved"), RenameFlags::default())
                        .unwrap();
                    if round % 3 == 0 {
                        w.vfs.unlink(d, &name("moved")).unwrap();
                    }
                    w.vfs.forget(made.unwrap().ino, 1);
                }
            });
        }
        for portion in (1..60).cycle().take(60) {
            let listed = list_in_portions(w, d, portion * 3);
            let mut seen = BTreeSet::new();
            for (name, _) in listed.into_iter().filter(|(name, _)| name.starts_with(b"steady")) {
                assert!(
                    seen.insert(name.clone()),
                    "{} shows twice",
                    String::from_utf8_lossy(&name)
                );
            }
            assert_eq!(seen, steady, "portions of {}", portion * 3);
        }
        ended.store(true, Ordering::Relaxed);
    });
    w.check();
}

#[test]
fn files_are_read_ahead_in_the_order_of_the_listing() {
    let w = World::on(Arc::new(MemStore::new()), |config| config.background = false);
    let d = w.mkdir("/d").unwrap().ino;
    w.mkdir("/d/directory").unwrap();
    for i in 0..40 {
        let name = format!("/d/{i}");
        w.touch_file(&name).unwrap();
        write(&w, &name, 0, &pattern(i, 30_000));
    }
    w.vfs.create_snapshot("all").unwrap();
    w.chunks.confirm();
    w.vfs.evict_all().unwrap();
    let files: Vec<u64> = list_in_portions(&w, d, 7)
        .into_iter()
        .filter(|(name, _)| !name.starts_with(b".") && name != b"directory")
        .map(|(_, ino)| ino)
        .collect();
    for ino in &files[..3] {
        assert_eq!(read(&w, *ino, 30_000).len(), 30_000);
    }
    assert_eq!(w.chunks.prefetched(), vec![]);
    w.vfs.data.shared().read_ahead();
    let state = |ino: u64| w.vfs.inode(ino).unwrap();
    let id = |ino: &u64| w.vfs.data.extents(&state(*ino)).unwrap()[0].stored.unwrap();
    let expected: Vec<_> = files[3..].iter().map(id).collect();
    let ahead = w.chunks.prefetched();
    assert!(ahead.len() >= LISTED_AHEAD_MIN);
    assert_eq!(ahead, expected[..ahead.len()]);
}
