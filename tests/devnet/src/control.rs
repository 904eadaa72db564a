//! The owner's door: a Unix socket in the devnet's directory that only its owner can open.
//!
//! One JSON request per line, one JSON answer per line: `{"ok": ...}` or `{"error": "..."}`. Whatever the door does to the
//! chain stands in a block before it is answered.

mod client;
mod server;

pub use client::{ask, is_running};
pub use server::serve;

use serde::{Deserialize, Serialize};

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// Everything about the network.
    Status,
    /// End the process.
    Stop,
    /// Do something to miners.
    Miner {
        /// Places in the fleet.
        indexes: Vec<usize>,
        /// What to do.
        verb: MinerVerb,
    },
    /// Make money.
    Fund {
        /// SS58 text.
        address: String,
        /// Planck, as decimal text: JSON numbers are too short.
        planck: String,
    },
    /// Take all money but this.
    Drain {
        /// SS58 text.
        address: String,
        /// Planck that stay, as decimal text.
        planck: String,
    },
    /// Tell another name in the metadata.
    ChainRename {
        /// The name.
        name: String,
        /// What is told instead; of the same length.
        told: String,
    },
    /// Stop making blocks, or go on.
    ChainPause {
        /// Stop.
        pause: bool,
    },
    /// Set the distance from the best to the final head.
    ChainLag {
        /// Blocks.
        blocks: u32,
    },
    /// Set the price of territory.
    ChainPrice {
        /// Planck per GiB and day, as decimal text.
        planck: String,
    },
    /// Switch a call off, or on again.
    CallPause {
        /// Pallet, as in the metadata.
        pallet: String,
        /// Call, as in the metadata.
        call: String,
        /// Off.
        pause: bool,
    },
    /// End a territory before its time.
    Territory {
        /// SS58 text of the owner.
        account: String,
        /// Its name.
        name: String,
        /// To `Expired` rather than to `Frozen`.
        expire: bool,
    },
}

/// What can be done to a miner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MinerVerb {
    /// Off the network.
    Stop,
    /// Back on it.
    Start,
    /// Slow down every answer by milliseconds.
    Slow(u64),
    /// Damage what it holds.
    Corrupt,
    /// Delete what it holds.
    Forget,
    /// Put its record on the chain into a state.
    State(String),
}

/// The answer's line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reply {
    Ok(serde_json::Value),
    Error(String),
}
