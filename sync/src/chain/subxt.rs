//! The chain over its WebSocket RPC: the real side of [`Chain`].
//!
//! Speaks through subxt's dynamic interface, by the metadata that the chain itself states, and refuses a chain on which
//! something that cessfs uses is missing or has another shape. What is signed does not go by that metadata (`payload`). Needs no
//! network to be made: connections are made when something is asked, and every question has its own time, after which it is
//! `Away`. Transactions of this process are sent one after the other, so that their nonces never collide.

#![expect(
    clippy::disallowed_methods,
    reason = "the real side of a seam: its time is that of its connections"
)]

mod bounds;
mod calls;
mod endpoint;
mod fault;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod link;
mod payload;
mod read;
mod shape;
mod submit;
mod wire;

use crate::chain::{
    Chain, ChainError, ChainInfo, Deal, Declaration, Head, Miner, Pin, Planck, StoredFile, Territory, TerritoryState,
};
use crate::fragment_store::Fid;
use crate::limits::{CHAIN_CALL_TIMEOUT, CHAIN_LIST_TIMEOUT, CHAIN_MINERS_CACHE};
use calls::Call;
use cessfs_crypto::{AccountId, AccountKey, Entropy};
use fault::{Purpose, shown};
use futures::FutureExt;
use futures::future::BoxFuture;
use link::{Dial, Link, limited};
use std::sync::Arc;
use std::time::{Duration, Instant};
use submit::{Wallet, submit};
use subxt::ext::scale_encode::EncodeAsFields;

/// The chain behind an RPC address, acting as one account. Clones share the connection.
#[derive(Clone)]
pub struct SubxtChain(Arc<Inner>);

struct Inner {
    account: AccountId,
    wallet: Wallet,
    dial: Dial,
    /// Held by the transaction that is under way.
    turn: tokio::sync::Mutex<()>,
    miners: tokio::sync::Mutex<Option<(Instant, Vec<Miner>)>>,
}

impl SubxtChain {
    /// A client of the RPC at `url` that signs with `key`, for the network of `pin`. Connects when it is first asked.
    ///
    /// # Errors
    /// `Refused` if `url` is no `ws://` or `wss://` address; never because of the network.
    pub fn new(url: &str, key: AccountKey, entropy: Box<dyn Entropy>, pin: Pin) -> Result<SubxtChain, ChainError> {
        if !is_address(url) {
            return Err(ChainError::Refused(format!("`{url}` is no ws:// or wss:// address")));
        }
        Ok(SubxtChain(Arc::new(Inner {
            account: key.account_id(),
            wallet: Wallet::new(key, entropy),
            dial: Dial::new(url.to_owned(), pin),
            turn: tokio::sync::Mutex::default(),
            miners: tokio::sync::Mutex::default(),
        })))
    }

    /// Answers a question within `time`.
    fn ask<T>(
        &self,
        time: Duration,
        question: impl Fn(Arc<Link>) -> BoxFuture<'static, Result<T, ChainError>> + Send + Sync + 'static,
    ) -> BoxFuture<'static, Result<T, ChainError>>
    where
        T: Send + 'static,
    {
        let inner = self.0.clone();
        async move { limited(time, inner.on_link(question)).await.map_err(shown) }.boxed()
    }

    fn submit<F>(&self, call: Call<F>, purpose: Purpose) -> BoxFuture<'static, Result<(), ChainError>>
    where
        F: EncodeAsFields + Send + Sync + 'static,
    {
        let inner = self.0.clone();
        async move { submit(&inner, call, purpose).await.map_err(shown) }.boxed()
    }
}

/// Whether a text can be the address of an RPC endpoint.
pub fn is_address(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|parsed| matches!(parsed.scheme(), "ws" | "wss") && parsed.has_host())
}

/// Whether what is said to and by an RPC endpoint passes others on its way, and is not encrypted.
pub fn is_in_the_clear(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else {
        return false;
    };
    let host = url.host_str().unwrap_or_default();
    let literal = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    let loopback = host == "localhost" || literal.is_ok_and(|address| address.is_loopback());
    url.scheme() == "ws" && !loopback
}

