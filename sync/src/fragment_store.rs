//! Miners as a seam: put, get and probe of fragments.

pub mod http;

pub use self::http::{HttpFragments, Reach};
use bytes::Bytes;
pub use cessfs_erasure::{Fid, Sha256Hash};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::ops::Range;

/// Why a miner did not do what was asked; the caller acts by kind.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MinerError {
    /// Could not be reached, timed out, or broke off.
    #[error("miner does not answer: {0}")]
    Unreachable(String),
    /// Answered that it does not have the fragment.
    #[error("miner does not hold the fragment: {0}")]
    Missing(String),
    /// Refused the request (not in the deal, bad signature, full).
    #[error("miner refuses: {0}")]
    Refused(String),
    /// Answered with the wrong bytes.
    #[error("miner answered with wrong data: {0}")]
    Wrong(String),
}

/// The bytes of a fragment on their way to a miner, 8 MiB in all. An error breaks the upload off.
pub type FragmentBody = BoxStream<'static, std::io::Result<Bytes>>;

/// What a probe told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinerStatus {
    /// `positive` for a miner that takes data; other words as the chain has them.
    pub state: String,
}

/// The data plane: facts 3.1. Endpoints are as the chain states them (after the rule of facts 3.1).
pub trait FragmentStore: Send + Sync + 'static {
    /// Uploads one 8 MiB fragment.
    fn put(
        &self,
        endpoint: &str,
        fid: Fid,
        fragment: Sha256Hash,
        body: FragmentBody,
    ) -> BoxFuture<'static, Result<(), MinerError>>;
    /// Reads a range of a fragment (the whole one if it covers all). Length is checked; the hash is not.
    fn get(
        &self,
        endpoint: &str,
        fid: Fid,
        fragment: Sha256Hash,
        range: Range<u32>,
    ) -> BoxFuture<'static, Result<Bytes, MinerError>>;
    /// Asks `/status`.
    fn probe(&self, endpoint: &str) -> BoxFuture<'static, Result<MinerStatus, MinerError>>;
}
