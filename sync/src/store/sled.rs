//! sled as a [`Backend`]: one tree, atomic batches, and the barrier of F11.
//!
//! sled 0.34 writes its log with `sync_file_range` on Linux, which neither flushes the device's cache nor any
//! metadata: `flush()` alone does not survive a power cut. [`SledBackend::flush`] therefore follows it with
//! `fdatasync` on sled's log file, and with `fsync` on its directories whenever an entry was created in them.

use super::{Backend, Batch, Record, StoreError, from_io};
use crate::limits::SLED_CACHE_BYTES;
use parking_lot::Mutex;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// One sled database used as one ordered map.
pub struct SledBackend {
    db: sled::Db,
    log: File,
    directories: Mutex<Vec<Directory>>,
}

/// A directory of sled's, and its change time when it was last synced.
struct Directory {
    path: PathBuf,
    synced: Option<(i64, i64)>,
}

impl SledBackend {
    /// sled's log within its directory.
    pub const FILE: &str = "db";

    /// Opens or creates the database in `path` (the directory must exist, so that its mode is the caller's).
    ///
    /// # Errors
    /// `Corrupt` if sled cannot read its files (the caller quarantines them), `Io`/`Full` if the disk refuses.
    pub fn open(path: &Path) -> Result<SledBackend, StoreError> {
        let config = sled::Config::new().path(path).cache_capacity(SLED_CACHE_BYTES);
        // sled panics on some kinds of damage; that must not take the process down before it has been said.
        let db = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|_| StoreError::Corrupt("sled gave up while opening".into()))?
            .map_err(from_sled)?;
        let log = File::open(path.join(SledBackend::FILE)).map_err(from_io)?;
        let directories = [path.to_path_buf(), path.join("blobs")].map(|path| Directory { path, synced: None });
        Ok(SledBackend {
            db,
            log,
            directories: Mutex::new(directories.into()),
        })
    }

    fn sync_directories(&self) -> std::io::Result<()> {
        for directory in self.directories.lock().iter_mut() {
            let Ok(metadata) = std::fs::metadata(&directory.path) else {
                continue;
            };
            let changed = (metadata.mtime(), metadata.mtime_nsec());
            if directory.synced != Some(changed) {
                File::open(&directory.path)?.sync_all()?;
                directory.synced = Some(changed);
            }
        }
        Ok(())
    }
}

impl Backend for SledBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(key).map_err(from_sled)?.map(|value| value.to_vec()))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        for item in self.db.range(from.max(prefix).to_vec()..) {
            let (key, value) = item.map_err(from_sled)?;
            if records.len() == limit || !key.starts_with(prefix) {
                break;
            }
            records.push((key.to_vec(), value.to_vec()));
        }
        Ok(records)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch.ops {
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        self.db.apply_batch(changes).map_err(from_sled)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(from_sled)?;
        self.log.sync_data().map_err(from_io)?;
        self.sync_directories().map_err(from_io)
    }

    fn size_bytes(&self) -> Result<u64, StoreError> {
        self.db.size_on_disk().map_err(from_sled)
    }
}

fn from_sled(e: sled::Error) -> StoreError {
    match e {
        sled::Error::Io(e) => from_io(e),
        sled::Error::Corruption { at, .. } => StoreError::Corrupt(format!("at {at:?}")),
        other => StoreError::Corrupt(other.to_string()),
    }
}
