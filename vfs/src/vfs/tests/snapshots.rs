//! A snapshot is the tree of the instant it was taken, whatever became of the tree since.

use super::restored::{Seen, dice, look, step, write};
use super::*;
use crate::fakes::bench::{pattern, wait};
use crate::request::Seek;
use crate::snapshot::diff::Change;
use crate::snapshot::{Tree, number};
use crate::vfs::snapshots::Look;
use cessfs_sync::CutCause;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const MIB: usize = 1 << 20;

/// The tree of a snapshot, put together if need be.
fn tree(w: &World, name: &str) -> Arc<Tree> {
    let snapshot = w.vfs.snapshot(name).expect("there is one of this name");
    match w.vfs.look_into(&snapshot) {
        Look::Tree(tree) => tree,
        Look::Wait(building) => wait(crate::Later::Wait(building)).unwrap(),
    }
}

fn list(tree: &Tree, ino: u64) -> Vec<(String, u64)> {
    let mut names = Vec::new();
    let mut cookie = 0;
    // A page of two entries at a time.
    loop {
        let mut room = 2;
        let (before, from) = (names.len(), cookie);
        let mut fill = |entry: DirEntry<'_>| {
            if room == 0 {
                return true;
            }
            room -= 1;
            cookie = entry.cookie;
            let attr = entry.attr.expect("asked for");
            assert_eq!((attr.ino, attr.kind), (entry.ino, entry.kind));
            names.push((String::from_utf8(entry.name.to_vec()).unwrap(), entry.ino));
            false
        };
        tree.readdir(ino, from, true, &mut fill).unwrap();
        if names.len() == before {
            break;
        }
    }
    names.retain(|(name, _)| name != "." && name != "..");
    names.sort();
    names
}

/// What can be seen in a snapshot, as [`look`] tells it of the live tree.
fn look_at(tree: &Tree) -> BTreeMap<String, Seen> {
    let mut numbers: BTreeMap<u64, i64> = BTreeMap::new();
    let mut paths = vec![(String::new(), tree.root())];
    let mut seen = BTreeMap::new();
    while let Some((path, ino)) = paths.pop() {
        let attr = tree.getattr(ino).unwrap();
        if attr.kind == FileKind::Directory {
            let children = list(tree, ino);
            paths.extend(children.into_iter().map(|(name, ino)| (format!("{path}/{name}"), ino)));
        }
        let content = match attr.kind {
            FileKind::Regular => wait(tree.read(ino, 0, attr.size as u32).unwrap()).unwrap(),
            FileKind::Symlink => tree.readlink(ino).unwrap(),
            _ => Vec::new(),
        };
        let mut xattrs = BTreeMap::new();
        for name in tree.listxattr(ino).unwrap().split_inclusive(|byte| *byte == 0) {
            let name = &name[..name.len() - 1];
            xattrs.insert(name.to_vec(), tree.getxattr(ino, name).unwrap());
        }
        let count = numbers.len() as i64;
        let number = *numbers.entry(ino).or_insert(count);
        let fields = vec![
            number,
            attr.kind as i64,
            attr.perm.into(),
            attr.nlink.into(),
            attr.uid.into(),
            attr.gid.into(),
            attr.size as i64,
            attr.mtime.secs,
            attr.ctime.secs,
            attr.btime.secs,
        ];
        seen.insert(path, (fields, content, xattrs));
    }
    seen
}

/// Says which paths differ, not how: contents are long.
#[track_caller]
fn assert_same(found: &BTreeMap<String, Seen>, expected: &BTreeMap<String, Seen>, when: &str) {
    let paths: std::collections::BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let tell =
        |seen: Option<&Seen>| seen.map(|(fields, content, xattrs)| (fields.clone(), content.len(), xattrs.len()));
    for path in paths {
        let (left, right) = (found.get(path), expected.get(path));
        assert!(
            left == right,
            "{when}: {path} is {:?}, was {:?}",
            tell(left),
            tell(right)
        );
    }
}

