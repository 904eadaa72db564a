//! Handles and files that outlive their names.

use super::*;
use crate::records;
use cessfs_sync::MetaStore;

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
