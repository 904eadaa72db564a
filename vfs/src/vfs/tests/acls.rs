//! Access control lists: beside the mode, inherited, and with what they do to set-gid.

use super::*;
use crate::acl::Acl;
use crate::request::AclKind;

const OWNER: u16 = 1;
const USER_TAG: u16 = 2;
const GROUP: u16 = 4;
const MASK: u16 = 16;
const OTHER: u16 = 32;

/// A list in xattr form; user entries are for uid 1001.
fn list(entries: &[(u16, u16)]) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, perm) in entries {
        let id = if *tag == USER_TAG { 1001 } else { u32::MAX };
        value.extend([tag.to_le_bytes(), perm.to_le_bytes()].concat());
        value.extend(id.to_le_bytes());
    }
    value
}

/// `u::rwx,u:1001:rw-,g::r-x,m::<mask>,o::<other>`
fn extended(mask: u16, other: u16) -> Vec<u8> {
    list(&[(OWNER, 7), (USER_TAG, 6), (GROUP, 5), (MASK, mask), (OTHER, other)])
}

impl World {
    fn set_acl(&self, ino: u64, kind: AclKind, value: &[u8]) -> Result<(), VfsError> {
        self.vfs.set_acl(ino, kind, value, &|_| true)
    }

    fn acl(&self, ino: u64, kind: AclKind) -> Option<Vec<u8>> {
        match self.vfs.getxattr(ino, kind.name()) {
            Ok(value) => Some(value),
            Err(VfsError::NoAttribute) => None,
            Err(e) => panic!("{e}"),
        }
    }

    fn chmod(&self, ino: u64, perm: u16) {
        let set = SetAttr {
            perm: Some(perm),
            ..SetAttr::default()
        };
        self.vfs.setattr(ino, set, USER).unwrap();
    }
}

#[test]
fn an_access_list_and_the_mode_agree() {
    let w = World::new();
    let f = w.touch_file("/f").unwrap().ino;
    let now = w.tick();
    w.set_acl(f, AclKind::Access, &extended(6, 1)).unwrap();
    assert_eq!((w.stat("/f").perm, w.stat("/f").ctime), (0o761, now));
    assert_eq!(w.acl(f, AclKind::Access), Some(extended(6, 1)));
    w.chmod(f, 0o740);
    assert_eq!(w.acl(f, AclKind::Access), Some(extended(4, 0)));
    assert_eq!(w.vfs.listxattr(f).unwrap(), b"system.posix_acl_access\0");
    w.check();
    let w = w.reopen();
    assert_eq!(w.acl(f, AclKind::Access), Some(extended(4, 0)));
    // What a mode says alone rests in the mode alone.
    w.set_acl(f, AclKind::Access, &list(&[(OWNER, 6), (GROUP, 0), (OTHER, 4)]))
        .unwrap();
    assert_eq!((w.stat("/f").perm, w.acl(f, AclKind::Access)), (0o604, None));
    // Removing leaves the mode, and nothing to remove is no error.
    w.set_acl(f, AclKind::Access, &extended(6, 1)).unwrap();
    w.vfs.removexattr(f, AclKind::Access.name()).unwrap();
    assert_eq!(w.stat("/f").perm, 0o761);
    w.vfs.removexattr(f, AclKind::Access.name()).unwrap();
    assert_eq!(errno(w.vfs.getxattr(f, AclKind::Access.name())), libc::ENODATA);
    // A list without entries is none.
    w.set_acl(f, AclKind::Access, &extended(6, 1)).unwrap();
    w.set_acl(f, AclKind::Access, &list(&[])).unwrap();
    w.set_acl(f, AclKind::Access, &list(&[])).unwrap();
    assert_eq!(w.acl(f, AclKind::Access), None);
    w.check();
}

#[test]
fn lists_are_refused_where_they_mean_nothing() {
    let w = World::new();
    let f = w.touch_file("/f").unwrap().ino;
    let s = w.vfs.symlink(ROOT_INO, b"s", b"f", USER).unwrap().ino;
    let set = |ino, kind, value: &[u8]| errno(w.set_acl(ino, kind, value));
    assert_eq!(set(f, AclKind::Default, &extended(7, 0)), libc::EACCES);
    assert_eq!(set(s, AclKind::Access, &extended(7, 0)), libc::EOPNOTSUPP);
    for malformed in [&b""[..], b"junk", &extended(8, 0), &extended(7, 0)[..20]] {
        assert_eq!(set(f, AclKind::Access, malformed), libc::EINVAL);
    }
    let plain = w
        .vfs
        .setxattr(f, AclKind::Access.name(), &extended(7, 0), XattrMode::Any);
    assert_eq!(errno(plain), libc::EOPNOTSUPP);
    assert_eq!(w.stat("/f").perm, 0o644);
    w.check();
}

