//! The chain as a seam: what cessfs asks of CESS and what it tells it.

pub mod pin;
pub mod subxt;

pub use self::pin::Pin;
pub use self::subxt::SubxtChain;
use crate::fragment_store::Fid;
use cessfs_crypto::AccountId;
pub use cessfs_erasure::SegmentHashes;
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
    /// Its remaining space is not greater than what is needed.
    #[error("the territory is full: {0}")]
    TerritoryFull(String),
    /// It is frozen, expired or on consignment.
    #[error("the territory does not take uploads: {0}")]
    TerritoryInactive(String),
    /// No territory of that name belongs to the account.
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
    /// What `system_chain` answers.
    pub name: String,
    /// Runtime version.
    pub spec_version: u32,
    /// Hash of the first block.
    pub genesis: [u8; 32],
    /// FileBank.SegmentCount.
    pub segment_count_max: u32,
    /// FileBank.FragmentCount; must be 12.
    pub fragment_count: u32,
    /// Balance below which an account is reaped.
    pub existential_deposit: Planck,
    /// Price of a GiB-day, if set (facts 1.6).
    pub unit_price: Option<Planck>,
    /// What one token is called.
    pub token_symbol: String,
}

/// State of a territory (facts 1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerritoryState {
    /// Takes uploads.
    Active,
    /// Past its deadline: keeps data for seven days, takes no uploads.
    Frozen,
    /// Given up: its data is being purged.
    Expired,
    /// For sale.
    OnConsignment,
}

/// Space bought on the network; all sizes in bytes, charged at three times the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Territory {
    /// Unique within its owner.
    pub name: String,
    /// Bought.
    pub total_bytes: u128,
    /// Charged for stored files.
    pub used_bytes: u128,
    /// Charged for open deals.
    pub locked_bytes: u128,
    /// Free.
    pub remaining_bytes: u128,
    /// Block it was bought at.
    pub start_block: u32,
    /// Block it freezes at.
    pub deadline_block: u32,
    /// Whether it takes uploads.
    pub state: TerritoryState,
}

/// A storage miner as the chain lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miner {
    /// Its account.
    pub account: AccountId,
    /// URL base after the rule of facts 3.1 (cut at NUL, scheme added).
    pub endpoint: String,
    /// Its state is `positive`: it takes deals.
    pub positive: bool,
    /// It is on its way out, or was put out: what it holds will not stay.
    pub leaving: bool,
    /// Audits of stored data that it failed in a row, where the chain tells.
    pub failed_audits: u32,
    /// Space it can still give.
    pub idle_bytes: u128,
}

/// An open deal: who has reported which column (0..12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deal {
    /// Who declared it.
    pub owner: AccountId,
    /// Its public file name.
    pub label: Vec<u8>,
    /// What was declared.
    pub segments: Vec<SegmentHashes>,
    /// Column (0..12) and miner.
    pub reported: Vec<(u8, AccountId)>,
}

/// A stored file: miners by column, the same for every segment as F3 has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Owner, file name, territory.
    pub owners: Vec<(AccountId, Vec<u8>, Vec<u8>)>,
    /// Hashes and the twelve miners of each segment.
    pub segments: Vec<(SegmentHashes, [AccountId; 12])>,
    /// Fragments that their holder told the chain it has lost: segment and column.
    pub unavailable: Vec<(u32, u8)>,
    /// Bytes as declared.
    pub size: u128,
}

/// What `upload_declaration` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// Id of the pack.
    pub fid: Fid,
    /// Every segment in order.
    pub segments: Vec<SegmentHashes>,
    /// The sealed label, 63 bytes.
    pub label: String,
    /// Where it is charged.
    pub territory: String,
    /// Bytes, padding included.
    pub size: u128,
}

/// At which head a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The last finalized block: never undone.
    Finalized,
    /// The newest block: may still be undone.
    Best,
}

/// What cessfs needs of the chain. All reads say at which head; all writes resolve at a finalized block.
pub trait Chain: Send + Sync + 'static {
    /// The account that signs.
    fn account(&self) -> AccountId;
    /// What the chain says about itself.
    fn info(&self) -> BoxFuture<'static, Result<ChainInfo, ChainError>>;
    /// Free balance at the best block.
    fn balance(&self, account: AccountId) -> BoxFuture<'static, Result<Planck, ChainError>>;
    /// Finality was at this height in an earlier run: a node that is behind it lags, and what it does not have is not gone.
    fn note_final(&self, _height: u32) {}
    /// Height of a head.
    fn height(&self, head: Head) -> BoxFuture<'static, Result<u32, ChainError>>;
    /// A territory of our account, at the best block.
    fn territory(&self, name: &str) -> BoxFuture<'static, Result<Option<Territory>, ChainError>>;
    /// Buys a territory (gib >= 1, days >= 30).
    fn mint_territory(&self, name: &str, gib: u32, days: u32) -> BoxFuture<'static, Result<(), ChainError>>;
    /// Adds space to one.
    fn expand_territory(&self, name: &str, gib: u32) -> BoxFuture<'static, Result<(), ChainError>>;
    /// Adds days to one.
    fn renew_territory(&self, name: &str, days: u32) -> BoxFuture<'static, Result<(), ChainError>>;
    /// All registered miners, at the finalized block.
    fn miners(&self) -> BoxFuture<'static, Result<Vec<Miner>, ChainError>>;
    /// The open deal of a fid.
    fn deal(&self, fid: Fid, head: Head) -> BoxFuture<'static, Result<Option<Deal>, ChainError>>;
    /// The stored file of a fid.
    fn file(&self, fid: Fid, head: Head) -> BoxFuture<'static, Result<Option<StoredFile>, ChainError>>;
    /// `upload_declaration`. NOT idempotent (F4): the caller has checked `file` and `deal` at a finalized block and journaled its
    /// intent (I2). `Away` means unknown: ask `deal`/`file` again before anything else.
    fn declare(&self, declaration: Declaration) -> BoxFuture<'static, Result<(), ChainError>>;
    /// `delete_file` of our own file; refunds its space.
    fn delete(&self, fid: Fid) -> BoxFuture<'static, Result<(), ChainError>>;
    /// fids the account holds (`UserHoldFileList`), finalized.
    fn files(&self) -> BoxFuture<'static, Result<Vec<Fid>, ChainError>>;
    /// Devnet only: asks its faucet for funds. `Refused` elsewhere.
    fn faucet(&self) -> BoxFuture<'static, Result<(), ChainError>>;
}
