//! Any prefix of packs is a whole tree, the one there was when its last pack was sealed: names, attributes, contents, extended
//! attributes. Replay may start at any checkpoint.

use super::*;
use crate::Later;
use crate::delta::frame::apply_delta;
use crate::fakes::bench::{pattern, wait};
use crate::records::{self, Extent};
use crate::restore::{MissingFile, finish};
use cessfs_crypto::Entropy;
use cessfs_sync::{CutCause, MetaStore};
use std::collections::BTreeMap;

const MIB: usize = 1 << 20;

/// What can be seen of a path, access times apart: attributes, content or target, extended attributes.
pub(super) type Seen = (Vec<i64>, Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>);

pub(super) fn look(w: &World) -> BTreeMap<String, Seen> {
    let mut numbers: BTreeMap<u64, i64> = BTreeMap::new();
    let mut paths = vec![String::new()];
    let mut seen = BTreeMap::new();
    while let Some(path) = paths.pop() {
        let attr = w.stat(&path);
        if attr.kind == FileKind::Directory {
            paths.extend(w.list(&path).into_iter().map(|name| format!("{path}/{name}")));
        }
        let content = match attr.kind {
            FileKind::Regular => read(w, attr.ino, attr.size),
            FileKind::Symlink => w.vfs.readlink(attr.ino).unwrap(),
            _ => Vec::new(),
        };
        let mut xattrs = BTreeMap::new();
        for name in w.vfs.listxattr(attr.ino).unwrap().split_inclusive(|byte| *byte == 0) {
            let name = &name[..name.len() - 1];
            xattrs.insert(name.to_vec(), w.vfs.getxattr(attr.ino, name).unwrap());
        }
        // Hard links: the same inode has the same number under each of its names.
        let count = numbers.len() as i64;
        let number = *numbers.entry(attr.ino).or_insert(count);
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

pub(super) fn read(w: &World, ino: u64, size: u64) -> Vec<u8> {
    let flags = OpenFlags {
        read: true,
        ..OpenFlags::default()
    };
    let fh = w.vfs.open_file(ino, flags).unwrap();
    let content = wait(w.vfs.read(ino, fh, 0, size as u32).unwrap()).unwrap().keep();
    w.vfs.release(ino, fh).unwrap();
    content
}

pub(super) fn write(w: &World, path: &str, offset: u64, bytes: &[u8]) {
    let ino = w.ino(path);
    let flags = OpenFlags {
        write: true,
        ..OpenFlags::default()
    };
    let fh = w.vfs.open_file(ino, flags).unwrap();
    let written: Later<u32> = w.vfs.write(ino, fh, offset, bytes, false).unwrap();
    assert_eq!(wait(written).unwrap() as usize, bytes.len());
    w.vfs.release(ino, fh).unwrap();
}

/// Seals the open pack; everything written before is in it if `flushed`.
pub(super) fn seal(w: &World, cause: CutCause, flushed: bool) {
    if flushed {
        w.vfs.write_back_all().unwrap();
    }
    w.chunks.seal(&*w.vfs.delta_source(), &*w.store, cause).unwrap();
}

/// The volume out of the first `packs` packs, replayed from the last checkpoint among them.
pub(super) fn restore(w: &World, causes: &[CutCause], packs: usize) -> World {
    let all = w.chunks.packs();
    let checkpoint = causes[..packs].iter().rposition(|cause| *cause == CutCause::Checkpoint);
    let store = MemStore::new();
    for pack in &all[checkpoint.unwrap_or(0)..packs] {
        apply_delta(&pack.delta, &store).unwrap();
    }
    let restored = finish(&store, &KEYS, &|_| Ok(true)).unwrap();
    assert_eq!(restored.findings, Vec::<String>::new(), "after {packs} packs");
    let restored_files = restored.files;
    let clock = Arc::new(FakeClock::new());
    let w = World::over(Arc::new(store), clock, Arc::new(scratch()), w.chunks.clone(), |_| {});
    assert_eq!(w.vfs.file_count(), restored_files);
    w
}

/// Some operation on a small set of names; refusals are part of it.
pub(super) fn step(w: &World, dice: &mut dyn FnMut(u64) -> u64) {
    let dirs = ["", "/a", "/b", "/a/c"];
    let path = |dice: &mut dyn FnMut(u64) -> u64| {
        let dir = dirs[dice(4) as usize];
        format!(
            "{}/{}",
            if w.exists(dir) { dir } else { "" },
            ["a", "b", "c", "f", "g", "h"][dice(6) as usize]
        )
    };
    let (one, two) = (path(dice), path(dice));
    let is_file = |path: &str| w.exists(path) && w.stat(path).kind == FileKind::Regular;
    // What is refused changes nothing, which the comparison would notice.
    let _refused_or_not = match dice(12) {
        0 => w.mkdir(&one).map(drop),
        1..=3 => w.touch_file(&one).map(drop),
        4 | 5 if is_file(&one) => {
            let len = [3, 100, 4000, 5000, 70_000, MIB + 77, 2 * MIB][dice(7) as usize];
            write(w, &one, dice(3) * dice(5000), &pattern(dice(1000), len));
            Ok(())
        }
        6 if is_file(&one) => {
            let set = SetAttr {
                size: Some(dice(3 * MIB as u64)),
                ..SetAttr::default()
            };
            w.vfs.setattr(w.ino(&one), set, USER).map(drop)
        }
        7 => w.rename(&one, &two),
        8 if w.exists(&one) => w.link(&one, &two).map(drop),
        9 => w.unlink(&one).or_else(|_| w.rmdir(&one)),
        10 if w.exists(&one) => {
            let value = pattern(dice(9), dice(300) as usize);
            w.vfs.setxattr(w.ino(&one), b"user.note", &value, XattrMode::Any)
        }
        11 => {
            let (dir, name) = w.split(&one);
            w.vfs.symlink(dir, name, b"somewhere", USER).map(drop)
        }
        _ => Ok(()),
    };
}

pub(super) fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut entropy = FakeEntropy::new(seed);
    move |bound| {
        let mut bytes = [0; 8];
        entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }
}

#[test]
fn every_prefix_of_packs_is_the_tree_of_its_last_seal() {
    for seed in 0..40 {
        let w = World::new();
        let mut dice = dice(seed);
        let (mut causes, mut trees) = (Vec::new(), Vec::new());
        for _ in 0..8 {
            for _ in 0..dice(12) {
                w.tick();
                step(&w, &mut dice);
            }
            let cause = [CutCause::Full, CutCause::Forced, CutCause::Checkpoint][dice(3) as usize];
            // Looking changes access times, so that there is always something to seal.
            trees.push(look(&w));
            seal(&w, cause, true);
            causes.push(cause);
        }
        for packs in 1..=causes.len() {
            let restored = restore(&w, &causes, packs);
            assert_eq!(
                look(&restored),
                trees[packs - 1],
                "seed {seed}, {packs} packs of {causes:?}"
            );
            restored.check();
        }
    }
}

#[test]
fn every_prefix_is_whole_also_when_files_are_cut_half_written() {
    for seed in 100..130 {
        let w = World::new();
        let mut dice = dice(seed);
        let mut causes = Vec::new();
        for _ in 0..10 {
            for _ in 0..dice(10) {
                w.tick();
                step(&w, &mut dice);
            }
            let cause = [CutCause::Full, CutCause::Forced, CutCause::Checkpoint][dice(3) as usize];
            let flushed = dice(3) == 0;
            seal(&w, cause, flushed);
            causes.push(cause);
        }
        let tree = look(&w);
        seal(&w, CutCause::Forced, true);
        causes.push(CutCause::Forced);
        for packs in 1..=causes.len() {
            let restored = restore(&w, &causes, packs);
            // Everything can be read.
            let found = look(&restored);
            if packs == causes.len() {
                assert_eq!(found, tree, "seed {seed}");
            }
        }
    }
}

/// The note of a clean close has a number of marks beside it. A crash while the next mount opened left that number without the
/// note, and every later crash took it for true: marks were made in generations that were cleared already, and packs were sealed
/// without metadata.
#[test]
fn a_crash_while_opening_never_keeps_later_changes_out_of_packs() {
    for kept in 0.. {
        let w = World::new();
        w.touch_file("/early").unwrap();
        seal(&w, CutCause::Forced, true);
        w.touch_file("/unsealed").unwrap();
        w.vfs.close().unwrap();
        let closed = w.store.progress().0;
        let again = |store: Arc<MemStore>| World::over(store, w.clock.clone(), w.dir.clone(), w.chunks.clone(), |_| {});
        let crash = |w: &World, batches: usize| again(Arc::new(w.store.crashed_at(batches)));
        let opened = again(w.store.clone());
        if closed + kept > opened.store.progress().0 {
            assert!(kept > 1, "opening writes something");
            return;
        }
        let lived = crash(&opened, closed + kept);
        for number in 0..4 {
            lived.touch_file(&format!("/{number}")).unwrap();
            seal(&lived, CutCause::Forced, true);
        }
        let last = crash(&lived, lived.store.progress().0);
        last.touch_file("/last").unwrap();
        seal(&last, CutCause::Forced, true);
        let packs = last.chunks.packs().len();
        let restored = restore(&last, &vec![CutCause::Forced; packs], packs);
        assert_eq!(restored.list("/"), last.list("/"), "{kept} batches of the opening");
    }
}

/// The end of a network sync: what was sealed with it is noted on the disk before anybody is told, so that a pack which is sealed
/// after a power cut, before anything could be sent again, tells no older content.
#[test]
fn no_pack_after_a_sync_tells_of_less_than_it_promised() {
    let w = World::new();
    for path in ["/quiet", "/busy"] {
        w.touch_file(path).unwrap();
        write(&w, path, 0, &pattern(1, MIB / 2));
    }
    seal(&w, CutCause::Forced, true);
    w.vfs.note_sent().unwrap();
    for path in ["/quiet", "/busy"] {
        write(&w, path, 0, &pattern(2, MIB));
    }
    w.vfs.write_back_all().unwrap();
    write(&w, "/busy", 100, b"while it is sealed");
    seal(&w, CutCause::Forced, false);
    // What anybody's fsync makes durable is everything up to here, and not that it was sealed.
    w.store.barrier().unwrap();
    w.vfs.note_sent().unwrap();
    let durable = w.store.progress().1;
    w.chunks.crash();
    let store = Arc::new(w.store.crashed_at(durable));
    let after = World::over(store, w.clock.clone(), w.dir.clone(), w.chunks.clone(), |_| {});
    for path in ["/quiet", "/busy"] {
        write(&after, path, 5000, b"after the power cut");
    }
    seal(&after, CutCause::Forced, false);
    let restored = restore(&after, &[CutCause::Forced; 3], 3);
    for path in ["/quiet", "/busy"] {
        assert!(
            read(&restored, restored.ino(path), MIB as u64) == pattern(2, MIB),
            "{path}"
        );
    }
}

#[test]
fn files_with_missing_chunks_are_named_and_the_rest_is_there() {
    let w = World::new();
    w.mkdir("/dir").unwrap();
    for (name, len) in [("/dir/whole", MIB), ("/dir/torn", 3 * MIB), ("/small", 10)] {
        w.touch_file(name).unwrap();
        write(&w, name, 0, &pattern(len as u64, len));
    }
    seal(&w, CutCause::Forced, true);
    let store = Arc::new(MemStore::new());
    apply_delta(&w.chunks.packs()[0].delta, &*store).unwrap();
    let torn = store.get(&records::extent_key(w.ino("/dir/torn"), 1)).unwrap();
    let (lost, _) = Extent::decode(&torn.unwrap()).unwrap().stored.unwrap();
    let restored = finish(&*store, &KEYS, &|id| Ok(id != lost)).unwrap();
    let missing = MissingFile {
        ino: w.ino("/dir/torn"),
        path: "dir/torn".into(),
        chunks: 3,
        missing: 1,
    };
    assert_eq!((restored.missing_files, &restored.missing), (1, &vec![missing]));
    assert_eq!(restored.files, 5);

    // The volume says so until the file is whole again.
    let chunks = w.chunks.clone();
    chunks.set_standing(lost, cessfs_sync::Standing::Unknown);
    let open = |chunks: FakeChunks| {
        let (clock, dir) = (Arc::new(FakeClock::new()), Arc::new(scratch()));
        World::over(store.clone(), clock, dir, chunks, |_| {})
    };
    let w = open(chunks.clone());
    let errors = w.vfs.errors();
    assert!(errors.len() == 1 && errors[0].contains("dir/torn"), "{errors:?}");
    w.vfs.close().unwrap();
    let w = open(chunks.clone());
    assert_eq!(w.vfs.errors().len(), 1, "it is said at every mount");
    w.unlink("/dir/torn").unwrap();
    w.vfs.close().unwrap();
    let w = open(chunks);
    assert_eq!(w.vfs.errors(), Vec::<String>::new());
}

/// What is in the trash has its number from the counter of inodes, and is deleted later than the last of them is made.
#[test]
fn numbers_in_the_trash_are_not_given_again() {
    let keeps = |config: &mut VfsConfig| config.trash_keep = Duration::from_secs(86_400);
    let w = World::on(Arc::new(MemStore::new()), keeps);
    for path in ["/first", "/second"] {
        w.touch_file(path).unwrap();
        write(&w, path, 0, b"content");
    }
    w.unlink("/first").unwrap();
    seal(&w, CutCause::Forced, true);
    let store = Arc::new(MemStore::new());
    apply_delta(&w.chunks.packs()[0].delta, &*store).unwrap();
    assert_eq!(
        finish(&*store, &KEYS, &|_| Ok(true)).unwrap().findings,
        Vec::<String>::new()
    );
    let (clock, dir) = (Arc::new(FakeClock::new()), Arc::new(scratch()));
    let w = World::over(store, clock, dir, w.chunks.clone(), keeps);
    w.unlink("/second").unwrap();
    let items = w.vfs.trash_list(0, 10).unwrap();
    let names: Vec<&[u8]> = items.iter().map(|item| &item.name[..]).collect();
    assert_eq!(names, [&b"first"[..], b"second"]);
    w.check();
}
