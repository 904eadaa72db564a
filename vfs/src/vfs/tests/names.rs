//! Names: making, linking, moving and removing them.

use super::*;

const RW: OpenFlags = OpenFlags {
    read: true,
    write: true,
    append: false,
    truncate: false,
    direct: false,
    sync: false,
};
const EXCHANGE: RenameFlags = RenameFlags {
    no_replace: false,
    exchange: true,
    whiteout: None,
};
const NO_REPLACE: RenameFlags = RenameFlags {
    no_replace: true,
    exchange: false,
    whiteout: None,
};
const WHITEOUT: RenameFlags = RenameFlags {
    no_replace: false,
    exchange: false,
    whiteout: Some(USER),
};

#[test]
fn a_new_volume_has_a_root() {
    let w = World::on(Arc::new(MemStore::new()), |config| {
        config.root_uid = 42;
        config.root_gid = 43;
    });
    let root = w.stat("/");
    assert_eq!(
        (root.ino, root.kind, root.perm, root.nlink),
        (ROOT_INO, FileKind::Directory, 0o755, 2)
    );
    assert_eq!((root.uid, root.gid), (42, 43));
    assert_eq!(w.vfs.file_count(), 1);
    w.check();
}

#[test]
fn creation_makes_what_was_asked_for() {
    let w = World::new();
    let now = w.tick();
    let (attr, fh) = w.vfs.create(ROOT_INO, b"f", 0o4640, RW, USER).unwrap();
    assert_eq!(
        (attr.kind, attr.perm, attr.nlink, attr.uid, attr.gid),
        (FileKind::Regular, 0o4640, 1, 1000, 1000)
    );
    assert_eq!((attr.size, attr.blocks), (0, 0));
    assert_eq!([attr.atime, attr.mtime, attr.ctime, attr.btime], [now; 4]);
    w.vfs.release(attr.ino, fh).unwrap();
    let device = w
        .vfs
        .mknod(ROOT_INO, b"null", FileKind::CharDevice, 0o666, 0x103, ROOT)
        .unwrap();
    assert_eq!((device.kind, device.rdev), (FileKind::CharDevice, 0x103));
    for (name, kind) in [(b"fifo", FileKind::Fifo), (b"sock", FileKind::Socket)] {
        assert_eq!(w.vfs.mknod(ROOT_INO, name, kind, 0o600, 9, USER).unwrap().rdev, 0);
    }
    let link = w.vfs.symlink(ROOT_INO, b"s", b"../any/where", USER).unwrap();
    assert_eq!((link.kind, link.perm, link.size), (FileKind::Symlink, 0o777, 12));
    assert_eq!(w.vfs.readlink(link.ino).unwrap(), b"../any/where");
    let root = w.stat("/");
    assert_eq!((root.mtime, root.ctime, root.nlink), (now, now, 2));
    assert_eq!(w.vfs.file_count(), 6);
    assert_eq!(w.list("/"), ["f", "fifo", "null", "s", "sock"]);
    w.check();
}

#[test]
fn creation_refuses() {
    let w = World::new();
    w.touch_file("/f").unwrap();
    let f = w.ino("/f");
    assert_eq!(errno(w.touch_file("/f")), libc::EEXIST);
    assert_eq!(errno(w.mkdir("/f")), libc::EEXIST);
    assert_eq!(errno(w.vfs.mkdir(f, b"x", 0o755, USER)), libc::ENOTDIR);
    assert_eq!(errno(w.vfs.mkdir(999, b"x", 0o755, USER)), libc::ESTALE);
    for (name, want) in [
        (&b"."[..], libc::EEXIST),
        (b"..", libc::EEXIST),
        (b"", libc::ENOENT),
        (b"a/b", libc::EINVAL),
    ] {
        assert_eq!(errno(w.vfs.mkdir(ROOT_INO, name, 0o755, USER)), want);
    }
    assert!(w.vfs.mkdir(ROOT_INO, &[b'n'; 255], 0o755, USER).is_ok());
    assert_eq!(
        errno(w.vfs.mkdir(ROOT_INO, &[b'n'; 256], 0o755, USER)),
        libc::ENAMETOOLONG
    );
    assert_eq!(errno(w.vfs.lookup(ROOT_INO, &[b'n'; 256])), libc::ENAMETOOLONG);
    assert_eq!(
        errno(w.vfs.symlink(ROOT_INO, b"l", &[b't'; 4096], USER)),
        libc::ENAMETOOLONG
    );
    assert!(w.vfs.symlink(ROOT_INO, b"l", &[b't'; 4095], USER).is_ok());
    assert_eq!(errno(w.vfs.symlink(ROOT_INO, b"e", b"", USER)), libc::ENOENT);
    assert_eq!(
        errno(w.vfs.mknod(ROOT_INO, b"d", FileKind::Directory, 0o755, 0, USER)),
        libc::EINVAL
    );
    w.check();
}

