//! The questions, one function each, on a given connection.

use super::calls;
use super::endpoint::endpoint_url;
use super::fault::fault;
use super::link::Link;
use super::shape;
use super::wire::Malformed;
use crate::chain::{ChainError, ChainInfo, Deal, Head, Miner, Planck, StoredFile, Territory};
use crate::fragment_store::Fid;
use crate::limits::CHAIN_MINERS_MAX;
use cessfs_crypto::{AccountId, SS58_PREFIX};
use std::collections::HashMap;
use std::sync::Arc;

/// What `system_chain` answers on the development network, the only one with a faucet.
const DEVNET_NAME: &str = "cess-devnet-local";
/// The token where a node does not tell its name.
const TOKEN_DEFAULT: &str = "TCESS";
/// State of a miner that takes deals (facts 1.3).
const MINER_POSITIVE: &[u8] = b"positive";
/// States of miners that leave or were made to: `lock` is the first step of an exit. A `frozen` one owes collateral, and stays.
const MINER_LEAVING: [&[u8]; 3] = [b"exit", b"lock", b"offline"];

/// What the chain says about itself. Fails if what cessfs makes of a call would be another one there: whoever is about to buy or
/// to send asks first.
pub(super) async fn info(link: Arc<Link>) -> Result<ChainInfo, ChainError> {
    let at = link.at(Head::Finalized).await?;
    shape::check_calls(&at)?;
    let constants = at.constants();
    let price = at.storage().try_fetch(calls::unit_price(), ()).await.map_err(fault)?;
    Ok(ChainInfo {
        name: link.name.clone(),
        spec_version: at.spec_version(),
        genesis: link.genesis(),
        segment_count_max: constants.entry(calls::segment_count()).map_err(fault)?,
        fragment_count: constants.entry(calls::fragment_count()).map_err(fault)?,
        existential_deposit: constants.entry(calls::existential_deposit()).map_err(fault)?,
        unit_price: price.map(|price| price.decode()).transpose().map_err(fault)?,
        token_symbol: link.token_symbol().await?.unwrap_or_else(|| TOKEN_DEFAULT.to_owned()),
    })
}

pub(super) async fn balance(link: Arc<Link>, account: AccountId) -> Result<Planck, ChainError> {
    let at = link.at(Head::Best).await?;
    let found = at
        .storage()
        .fetch(calls::account(), (account.0,))
        .await
        .map_err(fault)?;
    Ok(found.decode().map_err(fault)?.data.free)
}

pub(super) async fn height(link: Arc<Link>, head: Head) -> Result<u32, ChainError> {
    let height = link.at(head).await?.block_number();
    u32::try_from(height).map_err(|_| ChainError::Shape(format!("block numbers of more than 32 bits: {height}")))
}

pub(super) async fn territory(
    link: Arc<Link>,
    owner: AccountId,
    name: String,
) -> Result<Option<Territory>, ChainError> {
    let at = link.at(Head::Best).await?;
    let key = (owner.0, name.clone().into_bytes());
    let found = at.storage().try_fetch(calls::territory(), key).await.map_err(fault)?;
    let found = found.map(|found| found.decode()).transpose().map_err(fault)?;
    Ok(found.map(|territory| territory.named(name)))
}

pub(super) async fn deal(link: Arc<Link>, fid: Fid, head: Head) -> Result<Option<Deal>, ChainError> {
    let at = link.at(head).await?;
    let found = at
        .storage()
        .try_fetch(calls::deal_map(), (fid.into(),))
        .await
        .map_err(fault)?;
    let found = found.map(|found| found.decode()).transpose().map_err(fault)?;
    found
        .map(Deal::try_from)
        .transpose()
        .map_err(|e| foreign("deal", fid, &e))
}

pub(super) async fn file(link: Arc<Link>, fid: Fid, head: Head) -> Result<Option<StoredFile>, ChainError> {
    let at = link.at(head).await?;
    let found = at
        .storage()
        .try_fetch(calls::file(), (fid.into(),))
        .await
        .map_err(fault)?;
    let found = found.map(|found| found.decode()).transpose().map_err(fault)?;
    found
        .map(StoredFile::try_from)
        .transpose()
        .map_err(|e| foreign("file", fid, &e))
}

/// The chain keeps what anybody declared under any fid, so a record of ours may have been replaced by nonsense.
fn foreign(what: &str, fid: Fid, error: &Malformed) -> ChainError {
    ChainError::Refused(format!(
        "the {what} of {} is not one that cessfs made: {error}",
        hex::encode(fid.0)
    ))
}

pub(super) async fn files(link: Arc<Link>, owner: AccountId) -> Result<Vec<Fid>, ChainError> {
    let at = link.at(Head::Finalized).await?;
    let found = at
        .storage()
        .fetch(calls::user_hold_file_list(), (owner.0,))
        .await
        .map_err(fault)?;
    let list = found.decode().map_err(fault)?;
    // What is no fid was not made by cessfs.
    Ok(list.iter().filter_map(|entry| entry.file_hash.fid().ok()).collect())
}

/// All miners that have an address that may be a miner's.
pub(super) async fn miners(link: Arc<Link>) -> Result<Vec<Miner>, ChainError> {
    let at = link.at(Head::Finalized).await?;
    let mut failed = HashMap::new();
    // A network without audits has no such item: what it does not tell is not missed.
    if shape::has_storage(at.metadata_ref(), "Audit", "CountedServiceFailed") {
        let mut entries = at.storage().iter(calls::failed_audits(), ()).await.map_err(fault)?;
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(fault)?;
            let (account,) = entry.key().and_then(|key| key.decode()).map_err(fault)?;
            failed.insert(account, entry.value().decode().map_err(fault)?);
            if failed.len() > CHAIN_MINERS_MAX {
                return Err(ChainError::Shape(format!(
                    "more than {CHAIN_MINERS_MAX} audited miners"
                )));
            }
        }
    }
    let mut entries = at.storage().iter(calls::miner_items(), ()).await.map_err(fault)?;
    let mut miners = Vec::new();
    while let Some(entry) = entries.next().await {
        let entry = entry.map_err(fault)?;
        let (account,) = entry.key().and_then(|key| key.decode()).map_err(fault)?;
        let info = entry.value().decode().map_err(fault)?;
        if let Some(endpoint) = endpoint_url(&info.endpoint, link.reach) {
            miners.push(Miner {
                account: AccountId(account),
                endpoint,
                positive: info.state == MINER_POSITIVE,
                leaving: MINER_LEAVING.contains(&info.state.as_slice()),
                failed_audits: failed.get(&account).copied().unwrap_or(0),
                idle_bytes: info.idle_space,
            });
        }
        if miners.len() > CHAIN_MINERS_MAX {
            return Err(ChainError::Shape(format!("more than {CHAIN_MINERS_MAX} miners")));
        }
    }
    Ok(miners)
}

pub(super) async fn faucet(link: Arc<Link>, account: AccountId) -> Result<(), ChainError> {
    if link.name != DEVNET_NAME {
        return Err(ChainError::Refused(format!(
            "{} has no faucet that cessfs knows",
            link.name
        )));
    }
    link.request("cessfs_faucet", &account.to_ss58(SS58_PREFIX)).await?;
    Ok(())
}
