//! The pack: one CESS file that carries chunks and the metadata delta that belongs to them.
//!
//! A pack is one or more whole segments of 32 MiB. To a miner every byte of it looks random: frames are sealed, the rest is
//! keystream. Byte tables and a worked example: `docs/FORMAT-packs.md`.
//!
//! ```text
//! header | chunk frame ... | delta frame ... | directory frame ... | keystream pad | footer
//! 0        92                                                                        N * 32 MiB - 92
//! ```
//!
//! Promises: decoding takes any input without panic and allocates no more than the input's own length; every structure has
//! exactly one encoding, and anything else is refused. Refuses to know what a delta says, or which file a chunk is from.

mod codec;
mod directory;
mod layout;

pub use codec::{FOOTER_BYTES, Footer, HEADER_BYTES, Header};
pub use directory::{ChunkEntry, DeltaEntry, Directory, directory_sealed_bytes};
pub use layout::{Piece, pieces};

use cessfs_crypto::SEAL_OVERHEAD;

/// Version of the layout, in header and footer.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes of the header frame, at the start of the pack.
pub const HEADER_SEALED_BYTES: usize = HEADER_BYTES + SEAL_OVERHEAD;
/// Bytes of the footer frame, at the very end of the last segment.
pub const FOOTER_SEALED_BYTES: usize = FOOTER_BYTES + SEAL_OVERHEAD;

/// Why bytes are not a pack of this volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A frame does not open: damaged, or of another volume, pack or place.
    #[error("the pack's {0} does not open: damaged, or not of this volume")]
    Sealed(&'static str),
    /// Written by a newer cessfs.
    #[error("the pack has format version {0}; this cessfs knows {FORMAT_VERSION}")]
    Version(u16),
    /// Opens, but breaks a rule of the format.
    #[error("the pack breaks its format: {0}")]
    Malformed(&'static str),
}

#[cfg(test)]
mod tests;