#[test]
fn a_snapshot_of_any_instant_is_the_tree_of_that_instant() {
    for seed in 200..230 {
        let mut w = World::new();
        let mut dice = dice(seed);
        let mut taken: Vec<(String, BTreeMap<String, Seen>)> = Vec::new();
        for round in 0..6 {
            for _ in 0..dice(12) {
                w.tick();
                step(&w, &mut dice);
                // The pipeline seals when it likes, whole files or not.
                if dice(6) == 0 {
                    let cause = [CutCause::Full, CutCause::Forced, CutCause::Checkpoint][dice(3) as usize];
                    w.chunks.seal(&*w.vfs.delta_source(), &*w.store, cause).unwrap();
                }
            }
            if dice(4) == 0 {
                w = w.remount();
            }
            let name = format!("round {round}");
            let expected = look(&w);
            let snapshot = w.vfs.create_snapshot(&name).unwrap();
            assert_eq!(snapshot.record.pack.0 as usize, w.chunks.packs().len());
            taken.push((name, expected));
            if taken.len() > 2 && dice(3) == 0 {
                let (name, _) = taken.remove(dice(2) as usize);
                w.vfs.delete_snapshot(&name).unwrap();
            }
        }
        for (name, expected) in &taken {
            assert_same(&look_at(&tree(&w, name)), expected, &format!("seed {seed}, {name}"));
        }
        let findings = check_tree(tree(&w, &taken[0].0).store(), &KEYS).unwrap();
        assert_eq!(findings, Vec::<String>::new(), "seed {seed}");
        let names: Vec<String> = w.vfs.snapshots().iter().map(|s| s.record.name.clone()).collect();
        assert_eq!(names, taken.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        let last = w.vfs.snapshots().last().map(|s| s.record.pack);
        assert_eq!(w.vfs.delta_source().pinned(), last);

        // And on a machine that has only the packs: the list, and the trees.
        let store = Arc::new(MemStore::new());
        let newest = w.chunks.packs().len() as u64;
        crate::delta::frame::apply_delta(w.chunks.frames(cessfs_crypto::PackSeq(newest)), &*store).unwrap();
        let restored = crate::restore::finish(&*store, &KEYS, &|_| Ok(true)).unwrap();
        assert_eq!(restored.findings, Vec::<String>::new());
        let clock = Arc::new(FakeClock::new());
        let again = World::over(store, clock, Arc::new(scratch()), w.chunks.clone(), |_| {});
        // The last snapshot's record came with its own pack; a deletion after it did not travel yet.
        for (name, expected) in &taken {
            assert_same(
                &look_at(&tree(&again, name)),
                expected,
                &format!("seed {seed}, {name}, restored"),
            );
        }
    }
}

#[test]
fn taking_one_costs_the_same_however_many_files_there_are() {
    let cost = |files: usize| {
        let w = World::new();
        for number in 0..files {
            w.touch_file(&format!("/{number}")).unwrap();
        }
        w.vfs.create_snapshot("first").unwrap();
        w.touch_file("/one more").unwrap();
        let sent = || {
            let newest = cessfs_crypto::PackSeq(w.chunks.packs().len() as u64);
            w.chunks.frames(newest).iter().map(|frame| frame.len()).sum::<usize>()
        };
        let before = (w.store.progress().0, sent());
        w.vfs.create_snapshot("second").unwrap();
        (w.store.progress().0 - before.0, sent() - before.1)
    };
    let (few, many) = (cost(100), cost(10_000));
    assert_eq!(few.0, many.0, "batches of the journal");
    // Larger numbers of inodes, nothing else.
    assert!(few.1.abs_diff(many.1) < 100, "bytes of metadata: {few:?} and {many:?}");
}

#[test]
fn a_snapshot_is_of_one_instant_while_others_write() {
    let w = World::new();
    for name in ["/one", "/two"] {
        w.touch_file(name).unwrap();
        write(&w, name, 0, &vec![0; 3 * MIB]);
    }
    // A counter in two files, the first always written first: no instant has more in the second.
    let (done, count) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let next = count.load(Ordering::Relaxed) + 1;
                for name in ["/one", "/two"] {
                    // Far apart: three chunks of each file change.
                    for chunk in 0..3 {
                        write(&w, name, (chunk * MIB + 5000) as u64, &next.to_le_bytes());
                    }
                }
                count.store(next, Ordering::Relaxed);
            }
        });
        for round in 0..8 {
            // Writers go on: each snapshot is taken of something else.
            while count.load(Ordering::Relaxed) < 2 * round {
                std::thread::yield_now();
            }
            w.vfs.create_snapshot(&format!("s{round}")).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut last = 0;
    for round in 0..8 {
        let tree = tree(&w, &format!("s{round}"));
        let mut counts = Vec::new();
        for name in [b"one", b"two"] {
            let ino = tree.lookup(tree.root(), name).unwrap().ino;
            for chunk in 0..3 {
                let bytes = wait(tree.read(ino, (chunk * MIB + 5000) as u64, 8).unwrap()).unwrap();
                counts.push(u64::from_le_bytes(bytes.try_into().unwrap()));
            }
        }
        assert!(counts.is_sorted_by(|a, b| a >= b), "written in this order: {counts:?}");
        assert!(
            counts[0] - counts[5] <= 1 && counts[5] >= last,
            "{counts:?} after {last}"
        );
        last = counts[0].saturating_sub(1);
    }
}

