//! The table of live inodes, and how often the kernel holds each.
//!
//! Bounded: an inode nobody uses is dropped once its shard holds more than its share. In use means: somebody holds its
//! `Arc` (dirty content does), it is open, it has a lazy change, or it is gone and still known to the kernel.

use super::{Inode, InodeState};
use crate::core::Core;
use crate::error::VfsError;
use crate::limits::{INODE_EVICT_TRIES, INODE_LOAD_TRIES, INODE_SHARDS, INODES_CACHED_MAX};
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Live inodes by number.
pub struct InodeTable {
    shards: Vec<Mutex<Shard>>,
    /// Numbers of inodes whose record in memory is ahead of the store.
    lazy: Mutex<BTreeSet<u64>>,
}

struct Shard {
    live: LruCache<u64, Arc<Inode>>,
    /// Kernel references (`lookup` counts), kept apart from `live` so that an idle inode needs a few bytes only.
    lookups: HashMap<u64, u64>,
    /// Grows with every entry dropped from `live`: a record read before that may be older than what was dropped.
    generation: u64,
}

impl InodeTable {
    pub(crate) fn new() -> InodeTable {
        let shard = || {
            Mutex::new(Shard {
                live: LruCache::unbounded(),
                lookups: HashMap::new(),
                generation: 0,
            })
        };
        InodeTable {
            shards: (0..INODE_SHARDS).map(|_| shard()).collect(),
            lazy: Mutex::new(BTreeSet::new()),
        }
    }

    fn shard(&self, ino: u64) -> &Mutex<Shard> {
        &self.shards[(ino % INODE_SHARDS as u64) as usize]
    }

    /// The live inode `ino`, read from the store if need be; `Stale` if there is none.
    pub fn get(&self, core: &Core, ino: u64) -> Result<Arc<Inode>, VfsError> {
        let shard = self.shard(ino);
        for _ in 0..INODE_LOAD_TRIES {
            let generation = {
                let mut shard = shard.lock();
                if let Some(inode) = shard.live.get(&ino) {
                    return Ok(inode.clone());
                }
                shard.generation
            };
            // The disk is read without the shard's lock. If meanwhile an entry was dropped it may have been this one, newer
            // than what was read: read again.
            let loaded = Arc::new(Inode::load(core, ino)?);
            let mut shard = shard.lock();
            if let Some(inode) = shard.live.get(&ino) {
                return Ok(inode.clone());
            }
            if shard.generation == generation {
                shard.insert(loaded.clone());
                return Ok(loaded);
            }
        }
        let mut shard = shard.lock();
        if let Some(inode) = shard.live.get(&ino) {
            return Ok(inode.clone());
        }
        let loaded = Arc::new(Inode::load(core, ino)?);
        shard.insert(loaded.clone());
        Ok(loaded)
    }

    /// The live inode `ino` if it is in memory.
    pub fn peek(&self, ino: u64) -> Option<Arc<Inode>> {
        self.shard(ino).lock().live.get(&ino).cloned()
    }

    /// Puts a new inode into the table.
    pub(crate) fn insert(&self, inode: Arc<Inode>) {
        self.shard(inode.ino).lock().insert(inode);
    }

    /// Counts one more reference of the kernel.
    pub(crate) fn remember(&self, ino: u64) {
        *self.shard(ino).lock().lookups.entry(ino).or_insert(0) += 1;
    }

    /// The kernel dropped `n` references; true when it has none left.
    pub(crate) fn forget(&self, ino: u64, n: u64) -> bool {
        let mut shard = self.shard(ino).lock();
        let Some(count) = shard.lookups.get_mut(&ino) else {
            return true;
        };
        *count = count.saturating_sub(n);
        if *count == 0 {
            shard.lookups.remove(&ino);
            return true;
        }
        false
    }

    /// Takes a gone inode out of the table, unless the kernel still knows it.
    pub(crate) fn drop_gone(&self, ino: u64) {
        let mut shard = self.shard(ino).lock();
        if !shard.lookups.contains_key(&ino) && shard.live.pop(&ino).is_some() {
            shard.generation += 1;
        }
    }

    /// Notes that `ino` has a change that no batch carried yet; the caller has set [`InodeState::lazy`].
    pub(crate) fn note_lazy(&self, ino: u64) -> usize {
        let mut lazy = self.lazy.lock();
        lazy.insert(ino);
        lazy.len()
    }

    /// Takes up to `limit` inodes with lazy changes, ascending.
    pub(crate) fn take_lazy(&self, limit: usize) -> Vec<u64> {
        let mut lazy = self.lazy.lock();
        let taken: Vec<u64> = lazy.iter().take(limit).copied().collect();
        for ino in &taken {
            lazy.remove(ino);
        }
        taken
    }

    /// Live inodes in memory.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().live.len()).sum()
    }

    /// Nothing is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Shard {
    fn insert(&mut self, inode: Arc<Inode>) {
        self.live.put(inode.ino, inode);
        if self.live.len() <= INODES_CACHED_MAX / INODE_SHARDS {
            return;
        }
        for _ in 0..INODE_EVICT_TRIES {
            let Some((ino, inode)) = self.live.pop_lru() else {
                return;
            };
            if self.may_drop(&inode) {
                self.generation += 1;
                return;
            }
            self.live.put(ino, inode);
        }
    }

    /// Nobody can take a new `Arc` while the shard is locked, so a count of one stays one.
    fn may_drop(&self, inode: &Arc<Inode>) -> bool {
        if Arc::strong_count(inode) > 1 {
            return false;
        }
        let Some(state) = inode.state.try_read() else {
            return false;
        };
        let InodeState { opens, lazy, gone, .. } = &*state;
        *opens == 0 && !*lazy && !(*gone && self.lookups.contains_key(&inode.ino))
    }
}
