//! sled as a [`Backend`]: one tree, atomic batches, and the barrier of F11.
//!
//! sled 0.34 writes its log with `sync_file_range` on Linux, which neither flushes the device's cache nor any
//! metadata: `flush()` alone does not survive a power cut. [`SledBackend::flush`] therefore follows it with
//! `fdatasync` on sled's log file, and with `fsync` on its directories whenever an entry was created in them. What sled
//! writes at opening and never syncs (its `conf` file, without which it does not open again) is synced there.

#![expect(
    clippy::disallowed_methods,
    reason = "a database on a real disk: times of its directories are the kernel's, and another process lets go when it does"
)]

use super::{Backend, Batch, Record, StoreError, from_io};
use crate::ballast::Ballast;
use crate::limits::{MTIME_TICK_MAX, SLED_CACHE_BYTES, SLED_CLAIM_BYTES, SLED_LOCK_POLL, SLED_LOCK_TRIES};
use parking_lot::Mutex;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// One sled database used as one ordered map.
pub struct SledBackend {
    db: sled::Db,
    log: File,
    directories: Mutex<Vec<Directory>>,
    /// Always true but in the test that shows why.
    barrier: bool,
    /// sled writes when it likes, and gives up when the disk is full: it gets room before it is given something.
    ballast: Option<Arc<Ballast>>,
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
        let db = match open(path) {
            Err(damage @ StoreError::Corrupt(_)) => open_without_conf(path).map_err(|_| damage)?,
            opened => opened?,
        };
        sync_files(path).map_err(from_io)?;
        let log = File::open(path.join(SledBackend::FILE)).map_err(from_io)?;
        let directories = [path.to_path_buf(), path.join("blobs")].map(|path| Directory { path, synced: None });
        Ok(SledBackend {
            db,
            log,
            directories: Mutex::new(directories.into()),
            barrier: true,
            ballast: None,
        })
    }

    /// Opens or creates a database that gets the ballast's room when the disk is full.
    ///
    /// # Errors
    /// See [`open`](SledBackend::open).
    pub fn open_over(path: &Path, ballast: Arc<Ballast>) -> Result<SledBackend, StoreError> {
        let opened = ballast.write(|| SledBackend::open(path))?;
        Ok(SledBackend {
            ballast: Some(ballast),
            ..opened
        })
    }

    /// Has blocks for what is about to be written, twice that and a segment: sled writes beyond the end of its log or over what
    /// it has there.
    fn claim(&self, bytes: usize) {
        if let Some(ballast) = &self.ballast {
            ballast.claim(&self.log, 2 * bytes as u64 + SLED_CLAIM_BYTES);
        }
    }

    /// The same with sled's own `flush` alone, to show that it does not survive a power cut.
    ///
    /// # Errors
    /// As [`SledBackend::open`].
    #[cfg(any(test, feature = "sim"))]
    pub fn open_without_barrier(path: &Path) -> Result<SledBackend, StoreError> {
        let opened = SledBackend::open(path)?;
        Ok(SledBackend {
            barrier: false,
            ..opened
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
                // The kernel's clock for file times ticks some milliseconds apart: an entry made within the tick of the last
                // one leaves the time as it is, so a time that is not well past proves nothing.
                let age = SystemTime::now().duration_since(metadata.modified()?);
                directory.synced = age.is_ok_and(|age| age > MTIME_TICK_MAX).then_some(changed);
            }
        }
        Ok(())
    }
}

/// Opens it, waiting for an earlier opening of this process to let go: sled's threads may hold its file for a moment after it was
/// dropped. Whose the volume is, is not sled's lock's to say.
fn open(path: &Path) -> Result<sled::Db, StoreError> {
    for _ in 0..SLED_LOCK_TRIES {
        match try_open(path) {
            Err(StoreError::Io(e)) if e.to_string().contains("acquire lock") => std::thread::sleep(SLED_LOCK_POLL),
            opened => return opened,
        }
    }
    try_open(path)
}

fn try_open(path: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new().path(path).cache_capacity(SLED_CACHE_BYTES);
    // sled panics on some kinds of damage; that must not take the process down before it has been said.
    catch_unwind(AssertUnwindSafe(|| config.open()))
        .map_err(|_| StoreError::Corrupt("sled gave up while opening".into()))?
        .map_err(from_sled)
}

/// sled's `conf` holds constants of sled and of the settings above, nothing of the volume: it is made again where it is damaged,
/// as by a power cut while it was first written. The old one is put back if that was not the trouble.
fn open_without_conf(path: &Path) -> Result<sled::Db, StoreError> {
    let (conf, aside) = (path.join("conf"), path.join("conf.damaged"));
    std::fs::rename(&conf, &aside).map_err(from_io)?;
    let opened = open(path);
    match &opened {
        Ok(_) => {
            tracing::warn!(
                "{} was damaged and has been made again: it holds nothing of the volume",
                conf.display()
            );
            std::fs::remove_file(&aside).map_err(from_io)?;
        }
        Err(_) => std::fs::rename(&aside, &conf).map_err(from_io)?,
    }
    opened
}

/// Makes every file durable that sled has just opened or made.
fn sync_files(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            match File::open(entry.path()) {
                Ok(file) => file.sync_all()?,
                // sled replaces its snapshots while it runs.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }
    File::open(path)?.sync_all()
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
        let bytes = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| key.len() + value.as_ref().map_or(0, Vec::len);
        self.claim(batch.ops.iter().map(bytes).sum());
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
        self.claim(0);
        self.db.flush().map_err(from_sled)?;
        if !self.barrier {
            return Ok(());
        }
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
