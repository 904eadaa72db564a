//! A volume that another machine has taken over: it takes no changes, and lists what only is here.

use super::restored::{look, write};
use super::*;
use crate::fakes::bench::{pattern, wait};
use crate::snapshot::TreeStores;
use cessfs_sync::FetchError;

/// The paths that are told, and whether all of it could be told.
fn told(w: &World) -> (Vec<String>, bool) {
    let unsents = wait(crate::Later::Wait(w.vfs.unsent())).unwrap();
    let path = |unsent: crate::vfs::unsent::Unsent| String::from_utf8(unsent.path).unwrap();
    (unsents.paths.into_iter().map(path).collect(), unsents.untold.is_none())
}

fn unsent(w: &World) -> Vec<String> {
    let (paths, all) = told(w);
    assert!(all);
    paths
}

#[test]
fn a_volume_that_was_taken_over_takes_no_changes_and_lists_what_was_not_sent() {
    let w = World::new();
    w.mkdir("/dir").unwrap();
    for name in ["/dir/sent", "/dir/moves"] {
        w.touch_file(name).unwrap();
        write(&w, name, 0, &pattern(1, 10_000));
    }
    w.vfs.create_snapshot("then").unwrap();
    w.chunks.confirm();
    w.vfs.write_back_all().unwrap();
    assert_eq!(unsent(&w), Vec::<String>::new());
    // In a pack that nobody has, and in none.
    w.touch_file("/dir/packed").unwrap();
    write(&w, "/dir/packed", 0, &pattern(2, 10_000));
    w.vfs.create_snapshot("now").unwrap();
    w.rename("/dir/moves", "/moved").unwrap();
    let expected = ["/dir", "/dir/packed", "/moved"];
    assert_eq!(unsent(&w), expected);

    w.vfs.stop_changes();
    assert_eq!(errno(w.mkdir("/new")), libc::EROFS);
    assert_eq!(errno(w.vfs.create_snapshot("later")), libc::EROFS);
    assert_eq!(errno(w.vfs.delete_snapshot("then")), libc::EROFS);
    assert_eq!(look(&w).len(), 5, "reading goes on");
    assert_eq!(unsent(&w), expected, "and changes nothing");
    w.chunks.fence();
    let w = w.remount();
    assert!(w.vfs.is_stopped());
    assert_eq!(errno(w.unlink("/moved")), libc::EROFS);
    assert_eq!(unsent(&w), expected);
}

#[test]
fn what_was_sent_after_another_machine_took_over_is_listed_too() {
    let w = World::new();
    w.mkdir("/dir").unwrap();
    for name in ["/both", "/dir/moves", "/changes", "/goes", "/grows"] {
        w.touch_file(name).unwrap();
        write(&w, name, 0, &pattern(1, 10_000));
    }
    w.vfs.create_snapshot("then").unwrap();
    w.chunks.confirm();
    let shared = w.vfs.snapshot("then").unwrap().record.pack;
    // All of this is on the network, but the other machine went on from before it.
    w.touch_file("/later").unwrap();
    write(&w, "/later", 0, &pattern(2, 10_000));
    w.rename("/dir/moves", "/moved").unwrap();
    w.unlink("/goes").unwrap();
    write(&w, "/changes", 5000, b"else");
    w.vfs.create_snapshot("now").unwrap();
    w.chunks.confirm();
    write(&w, "/grows", 10_000, b"and in no pack");
    w.vfs.write_back_all().unwrap();
    w.vfs.stop_changes();
    w.chunks.fence();
    assert_eq!(unsent(&w), ["/grows"]);
    w.chunks.part(Ok(shared));
    assert_eq!(unsent(&w), ["/changes", "/grows", "/later", "/moved"]);
    let w = w.remount();
    assert_eq!(unsent(&w), ["/changes", "/grows", "/later", "/moved"]);
    assert_eq!(
        w.trees.names().unwrap(),
        Vec::<String>::new(),
        "the tree that it was compared with is gone"
    );

    // What can be told is told.
    w.chunks.part(Err(FetchError::Unavailable("nobody answers".into())));
    assert_eq!(told(&w), (vec!["/grows".to_owned()], false));
}
