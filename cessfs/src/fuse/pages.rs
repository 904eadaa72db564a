//! How much of what programs write the kernel may keep in its page cache before it makes them wait.
//!
//! By default a FUSE mount may have 1 % of the kernel's limit dirty, because a daemon that is slow, or wants to do harm, could
//! fill the memory with pages that nobody else can write. So a program that rewrites pages at random waits for every one of
//! them where a disk's filesystem would have written the last version once. This daemon writes to the local disk and never
//! waits for the network under a write that fits the cache, so its mount gets a larger share. In return the daemon must not be
//! held up by the pages that it is there to clean: `PR_SET_IO_FLUSHER` says so. Both need root; without it all stays as it
//! was.

use crate::limits::{DIRTY_PAGES_PERCENT, DIRTY_PAGES_STRICT};
use crate::mountpoint;
use std::path::{Path, PathBuf};

/// Of `linux/prctl.h` (Linux 5.6); not in the libc crate.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Tells the kernel that this thread, and those it starts, clean the pages of others. True if it took it.
pub fn clean_for_others() -> bool {
    // SAFETY: this prctl takes integers and sets two flags of the calling thread; no memory is touched.
    unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0 }
}

/// Gives the mount on `dir` its share.
pub fn widen(dir: &Path) {
    let Some(device) = device(dir) else { return };
    // The share counts only up to where the strict limit ends.
    for (file, value) in [("max_ratio", DIRTY_PAGES_PERCENT), ("strict_limit", DIRTY_PAGES_STRICT)] {
        if let Err(e) = std::fs::write(device.join(file), value.to_string()) {
            tracing::debug!("{}: {e}", device.join(file).display());
        }
    }
}

/// The mount's entry among those that write pages back.
fn device(dir: &Path) -> Option<PathBuf> {
    let mounts = mountpoint::mounts().ok()?;
    let minor = mountpoint::mounted_at(&mounts, dir)?.minor;
    Some(PathBuf::from(format!("/sys/class/bdi/0:{minor}")))
}
