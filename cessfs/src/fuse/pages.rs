//! How much of what programs write the kernel may keep in its page cache before it makes them wait.
//!
//! By default a FUSE mount may have 1 % of the kernel's limit dirty, because a daemon that is slow, or wants to do harm, could
//! fill the memory with pages that nobody else can write. So a program that rewrites pages at random waits for every one of
//! them where a disk's filesystem would have written the last version once. This daemon writes to the local disk and never
//! waits for the network under a write that fits the cache, so its mount gets a larger share, still a strict one: see
//! [`DIRTY_PAGES_PERCENT`]. It takes root; without it all stays as it was.

use crate::limits::DIRTY_PAGES_PERCENT;
use crate::mountpoint;
use std::path::Path;

/// Gives the mount on `dir` its share.
pub fn widen(dir: &Path) {
    let mounts = mountpoint::mounts().unwrap_or_default();
    let Some(mount) = mountpoint::mounted_at(&mounts, dir) else {
        return;
    };
    let limit = format!("/sys/class/bdi/0:{}/max_ratio", mount.minor);
    if let Err(e) = std::fs::write(&limit, DIRTY_PAGES_PERCENT.to_string()) {
        tracing::debug!("{limit}: {e}");
    }
}
