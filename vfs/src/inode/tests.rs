use super::*;
use crate::attr::{FileKind, Timestamp};
use crate::core::{VfsConfig, VfsParts};
use crate::fakes::{FakeChunks, FakeClock, FakeEntropy, volume_keys};
use crate::limits::INODES_CACHED_MAX;
use cessfs_sync::store::MemStore;
use cessfs_sync::{Batch, MetaStore};

fn core() -> (Core, Arc<MemStore>) {
    let store = Arc::new(MemStore::new());
    let parts = VfsParts {
        store: store.clone(),
        clock: Arc::new(FakeClock::new()),
        chunks: Arc::new(FakeChunks::new()),
        keys: volume_keys(),
        config: VfsConfig::new("/nonexistent".into()),
        entropy: Arc::new(Mutex::new(FakeEntropy::new(1))),
        trees: Arc::new(crate::fakes::FakeTrees::default()),
    };
    (Core::new(parts), store)
}

fn record(uid: u32) -> InodeRecord {
    InodeRecord::new(FileKind::Regular, 0o644, uid, 0, Timestamp::default())
}

fn put(store: &MemStore, ino: u64, uid: u32) {
    let mut batch = Batch::new();
    batch.put(records::inode_key(ino), record(uid).encode());
    store.commit(batch).unwrap();
}

#[test]
fn one_inode_is_one_object_while_somebody_holds_it() {
    let (core, store) = core();
    put(&store, 7, 1);
    let first = core.inodes.get(&core, 7).unwrap();
    put(&store, 7, 2); // behind the table's back
    let second = core.inodes.get(&core, 7).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(second.state.read().record.uid, 1);
    assert!(matches!(core.inodes.get(&core, 8), Err(VfsError::Stale)));
}

#[test]
fn the_table_is_bounded_and_keeps_what_is_in_use() {
    let (core, store) = core();
    for ino in 1..=3 {
        put(&store, ino, 1);
    }
    let held = core.inodes.get(&core, 1).unwrap();
    core.inodes.get(&core, 2).unwrap().state.write().opens = 1;
    core.inodes.get(&core, 3).unwrap().state.write().lazy = true;
    for ino in 10..10 + 2 * INODES_CACHED_MAX as u64 {
        core.inodes.insert(Arc::new(Inode::new(ino, record(1))));
    }
    assert!(core.inodes.len() <= INODES_CACHED_MAX);
    assert!(core.inodes.peek(10).is_none());
    assert!(Arc::ptr_eq(&held, &core.inodes.peek(1).unwrap()));
    assert!(core.inodes.peek(2).is_some() && core.inodes.peek(3).is_some());
}

#[test]
fn gone_inodes_stay_until_the_kernel_forgets() {
    let (core, _) = core();
    core.inodes.insert(Arc::new(Inode::new(5, record(1))));
    core.inodes.peek(5).unwrap().state.write().gone = true;
    core.inodes.remember(5);
    core.inodes.remember(5);
    core.inodes.drop_gone(5);
    assert!(core.inodes.peek(5).is_some());
    assert!(!core.inodes.forget(5, 1));
    assert!(core.inodes.forget(5, 9));
    core.inodes.drop_gone(5);
    assert!(core.inodes.peek(5).is_none());
}

#[test]
fn locks_are_taken_in_ascending_order_and_once_each() {
    let inodes: Vec<Arc<Inode>> = [9, 2, 5, 2]
        .map(|ino| Arc::new(Inode::new(ino, record(ino as u32))))
        .into();
    let mut locked = lock_many([&inodes[0], &inodes[1], &inodes[2], &inodes[1]]);
    assert_eq!(locked.inos().collect::<Vec<_>>(), [2, 5, 9]);
    assert_eq!(locked.state(5).record.uid, 5);
    locked.state_mut(9).opens = 3;
    assert!(inodes[0].state.try_read().is_none());
    drop(locked);
    assert_eq!(inodes[0].state.read().opens, 3);
}

#[test]
fn readers_that_load_together_get_the_same_inode() {
    let (core, store) = core();
    for ino in 0..64 {
        put(&store, ino, 1);
    }
    let core = &core;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                for _ in 0..50 {
                    for ino in 0..64 {
                        core.inodes.get(core, ino).unwrap().state.write().record.rdev += 1;
                    }
                }
            });
        }
    });
    for ino in 0..64 {
        assert_eq!(core.inodes.get(core, ino).unwrap().state.read().record.rdev, 200);
    }
}
