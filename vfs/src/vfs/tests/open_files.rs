//! Handles and files that outlive their names.

use super::*;
use crate::Later;
use crate::fakes::bench::wait;
use crate::records;
use cessfs_sync::MetaStore;
use std::os::unix::fs::FileExt;

const RW: OpenFlags = OpenFlags {
    read: true,
    write: true,
    append: false,
    truncate: false,
    direct: false,
    sync: false,
};

#[test]
fn handles_belong_to_their_inode() {
    let w = World::new();
    let (f, fh) = w.vfs.create(ROOT_INO, b"f", 0o644, RW, USER).unwrap();
    let g = w.touch_file("/g").unwrap().ino;
    assert_eq!(errno(w.vfs.flush(g, fh)), libc::EBADF);
    assert_eq!(errno(w.vfs.release(g, fh)), libc::EBADF);
    w.vfs.flush(f.ino, fh).unwrap();
    w.vfs.release(f.ino, fh).unwrap();
    assert_eq!(errno(w.vfs.release(f.ino, fh)), libc::EBADF);
    assert_eq!(errno(w.vfs.read(f.ino, fh, 0, 1)), libc::EBADF);
    let reader = w.open("/f", OpenFlags { write: false, ..RW }).unwrap();
    assert_eq!(errno(w.vfs.write(f.ino, reader, 0, b"x", false)), libc::EBADF);
}

#[test]
fn a_synced_write_keeps_no_event_loop_waiting_for_more_than_one_flush() {
    let w = World::new();
    let synced = OpenFlags { sync: true, ..RW };
    let (f, fh) = w.vfs.create(ROOT_INO, b"f", 0o644, synced, USER).unwrap();
    let write = |offset, bytes: &[u8]| w.vfs.write(f.ino, fh, offset, bytes, false).unwrap();
    let durable = || w.store.crashed_at(w.store.progress().1);
    let record = records::inline_key(f.ino);
    assert!(
        matches!(write(0, b"one"), Later::Ready(3)),
        "a record is in the journal alone"
    );
    assert_eq!(durable().get(&record).unwrap().as_deref(), Some(&b"one"[..]));
    // Somebody else's event loop waits for a flush.
    let elsewhere = w.vfs.syncing.lock();
    let two = write(3, b"two");
    assert!(matches!(two, Later::Block(_)));
    assert_eq!(durable().get(&record).unwrap().as_deref(), Some(&b"one"[..]));
    drop(elsewhere);
    assert_eq!(wait(two).unwrap(), 3);
    assert_eq!(durable().get(&record).unwrap().as_deref(), Some(&b"onetwo"[..]));
    // Content of a plain volume is in a file of its own, to be flushed as well.
    let more = write(10_000, b"three");
    assert!(matches!(more, Later::Block(_)));
    assert_eq!(wait(more).unwrap(), 5);
    let crashed = World::over(
        Arc::new(durable()),
        w.clock.clone(),
        w.dir.clone(),
        FakeChunks::new(),
        |_| {},
    );
    assert_eq!(crashed.stat("/f").size, 10_005);
}

#[test]
fn only_regular_files_are_opened() {
    let w = World::new();
    w.mkdir("/d").unwrap();
    w.vfs.mknod(ROOT_INO, b"p", FileKind::Fifo, 0o600, 0, USER).unwrap();
    assert_eq!(errno(w.open("/d", RW)), libc::EISDIR);
    assert_eq!(errno(w.open("/p", RW)), libc::EINVAL);
    assert_eq!(errno(w.vfs.open_file(99, RW)), libc::ESTALE);
}