#[test]
fn links_of_directories_count_subdirectories() {
    let w = World::new();
    w.mkdir("/a").unwrap();
    w.mkdir("/a/b").unwrap();
    w.mkdir("/a/c").unwrap();
    w.touch_file("/a/f").unwrap();
    assert_eq!((w.stat("/").nlink, w.stat("/a").nlink, w.stat("/a/b").nlink), (3, 4, 2));
    w.rmdir("/a/b").unwrap();
    assert_eq!(w.stat("/a").nlink, 3);
    w.rename("/a/c", "/c").unwrap();
    assert_eq!((w.stat("/").nlink, w.stat("/a").nlink), (4, 2));
    w.check();
}

#[test]
fn set_gid_directories_hand_their_group_down() {
    let w = World::new();
    w.vfs
        .mkdir(ROOT_INO, b"shared", 0o2775, Caller { gid: 50, ..USER })
        .unwrap();
    let sub = w.mkdir("/shared/sub").unwrap();
    assert_eq!((sub.gid, sub.perm), (50, 0o2755));
    let file = w.touch_file("/shared/f").unwrap();
    assert_eq!((file.gid, file.perm), (50, 0o644));
    assert_eq!(w.touch_file("/shared/sub/f").unwrap().gid, 50);
    assert_eq!(w.touch_file("/f").unwrap().gid, 1000);
}

#[test]
fn lookup_finds_and_forget_forgets() {
    let w = World::new();
    w.mkdir("/d").unwrap();
    let f = w.touch_file("/d/f").unwrap().ino;
    let d = w.ino("/d");
    assert_eq!(w.vfs.lookup(d, b"f").unwrap().ino, f);
    assert_eq!(w.vfs.lookup(d, b".").unwrap().ino, d);
    assert_eq!(w.vfs.lookup(d, b"..").unwrap().ino, ROOT_INO);
    assert_eq!(w.vfs.lookup(ROOT_INO, b"..").unwrap().ino, ROOT_INO);
    assert_eq!(errno(w.vfs.lookup(d, b"g")), libc::ENOENT);
    assert_eq!(errno(w.vfs.lookup(f, b"x")), libc::ENOTDIR);
    w.unlink("/d/f").unwrap();
    assert_eq!(errno(w.vfs.lookup(d, b"f")), libc::ENOENT);
    // Made and looked up: two references. `fstat` of an O_PATH handle answers until both are gone.
    w.vfs.forget(f, 1);
    assert_eq!(w.vfs.getattr(f).unwrap().nlink, 0);
    w.vfs.forget(f, 1);
    assert_eq!(errno(w.vfs.getattr(f)), libc::ESTALE);
    w.vfs.forget(12345, 1);
    w.check();
}

#[test]
fn a_number_is_found_while_it_has_a_name() {
    let w = World::new();
    let f = w.touch_file("/f").unwrap().ino;
    w.vfs.forget(f, 1);
    assert_eq!(w.vfs.lookup(f, b".").unwrap().ino, f);
    assert_eq!(errno(w.vfs.lookup(f, b"..")), libc::ENOTDIR);
    w.unlink("/f").unwrap();
    assert_eq!(errno(w.vfs.lookup(f, b".")), libc::ENOENT, "the kernel remembers it");
    w.vfs.forget(f, 1);
    assert_eq!(errno(w.vfs.lookup(f, b".")), libc::ESTALE);
}

#[test]
fn unlink_takes_one_name() {
    let w = World::new();
    w.mkdir("/d").unwrap();
    w.touch_file("/f").unwrap();
    w.link("/f", "/d/g").unwrap();
    assert_eq!(w.stat("/f").nlink, 2);
    let now = w.tick();
    w.unlink("/f").unwrap();
    let g = w.stat("/d/g");
    assert_eq!((g.nlink, g.ctime), (1, now));
    assert!(g.mtime < now);
    assert_eq!((w.stat("/").mtime, w.stat("/").ctime), (now, now));
    assert_eq!(errno(w.unlink("/f")), libc::ENOENT);
    assert_eq!(errno(w.unlink("/d")), libc::EISDIR);
    assert_eq!(errno(w.vfs.unlink(ROOT_INO, b".")), libc::EISDIR);
    w.unlink("/d/g").unwrap();
    assert_eq!(w.vfs.file_count(), 2);
    w.check();
}

