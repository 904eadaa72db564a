//! The node: one author, its pool, and who watches.
//!
//! Blocks come at a fixed pace from one author. The finalized head follows the best one a few blocks behind, so a client
//! sees the difference between *in a block* and *final* although nothing is ever reverted. A watcher of a transaction is
//! told `inBlock` and `finalized` when that is so, in this order. One lock guards chain and pool; it is never held across
//! an await.

mod doors;
mod pool;
mod view;

pub use doors::DoorError;
pub use pool::{PoolError, TransactionStatus};
pub use view::MinerKeys;

use crate::{
    chain::{Chain, ChainError, Sealed},
    limits::{FINALITY_LAG, HEADS_QUEUE},
};
use cessfs_devnet_runtime::{Header, RuntimeCall};
use parking_lot::{RwLock, RwLockReadGuard};
use pool::{Pool, Watchers};
use sp_core::H256;
use sp_runtime::DispatchError;
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{broadcast, mpsc, oneshot};

/// What became of an author's own call: the block it is in, or its dispatch error.
type ForcedOutcome = Result<H256, DispatchError>;

/// The node.
pub struct Node {
    state: RwLock<State>,
    heads: broadcast::Sender<Header>,
    finalized: broadcast::Sender<Header>,
}

/// Chain, pool and what waits for the next block.
pub struct State {
    chain: Chain,
    pool: Pool,
    watchers: Watchers,
    forced: Vec<(RuntimeCall, oneshot::Sender<ForcedOutcome>)>,
    finalized: u32,
    lag: u32,
    paused: bool,
    /// A name in the metadata, and the name of the same length that is told instead.
    renamed: Option<(String, String)>,
}

impl State {
    /// Calls a function of the runtime, as it answers those outside.
    ///
    /// # Errors
    /// If there is no such block or function.
    pub fn call(&self, at: Option<H256>, method: &str, data: &[u8]) -> Result<Vec<u8>, ChainError> {
        let mut answer = self.chain.call(at, method, data)?;
        if let (Some((name, told)), true) = (&self.renamed, method.starts_with("Metadata_")) {
            let places = (0..answer.len()).filter(|&i| answer[i..].starts_with(name.as_bytes()));
            for place in places.collect::<Vec<_>>() {
                answer[place..place + told.len()].copy_from_slice(told.as_bytes());
            }
        }
        Ok(answer)
    }

    /// The chain.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Number of the newest final block.
    pub fn finalized(&self) -> u32 {
        self.finalized
    }

    /// Hash of the newest final block.
    pub fn finalized_hash(&self) -> H256 {
        self.chain
            .at_height(self.finalized)
            .map_or(self.chain.genesis_hash(), |block| block.hash)
    }

    /// True while no blocks are made.
    pub fn paused(&self) -> bool {
        self.paused
    }
}

impl Node {
    /// A node on this chain. It makes no blocks until [`Node::author`] runs.
    pub fn new(chain: Chain) -> Arc<Self> {
        let finalized = chain.height().saturating_sub(FINALITY_LAG);
        Arc::new(Self {
            state: RwLock::new(State {
                chain,
                pool: Pool::default(),
                watchers: Watchers::default(),
                forced: Vec::new(),
                finalized,
                lag: FINALITY_LAG,
                paused: false,
                renamed: None,
            }),
            heads: broadcast::channel(HEADS_QUEUE).0,
            finalized: broadcast::channel(HEADS_QUEUE).0,
        })
    }

    /// Chain and pool as they are. Drop it before awaiting anything.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// Heads of new blocks from now on.
    pub fn heads(&self) -> broadcast::Receiver<Header> {
        self.heads.subscribe()
    }

    /// Heads of newly final blocks from now on.
    pub fn finalized_heads(&self) -> broadcast::Receiver<Header> {
        self.finalized.subscribe()
    }

    /// Takes a transaction into the pool, for the next block that can have it.
    ///
    /// # Errors
    /// The pool's refusal, as a real node would give it.
    pub fn submit(&self, extrinsic: Vec<u8>) -> Result<H256, PoolError> {
        let state = &mut *self.state.write();
        let (hash, replaced) = state.pool.submit(&state.chain, extrinsic)?;
        if let Some(replaced) = replaced {
            state.watchers.end(replaced, TransactionStatus::Usurped(hash));
        }
        Ok(hash)
    }

    /// Takes a transaction and tells what becomes of it.
    ///
    /// # Errors
    /// The pool's refusal.
    pub fn submit_and_watch(
        &self,
        extrinsic: Vec<u8>,
    ) -> Result<mpsc::UnboundedReceiver<TransactionStatus>, PoolError> {
        let state = &mut *self.state.write();
        let (hash, replaced) = state.pool.submit(&state.chain, extrinsic)?;
        if let Some(replaced) = replaced {
            state.watchers.end(replaced, TransactionStatus::Usurped(hash));
        }
        let first = if state.pool.is_ready(hash) {
            TransactionStatus::Ready
        } else {
            TransactionStatus::Future
        };
        Ok(state.watchers.watch(hash, first))
    }

    /// Makes a block every `pace` until the task is dropped. A failed block is logged and tried again.
    pub async fn author(self: Arc<Self>, pace: Duration) {
        let mut ticks = tokio::time::interval(pace);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let node = self.clone();
            let sealed = tokio::task::spawn_blocking(move || node.make_block(now_ms())).await;
            match sealed {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing::error!(%e, "no block"),
                Err(e) => tracing::error!(%e, "the author stumbled"),
            }
        }
    }

    /// Makes one block, unless production is paused.
    ///
    /// # Errors
    /// If the runtime or the log fails.
    pub fn make_block(&self, now_ms: u64) -> Result<(), ChainError> {
        let state = &mut *self.state.write();
        if state.paused {
            return Ok(());
        }
        let (calls, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut state.forced).into_iter().unzip();
        let sealed = state.chain.seal(&calls, &state.pool.candidates(), now_ms)?;
        for (outcome, waiter) in sealed.forced.iter().zip(waiting) {
            // Whoever asked may have gone; the call is in the block all the same.
            let _ = waiter.send(outcome.map(|()| sealed.hash));
        }
        state.settle(&sealed);
        let _ = self.heads.send(sealed.header); // an error only says that nobody listens
        for header in state.advance_finality() {
            let _ = self.finalized.send(header);
        }
        Ok(())
    }
}

impl State {
    fn settle(&mut self, sealed: &Sealed) {
        for hash in &sealed.included {
            self.pool.settle(*hash);
            self.watchers.tell(*hash, TransactionStatus::InBlock(sealed.hash));
        }
        for hash in &sealed.invalid {
            self.pool.discard(*hash);
            self.watchers.end(*hash, TransactionStatus::Invalid);
        }
        for hash in self.pool.newly_ready() {
            self.watchers.tell(hash, TransactionStatus::Ready);
        }
    }

    /// Moves the final head up to the lag, never back; returns the heads that became final.
    fn advance_finality(&mut self) -> Vec<Header> {
        let target = self.chain.height().saturating_sub(self.lag);
        let mut fresh = Vec::new();
        while self.finalized < target {
            self.finalized += 1;
            let Some(block) = self.chain.at_height(self.finalized) else {
                break;
            };
            for extrinsic in &block.body {
                let status = TransactionStatus::Finalized(block.hash);
                self.watchers.end(crate::chain::transaction_hash(extrinsic), status);
            }
            fresh.push(block.header.clone());
        }
        fresh
    }
}

/// Milliseconds since 1970, for the chain's clock.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
