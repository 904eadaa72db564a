//! What travels: the chain's types (facts 1.3), encoded and decoded by field name against its own metadata. What is encoded also
//! has one fixed form, SCALE of its fields in the order in which they stand here, which the other has to equal (`payload`).
//!
//! Only the fields that cessfs uses are named when decoding; the metadata says where they are. Field names are the
//! chain's, so they are its interface and not ours to choose.

use crate::chain::{Deal, Declaration, Planck, SegmentHashes, StoredFile, Territory, TerritoryState};
use crate::fragment_store::{Fid, Sha256Hash};
use crate::limits::COLUMNS;
use cessfs_crypto::AccountId;
use codec::Encode;
use subxt::ext::scale_decode::DecodeAsType;
use subxt::ext::scale_encode::EncodeAsType;

/// A hash as the chain holds it: 64 lowercase hex characters (fact 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, DecodeAsType, EncodeAsType, Encode)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
#[encode_as_type(crate_path = "subxt::ext::scale_encode")]
pub(super) struct HexHash([u8; 64]);

impl HexHash {
    fn of(bytes: &[u8; 32]) -> HexHash {
        let mut text = [0; 64];
        hex::encode_to_slice(bytes, &mut text).expect("32 bytes are 64 characters");
        HexHash(text)
    }

    /// The chain takes any 64 bytes for a hash, so what others declared may be none.
    fn bytes(&self) -> Result<[u8; 32], Malformed> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(self.0, &mut bytes).map_err(|_| Malformed("a hash that is not hex"))?;
        // Capitals would be a second name for the same bytes.
        match HexHash::of(&bytes) == *self {
            true => Ok(bytes),
            false => Err(Malformed("a hash that is not lowercase")),
        }
    }

    pub(super) fn fid(&self) -> Result<Fid, Malformed> {
        self.bytes().map(Fid)
    }

    fn sha256(&self) -> Result<Sha256Hash, Malformed> {
        self.bytes().map(Sha256Hash)
    }
}

impl From<Fid> for HexHash {
    fn from(fid: Fid) -> HexHash {
        HexHash::of(&fid.0)
    }
}

impl From<Sha256Hash> for HexHash {
    fn from(hash: Sha256Hash) -> HexHash {
        HexHash::of(&hash.0)
    }
}

/// A record of the right shape that no honest client would have made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record holds {0}")]
pub(super) struct Malformed(&'static str);

/// `SegmentList`.
#[derive(Debug, DecodeAsType, EncodeAsType, Encode)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
#[encode_as_type(crate_path = "subxt::ext::scale_encode")]
pub(super) struct SegmentList {
    hash: HexHash,
    fragment_list: Vec<HexHash>,
}

impl From<&SegmentHashes> for SegmentList {
    fn from(segment: &SegmentHashes) -> SegmentList {
        SegmentList {
            hash: segment.segment.into(),
            fragment_list: segment.fragments.iter().map(|&hash| hash.into()).collect(),
        }
    }
}

/// `UserBrief`.
#[derive(Debug, DecodeAsType, EncodeAsType, Encode)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
#[encode_as_type(crate_path = "subxt::ext::scale_encode")]
pub(super) struct UserBrief {
    user: [u8; 32],
    file_name: Vec<u8>,
    territory_name: Vec<u8>,
}

/// `FileBank.upload_declaration`.
#[derive(Debug, EncodeAsType, Encode)]
#[encode_as_type(crate_path = "subxt::ext::scale_encode")]
pub(super) struct UploadDeclaration {
    file_hash: HexHash,
    deal_info: Vec<SegmentList>,
    user_brief: UserBrief,
    file_size: u128,
}

impl UploadDeclaration {
    pub(super) fn new(owner: AccountId, declaration: &Declaration) -> UploadDeclaration {
        UploadDeclaration {
            file_hash: declaration.fid.into(),
            deal_info: declaration.segments.iter().map(SegmentList::from).collect(),
            user_brief: UserBrief {
                user: owner.0,
                file_name: declaration.label.clone().into_bytes(),
                territory_name: declaration.territory.clone().into_bytes(),
            },
            file_size: declaration.size,
        }
    }
}

/// `FileBank.delete_file`.
#[derive(Debug, EncodeAsType, Encode)]
#[encode_as_type(crate_path = "subxt::ext::scale_encode")]
pub(super) struct DeleteFile {
    pub(super) owner: [u8; 32],
    pub(super) file_hash: HexHash,
}

/// `StorageHandler.mint_territory`.
#[derive(Debug, EncodeAsType, Encode)]
#[encode_as_type(crate_path = "subxt::ext::scale_encode")]
pub(super) struct MintTerritory {
    pub(super) gib_count: u32,
    pub(super) territory_name: Vec<u8>,
    pub(super) days: u32,
}

/// `StorageHandler.expanding_territory`.
#[derive(Debug, EncodeAsType, Encode)]
#[encode_as_type(crate_path = "subxt::ext::scale_encode")]
pub(super) struct ExpandingTerritory {
    pub(super) territory_name: Vec<u8>,
    pub(super) gib_count: u32,
}

/// `StorageHandler.renewal_territory` and `StorageHandler.reactivate_territory`.
#[derive(Debug, EncodeAsType, Encode)]
#[encode_as_type(crate_path = "subxt::ext::scale_encode")]
pub(super) struct RenewalTerritory {
    pub(super) territory_name: Vec<u8>,
    pub(super) days: u32,
}

/// `DealInfo`.
#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
pub(super) struct DealInfo {
    segment_list: Vec<SegmentList>,
    user: UserBrief,
    complete_list: Vec<CompleteInfo>,
}

#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct CompleteInfo {
    index: u8,
    miner: [u8; 32],
}

