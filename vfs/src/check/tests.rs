//! The checker finds what is broken: each test breaks one invariant of a good tree.

use super::*;
use crate::attr::Timestamp;
use crate::fakes::volume_keys;
use crate::records::{Dentry, Xattr};
use cessfs_sync::Batch;
use cessfs_sync::store::MemStore;

fn directory(parent: u64, nlink: u32) -> InodeRecord {
    let mut record = InodeRecord::new(FileKind::Directory, 0o755, 0, 0, Timestamp::default());
    record.parent = parent;
    record.nlink = nlink;
    record
}

fn file() -> InodeRecord {
    InodeRecord::new(FileKind::Regular, 0o644, 0, 0, Timestamp::default())
}

fn put(store: &MemStore, key: Vec<u8>, value: Vec<u8>) {
    let mut batch = Batch::new();
    batch.put(key, value);
    store.commit(batch).unwrap();
}

fn delete(store: &MemStore, key: Vec<u8>) {
    let mut batch = Batch::new();
    batch.delete(key);
    store.commit(batch).unwrap();
}

fn name_key(parent: u64, name: &[u8]) -> Vec<u8> {
    records::dentry_key(parent, volume_keys().at_rest().name_hash(parent, name))
}

fn name(store: &MemStore, parent: u64, name: &[u8], ino: u64, kind: FileKind) {
    let bucket = DentryBucket(vec![Dentry {
        name: name.to_vec(),
        ino,
        kind,
    }]);
    put(store, name_key(parent, name), bucket.encode());
}

/// `/d` (2), `/d/e` (3), `/d/f` (4, inline, one xattr), and an orphan (5).
fn good() -> MemStore {
    let store = MemStore::new();
    put(&store, records::inode_key(1), directory(1, 3).encode());
    put(&store, records::inode_key(2), directory(1, 3).encode());
    put(&store, records::inode_key(3), directory(2, 2).encode());
    put(
        &store,
        records::inode_key(4),
        InodeRecord { xattrs: 1, ..file() }.encode(),
    );
    put(
        &store,
        records::inode_key(5),
        InodeRecord {
            nlink: 0,
            inline: false,
            ..file()
        }
        .encode(),
    );
    name(&store, 1, b"d", 2, FileKind::Directory);
    name(&store, 2, b"e", 3, FileKind::Directory);
    name(&store, 2, b"f", 4, FileKind::Regular);
    let xattr = Xattr {
        name: b"user.a".to_vec(),
        value: Vec::new(),
    };
    let hash = volume_keys().at_rest().name_hash(4, b"user.a");
    put(&store, records::xattr_key(4, hash), XattrBucket(vec![xattr]).encode());
    put(&store, records::inline_key(4), b"content".to_vec());
    put(&store, records::extent_key(5, 0), Extent::default().encode());
    put(&store, records::orphan_key(5), records::encode_counter(0));
    put(&store, records::NEXT_INO_KEY.to_vec(), records::encode_counter(6));
    store
}

fn findings(store: &MemStore) -> Vec<String> {
    check_tree(store, &volume_keys()).unwrap()
}

#[test]
fn a_good_tree_has_no_findings() {
    assert_eq!(findings(&good()), Vec::<String>::new());
}

#[test]
fn each_broken_invariant_is_found() {
    type Break = fn(&MemStore);
    let breaks: [(&str, Break); 18] = [
        ("no root", |s| delete(s, records::inode_key(1))),
        ("root elsewhere", |s| {
            put(s, records::inode_key(1), directory(2, 3).encode())
        }),
        ("links of a directory", |s| {
            put(s, records::inode_key(2), directory(1, 2).encode())
        }),
        ("links of a file", |s| {
            put(
                s,
                records::inode_key(4),
                InodeRecord {
                    xattrs: 1,
                    nlink: 2,
                    ..file()
                }
                .encode(),
            )
        }),
        ("name lost", |s| delete(s, name_key(2, b"f"))),
        ("directory without a name", |s| delete(s, name_key(2, b"e"))),
        ("second name of a directory", |s| {
            name(s, 1, b"again", 3, FileKind::Directory)
        }),
        ("inode lost", |s| delete(s, records::inode_key(4))),
        ("wrong parent", |s| {
            put(s, records::inode_key(3), directory(1, 2).encode())
        }),
        ("a loop", |s| {
            put(s, records::inode_key(2), directory(3, 3).encode());
            put(s, records::inode_key(3), directory(2, 3).encode());
            name(s, 3, b"d", 2, FileKind::Directory);
            delete(s, name_key(1, b"d"));
            put(s, records::inode_key(1), directory(1, 2).encode());
        }),
        ("wrong kind", |s| name(s, 2, b"f", 4, FileKind::Fifo)),
        ("foreign hash", |s| {
            let bucket = DentryBucket(vec![Dentry {
                name: b"g".to_vec(),
                ino: 4,
                kind: FileKind::Regular,
            }]);
            put(s, name_key(2, b"f"), bucket.encode());
        }),
        ("orphan note lost", |s| delete(s, records::orphan_key(5))),
        ("orphan note too many", |s| {
            put(s, records::orphan_key(4), records::encode_counter(0))
        }),
        ("xattr count", |s| put(s, records::inode_key(4), file().encode())),
        ("content in the wrong place", |s| {
            put(s, records::extent_key(4, 0), Extent::default().encode())
        }),
        ("a quota without its directory", |s| {
            let quota = QuotaRecord {
                phase: QuotaPhase::Active,
                bytes_max: 1,
                inodes_max: 1,
            };
            put(s, records::quota_key(9), quota.encode())
        }),
        ("counter behind", |s| {
            put(s, records::NEXT_INO_KEY.to_vec(), records::encode_counter(5))
        }),
    ];
    for (what, break_it) in breaks {
        let store = good();
        break_it(&store);
        assert!(!findings(&store).is_empty(), "{what} was not found");
    }
}

#[test]
fn the_trash_draws_from_the_counter_too() {
    let store = good();
    delete(&store, records::orphan_key(5));
    let record = InodeRecord {
        nlink: 0,
        inline: false,
        trash: 6,
        ..file()
    };
    put(&store, records::inode_key(5), record.encode());
    let entry = TrashRecord {
        ino: 5,
        deleted: Timestamp::default(),
        parent: 1,
        name: b"gone".to_vec(),
        dir: Vec::new(),
    };
    put(&store, records::trash_key(6), entry.encode());
    let found = findings(&store);
    assert!(found.len() == 1 && found[0].contains("6 is taken"), "{found:?}");
    put(&store, records::NEXT_INO_KEY.to_vec(), records::encode_counter(7));
    assert_eq!(findings(&store), Vec::<String>::new());
}

#[test]
fn the_list_of_findings_is_bounded() {
    let store = good();
    for ino in 10..10 + 2 * FINDINGS_MAX as u64 {
        put(&store, records::inode_key(ino), file().encode());
    }
    assert_eq!(findings(&store).len(), FINDINGS_MAX);
}
