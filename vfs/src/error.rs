//! One error for the whole room, and the one table that turns it into an errno.

use cessfs_sync::{FetchError, StoreError};

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VfsError {
    #[error("no such file or directory")]
    NotFound,
    #[error("file exists")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("directory not empty")]
    NotEmpty,
    #[error("name too long")]
    NameTooLong,
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    #[error("operation not permitted")]
    NotPermitted,
    #[error("access denied")]
    Access,
    #[error("too many links")]
    TooManyLinks,
    #[error("no space left: {0}")]
    NoSpace(&'static str),
    #[error("file too large")]
    TooLarge,
    #[error("no such attribute")]
    NoAttribute,
    #[error("value does not fit the buffer")]
    Range,
    #[error("value too big")]
    TooBig,
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    #[error("stale handle")]
    Stale,
    #[error("bad handle")]
    BadHandle,
    #[error("read-only file system")]
    ReadOnly,
    #[error("cache of inode {ino} is damaged at byte {offset}")]
    Damaged { ino: u64, offset: u64 },
    #[error("the cache disk failed: {0}")]
    Disk(std::sync::Arc<std::io::Error>),
    #[error(transparent)]
    Store(#[from] StoreError),
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
