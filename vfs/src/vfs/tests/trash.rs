//! The trash: what goes there, what comes back, and what goes for good.

use super::*;
use crate::data::room::ROOM;
use crate::trash::TrashSize;
use cessfs_sync::chunk_store::NetworkRoom;

const DAY: Duration = Duration::from_secs(86_400);

const READ_WRITE: OpenFlags = OpenFlags {
    read: true,
    write: true,
    append: false,
    truncate: false,
    direct: false,
    sync: false,
};

/// A volume with a trash of one day, for files of a minute.
fn world() -> World {
    World::on(Arc::new(MemStore::new()), keeps)
}

fn keeps(config: &mut VfsConfig) {
    config.trash_keep = DAY;
    config.trash_min_age = Duration::from_secs(60);
}

impl World {
    fn file(&self, path: &str, content: &[u8]) -> u64 {
        let ino = self.touch_file(path).unwrap().ino;
        let fh = self.open(path, READ_WRITE).unwrap();
        assert!(matches!(
            self.vfs.write(ino, fh, 0, content, false).unwrap(),
            crate::Later::Ready(_)
        ));
        self.vfs.release(ino, fh).unwrap();
        self.vfs.forget(ino, 1);
        ino
    }

    fn content(&self, path: &str) -> Vec<u8> {
        let ino = self.ino(path);
        let fh = self.open(path, READ_WRITE).unwrap();
        let read = self.vfs.read(ino, fh, 0, 1 << 20).unwrap();
        self.vfs.release(ino, fh).unwrap();
        match read {
            crate::Later::Ready(content) => content.keep(),
            _ => panic!("nothing is absent here"),
        }
    }

    fn age(&self) {
        self.clock.advance(Duration::from_secs(61));
    }

    fn trash_dir(&self) -> u64 {
        let top = self.vfs.lookup(ROOT_INO, b".cessfs").unwrap();
        self.vfs.lookup(top.ino, b"trash").unwrap().ino
    }

    /// Names in the trash's directory.
    fn trash_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut fill = |entry: DirEntry<'_>| {
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            false
        };
        self.vfs.readdir(self.trash_dir(), 2, false, &mut fill).unwrap();
        names
    }

    fn restore(&self, entry: &str, to: &str) -> Result<(), VfsError> {
        let (dir, name) = self.split(to);
        self.vfs
            .rename(self.trash_dir(), entry.as_bytes(), dir, name, RenameFlags::default())
    }
}

#[test]
fn an_old_file_with_content_goes_there_and_comes_back() {
    let w = world();
    w.mkdir("/d").unwrap();
    let ino = w.file("/d/cat", b"purr");
    w.age();
    w.unlink("/d/cat").unwrap();
    assert!(!w.exists("/d/cat"));
    assert_eq!(w.vfs.getattr(ino).unwrap().nlink, 0);
    assert_eq!(w.vfs.trash_size(), TrashSize { files: 1, blocks: 1 });
    w.rmdir("/d").expect("the trash keeps no directory from going");
    let item = w.vfs.trash_list(0, 10).unwrap().remove(0);
    assert_eq!((item.ino, item.size, &item.name[..]), (ino, 4, &b"cat"[..]));
    assert_eq!(item.dir.as_deref(), Some(&b"/d"[..]));
    assert_eq!(w.trash_names(), [format!("{}.cat", item.id)]);
    w.check();
    let w = {
        w.vfs.close().unwrap();
        World::over(w.store.clone(), w.clock.clone(), w.dir.clone(), w.chunks.clone(), keeps)
    };
    assert_eq!(w.vfs.trash_size().files, 1, "it outlives the mount");
    w.restore(&format!("{}.cat", item.id), "/cat").unwrap();
    assert_eq!((w.content("/cat"), w.stat("/cat").nlink), (b"purr".to_vec(), 1));
    assert_eq!(w.vfs.trash_size(), TrashSize::default());
    assert!(w.trash_names().is_empty());
    w.check();
}

