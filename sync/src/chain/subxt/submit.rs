//! Transactions: one at a time, each followed until the chain has decided about it for good.
//!
//! The life of one: signed at a finalized block (so its era cannot be forked away), sent, watched to finality, its events
//! read. If the connection breaks in between, its fate is asked for: it is decided once the finalized nonce of the
//! account has passed its own (it is in a block) or the finalized height has passed its era (it never will be). Only then,
//! or when the overall time is up, `Away` is returned, so that what the caller then reads at a finalized block is the truth.

use super::Inner;
use super::bounds;
use super::calls::{self, Call};
use super::fault::{Purpose, dispatch, fault, rejection};
use super::link::{Link, limited};
use super::payload::{Terms, signable};
use crate::chain::{ChainError, Head};
use crate::limits::{
    CHAIN_CALL_TIMEOUT, CHAIN_TEXT_CHARS_MAX, TRANSACTION_FATE_INTERVAL, TRANSACTION_LIFE_BLOCKS, TRANSACTION_TIMEOUT,
};
use crate::printable::printable;
use cessfs_crypto::{AccountId, AccountKey, Entropy};
use futures::FutureExt;
use parking_lot::Mutex;
use std::sync::Arc;
use subxt::SubstrateConfig;
use subxt::client::OnlineClientAtBlockImpl;
use subxt::error::TransactionEventsError;
use subxt::ext::scale_encode::EncodeAsFields;
use subxt::tx::{Signer, SubmittableTransaction};
use subxt::utils::{AccountId32, MultiSignature};
use tokio::time::{Instant, sleep, timeout_at};

/// The account that signs, with the randomness that sr25519 mixes into every signature.
pub(super) struct Wallet {
    key: AccountKey,
    entropy: Mutex<Box<dyn Entropy>>,
}

impl Wallet {
    pub(super) fn new(key: AccountKey, entropy: Box<dyn Entropy>) -> Wallet {
        Wallet {
            key,
            entropy: Mutex::new(entropy),
        }
    }
}

impl Signer<SubstrateConfig> for Wallet {
    fn account_id(&self) -> AccountId32 {
        AccountId32(self.key.account_id().0)
    }

    fn sign(&self, payload: &[u8]) -> MultiSignature {
        MultiSignature::Sr25519(self.key.sign(payload, &mut **self.entropy.lock()))
    }
}

/// A signed transaction and what decides its fate.
struct Signed {
    transaction: SubmittableTransaction<SubstrateConfig, OnlineClientAtBlockImpl<SubstrateConfig>>,
    nonce: u64,
    /// Height after which it is in no block.
    last_block: u64,
}

/// Signs and sends a call and returns when it is finalized, or decided otherwise.
pub(super) async fn submit<F>(inner: &Inner, call: Call<F>, purpose: Purpose) -> Result<(), ChainError>
where
    F: EncodeAsFields + Send + Sync,
{
    let _turn = inner.turn.lock().await;
    let deadline = Instant::now() + TRANSACTION_TIMEOUT;
    let signed = limited(CHAIN_CALL_TIMEOUT, prepare(inner, &call)).await?;
    let why = match timeout_at(deadline, follow(&signed, purpose)).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(Outcome::Decided(error))) => return Err(error),
        Ok(Err(Outcome::Unknown(why))) => why,
        Err(_) => format!("not finalized within {TRANSACTION_TIMEOUT:?}"),
    };
    let why = printable(&why, CHAIN_TEXT_CHARS_MAX);
    tracing::warn!(
        call = call.name(),
        nonce = signed.nonce,
        why,
        "lost sight of a transaction"
    );
    let fate = timeout_at(deadline, fate(inner, &signed))
        .await
        .unwrap_or("its fate is not known yet");
    Err(ChainError::Away(format!("{}: {why}; {fate}", call.name())))
}

/// Signs for the next nonce. Nothing is sent, so a broken connection is simply tried once more.
async fn prepare<F>(inner: &Inner, call: &Call<F>) -> Result<Signed, ChainError>
where
    F: EncodeAsFields + Send + Sync,
{
    inner.on_link(|link| sign(inner, call, link).boxed()).await
}

async fn sign<F>(inner: &Inner, call: &Call<F>, link: Arc<Link>) -> Result<Signed, ChainError>
where
    F: EncodeAsFields + Send + Sync,
{
    let at = link.at(Head::Finalized).await?;
    let account = inner.wallet.account_id();
    // The pool's view: also counts what another wallet of this account has in flight.
    let nonce = link.rpc.system_account_next_index(&account).await.map_err(fault)?;
    let terms = Terms {
        nonce,
        block: at.block_number(),
        block_hash: at.block_hash(),
    };
    let (mut signable, payload) = signable(&at, call, terms)?;
    let transaction = signable
        .sign_with_account_and_signature(&account, &inner.wallet.sign(&payload))
        .map_err(|e| ChainError::Shape(e.to_string()))?;
    Ok(Signed {
        transaction,
        nonce,
        last_block: at.block_number().saturating_add(TRANSACTION_LIFE_BLOCKS),
    })
}

enum Outcome {
    Decided(ChainError),
    Unknown(String),
}

/// Sends it and follows it to a finalized block and its events.
async fn follow(signed: &Signed, purpose: Purpose) -> Result<(), Outcome> {
    let unknown = |error: &dyn std::fmt::Display| Outcome::Unknown(error.to_string());
    let progress = signed
        .transaction
        .submit_and_watch()
        .await
        .map_err(|error| match rejection(&error) {
            Some(kind) => Outcome::Decided(kind),
            None => unknown(&error),
        })?;
    let block = progress.wait_for_finalized().await.map_err(|e| unknown(&e))?;
    // Its events are decoded by the metadata of that block, which may be of another runtime than what was looked at.
    let at = block.at().await.map_err(|e| unknown(&e))?;
    bounds::check_calls(at.metadata_ref()).map_err(|e| unknown(&e))?;
    match block.wait_for_success().await {
        Ok(_) => Ok(()),
        Err(TransactionEventsError::ExtrinsicFailed(error)) => Err(Outcome::Decided(dispatch(&error, purpose))),
        Err(error) => Err(unknown(&error)),
    }
}

/// Waits until the transaction is decided, and says how far that is known.
async fn fate(inner: &Inner, signed: &Signed) -> &'static str {
    loop {
        let asked = inner.on_link(|link| settled(link, inner.account).boxed());
        match limited(CHAIN_CALL_TIMEOUT, asked).await {
            Ok((nonce, _)) if nonce > signed.nonce => return "it is in a finalized block",
            Ok((_, height)) if height > signed.last_block => return "it has expired",
            // Not decided, or still no connection.
            _ => sleep(TRANSACTION_FATE_INTERVAL).await,
        }
    }
}

/// The account's nonce, and the height, at the finalized head.
async fn settled(link: Arc<Link>, account: AccountId) -> Result<(u64, u64), ChainError> {
    let at = link.at(Head::Finalized).await?;
    let account = at
        .storage()
        .fetch(calls::account(), (account.0,))
        .await
        .map_err(fault)?;
    let account = account.decode().map_err(fault)?;
    Ok((u64::from(account.nonce), at.block_number()))
}
