//! The transactions and places that cessfs knows, by the chain's names. Everything else about them is in its metadata.

use super::wire::{
    AccountInfo, DealInfo, DeleteFile, ExpandingTerritory, FileInfo, HexHash, MinerInfo, MintTerritory,
    RenewalTerritory, TerritoryInfo, UploadDeclaration, UserFileSliceInfo,
};
use crate::chain::{Declaration, Planck};
use crate::fragment_store::Fid;
use cessfs_crypto::AccountId;
use subxt::constants::DynamicAddress as ConstantAt;
use subxt::dynamic::{constant, storage, transaction};
use subxt::storage::DynamicAddress as StorageAt;
use subxt::tx::DynamicPayload;

pub(super) fn upload_declaration(owner: AccountId, declaration: &Declaration) -> DynamicPayload<UploadDeclaration> {
    transaction(
        "FileBank",
        "upload_declaration",
        UploadDeclaration::new(owner, declaration),
    )
}

pub(super) fn delete_file(owner: AccountId, fid: Fid) -> DynamicPayload<DeleteFile> {
    transaction(
        "FileBank",
        "delete_file",
        DeleteFile {
            owner: owner.0,
            file_hash: fid.into(),
        },
    )
}

pub(super) fn mint_territory(name: &str, gib: u32, days: u32) -> DynamicPayload<MintTerritory> {
    let fields = MintTerritory {
        gib_count: gib,
        territory_name: name.into(),
        days,
    };
    transaction("StorageHandler", "mint_territory", fields)
}

pub(super) fn expanding_territory(name: &str, gib: u32) -> DynamicPayload<ExpandingTerritory> {
    let fields = ExpandingTerritory {
        territory_name: name.into(),
        gib_count: gib,
    };
    transaction("StorageHandler", "expanding_territory", fields)
}

pub(super) fn renewal_territory(name: &str, days: u32) -> DynamicPayload<RenewalTerritory> {
    transaction(
        "StorageHandler",
        "renewal_territory",
        RenewalTerritory {
            territory_name: name.into(),
            days,
        },
    )
}

/// An expired territory starts again, empty.
pub(super) fn reactivate_territory(name: &str, days: u32) -> DynamicPayload<RenewalTerritory> {
    transaction(
        "StorageHandler",
        "reactivate_territory",
        RenewalTerritory {
            territory_name: name.into(),
            days,
        },
    )
}

pub(super) fn deal_map() -> StorageAt<(HexHash,), DealInfo> {
    storage("FileBank", "DealMap")
}

pub(super) fn file() -> StorageAt<(HexHash,), FileInfo> {
    storage("FileBank", "File")
}

pub(super) fn user_hold_file_list() -> StorageAt<([u8; 32],), Vec<UserFileSliceInfo>> {
    storage("FileBank", "UserHoldFileList")
}

pub(super) fn territory() -> StorageAt<([u8; 32], Vec<u8>), TerritoryInfo> {
    storage("StorageHandler", "Territory")
}

pub(super) fn unit_price() -> StorageAt<(), Planck> {
    storage("StorageHandler", "UnitPrice")
}

pub(super) fn miner_items() -> StorageAt<([u8; 32],), MinerInfo> {
    storage("Sminer", "MinerItems")
}

pub(super) fn failed_audits() -> StorageAt<([u8; 32],), u32> {
    storage("Audit", "CountedServiceFailed")
}

pub(super) fn account() -> StorageAt<([u8; 32],), AccountInfo> {
    storage("System", "Account")
}

pub(super) fn segment_count() -> ConstantAt<u32> {
    constant("FileBank", "SegmentCount")
}

pub(super) fn fragment_count() -> ConstantAt<u32> {
    constant("FileBank", "FragmentCount")
}

pub(super) fn existential_deposit() -> ConstantAt<Planck> {
    constant("Balances", "ExistentialDeposit")
}
