//! What the engine is told (settings) and what it is given (seams).

use crate::chain::Chain;
use crate::clock::Clock;
use crate::fragment_store::FragmentStore;
use crate::limits::{BACKLOG_BOUND_BYTES, PACK_AGE_MAX, PACK_BYTES_MAX, PACK_DIRECTORY_BYTES_MAX, PACK_TARGET_BYTES};
use crate::pipeline::UplinkLimit;
use crate::store::MetaStore;
use crate::tasks::Tasks;
use crate::upkeep::UpkeepConfig;
use cessfs_crypto::{Entropy, LabelKey, VolumeKeys};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where bodies of unconfirmed packs lie; belongs to the engine alone.
    pub staging_dir: PathBuf,
    /// Territory that packs are charged to.
    pub territory: String,
    /// Bytes at which the open pack is full.
    pub pack_target_bytes: u64,
    /// Bytes up to which it goes on while an earlier pack waits to be declared; no fewer than the target, whatever is set.
    pub pack_bytes_max: u64,
    /// Sealed bytes of its directory at which the open pack is full: tiny chunks fill that first.
    pub pack_directory_bytes_max: u64,
    /// How long content may wait in the open pack.
    pub pack_age_max: Duration,
    /// Unsent bytes at which `submit` blocks; at least two full packs, whatever is set.
    pub backlog_bound_bytes: u64,
    /// How fast may be sent to miners at first.
    pub uplink: UplinkLimit,
    /// What happens to packs that the network holds.
    pub upkeep: UpkeepConfig,
    /// Nothing is sealed, declared, sent or deleted, and packs that were on their way wait: what is there is only read.
    pub read_only: bool,
    /// In a volume that was recovered, the first pack is sealed at once, so that other writers come to know.
    pub claims: bool,
}

impl Config {
    /// Defaults for a staging directory and a territory.
    pub fn new(staging_dir: impl Into<PathBuf>, territory: impl Into<String>) -> Config {
        Config {
            staging_dir: staging_dir.into(),
            territory: territory.into(),
            pack_target_bytes: PACK_TARGET_BYTES,
            pack_bytes_max: PACK_BYTES_MAX,
            pack_directory_bytes_max: PACK_DIRECTORY_BYTES_MAX,
            pack_age_max: PACK_AGE_MAX,
            backlog_bound_bytes: BACKLOG_BOUND_BYTES,
            uplink: UplinkLimit::Any,
            upkeep: UpkeepConfig::default(),
            read_only: false,
            claims: true,
        }
    }
}

/// Everything outside: each has a real and a simulated side.
pub struct Seams {
    /// The chain.
    pub chain: Arc<dyn Chain>,
    /// The miners' data plane.
    pub fragments: Arc<dyn FragmentStore>,
    /// The journal, shared with vfs.
    pub store: Arc<dyn MetaStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Keys of the volume.
    pub keys: VolumeKeys,
    /// Key of pack names.
    pub labels: LabelKey,
    /// Nonces, choices and jitter.
    pub entropy: Box<dyn Entropy>,
    /// Where tasks and blocking work run.
    pub tasks: Tasks,
}
