//! The shelf: trees of snapshots that were looked at, each in a metadata store of its own.
//!
//! A tree is put there when somebody first looks into its snapshot, out of the deltas of the packs that lead to it. A few stay
//! ([`SNAPSHOT_TREES_KEPT`]), also over the end of the mount; the one that was not looked at for longest makes room, and is put
//! together again if need be. One tree is put together once at a time, whoever asks. A tree that was not finished has no
//! record that says so, and counts for nothing.

use super::{Snapshot, Tree};
use crate::delta::frame::apply_delta;
use crate::error::VfsError;
use crate::inode::ROOT_INO;
use crate::limits::SNAPSHOT_TREES_KEPT;
use crate::records;
use cessfs_crypto::{AtRestKeys, PackSeq};
use cessfs_sync::{Batch, ChunkStore, FetchError, MetaStore, StoreError};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};

/// Makes and removes small metadata stores, sealed at rest if the volume is.
pub trait TreeStores: Send + Sync + 'static {
    /// Opens the store of this name (letters, digits and dashes); makes it if it is not there.
    ///
    /// # Errors
    /// The disk refuses, or what is there is damaged.
    fn open(&self, name: &str) -> Result<Arc<dyn MetaStore>, StoreError>;
    /// Removes the store of this name, which nobody has open; one that is not there is removed already.
    ///
    /// # Errors
    /// The disk refuses.
    fn remove(&self, name: &str) -> Result<(), StoreError>;
    /// Names of the stores that are there.
    ///
    /// # Errors
    /// The disk refuses.
    fn names(&self) -> Result<Vec<String>, StoreError>;
}

/// A tree's store; it goes when nobody uses it any more, if it shall.
pub(crate) struct OnShelf {
    /// `None` only while it is dropped: the store is closed before it is removed.
    store: Option<Arc<dyn MetaStore>>,
    stores: Arc<dyn TreeStores>,
    name: String,
    doomed: Mutex<bool>,
}

impl OnShelf {
    pub(crate) fn store(&self) -> &dyn MetaStore {
        &**self.shared()
    }

    fn shared(&self) -> &Arc<dyn MetaStore> {
        self.store.as_ref().expect("it is there until it is dropped")
    }

    pub(super) fn doom(&self) {
        *self.doomed.lock() = true;
    }
}

impl Drop for OnShelf {
    fn drop(&mut self) {
        drop(self.store.take());
        if *self.doomed.lock() {
            // What cannot be removed now goes at the next mount.
            let _ = self.stores.remove(&self.name);
        }
    }
}

/// There once the tree is whole.
const WHOLE_KEY: &[u8] = b"swhole";

/// Resolves to a tree.
pub(crate) type Wait = Shared<BoxFuture<'static, Result<Arc<Tree>, VfsError>>>;

pub(crate) struct Shelf {
    stores: Arc<dyn TreeStores>,
    chunks: Arc<dyn ChunkStore>,
    at_rest: AtRestKeys,
    inner: Mutex<Inner>,
}

struct Inner {
    kept: LruCache<u64, Arc<Tree>>,
    /// Trees that somebody still uses, kept or not.
    used: HashMap<u64, Weak<Tree>>,
    building: HashMap<u64, Wait>,
    /// Makes names of stores that were not there before.
    built: u64,
}

impl Shelf {
    pub(crate) fn new(stores: Arc<dyn TreeStores>, chunks: Arc<dyn ChunkStore>, at_rest: AtRestKeys) -> Shelf {
        let kept = NonZeroUsize::new(SNAPSHOT_TREES_KEPT).expect("it is a constant above 0");
        Shelf {
            stores,
            chunks,
            at_rest,
            inner: Mutex::new(Inner {
                kept: LruCache::new(kept),
                used: HashMap::new(),
                building: HashMap::new(),
                built: 0,
            }),
        }
    }

    /// Takes over what an earlier mount left: whole trees of snapshots that are still there. The rest goes.
    pub(crate) fn open(&self, snapshots: &[Arc<Snapshot>]) -> Result<(), StoreError> {
        for name in self.stores.names()? {
            let mut parts = name.split('-').filter_map(|part| part.parse::<u64>().ok());
            let (number, pack, built) = (parts.next(), parts.next(), parts.next().unwrap_or(0));
            let snapshot = snapshots
                .iter()
                .find(|snapshot| Some(snapshot.number) == number && Some(snapshot.record.pack.0) == pack);
            let store = snapshot.and_then(|_| self.stores.open(&name).ok());
            let is_whole = |store: &Arc<dyn MetaStore>| matches!(store.get(WHOLE_KEY), Ok(Some(_)));
            {
                let mut inner = self.inner.lock();
                inner.built = inner.built.max(built);
            }
            match (snapshot, store.filter(is_whole)) {
                (Some(snapshot), Some(store)) => drop(self.put(snapshot, &name, store)),
                // A store that was opened was closed again just now.
                _ => self.stores.remove(&name)?,
            }
        }
        Ok(())
    }