#[test]
fn what_goes_for_good_at_once() {
    let w = world();
    w.file("/young", b"x");
    w.unlink("/young").unwrap();
    w.touch_file("/empty").unwrap();
    w.mkdir("/dir").unwrap();
    w.vfs.symlink(ROOT_INO, b"link", b"target", USER).unwrap();
    w.file("/linked", b"x");
    w.link("/linked", "/other").unwrap();
    w.age();
    for path in ["/empty", "/link", "/linked"] {
        w.unlink(path).unwrap();
    }
    w.rmdir("/dir").unwrap();
    assert_eq!(w.vfs.trash_size(), TrashSize::default());
    w.unlink("/other").unwrap();
    assert_eq!(w.vfs.trash_size().files, 1, "the last name");
    let off = World::new();
    off.file("/f", b"x");
    off.age();
    off.unlink("/f").unwrap();
    assert_eq!(off.vfs.trash_size(), TrashSize::default());
}

#[test]
fn what_a_rename_replaces_goes_there() {
    let w = world();
    w.file("/doc", b"old");
    w.age();
    w.file("/doc.new", b"new");
    w.rename("/doc.new", "/doc").unwrap();
    assert_eq!(w.content("/doc"), b"new");
    let item = w.vfs.trash_list(0, 10).unwrap().remove(0);
    let entry = format!("{}.doc", item.id);
    assert_eq!(errno(w.restore(&entry, "/doc")), libc::EEXIST);
    w.restore(&entry, "/doc.old").unwrap();
    assert_eq!(w.content("/doc.old"), b"old");
    // The next save finds a young file: no version of it is kept.
    w.file("/doc.new", b"newer");
    w.rename("/doc.new", "/doc").unwrap();
    assert_eq!(w.vfs.trash_size().files, 0);
    w.check();
}

#[test]
fn an_open_file_stays_open_in_the_trash_and_after_it() {
    let w = world();
    let ino = w.file("/f", b"before");
    w.age();
    let fh = w.open("/f", READ_WRITE).unwrap();
    w.unlink("/f").unwrap();
    assert_eq!(w.vfs.getattr(ino).unwrap().nlink, 0, "as fstat tells it");
    assert!(matches!(
        w.vfs.write(ino, fh, 0, b"after!", false).unwrap(),
        crate::Later::Ready(6)
    ));
    w.check();
    let id = w.vfs.trash_list(0, 1).unwrap()[0].id;
    assert!(w.vfs.trash_purge(id).unwrap());
    w.check();
    assert!(
        matches!(w.vfs.read(ino, fh, 0, 10).unwrap(), crate::Later::Ready(content) if content.bytes() == b"after!")
    );
    w.vfs.release(ino, fh).unwrap();
    assert_eq!(errno(w.vfs.open_file(ino, READ_WRITE)), libc::ESTALE);
    w.check();
    // Closed while it is in the trash, it stays there.
    let ino = w.file("/g", b"kept");
    w.age();
    let fh = w.open("/g", READ_WRITE).unwrap();
    w.unlink("/g").unwrap();
    w.vfs.release(ino, fh).unwrap();
    assert_eq!(w.vfs.trash_size().files, 1);
    w.check();
}

#[test]
fn it_empties_itself_in_time_and_the_oldest_first_for_room() {
    let w = world();
    for (i, path) in ["/a", "/b", "/c"].into_iter().enumerate() {
        w.file(path, b"x");
        w.age();
        w.unlink(path).unwrap();
        w.clock.advance(Duration::from_secs(3600 * (i as u64 + 1)));
    }
    let names = |w: &World| -> Vec<Vec<u8>> {
        w.vfs
            .trash_list(0, 10)
            .unwrap()
            .into_iter()
            .map(|item| item.name)
            .collect()
    };
    assert_eq!(names(&w), [b"a", b"b", b"c"]);
    assert_eq!(w.vfs.trash_give_way(1).unwrap(), 1);
    assert_eq!(names(&w), [b"b", b"c"]);
    // The background may be faster than the test.
    w.clock.advance(DAY - Duration::from_secs(3600 * 4));
    while w.vfs.sweep_trash().unwrap() {}
    assert_eq!(names(&w), [b"c"]);
    w.clock.advance(DAY);
    while w.vfs.sweep_trash().unwrap() {}
    assert!(names(&w).is_empty());
    w.check();
}

