//! One error for the whole room, and the one table that turns it into an errno.

use cessfs_sync::{FetchError, StoreError};

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VfsError {
    /// ENOENT.
    /// `ENOENT`.
    #[error("no such file or directory")]
    NotFound,
    /// EEXIST.
    /// `EEXIST`.
    #[error("file exists")]
    Exists,
    /// ENOTDIR.
    /// `ENOTDIR`.
    #[error("not a directory")]
    NotDirectory,
    /// EISDIR.
    /// `EISDIR`.
    #[error("is a directory")]
    IsDirectory,
    /// ENOTEMPTY.
    /// `ENOTEMPTY`.
    #[error("directory not empty")]
    NotEmpty,
    /// ENAMETOOLONG.
    /// `ENAMETOOLONG`: a name above 255 bytes, a symlink target above 4095.
    #[error("name too long")]
    NameTooLong,
    /// EINVAL, and what was wrong.
    /// `EINVAL`, and why.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// EPERM.
    /// `EBUSY`.
    #[error("busy")]
    Busy,
    /// `EPERM`.
    #[error("operation not permitted")]
    NotPermitted,
    /// EACCES.
    /// `EACCES`.
    #[error("access denied")]
    Access,
    /// EMLINK.
    /// `EMLINK`.
    #[error("too many links")]
    TooManyLinks,
    /// ENOSPC, and which space.
    /// `ENOSPC`, and of what.
    #[error("no space left: {0}")]
    NoSpace(&'static str),
    /// `EDQUOT`.
    #[error("the quota of the directory tree is used up")]
    Quota,
    /// `EXDEV`: the two directories count for different quotas.
    #[error("a directory or a hard link cannot move into a tree with another quota")]
    CrossesQuota,
    /// EFBIG.
    /// `EFBIG`.
    #[error("file too large")]
    TooLarge,
    /// ENODATA.
    /// `ENODATA`.
    #[error("no such attribute")]
    NoAttribute,
    /// ERANGE.
    /// `ERANGE`.
    #[error("value does not fit the buffer")]
    Range,
    /// E2BIG.
    /// `E2BIG`.
    #[error("value too big")]
    TooBig,
    /// EOPNOTSUPP.
    /// `EOPNOTSUPP`, and what.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// ESTALE.
    /// `ESTALE`: the inode is no more; the kernel looks the path up again.
    #[error("stale handle")]
    Stale,
    /// EBADF.
    /// `EBADF`.
    #[error("bad handle")]
    BadHandle,
    /// EROFS.
    /// `EROFS`.
    #[error("read-only file system")]
    ReadOnly,
    /// A backing block does not open and the network has no copy.
    /// `EIO`: a block of the cache is not what was written there.
    #[error("cache of inode {ino} is damaged at byte {offset}")]
    Damaged {
        /// Whose cache.
        ino: u64,
        /// Byte of the file.
        offset: u64,
    },
    /// The cache disk refused.
    /// `EIO`: the disk under the cache.
    #[error("the cache disk failed: {0}")]
    Disk(std::sync::Arc<std::io::Error>),
    /// The journal refused.
    /// `EIO` or `ENOSPC`: the metadata store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network cannot give a chunk.
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
            VfsError::Invalid(_) => libc::EINVAL,
            VfsError::Busy => libc::EBUSY,
            VfsError::NotPermitted => libc::EPERM,
            VfsError::Access => libc::EACCES,
            VfsError::TooManyLinks => libc::EMLINK,
            VfsError::NoSpace(_) => libc::ENOSPC,
            VfsError::Quota => libc::EDQUOT,
            VfsError::CrossesQuota => libc::EXDEV,
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