#[test]
fn holes_links_and_symlinks_are_as_they_were() {
    let w = World::new();
    w.mkdir("/dir").unwrap();
    w.touch_file("/dir/sparse").unwrap();
    write(&w, "/dir/sparse", 2 * MIB as u64 + 8192, &pattern(3, 5000));
    w.link("/dir/sparse", "/other").unwrap();
    let (dir, name) = w.split("/dir/link");
    w.vfs.symlink(dir, name, b"sparse", USER).unwrap();
    w.vfs.create_snapshot("then").unwrap();
    w.unlink("/other").unwrap();
    w.unlink("/dir/sparse").unwrap();
    let tree = tree(&w, "then");
    let dir = tree.lookup(tree.root(), b"dir").unwrap().ino;
    let sparse = tree.lookup(dir, b"sparse").unwrap();
    assert_eq!(tree.lookup(tree.root(), b"other").unwrap(), sparse);
    assert_eq!((sparse.nlink, sparse.blocks), (2, 2 * 8));
    let data = 2 * MIB as u64 + 8192;
    assert_eq!(tree.seek(sparse.ino, 0, Seek::Data).unwrap(), data);
    assert_eq!(tree.seek(sparse.ino, 0, Seek::Hole).unwrap(), 0);
    assert_eq!(tree.seek(sparse.ino, data, Seek::Hole).unwrap(), data + 5000);
    assert_eq!(errno(tree.seek(sparse.ino, data + 5000, Seek::Data)), libc::ENXIO);
    assert_eq!(
        tree.readlink(tree.lookup(dir, b"link").unwrap().ino).unwrap(),
        b"sparse"
    );
    assert_eq!(tree.lookup(dir, b"..").unwrap().ino, tree.root());
    assert_eq!(errno(tree.lookup(dir, b"gone")), libc::ENOENT);
    assert_eq!(errno(tree.readlink(dir)), libc::EINVAL);
    assert_eq!(errno(tree.getattr(number::seen(7, 1))), libc::ESTALE);
}