/// What the network has is kept for who reads it again; of what is in the trash there will be no other copy.
#[test]
fn what_the_network_has_gives_way_before_it() {
    let w = World::on(Arc::new(MemStore::new()), |config| {
        keeps(config);
        config.background = false;
    });
    w.file("/deleted", &[7; 100_000]);
    w.age();
    w.unlink("/deleted").unwrap();
    let send = |name: u8| {
        w.file(&format!("/{name}"), &vec![name; 1 << 20]);
        restored::seal(&w, cessfs_sync::CutCause::Forced, true);
        w.chunks.confirm();
    };
    (0..5).for_each(send);
    ROOM.set(Some(5 << 20));
    while w.vfs.sweep_trash().unwrap() {}
    assert_eq!(w.vfs.trash_size().files, 1);
    assert!(w.vfs.cache_bytes() < 3 << 20, "{}", w.vfs.cache_bytes());
    // Nor does a write that finds no room take it.
    (5..20).for_each(send);
    assert_eq!(w.vfs.trash_size().files, 1);
    ROOM.set(None);
    w.check();
}

#[test]
fn it_gives_way_to_a_full_territory_as_far_as_is_wanted() {
    let w = world();
    for i in 0..20 {
        w.file(&format!("/{i}"), &[7; 3 * 4096]);
    }
    w.age();
    for i in 0..20 {
        w.unlink(&format!("/{i}")).unwrap();
    }
    while w.vfs.sweep_trash().unwrap() {}
    assert_eq!(w.vfs.trash_size().files, 20);
    w.evict();
    w.file("/new", &[8; 10 * 4096]);
    let wanted = w.vfs.dirty_bytes() + w.vfs.core.chunks.backlog().unsent_bytes;
    assert!((40_960..100_000).contains(&wanted), "{wanted}");
    w.chunks.set_room(NetworkRoom {
        territory: None,
        is_full: true,
    });
    while w.vfs.sweep_trash().unwrap() {}
    let left = 20 - wanted.div_ceil(3 * 4096);
    // The background sweeps, too: both may find that something is owed.
    let after = w.vfs.trash_size().files;
    assert!(
        (left - 1..=left).contains(&after),
        "{after} of 20 are left, {wanted} bytes are wanted"
    );
    // Full still, for the network has not been told to delete: it waits. Full again later: it gives way again.
    while w.vfs.sweep_trash().unwrap() {}
    assert_eq!(w.vfs.trash_size().files, after);
    w.chunks.set_room(NetworkRoom::default());
    while w.vfs.sweep_trash().unwrap() {}
    w.chunks.set_room(NetworkRoom {
        territory: None,
        is_full: true,
    });
    while w.vfs.sweep_trash().unwrap() {}
    assert!(w.vfs.trash_size().files < after);
    w.check();
}

#[test]
fn its_directory_is_found_by_name_only_and_takes_nothing() {
    let w = world();
    w.file("/f", b"x");
    assert_eq!(w.list("/"), ["f"]);
    let top = w.vfs.lookup(ROOT_INO, b".cessfs").unwrap();
    assert!(crate::is_virtual(top.ino));
    for (parent, name) in [(ROOT_INO, &b".cessfs"[..]), (top.ino, b"x"), (w.trash_dir(), b"x")] {
        assert_eq!(errno(w.vfs.mkdir(parent, name, 0o755, ROOT)), libc::EPERM);
        assert_eq!(errno(w.vfs.link(w.ino("/f"), parent, name)), libc::EPERM);
        assert_eq!(
            errno(w.vfs.rename(ROOT_INO, b"f", parent, name, RenameFlags::default())),
            libc::EPERM
        );
    }
    assert_eq!(errno(w.vfs.rmdir(ROOT_INO, b".cessfs")), libc::EPERM);
    assert_eq!(errno(w.vfs.rmdir(top.ino, b"trash")), libc::EPERM);
    assert_eq!(errno(w.vfs.unlink(top.ino, b"trash")), libc::EPERM);
    assert_eq!(errno(w.vfs.lookup(top.ino, b"other")), libc::ENOENT);
    assert_eq!(errno(w.vfs.setattr(top.ino, SetAttr::default(), ROOT)), libc::EPERM);
    assert_eq!(w.vfs.getattr(w.trash_dir()).unwrap().perm, 0o700);
    w.vfs.forget(top.ino, 5);
}

