//! Simulated sides of the seams: a clock that runs fast, a chain with the pallets' rules, miners with faults.
//!
//! Only what engine and reader can tell apart is simulated. A [`World`] is made from a seed; its pieces outlive any number of
//! engines, so that a test can crash one and open the next.

mod chain;
mod clock;
mod cutoff;
mod miners;

pub use chain::{DeclareFault, SimChain};
pub use clock::SimClock;
pub use cutoff::CutoffStore;
pub use miners::{Fault, SimMiners};

use crate::engine::{Config, Engine, Seams};
use crate::limits::SEGMENT_BYTES;
use crate::store::{MetaStore, StoreError};
use crate::upkeep::UpkeepConfig;
use cessfs_crypto::{AccountId, Entropy, LabelKey, Phrase, VolumeId, VolumeKeys};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

/// A reproducible [`Entropy`] (SplitMix64): good to choose with, worthless as a secret.
pub struct SimEntropy(u64);

impl SimEntropy {
    /// A source that always gives the same bytes for the same seed.
    pub fn new(seed: u64) -> SimEntropy {
        SimEntropy(seed)
    }
}

impl Entropy for SimEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.0;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^= word >> 31;
            part.copy_from_slice(&word.to_le_bytes()[..part.len()]);
        }
    }
}

/// Chain, miners and clock that live as long as the test.
pub struct World {
    /// The clock of everything.
    pub clock: Arc<SimClock>,
    /// The chain.
    pub chain: Arc<SimChain>,
    /// The miners, by number.
    pub miners: Arc<SimMiners>,
    /// Keys of the one volume.
    pub keys: VolumeKeys,
    /// Key of its labels.
    pub labels: LabelKey,
    seed: AtomicU64,
}

impl World {
    /// A network with an Active territory `main` and so many good miners.
    pub fn new(miners: u8, seed: u64) -> World {
        let secret = Phrase::generate(&mut SimEntropy::new(seed)).secret();
        let clock = Arc::new(SimClock::new());
        let chain = Arc::new(SimChain::new(clock.clone(), AccountId([0xCE; 32])));
        let miners = Arc::new(SimMiners::new(chain.clone(), clock.clone(), miners));
        World {
            clock,
            chain,
            miners,
            keys: secret.volume_keys(VolumeId([7; 16])),
            labels: secret.label_key(),
            seed: AtomicU64::new(seed),
        }
    }

    /// Seams of one more engine in this world.
    pub fn seams(&self, store: Arc<dyn MetaStore>) -> Seams {
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        Seams {
            chain: self.chain.clone(),
            fragments: self.miners.clone(),
            store,
            clock: self.clock.clone(),
            keys: self.keys.clone(),
            labels: self.labels.clone(),
            entropy: Box::new(SimEntropy::new(seed)),
            tasks: Handle::current().into(),
        }
    }

    /// Settings for this world: packs of one segment, the smallest backlog, and an age that no test reaches by being slow.
    /// A test of ages sets its own.
    pub fn config(&self, staging: &Path) -> Config {
        let mut config = Config::new(staging, "main");
        config.pack_target_bytes = SEGMENT_BYTES as u64;
        config.pack_bytes_max = 0;
        config.pack_age_max = Duration::from_secs(86_400);
        config.backlog_bound_bytes = 0;
        config.upkeep = UpkeepConfig::by_hand();
        config.upkeep.keep_history = Duration::ZERO;
        config.upkeep.grace = Duration::ZERO;
        config.claims = false;
        config
    }

    /// An engine on a store; neither attached nor started yet.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn engine(&self, config: Config, store: Arc<dyn MetaStore>) -> Result<Engine, StoreError> {
        Engine::open(config, self.seams(store))
    }
}
