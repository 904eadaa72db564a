//! The reserve: room that content leaves free on the local disk, so that the journal can always be written.
//!
//! A journal that meets a full disk cannot be trusted to go on; a write of content that meets one simply fails. So content
//! stops early, with "disk full", while the journal still has room, also for the deletions that make room again.

use crate::limits::{DISK_EASE_BYTES, DISK_EASE_BYTES_MIN, DISK_EASE_SHARE, DISK_LOOK_BYTES, DISK_RESERVE_BYTES};
use crate::store::StoreError;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of a disk.
pub(crate) struct Disk {
    pub(crate) total: u64,
    pub(crate) available: u64,
}

impl Disk {
    /// The disk that `path` lies on; `None` if it does not tell.
    pub(crate) fn of(path: &Path) -> Option<Disk> {
        let disk = nix::sys::statvfs::statvfs(path).ok()?;
        Some(Disk {
            total: disk.blocks().saturating_mul(disk.fragment_size()),
            available: disk.blocks_available().saturating_mul(disk.fragment_size()),
        })
    }
}

impl Disk {
    /// See [`DiskRoom::wanting`].
    fn wanting(&self) -> u64 {
        let ease = (self.total / DISK_EASE_SHARE).clamp(DISK_EASE_BYTES_MIN, DISK_EASE_BYTES);
        let enough = DISK_RESERVE_BYTES + ease;
        match self.available < enough - ease / 2 {
            true => enough - self.available,
            false => 0,
        }
    }
}

/// Watches the room on the disk that a directory lies on.
#[derive(Debug)]
pub struct DiskRoom {
    dir: PathBuf,
    written: AtomicU64,
    tight: AtomicBool,
}

impl DiskRoom {
    /// Watches the disk of `dir`.
    pub fn new(dir: &Path) -> DiskRoom {
        DiskRoom {
            dir: dir.to_path_buf(),
            written: AtomicU64::new(0),
            tight: AtomicBool::new(true),
        }
    }

    /// Says that `bytes` of content are about to be written. Looks at the disk every [`DISK_LOOK_BYTES`], and each time
    /// while it is tight.
    ///
    /// # Errors
    /// `Full` when only the reserve is left.
    pub fn take(&self, bytes: u64) -> Result<(), StoreError> {
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        let looked_lately = before / DISK_LOOK_BYTES == (before + bytes) / DISK_LOOK_BYTES;
        if looked_lately && !self.tight.load(Ordering::Relaxed) {
            return Ok(());
        }
        // A disk that does not tell its room gets no reserve; its own errors will do.
        let available = Disk::of(&self.dir).map_or(u64::MAX, |disk| disk.available);
        let tight = available.saturating_sub(bytes) < DISK_RESERVE_BYTES;
        self.tight.store(tight, Ordering::Relaxed);
        if tight { Err(StoreError::Full) } else { Ok(()) }
    }

    /// Bytes that should be free beside those that are, for so many of content; 0 on a disk that does not tell. Asks the disk.
    pub fn lacking(&self, bytes: u64) -> u64 {
        let available = Disk::of(&self.dir).map_or(u64::MAX, |disk| disk.available);
        DISK_RESERVE_BYTES.saturating_add(bytes).saturating_sub(available)
    }

    /// Bytes that should be free beside those that are, for content to go on being written and sent; 0 while there are enough, and on
    /// a disk that does not tell. Asks the disk.
    pub fn wanting(&self) -> u64 {
        Disk::of(&self.dir).map_or(0, |disk| disk.wanting())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SEGMENT_BYTES;

    #[test]
    fn more_than_any_disk_has_is_refused_and_a_little_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let room = DiskRoom::new(dir.path());
        assert!(room.take(4096).is_ok());
        assert!(matches!(room.take(1 << 60), Err(StoreError::Full)));
        assert!(room.take(4096).is_ok(), "a look each time while it is tight");
        assert!(room.lacking(4096) == 0 && room.lacking(1 << 60) > 1 << 59);
    }

    #[test]
    fn room_is_wanted_before_content_is_refused_and_then_some() {
        const TIB: u64 = 1 << 40;
        let wanting = |total, available| Disk { total, available }.wanting();
        let (enough, half) = (DISK_RESERVE_BYTES + DISK_EASE_BYTES, DISK_EASE_BYTES / 2);
        assert_eq!(wanting(TIB, TIB), 0);
        assert_eq!(wanting(TIB, enough - half), 0);
        assert_eq!(wanting(TIB, enough - half - 1), half + 1);
        assert_eq!(wanting(TIB, 0), enough);
        let small = 4 << 30;
        let ease = small / DISK_EASE_SHARE;
        assert_eq!(wanting(small, DISK_RESERVE_BYTES + ease / 2), 0);
        assert_eq!(wanting(small, DISK_RESERVE_BYTES), ease);
        // What is free when nothing more is wanted takes a pack.
        assert_eq!(wanting(0, DISK_RESERVE_BYTES + SEGMENT_BYTES as u64), 0);
        assert_eq!(wanting(0, 0), DISK_RESERVE_BYTES + DISK_EASE_BYTES_MIN);
    }
}
