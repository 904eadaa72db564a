//! Names: the rules they obey, their hashes, and the buckets read lately.
//!
//! A bucket is all names of one directory that share a 62-bit keyed hash. The cache holds buckets as the store has them, empty
//! ones too (a name known not to be there saves the store a search). It is filled and changed only by holders of the
//! directory's lock, so it never shows what the store does not.

use crate::core::Core;
use crate::error::VfsError;
use crate::limits::{DENTRIES_CACHED_MAX, DENTRY_SHARDS, NAME_BYTES_MAX};
use crate::records::{self, DentryBucket};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Directory and name hash.
pub(crate) type BucketId = (u64, u64);

/// Buckets read or written lately.
pub(crate) struct DentryCache {
    shards: Vec<Mutex<LruCache<BucketId, Arc<DentryBucket>>>>,
}

impl DentryCache {
    pub(crate) fn new() -> DentryCache {
        let share =
            NonZeroUsize::new(DENTRIES_CACHED_MAX / DENTRY_SHARDS).expect("a shard's share is a constant above 0");
        DentryCache {
            shards: (0..DENTRY_SHARDS).map(|_| Mutex::new(LruCache::new(share))).collect(),
        }
    }

    /// Hashes are uniform: their low bits spread the load.
    fn shard(&self, id: BucketId) -> &Mutex<LruCache<BucketId, Arc<DentryBucket>>> {
        &self.shards[(id.1 % DENTRY_SHARDS as u64) as usize]
    }

    fn get(&self, id: BucketId) -> Option<Arc<DentryBucket>> {
        self.shard(id).lock().get(&id).cloned()
    }

    /// Shows a bucket that is now in the store. The directory is locked.
    pub(crate) fn put(&self, id: BucketId, bucket: Arc<DentryBucket>) {
        self.shard(id).lock().put(id, bucket);
    }
}

impl Core {
    /// The hash of a name within its directory.
    pub(crate) fn name_hash(&self, parent: u64, name: &[u8]) -> u64 {
        self.at_rest.name_hash(parent, name)
    }

    /// A bucket, from the cache or the store; empty if there is none. The directory is locked (for reading at least).
    pub(crate) fn bucket(&self, id: BucketId) -> Result<Arc<DentryBucket>, VfsError> {
        if let Some(bucket) = self.dentries.get(id) {
            return Ok(bucket);
        }
        let bucket = match self.store.get(&records::dentry_key(id.0, id.1))? {
            Some(value) => DentryBucket::decode(&value)?,
            None => DentryBucket::default(),
        };
        let bucket = Arc::new(bucket);
        self.dentries.put(id, bucket.clone());
        Ok(bucket)
    }
}

/// Fails unless a directory may hold `name`: `NameTooLong` above 255 bytes, `NotFound` if empty (as an empty path is),
/// `Invalid` with a `/` or NUL. `.` and `..` pass: what they mean depends on the operation.
pub(crate) fn check_name(name: &[u8]) -> Result<(), VfsError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(VfsError::NameTooLong);
    }
    if name.is_empty() {
        return Err(VfsError::NotFound);
    }
    if name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(VfsError::Invalid("a name holds no slash and no NUL"));
    }
    Ok(())
}

/// The name is `.` or `..`, which every directory has without an entry.
pub(crate) fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}
