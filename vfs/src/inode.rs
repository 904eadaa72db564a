//! Inodes in memory: one [`Inode`] per inode in use, shared by everybody who holds it.
//!
//! Lock order: the gate of the change marks, the rename mutex, then inodes by ascending number; within one inode `appends`
//! before `state`. Nobody awaits the network or
//! calls the chunk store's blocking side while holding it.
//!
//! An inode's record in memory is the truth while the inode is in the [`InodeTable`]; the store follows with every
//! committed batch. Only access times may run ahead of the store ([`InodeState::lazy`]).

use crate::core::Core;
use crate::error::VfsError;
use crate::records::{self, InodeRecord};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

mod table;

pub use table::InodeTable;

/// The root directory.
pub const ROOT_INO: u64 = 1;

/// A live inode.
#[derive(Debug)]
pub struct Inode {
    /// Its number; never reused within a volume.
    pub ino: u64,
    /// Everything that changes.
    pub state: RwLock<InodeState>,
    /// Appending writes queue here, outside `state`: each must see the size that the one before left.
    pub(crate) appends: Mutex<()>,
    /// Blocks counted for the quota that the record names, if it names one. Changes under `state`'s exclusive lock.
    pub(crate) charged: AtomicU64,
    /// Open handles that may write.
    pub(crate) writers: AtomicU32,
}

/// What changes about a live inode.
#[derive(Debug)]
pub struct InodeState {
    /// The record as last journaled (or about to be).
    pub record: InodeRecord,
    /// Open file handles.
    pub opens: u32,
    /// The record has an access time (or cleared set-id bits) that no batch carried yet. Whoever journals the record may
    /// clear it.
    pub lazy: bool,
    /// Last link and last handle are gone and every record is deleted; only `getattr` still answers, until the kernel
    /// forgets it.
    pub gone: bool,
    /// Its content's state in memory (owned by the data room).
    pub data: crate::data::DataState,
}

impl Inode {
    /// An inode with this record and nothing open.
    pub fn new(ino: u64, record: InodeRecord) -> Inode {
        Inode {
            ino,
            appends: Mutex::new(()),
            charged: AtomicU64::new(record.blocks),
            writers: AtomicU32::new(0),
            state: RwLock::new(InodeState {
                record,
                opens: 0,
                lazy: false,
                gone: false,
                data: crate::data::DataState::default(),
            }),
        }
    }

    /// Reads the inode from the store; `Stale` if there is no such inode.
    fn load(core: &Core, ino: u64) -> Result<Inode, VfsError> {
        let value = core.store.get(&records::inode_key(ino))?.ok_or(VfsError::Stale)?;
        Ok(Inode::new(ino, InodeRecord::decode(&value)?))
    }
}

impl InodeState {
    /// Fails with `Stale` once everything about the inode is deleted.
    pub fn check_alive(&self) -> Result<(), VfsError> {
        if self.gone { Err(VfsError::Stale) } else { Ok(()) }
    }
}

/// Inodes locked for writing together.
pub(crate) struct Locked<'a> {
    guards: Vec<(&'a Arc<Inode>, RwLockWriteGuard<'a, InodeState>)>,
}

/// Locks inodes for writing in the one order that cannot deadlock: ascending numbers, each once.
pub(crate) fn lock_many<'a>(inodes: impl IntoIterator<Item = &'a Arc<Inode>>) -> Locked<'a> {
    let _span = crate::stages::LOCK_INODES.enter();
    let mut sorted: Vec<&Arc<Inode>> = inodes.into_iter().collect();
    sorted.sort_unstable_by_key(|inode| inode.ino);
    sorted.dedup_by_key(|inode| inode.ino);
    Locked {
        guards: sorted.into_iter().map(|inode| (inode, inode.state.write())).collect(),
    }
}

impl<'a> Locked<'a> {
    /// The state of one of the locked inodes.
    pub(crate) fn state(&self, ino: u64) -> &InodeState {
        let found = self.guards.iter().find(|(inode, _)| inode.ino == ino);
        &found.expect("asked for an inode that this operation locked").1
    }

    /// The state of one of the locked inodes, to change.
    pub(crate) fn state_mut(&mut self, ino: u64) -> &mut InodeState {
        let found = self.guards.iter_mut().find(|(inode, _)| inode.ino == ino);
        &mut found.expect("asked for an inode that this operation locked").1
    }

    /// One of the locked inodes with its state.
    pub(crate) fn inode_mut(&mut self, ino: u64) -> (&'a Arc<Inode>, &mut InodeState) {
        let found = self.guards.iter_mut().find(|(inode, _)| inode.ino == ino);
        let (inode, guard) = found.expect("asked for an inode that this operation locked");
        (inode, guard)
    }

    /// Numbers of the locked inodes, ascending.
    pub(crate) fn inos(&self) -> impl Iterator<Item = u64> + '_ {
        self.guards.iter().map(|(inode, _)| inode.ino)
    }
}

#[cfg(test)]
mod tests;