#[test]
fn nothing_in_a_snapshot_can_be_changed() {
    let w = World::new();
    w.touch_file("/file").unwrap();
    w.vfs.create_snapshot("then").unwrap();
    let root = w.vfs.snapshot_lookup(b"then").unwrap().ino;
    let file = tree(&w, "then").lookup(root, b"file").unwrap().ino;
    let writes = OpenFlags {
        write: true,
        ..OpenFlags::default()
    };
    let old = w.ino("/file");
    for refused in [
        errno(w.vfs.mkdir(root, b"new", 0o755, USER)),
        errno(w.vfs.unlink(root, b"file")),
        errno(w.vfs.rename(root, b"file", ROOT_INO, b"moved", RenameFlags::default())),
        errno(w.vfs.rename(ROOT_INO, b"file", root, b"moved", RenameFlags::default())),
        errno(w.vfs.link(file, ROOT_INO, b"linked")),
        errno(w.vfs.link(old, root, b"linked")),
        errno(w.vfs.open_file(file, writes)),
        errno(w.vfs.setattr(file, SetAttr::default(), USER)),
        errno(w.vfs.setxattr(file, b"user.a", b"b", XattrMode::Any)),
        errno(w.vfs.removexattr(file, b"user.a")),
        errno(w.vfs.create(root, b"new", 0o644, writes, USER)),
        errno(w.vfs.symlink(root, b"new", b"to", USER)),
    ] {
        assert_eq!(refused, libc::EROFS);
    }
    let snapshots = w
        .vfs
        .lookup(w.vfs.lookup(ROOT_INO, b".cessfs").unwrap().ino, b"snapshots")
        .unwrap()
        .ino;
    assert_eq!(errno(w.vfs.mkdir(snapshots, b"new", 0o755, USER)), libc::EPERM);
    let mut names = Vec::new();
    let mut fill = |entry: DirEntry<'_>| {
        names.push((
            String::from_utf8(entry.name.to_vec()).unwrap(),
            entry.attr.map(|attr| attr.ino),
        ));
        false
    };
    w.vfs.readdir(snapshots, 2, true, &mut fill).unwrap();
    assert_eq!(names, [("then".to_owned(), Some(root))]);
    assert_eq!(w.vfs.lookup(snapshots, b"then").unwrap().ino, root);
    assert_eq!(errno(w.vfs.lookup(snapshots, b"now")), libc::ENOENT);
}

#[test]
fn names_are_checked_and_free_again_once_deleted() {
    let w = World::new();
    let first = w.vfs.create_snapshot("a").unwrap();
    assert_eq!(errno(w.vfs.create_snapshot("a")), libc::EEXIST);
    for bad in ["", "a/b", ".", "..", "-x", "a\0b"] {
        assert_eq!(errno(w.vfs.create_snapshot(bad)), libc::EINVAL, "{bad:?}");
    }
    assert_eq!(errno(w.vfs.delete_snapshot("b")), libc::ENOENT);
    w.vfs.delete_snapshot("a").unwrap();
    assert_eq!(w.vfs.delta_source().pinned(), None);
    let second = w.vfs.create_snapshot("a").unwrap();
    assert!(
        second.number > first.number,
        "the kernel may remember inodes of the first"
    );
    assert_eq!(errno(w.vfs.look(number::seen(first.number, 1)).map(drop)), libc::ESTALE);
    let w = w.remount();
    assert_eq!(w.vfs.snapshots().len(), 1);
}

#[test]
fn trees_are_kept_for_a_while_and_gone_with_their_snapshot() {
    use crate::limits::SNAPSHOT_TREES_KEPT;
    let w = World::new();
    for round in 0..SNAPSHOT_TREES_KEPT + 2 {
        w.touch_file(&format!("/file-{round}")).unwrap();
        w.vfs.create_snapshot(&format!("s{round}")).unwrap();
    }
    assert_eq!(w.vfs.snapshot_counts(), (SNAPSHOT_TREES_KEPT + 2, 0));
    let held = tree(&w, "s0");
    for round in 0..SNAPSHOT_TREES_KEPT + 2 {
        assert_eq!(look_at(&tree(&w, &format!("s{round}"))).len(), round + 2);
    }
    assert_eq!(w.vfs.snapshot_counts().1, SNAPSHOT_TREES_KEPT);
    use crate::snapshot::TreeStores;
    assert_eq!(
        w.trees.names().unwrap().len(),
        SNAPSHOT_TREES_KEPT + 1,
        "and the one that is in use"
    );
    assert_eq!(look_at(&held).len(), 2);
    drop(held);
    assert_eq!(w.trees.names().unwrap().len(), SNAPSHOT_TREES_KEPT);

    // They outlive the mount; what is not whole does not.
    w.trees.open("2-2-99").unwrap();
    w.vfs.delete_snapshot(&format!("s{}", SNAPSHOT_TREES_KEPT + 1)).unwrap();
    assert_eq!(w.trees.names().unwrap().len(), SNAPSHOT_TREES_KEPT);
    let w = w.remount();
    assert_eq!(w.trees.names().unwrap().len(), SNAPSHOT_TREES_KEPT - 1);
    assert_eq!(w.vfs.snapshot_counts().1, SNAPSHOT_TREES_KEPT - 1);
    assert_eq!(look_at(&tree(&w, "s3")).len(), 5);
}

