//! The miners' numbers: those of the network, and those that bound our own queues.

/// Bytes of a fragment: 8 MiB (cess `crates/common`). A miner takes and gives nothing of another size.
pub const FRAGMENT_BYTES: u64 = 8 << 20;

/// Fragments of a segment, 4 of data and 8 of parity, and so the highest index that a miner can report.
pub const FRAGMENTS_PER_SEGMENT: u8 = 12;

/// SHA-256 of 8 MiB of zeros. Everybody knows its content, so it needs neither a body nor a deal.
pub const ZERO_FRAGMENT: &str = "2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74";

/// Longest request body that is read to its end, so that a client that sends too much still gets to see the answer.
pub const BODY_BYTES_MAX: usize = 2 * FRAGMENT_BYTES as usize;

/// Pieces of a body between the socket and the disk. A piece is what one read of the socket gave, at most about 400 KiB.
pub const PIECES_IN_FLIGHT_MAX: usize = 4;

/// Signatures that are remembered as good. Clients sign one message and send it with each request.
pub const SIGNATURES_REMEMBERED_MAX: usize = 1024;

/// Deals whose fragment lists are kept decoded.
pub const DEALS_REMEMBERED_MAX: usize = 256;

/// Rounds of the reporter between two looks at a file that is stored and needs nothing any more.
pub const ROUNDS_BETWEEN_SETTLED_LOOKS: u64 = 16;

/// Rounds for which neither a deal nor a stored file must have named what a miner holds, before it throws it away. More
/// than one, because a block that is not finalized may yet be replaced.
pub const ROUNDS_BEFORE_ORPHANED: u64 = 24;

/// Blocks that a submitted report gets before it counts as lost and is submitted again.
pub const BLOCKS_FOR_A_REPORT: u32 = 2;

/// `corrupt` changes one byte in each stretch of this many, so that no range of this length reads back sound.
pub const CORRUPTION_STRIDE_BYTES: usize = 512;

/// Miner versions look like this on the network; the suffix says that it is ours.
pub const VERSION: &str = "v1.0.0-devnet";

const _: () = assert!(FRAGMENT_BYTES.is_multiple_of(CORRUPTION_STRIDE_BYTES as u64));
const _: () = assert!(BODY_BYTES_MAX as u64 > FRAGMENT_BYTES);
