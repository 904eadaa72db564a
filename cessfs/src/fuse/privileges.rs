//! Set-id bits: when they go, as the kernel's own filesystems have it; and who sees `trusted` attributes.
//!
//! Whether a set-gid bit stays may depend on what a request does not say of its caller: further groups and capabilities.
//! Only then `/proc/PID/status` is asked. The kernel knows better and would tell (`FUSE_SETXATTR_EXT`), but fuser 0.18 does
//! not read that form of the request.

use super::{Adapter, convert};
use cessfs_vfs::{FileKind, SetAttr, VfsError};
use fuser::{INodeNo, Request};
use std::fs;

/// Bit of CAP_FSETID in a capability set: its holder keeps set-id bits (capabilities(7)).
const CAP_FSETID: u32 = 4;
/// Bit of CAP_SYS_ADMIN: its holder sees `trusted` attributes (xattr(7)).
const CAP_SYS_ADMIN: u32 = 21;

impl Adapter {
    /// The permissions an inode has left once somebody who may not keep its set-id bits changes content or owner; `None` if
    /// nothing is lost.
    pub(super) fn loses_set_id(&self, req: &Request, ino: INodeNo) -> Option<u16> {
        if req.uid() == 0 {
            return None;
        }
        let attr = self.vfs.getattr(ino.0).ok()?;
        if attr.kind == FileKind::Directory {
            return None;
        }
        let kept = convert::without_set_id(attr.perm, || keeps_set_gid(req, attr.gid));
        (kept != attr.perm).then_some(kept)
    }

    /// The permissions that a SETATTR sets, in its own words or by what it changes besides.
    ///
    /// One that sets nothing comes before a write by somebody who may not keep set-id bits, through a file that is open then; or it
    /// is a chown(2) to no owner and no group, which takes them as any other does. With times of its own the kernel tells one of
    /// those by its ctime.
    ///
    /// # Errors
    /// `NotPermitted`: such a chown by somebody else would take bits.
    pub(super) fn perm_after(&self, req: &Request, ino: INodeNo, set: &SetAttr) -> Result<Option<u16>, VfsError> {
        if set.perm.is_some() || set.written_back {
            return Ok(set.perm);
        }
        if set.size.is_some() || set.uid.is_some() || set.gid.is_some() {
            return Ok(self.loses_set_id(req, ino));
        }
        if set.atime.is_some() || set.mtime.is_some() {
            return Ok(None);
        }
        if set.ctime.is_none() && self.vfs.is_open_to_write(ino.0) {
            return Ok(self.loses_set_id(req, ino));
        }
        let attr = self.vfs.getattr(ino.0)?;
        if attr.kind == FileKind::Directory {
            return Ok(None);
        }
        let is_root = req.uid() == 0;
        let kept = convert::without_set_id(attr.perm, || is_root || keeps_set_gid(req, attr.gid));
        match kept != attr.perm {
            true if is_root || req.uid() == attr.uid => Ok(Some(kept)),
            true => Err(VfsError::NotPermitted),
            false => Ok(None),
        }
    }

    /// Makes the kernel forget an inode's attributes: it does not expect a write to change the mode. Not from an event loop,
    /// whose request the kernel may be waiting for.
    pub(super) fn attributes_changed(&self, ino: INodeNo) {
        let kernel = self.kernel.clone();
        self.runtime.spawn_blocking(move || {
            if let Some(Err(e)) = kernel.get().map(|notifier| notifier.inval_inode(ino, -1, 0)) {
                tracing::debug!(ino = ino.0, "the kernel keeps its attributes: {e}");
            }
        });
    }
}

/// Whether the caller may leave the set-gid bit on an inode of group `gid`: as a member, or by capability. A caller that
/// cannot be looked at (gone, or of another PID namespace) may not.
pub fn keeps_set_gid(req: &Request, gid: u32) -> bool {
    req.gid() == gid
        || fs::read_to_string(format!("/proc/{}/status", req.pid())).is_ok_and(|status| allows(&status, gid))
}

/// The same by the text of `/proc/PID/status`.
fn allows(status: &str, gid: u32) -> bool {
    let is_member =
        field(status, "Groups").is_some_and(|groups| groups.split_whitespace().any(|group| group.parse() == Ok(gid)));
    is_member || is_capable(status, CAP_FSETID)
}

/// Who asks for names of attributes.
#[derive(Clone, Copy)]
pub struct Asker {
    uid: u32,
    pid: u32,
}

impl Asker {
    pub fn of(req: &Request) -> Asker {
        Asker {
            uid: req.uid(),
            pid: req.pid(),
        }
    }

    /// Whether it may know of `trusted` attributes: root may, with the capability. The capability alone proves nothing: in a
    /// user namespace of its own everybody has it. One that cannot be looked at may not.
    pub fn sees_trusted(self) -> bool {
        let status = || fs::read_to_string(format!("/proc/{}/status", self.pid));
        self.uid == 0 && status().is_ok_and(|status| is_capable(&status, CAP_SYS_ADMIN))
    }
}

/// The text of `/proc/PID/status` has this effective capability.
fn is_capable(status: &str, capability: u32) -> bool {
    let set = field(status, "CapEff").and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set & (1 << capability) != 0)
}

pub(super) fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    let mut lines = status.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_the_capable_keep_set_gid() {
        let status = "Name:\tsh\nGid:\t5\t5\t5\t5\nGroups:\t24 27 1000 \nCapEff:\t0000000000000000\n";
        assert!(allows(status, 24) && allows(status, 1000));
        assert!(!allows(status, 2) && !allows(status, 0));
        assert!(allows("Groups:\t\nCapEff:\t0000000000000010\n", 7));
        assert!(!allows("Groups:\t\nCapEff:\tffffffffffffffef\n", 7));
        assert!(!allows("", 0));
        assert!(is_capable("CapEff:\t0000000000200000\n", CAP_SYS_ADMIN));
        assert!(!is_capable("CapEff:\tffffffffffdfffff\n", CAP_SYS_ADMIN) && !is_capable("", CAP_SYS_ADMIN));
    }
}
