//! The seam between the chain and the miners.
//!
//! A miner needs very little of the chain: the live deal of a file, a way to report, and to know when its report has made
//! the file exist. The node implements [`ChainView`]; the miner servers know nothing else of it, so either side can be
//! replaced by a small fake in the other's tests. Hashes cross the seam as the 64 lowercase hex characters they are on
//! the chain and in the miners' HTTP headers.

use std::path::PathBuf;

/// What a miner needs of the chain. Calls answer at once, from the best (not yet finalized) block.
pub trait ChainView: Send + Sync + 'static {
    /// The live deal of a file (`fid`: 64 hex characters), or `None` when it was never declared, is stored already, or was
    /// dropped.
    fn deal(&self, fid: &str) -> Option<Deal>;

    /// Submits `transfer_report(index, fid)`, signed by the miner with fleet index `miner`.
    ///
    /// # Errors
    /// The pool's text, where it refuses the transaction. A report that the pool takes may still fail when it is applied:
    /// look at [`ChainView::deal`] and [`ChainView::stored`] again.
    fn report(&self, miner: usize, index: u8, fid: &str) -> Result<(), String>;

    /// True once the file exists on the chain and names this miner as a holder of its fragments.
    fn stored(&self, fid: &str, miner: usize) -> bool;

    /// Number of the best block.
    fn height(&self) -> u32;
}

/// A declared file that is not yet stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deal {
    /// For each segment its 12 fragment hashes (64 hex characters each), data before parity.
    pub segments: Vec<[String; 12]>,
    /// The reports so far: fragment index (1..=12), and the reporting miner's fleet index where it is one of ours.
    pub reported: Vec<(u8, Option<usize>)>,
}

/// One miner that the fleet runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinerSpec {
    /// Place in the fleet, from 0.
    pub index: usize,
    /// The account it signs with, SS58 text with CESS's prefix 11330.
    pub account_ss58: String,
    /// TCP port of its HTTP server on 127.0.0.1; the chain's `endpoint` names it.
    pub endpoint_port: u16,
    /// Directory that is this miner's alone: fragments and its persisted faults.
    pub dir: PathBuf,
}
