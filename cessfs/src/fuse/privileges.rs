//! Set-id bits: when they go, as the kernel's own filesystems have it.
//!
//! Whether a set-gid bit stays may depend on what a request does not say of its caller: further groups and capabilities.
//! Only then `/proc/PID/status` is asked. The kernel knows better and would tell (`FUSE_SETXATTR_EXT`), but fuser 0.18 does
//! not read that form of the request.

use super::{Adapter, convert};
use cessfs_vfs::FileKind;
use fuser::{INodeNo, Request};
use std::fs;

/// Bit of CAP_FSETID in a capability set: its holder keeps set-id bits (capabilities(7)).
const CAP_FSETID: u32 = 4;

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
    let field = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let is_member =
        field("Groups").is_some_and(|groups| groups.split_whitespace().any(|group| group.parse() == Ok(gid)));
    let capabilities = field("CapEff").and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    is_member || capabilities.is_some_and(|set| set & (1 << CAP_FSETID) != 0)
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
    }
}
