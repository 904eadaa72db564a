//! Frames of a metadata delta: records, or the news that a record is gone. Bytes: `docs/FORMAT-delta.md`.
//!
//! Decoding is strict and bounded: a frame is accepted whole or refused whole, every byte is accounted for, and no length
//! is believed before it was compared with what is there.

use crate::records::{
    DENTRY_PREFIX, EXTENT_PREFIX, INLINE_PREFIX, INODE_PREFIX, QUOTA_PREFIX, SNAPSHOT_PREFIX, TRASH_PREFIX,
    XATTR_PREFIX,
};
use cessfs_sync::{Batch, MetaStore, StoreError};

/// First bytes of a frame.
const MAGIC: [u8; 4] = *b"CFSD";
/// Version of the layout.
const VERSION: u8 = 1;
/// Magic, version, count.
const HEADER_BYTES: usize = 4 + 1 + 4;
/// Length field of a record that is gone.
const GONE: u32 = u32::MAX;
/// Shortest key: a letter and a number.
const KEY_BYTES_MIN: usize = 9;
/// Longest key: a letter and two numbers.
const KEY_BYTES_MAX: usize = 17;
/// What travels, and the length of its keys: inodes, dentries, extents, inline bytes, xattrs, quotas, the trash and snapshots. A
/// checkpoint carries every record of these kinds, so a kind that is missing here is a kind that recovery loses.
pub(super) const DELTA_KINDS: [(&[u8], usize); 8] = [
    (INODE_PREFIX, KEY_BYTES_MIN),
    (DENTRY_PREFIX, KEY_BYTES_MAX),
    (EXTENT_PREFIX, KEY_BYTES_MAX),
    (INLINE_PREFIX, KEY_BYTES_MIN),
    (XATTR_PREFIX, KEY_BYTES_MAX),
    (QUOTA_PREFIX, KEY_BYTES_MIN),
    (TRASH_PREFIX, KEY_BYTES_MIN),
    (SNAPSHOT_PREFIX, KEY_BYTES_MIN),
];
/// Longest frame: one MiB, like a chunk.
pub const FRAME_BYTES_MAX: usize = cessfs_sync::limits::CHUNK_BYTES;

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than a frame may be, or shorter than its header.
    #[error("a delta frame has an impossible length")]
    Length,
    /// Not a frame of a version this build reads.
    #[error("a delta frame has an unknown magic or version")]
    Version,
    /// Ends inside a record, or goes on after the last.
    #[error("a delta frame does not hold the records it announces")]
    Records,
    /// A key that no delta may carry.
    #[error("a delta frame carries a key of no known kind")]
    Key,
}

impl From<FrameError> for StoreError {
    fn from(error: FrameError) -> StoreError {
        StoreError::Corrupt(error.to_string())
    }
}

/// A record of a delta: its key, and its value unless it is gone.
pub type DeltaRecord = (Vec<u8>, Option<Vec<u8>>);

/// Collects records and hands out frames as they fill.
pub(crate) struct FrameWriter<'a> {
    frame: Vec<u8>,
    count: u32,
    /// News that a record is gone is left out.
    only_what_is: bool,
    sink: &'a mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
}

impl<'a> FrameWriter<'a> {
    pub(crate) fn new(sink: &'a mut dyn FnMut(&[u8]) -> Result<(), StoreError>) -> FrameWriter<'a> {
        FrameWriter {
            frame: Vec::new(),
            count: 0,
            only_what_is: false,
            sink,
        }
    }

    /// For a checkpoint, which starts from nothing: what is gone need not be told.
    pub(super) fn only_what_is(&mut self) {
        self.only_what_is = true;
    }

    /// Adds a record (`None`: it is gone).
    pub(crate) fn record(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        debug_assert!(is_delta_key(key));
        if value.is_none() && self.only_what_is {
            return Ok(());
        }
        let bytes = 1 + key.len() + 4 + value.map_or(0, <[u8]>::len);
        if HEADER_BYTES + bytes > FRAME_BYTES_MAX {
            return Err(StoreError::Corrupt("a record is longer than a delta frame".into()));
        }
        if self.frame.len() + bytes > FRAME_BYTES_MAX {
            self.flush()?;
        }
        if self.frame.is_empty() {
            self.frame.extend_from_slice(&MAGIC);
            self.frame.push(VERSION);
            self.frame.extend_from_slice(&[0; 4]);
        }
        self.frame.push(key.len() as u8);
        self.frame.extend_from_slice(key);
        let len = value.map_or(GONE, |value| value.len() as u32);
        self.frame.extend_from_slice(&len.to_le_bytes());
        self.frame.extend_from_slice(value.unwrap_or_default());
        self.count += 1;
        Ok(())
    }

    /// Hands out the last frame, if it holds anything.
    pub(crate) fn flush(&mut self) -> Result<(), StoreError> {
        if self.count == 0 {
            return Ok(());
        }
        self.frame[5..HEADER_BYTES].copy_from_slice(&self.count.to_le_bytes());
        (self.sink)(&self.frame)?;
        self.frame.clear();
        self.count = 0;
        Ok(())
    }
}

/// The records of a frame, in order.
pub fn decode_frame(frame: &[u8]) -> Result<Vec<DeltaRecord>, FrameError> {
    if frame.len() < HEADER_BYTES || frame.len() > FRAME_BYTES_MAX {
        return Err(FrameError::Length);
    }
    if frame[..4] != MAGIC || frame[4] != VERSION {
        return Err(FrameError::Version);
    }
    let (count, mut rest) = take_u32(&frame[5..])?;
    // The shortest record takes 14 bytes: a count beyond that cannot be true.
    if count == 0 || count as usize > rest.len() / 14 {
        return Err(FrameError::Records);
    }
    let mut records = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let (&key_len, after) = rest.split_first().ok_or(FrameError::Records)?;
        let (key, after) = after
            .split_at_checked(usize::from(key_len))
            .ok_or(FrameError::Records)?;
        if !is_delta_key(key) {
            return Err(FrameError::Key);
        }
        let (len, after) = take_u32(after)?;
        if len == GONE {
            records.push((key.to_vec(), None));
            rest = after;
            continue;
        }
        let (value, after) = after.split_at_checked(len as usize).ok_or(FrameError::Records)?;
        records.push((key.to_vec(), Some(value.to_vec())));
        rest = after;
    }
    if !rest.is_empty() {
        return Err(FrameError::Records);
    }
    Ok(records)
}

