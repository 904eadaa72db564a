//! Segment buffers: bounded in number, re-used, and cut into fragments without a copy.

use super::code;
use super::hash::sha256_all;
use crate::chain::SegmentHashes;
use crate::limits::{COLUMNS, FRAGMENT_BYTES, SEGMENT_BYTES};
use bytes::Bytes;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of a segment with its parity: 96 MiB.
const ENCODED_BYTES: usize = COLUMNS * FRAGMENT_BYTES;

/// Hands out segment buffers of 96 MiB, at most a fixed number at a time. Buffers that come back are used again, because
/// the page faults of a fresh one cost as much as encoding it.
#[derive(Clone)]
pub struct SegmentPool {
    shared: Arc<Shared>,
}

struct Shared {
    free: Mutex<Vec<Box<[u8]>>>,
    permits: Arc<Semaphore>,
    threads: NonZeroUsize,
}

impl SegmentPool {
    /// A pool of at most `buffers_max` buffers whose segments are encoded and hashed on `threads` threads.
    pub fn new(buffers_max: NonZeroUsize, threads: NonZeroUsize) -> SegmentPool {
        SegmentPool {
            shared: Arc::new(Shared {
                free: Mutex::new(Vec::new()),
                permits: Arc::new(Semaphore::new(buffers_max.get())),
                threads,
            }),
        }
    }

    /// A buffer, as soon as fewer than the maximum are in use.
    pub async fn take(&self) -> Segment {
        let permit = self
            .shared
            .permits
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        self.segment(permit)
    }

    /// A buffer, if fewer than the maximum are in use now.
    pub fn try_take(&self) -> Option<Segment> {
        let permit = self.shared.permits.clone().try_acquire_owned().ok()?;
        Some(self.segment(permit))
    }

    fn segment(&self, permit: OwnedSemaphorePermit) -> Segment {
        let spare = self.shared.free.lock().pop();
        let bytes = spare.unwrap_or_else(|| vec![0; ENCODED_BYTES].into_boxed_slice());
        Segment {
            buffer: Buffer {
                bytes,
                shared: self.shared.clone(),
                _permit: permit,
            },
        }
    }
}

/// A buffer on loan. Dropping it gives it back before its permit, so a taker that gets the permit finds the buffer.
struct Buffer {
    bytes: Box<[u8]>,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.shared.free.lock().push(std::mem::take(&mut self.bytes));
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A segment being filled. Its 32 MiB hold whatever the buffer's last user left: write all of them.
pub struct Segment {
    buffer: Buffer,
}

impl Segment {
    /// The 32 MiB of the segment.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.bytes[..SEGMENT_BYTES]
    }

    /// Computes parity and hashes. Blocks for some tens of milliseconds.
    pub fn encode(mut self) -> EncodedSegment {
        let threads = self.buffer.shared.threads.get();
        code::encode(&mut self.buffer.bytes, threads);
        let bytes = &self.buffer.bytes;
        let mut inputs: Vec<&[u8]> = vec![&bytes[..SEGMENT_BYTES]];
        inputs.extend(bytes.chunks_exact(FRAGMENT_BYTES));
        let hashes = sha256_all(&inputs, threads);
        let hashes = SegmentHashes {
            segment: hashes[0],
            fragments: std::array::from_fn(|i| hashes[1 + i]),
        };
        EncodedSegment {
            hashes,
            bytes: Bytes::from_owner(self.buffer),
        }
    }
}

/// A segment with parity and hashes. The buffer returns to its pool when this and every [`Bytes`] cut from it are gone.
#[derive(Clone)]
pub struct EncodedSegment {
    bytes: Bytes,
    hashes: SegmentHashes,
}

impl EncodedSegment {
    /// The 8 MiB for a column (0..12), data first.
    ///
    /// # Panics
    /// For a column outside 0..12.
    pub fn fragment(&self, column: u8) -> Bytes {
        let start = usize::from(column) * FRAGMENT_BYTES;
        self.bytes.slice(start..start + FRAGMENT_BYTES)
    }

    /// The 32 MiB of the segment.
    pub fn data(&self) -> Bytes {
        self.bytes.slice(..SEGMENT_BYTES)
    }

    /// SHA-256 of the segment and of its twelve fragments.
    pub fn hashes(&self) -> &SegmentHashes {
        &self.hashes
    }
}
