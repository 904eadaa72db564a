//! Whether a chain is one that cessfs knows: every storage item and constant it uses, checked before first use, and every call
//! that it makes, checked before a purchase or an upload begins (and again, as it is, before it is signed).
//!
//! Encoding and decoding go by the chain's metadata, so a chain that renames or retypes something would only be noticed in
//! the middle of an upload. One look at the metadata after connecting (and after a runtime upgrade) notices it before.

use super::bounds;
use super::calls::{self, Call};
use super::payload::{Terms, signable};
use crate::chain::{ChainError, Declaration, SegmentHashes};
use crate::fragment_store::{Fid, Sha256Hash};
use crate::limits::{CHAIN_TYPE_DEPTH_MAX, COLUMNS, PACK_SEGMENTS_MAX};
use cessfs_crypto::AccountId;
use subxt::SubstrateConfig;
use subxt::client::{ClientAtBlock, OfflineClientAtBlockT};
use subxt::config::substrate::H256;
use subxt::ext::scale_encode::EncodeAsFields;
use subxt::metadata::Metadata;

/// Storage values and the fields of them that are read. Lists and one-field wrappers are looked through.
const VALUES: [(&str, &str, &[&str]); 7] = [
    ("System", "Account", &["nonce", "data.free"]),
    (
        "FileBank",
        "DealMap",
        &[
            "segment_list.hash",
            "segment_list.fragment_list",
            "user.user",
            "user.file_name",
            "user.territory_name",
            "complete_list.index",
            "complete_list.miner",
        ],
    ),
    (
        "FileBank",
        "File",
        &[
            "segment_list.hash",
            "segment_list.fragment_list.hash",
            "segment_list.fragment_list.avail",
            "segment_list.fragment_list.miner",
            "owner.user",
            "owner.file_name",
            "owner.territory_name",
            "file_size",
        ],
    ),
    ("FileBank", "UserHoldFileList", &["file_hash"]),
    (
        "StorageHandler",
        "Territory",
        &[
            "total_space",
            "used_space",
            "locked_space",
            "remaining_space",
            "start",
            "deadline",
            "state",
        ],
    ),
    ("StorageHandler", "UnitPrice", &[]),
    ("Sminer", "MinerItems", &["endpoint", "state", "idle_space"]),
];

/// Calls that are made.
pub(super) const CALLS: [(&str, &str); 6] = [
    ("FileBank", "upload_declaration"),
    ("FileBank", "delete_file"),
    ("StorageHandler", "mint_territory"),
    ("StorageHandler", "expanding_territory"),
    ("StorageHandler", "renewal_territory"),
    ("StorageHandler", "reactivate_territory"),
];

/// Constants that are read.
pub(super) const CONSTANTS: [(&str, &str); 3] = [
    ("FileBank", "SegmentCount"),
    ("FileBank", "FragmentCount"),
    ("Balances", "ExistentialDeposit"),
];

/// Checks by a chain's metadata whether it can be read. Nothing may be decoded by metadata that was not checked.
pub(super) fn check<C>(at: &ClientAtBlock<SubstrateConfig, C>) -> Result<(), ChainError>
where
    C: OfflineClientAtBlockT<SubstrateConfig>,
{
    bounds::check_reads(at.metadata_ref())?;
    for (pallet, item, fields) in VALUES {
        for field in fields {
            check_field(at.metadata_ref(), pallet, item, field)?;
        }
        if fields.is_empty() {
            value_type(at.metadata_ref(), pallet, item)?;
        }
    }
    let constants = at.constants();
    let wrong = |what: &str, error: &dyn std::fmt::Display| shape(format!("{what}: {error}"));
    let segments = constants
        .entry(calls::segment_count())
        .map_err(|e| wrong("FileBank.SegmentCount", &e))?;
    let fragments = constants
        .entry(calls::fragment_count())
        .map_err(|e| wrong("FileBank.FragmentCount", &e))?;
    constants
        .entry(calls::existential_deposit())
        .map_err(|e| wrong("Balances.ExistentialDeposit", &e))?;
    if fragments as usize != COLUMNS {
        return Err(shape(format!("{fragments} fragments per segment instead of {COLUMNS}")));
    }
    if segments == 0 || segments as usize > PACK_SEGMENTS_MAX {
        return Err(shape(format!(
            "{segments} segments per file, of which cessfs knows 1 to {PACK_SEGMENTS_MAX}"
        )));
    }
    Ok(())
}