    /// A tree that is there.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<Tree>> {
        let mut inner = self.inner.lock();
        if let Some(tree) = inner.kept.get(&number) {
            return Some(tree.clone());
        }
        inner.used.get(&number).and_then(Weak::upgrade)
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().kept.len()
    }

    /// Puts the tree of a snapshot together, unless somebody is at it.
    pub(crate) fn build(self: &Arc<Self>, snapshot: &Arc<Snapshot>) -> Wait {
        let mut inner = self.inner.lock();
        if let Some(wait) = inner.building.get(&snapshot.number) {
            return wait.clone();
        }
        inner.built += 1;
        let name = format!("{}-{}-{}", snapshot.number, snapshot.record.pack.0, inner.built);
        let (shelf, snapshot) = (self.clone(), snapshot.clone());
        let number = snapshot.number;
        let build = async move {
            let built = shelf.put_together(&snapshot, &name).await;
            shelf.inner.lock().building.remove(&number);
            if built.is_err() {
                // What cannot be removed now goes at the next mount.
                let _ = shelf.stores.remove(&name);
            }
            built
        };
        let wait = build.boxed().shared();
        inner.building.insert(number, wait.clone());
        wait
    }

    /// The tree as of a pack, for whoever asks now; it is not kept.
    pub(crate) async fn borrow(&self, pack: PackSeq) -> Result<OnShelf, VfsError> {
        let built = {
            let mut inner = self.inner.lock();
            inner.built += 1;
            inner.built
        };
        let name = format!("as-of-{}-{built}", pack.0);
        let place = OnShelf {
            store: Some(self.stores.open(&name)?),
            stores: self.stores.clone(),
            name,
            doomed: Mutex::new(true),
        };
        self.fill(place.shared(), pack).await?;
        Ok(place)
    }

    async fn fill(&self, store: &Arc<dyn MetaStore>, pack: PackSeq) -> Result<(), VfsError> {
        let into = store.clone();
        let sink = Box::new(move |frame: Vec<u8>| apply_delta([frame], &*into));
        self.chunks.replay(pack, sink).await?;
        if store.get(&records::inode_key(ROOT_INO))?.is_none() {
            let told = format!("the packs up to {} make no tree", pack.0);
            return Err(FetchError::Unavailable(told).into());
        }
        Ok(())
    }

    async fn put_together(&self, snapshot: &Snapshot, name: &str) -> Result<Arc<Tree>, VfsError> {
        let store = self.stores.open(name)?;
        self.fill(&store, snapshot.record.pack).await?;
        let mut batch = Batch::new();
        batch.put(WHOLE_KEY, records::encode_counter(1));
        store.commit(batch)?;
        // Nobody needs the tree to outlive a crash; but the mark must not be on the disk without all of the tree.
        store.barrier()?;
        Ok(self.put(snapshot, name, store))
    }

    fn put(&self, snapshot: &Snapshot, name: &str, store: Arc<dyn MetaStore>) -> Arc<Tree> {
        let place = OnShelf {
            store: Some(store),
            stores: self.stores.clone(),
            name: name.to_owned(),
            doomed: Mutex::new(false),
        };
        let tree = Arc::new(Tree::new(
            snapshot.number,
            place,
            self.at_rest.clone(),
            self.chunks.clone(),
        ));
        let mut inner = self.inner.lock();
        inner.used.retain(|_, tree| tree.strong_count() > 0);
        inner.used.insert(snapshot.number, Arc::downgrade(&tree));
        let gone = inner.kept.push(snapshot.number, tree.clone());
        drop(inner);
        if let Some((_, gone)) = gone {
            gone.place.doom();
        }
        tree
    }

    /// The snapshot is no more.
    pub(crate) fn remove(&self, number: u64) {
        let gone = self.get(number);
        self.inner.lock().kept.pop(&number);
        if let Some(gone) = gone {
            gone.place.doom();
        }
    }
}
