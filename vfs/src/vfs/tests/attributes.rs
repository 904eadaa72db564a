//! `setattr`, times and set-id bits.

use super::*;
use crate::attr::TimeSet;
use crate::core::AtimeRule;
use cessfs_sync::MetaStore;
use cessfs_sync::chunk_store::{NetworkRoom, TerritoryRoom};

fn set() -> SetAttr {
    SetAttr::default()
}

#[test]
fn chmod_and_chown_move_ctime_only() {
    let w = World::new();
    let f = w.touch_file("/f").unwrap();
    let now = w.tick();
    let attr = w
        .vfs
        .setattr(
            f.ino,
            SetAttr {
                perm: Some(0o170_600),
                ..set()
            },
            USER,
        )
        .unwrap();
    assert_eq!((attr.perm, attr.ctime, attr.mtime), (0o600, now, f.mtime));
    let now = w.tick();
    let attr = w
        .vfs
        .setattr(
            f.ino,
            SetAttr {
                uid: Some(1),
                gid: Some(2),
                ..set()
            },
            ROOT,
        )
        .unwrap();
    assert_eq!((attr.uid, attr.gid, attr.ctime), (1, 2, now));
    // chown(-1, -1) reaches us as nothing to set; Linux moves ctime.
    let now = w.tick();
    assert_eq!(w.vfs.setattr(f.ino, set(), ROOT).unwrap().ctime, now);
    let told = w.stat("/f");
    let w = w.reopen();
    assert_eq!(w.stat("/f"), told);
}

#[test]
fn chown_takes_set_id_bits_from_all_but_directories() {
    let w = World::new();
    let f = w.touch_file("/f").unwrap().ino;
    let chmod = |ino, perm| {
        w.vfs
            .setattr(
                ino,
                SetAttr {
                    perm: Some(perm),
                    ..set()
                },
                USER,
            )
            .unwrap()
    };
    let chown = |ino, caller| {
        w.vfs
            .setattr(ino, SetAttr { gid: Some(5), ..set() }, caller)
            .unwrap()
            .perm
    };
    for caller in [USER, ROOT] {
        chmod(f, 0o6755);
        assert_eq!(chown(f, caller), 0o755);
        // Set-gid without group execution is no privilege.
        chmod(f, 0o6744);
        assert_eq!(chown(f, caller), 0o2744);
    }
    let d = w.mkdir("/d").unwrap().ino;
    chmod(d, 0o6755);
    assert_eq!(chown(d, USER), 0o6755);
    // The kernel's own computation wins.
    chmod(f, 0o4755);
    let both = SetAttr {
        uid: Some(5),
        perm: Some(0o4711),
        ..set()
    };
    assert_eq!(w.vfs.setattr(f, both, ROOT).unwrap().perm, 0o4711);
}

#[test]
fn utimens_sets_what_it_is_told() {
    let w = World::new();
    let f = w.touch_file("/f").unwrap().ino;
    let now = w.tick();
    let past = Timestamp { secs: -5, nanos: 7 };
    let times = SetAttr {
        atime: Some(TimeSet::At(past)),
        mtime: Some(TimeSet::Now),
        ..set()
    };
    let attr = w.vfs.setattr(f, times, USER).unwrap();
    assert_eq!((attr.atime, attr.mtime, attr.ctime), (past, now, now));
    let attr = w
        .vfs
        .setattr(
            f,
            SetAttr {
                ctime: Some(past),
                ..set()
            },
            USER,
        )
        .unwrap();
    assert_eq!(attr.ctime, past);
    let w = w.reopen();
    assert_eq!(w.stat("/f").atime, past);
}

