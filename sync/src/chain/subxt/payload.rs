//! What is signed, laid out here and compared with what the node's metadata makes of it.
//!
//! A client that encodes by the metadata of a node signs whatever that node likes: another call, other arguments, another fee.
//! So indexes, arguments and what surrounds them are those of spec 137 (facts 1.1, 1.5), byte for byte, and metadata that
//! describes anything else is refused before something is signed. By Substrate's rules none of it moves but with a new
//! transaction version, of which this cessfs would know nothing.

use super::bounds;
use super::calls::Call;
use crate::chain::ChainError;
use crate::limits::TRANSACTION_LIFE_BLOCKS;
use codec::{Compact, Encode};
use subxt::SubstrateConfig;
use subxt::client::{ClientAtBlock, OfflineClientAtBlockT};
use subxt::config::DefaultExtrinsicParamsBuilder;
use subxt::config::Hasher;
use subxt::config::substrate::{BlakeTwo256, H256};
use subxt::ext::scale_encode::EncodeAsFields;
use subxt::tx::{DynamicPayload, SignableTransaction};
use subxt::utils::Era;

/// A longer payload is signed by its hash.
const PAYLOAD_BYTES_MAX: usize = 256;

/// What a transaction says beside its call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) nonce: u64,
    /// The block from which on it counts.
    pub(super) block: u64,
    pub(super) block_hash: H256,
}

/// A transaction, and the bytes to sign for it.
pub(super) type Signable<'call, C, F> = (
    SignableTransaction<'call, SubstrateConfig, C, DynamicPayload<F>>,
    Vec<u8>,
);

/// The transaction of a call, if the chain's metadata encodes it as it has to be.
///
/// # Errors
/// `Shape`, naming the call; nothing was signed.
pub(super) fn signable<'call, C, F>(
    at: &ClientAtBlock<SubstrateConfig, C>,
    call: &'call Call<F>,
    terms: Terms,
) -> Result<Signable<'call, C, F>, ChainError>
where
    C: OfflineClientAtBlockT<SubstrateConfig>,
    F: EncodeAsFields,
{
    bounds::check_calls(at.metadata_ref())?;
    let name = call.name();
    let cannot = |e: &dyn std::fmt::Display| ChainError::Shape(format!("call {name}: {e}"));
    let theirs = at.tx().call_data(&call.payload).map_err(|e| cannot(&e))?;
    if theirs != call.bytes {
        return Err(different(&format!("call {name}"), &part(&theirs, &call.bytes)));
    }
    let params = DefaultExtrinsicParamsBuilder::new()
        .nonce(terms.nonce)
        .mortal_from_unchecked(TRANSACTION_LIFE_BLOCKS, terms.block, terms.block_hash)
        .build();
    let signable = at
        .tx()
        .create_v4_signable_offline(&call.payload, params)
        .map_err(|e| cannot(&e))?;
    let ours = payload(at, &call.bytes, terms)?;
    if signable.signer_payload().map_err(|e| cannot(&e))? != ours {
        return Err(different("what a transaction says beside its call", "its extensions"));
    }
    Ok((signable, ours))
}

fn part(theirs: &[u8], ours: &[u8]) -> String {
    match (theirs, ours) {
        ([pallet, call, ..], [ours_pallet, ours_call, ..]) if (pallet, call) != (ours_pallet, ours_call) => {
            format!("its index is {pallet}.{call} and not {ours_pallet}.{ours_call}")
        }
        _ => "its arguments".to_owned(),
    }
}

fn different(what: &str, part: &str) -> ChainError {
    ChainError::Shape(format!(
        "the node describes {what} differently from what cessfs knows ({part}): nothing was signed"
    ))
}

/// The payload of facts 1.1: call, era, nonce, no tip, then what both sides know: versions, first block, first block of the era.
fn payload<C>(at: &ClientAtBlock<SubstrateConfig, C>, call: &[u8], terms: Terms) -> Result<Vec<u8>, ChainError>
where
    C: OfflineClientAtBlockT<SubstrateConfig>,
{
    let genesis = at
        .genesis_hash()
        .ok_or_else(|| ChainError::Shape("no first block".into()))?;
    let payload = [
        call.to_vec(),
        Era::mortal(TRANSACTION_LIFE_BLOCKS, terms.block).encode(),
        Compact(terms.nonce).encode(),
        Compact(0u128).encode(),
        at.spec_version().encode(),
        at.transaction_version().encode(),
        genesis.0.to_vec(),
        terms.block_hash.0.to_vec(),
    ]
    .concat();
    match payload.len() > PAYLOAD_BYTES_MAX {
        true => Ok(BlakeTwo256.hash(&payload).0.to_vec()),
        false => Ok(payload),
    }
}