impl Inner {
    /// Runs `work` on the connection. If that had been there before and turns out to be broken, once more on a new one.
    async fn on_link<'a, T>(
        &self,
        work: impl Fn(Arc<Link>) -> BoxFuture<'a, Result<T, ChainError>> + Send + Sync,
    ) -> Result<T, ChainError> {
        let (link, used) = self.dial.link().await?;
        let first = work(link.clone()).await;
        if !matches!(first, Err(ChainError::Away(_))) {
            return first;
        }
        link.give_up();
        if !used {
            return first;
        }
        let (link, _) = self.dial.link().await?;
        let second = work(link.clone()).await;
        if matches!(second, Err(ChainError::Away(_))) {
            link.give_up();
        }
        second
    }

    /// The miners, read again when the list is old. Callers that come meanwhile wait for the same reading.
    async fn miners(&self) -> Result<Vec<Miner>, ChainError> {
        let mut cache = self.miners.lock().await;
        if let Some((read, miners)) = &*cache
            && read.elapsed() < CHAIN_MINERS_CACHE
        {
            return Ok(miners.clone());
        }
        let miners = self.on_link(|link| read::miners(link).boxed()).await?;
        *cache = Some((Instant::now(), miners.clone()));
        Ok(miners)
    }
}

impl Chain for SubxtChain {
    fn account(&self) -> AccountId {
        self.0.account
    }

    fn info(&self) -> BoxFuture<'static, Result<ChainInfo, ChainError>> {
        self.ask(CHAIN_CALL_TIMEOUT, |link| read::info(link).boxed())
    }

    fn balance(&self, account: AccountId) -> BoxFuture<'static, Result<Planck, ChainError>> {
        self.ask(CHAIN_CALL_TIMEOUT, move |link| read::balance(link, account).boxed())
    }

    fn note_final(&self, height: u32) {
        self.0.dial.note_final(height);
    }

    fn height(&self, head: Head) -> BoxFuture<'static, Result<u32, ChainError>> {
        self.ask(CHAIN_CALL_TIMEOUT, move |link| read::height(link, head).boxed())
    }

    fn territory(&self, name: &str) -> BoxFuture<'static, Result<Option<Territory>, ChainError>> {
        let (owner, name) = (self.0.account, name.to_owned());
        self.ask(CHAIN_CALL_TIMEOUT, move |link| {
            read::territory(link, owner, name.clone()).boxed()
        })
    }

    fn mint_territory(&self, name: &str, gib: u32, days: u32) -> BoxFuture<'static, Result<(), ChainError>> {
        self.submit(calls::mint_territory(name, gib, days), Purpose::Purchase)
    }

    fn expand_territory(&self, name: &str, gib: u32) -> BoxFuture<'static, Result<(), ChainError>> {
        self.submit(calls::expanding_territory(name, gib), Purpose::Purchase)
    }

    fn renew_territory(&self, name: &str, days: u32) -> BoxFuture<'static, Result<(), ChainError>> {
        let (this, name) = (self.clone(), name.to_owned());
        async move {
            // The chain has two calls for it: one while the content is still there, one when it is gone.
            let expired = |territory: &Territory| territory.state == TerritoryState::Expired;
            let call = match this.territory(&name).await?.as_ref().is_some_and(expired) {
                true => calls::reactivate_territory(&name, days),
                false => calls::renewal_territory(&name, days),
            };
            this.submit(call, Purpose::Purchase).await
        }
        .boxed()
    }

    fn miners(&self) -> BoxFuture<'static, Result<Vec<Miner>, ChainError>> {
        let inner = self.0.clone();
        async move { limited(CHAIN_LIST_TIMEOUT, inner.miners()).await.map_err(shown) }.boxed()
    }

    fn deal(&self, fid: Fid, head: Head) -> BoxFuture<'static, Result<Option<Deal>, ChainError>> {
        self.ask(CHAIN_CALL_TIMEOUT, move |link| read::deal(link, fid, head).boxed())
    }

    fn file(&self, fid: Fid, head: Head) -> BoxFuture<'static, Result<Option<StoredFile>, ChainError>> {
        self.ask(CHAIN_CALL_TIMEOUT, move |link| read::file(link, fid, head).boxed())
    }

    fn declare(&self, declaration: Declaration) -> BoxFuture<'static, Result<(), ChainError>> {
        self.submit(calls::upload_declaration(self.0.account, &declaration), Purpose::Upload)
    }

    fn delete(&self, fid: Fid) -> BoxFuture<'static, Result<(), ChainError>> {
        self.submit(calls::delete_file(self.0.account, fid), Purpose::Other)
    }

    fn files(&self) -> BoxFuture<'static, Result<Vec<Fid>, ChainError>> {
        let owner = self.0.account;
        self.ask(CHAIN_LIST_TIMEOUT, move |link| read::files(link, owner).boxed())
    }

    fn faucet(&self) -> BoxFuture<'static, Result<(), ChainError>> {
        let account = self.0.account;
        self.ask(CHAIN_CALL_TIMEOUT, move |link| read::faucet(link, account).boxed())
    }
}

#[cfg(test)]
mod tests;