#[test]
fn what_differs_is_told() {
    let w = World::new();
    for dir in ["/dir", "/dir/deep", "/quiet"] {
        w.mkdir(dir).unwrap();
    }
    for file in [
        "/dir/deep/a",
        "/dir/b",
        "/same",
        "/saved",
        "/attr",
        "/touched",
        "/quiet/c",
        "/gone",
    ] {
        w.touch_file(file).unwrap();
        write(&w, file, 0, &pattern(1, 100));
    }
    w.touch_file("/large").unwrap();
    write(&w, "/large", 0, &pattern(1, 3 * MIB));
    w.vfs.create_snapshot("then").unwrap();
    w.tick();
    w.rename("/dir/deep", "/moved").unwrap();
    w.rename("/dir/b", "/dir/c").unwrap();
    w.unlink("/gone").unwrap();
    w.touch_file("/tmp").unwrap();
    write(&w, "/tmp", 0, b"saved anew");
    w.rename("/tmp", "/saved").unwrap();
    w.vfs.setxattr(w.ino("/attr"), b"user.a", b"b", XattrMode::Any).unwrap();
    write(&w, "/large", 2 * MIB as u64, b"x");
    w.mkdir("/new").unwrap();
    w.touch_file("/new/file").unwrap();
    let told = |new: Option<&Tree>| -> Vec<String> {
        let old = tree(&w, "then");
        let differences = w.vfs.compare(&old, new).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let tell = |d: &crate::snapshot::diff::Difference| match d.change {
            Change::Added => format!("+ {}", text(&d.path)),
            Change::Removed => format!("- {}", text(&d.path)),
            Change::Changed => format!("~ {}", text(&d.path)),
            Change::Renamed => format!("{} > {}", text(d.from.as_deref().unwrap()), text(&d.path)),
        };
        differences.iter().map(tell).collect()
    };
    let expected = [
        "~ /attr",
        "/dir/b > /dir/c",
        "- /gone",
        "~ /large",
        "/dir/deep > /moved",
        "+ /new",
        "+ /new/file",
        "~ /saved",
    ];
    assert_eq!(told(None), expected);
    w.vfs.create_snapshot("later").unwrap();
    assert_eq!(told(Some(&tree(&w, "later"))), expected);
    assert_eq!(told(Some(&tree(&w, "then"))), Vec::<String>::new());
}

#[test]
fn a_pack_that_cannot_be_sealed_leaves_no_snapshot() {
    let w = World::new();
    w.touch_file("/file").unwrap();
    write(&w, "/file", 0, &pattern(1, 10_000));
    w.chunks.fail_submit(Some(cessfs_sync::StoreError::Full));
    assert_eq!(errno(w.vfs.create_snapshot("then")), libc::ENOSPC);
    w.chunks.fail_submit(None);
    assert!(w.vfs.snapshots().is_empty() && w.chunks.packs().is_empty());
    // Nothing is frozen, and the next pack is no snapshot.
    w.touch_file("/more").unwrap();
    w.chunks
        .seal(&*w.vfs.delta_source(), &*w.store, CutCause::Forced)
        .unwrap();
    assert!(w.vfs.snapshots().is_empty());
    w.vfs.create_snapshot("then").unwrap();
    assert_eq!(w.chunks.packs().len(), 2);
}