#[test]
fn an_unlinked_open_file_lives_until_its_last_close() {
    let w = World::new();
    let (f, first) = w.vfs.create(ROOT_INO, b"f", 0o644, RW, USER).unwrap();
    let second = w.open("/f", RW).unwrap();
    w.vfs.setxattr(f.ino, b"user.a", b"v", XattrMode::Any).unwrap();
    w.unlink("/f").unwrap();
    w.check();
    let orphan = records::orphan_key(f.ino);
    assert!(w.store.get(&orphan).unwrap().is_some());
    assert_eq!((w.vfs.getattr(f.ino).unwrap().nlink, w.vfs.file_count()), (0, 2));
    assert_eq!(w.vfs.getxattr(f.ino, b"user.a").unwrap(), b"v");
    // It can still be opened by its number (/proc/self/fd), not linked again.
    let third = w.vfs.open_file(f.ino, RW).unwrap();
    assert_eq!(errno(w.vfs.link(f.ino, ROOT_INO, b"g")), libc::ENOENT);
    w.vfs.release(f.ino, first).unwrap();
    w.vfs.release(f.ino, third).unwrap();
    assert!(w.store.get(&orphan).unwrap().is_some());
    w.vfs.release(f.ino, second).unwrap();
    assert!(w.store.get(&orphan).unwrap().is_none());
    assert!(w.store.get(&records::inode_key(f.ino)).unwrap().is_none());
    w.check();
    assert_eq!((w.vfs.getattr(f.ino).unwrap().nlink, w.vfs.file_count()), (0, 1));
    assert_eq!(errno(w.vfs.open_file(f.ino, RW)), libc::ESTALE);
    w.vfs.forget(f.ino, 1);
    assert_eq!(errno(w.vfs.getattr(f.ino)), libc::ESTALE);
}

#[test]
fn a_replaced_open_file_lives_on_too() {
    let w = World::new();
    let (f, fh) = w.vfs.create(ROOT_INO, b"f", 0o644, RW, USER).unwrap();
    w.touch_file("/g").unwrap();
    w.rename("/g", "/f").unwrap();
    w.check();
    assert_eq!(w.vfs.getattr(f.ino).unwrap().nlink, 0);
    w.vfs.release(f.ino, fh).unwrap();
    assert_eq!(w.vfs.file_count(), 2);
    w.check();
}

#[test]
fn orphans_are_swept_when_the_volume_opens() {
    let w = World::new();
    let (f, _) = w.vfs.create(ROOT_INO, b"f", 0o644, RW, USER).unwrap();
    w.vfs.setxattr(f.ino, b"user.a", b"v", XattrMode::Any).unwrap();
    w.unlink("/f").unwrap();
    let crashed = World::on(Arc::new(w.store.crashed_at(w.store.progress().0)), |_| {});
    crashed.check();
    assert_eq!(crashed.vfs.file_count(), 1);
    assert!(crashed.store.get(&records::inode_key(f.ino)).unwrap().is_none());
    let closed = w.reopen();
    closed.check();
    assert_eq!(closed.vfs.file_count(), 1);
}

#[test]
fn opening_to_truncate_cuts_and_stamps() {
    let w = World::new();
    let f = w.touch_file("/f").unwrap().ino;
    w.vfs
        .setattr(
            f,
            SetAttr {
                size: Some(10),
                ..SetAttr::default()
            },
            USER,
        )
        .unwrap();
    let now = w.tick();
    let fh = w.open("/f", OpenFlags { truncate: true, ..RW }).unwrap();
    let attr = w.stat("/f");
    assert_eq!((attr.size, attr.mtime, attr.ctime), (0, now, now));
    w.vfs.release(f, fh).unwrap();
}

/// What must not need the network.
#[track_caller]
fn ready<T>(answer: Result<Later<T>, VfsError>) -> T {
    match answer.unwrap() {
        Later::Ready(value) => value,
        _ => panic!("it waits"),
    }
}

#[test]
fn what_is_written_is_read_until_the_last_close() {
    let w = World::new();
    let (f, fh) = w.vfs.create(ROOT_INO, b"f", 0o644, RW, USER).unwrap();
    let content: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(ready(w.vfs.write(f.ino, fh, 0, &content, false)), 20_000);
    w.unlink("/f").unwrap();
    assert_eq!(ready(w.vfs.read(f.ino, fh, 5, 10_000)).keep(), content[5..10_005]);
    assert_eq!(ready(w.vfs.write(f.ino, fh, 20_000, b"more", false)), 4);
    assert_eq!(w.vfs.getattr(f.ino).unwrap().size, 20_004);
    w.vfs.release(f.ino, fh).unwrap();
    w.check();
    // No record of content is left behind.
    for prefix in [records::EXTENT_PREFIX, records::INLINE_PREFIX] {
        assert!(w.store.scan(prefix, prefix, 1).unwrap().is_empty());
    }
}

