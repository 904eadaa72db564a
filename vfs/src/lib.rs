//! Inodes, dentries, extents, cache and writeback: what a file is.
//!
//! Knows no chain, no miner and no fragment; hands chunks to a [`ChunkStore`](cessfs_sync::ChunkStore) and asks it for
//! them. Never awaits the network while holding a lock: what must wait comes back as [`Later`].

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests have threads and wait for them")
)]

pub mod acl;
pub mod attr;
mod backing;
mod change;
pub mod check;
pub mod core;
pub mod data;
pub mod delta;
mod dentry;
pub mod error;
mod evict;
#[cfg(test)]
mod fakes;
pub mod fsck;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod ino_counter;
pub mod inode;
pub mod limits;
mod pace;
mod places;
pub mod quota;
pub mod records;
mod recover;
mod request;
pub mod restore;
pub mod snapshot;
pub mod stages;
mod trash;
mod vfs;
mod writeback;

pub use attr::{Attr, Caller, DirEntry, ExtentInfo, FileKind, SetAttr, StatFs, TimeSet, Timestamp};
pub use core::{AtRest, AtimeRule, Core, VfsConfig, VfsParts};
pub use data::Content;
pub use error::VfsError;
pub use evict::EvictReport;
pub use quota::QuotaReport;
pub use request::{AclKind, OpenFlags, RenameFlags, Seek, SpaceChange, XattrMode};
pub use snapshot::number::is_snapshot;
pub use snapshot::{Snapshot, Tree, TreeStores};
pub use trash::{TrashItem, TrashSize};
pub use vfs::Vfs;
pub use vfs::files::Opened;
pub use vfs::snapshots::Look;
pub use vfs::unsent::{Unsent, Unsents};
pub use vfs::virtual_dir::is_virtual;

/// Why the kernel cannot be given files of this cache directory to read and write itself; `None` if it can. Tries it with a
/// file of its own there.
pub fn passthrough_obstacle(cache_dir: &std::path::Path) -> Option<String> {
    data::passthrough::why_not(cache_dir)
}

impl<T: Send + 'static> Later<T> {
    /// Tells `note` should the wait end badly.
    pub fn note_failure(self, note: impl FnOnce(&VfsError) + Send + 'static) -> Later<T> {
        match self {
            Later::Ready(value) => Later::Ready(value),
            Later::Wait(wait) => Later::Wait(Box::pin(async move { wait.await.inspect_err(note) })),
            Later::Block(work) => Later::Block(Box::new(|| work().inspect_err(note))),
        }
    }

    /// The answer, for those who may block where they are.
    pub async fn settled(self) -> Result<T, VfsError> {
        match self {
            Later::Ready(value) => Ok(value),
            Later::Wait(wait) => wait.await,
            Later::Block(work) => work(),
        }
    }
}

/// An answer that is there, or one that has to wait for the network (as a future that holds no lock) or for the disk.
pub enum Later<T> {
    /// Done.
    Ready(T),
    /// Resolves when the network answered; run it off the FUSE threads.
    Wait(futures::future::BoxFuture<'static, Result<T, VfsError>>),
    /// Flushes the disk and then has the answer; run it on a thread that may block.
    Block(Box<dyn FnOnce() -> Result<T, VfsError> + Send>),
}
