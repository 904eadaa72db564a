//! The trash in numbers, and what goes there. What is in it are records; what is done with it is in `vfs/trash.rs`.
//!
//! A regular file that loses its last name goes into the trash if it has content and is not young. Young files are what
//! programs make and throw away: lock files, journals, the temporary half of a save. An older file that a save replaces by
//! rename goes there too: that is the version before. So a document saved every minute leaves one version per
//! [`trash_min_age`](crate::VfsConfig::trash_min_age), not one per save.

use crate::attr::{FileKind, Timestamp};
use crate::core::VfsConfig;
use crate::limits::NAME_BYTES_MAX;
use crate::records::InodeRecord;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much is in the trash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrashSize {
    /// Files.
    pub files: u64,
    /// Their allocated blocks of 4096 bytes.
    pub blocks: u64,
}

/// Something in the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrashItem {
    /// Its number there. Later deletions have higher ones.
    pub id: u64,
    /// The inode.
    pub ino: u64,
    /// When it was deleted.
    pub deleted: Timestamp,
    /// Bytes.
    pub size: u64,
    /// Its name before.
    pub name: Vec<u8>,
    /// The path of the directory it was in, from the root and starting with a slash (empty for the root); `None` where that
    /// is not known.
    pub dir: Option<Vec<u8>>,
}

impl TrashItem {
    /// What it is called in the directory that shows the trash.
    pub fn entry_name(&self) -> Vec<u8> {
        entry_name(self.id, &self.name)
    }
}

/// Counts what is in the trash.
#[derive(Default)]
pub(crate) struct Trash {
    files: AtomicU64,
    blocks: AtomicU64,
    /// When something last came or went.
    changed: Mutex<Timestamp>,
}

impl Trash {
    pub(crate) fn start(&self, size: TrashSize) {
        self.files.store(size.files, Ordering::Relaxed);
        self.blocks.store(size.blocks, Ordering::Relaxed);
    }

    pub(crate) fn size(&self) -> TrashSize {
        TrashSize {
            files: self.files.load(Ordering::Relaxed),
            blocks: self.blocks.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn added(&self, blocks: u64, now: Timestamp) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.blocks.fetch_add(blocks, Ordering::Relaxed);
        self.touch(now);
    }

    /// Something left. It may have changed its size there: whoever had it open could go on writing.
    pub(crate) fn removed(&self, blocks: u64, now: Timestamp) {
        let less = |by: u64| move |sum: u64| Some(sum.saturating_sub(by));
        let order = Ordering::Relaxed;
        let left = self
            .files
            .fetch_update(order, order, less(1))
            .map_or(0, |before| before.saturating_sub(1));
        let by = if left == 0 { u64::MAX } else { blocks };
        let _always_some = self.blocks.fetch_update(order, order, less(by));
        self.touch(now);
    }

    /// The kernel takes its listing for stale when this moves: it has to, also within one tick of the clock.
    fn touch(&self, now: Timestamp) {
        let mut changed = self.changed.lock();
        *changed = now.or_after(*changed);
    }

    pub(crate) fn changed(&self) -> Timestamp {
        *self.changed.lock()
    }
}

/// A file that loses its last name now can be had back. Of one from the future nobody knows how old it is (the clock was
/// set back): it is kept.
pub(crate) fn takes(config: &VfsConfig, record: &InodeRecord, now: Timestamp) -> bool {
    let age = i128::from(now.secs) - i128::from(record.btime.secs);
    !config.trash_keep.is_zero()
        && record.kind == FileKind::Regular
        && record.size > 0
        && record.blocks > 0
        && (age < 0 || age >= i128::from(config.trash_min_age.as_secs()))
}

/// What something is called in the directory that shows the trash: its number, and as much of its name as fits.
pub(crate) fn entry_name(id: u64, name: &[u8]) -> Vec<u8> {
    let mut entry = format!("{id}.").into_bytes();
    entry.extend_from_slice(name);
    entry.truncate(NAME_BYTES_MAX);
    entry
}

/// The number in such a name.
pub(crate) fn entry_id(entry: &[u8]) -> Option<u64> {
    let (digits, _) = entry.split_at(entry.iter().position(|byte| *byte == b'.')?);
    // Each has one name only: no sign, no leading zero.
    if digits.is_empty() || digits[0] == b'0' || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn names_lead_back_to_numbers() {
        assert_eq!(entry_name(42, b"cat.jpg"), b"42.cat.jpg");
        assert_eq!(entry_name(42, &[b'x'; 255]).len(), 255);
        for (entry, id) in [
            (&b"42.cat.jpg"[..], Some(42)),
            (b"42.", Some(42)),
            (b"42", None),
            (b"042.x", None),
            (b"+42.x", None),
            (b".x", None),
            (b"99999999999999999999999.x", None),
        ] {
            assert_eq!(entry_id(entry), id, "{}", String::from_utf8_lossy(entry));
        }
    }

    #[test]
    fn what_goes_there() {
        let mut config = VfsConfig::new("/nonexistent".into());
        let at = |secs| Timestamp { secs, nanos: 0 };
        let mut record = InodeRecord::new(FileKind::Regular, 0o644, 0, 0, at(1000));
        (record.size, record.blocks) = (5, 1);
        assert!(!takes(&config, &record, at(9999)), "it is off unless told otherwise");
        config.trash_keep = Duration::from_secs(60);
        config.trash_min_age = Duration::from_secs(600);
        assert!(takes(&config, &record, at(1600)));
        assert!(!takes(&config, &record, at(1599)), "young");
        assert!(takes(&config, &record, at(-5)), "from the future");
        let empty = InodeRecord {
            size: 0,
            blocks: 0,
            ..record.clone()
        };
        assert!(!takes(&config, &empty, at(1600)));
        let fifo = InodeRecord {
            kind: FileKind::Fifo,
            ..record
        };
        assert!(!takes(&config, &fifo, at(1600)));
    }

    #[test]
    fn the_time_of_the_last_change_always_moves() {
        let trash = Trash::default();
        let now = Timestamp {
            secs: 5,
            nanos: 999_999_999,
        };
        trash.added(3, now);
        assert_eq!(trash.changed(), now);
        trash.removed(9, now);
        assert_eq!(trash.changed(), Timestamp { secs: 6, nanos: 0 });
        assert_eq!(trash.size(), TrashSize::default());
    }
}
