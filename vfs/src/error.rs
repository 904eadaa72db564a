//! One error for the whole room, and the one table that turns it into an errno.

use crate::acl::AclError;
use cessfs_sync::{FetchError, StoreError};

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VfsError {
    /// `ENOENT`.
    #[error("no such file or directory")]
    NotFound,
    /// `EEXIST`.
    #[error("file exists")]
    Exists,
    /// `ENOTDIR`.
    #[error("not a directory")]
    NotDirectory,
    /// `EISDIR`.
    #[error("is a directory")]
    IsDirectory,
    /// `ENOTEMPTY`.
    #[error("directory not empty")]
    NotEmpty,
    /// `ENAMETOOLONG`: a name above 255 bytes, a symlink target above 4095.
    #[error("name too long")]
    NameTooLong,
    /// `EINVAL`, and why.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// `EINVAL`: an access control list that is none.
    #[error(transparent)]
    Acl(#[from] AclError),
    /// `EBUSY`.
    #[error("busy")]
    Busy,
    /// `EPERM`.
    #[error("operation not permitted")]
    NotPermitted,
    /// `EACCES`.
    #[error("access denied")]
    Access,
    /// `EMLINK`.
    #[error("too many links")]
    TooManyLinks,
    /// `ENOSPC`, and of what.
    #[error("no space left: {0}")]
    NoSpace(&'static str),
    /// `EFBIG`.
    #[error("file too large")]
    TooLarge,
    /// `ENODATA`.
    #[error("no such attribute")]
    NoAttribute,
    /// `ERANGE`.
    #[error("value does not fit the buffer")]
    Range,
    /// `ENXIO`: no data, or nothing at all, from there on.
    #[error("no such offset")]
    NoOffset,
    /// `E2BIG`.
    #[error("value too big")]
    TooBig,
    /// `EOPNOTSUPP`, and what.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// `ESTALE`: the inode is no more; the kernel looks the path up again.
    #[error("stale handle")]
    Stale,
    /// `EBADF`.
    #[error("bad handle")]
    BadHandle,
    /// `EROFS`.
    #[error("read-only file system")]
    ReadOnly,
    /// `EIO`: a block of the cache is not what was written there.
    #[error("cache of inode {ino} is damaged at byte {offset}")]
    Damaged {
        /// Whose cache.
        ino: u64,
        /// Byte of the file.
        offset: u64,
    },
    /// `EIO`: the disk under the cache.
    #[error("the cache disk failed: {0}")]
    Disk(std::sync::Arc<std::io::Error>),
    /// `EIO` or `ENOSPC`: the metadata store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// `EIO`: the network does not give a chunk back.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl From<std::io::Error> for VfsError {
    fn from(e: std::io::Error) -> VfsError {
        match e.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => VfsError::NoSpace("the cache disk is full"),
            _ => VfsError::Disk(std::sync::Arc::new(e)),
        }
    }
}

impl VfsError {
    /// The errno the kernel is told. Exhaustive on purpose.
    pub fn errno(&self) -> i32 {
        match self {
            VfsError::NotFound => libc::ENOENT,
            VfsError::Exists => libc::EEXIST,
            VfsError::NotDirectory => libc::ENOTDIR,
            VfsError::IsDirectory => libc::EISDIR,
            VfsError::NotEmpty => libc::ENOTEMPTY,
            VfsError::NameTooLong => libc::ENAMETOOLONG,
            VfsError::Invalid(_) | VfsError::Acl(_) => libc::EINVAL,
            VfsError::Busy => libc::EBUSY,
            VfsError::NotPermitted => libc::EPERM,
            VfsError::Access => libc::EACCES,
            VfsError::TooManyLinks => libc::EMLINK,
            VfsError::NoSpace(_) => libc::ENOSPC,
            VfsError::TooLarge => libc::EFBIG,
            VfsError::NoAttribute => libc::ENODATA,
            VfsError::Range => libc::ERANGE,
            VfsError::NoOffset => libc::ENXIO,
            VfsError::TooBig => libc::E2BIG,
            VfsError::Unsupported(_) => libc::EOPNOTSUPP,
            VfsError::Stale => libc::ESTALE,
            VfsError::BadHandle => libc::EBADF,
            VfsError::ReadOnly => libc::EROFS,
            VfsError::Damaged { .. } | VfsError::Disk(_) | VfsError::Fetch(_) => libc::EIO,
            VfsError::Store(StoreError::Full) => libc::ENOSPC,
            VfsError::Store(_) => libc::EIO,
        }
    }
}
