//! Keys, sealing and labels of cessfs.
//!
//! Pure: no I/O, no clock, no async; randomness is an argument ([`Entropy`]). Everything that leaves the machine or
//! rests on its disk is sealed with keys made here. Formats, byte for byte: `docs/FORMAT.md`; what each adversary
//! learns: `docs/THREATS.md`.
//!
//! ```text
//! Phrase ──► VolumeSecret ──► AccountKey      signs extrinsics, never encrypts
//!                         ├─► LabelKey        names of packs on chain
//!                         └─► VolumeKeys      chunk ids, frames of packs, padding
//!                                └─► AtRestKeys ──► InodeKey     the local disk
//! KeySlots wrap the VolumeSecret under a passphrase, the phrase or a key file.
//! ```
//!
//! Secrets are zeroized on drop and have no `Debug`. Damaged or hostile input is an error, never a panic.
#![forbid(unsafe_code)]

mod account;
mod at_rest;
mod derive;
mod entropy;
mod error;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod id;
mod label;
pub mod limits;
mod phrase;
mod secret;
mod slots;
mod volume;

pub use account::{AccountId, AccountKey, SS58_PREFIX};
pub use at_rest::{AtRestKeys, InodeKey, RECORD_NONCE_BYTES};
pub use entropy::Entropy;
pub use error::CryptoError;
pub use frame::{FrameId, FrameKind, SEAL_OVERHEAD};
pub use id::{ChunkId, PackSeq, VolumeId};
pub use label::{LABEL_CHARS, LabelKey, PackKind, PackLabel};
pub use phrase::Phrase;
pub use secret::VolumeSecret;
pub use slots::{KdfCost, KeySlots, SlotKind};
pub use volume::VolumeKeys;