#[test]
fn appending_goes_to_the_end_whatever_the_offset() {
    let w = World::new();
    let (f, fh) = w.vfs.create(ROOT_INO, b"f", 0o644, RW, USER).unwrap();
    ready(w.vfs.write(f.ino, fh, 0, b"one", false));
    let appender = w.open("/f", OpenFlags { append: true, ..RW }).unwrap();
    ready(w.vfs.write(f.ino, appender, 0, b"two", false));
    ready(w.vfs.write(f.ino, appender, 100, b"three", false));
    assert_eq!(ready(w.vfs.read(f.ino, fh, 0, 100)).keep(), b"onetwothree");
    // A page written back knows its place, through whichever handle it comes.
    ready(w.vfs.write_at(f.ino, appender, 3, b"TWO", false));
    assert_eq!(ready(w.vfs.read(f.ino, fh, 0, 100)).keep(), b"oneTWOthree");
}

#[test]
fn appenders_do_not_overwrite_each_other() {
    let w = World::new();
    let f = w.touch_file("/f").unwrap().ino;
    std::thread::scope(|scope| {
        for who in 0..4u8 {
            let fh = w.open("/f", OpenFlags { append: true, ..RW }).unwrap();
            let vfs = &w.vfs;
            scope.spawn(move || {
                for _ in 0..100 {
                    assert_eq!(ready(vfs.write(f, fh, 0, &[who; 50], false)), 50);
                }
                vfs.release(f, fh).unwrap();
            });
        }
    });
    let fh = w.open("/f", RW).unwrap();
    let content = ready(w.vfs.read(f, fh, 0, 30_000)).keep();
    assert_eq!(content.len(), 20_000);
    for who in 0..4u8 {
        assert_eq!(content.chunks(50).filter(|piece| **piece == [who; 50]).count(), 100);
    }
}

#[test]
fn a_write_takes_privileges_when_asked() {
    let w = World::new();
    let (f, fh) = w.vfs.create(ROOT_INO, b"f", 0o6755, RW, USER).unwrap();
    w.vfs
        .setxattr(f.ino, b"security.capability", b"cap", XattrMode::Any)
        .unwrap();
    ready(w.vfs.write(f.ino, fh, 0, b"x", false));
    assert_eq!(w.stat("/f").perm, 0o6755);
    ready(w.vfs.write(f.ino, fh, 0, b"x", true));
    assert_eq!(w.stat("/f").perm, 0o755);
    assert_eq!(errno(w.vfs.getxattr(f.ino, b"security.capability")), libc::ENODATA);
    w.vfs.release(f.ino, fh).unwrap();
    let w = w.reopen();
    assert_eq!(w.stat("/f").perm, 0o755);
}

#[test]
fn a_synced_write_survives_what_comes_after() {
    let w = World::new();
    let (f, fh) = w
        .vfs
        .create(ROOT_INO, b"f", 0o644, OpenFlags { sync: true, ..RW }, USER)
        .unwrap();
    ready(w.vfs.write(f.ino, fh, 0, b"precious", false));
    let (_, durable) = w.store.progress();
    let crashed = World::over(
        Arc::new(w.store.crashed_at(durable)),
        w.clock.clone(),
        w.dir.clone(),
        FakeChunks::new(),
        |_| {},
    );
    let fh = crashed.open("/f", RW).unwrap();
    assert_eq!(ready(crashed.vfs.read(f.ino, fh, 0, 100)).keep(), b"precious");
}

#[test]
fn reading_is_an_access_and_sizes_have_an_end() {
    let w = World::new();
    let (f, fh) = w.vfs.create(ROOT_INO, b"f", 0o644, RW, USER).unwrap();
    let now = w.tick();
    assert_eq!(ready(w.vfs.read(f.ino, fh, 0, 10)).keep(), b"");
    assert_eq!(w.stat("/f").atime, now);
    assert_eq!(errno(w.vfs.write(f.ino, fh, i64::MAX as u64, b"x", false)), libc::EFBIG);
    assert_eq!(errno(w.vfs.write(f.ino, fh, u64::MAX, b"x", false)), libc::EFBIG);
    w.vfs.release(f.ino, fh).unwrap();
    let store = Arc::new(w.store.crashed_at(w.store.progress().0));
    assert_eq!(World::on(store, |_| {}).stat("/f").atime, now);
}

