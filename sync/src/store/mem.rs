//! A store in memory that remembers its history: for tests and simulations that crash at any record.

use super::{Batch, MetaStore, Record, StoreError};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
struct Inner {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    history: Vec<Batch>,
    durable: usize,
}

/// [`MetaStore`] in memory. Keeps every batch, so that a test can ask for the store a crash would have left.
#[derive(Default)]
pub struct MemStore {
    inner: RwLock<Inner>,
    full: AtomicBool,
}

impl MemStore {
    /// An empty store.
    pub fn new() -> MemStore {
        MemStore::default()
    }

    /// From now on there is room for deletions only, or for everything again.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Batches committed so far, and how many of them a barrier has made durable.
    pub fn progress(&self) -> (usize, usize) {
        let inner = self.inner.read();
        (inner.history.len(), inner.durable)
    }

    /// The store after a crash that kept exactly the first `batches` batches.
    pub fn crashed_at(&self, batches: usize) -> MemStore {
        let store = MemStore::new();
        for batch in &self.inner.read().history[..batches] {
            store.commit(batch.clone()).expect("memory does not fail");
        }
        store.inner.write().durable = batches;
        store
    }
}

impl MetaStore for MemStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.inner.read().map.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        let start = from.max(prefix).to_vec();
        let inner = self.inner.read();
        let records = inner.map.range(start..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(records
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut inner = self.inner.write();
        for (key, value) in &batch.ops {
            match value {
                Some(value) => inner.map.insert(key.clone(), value.clone()),
                None => inner.map.remove(key),
            };
        }
        inner.history.push(batch);
        Ok(())
    }

    fn admit(&self) -> Result<(), StoreError> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(StoreError::Full),
            false => Ok(()),
        }
    }

    fn barrier(&self) -> Result<(), StoreError> {
        let mut inner = self.inner.write();
        inner.durable = inner.history.len();
        Ok(())
    }
}
