//! The transactions and places that cessfs knows. Of places only the chain's names, the rest is in its metadata; of transactions
//! every byte, since they are signed.

use super::wire::{
    AccountInfo, DealInfo, DeleteFile, ExpandingTerritory, FileInfo, HexHash, MinerInfo, MintTerritory,
    RenewalTerritory, TerritoryInfo, UploadDeclaration, UserFileSliceInfo,
};
use crate::chain::{Declaration, Planck};
use crate::fragment_store::Fid;
use cessfs_crypto::AccountId;
use codec::Encode;
use subxt::constants::DynamicAddress as ConstantAt;
use subxt::dynamic::{constant, storage, transaction};
use subxt::storage::DynamicAddress as StorageAt;
use subxt::tx::DynamicPayload;

/// A call: what the chain's metadata encodes, and the bytes that this has to give.
pub(super) struct Call<F> {
    pub(super) payload: DynamicPayload<F>,
    /// Pallet index, call index, and the arguments in the chain's order (facts 1.5).
    pub(super) bytes: Vec<u8>,
}

impl<F> Call<F> {
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.payload.pallet_name(), self.payload.call_name())
    }
}

/// Index and name of a pallet or a call of spec 137 (facts 1.1, 1.5). They are the chain's interface to whoever signs, so they
/// do not move.
type Place = (u8, &'static str);

const FILE_BANK: Place = (104, "FileBank");
const STORAGE_HANDLER: Place = (107, "StorageHandler");

fn call<F: Encode>(pallet: Place, call: Place, fields: F) -> Call<F> {
    let bytes = [vec![pallet.0, call.0], fields.encode()].concat();
    Call {
        payload: transaction(pallet.1, call.1, fields),
        bytes,
    }
}

pub(super) fn upload_declaration(owner: AccountId, declaration: &Declaration) -> Call<UploadDeclaration> {
    let fields = UploadDeclaration::new(owner, declaration);
    call(FILE_BANK, (0, "upload_declaration"), fields)
}

pub(super) fn delete_file(owner: AccountId, fid: Fid) -> Call<DeleteFile> {
    let fields = DeleteFile {
        owner: owner.0,
        file_hash: fid.into(),
    };
    call(FILE_BANK, (6, "delete_file"), fields)
}

pub(super) fn mint_territory(name: &str, gib: u32, days: u32) -> Call<MintTerritory> {
    let fields = MintTerritory {
        gib_count: gib,
        territory_name: name.into(),
        days,
    };
    call(STORAGE_HANDLER, (0, "mint_territory"), fields)
}

pub(super) fn expanding_territory(name: &str, gib: u32) -> Call<ExpandingTerritory> {
    let fields = ExpandingTerritory {
        territory_name: name.into(),
        gib_count: gib,
    };
    call(STORAGE_HANDLER, (1, "expanding_territory"), fields)
}

pub(super) fn renewal_territory(name: &str, days: u32) -> Call<RenewalTerritory> {
    let fields = RenewalTerritory {
        territory_name: name.into(),
        days,
    };
    call(STORAGE_HANDLER, (2, "renewal_territory"), fields)
}

/// An expired territory starts again, empty.
pub(super) fn reactivate_territory(name: &str, days: u32) -> Call<RenewalTerritory> {
    let fields = RenewalTerritory {
        territory_name: name.into(),
        days,
    };
    call(STORAGE_HANDLER, (101, "reactivate_territory"), fields)
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
