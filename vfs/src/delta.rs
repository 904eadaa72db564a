//! Change marks: which records the next metadata delta has to carry.

use cessfs_sync::Batch;

/// Marks records as changed since the last sealed cut.
#[derive(Debug, Default)]
pub struct Marks {}

impl Marks {
    /// Adds the mark of `key` to the batch that changes it.
    pub fn mark(&self, batch: &mut Batch, key: &[u8]) {
        batch.put(crate::records::mark_key(key), Vec::new());
    }
}