#[test]
fn rmdir_wants_an_empty_directory() {
    let w = World::new();
    w.mkdir("/d").unwrap();
    w.touch_file("/d/f").unwrap();
    assert_eq!(errno(w.rmdir("/d")), libc::ENOTEMPTY);
    assert_eq!(errno(w.rmdir("/d/f")), libc::ENOTDIR);
    assert_eq!(errno(w.rmdir("/x")), libc::ENOENT);
    assert_eq!(errno(w.vfs.rmdir(w.ino("/d"), b".")), libc::EINVAL);
    assert_eq!(errno(w.vfs.rmdir(w.ino("/d"), b"..")), libc::ENOTEMPTY);
    w.unlink("/d/f").unwrap();
    let d = w.ino("/d");
    w.rmdir("/d").unwrap();
    // Somebody may still stand in it: nothing can be made there, its times still can be set.
    assert_eq!(errno(w.vfs.mkdir(d, b"x", 0o755, USER)), libc::ENOENT);
    assert_eq!(errno(w.vfs.readdir(d, 0, false, &mut |_| false)), libc::ENOENT);
    let set = SetAttr {
        perm: Some(0o700),
        ..SetAttr::default()
    };
    assert_eq!(w.vfs.setattr(d, set, USER).unwrap().perm, 0o700);
    assert_eq!(w.vfs.getattr(d).unwrap().nlink, 0);
    w.check();
}

#[test]
fn link_refuses() {
    let w = World::new();
    w.mkdir("/d").unwrap();
    w.touch_file("/f").unwrap();
    assert_eq!(errno(w.link("/d", "/e")), libc::EPERM);
    assert_eq!(errno(w.link("/f", "/d")), libc::EEXIST);
    assert_eq!(errno(w.vfs.link(w.ino("/f"), w.ino("/f"), b"x")), libc::ENOTDIR);
    let f = w.ino("/f");
    w.vfs.inode(f).unwrap().state.write().record.nlink = crate::limits::NLINK_MAX;
    assert_eq!(errno(w.link("/f", "/g")), libc::EMLINK);
    w.vfs.inode(f).unwrap().state.write().record.nlink = 1;
    w.unlink("/f").unwrap();
    assert_eq!(errno(w.vfs.link(f, ROOT_INO, b"g")), libc::ENOENT);
    w.check();
}

#[test]
fn rename_moves_and_replaces() {
    let w = World::new();
    for dir in ["/a", "/b", "/a/sub", "/b/empty"] {
        w.mkdir(dir).unwrap();
    }
    let f = w.touch_file("/a/f").unwrap().ino;
    w.touch_file("/b/g").unwrap();
    let now = w.tick();
    w.rename("/a/f", "/b/g").unwrap();
    assert!(!w.exists("/a/f"));
    assert_eq!(w.stat("/b/g").ino, f);
    assert_eq!(w.stat("/b/g").ctime, now);
    for dir in ["/a", "/b"] {
        assert_eq!((w.stat(dir).mtime, w.stat(dir).ctime), (now, now));
    }
    let sub = w.ino("/a/sub");
    w.rename("/a/sub", "/b/empty").unwrap();
    assert_eq!(w.ino("/b/empty"), sub);
    assert_eq!(w.ino("/b/empty/.."), w.ino("/b"));
    assert_eq!((w.stat("/a").nlink, w.stat("/b").nlink), (2, 3));
    w.rename("/b/g", "/b/h").unwrap();
    assert_eq!(w.list("/b"), ["empty", "h"]);
    assert_eq!(w.vfs.file_count(), 5);
    w.check();
}

#[test]
fn rename_refuses() {
    let w = World::new();
    for dir in ["/a", "/a/b", "/a/b/c", "/e"] {
        w.mkdir(dir).unwrap();
    }
    w.touch_file("/f").unwrap();
    for (from, to, want) in [
        ("/x", "/y", libc::ENOENT),
        ("/a", "/f", libc::ENOTDIR),
        ("/f", "/e", libc::EISDIR),
        ("/e", "/a", libc::ENOTEMPTY),
        ("/a", "/a/b/x", libc::EINVAL),
        ("/a", "/a/b", libc::EINVAL),
        ("/a/b/c", "/a", libc::ENOTEMPTY),
        ("/a/b/c", "/a/b", libc::ENOTEMPTY),
    ] {
        assert_eq!(errno(w.rename(from, to)), want, "{from} -> {to}");
    }
    assert_eq!(
        errno(w.vfs.rename(ROOT_INO, b"a", ROOT_INO, b"..", RenameFlags::default())),
        libc::EBUSY
    );
    assert_eq!(errno(w.rename_with("/a", "/a/b/c", EXCHANGE)), libc::EINVAL);
    assert_eq!(errno(w.rename_with("/a/b/c", "/a", EXCHANGE)), libc::EINVAL);
    assert_eq!(errno(w.rename_with("/f", "/x", EXCHANGE)), libc::ENOENT);
    assert_eq!(errno(w.rename_with("/f", "/e", NO_REPLACE)), libc::EEXIST);
    assert_eq!(errno(w.rename_with("/f", "/f", NO_REPLACE)), libc::EEXIST);
    let both = RenameFlags {
        exchange: true,
        ..NO_REPLACE
    };
    assert_eq!(errno(w.rename_with("/f", "/e", both)), libc::EINVAL);
    w.check();
}

