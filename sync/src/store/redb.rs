//! redb as a [`Backend`]: one file, one table, copy-on-write B-trees.
//!
//! `apply` is a transaction without durability: redb keeps what it changed apart from the last durable tree, so a crash
//! falls back to that tree whole. [`flush`](RedbBackend::flush) is a transaction with
//! [`Durability::Immediate`], which writes every tree before it out, syncs the file, and then switches to it. Pages that
//! transactions without durability free come back only with the next durable one; so every
//! [`REDB_LOOSE_BYTES_MAX`] of changes are made durable unasked, or a long burst would grow the file without end.

use super::{Backend, Batch, Record, StoreError, from_io};
use crate::ballast::Ballast;
use crate::limits::{REDB_CACHE_BYTES, REDB_CHECK_BYTES_MAX, REDB_LOOSE_BYTES_MAX};
use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{BackendError, Database, Durability, ReadableDatabase, StorageBackend, TableDefinition};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Every record of the store.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// One redb database used as one ordered map.
pub struct RedbBackend {
    db: Database,
    path: PathBuf,
    /// Bytes applied since the last durable transaction.
    loose_bytes: Mutex<u64>,
}

impl RedbBackend {
    /// The database's file within its directory.
    pub const FILE: &str = "redb";

    /// Opens or creates the database in `dir` (the directory must exist, so that its mode is the caller's).
    ///
    /// # Errors
    /// `Corrupt` if redb cannot read its file (the caller quarantines it), `Io`/`Full` if the disk refuses.
    pub fn open(dir: &Path) -> Result<RedbBackend, StoreError> {
        RedbBackend::open_with_cache(dir, REDB_CACHE_BYTES)
    }

    /// The same with a page cache of so many bytes.
    ///
    /// # Errors
    /// See [`open`](RedbBackend::open).
    pub fn open_with_cache(dir: &Path, cache_bytes: usize) -> Result<RedbBackend, StoreError> {
        RedbBackend::open_as(dir, cache_bytes, None)
    }

    /// Opens or creates a database that gets the ballast's room when the disk is full.
    ///
    /// # Errors
    /// See [`open`](RedbBackend::open).
    pub fn open_over(dir: &Path, ballast: Arc<Ballast>) -> Result<RedbBackend, StoreError> {
        RedbBackend::open_as(dir, REDB_CACHE_BYTES, Some(ballast))
    }

    fn open_as(dir: &Path, cache_bytes: usize, ballast: Option<Arc<Ballast>>) -> Result<RedbBackend, StoreError> {
        let path = dir.join(RedbBackend::FILE);
        if !path.exists() {
            make(dir, &path)?;
        }
        let db = open(&path, cache_bytes, ballast)?;
        let backend = RedbBackend {
            db,
            path,
            loose_bytes: Mutex::new(0),
        };
        // Reads may then rely on the table, and the file's own directory entry is durable from here on.
        backend.transact(Batch::new(), Durability::Immediate)?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(from_io)?;
        Ok(backend)
    }

    fn transact(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let mut change = self.db.begin_write().map_err(from_redb)?;
        change.set_durability(durability).map_err(from_redb)?;
        // With the state of its allocator on disk redb need not walk all pages after a crash. That is a second sync, which
        // nobody waits for: what a barrier promises is in the log before.
        change.set_quick_repair(matches!(durability, Durability::Immediate));
        {
            let mut records = change.open_table(RECORDS).map_err(from_redb)?;
            for (key, value) in batch.ops {
                match value {
                    Some(value) => records.insert(&key[..], &value[..]).map_err(from_redb)?,
                    None => records.remove(&key[..]).map_err(from_redb)?,
                };
            }
        }
        change.commit().map_err(from_redb)
    }
}

fn open(path: &Path, cache_bytes: usize, ballast: Option<Arc<Ballast>>) -> Result<Database, StoreError> {
    // redb trusts a file that was closed cleanly, and may panic over one that was damaged since. So every page is checked
    // against its checksum once, up to a size at which that would be waited for; where that falls back to an older tree, the
    // journal's mark tells.
    let check = std::fs::metadata(path).is_ok_and(|file| file.len() <= REDB_CHECK_BYTES_MAX);
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes);
        let mut db = match ballast {
            Some(ballast) => builder.create_with_backend(Ballasted::open(path, ballast)?)?,
            None => builder.create(path)?,
        };
        if check {
            db.check_integrity()?;
        }
        Ok(db)
    }));
    opened
        .map_err(|_| StoreError::Corrupt("redb gave up while opening".into()))?
        .map_err(|e: redb::DatabaseError| from_redb(e))
}

/// Makes an empty database, whole or not at all: one that a power cut left half made would not open.
fn make(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(from_io(e)),
        _ => {}
    }
    drop(open(&fresh, REDB_CACHE_BYTES, None)?);
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    sync(&fresh)
        .and_then(|()| std::fs::rename(&fresh, path))
        .map_err(from_io)?;
    sync(dir).map_err(from_io)
}

/// redb's file, for which the ballast makes room. Underneath redb, which takes no more changes once a write has failed.
#[derive(Debug)]
struct Ballasted {
    file: FileBackend,
    ballast: Arc<Ballast>,
}

impl Ballasted {
    fn open(path: &Path, ballast: Arc<Ballast>) -> Result<Ballasted, redb::DatabaseError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Ballasted {
            file: FileBackend::new(file)?,
            ballast,
        })
    }
}

impl StorageBackend for Ballasted {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.ballast.write(|| self.file.set_len(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.ballast.write(|| self.file.write(offset, data))
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

impl Backend for RedbBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let view = self.db.begin_read().map_err(from_redb)?;
        let records = view.open_table(RECORDS).map_err(from_redb)?;
        let found = records.get(key).map_err(from_redb)?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        let view = self.db.begin_read().map_err(from_redb)?;
        let records = view.open_table(RECORDS).map_err(from_redb)?;
        let mut found = Vec::new();
        for entry in records.range(from.max(prefix)..).map_err(from_redb)?.take(limit) {
            let (key, value) = entry.map_err(from_redb)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            found.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(found)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let bytes = batch
            .ops
            .iter()
            .map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len));
        let mut loose = self.loose_bytes.lock();
        *loose += bytes.sum::<usize>() as u64;
        let durability = if *loose > REDB_LOOSE_BYTES_MAX {
            *loose = 0;
            Durability::Immediate
        } else {
            Durability::None
        };
        self.transact(batch, durability)
    }

    /// One transaction for both: a second, empty one would sync the file again.
    fn apply_and_flush(&self, batch: Batch) -> Result<(), StoreError> {
        let mut loose = self.loose_bytes.lock();
        self.transact(batch, Durability::Immediate)?;
        *loose = 0;
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut loose = self.loose_bytes.lock();
        if *loose > 0 {
            self.transact(Batch::new(), Durability::Immediate)?;
            *loose = 0;
        }
        Ok(())
    }

    fn size_bytes(&self) -> Result<u64, StoreError> {
        Ok(std::fs::metadata(&self.path).map_err(from_io)?.len())
    }
}

fn from_redb(e: impl Into<redb::Error>) -> StoreError {
    match e.into() {
        redb::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => StoreError::Corrupt(e.to_string()),
        redb::Error::Io(e) => from_io(e),
        redb::Error::Corrupted(what) => StoreError::Corrupt(what),
        other => StoreError::Corrupt(other.to_string()),
    }
}
