//! Security labels on a system that has no use for them.
//!
//! `ls -l` asks every file for its SELinux label, and the kernel keeps no answer: a request for each line it prints. If the
//! first answer is `EOPNOTSUPP` it asks no more on this filesystem. So a label that is not there is "not supported" where
//! no SELinux runs, and "not there" where one does. A label that was set is told either way, and all can be set.

use std::ffi::OsStr;
use std::path::Path;

const SELINUX: &str = "security.selinux";
/// There while SELinux runs.
const SELINUX_FS: &str = "/sys/fs/selinux/enforce";

/// Whether this system looks at labels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Labels {
    selinux: bool,
}

impl Labels {
    /// As it is now; nobody starts SELinux later than the system.
    pub(super) fn here() -> Labels {
        Labels {
            selinux: Path::new(SELINUX_FS).exists(),
        }
    }

    /// This attribute is a label that nobody would look at.
    pub(super) fn are_pointless(self, name: &OsStr) -> bool {
        !self.selinux && name == SELINUX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labels_of_what_does_not_run_are_pointless() {
        let (without, with) = (Labels { selinux: false }, Labels { selinux: true });
        assert!(without.are_pointless(OsStr::new("security.selinux")));
        assert!(!with.are_pointless(OsStr::new("security.selinux")));
        for name in ["security.capability", "user.security.selinux", "security.SELINUX"] {
            assert!(!without.are_pointless(OsStr::new(name)), "{name}");
        }
    }
}
