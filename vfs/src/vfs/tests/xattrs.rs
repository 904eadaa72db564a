//! Extended attributes.

use super::*;
use crate::limits::XATTRS_MAX;

fn file() -> (World, u64) {
    let w = World::new();
    let ino = w.touch_file("/f").unwrap().ino;
    (w, ino)
}

fn names(list: &[u8]) -> Vec<&[u8]> {
    let mut names: Vec<&[u8]> = list.split_inclusive(|byte| *byte == 0).collect();
    names.sort();
    names
}

#[test]
fn values_come_back_until_removed() {
    let (w, f) = file();
    assert_eq!(errno(w.vfs.getxattr(f, b"user.a")), libc::ENODATA);
    assert_eq!(w.vfs.listxattr(f).unwrap(), b"");
    let now = w.tick();
    w.vfs.setxattr(f, b"user.a", b"one", XattrMode::Any).unwrap();
    assert_eq!(w.stat("/f").ctime, now);
    w.vfs.setxattr(f, b"user.a", b"two", XattrMode::Replace).unwrap();
    w.vfs.setxattr(f, b"security.selinux", b"", XattrMode::Create).unwrap();
    w.vfs
        .setxattr(f, b"trusted.t", &[0xFF; 65_536], XattrMode::Any)
        .unwrap();
    w.check();
    let w = w.reopen();
    assert_eq!(w.vfs.getxattr(f, b"user.a").unwrap(), b"two");
    assert_eq!(w.vfs.getxattr(f, b"security.selinux").unwrap(), b"");
    assert_eq!(w.vfs.getxattr(f, b"trusted.t").unwrap(), [0xFF; 65_536]);
    let list = w.vfs.listxattr(f).unwrap();
    assert_eq!(names(&list), [&b"security.selinux\0"[..], b"trusted.t\0", b"user.a\0"]);
    let now = w.tick();
    w.vfs.removexattr(f, b"user.a").unwrap();
    assert_eq!(w.stat("/f").ctime, now);
    assert_eq!(errno(w.vfs.removexattr(f, b"user.a")), libc::ENODATA);
    assert_eq!(errno(w.vfs.getxattr(f, b"user.a")), libc::ENODATA);
    w.check();
    w.unlink("/f").unwrap();
    w.check();
}

#[test]
fn limits_and_modes_are_kept() {
    let (w, f) = file();
    let set = |name: &[u8], value: &[u8], mode| w.vfs.setxattr(f, name, value, mode);
    assert_eq!(errno(set(b"user.a", b"", XattrMode::Replace)), libc::ENODATA);
    set(b"user.a", b"", XattrMode::Create).unwrap();
    assert_eq!(errno(set(b"user.a", b"", XattrMode::Create)), libc::EEXIST);
    assert_eq!(errno(set(b"user.a", b"", XattrMode::Never)), libc::EEXIST);
    assert_eq!(errno(set(b"user.b", b"", XattrMode::Never)), libc::ENODATA);
    assert_eq!(errno(set(b"user.b", &[0; 65_537], XattrMode::Any)), libc::E2BIG);
    let long = [&b"user."[..], &[b'x'; 250]].concat();
    set(&long, b"v", XattrMode::Any).unwrap();
    assert_eq!(
        errno(set(&[&long[..], b"x"].concat(), b"v", XattrMode::Any)),
        libc::ERANGE
    );
    assert_eq!(errno(set(b"", b"v", XattrMode::Any)), libc::ERANGE);
    assert_eq!(errno(set(b"user.", b"v", XattrMode::Any)), libc::EINVAL);
    for name in [&b"system.posix_acl"[..], b"system.other", b"other.x", b"plain"] {
        assert_eq!(errno(set(name, b"v", XattrMode::Any)), libc::EOPNOTSUPP);
        assert_eq!(errno(w.vfs.getxattr(f, name)), libc::EOPNOTSUPP);
        assert_eq!(errno(w.vfs.removexattr(f, name)), libc::EOPNOTSUPP);
    }
    w.check();
}

#[test]
fn there_is_room_for_so_many() {
    let (w, f) = file();
    for i in 0..XATTRS_MAX {
        w.vfs
            .setxattr(f, format!("user.{i}").as_bytes(), b"v", XattrMode::Any)
            .unwrap();
    }
    assert_eq!(
        errno(w.vfs.setxattr(f, b"user.more", b"v", XattrMode::Any)),
        libc::ENOSPC
    );
    w.vfs.setxattr(f, b"user.0", b"changed", XattrMode::Any).unwrap();
    assert_eq!(names(&w.vfs.listxattr(f).unwrap()).len(), XATTRS_MAX as usize);
    w.check();
    w.unlink("/f").unwrap();
    w.check();
}
