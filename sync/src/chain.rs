//! The chain as a seam: what cessfs asks of CESS and what it tells it.

use crate::fragment_store::{Fid, Sha256Hash};
use cessfs_crypto::AccountId;
use futures::future::BoxFuture;

/// Planck: 10^-18 TCESS.
pub type Planck = u128;

/// What a caller should do about a chain error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The RPC cannot be reached or broke off; whether a submitted transaction counts is unknown until asked.
    #[error("the chain cannot be reached: {0}")]
    Away(String),
    /// Not enough TCESS for fee or price.
    #[error("the account has too little TCESS: {0}")]
    NoFunds(String),
    #[error("the territory is full: {0}")]
    TerritoryFull(String),
    #[error("the territory does not take uploads: {0}")]
    TerritoryInactive(String),
    #[error("there is no such territory: {0}")]
    NoTerritory(String),
    /// Root paused the call (TxPause).
    #[error("the chain has paused this call: {0}")]
    Paused(String),
    /// Dispatch failed for another reason: pallet.error.
    #[error("the chain refused: {0}")]
    Refused(String),
    /// The chain's metadata lacks or changed something we use; cessfs must not write (F1).
    #[error("this chain is not one cessfs knows: {0}")]
    Shape(String),
}

/// Facts F1 as the chain states them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    pub name: String,
    pub spec_version: u32,
    pub genesis: [u8; 32],
    pub segment_count_max: u32,
    pub fragment_count: u32,
    pub existential_deposit: Planck,
    pub unit_price: Option<Planck>,
    pub token_symbol: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerritoryState {
    Active,
    Frozen,
    Expired,
    OnConsignment,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Territory {
    pub name: String,
    pub total_bytes: u128,
    pub used_bytes: u128,
    pub locked_bytes: u128,
    pub remaining_bytes: u128,
    pub start_block: u32,
    pub deadline_block: u32,
    pub state: TerritoryState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miner {
    pub account: AccountId,
    /// URL base after the rule of facts 3.1 (cut at NUL, scheme added).
    pub endpoint: String,
    pub positive: bool,
    pub idle_bytes: u128,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHashes {
    pub segment: Sha256Hash,
    pub fragments: [Sha256Hash; 12],
}

/// An open deal: who has reported which column (0..12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deal {
    pub owner: AccountId,
    pub label: Vec<u8>,
    pub segments: Vec<SegmentHashes>,
    pub reported: Vec<(u8, AccountId)>,
}

/// A stored file: miners by column, the same for every segment as F3 has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    pub owners: Vec<(AccountId, Vec<u8>, Vec<u8>)>,
    pub segments: Vec<(SegmentHashes, [AccountId; 12])>,
    pub size: u128,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    pub fid: Fid,
    pub segments: Vec<SegmentHashes>,
    /// The sealed label, 63 bytes.
    pub label: String,
    pub territory: String,
    pub size: u128,
}

/// At which head a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    Finalized,
    Best,
}

/// What cessfs needs of the chain. All reads say at which head; all writes resolve at a finalized block.
pub trait Chain: Send + Sync + 'static {
    fn account(&self) -> AccountId;
    fn info(&self) -> BoxFuture<'static, Result<ChainInfo, ChainError>>;
    /// Free balance at the best block.
    fn balance(&self, account: AccountId) -> BoxFuture<'static, Result<Planck, ChainError>>;
    /// Height of a head.
    fn height(&self, head: Head) -> BoxFuture<'static, Result<u32, ChainError>>;
    fn territory(&self, name: &str) -> BoxFuture<'static, Result<Option<Territory>, ChainError>>;
    fn mint_territory(&self, name: &str, gib: u32, days: u32) -> BoxFuture<'static, Result<(), ChainError>>;
    fn expand_territory(&self, name: &str, gib: u32) -> BoxFuture<'static, Result<(), ChainError>>;
    fn renew_territory(&self, name: &str, days: u32) -> BoxFuture<'static, Result<(), ChainError>>;
    fn miners(&self) -> BoxFuture<'static, Result<Vec<Miner>, ChainError>>;
    fn deal(&self, fid: Fid, head: Head) -> BoxFuture<'static, Result<Option<Deal>, ChainError>>;
    fn file(&self, fid: Fid, head: Head) -> BoxFuture<'static, Result<Option<StoredFile>, ChainError>>;
    /// `upload_declaration`. NOT idempotent (F4): the caller has checked `file` and `deal` at a finalized block and journaled its
    /// intent (I2). `Away` means unknown: ask `deal`/`file` again before anything else.
    fn declare(&self, declaration: Declaration) -> BoxFuture<'static, Result<(), ChainError>>;
    fn delete(&self, fid: Fid) -> BoxFuture<'static, Result<(), ChainError>>;
    /// fids the account holds (`UserHoldFileList`), finalized.
    fn files(&self) -> BoxFuture<'static, Result<Vec<Fid>, ChainError>>;
    /// Devnet only: asks its faucet for funds. `Refused` elsewhere.
    fn faucet(&self) -> BoxFuture<'static, Result<(), ChainError>>;
}
