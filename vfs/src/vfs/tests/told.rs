//! Times that whoever writes tells.

use super::*;
use crate::attr::TimeSet;
use cessfs_sync::MetaStore;

const WRITE: OpenFlags = OpenFlags {
    read: true,
    write: true,
    append: false,
    truncate: false,
    direct: false,
    sync: false,
};

fn told(now: Timestamp) -> SetAttr {
    SetAttr {
        mtime: Some(TimeSet::At(now)),
        ctime: Some(now),
        written_back: true,
        ..SetAttr::default()
    }
}

#[test]
fn what_is_written_moves_no_time_where_the_times_are_told() {
    for len in [10, 70_000] {
        let w = World::new();
        w.vfs.times_are_told();
        w.touch_file("/f").unwrap();
        let ino = w.stat("/f").ino;
        let fh = w.vfs.open_file(ino, WRITE).unwrap();
        let now = w.tick();
        w.vfs.setattr(ino, told(now), USER).unwrap();
        w.tick();
        w.vfs.write_at(ino, fh, 0, &vec![7; len], false).unwrap();
        let attr = w.stat("/f");
        assert_eq!((attr.size, attr.mtime, attr.ctime), (len as u64, now, now), "{len}");
        let later = w.tick();
        w.vfs.setattr(ino, told(later), USER).unwrap();
        w.vfs.release(ino, fh).unwrap();
        w.store.barrier().unwrap();
        let crashed = World::on(Arc::new(w.store.crashed_at(w.store.progress().1)), |_| {});
        assert_eq!(crashed.stat("/f").mtime, later, "{len}");
    }
}

/// The kernel tells none for a process that is killed in a `close` or `fsync`.
#[test]
fn what_comes_without_times_is_told_of_when_its_handle_closes() {
    for (len, others) in [(10, false), (70_000, false), (70_000, true)] {
        let w = World::new();
        w.vfs.times_are_told();
        w.touch_file("/f").unwrap();
        let (ino, old) = (w.stat("/f").ino, w.stat("/f").mtime);
        w.clock.advance(Duration::from_secs(5));
        let fh = w.vfs.open_file(ino, WRITE).unwrap();
        let other = others.then(|| w.vfs.open_file(ino, WRITE).unwrap());
        let came = w.tick();
        w.vfs.write_at(ino, fh, 0, &vec![7; len], false).unwrap();
        assert_eq!(w.stat("/f").mtime, old, "the kernel may tell yet");
        w.tick();
        w.vfs.release(ino, fh).unwrap();
        assert_eq!((w.stat("/f").mtime, w.stat("/f").ctime), (came, came), "{len} {others}");
        if let Some(other) = other {
            let now = w.tick();
            w.vfs.setattr(ino, told(now), USER).unwrap();
            w.vfs.release(ino, other).unwrap();
            assert_eq!(w.stat("/f").mtime, now, "what the kernel tells counts");
            continue;
        }
        w.store.barrier().unwrap();
        let crashed = World::on(Arc::new(w.store.crashed_at(w.store.progress().1)), |_| {});
        assert_eq!(crashed.stat("/f").mtime, came, "{len}");
    }
}

#[test]
fn times_that_are_set_are_not_moved_by_what_came_before() {
    let w = World::new();
    w.vfs.times_are_told();
    w.touch_file("/f").unwrap();
    let ino = w.stat("/f").ino;
    w.tick();
    let fh = w.vfs.open_file(ino, WRITE).unwrap();
    w.vfs.write_at(ino, fh, 0, b"copied", false).unwrap();
    let old = Timestamp { secs: 7, nanos: 0 };
    let set = SetAttr {
        mtime: Some(TimeSet::At(old)),
        ..SetAttr::default()
    };
    w.vfs.setattr(ino, set, USER).unwrap();
    w.tick();
    w.vfs.release(ino, fh).unwrap();
    assert_eq!(w.stat("/f").mtime, old);
    // But by what comes afterwards, at once.
    let fh = w.vfs.open_file(ino, WRITE).unwrap();
    w.vfs.write_at(ino, fh, 0, b"killed", false).unwrap();
    w.vfs.release(ino, fh).unwrap();
    assert_eq!(w.stat("/f").mtime, w.vfs.core.now());
}

#[test]
fn the_size_there_is_moves_no_time() {
    let w = World::new();
    w.touch_file("/f").unwrap();
    let (ino, before) = (w.stat("/f").ino, w.stat("/f"));
    w.tick();
    let same = SetAttr {
        size: Some(0),
        same_size: true,
        ..SetAttr::default()
    };
    let attr = w.vfs.setattr(ino, same, USER).unwrap();
    assert_eq!((attr.mtime, attr.ctime), (before.mtime, before.ctime));
    let now = w.tick();
    let cut = SetAttr {
        same_size: false,
        ..same
    };
    let attr = w.vfs.setattr(ino, cut, USER).unwrap();
    assert_eq!((attr.mtime, attr.ctime), (now, now), "as ext4 does");
}
