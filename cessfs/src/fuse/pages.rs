//! How much of what programs read and write the kernel keeps in its page cache ahead of them.
//!
//! By default a FUSE mount may have 1 % of the kernel's limit dirty, because a daemon that is slow, or wants to do harm, could
//! fill the memory with pages that nobody else can write. So a program that rewrites pages at random waits for every one of
//! them where a disk's filesystem would have written the last version once. This daemon writes to the local disk and never
//! waits for the network under a write that fits the cache, so its mount gets a larger share, still a strict one: see
//! [`DIRTY_PAGES_PERCENT`].
//!
//! And it reads ahead 128 KiB at most, whatever is negotiated: [`FUSE_READAHEAD_BYTES`] keeps more than one event loop busy
//! for one sequential reader. Both take root; without it all stays as it was.

use crate::limits::{DIRTY_PAGES_PERCENT, FUSE_READAHEAD_BYTES};
use crate::mountpoint;
use std::path::Path;

/// Gives the mount on `dir` its share of dirty pages, and its readahead.
pub fn widen(dir: &Path) {
    let mounts = mountpoint::mounts().unwrap_or_default();
    let Some(mount) = mountpoint::mounted_at(&mounts, dir) else {
        return;
    };
    for (name, value) in [
        ("max_ratio", DIRTY_PAGES_PERCENT),
        ("read_ahead_kb", FUSE_READAHEAD_BYTES / 1024),
    ] {
        let setting = format!("/sys/class/bdi/0:{}/{name}", mount.minor);
        if let Err(e) = std::fs::write(&setting, value.to_string()) {
            tracing::debug!("{setting}: {e}");
        }
    }
}
