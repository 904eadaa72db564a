//! Inodes in memory: one [`Inode`] per inode in use, shared by everybody who holds it.
//!
//! Lock order: inodes by ascending number; within one inode `state` is the only lock. Nobody awaits the network or
//! calls the chunk store's blocking side while holding it.

use crate::records::InodeRecord;
use parking_lot::RwLock;

/// A live inode.
#[derive(Debug)]
pub struct Inode {
    /// Its number; never reused within a volume.
    pub ino: u64,
    /// Everything that changes.
    pub state: RwLock<InodeState>,
}

/// What changes about a live inode.
#[derive(Debug)]
pub struct InodeState {
    /// The record as last journaled (or about to be).
    pub record: InodeRecord,
    /// Open file handles.
    pub opens: u32,
    /// Its content's state in memory (owned by the data room).
    pub data: crate::data::DataState,
}
