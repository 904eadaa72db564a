//! Transactions that wait for a block.
//!
//! The runtime says what a transaction needs and gives: tags, in practice (account, nonce). One that needs what neither
//! the state nor a waiting transaction gives is *future* and stays. One that gives what a waiting one gives replaces it
//! only at a higher priority. Blocks take transactions in the order they came.

use crate::{
    chain::{Chain, Refused, transaction_hash},
    limits::POOL_TRANSACTIONS_MAX,
};
use sp_core::H256;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tokio::sync::mpsc;

/// Why the pool does not take a transaction.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The runtime refuses it.
    #[error("refused: {0:?}")]
    Refused(Refused),
    /// It waits already.
    #[error("already imported: {0:?}")]
    AlreadyImported(H256),
    /// One with the same nonce waits, at this or a higher priority.
    #[error("priority is too low: ({old} vs {new})")]
    TooLowPriority {
        /// Of the waiting one.
        old: u64,
        /// Of the new one.
        new: u64,
    },
    /// There is no room.
    #[error("the pool is full")]
    Full,
}

/// What became of a watched transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// It waits for an earlier nonce.
    Future,
    /// The next block can have it.
    Ready,
    /// It is in this block.
    InBlock(H256),
    /// Its block is final. The last word.
    Finalized(H256),
    /// Another with the same nonce replaced it. The last word.
    Usurped(H256),
    /// It can't ever be in a block. The last word.
    Invalid,
}

struct Waiting {
    hash: H256,
    extrinsic: Arc<Vec<u8>>,
    priority: u64,
    requires: Vec<Vec<u8>>,
    provides: Vec<Vec<u8>>,
    /// What watchers were told last.
    ready: bool,
}

/// The pool.
#[derive(Default)]
pub struct Pool {
    /// In the order they came.
    waiting: Vec<Waiting>,
}

impl Pool {
    /// Takes a transaction; returns its hash and that of the one it replaced.
    pub(super) fn submit(&mut self, chain: &Chain, extrinsic: Vec<u8>) -> Result<(H256, Option<H256>), PoolError> {
        let hash = transaction_hash(&extrinsic);
        if self.waiting.iter().any(|w| w.hash == hash) {
            return Err(PoolError::AlreadyImported(hash));
        }
        let valid = chain.validate(&extrinsic).map_err(PoolError::Refused)?;
        let rival = self
            .waiting
            .iter()
            .position(|w| w.provides.iter().any(|tag| valid.provides.contains(tag)));
        let replaced = match rival {
            Some(at) if valid.priority > self.waiting[at].priority => Some(self.waiting.remove(at).hash),
            Some(at) => {
                return Err(PoolError::TooLowPriority {
                    old: self.waiting[at].priority,
                    new: valid.priority,
                });
            }
            None if self.waiting.len() >= POOL_TRANSACTIONS_MAX => return Err(PoolError::Full),
            None => None,
        };
        self.waiting.push(Waiting {
            hash,
            extrinsic: Arc::new(extrinsic),
            priority: valid.priority,
            requires: valid.requires,
            provides: valid.provides,
            ready: false,
        });
        self.newly_ready();
        Ok((hash, replaced))
    }

    /// Everything that waits, in the order it came.
    pub fn candidates(&self) -> Vec<Arc<Vec<u8>>> {
        self.waiting.iter().map(|w| w.extrinsic.clone()).collect()
    }

    /// True if a waiting transaction gives this tag.
    pub fn provides(&self, tag: &[u8]) -> bool {
        self.waiting.iter().any(|w| w.provides.iter().any(|given| given == tag))
    }

    pub(super) fn is_ready(&self, hash: H256) -> bool {
        self.waiting.iter().any(|w| w.hash == hash && w.ready)
    }

    /// Forgets a transaction that is in a block: what it gives is in the state from now on.
    pub(super) fn settle(&mut self, hash: H256) {
        if let Some(settled) = self.take(hash) {
            for waiting in &mut self.waiting {
                waiting.requires.retain(|tag| !settled.provides.contains(tag));
            }
        }
    }

    /// Forgets a transaction that never will be; what needs it is not ready any more.
    pub(super) fn discard(&mut self, hash: H256) {
        if self.take(hash).is_some() {
            self.waiting.iter_mut().for_each(|waiting| waiting.ready = false);
            self.newly_ready();
        }
    }

    fn take(&mut self, hash: H256) -> Option<Waiting> {
        let at = self.waiting.iter().position(|w| w.hash == hash)?;
        Some(self.waiting.remove(at))
    }

    /// Marks what has become ready; returns the hashes.
    pub(super) fn newly_ready(&mut self) -> Vec<H256> {
        let mut given: HashSet<Vec<u8>> = HashSet::new();
        let mut fresh = Vec::new();
        loop {
            let before = given.len();
            for waiting in &mut self.waiting {
                if waiting.requires.iter().all(|tag| given.contains(tag)) {
                    given.extend(waiting.provides.iter().cloned());
                    if !waiting.ready {
                        waiting.ready = true;
                        fresh.push(waiting.hash);
                    }
                }
            }
            if given.len() == before {
                return fresh;
            }
        }
    }
}

/// Who wants to know about which transaction.
#[derive(Default)]
pub(super) struct Watchers(HashMap<H256, Vec<mpsc::UnboundedSender<TransactionStatus>>>);

impl Watchers {
    /// Starts watching with a first status. The channel's length is bounded by the few statuses a transaction has.
    pub(super) fn watch(&mut self, hash: H256, first: TransactionStatus) -> mpsc::UnboundedReceiver<TransactionStatus> {
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(first).expect("the receiver is right here");
        self.0.entry(hash).or_default().push(sender);
        receiver
    }

    /// Tells those who still listen.
    pub(super) fn tell(&mut self, hash: H256, status: TransactionStatus) {
        if let Some(watchers) = self.0.get_mut(&hash) {
            watchers.retain(|watcher| watcher.send(status).is_ok());
        }
    }

    /// Tells the last word.
    pub(super) fn end(&mut self, hash: H256, status: TransactionStatus) {
        self.tell(hash, status);
        self.0.remove(&hash);
    }
}