#[test]
fn entries_are_looked_up_listed_in_portions_and_removed_for_good() {
    let w = world();
    for i in 0..20 {
        w.file(&format!("/{i}"), b"x");
    }
    w.age();
    for i in 0..20 {
        w.unlink(&format!("/{i}")).unwrap();
    }
    let dir = w.trash_dir();
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        let (from, mut taken) = (cookie, 0);
        let mut fill = |entry: DirEntry<'_>| {
            if taken == 3 {
                return true;
            }
            taken += 1;
            cookie = entry.cookie;
            names.push(entry.name.to_vec());
            false
        };
        w.vfs.readdir(dir, from, true, &mut fill).unwrap();
        if taken == 0 {
            break;
        }
    }
    assert_eq!(names.len(), 22);
    let changed = w.vfs.getattr(dir).unwrap().mtime;
    assert_eq!(w.vfs.lookup(dir, &names[2]).unwrap().size, 1);
    w.vfs.unlink(dir, &names[2]).unwrap();
    assert_eq!(errno(w.vfs.lookup(dir, &names[2])), libc::ENOENT);
    assert_eq!(errno(w.vfs.unlink(dir, &names[2])), libc::ENOENT);
    assert!(
        w.vfs.getattr(dir).unwrap().mtime > changed,
        "so that the kernel lists it anew"
    );
    assert_eq!(w.vfs.trash_size().files, 19);
    w.check();
}

#[test]
fn it_counts_for_no_quota_until_it_is_back() {
    let w = world();
    w.mkdir("/t").unwrap();
    w.file("/t/f", &[7; 5000]);
    w.vfs.set_quota(w.ino("/t"), 2 * 4096, 0).unwrap();
    w.age();
    w.unlink("/t/f").unwrap();
    assert_eq!(w.vfs.quota_of(w.ino("/t")).unwrap().unwrap().used.blocks, 0);
    w.file("/t/g", &[7; 100]);
    let entry = w.trash_names().remove(0);
    assert_eq!(errno(w.restore(&entry, "/t/f")), libc::EDQUOT);
    assert_eq!(w.trash_names(), std::slice::from_ref(&entry));
    w.unlink("/t/g").unwrap();
    w.restore(&entry, "/t/f").unwrap();
    assert_eq!(w.vfs.quota_of(w.ino("/t")).unwrap().unwrap().used.blocks, 2);
    w.check();
}

#[test]
fn a_crash_at_any_record_leaves_trash_and_tree_whole() {
    let w = world();
    w.mkdir("/d").unwrap();
    w.file("/d/a", &[7; 5000]);
    w.file("/b", b"small");
    w.age();
    let fh = w.open("/b", READ_WRITE).unwrap();
    let b = w.ino("/b");
    w.unlink("/d/a").unwrap();
    w.unlink("/b").unwrap();
    let items = w.vfs.trash_list(0, 10).unwrap();
    w.restore(&String::from_utf8(items[0].entry_name()).unwrap(), "/back")
        .unwrap();
    w.vfs.trash_purge(items[1].id).unwrap();
    w.vfs.release(b, fh).unwrap();
    let (batches, _) = w.store.progress();
    for kept in 0..=batches {
        let crashed = World::on(Arc::new(w.store.crashed_at(kept)), keeps);
        crashed.check();
        let listed = crashed.vfs.trash_list(0, 10).unwrap().len() as u64;
        assert_eq!(
            crashed.vfs.trash_size().files,
            listed,
            "after {kept} of {batches} batches"
        );
    }
}

#[test]
fn it_travels_with_the_delta() {
    let w = world();
    w.file("/f", b"content");
    w.age();
    w.unlink("/f").unwrap();
    w.mkdir("/t").unwrap();
    w.vfs.set_quota(w.ino("/t"), 4096, 9).unwrap();
    let chunks = FakeChunks::new();
    let source = w.vfs.delta_source();
    chunks.seal(&*source, &*w.store, cessfs_sync::CutCause::Forced).unwrap();
    let restored = Arc::new(MemStore::new());
    for pack in chunks.packs() {
        crate::delta::frame::apply_delta(&pack.delta, &*restored).unwrap();
    }
    let there = World::on(restored, keeps);
    there.check();
    assert_eq!(there.vfs.trash_list(0, 10).unwrap().len(), 1);
    let entry = there.trash_names().remove(0);
    there.restore(&entry, "/f").unwrap();
    assert_eq!(there.content("/f"), b"content");
    let report = there.vfs.quota_of(there.ino("/t")).unwrap().unwrap();
    assert_eq!((report.bytes_max, report.inodes_max, report.used.inodes), (4096, 9, 1));
}