#[test]
fn sizes_belong_to_regular_files() {
    let w = World::new();
    w.mkdir("/d").unwrap();
    w.vfs.symlink(ROOT_INO, b"s", b"t", USER).unwrap();
    let size = |size| SetAttr {
        size: Some(size),
        ..set()
    };
    assert_eq!(errno(w.vfs.setattr(w.ino("/d"), size(0), USER)), libc::EISDIR);
    assert_eq!(errno(w.vfs.setattr(w.ino("/s"), size(0), USER)), libc::EINVAL);
    w.touch_file("/f").unwrap();
    assert_eq!(errno(w.vfs.setattr(w.ino("/f"), size(1 << 63), USER)), libc::EFBIG);
    let now = w.tick();
    let attr = w.vfs.setattr(w.ino("/f"), size(100), USER).unwrap();
    assert_eq!((attr.size, attr.mtime, attr.ctime), (100, now, now));
    let w = w.reopen();
    assert_eq!(w.stat("/f").size, 100);
    w.check();
}

#[test]
fn truncation_by_others_than_root_takes_set_id_bits() {
    let w = World::new();
    let f = w
        .vfs
        .mknod(ROOT_INO, b"f", FileKind::Regular, 0o6755, 0, USER)
        .unwrap()
        .ino;
    let cut = SetAttr { size: Some(0), ..set() };
    assert_eq!(w.vfs.setattr(f, cut, ROOT).unwrap().perm, 0o6755);
    assert_eq!(w.vfs.setattr(f, cut, USER).unwrap().perm, 0o755);
}

#[test]
fn atime_is_relatime_and_costs_no_batch() {
    let w = World::new();
    let s = w.vfs.symlink(ROOT_INO, b"s", b"t", USER).unwrap();
    let batches = w.store.progress().0;
    let first = w.tick();
    w.vfs.readlink(s.ino).unwrap();
    assert_eq!(w.stat("/s").atime, first);
    w.tick();
    w.vfs.readlink(s.ino).unwrap();
    assert_eq!(w.stat("/s").atime, first);
    w.clock.advance(Duration::from_secs(24 * 60 * 60));
    let late = w.tick();
    w.vfs.readlink(s.ino).unwrap();
    assert_eq!(w.stat("/s").atime, late);
    assert_eq!(w.store.progress().0, batches);
    let w = w.reopen();
    assert_eq!(w.stat("/s").atime, late);
    assert_eq!(w.stat("/s").ctime, s.ctime);
}

#[test]
fn reading_a_file_costs_no_batch_and_its_time_is_kept_at_the_end() {
    let w = World::new();
    w.touch_file("/f").unwrap();
    let ino = w.stat("/f").ino;
    let read = |write| {
        let flags = OpenFlags {
            read: true,
            write,
            ..OpenFlags::default()
        };
        let now = w.tick();
        let batches = w.store.progress().0;
        let fh = w.vfs.open_file(ino, flags).unwrap();
        w.vfs.read(ino, fh, 0, 10).unwrap();
        w.vfs.release(ino, fh).unwrap();
        (now, w.store.progress().0 - batches)
    };
    let (now, batches) = read(false);
    assert_eq!((w.stat("/f").atime, batches), (now, 0));
    w.clock.advance(Duration::from_secs(24 * 60 * 60));
    let (_, batches) = read(true);
    assert_eq!(batches, 1, "what a writer leaves may be more than an access time");
    w.clock.advance(Duration::from_secs(24 * 60 * 60));
    let (now, _) = read(false);
    assert_eq!(w.reopen().stat("/f").atime, now);
}

#[test]
fn atime_follows_the_rule_of_the_mount() {
    for (rule, directories, moves, dir_moves) in [
        (AtimeRule::Never, true, false, false),
        (AtimeRule::Relative, false, true, false),
        (AtimeRule::Always, false, true, false),
        (AtimeRule::Always, true, true, true),
    ] {
        let w = World::on(Arc::new(MemStore::new()), |config| {
            config.atime = rule;
            config.dir_atime = directories;
        });
        let s = w.vfs.symlink(ROOT_INO, b"s", b"t", USER).unwrap();
        let read = || {
            let now = w.tick();
            w.vfs.readlink(s.ino).unwrap();
            w.vfs.readdir(ROOT_INO, 0, false, &mut |_| false).unwrap();
            (w.stat("/s").atime == now, w.stat("/").atime == now)
        };
        assert_eq!(read(), (moves, dir_moves), "{rule:?}");
        let always = rule == AtimeRule::Always;
        assert_eq!(read(), (always, always && dir_moves), "{rule:?}, again");
    }
}

