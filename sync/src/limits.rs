//! Every bound of the sync crate, by name, and how they hang together (I12).

use std::time::Duration;

/// Bytes of a chunk of a logical file: the unit of dirt, residency, sealing and identity.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Bytes of a CESS fragment (facts 1.2).
pub const FRAGMENT_BYTES: usize = 8 << 20;
/// Data fragments of a segment.
pub const DATA_FRAGMENTS: usize = 4;
/// Parity fragments of a segment.
pub const PARITY_FRAGMENTS: usize = 8;
/// Columns (miners) of a pack.
pub const COLUMNS: usize = DATA_FRAGMENTS + PARITY_FRAGMENTS;
/// Bytes of a CESS segment (facts 1.2).
pub const SEGMENT_BYTES: usize = 32 << 20;
/// Segments of one CESS file (facts 1.2: SegmentCount).
pub const PACK_SEGMENTS_MAX: usize = 1000;
/// Territory bytes charged for each started segment (F2).
pub const SEGMENT_CHARGE_BYTES: u64 = 96 << 20;
/// Stripe of the Reed-Solomon encoder: fastest on the machines measured (docs/decisions).
pub const STRIPE_BYTES: usize = 64 << 10;

/// How long a connection to a miner may take to be made.
pub const MINER_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a miner may take to tell its status, connecting included.
pub const MINER_PROBE_TIMEOUT: Duration = Duration::from_secs(8);
/// How long nothing may move in a transfer. Covers a miner that hashes and stores 8 MiB before it answers.
pub const MINER_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an unused connection to a miner is kept.
pub const MINER_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Unused connections kept per miner.
pub const MINER_IDLE_CONNECTIONS_MAX: usize = 4;
/// Bytes of an upload that count as movement when the connection takes them.
pub const MINER_UPLOAD_PIECE_BYTES: usize = 64 << 10;
/// Bytes of a miner's JSON answer.
pub const MINER_REPLY_BYTES_MAX: usize = 64 << 10;
/// Characters of a miner's text that are passed on.
pub const MINER_TEXT_CHARS_MAX: usize = 200;

/// Bytes of changes that may wait for the journal's writer before `commit` blocks.
pub const JOURNAL_QUEUE_BYTES_MAX: usize = 32 << 20;
/// Bytes of changes that the journal's writer merges into one atomic batch.
pub const JOURNAL_MERGE_BYTES_MAX: usize = 1 << 20;
/// After this long without work the journal flushes what no barrier asked for.
pub const JOURNAL_IDLE_FLUSH: Duration = Duration::from_secs(2);
/// Bytes of sled's page cache.
pub const SLED_CACHE_BYTES: u64 = 64 << 20;

const _: () = assert!(SEGMENT_BYTES == DATA_FRAGMENTS * FRAGMENT_BYTES);
const _: () = assert!(SEGMENT_CHARGE_BYTES == (COLUMNS * FRAGMENT_BYTES) as u64);
const _: () = assert!(FRAGMENT_BYTES % STRIPE_BYTES == 0);
const _: () = assert!(FRAGMENT_BYTES % CHUNK_BYTES == 0);