impl TryFrom<DealInfo> for Deal {
    type Error = Malformed;

    fn try_from(deal: DealInfo) -> Result<Deal, Malformed> {
        let segment = |list: &SegmentList| segment_hashes(list.hash, list.fragment_list.iter().copied());
        let reported = |entry: &CompleteInfo| {
            // The chain counts from 1 (facts 1.5); columns from 0.
            let column = entry
                .index
                .checked_sub(1)
                .filter(|&column| usize::from(column) < COLUMNS);
            Ok((
                column.ok_or(Malformed("a report outside 1..=12"))?,
                AccountId(entry.miner),
            ))
        };
        Ok(Deal {
            owner: AccountId(deal.user.user),
            label: deal.user.file_name,
            segments: deal.segment_list.iter().map(segment).collect::<Result<_, _>>()?,
            reported: deal.complete_list.iter().map(reported).collect::<Result<_, _>>()?,
        })
    }
}

/// `FileInfo`.
#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
pub(super) struct FileInfo {
    segment_list: Vec<SegmentInfo>,
    owner: Vec<UserBrief>,
    file_size: u128,
}

#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct SegmentInfo {
    hash: HexHash,
    fragment_list: Vec<FragmentInfo>,
}

#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct FragmentInfo {
    hash: HexHash,
    avail: bool,
    miner: [u8; 32],
}

impl TryFrom<FileInfo> for StoredFile {
    type Error = Malformed;

    fn try_from(file: FileInfo) -> Result<StoredFile, Malformed> {
        let segment = |info: &SegmentInfo| {
            let hashes = segment_hashes(info.hash, info.fragment_list.iter().map(|fragment| fragment.hash))?;
            Ok((
                hashes,
                twelve(info.fragment_list.iter().map(|fragment| Ok(AccountId(fragment.miner))))?,
            ))
        };
        let mut unavailable = Vec::new();
        for (number, info) in (0..).zip(&file.segment_list) {
            let fragments = (0..).zip(&info.fragment_list);
            unavailable.extend(
                fragments
                    .filter(|(_, fragment)| !fragment.avail)
                    .map(|(column, _)| (number, column)),
            );
        }
        Ok(StoredFile {
            unavailable,
            segments: file.segment_list.iter().map(segment).collect::<Result<_, _>>()?,
            owners: file
                .owner
                .into_iter()
                .map(|brief| (AccountId(brief.user), brief.file_name, brief.territory_name))
                .collect(),
            size: file.file_size,
        })
    }
}

fn segment_hashes(segment: HexHash, fragments: impl Iterator<Item = HexHash>) -> Result<SegmentHashes, Malformed> {
    Ok(SegmentHashes {
        segment: segment.sha256()?,
        fragments: twelve(fragments.map(|hash| hash.sha256()))?,
    })
}

fn twelve<T>(items: impl Iterator<Item = Result<T, Malformed>>) -> Result<[T; COLUMNS], Malformed> {
    let items: Vec<T> = items.collect::<Result<_, _>>()?;
    items
        .try_into()
        .map_err(|_| Malformed("a segment without exactly twelve fragments"))
}

/// An entry of `UserHoldFileList`.
#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
pub(super) struct UserFileSliceInfo {
    pub(super) file_hash: HexHash,
}

/// `TerritoryInfo`.
#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
pub(super) struct TerritoryInfo {
    total_space: u128,
    used_space: u128,
    locked_space: u128,
    remaining_space: u128,
    start: u32,
    deadline: u32,
    state: StateOfTerritory,
}

#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
enum StateOfTerritory {
    Active,
    Frozen,
    Expired,
    OnConsignment,
}

impl TerritoryInfo {
    pub(super) fn named(self, name: String) -> Territory {
        Territory {
            name,
            total_bytes: self.total_space,
            used_bytes: self.used_space,
            locked_bytes: self.locked_space,
            remaining_bytes: self.remaining_space,
            start_block: self.start,
            deadline_block: self.deadline,
            state: match self.state {
                StateOfTerritory::Active => TerritoryState::Active,
                StateOfTerritory::Frozen => TerritoryState::Frozen,
                StateOfTerritory::Expired => TerritoryState::Expired,
                StateOfTerritory::OnConsignment => TerritoryState::OnConsignment,
            },
        }
    }
}

/// `MinerInfo`.
#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
pub(super) struct MinerInfo {
    pub(super) endpoint: Vec<u8>,
    pub(super) state: Vec<u8>,
    pub(super) idle_space: u128,
}

/// `AccountInfo` of the System pallet.
#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
pub(super) struct AccountInfo {
    pub(super) nonce: u32,
    pub(super) data: AccountData,
}

/// Balances of an account.
#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
pub(super) struct AccountData {
    pub(super) free: Planck,
}
