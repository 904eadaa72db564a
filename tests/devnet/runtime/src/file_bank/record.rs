//! Records of deals and files, in CESS's field order.

use crate::cess::{FRAGMENT_COUNT, Hash, NAME_LIMIT, SEGMENT_CHARGE, SEGMENT_COUNT, TerrName};
use codec::{Decode, DecodeWithMemTracking, Encode};
use frame_support::{BoundedVec, traits::ConstU32};
use scale_info::TypeInfo;
use sp_core::crypto::AccountId32;

/// Owners of a file, at most.
pub const OWNER_LIMIT: u32 = 50_000;
/// Files per account, at most.
pub const USER_FILE_LIMIT: u32 = 500_000;

/// A declared segment.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct SegmentList {
    /// Hash of the segment.
    pub hash: Hash,
    /// Hashes of its fragments, data before parity.
    pub fragment_list: BoundedVec<Hash, ConstU32<FRAGMENT_COUNT>>,
}

/// The segments of a declared file.
pub type Segments = BoundedVec<SegmentList, ConstU32<SEGMENT_COUNT>>;

/// Whose a file is, its public name, and the territory that pays for it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct UserBrief {
    /// The owner.
    pub user: AccountId32,
    /// 3 to 63 bytes, public for ever.
    pub file_name: BoundedVec<u8, ConstU32<NAME_LIMIT>>,
    /// The owner's territory.
    pub territory_name: TerrName,
}

/// One miner's report.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct CompleteInfo {
    /// Fragment index, 1..=12.
    pub index: u8,
    /// Who holds it.
    pub miner: AccountId32,
}

/// A declared file on its way.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct DealInfo {
    /// Bytes, as the owner said.
    pub file_size: u128,
    /// Its segments.
    pub segment_list: Segments,
    /// Whose it is.
    pub user: UserBrief,
    /// Reports so far.
    pub complete_list: BoundedVec<CompleteInfo, ConstU32<FRAGMENT_COUNT>>,
}

impl DealInfo {
    /// Territory it has locked, bytes.
    pub fn charge(&self) -> u128 {
        SEGMENT_CHARGE * self.segment_list.len() as u128
    }
}

/// State of a file. Only `Active` is ever written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub enum FileState {
    /// Stored.
    Active,
    /// Historical.
    Calculate,
    /// Historical.
    Missing,
    /// Historical.
    Recovery,
}

/// A stored fragment.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct FragmentInfo {
    /// Its hash.
    pub hash: Hash,
    /// False once its miner gave it up.
    pub avail: bool,
    /// Block at which a tee tagged it. Never here.
    pub tag: Option<u32>,
    /// Who holds it.
    pub miner: AccountId32,
}

/// A stored segment.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct SegmentInfo {
    /// Its hash.
    pub hash: Hash,
    /// Its fragments, data before parity.
    pub fragment_list: BoundedVec<FragmentInfo, ConstU32<FRAGMENT_COUNT>>,
}

/// A stored file.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct FileInfo {
    /// Its segments.
    pub segment_list: BoundedVec<SegmentInfo, ConstU32<SEGMENT_COUNT>>,
    /// Who holds it, under which name, in which territory.
    pub owner: BoundedVec<UserBrief, ConstU32<OWNER_LIMIT>>,
    /// Bytes, as the first owner said.
    pub file_size: u128,
    /// Block of the twelfth report.
    pub completion: u32,
    /// State.
    pub stat: FileState,
}

impl FileInfo {
    /// Territory that each owner pays, bytes.
    pub fn charge(&self) -> u128 {
        SEGMENT_CHARGE * self.segment_list.len() as u128
    }

    /// True if the account is one of the owners.
    pub fn is_owned_by(&self, account: &AccountId32) -> bool {
        self.owner.iter().any(|brief| brief.user == *account)
    }
}

/// One line of an account's list of files.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct UserFileSliceInfo {
    /// The territory that pays.
    pub territory_name: TerrName,
    /// The file.
    pub file_hash: Hash,
    /// Territory charged, bytes; not the file's size.
    pub file_size: u128,
}