#[test]
fn rename_onto_another_name_of_the_same_inode_does_nothing() {
    let w = World::new();
    w.touch_file("/f").unwrap();
    w.link("/f", "/g").unwrap();
    let before = w.stat("/f");
    w.tick();
    w.rename("/f", "/g").unwrap();
    w.rename("/f", "/f").unwrap();
    assert_eq!(w.list("/"), ["f", "g"]);
    assert_eq!(w.stat("/f"), before);
}

#[test]
fn exchange_swaps() {
    let w = World::new();
    for dir in ["/a", "/b", "/a/d"] {
        w.mkdir(dir).unwrap();
    }
    w.touch_file("/a/d/inner").unwrap();
    w.touch_file("/b/f").unwrap();
    let (d, f) = (w.ino("/a/d"), w.ino("/b/f"));
    let now = w.tick();
    w.rename_with("/a/d", "/b/f", EXCHANGE).unwrap();
    assert_eq!((w.ino("/a/d"), w.ino("/b/f")), (f, d));
    assert!(w.exists("/b/f/inner"));
    assert_eq!((w.stat("/a").nlink, w.stat("/b").nlink), (2, 3));
    assert_eq!(
        (w.stat("/a/d").ctime, w.stat("/b/f").ctime, w.stat("/a").mtime),
        (now, now, now)
    );
    w.check();
}

#[test]
fn whiteout_leaves_a_mark() {
    let w = World::new();
    w.touch_file("/f").unwrap();
    w.rename_with("/f", "/g", WHITEOUT).unwrap();
    let mark = w.stat("/f");
    assert_eq!((mark.kind, mark.rdev, mark.perm), (FileKind::CharDevice, 0, 0));
    assert_eq!((mark.uid, mark.gid), (USER.uid, USER.gid));
    assert_eq!(w.stat("/g").kind, FileKind::Regular);
    assert_eq!(w.vfs.file_count(), 3);
    let grouped = SetAttr {
        perm: Some(0o2775),
        gid: Some(USER.gid + 1),
        ..SetAttr::default()
    };
    w.vfs.setattr(ROOT_INO, grouped, USER).unwrap();
    w.rename_with("/g", "/h", WHITEOUT).unwrap();
    assert_eq!(w.stat("/g").gid, USER.gid + 1, "a directory's group");
    w.check();
}

#[test]
fn a_read_only_volume_refuses_every_change() {
    let w = World::new();
    w.touch_file("/f").unwrap();
    w.vfs.close().unwrap();
    let before = w.store.progress();
    let w = World::on(w.store.clone(), |config| config.read_only = true);
    let f = w.ino("/f");
    let results = [
        errno(w.mkdir("/d")),
        errno(w.touch_file("/g")),
        errno(w.unlink("/f")),
        errno(w.rmdir("/f")),
        errno(w.link("/f", "/g")),
        errno(w.rename("/f", "/g")),
        errno(w.vfs.symlink(ROOT_INO, b"s", b"t", USER)),
        errno(w.vfs.setattr(f, SetAttr::default(), USER)),
        errno(w.vfs.setxattr(f, b"user.a", b"", XattrMode::Any)),
        errno(w.vfs.removexattr(f, b"user.a")),
        errno(w.open("/f", RW)),
    ];
    assert_eq!(results, [libc::EROFS; 11]);
    assert_eq!(w.vfs.lookup(ROOT_INO, b"f").unwrap().ino, f);
    w.vfs.close().unwrap();
    assert_eq!(w.store.progress(), before);
}

#[test]
fn resolve_walks_absolute_paths() {
    let w = World::new();
    w.mkdir("/a").unwrap();
    w.touch_file("/a/f").unwrap();
    assert_eq!(w.ino("//a/./../a//f"), w.ino("/a/f"));
    assert_eq!(w.ino("/../.."), ROOT_INO);
    assert_eq!(errno(w.vfs.resolve(b"/a/f/x")), libc::ENOTDIR);
    assert_eq!(errno(w.vfs.resolve(b"/a/g")), libc::ENOENT);
}
