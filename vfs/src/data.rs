//! File content: backing files, extents, reads and writes.

use crate::core::Core;
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::{EvictReport, ExtentInfo, Later};
use cessfs_sync::{Batch, DeltaSource};
use std::sync::Arc;

/// The state of a live inode's content in memory.
#[derive(Debug, Default)]
pub struct DataState {}

/// Content of all files of a volume. Cheap to clone.
#[derive(Clone)]
pub struct Data(Arc<Core>);

#[allow(unused_variables, clippy::unimplemented)]
impl Data {
    /// Opens the backing files and what the last mount left to write back. Once per volume, after `Core::new`.
    pub fn open(core: Arc<Core>) -> Result<Data, VfsError> {
        unimplemented!()
    }
    /// After an unclean end, once orphans are swept and before anything else: compares the cache with the journal.
    pub fn recover(&self) -> Result<(), VfsError> {
        unimplemented!()
    }
    /// Starts the background threads.
    pub fn start(&self) -> Result<(), VfsError> {
        unimplemented!()
    }
    /// Stops the background threads and journals everything that is pending. The caller makes it durable.
    pub fn stop(&self) -> Result<(), VfsError> {
        unimplemented!()
    }
    /// Reads at most `len` bytes.
    pub fn read(&self, inode: &Arc<Inode>, offset: u64, len: u32) -> Result<Later<Vec<u8>>, VfsError> {
        unimplemented!()
    }
    /// Writes `data`; updates size, times and blocks of the record. Takes the mutation guard and the inode's lock itself.
    pub fn write(&self, inode: &Arc<Inode>, offset: u64, data: &[u8]) -> Result<Later<u32>, VfsError> {
        unimplemented!()
    }
    /// Truncates or extends: changes `state.record` (size, blocks) and adds extents to `batch`; the caller adds the record.
    pub fn set_size(
        &self,
        inode: &Inode,
        state: &mut InodeState,
        size: u64,
        batch: &mut Batch,
    ) -> Result<(), VfsError> {
        unimplemented!()
    }
    /// Adds to `batch` what content has changed and not journaled yet. Called by whoever journals a regular file's record, so
    /// that a size never runs ahead of the extents under it.
    pub fn stage(&self, inode: &Inode, state: &mut InodeState, batch: &mut Batch) -> Result<(), VfsError> {
        unimplemented!()
    }
    /// Everything written before is on this disk when it returns.
    pub fn fsync(&self, inode: &Arc<Inode>, data_only: bool) -> Result<(), VfsError> {
        unimplemented!()
    }
    /// Last link and last handle are gone: deletes content records; the backing file goes once that is durable.
    pub fn discard(&self, inode: &Inode, state: &mut InodeState, batch: &mut Batch) -> Result<(), VfsError> {
        unimplemented!()
    }
    /// The last handle was closed.
    pub fn released(&self, inode: &Arc<Inode>) {
        unimplemented!()
    }
    /// The chunks of a file, for `explain`.
    pub fn extents(&self, inode: &Inode) -> Result<Vec<ExtentInfo>, VfsError> {
        unimplemented!()
    }
    /// Bytes of chunks not known to be in a sealed pack.
    pub fn dirty_bytes(&self) -> u64 {
        unimplemented!()
    }
    /// Bytes the backing files take on the disk.
    pub fn cache_bytes(&self) -> u64 {
        unimplemented!()
    }
    /// Everything dirty at the call has been submitted when it returns.
    pub fn write_back_all(&self) -> Result<(), VfsError> {
        unimplemented!()
    }
    /// Drops every chunk from the cache that the network is known to hold.
    pub fn evict_all(&self) -> Result<EvictReport, VfsError> {
        unimplemented!()
    }
    /// What went wrong lately, newest last.
    pub fn errors(&self) -> Vec<String> {
        unimplemented!()
    }
    /// The other end of the pipeline's upcall.
    pub fn delta_source(&self) -> Arc<dyn DeltaSource> {
        unimplemented!()
    }
}
