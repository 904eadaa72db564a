//! One error for the whole room, and the one table that turns it into an errno.

use cessfs_sync::{FetchError, StoreError};

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VfsError {
    /// ENOENT.
    #[error("no such file or directory")]
    NotFound,
    /// EEXIST.
    #[error("file exists")]
    Exists,
    /// ENOTDIR.
    #[error("not a directory")]
    NotDirectory,
    /// EISDIR.
    #[error("is a directory")]
    IsDirectory,
    /// ENOTEMPTY.
    #[error("directory not empty")]
    NotEmpty,
    /// ENAMETOOLONG.
    #[error("name too long")]
    NameTooLong,
    /// EINVAL, and what was wrong.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// EPERM.
    #[error("operation not permitted")]
    NotPermitted,
    /// EACCES.
    #[error("access denied")]
    Access,
    /// EMLINK.
    #[error("too many links")]
    TooManyLinks,
    /// ENOSPC, and which space.
    #[error("no space left: {0}")]
    NoSpace(&'static str),
    /// EFBIG.
    #[error("file too large")]
    TooLarge,
    /// ENODATA.
    #[error("no such attribute")]
    NoAttribute,
    /// ERANGE.
    #[error("value does not fit the buffer")]
    Range,
    /// E2BIG.
    #[error("value too big")]
    TooBig,
    /// EOPNOTSUPP.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// ESTALE.
    #[error("stale handle")]
    Stale,
    /// EBADF.
    #[error("bad handle")]
    BadHandle,
    /// EROFS.
    #[error("read-only file system")]
    ReadOnly,
    /// A backing block does not open and the network has no copy.
    #[error("cache of inode {ino} is damaged at byte {offset}")]
    Damaged { ino: u64, offset: u64 },
    /// The cache disk refused.
    #[error("the cache disk failed: {0}")]
    Disk(std::sync::Arc<std::io::Error>),
    /// The journal refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network cannot give a chunk.
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
            VfsError::Invalid(_) => libc::EINVAL,
            VfsError::NotPermitted => libc::EPERM,
            VfsError::Access => libc::EACCES,
            VfsError::TooManyLinks => libc::EMLINK,
            VfsError::NoSpace(_) => libc::ENOSPC,
            VfsError::TooLarge => libc::EFBIG,
            VfsError::NoAttribute => libc::ENODATA,
            VfsError::Range => libc::ERANGE,
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
