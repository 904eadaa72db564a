//! Stores of the trees of snapshots: a directory each, with a redb file, sealed if the volume is.

use super::OsEntropy;
use crate::config::{AtRestMode, VolumeConfig};
use crate::home::{VolumeDir, private_dir};
use crate::limits::TREE_CACHE_BYTES;
use cessfs_crypto::VolumeKeys;
use cessfs_sync::store::{Journal, RedbBackend, Sealer};
use cessfs_sync::{MetaStore, StoreError};
use cessfs_vfs::TreeStores;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

pub(super) struct TreeDirectory {
    dir: PathBuf,
    /// `None`: at rest they are plain.
    keys: Option<VolumeKeys>,
}

impl TreeDirectory {
    pub(super) fn new(dir: &VolumeDir, config: &VolumeConfig, keys: VolumeKeys) -> TreeDirectory {
        TreeDirectory {
            dir: dir.trees(),
            keys: (config.at_rest == AtRestMode::Sealed).then_some(keys),
        }
    }
}

impl TreeStores for TreeDirectory {
    fn open(&self, name: &str) -> Result<Arc<dyn MetaStore>, StoreError> {
        let dir = self.dir.join(name);
        private_dir(&dir).map_err(|e| StoreError::Io(Arc::new(std::io::Error::other(e.to_string()))))?;
        let backend = RedbBackend::open_with_cache(&dir, TREE_CACHE_BYTES)?;
        let keys = self.keys.as_ref();
        let sealer = keys.map(|keys| Sealer::new(keys.at_rest(), Box::new(OsEntropy)));
        Ok(Arc::new(Journal::new(backend, sealer)?))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        match std::fs::remove_dir_all(self.dir.join(name)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(StoreError::Io(Arc::new(e))),
            _ => Ok(()),
        }
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        let cannot = |e| StoreError::Io(Arc::new(e));
        let mut names = Vec::new();
        let entries = match std::fs::read_dir(&self.dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(names),
            entries => entries.map_err(cannot)?,
        };
        for entry in entries {
            // The names of trees are text: what has another name is not one of them.
            names.extend(entry.map_err(cannot)?.file_name().into_string());
        }
        Ok(names)
    }
}