/// Encodes one of each call: a field that is missing, unknown or of another type makes that fail, and so does everything that
/// is not as cessfs knows it.
pub(super) fn check_calls<C>(at: &ClientAtBlock<SubstrateConfig, C>) -> Result<(), ChainError>
where
    C: OfflineClientAtBlockT<SubstrateConfig>,
{
    let nobody = AccountId([0; 32]);
    let hash = Sha256Hash([0; 32]);
    let declaration = Declaration {
        fid: Fid([0; 32]),
        segments: vec![SegmentHashes {
            segment: hash,
            fragments: [hash; COLUMNS],
        }],
        label: "label".into(),
        territory: "territory".into(),
        size: 1,
    };
    check_call(at, &calls::upload_declaration(nobody, &declaration))?;
    check_call(at, &calls::delete_file(nobody, declaration.fid))?;
    check_call(at, &calls::mint_territory("territory", 1, 30))?;
    check_call(at, &calls::expanding_territory("territory", 1))?;
    check_call(at, &calls::renewal_territory("territory", 30))?;
    check_call(at, &calls::reactivate_territory("territory", 30))
}

fn check_call<C, F>(at: &ClientAtBlock<SubstrateConfig, C>, call: &Call<F>) -> Result<(), ChainError>
where
    C: OfflineClientAtBlockT<SubstrateConfig>,
    F: EncodeAsFields,
{
    let terms = Terms {
        nonce: 1,
        block: 1,
        block_hash: H256([1; 32]),
    };
    signable(at, call, terms).map(drop)
}

/// Storage that is read.
pub(super) fn stored() -> impl Iterator<Item = (&'static str, &'static str)> {
    let read = VALUES.iter().map(|(pallet, item, _)| (*pallet, *item));
    read.chain([("Audit", "CountedServiceFailed")])
}

fn shape(text: String) -> ChainError {
    ChainError::Shape(text)
}

/// Whether the chain has a storage item that cessfs can do without.
pub(super) fn has_storage(metadata: &Metadata, pallet: &str, item: &str) -> bool {
    value_type(metadata, pallet, item).is_ok()
}

pub(super) fn value_type(metadata: &Metadata, pallet: &str, item: &str) -> Result<u32, ChainError> {
    metadata
        .pallet_by_name(pallet)
        .and_then(|pallet| pallet.storage()?.entry_by_name(item))
        .map(|entry| entry.value_ty())
        .ok_or_else(|| shape(format!("no storage {pallet}.{item}")))
}

fn check_field(metadata: &Metadata, pallet: &str, item: &str, path: &str) -> Result<(), ChainError> {
    let mut id = value_type(metadata, pallet, item)?;
    for name in path.split('.') {
        id = field_type(metadata, id, name)
            .ok_or_else(|| shape(format!("storage {pallet}.{item} has no field {path}")))?;
    }
    Ok(())
}

/// The type of a named field, through lists and wrappers around the struct that has it.
fn field_type(metadata: &Metadata, mut id: u32, name: &str) -> Option<u32> {
    use scale_info::TypeDef;
    // `bounds::check_reads` let nothing deeper pass.
    for _ in 0..CHAIN_TYPE_DEPTH_MAX {
        id = match &metadata.types().resolve(id)?.type_def {
            TypeDef::Composite(composite) => {
                if let Some(field) = composite
                    .fields
                    .iter()
                    .find(|field| field.name.as_deref() == Some(name))
                {
                    return Some(field.ty.id);
                }
                match &composite.fields[..] {
                    [wrapped] => wrapped.ty.id,
                    _ => return None,
                }
            }
            TypeDef::Sequence(list) => list.type_param.id,
            TypeDef::Array(list) => list.type_param.id,
            _ => return None,
        };
    }
    None
}
