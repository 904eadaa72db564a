//! `[scrub]`, `[repair]` and `[gc]`: what happens to packs that the network holds.

use super::{VolumeConfig, read_bytes, read_duration, write_bytes, write_duration};
use crate::exit::{Exit, Failure};
use crate::limits::SCRUB_RATE_MIN;
use cessfs_sync::limits::{
    AWAY_PATIENCE, COLUMNS, DATA_FRAGMENTS, GC_GRACE, GC_INTERVAL, GC_LIVE_PERCENT_MAX, KEEP_HISTORY,
    READ_BACK_PATIENCE, REPAIR_BELOW, SCRUB_FULL_INTERVAL, SCRUB_INTERVAL, SCRUB_RATE, URGENT_BELOW,
};
use cessfs_sync::upkeep::{Thresholds, UpkeepConfig};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Packs that may live so much are worth to be emptied at most: above, next to nothing is gained.
const LIVE_PERCENT_BOUND: u8 = 90;

/// `[scrub]`: looking at what miners hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScrubConfig {
    /// In the background.
    pub enabled: bool,
    /// How often a range of every column of a pack is read.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub interval: Duration,
    /// How often every byte of it is read.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub full_interval: Duration,
    /// Bytes a second at most.
    #[serde(serialize_with = "write_bytes", deserialize_with = "read_bytes")]
    pub rate: u64,
}

impl Default for ScrubConfig {
    fn default() -> ScrubConfig {
        ScrubConfig {
            enabled: true,
            interval: SCRUB_INTERVAL,
            full_interval: SCRUB_FULL_INTERVAL,
            rate: SCRUB_RATE,
        }
    }
}

/// `[repair]`: rewriting what is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepairConfig {
    /// In the background.
    pub enabled: bool,
    /// Packs with fewer good columns.
    pub rewrite_below: u8,
    /// Packs with fewer, ahead of everything else.
    pub urgent_below: u8,
    /// How far two looks that a miner did not answer, nor any between them, must be apart for its columns to count as bad.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub away: Duration,
    /// How long miners may fail to give back a new pack before what is in it is sent again, to others. Holds where `enabled` is
    /// off, too: such a pack was never safe.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub read_back: Duration,
}

impl Default for RepairConfig {
    fn default() -> RepairConfig {
        RepairConfig {
            enabled: true,
            rewrite_below: REPAIR_BELOW,
            urgent_below: URGENT_BELOW,
            away: AWAY_PATIENCE,
            read_back: READ_BACK_PATIENCE,
        }
    }
}

/// `[gc]`: giving back what is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GcConfig {
    /// In the background.
    pub enabled: bool,
    /// How often what is dead is counted.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub interval: Duration,
    /// Packs of which more lives, in percent, are left alone.
    pub live_percent: u8,
    /// How long points of the past stay recoverable.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub keep_history: Duration,
    /// How long a dead pack stays at the least, so that a machine which recovered the volume can make itself known.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub grace: Duration,
}

impl Default for GcConfig {
    fn default() -> GcConfig {
        GcConfig {
            enabled: true,
            interval: GC_INTERVAL,
            live_percent: GC_LIVE_PERCENT_MAX,
            keep_history: KEEP_HISTORY,
            grace: GC_GRACE,
        }
    }
}

/// Refuses values that make no sense.
pub(super) fn check(config: &VolumeConfig) -> Result<(), Failure> {
    let refuse = |what: String| Err(Failure::new(Exit::Config, what));
    if config.scrub.rate < SCRUB_RATE_MIN {
        return refuse(format!(
            "`scrub.rate` is below the least of {SCRUB_RATE_MIN} bytes a second"
        ));
    }
    let (rewrite, urgent) = (config.repair.rewrite_below, config.repair.urgent_below);
    if usize::from(rewrite) > COLUMNS || urgent > rewrite || usize::from(urgent) <= DATA_FRAGMENTS {
        return refuse(format!(
            "of {COLUMNS} columns {DATA_FRAGMENTS} are needed: `repair.urgent_below` is more than {DATA_FRAGMENTS}, \
             `repair.rewrite_below` at least that and at most {COLUMNS}"
        ));
    }
    if config.gc.live_percent > LIVE_PERCENT_BOUND {
        return refuse(format!("`gc.live_percent` is at most {LIVE_PERCENT_BOUND}"));
    }
    Ok(())
}

impl VolumeConfig {
    /// The settings as the engine takes them.
    pub fn upkeep(&self, read_only: bool) -> UpkeepConfig {
        UpkeepConfig {
            scrub: self.scrub.enabled && !read_only,
            scrub_interval: self.scrub.interval,
            scrub_full_interval: self.scrub.full_interval,
            scrub_rate: self.scrub.rate,
            repair: self.repair.enabled && !read_only,
            thresholds: Thresholds {
                rewrite_below: self.repair.rewrite_below,
                urgent_below: self.repair.urgent_below,
                away: self.repair.away,
            },
            read_back: self.repair.read_back,
            gc: self.gc.enabled && !read_only,
            gc_interval: self.gc.interval,
            live_percent_max: self.gc.live_percent,
            keep_history: self.gc.keep_history,
            grace: self.gc.grace,
        }
    }
}
