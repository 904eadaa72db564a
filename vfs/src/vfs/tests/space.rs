//! Allocation, holes and copies through handles: who may, what it costs in times and set-id bits.

use super::*;
use crate::Later;
use crate::fakes::bench::wait;
use crate::request::{Seek, SpaceChange};

const RW: OpenFlags = OpenFlags {
    read: true,
    write: true,
    append: false,
    truncate: false,
    direct: false,
    sync: false,
};

#[test]
fn space_changes_move_times_and_take_set_id_bits() {
    let w = World::new();
    let (f, fh) = w.vfs.create(ROOT_INO, b"f", 0o6755, RW, ROOT).unwrap();
    let space = |what, offset, len, kill_priv| {
        let changed = w.vfs.fallocate(f.ino, fh, what, false, offset, len, kill_priv);
        wait(changed?)
    };
    for what in [SpaceChange::Reserve, SpaceChange::Zero, SpaceChange::Punch] {
        let now = w.tick();
        space(what, 0, 10_000, false).unwrap();
        let attr = w.stat("/f");
        assert_eq!((attr.mtime, attr.ctime, attr.perm), (now, now, 0o6755), "{what:?}");
        assert_eq!(attr.size, 10_000);
    }
    assert_eq!(
        w.stat("/f").blocks,
        8,
        "punching leaves the reserved block that the range covers in part"
    );
    space(SpaceChange::Punch, 0, 4096, true).unwrap();
    assert_eq!(w.stat("/f").perm, 0o755);
    assert_eq!(errno(space(SpaceChange::Reserve, 5, 0, false)), libc::EINVAL);
    assert_eq!(errno(space(SpaceChange::Reserve, u64::MAX, 2, false)), libc::EFBIG);
    assert_eq!(errno(space(SpaceChange::Reserve, 0, 1 << 61, false)), libc::ENOSPC);
    let reader = w.open("/f", OpenFlags { write: false, ..RW }).unwrap();
    let refused = w.vfs.fallocate(f.ino, reader, SpaceChange::Punch, true, 0, 1, false);
    assert_eq!(errno(refused), libc::EBADF);
    assert!(w.vfs.is_open_to_write(f.ino));
    w.vfs.release(f.ino, fh).unwrap();
    assert!(!w.vfs.is_open_to_write(f.ino));
    assert_eq!(errno(w.vfs.seek(f.ino, reader, 0, Seek::Data)), libc::ENXIO);
    assert_eq!(w.vfs.seek(f.ino, reader, 5, Seek::Hole).unwrap(), 5);
    assert_eq!(errno(w.vfs.seek(f.ino, reader, 10_000, Seek::Hole)), libc::ENXIO);
    w.check();
}

#[test]
fn copies_need_one_to_read_and_one_to_write() {
    let w = World::new();
    let (a, reads) = w.vfs.create(ROOT_INO, b"a", 0o644, RW, USER).unwrap();
    let (b, writes) = w.vfs.create(ROOT_INO, b"b", 0o6755, RW, USER).unwrap();
    wait(w.vfs.write(a.ino, reads, 0, &[7; 9000], false).unwrap()).unwrap();
    let now = w.tick();
    let copy = |to_fh, offset, len, kill_priv| {
        let copied = w.vfs.copy_range(a.ino, reads, 0, b.ino, to_fh, offset, len, kill_priv);
        wait(copied?)
    };
    assert_eq!(copy(writes, 100, 0, false).unwrap(), 0);
    assert_eq!(copy(writes, 100, 9000, true).unwrap(), 9000);
    let attr = w.stat("/b");
    assert_eq!((attr.size, attr.mtime, attr.ctime, attr.perm), (9100, now, now, 0o755));
    assert_eq!(w.stat("/a").atime, now);
    let found = wait(w.vfs.read(b.ino, writes, 0, 10_000).unwrap()).unwrap().keep();
    assert_eq!(found, [vec![0; 100], vec![7; 9000]].concat());
    let reader = w.open("/b", OpenFlags { write: false, ..RW }).unwrap();
    assert_eq!(errno(copy(reader, 0, 10, false)), libc::EBADF);
    assert_eq!(errno(copy(writes, u64::MAX, 10, false)), libc::EFBIG);
    let onto_itself = w.vfs.copy_range(a.ino, reads, 0, a.ino, reads, 5, 10, false);
    assert_eq!(errno(onto_itself), libc::EINVAL);
    w.check();
}

/// A cache smaller than a pack never fills one: without this, writers would wait until the pack is old.
#[test]
fn what_fills_the_cache_is_sent_though_the_pack_is_neither_full_nor_old() {
    let small = |config: &mut VfsConfig| {
        config.cache_bytes_max = 1 << 20;
        config.background = false;
    };
    let w = World::on(Arc::new(MemStore::new()), small);
    let (f, fh) = w.vfs.create(ROOT_INO, b"f", 0o644, RW, USER).unwrap();
    let mut written = 0;
    let write = |offset: u64| {
        let chunk = vec![offset as u8; 1 << 20];
        w.vfs.write(f.ino, fh, offset << 20, &chunk, false).unwrap()
    };
    while matches!(write(written), Later::Ready(_)) {
        written += 1;
        w.clock.advance(Duration::from_secs(60));
        w.vfs.work().unwrap();
        assert!(written < 64, "nobody is held back");
    }
    assert_eq!(w.chunks.packs().len(), 1, "sealed once there was no room, not before");
    w.chunks.confirm();
    w.clock.advance(Duration::from_secs(60));
    w.vfs.work().unwrap();
    assert!(matches!(write(written), Later::Ready(_)), "there is room again");
}

#[test]
fn on_a_full_disk_nothing_is_made_and_everything_can_be_deleted() {
    let w = World::new();
    w.mkdir("/d").unwrap();
    w.touch_file("/d/a").unwrap();
    let (f, fh) = w.vfs.create(ROOT_INO, b"f", 0o644, RW, USER).unwrap();
    w.store.set_full(true);
    let reserve = |what| w.vfs.fallocate(f.ino, fh, what, true, 0, 4096, false).and_then(wait);
    for (what, refused) in [
        ("mkdir", w.mkdir("/e").map(drop)),
        ("create", w.touch_file("/d/b").map(drop)),
        ("link", w.link("/f", "/g").map(drop)),
        ("setxattr", w.vfs.setxattr(f.ino, b"user.a", b"b", XattrMode::Any)),
        ("fallocate", reserve(SpaceChange::Reserve)),
    ] {
        assert_eq!(errno(refused), libc::ENOSPC, "{what}");
    }
    reserve(SpaceChange::Punch).unwrap();
    w.rename("/d/a", "/d/b").unwrap();
    w.unlink("/d/b").unwrap();
    w.rmdir("/d").unwrap();
    w.store.set_full(false);
    w.mkdir("/e").unwrap();
    w.check();
}
