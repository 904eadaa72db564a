//! Open files by handle number.

use crate::error::VfsError;
use crate::inode::Inode;
use crate::request::OpenFlags;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One open file.
pub(super) struct Handle {
    pub(super) inode: Arc<Inode>,
    pub(super) flags: OpenFlags,
}

/// The open files. Bounded by what the kernel lets processes open.
pub(super) struct HandleTable {
    open: RwLock<HashMap<u64, Arc<Handle>>>,
    next: AtomicU64,
}

impl HandleTable {
    pub(super) fn new() -> HandleTable {
        HandleTable {
            open: RwLock::new(HashMap::new()),
            next: AtomicU64::new(1),
        }
    }

    /// A handle on an inode whose `opens` already counts it. Numbers start at 1 and are not reused.
    pub(super) fn insert(&self, inode: Arc<Inode>, flags: OpenFlags) -> u64 {
        let fh = self.next.fetch_add(1, Ordering::Relaxed);
        inode.writers.fetch_add(u32::from(flags.write), Ordering::Relaxed);
        self.open.write().insert(fh, Arc::new(Handle { inode, flags }));
        fh
    }

    /// The open file behind `fh`, if it is one of inode `ino`.
    pub(super) fn get(&self, ino: u64, fh: u64) -> Result<Arc<Handle>, VfsError> {
        let open = self.open.read();
        let handle = open.get(&fh).filter(|handle| handle.inode.ino == ino);
        handle.cloned().ok_or(VfsError::BadHandle)
    }

    pub(super) fn remove(&self, ino: u64, fh: u64) -> Result<Arc<Handle>, VfsError> {
        let mut open = self.open.write();
        match open.get(&fh) {
            Some(handle) if handle.inode.ino == ino => {
                let handle = open.remove(&fh).expect("it was just found under the lock");
                let writes = u32::from(handle.flags.write);
                handle.inode.writers.fetch_sub(writes, Ordering::Relaxed);
                Ok(handle)
            }
            _ => Err(VfsError::BadHandle),
        }
    }
}