#[test]
fn a_tree_that_the_network_does_not_give_is_an_error_and_told() {
    let w = World::new();
    w.touch_file("/file").unwrap();
    write(&w, "/file", 0, &pattern(1, 2 * MIB));
    w.vfs.create_snapshot("then").unwrap();
    let tree = tree(&w, "then");
    let ino = tree.lookup(tree.root(), b"file").unwrap().ino;
    w.vfs.write_back_all().unwrap();
    let extents = w.vfs.extents(w.ino("/file")).unwrap();
    w.chunks.lose(extents[0].stored.unwrap());
    let error = match tree.read(ino, 0, 10).unwrap() {
        later @ crate::Later::Wait(_) => wait(later).unwrap_err(),
        _ => panic!("it has to be fetched"),
    };
    assert_eq!(error.errno(), libc::EIO);
    w.vfs.note_snapshot_error(ino, &error);
    assert!(w.vfs.errors()[0].contains("snapshot then"), "{:?}", w.vfs.errors());

    // Nor the tree itself, after its copy here is gone. What rests on the disk knows the snapshot by its number.
    w.vfs.create_snapshot("divorce").unwrap();
    let unbuilt = w.vfs.snapshot("divorce").unwrap();
    w.chunks.lose_packs();
    let Look::Wait(building) = w.vfs.look_into(&unbuilt) else {
        panic!("nobody has looked at it yet");
    };
    assert!(wait(crate::Later::Wait(building)).is_err());
    let (told, kept) = (w.vfs.errors(), w.vfs.errors_without_names());
    assert!(
        told.iter().any(|line| line.contains("the tree of snapshot divorce")),
        "{told:?}"
    );
    assert_eq!(kept.len(), told.len());
    let named = |line: &&String| line.contains("divorce") || line.contains("then");
    assert_eq!(kept.iter().find(named), None);
    assert!(
        kept.iter()
            .any(|line| line.contains(&format!("snapshot number {}", unbuilt.number))),
        "{kept:?}"
    );
}

#[test]
fn the_directory_of_snapshots_changes_with_each_also_when_the_clock_goes_back() {
    let w = World::new();
    let mtime = || w.vfs.getattr(virtual_dir::SNAPSHOTS_INO).unwrap().mtime;
    let mut seen = vec![mtime()];
    let mut moved = |when| {
        let now = mtime();
        assert!(!seen.contains(&now), "{when}: the kernel would keep its listing");
        seen.push(now);
    };
    w.vfs.create_snapshot("one").unwrap();
    moved("made");
    w.vfs.create_snapshot("two").unwrap();
    moved("another in the same tick of the clock");
    w.clock.set(Duration::from_secs(900_000_000));
    w.vfs.create_snapshot("three").unwrap();
    moved("made after the clock went back");
    w.vfs.delete_snapshot("two").unwrap();
    moved("deleted");
}

#[test]
fn closing_a_file_does_not_wait_for_a_snapshot() {
    let w = World::new();
    let flags = OpenFlags {
        read: true,
        write: true,
        ..OpenFlags::default()
    };
    let (kept, kept_fh) = w.vfs.create(ROOT_INO, b"kept", 0o644, flags, USER).unwrap();
    let (gone, gone_fh) = w.vfs.create(ROOT_INO, b"gone", 0o644, flags, USER).unwrap();
    wait(w.vfs.write(kept.ino, kept_fh, 0, b"x", false).unwrap()).unwrap();
    w.unlink("/gone").unwrap();
    w.vfs.core.marks.freeze();
    let (sender, closed) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            w.vfs.release(kept.ino, kept_fh).unwrap();
            w.vfs.release(gone.ino, gone_fh).unwrap();
            sender.send(()).unwrap();
        });
        let in_time = closed.recv_timeout(Duration::from_secs(1));
        w.vfs.core.marks.thaw();
        in_time.expect("nothing of it can be seen");
    });
    w.check();
}
