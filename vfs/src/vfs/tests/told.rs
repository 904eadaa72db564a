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
