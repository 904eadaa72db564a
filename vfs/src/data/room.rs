//! Room: what `cache_size` leaves for content, and what the disk under the cache does.
//!
//! The cache keeps what the network has as long as nobody needs the room, and no longer: it gives way when it is larger than it
//! may be, and when its disk is nearly full ([`evict`](crate::evict)). What only this machine has never does.

use super::Shared;
use crate::limits::{CACHE_SLACK_BYTES_MIN, EVICT_TO_PERCENT};
use cessfs_sync::limits::PACK_BYTES_MAX;

impl Shared {
    /// The cache may grow.
    pub(crate) fn has_room(&self) -> bool {
        let max = self.core.config.cache_bytes_max;
        let slack = (max / 8).max(CACHE_SLACK_BYTES_MIN);
        self.backing.used_bytes() < max.saturating_add(slack)
    }

    /// The cache, or the disk under it, has no room for content to come.
    pub(super) fn is_tight(&self) -> bool {
        !self.has_room() || !self.disk_takes(0)
    }

    /// The disk takes so many bytes of content, and the reserve is left.
    pub(super) fn disk_takes(&self, bytes: u64) -> bool {
        #[cfg(test)]
        if let Some(room) = ROOM.get() {
            return self.backing.used_bytes() + bytes <= room;
        }
        self.disk.take(bytes).is_ok()
    }

    /// Bytes by which the cache is larger than it may be, or than its disk can bear.
    pub(crate) fn bytes_too_many(&self) -> u64 {
        let (used, max) = (self.backing.used_bytes(), self.core.config.cache_bytes_max);
        let over = match used > max {
            true => used - max / 100 * EVICT_TO_PERCENT,
            false => 0,
        };
        over.max(self.disk_wants().min(used))
    }

    /// Bytes that the disk lacks for the largest pack.
    pub(crate) fn pack_lacks(&self) -> u64 {
        #[cfg(test)]
        if let Some(room) = ROOM.get() {
            return (self.backing.used_bytes() + PACK_BYTES_MAX).saturating_sub(room);
        }
        self.disk.lacking(PACK_BYTES_MAX)
    }

    fn disk_wants(&self) -> u64 {
        #[cfg(test)]
        if let Some(room) = ROOM.get() {
            let used = self.backing.used_bytes();
            return if used > room / 4 * 3 { used - room / 2 } else { 0 };
        }
        self.disk.wanting()
    }
}

#[cfg(test)]
thread_local! {
    /// What the disk has for the cache of this thread's test.
    pub(crate) static ROOM: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}
