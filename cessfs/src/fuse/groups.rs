//! What a request does not say of its caller: further groups and capabilities, from `/proc/PID/status`.
//!
//! Asked only where a set-gid bit depends on it. The kernel knows better and would tell (`FUSE_SETXATTR_EXT`), but fuser
//! 0.18 does not read that form of the request.

use fuser::Request;
use std::fs;

/// Bit of CAP_FSETID in a capability set: its holder keeps set-id bits (capabilities(7)).
const CAP_FSETID: u32 = 4;

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
