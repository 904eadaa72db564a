//! The staging directory: one file per pack that is not Confirmed yet, `<seq>.body`, mode 0600.
//!
//! What is in it is sealed, so it may rest on any disk. A file is removed only when its pack is Confirmed or abandoned.

use crate::disk::DiskRoom;
use crate::rules::{Rule, holds, persisted};
use crate::store::StoreError;
use bytes::Bytes;
use cessfs_crypto::PackSeq;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SUFFIX: &str = ".body";

/// Sorts an I/O error by what the caller does about it.
pub(crate) fn store_error(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::Io(Arc::new(error)),
    }
}

/// The directory; all calls block on the disk.
#[derive(Clone)]
pub(crate) struct Staging {
    dir: Arc<Path>,
    room: Arc<DiskRoom>,
}

impl Staging {
    /// Makes the directory (0700) if it is not there.
    pub(crate) fn open(dir: &Path) -> Result<Staging, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(store_error)?;
        Ok(Staging {
            dir: dir.into(),
            room: Arc::new(DiskRoom::new(dir)),
        })
    }

    fn path(&self, seq: PackSeq) -> PathBuf {
        self.dir.join(format!("{}{SUFFIX}", seq.0))
    }

    /// An empty file for a new pack; what a crash left under this number is no pack and goes.
    pub(crate) fn create(&self, seq: PackSeq) -> Result<File, StoreError> {
        persisted(&self.path(seq), false);
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(seq))
            .map_err(store_error)
    }

    /// The disk under the bodies.
    pub(crate) fn room(&self) -> Arc<DiskRoom> {
        self.room.clone()
    }

    /// Makes a finished body durable: its bytes, then its name.
    pub(crate) fn persist(&self, seq: PackSeq, body: &File) -> Result<(), StoreError> {
        if !holds(Rule::BodyFirst) {
            return Ok(());
        }
        body.sync_all().map_err(store_error)?;
        persisted(&self.path(seq), true);
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(store_error)
    }

    pub(crate) fn body(&self, seq: PackSeq) -> io::Result<File> {
        File::open(self.path(seq))
    }

    /// `len` bytes of a body.
    pub(crate) fn read(&self, seq: PackSeq, offset: u64, len: u32) -> io::Result<Bytes> {
        let mut out = vec![0; len as usize];
        self.body(seq)?.read_exact_at(&mut out, offset)?;
        Ok(out.into())
    }

    /// Removes a body; one that is not there is removed already.
    pub(crate) fn remove(&self, seq: PackSeq) -> Result<(), StoreError> {
        match std::fs::remove_file(self.path(seq)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(store_error(error)),
            _ => Ok(()),
        }
    }

    /// Removes every body that `keep` does not want: packs that were open, or were Confirmed just before a crash.
    pub(crate) fn sweep(&self, keep: impl Fn(PackSeq) -> bool) -> Result<(), StoreError> {
        for entry in std::fs::read_dir(&self.dir).map_err(store_error)? {
            let name = entry.map_err(store_error)?.file_name();
            let seq = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse().ok());
            if let Some(seq) = seq.map(PackSeq)
                && !keep(seq)
            {
                self.remove(seq)?;
            }
        }
        Ok(())
    }
}
