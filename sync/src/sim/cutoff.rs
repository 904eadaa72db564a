//! A store that stops taking changes after a given number of them: a crash between any two journal records.

use crate::store::{Batch, MemStore, MetaStore, Record, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// See the module head.
pub struct CutoffStore {
    inner: Arc<MemStore>,
    left: AtomicUsize,
    cut_off: AtomicBool,
}

impl CutoffStore {
    /// Takes `commits` more changes into `inner`, then fails for good.
    pub fn new(inner: Arc<MemStore>, commits: usize) -> CutoffStore {
        CutoffStore {
            inner,
            left: AtomicUsize::new(commits),
            cut_off: AtomicBool::new(false),
        }
    }

    /// A change was refused.
    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::SeqCst)
    }
}

impl MetaStore for CutoffStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(key)
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        self.inner.scan(prefix, from, limit)
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let spent = |left: usize| left.checked_sub(1);
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spent) {
            Ok(_) => self.inner.commit(batch),
            Err(_) => {
                self.cut_off.store(true, Ordering::SeqCst);
                Err(StoreError::Poisoned)
            }
        }
    }

    fn barrier(&self) -> Result<(), StoreError> {
        self.inner.barrier()
    }
}