/// Replays the frames of one delta into `store`. Deltas are applied oldest first; applying one twice changes nothing.
pub fn apply_delta<F: AsRef<[u8]>>(
    frames: impl IntoIterator<Item = F>,
    store: &dyn MetaStore,
) -> Result<(), StoreError> {
    for frame in frames {
        let mut batch = Batch::new();
        for (key, value) in decode_frame(frame.as_ref())? {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        store.commit(batch)?;
    }
    Ok(())
}

fn take_u32(bytes: &[u8]) -> Result<(u32, &[u8]), FrameError> {
    let (number, rest) = bytes.split_first_chunk::<4>().ok_or(FrameError::Records)?;
    Ok((u32::from_le_bytes(*number), rest))
}

fn is_delta_key(key: &[u8]) -> bool {
    let is_of = |(prefix, len): &(&[u8], usize)| key.starts_with(prefix) && key.len() == *len;
    DELTA_KINDS.iter().any(is_of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{extent_key, inode_key};

    fn frames(records: &[DeltaRecord]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut sink = |frame: &[u8]| {
            out.push(frame.to_vec());
            Ok(())
        };
        let mut writer = FrameWriter::new(&mut sink);
        for (key, value) in records {
            writer.record(key, value.as_deref()).unwrap();
        }
        writer.flush().unwrap();
        out
    }

    #[test]
    fn frames_hold_what_was_written() {
        let records = vec![
            (inode_key(1), Some(vec![1, 2, 3])),
            (extent_key(5, 9), None),
            (inode_key(2), Some(Vec::new())),
        ];
        let frames = frames(&records);
        assert_eq!(frames.len(), 1);
        assert_eq!(decode_frame(&frames[0]).unwrap(), records);
    }

    #[test]
    fn a_full_frame_starts_the_next() {
        let records: Vec<DeltaRecord> = (0..40)
            .map(|ino| (inode_key(ino), Some(vec![ino as u8; 64 * 1024])))
            .collect();
        let frames = frames(&records);
        assert!(frames.len() >= 3 && frames.iter().all(|frame| frame.len() <= FRAME_BYTES_MAX));
        let read: Vec<DeltaRecord> = frames.iter().flat_map(|frame| decode_frame(frame).unwrap()).collect();
        assert_eq!(read, records);
    }

    #[test]
    fn every_truncation_and_every_longer_frame_is_refused() {
        let frame = frames(&[(inode_key(1), Some(vec![7; 20])), (extent_key(1, 2), None)]).remove(0);
        for len in 0..frame.len() {
            assert!(decode_frame(&frame[..len]).is_err(), "{len} bytes were accepted");
        }
        assert_eq!(decode_frame(&[&frame[..], &[0]].concat()), Err(FrameError::Records));
    }

    #[test]
    fn foreign_keys_versions_and_counts_are_refused() {
        let frame = frames(&[(inode_key(1), Some(vec![7]))]).remove(0);
        for (at, byte, error) in [
            (0, b'X', FrameError::Version),
            (4, 2, FrameError::Version),
            (5, 0, FrameError::Records),
            (5, 2, FrameError::Records),
            (8, 0xFF, FrameError::Records),
            (10, b'm', FrameError::Key),
            (9, 8, FrameError::Key),
        ] {
            let mut bad = frame.clone();
            bad[at] = byte;
            assert_eq!(decode_frame(&bad), Err(error), "byte {at} set to {byte}");
        }
    }
}