/// The daemon dies while the kernel has a file of its own to write: a mount that must not change shows what is in it.
#[test]
fn what_the_kernel_wrote_before_a_kill_is_read_also_read_only() {
    let dir = Arc::new(scratch());
    let (store, clock) = (Arc::new(MemStore::new()), Arc::new(FakeClock::new()));
    let tune = |config: &mut VfsConfig| (config.passthrough, config.background) = (true, false);
    let w = World::over(store, clock.clone(), dir.clone(), FakeChunks::new(), tune);
    let (attr, opened) = w.vfs.create_through(ROOT_INO, b"f", 0o644, RW, USER).unwrap();
    let file = opened.through.expect("it was made to be handed out");
    std::os::unix::fs::FileExt::write_all_at(&*file, &[7; 100_000], 0).unwrap();
    w.vfs.fsync(attr.ino, opened.fh, false).unwrap();
    let (_, durable) = w.store.progress();
    let tune = |config: &mut VfsConfig| config.read_only = true;
    let left = Arc::new(w.store.crashed_at(durable));
    let w = World::over(left, clock, dir, FakeChunks::new(), tune);
    assert_eq!(w.stat("/f").size, 100_000);
    let fh = w.open("/f", OpenFlags { write: false, ..RW }).unwrap();
    let read = wait(w.vfs.read(attr.ino, fh, 90_000, 20_000).unwrap()).unwrap();
    assert_eq!(read.bytes(), [7; 10_000]);
    w.vfs.release(attr.ino, fh).unwrap();
    assert_eq!((w.stat("/f").size, w.store.progress().0), (100_000, durable));
}

#[test]
fn appenders_find_the_end_of_a_file_that_the_kernel_could_write_and_does_not() {
    let w = World::on(Arc::new(MemStore::new()), |config| config.passthrough = true);
    let flags = OpenFlags {
        read: true,
        write: true,
        append: true,
        ..OpenFlags::default()
    };
    let (attr, opened) = w.vfs.create_through(ROOT_INO, b"log", 0o644, flags, ROOT).unwrap();
    assert!(opened.through.is_some(), "new files pass");
    for line in ["one", "two"] {
        let written = w.vfs.write(attr.ino, opened.fh, 0, line.as_bytes(), false).unwrap();
        assert!(matches!(written, crate::Later::Ready(3)));
    }
    let Ok(crate::Later::Ready(content)) = w.vfs.read(attr.ino, opened.fh, 0, 100) else {
        panic!("nothing is absent here");
    };
    assert_eq!(content.bytes(), b"onetwo");
    w.vfs.release(attr.ino, opened.fh).unwrap();
    assert_eq!(w.stat("/log").size, 6);
}

/// A short write is for programs, which go on. The kernel takes all of its pages for written, and forgets them.
#[test]
fn pages_of_the_kernel_are_written_whole_or_it_is_told() {
    const MIB: usize = 1 << 20;
    let w = World::on(Arc::new(MemStore::new()), |config| {
        config.at_rest = AtRest::Sealed;
        config.background = false;
    });
    let (f, fh) = w.vfs.create(ROOT_INO, b"f", 0o644, RW, USER).unwrap();
    w.vfs.write(f.ino, fh, 0, &vec![7; 2 * MIB], false).unwrap();
    w.vfs.fsync(f.ino, fh, false).unwrap();
    // The first block of the second chunk, behind two tables and all of the first chunk's slots.
    let path = w.dir.path().join(format!("{:02x}/{:016x}", f.ino & 0xFF, f.ino));
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(b"damage", (2 * MIB + (32 << 10)) as u64).unwrap();
    let (at, data) = ((MIB - 4096) as u64, [8; 5000]);
    let written = w.vfs.write_at(f.ino, fh, at, &data, false);
    assert!(
        matches!(written, Ok(Later::Ready(4096))),
        "the rest cannot be read, and so not written in part"
    );
    let written = w.vfs.write_pages(f.ino, fh, at, &data, false);
    assert!(matches!(written, Err(VfsError::Damaged { .. })));
    let written = w.vfs.write_pages(f.ino, fh, at, &[9; 8192], false);
    assert!(matches!(written, Ok(Later::Ready(8192))));
}
