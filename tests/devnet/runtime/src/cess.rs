//! The vocabulary that CESS's pallets share: hashes, names, sizes.
//!
//! Names, field order and SCALE shapes are those of runtime spec 137; `tests/devnet/tests/conformance.rs` compares them
//! with that runtime's own metadata. Types here are concrete where CESS has them generic over the runtime: a client sees
//! no difference, and the pallets need no bounds.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{BoundedVec, PalletId, traits::ConstU32};
use scale_info::TypeInfo;

/// Bytes in a fragment: 8 MiB.
pub const FRAGMENT_SIZE: u128 = 8 << 20;
/// Bytes in a segment: 32 MiB, four data fragments.
pub const SEGMENT_SIZE: u128 = 4 * FRAGMENT_SIZE;
/// Fragments of a segment: 4 data and 8 parity.
pub const FRAGMENT_COUNT: u32 = 12;
/// Segments in a file, at most.
pub const SEGMENT_COUNT: u32 = 1000;
/// Territory that one started segment costs, however little is inside: 96 MiB, all twelve fragments.
pub const SEGMENT_CHARGE: u128 = FRAGMENT_SIZE * FRAGMENT_COUNT as u128;
/// Bytes in a GiB, the unit territories are sold in.
pub const GIB: u128 = 1 << 30;
/// Blocks in a day of six-second blocks. It counts blocks, so a devnet with faster blocks has shorter days.
pub const ONE_DAY: u32 = 14_400;
/// Longest file name and territory name, bytes.
pub const NAME_LIMIT: u32 = 63;
/// Planck in a TCESS: 18 decimals.
pub const TCESS: u128 = 1_000_000_000_000_000_000;

const _: () = assert!(SEGMENT_CHARGE == 3 * SEGMENT_SIZE);

/// A pot that CESS's storage and file pallets share.
pub const REWARD_PALLET_ID: PalletId = PalletId(*b"rewardpt");

/// A file's, segment's or fragment's hash: the 64 ASCII characters of a SHA-256 in lowercase hex, not its 32 bytes.
/// The chain never checks that they are hex.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Hash(pub [u8; 64]);

impl Hash {
    /// The hash with this text, or `None` unless it is exactly 64 bytes.
    pub fn from_text(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().map(Self)
    }

    /// The text; bytes that are no UTF-8 (the chain accepts any) are replaced.
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// Name of a territory, unique per owner.
pub type TerrName = BoundedVec<u8, ConstU32<NAME_LIMIT>>;
/// A miner's address: free text that a client has to complete to a URL.
pub type EndPoint = BoundedVec<u8, ConstU32<100>>;
/// Identifies a territory whatever its name and owner.
pub type TokenId = sp_core::H256;

/// RSA parameters of a miner's proof of idle space. No client reads them; they only keep the record's shape.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct PoISKey {
    /// Generator.
    pub g: [u8; 256],
    /// Modulus.
    pub n: [u8; 256],
}

/// State of a miner's proof of idle space. No client reads it; it only keeps the record's shape.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct SpaceProofInfo<AccountId> {
    /// The proving miner.
    pub miner: AccountId,
    /// First idle file still there.
    pub front: u64,
    /// One past the last.
    pub rear: u64,
    /// Parameters.
    pub pois_key: PoISKey,
    /// Accumulated roots.
    pub accumulator: [u8; 256],
}

/// Counting filter over a miner's tagged fragments. Always empty here: nothing is tagged on a devnet.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct BloomFilter(pub [u64; 256]);
