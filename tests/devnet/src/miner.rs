//! Storage miners: real HTTP servers that speak the dialect of CESS's miner, and report to the chain like it.
//!
//! Each miner has its own port on 127.0.0.1, its own directory and its own faults. What a client can see of it is the
//! network's: the `/fragment` and `/status` routes, errors that arrive as HTTP 200 with a JSON code, a range header with
//! an exclusive end, and a report some time after the last fragment came in. What a test can do to it is ours: stop and
//! resume it, slow it down, corrupt or forget what it holds. Those faults survive a restart of the process, because a
//! network does not get well by being looked at again.
//!
//! Promises: a fragment is either whole and has the hash it is named by, or it is not there, even after `kill -9`; a
//! fragment on its way in costs a few network reads of memory, not 8 MiB. Refuses: audits, idle space, tags and TEEs; a
//! miner's account exists only in the chain's half of the devnet.

mod auth;
mod deals;
mod fault;
mod http;
mod limits;
mod name;
mod range;
mod reporter;
mod server;
mod store;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::seam::{ChainView, MinerSpec};

use self::deals::Deals;
use self::server::Miner;

/// All miners of a devnet. Dropping it closes every server.
pub struct MinerFleet {
    miners: Vec<Arc<Miner>>,
}

/// What a fleet says about one miner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinerStatus {
    /// `running`, or `stopped` by [`MinerFleet::stop`].
    pub state: &'static str,
    /// Fragments on its disk, over all files, whether they were reported or not.
    pub fragments: u64,
    /// Delay before each of its answers, in milliseconds.
    pub slow_ms: u64,
}

impl MinerFleet {
    /// Starts a server for each spec, except for those that an earlier run stopped. `report_every` is how often a miner
    /// looks for files to report (30 s on the network); the miners take their turns spread over that time.
    ///
    /// # Errors
    /// A directory that cannot be made or read, or a port that cannot be bound.
    pub async fn start(
        specs: Vec<MinerSpec>,
        chain: Arc<dyn ChainView>,
        report_every: Duration,
    ) -> anyhow::Result<Arc<MinerFleet>> {
        let deals = Arc::new(Deals::new(chain));
        let count = u32::try_from(specs.len().max(1)).context("more miners than a u32 counts")?;
        let mut miners = Vec::with_capacity(specs.len());
        for (place, spec) in (0_u32..).zip(specs) {
            let first_report = report_every * place / count;
            let miner = Miner::open(spec, deals.clone(), report_every, first_report)?;
            if !miner.is_stopped() {
                miner.serve().await?;
            }
            miners.push(miner);
        }
        Ok(Arc::new(MinerFleet { miners }))
    }

    /// Number of miners; the indexes of the other calls are below it.
    pub fn len(&self) -> usize {
        self.miners.len()
    }

    /// True for a fleet without miners.
    pub fn is_empty(&self) -> bool {
        self.miners.is_empty()
    }

    /// Takes miner `i` off the network: its port refuses connections, open ones break, and it reports nothing.
    ///
    /// # Panics
    /// Like every call that takes an index: where the fleet has no such miner.
    pub async fn stop(&self, i: usize) {
        self.miners[i].stop().await;
    }

    /// Puts miner `i` back on its port, with what it holds. Does nothing to a running one.
    ///
    /// # Errors
    /// The port is taken by somebody else meanwhile.
    pub async fn resume(&self, i: usize) -> anyhow::Result<()> {
        self.miners[i].resume().await
    }

    /// Delays each answer of miner `i` by `ms` milliseconds; 0 ends it.
    pub fn slow(&self, i: usize, ms: u64) {
        self.miners[i].slow(ms);
    }

    /// Changes bytes all over each fragment that miner `i` holds now, and returns how many it holds. What it takes in
    /// later is sound. Blocks on the disk: 8 MiB read and written per fragment.
    pub fn corrupt(&self, i: usize) -> usize {
        self.miners[i].corrupt()
    }

    /// Deletes each fragment that miner `i` holds now, and returns how many there were. The chain is told nothing.
    pub fn forget(&self, i: usize) -> usize {
        self.miners[i].forget()
    }

    /// Miner `i` as it is now.
    pub fn status(&self, i: usize) -> MinerStatus {
        self.miners[i].status()
    }
}

impl Drop for MinerFleet {
    fn drop(&mut self) {
        self.miners.iter().for_each(|miner| miner.leave());
    }
}
