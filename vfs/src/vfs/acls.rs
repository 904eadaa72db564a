//! Access control lists of inodes: set, told, and given to what is made in a directory.
//!
//! A list rests as an xattr, an access list without its copy of the permission bits mattering: what is told has the mode's
//! (see [`crate::acl`]). Who may set one, and what a list lets whom do, is the kernel's business.

use super::Vfs;
use crate::acl::Acl;
use crate::attr::{Caller, FileKind};
use crate::error::VfsError;
use crate::records::{InodeRecord, Xattr};
use crate::request::{AclKind, XattrMode};

/// Set-gid.
const SET_GID: u16 = 0o2000;
/// The bits of a mode that an access list says too.
const ACCESS_BITS: u16 = 0o777;

impl Vfs {
    /// Sets a list from its xattr form (`EINVAL` for what is none); one without entries removes it. An access list sets the
    /// permission bits too, and rests only if it says more than they do. It takes set-gid away unless
    /// `keeps_set_gid` says of the inode's group that the caller may keep it. `EACCES` for a default list of what is no
    /// directory; `EOPNOTSUPP` for symlinks.
    pub fn set_acl(
        &self,
        ino: u64,
        kind: AclKind,
        value: &[u8],
        keeps_set_gid: &dyn Fn(u32) -> bool,
    ) -> Result<(), VfsError> {
        self.core.check_room()?;
        let acl = Acl::parse(value)?;
        self.change_xattr(ino, kind.name(), |record, bucket| {
            match (record.kind, kind) {
                (FileKind::Symlink, _) => return Err(VfsError::Unsupported("access control lists of symlinks")),
                (FileKind::Directory, _) | (_, AclKind::Access) => {}
                (_, AclKind::Default) => return Err(VfsError::Access),
            }
            if kind == AclKind::Access
                && let Some(acl) = &acl
            {
                record.perm = (record.perm & !ACCESS_BITS) | acl.mode();
                if record.perm & SET_GID != 0 && !keeps_set_gid(record.gid) {
                    record.perm &= !SET_GID;
                }
            }
            let rests = acl.filter(|acl| kind == AclKind::Default || !acl.is_mode_only());
            match rests {
                Some(acl) => bucket.set(record, kind.name(), &acl.encode(), XattrMode::Any),
                None => match bucket.remove(record, kind.name()) {
                    Ok(()) | Err(VfsError::NoAttribute) => Ok(()),
                    Err(e) => Err(e),
                },
            }
        })
    }

    /// A stored list as it is told: with the permissions of the mode.
    pub(crate) fn told_acl(kind: AclKind, stored: Vec<u8>, perm: u16) -> Result<Vec<u8>, VfsError> {
        Ok(match (kind, Acl::parse(&stored)?) {
            (AclKind::Access, Some(acl)) => acl.with_mode(perm).encode(),
            _ => stored,
        })
    }

    /// Settles the permissions of `born`, which is about to be made in the locked directory `parent`: those asked for, less
    /// what the directory's default list (or, without one, the umask) takes away. Returns the lists it is born with.
    pub(super) fn inherit(
        &self,
        parent: u64,
        dir: &InodeRecord,
        born: &mut InodeRecord,
        caller: Caller,
    ) -> Result<Vec<Xattr>, VfsError> {
        if born.kind == FileKind::Symlink {
            return Ok(Vec::new()); // its mode is never looked at
        }
        let list = match self.stored_xattr(parent, dir, AclKind::Default.name())? {
            Some(list) => Acl::parse(&list)?,
            None => None,
        };
        let Some(acl) = list else {
            born.perm &= !(caller.umask & ACCESS_BITS);
            return Ok(Vec::new());
        };
        born.perm = acl.inherited_mode(born.perm);
        let list = |kind: AclKind, acl: &Acl| Xattr {
            name: kind.name().to_vec(),
            value: acl.encode(),
        };
        let mut lists = Vec::new();
        if !acl.is_mode_only() {
            lists.push(list(AclKind::Access, &acl.with_mode(born.perm)));
        }
        if born.kind == FileKind::Directory {
            lists.push(list(AclKind::Default, &acl));
        }
        Ok(lists)
    }
}