#[test]
fn what_is_made_inherits_the_default_list() {
    let w = World::new();
    let d = w.mkdir("/d").unwrap().ino;
    w.set_acl(d, AclKind::Default, &extended(6, 0)).unwrap();
    assert_eq!(w.stat("/d").perm, 0o755, "a default list is no access list");
    let caller = Caller { umask: 0o077, ..USER };
    let (file, fh) = w.vfs.create(d, b"f", 0o666, OpenFlags::default(), caller).unwrap();
    assert_eq!(file.perm, 0o660, "the umask does not count");
    assert_eq!(
        w.acl(file.ino, AclKind::Access),
        Some(list(&[(OWNER, 6), (USER_TAG, 6), (GROUP, 5), (MASK, 6), (OTHER, 0)]))
    );
    assert_eq!(w.acl(file.ino, AclKind::Default), None);
    w.vfs.release(file.ino, fh).unwrap();
    let fifo = w.vfs.mknod(d, b"p", FileKind::Fifo, 0o644, 0, caller).unwrap();
    assert_eq!(fifo.perm, 0o640);
    assert!(w.acl(fifo.ino, AclKind::Access).is_some());
    let below = w.vfs.mkdir(d, b"e", 0o777, caller).unwrap();
    assert_eq!(below.perm, 0o760);
    assert_eq!(w.acl(below.ino, AclKind::Access), Some(extended(6, 0)));
    assert_eq!(w.acl(below.ino, AclKind::Default), Some(extended(6, 0)));
    let link = w.vfs.symlink(d, b"s", b"f", caller).unwrap();
    assert_eq!((link.perm, w.vfs.listxattr(link.ino).unwrap()), (0o777, Vec::new()));
    w.check();
    let w = w.reopen();
    assert_eq!(w.acl(below.ino, AclKind::Default), Some(extended(6, 0)));
    // A default list that says no more than a mode gives modes, and itself to directories.
    let plain = list(&[(OWNER, 7), (GROUP, 4), (OTHER, 0)]);
    w.set_acl(d, AclKind::Default, &plain).unwrap();
    let g = w.vfs.mkdir(d, b"g", 0o777, caller).unwrap();
    assert_eq!((g.perm, w.acl(g.ino, AclKind::Access)), (0o740, None));
    assert_eq!(w.acl(g.ino, AclKind::Default), Some(plain));
    w.check();
}

#[test]
fn without_a_default_list_the_umask_counts() {
    let w = World::new();
    let caller = Caller { umask: 0o027, ..USER };
    let perm = |name: &[u8], perm| w.vfs.mkdir(ROOT_INO, name, perm, caller).unwrap().perm;
    assert_eq!(perm(b"a", 0o1777), 0o1750);
    assert_eq!(w.vfs.symlink(ROOT_INO, b"s", b"a", caller).unwrap().perm, 0o777);
}

#[test]
fn an_access_list_from_outside_the_group_takes_set_gid_away() {
    let w = World::new();
    let f = w.touch_file("/f").unwrap().ino;
    for (keeps, expected) in [(true, 0o2770), (false, 0o770)] {
        w.chmod(f, 0o2700);
        let asked = std::cell::Cell::new(None);
        let may = |gid| {
            asked.set(Some(gid));
            keeps
        };
        w.vfs.set_acl(f, AclKind::Access, &extended(7, 0), &may).unwrap();
        assert_eq!((w.stat("/f").perm, asked.get()), (expected, Some(USER.gid)));
    }
}

#[test]
fn capabilities_go_with_owner_and_content() {
    let w = World::new();
    let f = w.touch_file("/f").unwrap().ino;
    let name = b"security.capability";
    for set in [
        SetAttr {
            uid: Some(5),
            ..SetAttr::default()
        },
        SetAttr {
            gid: Some(5),
            ..SetAttr::default()
        },
        SetAttr {
            size: Some(10),
            ..SetAttr::default()
        },
    ] {
        w.vfs.setxattr(f, name, b"cap", XattrMode::Any).unwrap();
        w.vfs.setattr(f, SetAttr::default(), ROOT).unwrap();
        assert_eq!(w.vfs.getxattr(f, name).unwrap(), b"cap");
        w.vfs.setattr(f, set, ROOT).unwrap();
        assert_eq!(errno(w.vfs.getxattr(f, name)), libc::ENODATA);
        w.check();
    }
}

#[test]
fn a_directory_has_no_capabilities_to_lose() {
    let w = World::new();
    let d = w.mkdir("/d").unwrap().ino;
    w.vfs
        .setxattr(d, b"security.capability", b"cap", XattrMode::Any)
        .unwrap();
    let chown = SetAttr {
        uid: Some(5),
        ..SetAttr::default()
    };
    w.vfs.setattr(d, chown, ROOT).unwrap();
    assert_eq!(w.vfs.getxattr(d, b"security.capability").unwrap(), b"cap");
    w.check();
}

#[test]
fn the_longest_list_that_the_kernel_asks_for_fits() {
    let w = World::new();
    let f = w.touch_file("/f").unwrap().ino;
    let mut entries = vec![(OWNER, 7)];
    entries.extend(std::iter::repeat_n((USER_TAG, 4), 507));
    entries.extend([(GROUP, 5), (MASK, 7), (OTHER, 0)]);
    let value = list(&entries);
    assert!(value.len() <= 4096 && Acl::parse(&value).is_ok());
    w.set_acl(f, AclKind::Access, &value).unwrap();
    assert_eq!(w.acl(f, AclKind::Access), Some(value));
    w.check();
}
