//! How callers ask: flags of open, rename and setxattr, and the names of access control lists, as plain values, no FUSE
//! types.

use crate::attr::Caller;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Every write goes to the end of the file.
    pub append: bool,
    /// Cut to nothing (`O_TRUNC`).
    pub truncate: bool,
    /// Past the page cache (`O_DIRECT`).
    pub direct: bool,
    /// Every write is durable on this disk when it returns (`O_SYNC`, `O_DSYNC`).
    pub sync: bool,
}

/// What `renameat2` may ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameFlags {
    /// Fail if the new name exists.
    pub no_replace: bool,
    /// Swap the two names.
    pub exchange: bool,
    /// Leave a whiteout (a 0/0 character device), made by this caller, under the old name.
    pub whiteout: Option<Caller>,
}

/// What `fallocate` does with a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceChange {
    /// Takes space for it; what is there stays.
    Reserve,
    /// Makes it read as zeros, and keeps or takes space for it.
    Zero,
    /// Makes it read as zeros, and gives its space back.
    Punch,
}

/// What `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that is not in a hole (`SEEK_DATA`).
    Data,
    /// The next byte that is in a hole; the end of the file is one (`SEEK_HOLE`).
    Hole,
}

/// Whether an xattr may or must exist before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrMode {
    /// Either.
    #[default]
    Any,
    /// It must not (`EEXIST`).
    Create,
    /// It must (`ENODATA`).
    Replace,
    /// Both at once (`EEXIST` or `ENODATA`).
    Never,
}

/// The two access control lists that an inode may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclKind {
    /// Who may do what with it.
    Access,
    /// Directories: what is made inside starts with it.
    Default,
}

impl AclKind {
    /// The xattr that holds it.
    pub fn name(self) -> &'static [u8] {
        match self {
            AclKind::Access => b"system.posix_acl_access",
            AclKind::Default => b"system.posix_acl_default",
        }
    }

    /// The list that an xattr holds, if it holds one.
    pub fn of(name: &[u8]) -> Option<AclKind> {
        [AclKind::Access, AclKind::Default]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}
