//! Many hands at once.

use super::*;
use std::thread;

/// Runs the closures at once and fails, rather than hangs, when they do not come back.
fn together(jobs: Vec<Box<dyn FnOnce() + Send>>) {
    let (done, wait) = std::sync::mpsc::channel();
    let count = jobs.len();
    let threads: Vec<_> = jobs
        .into_iter()
        .map(|job| {
            let done = done.clone();
            thread::spawn(move || {
                job();
                done.send(()).unwrap();
            })
        })
        .collect();
    drop(done);
    for _ in 0..count {
        match wait.recv_timeout(Duration::from_secs(60)) {
            Ok(()) => {}
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break, // a job panicked: joining tells
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("deadlock"),
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn crossing_renames_neither_deadlock_nor_make_loops() {
    let w = World::new();
    for dir in ["/a", "/b", "/a/x", "/b/y"] {
        w.mkdir(dir).unwrap();
    }
    w.touch_file("/a/f").unwrap();
    w.touch_file("/b/g").unwrap();
    let (a, b) = (w.ino("/a"), w.ino("/b"));
    let (x, y) = (w.ino("/a/x"), w.ino("/b/y"));
    let mut jobs: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    let moves: [(u64, &'static [u8], u64, &'static [u8]); 8] = [
        (a, b"x", b, b"x"),
        (b, b"x", a, b"x"),
        (b, b"y", a, b"y"),
        (a, b"y", b, b"y"),
        (a, b"f", b, b"g"),
        (b, b"g", a, b"f"),
        // Into each other: one of the two must always fail.
        (a, b"x", y, b"in"),
        (b, b"y", x, b"in"),
    ];
    for (from, name, to, new_name) in moves {
        for exchange in [false, true] {
            let vfs = w.vfs.clone();
            jobs.push(Box::new(move || {
                let flags = RenameFlags {
                    exchange,
                    ..RenameFlags::default()
                };
                for _ in 0..300 {
                    match vfs.rename(from, name, to, new_name, flags) {
                        Ok(()) => {}
                        Err(e) => {
                            let expected = [libc::ENOENT, libc::EINVAL, libc::ENOTEMPTY, libc::ENOTDIR, libc::EISDIR];
                            assert!(expected.contains(&e.errno()), "{e}");
                        }
                    }
                }
            }));
        }
    }
    together(jobs);
    w.check();
    let listed = w.list("/");
    assert_eq!(listed, ["a", "b"]);
    w.reopen().check();
}

#[test]
fn everybody_makes_and_removes_in_one_directory() {
    let w = World::new();
    let d = w.mkdir("/d").unwrap().ino;
    let jobs = (0..8u64).map(|who| -> Box<dyn FnOnce() + Send> {
        let vfs = w.vfs.clone();
        Box::new(move || {
            for i in 0..200u64 {
                // Five names for eight threads: they collide all the time.
                let name = format!("{}", (who + i) % 5);
                let result = match i % 4 {
                    0 => vfs
                        .mknod(d, name.as_bytes(), FileKind::Regular, 0o644, 0, USER)
                        .map(|_| ()),
                    1 => vfs.unlink(d, name.as_bytes()),
                    2 => vfs.mkdir(d, name.as_bytes(), 0o755, USER).map(|_| ()),
                    _ => vfs.rmdir(d, name.as_bytes()),
                };
                if let Err(e) = result {
                    let expected = [libc::ENOENT, libc::EEXIST, libc::ENOTDIR, libc::EISDIR];
                    assert!(expected.contains(&e.errno()), "{e}");
                }
            }
        })
    });
    together(jobs.collect());
    w.check();
    let count = w.list("/d").len() as u64;
    assert_eq!(w.vfs.file_count(), 2 + count);
}

#[test]
fn links_and_unlinks_of_one_inode_add_up() {
    let w = World::new();
    for dir in ["/a", "/b", "/c", "/d"] {
        w.mkdir(dir).unwrap();
    }
    let f = w.touch_file("/f").unwrap().ino;
    let jobs = ["/a", "/b", "/c", "/d"].map(|dir| -> Box<dyn FnOnce() + Send> {
        let (vfs, dir) = (w.vfs.clone(), w.ino(dir));
        Box::new(move || {
            for i in 0..200 {
                vfs.link(f, dir, b"l").unwrap();
                vfs.lookup(dir, b"l").unwrap();
                if i < 199 {
                    vfs.unlink(dir, b"l").unwrap();
                }
            }
        })
    });
    together(jobs.into_iter().collect());
    assert_eq!(w.stat("/f").nlink, 5);
    w.check();
}

#[test]
fn listing_with_attributes_survives_removal() {
    let w = World::new();
    let d = w.mkdir("/d").unwrap().ino;
    let maker = w.vfs.clone();
    let lister = w.vfs.clone();
    together(vec![
        Box::new(move || {
            for i in 0..500 {
                let name = format!("{}", i % 50);
                let attr = maker
                    .mknod(d, name.as_bytes(), FileKind::Regular, 0o644, 0, USER)
                    .unwrap();
                maker.forget(attr.ino, 1);
                maker.unlink(d, name.as_bytes()).unwrap();
            }
        }),
        Box::new(move || {
            for _ in 0..300 {
                let mut known = Vec::new();
                let mut fill = |entry: DirEntry<'_>| {
                    if let (Some(attr), true) = (entry.attr, entry.cookie > 2) {
                        known.push(attr.ino);
                    }
                    false
                };
                lister.readdir(d, 0, true, &mut fill).unwrap();
                for ino in known {
                    lister.getattr(ino).unwrap();
                    lister.forget(ino, 1);
                }
            }
        }),
    ]);
    w.rmdir("/d").unwrap();
    assert_eq!(w.vfs.file_count(), 1);
    w.check();
}