#[test]
fn times_of_written_content_are_journaled_with_its_fsync_or_last_close() {
    let w = World::new();
    w.touch_file("/f").unwrap();
    let ino = w.stat("/f").ino;
    let flags = OpenFlags {
        write: true,
        ..OpenFlags::default()
    };
    let fh = w.vfs.open_file(ino, flags).unwrap();
    let written_back = || {
        let batches = w.store.progress().0;
        let now = w.tick();
        let times = SetAttr {
            mtime: Some(TimeSet::At(now)),
            ctime: Some(now),
            written_back: true,
            ..set()
        };
        let attr = w.vfs.setattr(ino, times, USER).unwrap();
        assert_eq!((attr.mtime, attr.ctime), (now, now));
        assert_eq!(w.store.progress().0, batches, "the content's batch takes them along");
        now
    };
    let kept = || {
        let (_, durable) = w.store.progress();
        let crashed = World::on(Arc::new(w.store.crashed_at(durable)), |_| {});
        crashed.stat("/f").mtime
    };
    let first = written_back();
    w.vfs.fsync(ino, fh, false).unwrap();
    assert_eq!(kept(), first);
    let second = written_back();
    w.vfs.release(ino, fh).unwrap();
    w.store.barrier().unwrap();
    assert_eq!(kept(), second);
}

#[test]
fn many_lazy_times_are_journaled_together() {
    let w = World::new();
    let links = crate::limits::LAZY_INODES_MAX + 1;
    let inos: Vec<u64> = (0..links)
        .map(|i| {
            w.vfs
                .symlink(ROOT_INO, format!("{i}").as_bytes(), b"t", USER)
                .unwrap()
                .ino
        })
        .collect();
    let now = w.tick();
    let batches = w.store.progress().0;
    for ino in &inos {
        w.vfs.readlink(*ino).unwrap();
    }
    let written = w.store.progress().0 - batches;
    assert_eq!(written, links.div_ceil(crate::limits::LAZY_BATCH));
    let crashed = World::on(Arc::new(w.store.crashed_at(w.store.progress().0)), |_| {});
    for ino in inos {
        assert_eq!(crashed.vfs.getattr(ino).unwrap().atime, now);
    }
}

#[test]
fn statfs_counts_the_disk_and_the_inodes() {
    let w = World::new();
    w.touch_file("/f").unwrap();
    let told = w.vfs.statfs();
    assert!(told.blocks > 0 && told.free <= told.blocks);
    assert_eq!(told.files, 2);
    assert_eq!(told.files + told.files_free, crate::limits::INODES_MAX);
    assert_eq!(told.free, told.available);
}

#[test]
fn statfs_tells_the_territory_once_it_was_heard_of() {
    let w = World::new();
    let room = |total_bytes, free_bytes| NetworkRoom {
        territory: Some(TerritoryRoom {
            total_bytes,
            free_bytes,
        }),
        is_full: false,
    };
    w.chunks.set_room(room(1 << 30, 1 << 29));
    let told = w.vfs.statfs();
    assert_eq!((told.blocks, told.free), (1 << 18, 1 << 17));
    assert!(told.available <= told.free);
    // What is not sent yet will be there.
    w.touch_file("/f").unwrap();
    super::restored::write(&w, "/f", 0, &[1; 40 * 4096]);
    assert_eq!(w.vfs.statfs().free, (1 << 17) - 40);
    // More than the disk has cannot be written now, however large the territory is.
    w.chunks.set_room(room(1 << 60, 1 << 60));
    let told = w.vfs.statfs();
    assert!(told.free > 1 << 47 && told.available < 1 << 40, "{told:?}");
    w.chunks.set_room(room(1 << 30, 0));
    let told = w.vfs.statfs();
    assert_eq!((told.free, told.available), (0, 0));
}
