//! What the stages of all rooms have counted, as it goes over the control socket, and what can be read from it.

use crate::fuse;
use cessfs_sync::stages::{BUCKETS, Times, bucket_end_ns};
use serde::{Deserialize, Serialize};

/// One stage: see [`cessfs_sync::stages`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTimes {
    /// `fuse`, `lock`, `store`, `disk`, `crypto`, `network` or `chain`.
    pub layer: String,
    /// What it is, within its layer.
    pub stage: String,
    /// How often it was done.
    pub count: u64,
    /// Nanoseconds it took, all together.
    pub total_ns: u64,
    /// How often it took how long: bucket `i` ends at 2^(i + 9) ns, the last has no end.
    pub buckets: Vec<u64>,
}

/// Every stage of this process, as it stands.
pub fn all() -> impl Iterator<Item = StageTimes> {
    let tables = [fuse::STAGES, cessfs_vfs::stages::ALL, cessfs_sync::stages::ALL];
    tables.into_iter().flatten().map(|stage| stage.times().into())
}

impl From<Times> for StageTimes {
    fn from(times: Times) -> StageTimes {
        StageTimes {
            layer: times.layer.to_owned(),
            stage: times.name.to_owned(),
            count: times.buckets.iter().sum(),
            total_ns: times.nanos,
            buckets: times.buckets.to_vec(),
        }
    }
}

impl StageTimes {
    /// What was counted since `earlier`, which is the same stage.
    pub fn since(&self, earlier: &StageTimes) -> StageTimes {
        let buckets = self.buckets.iter().zip(&earlier.buckets);
        StageTimes {
            layer: self.layer.clone(),
            stage: self.stage.clone(),
            count: self.count.saturating_sub(earlier.count),
            total_ns: self.total_ns.saturating_sub(earlier.total_ns),
            buckets: buckets.map(|(now, then)| now.saturating_sub(*then)).collect(),
        }
    }

    /// The end of the bucket in which the given part (0.0..=1.0) of the times is reached, in nanoseconds: an upper bound that
    /// is at most twice the truth. `None` if nothing was counted, or beyond the last bucket's start.
    pub fn quantile_ns(&self, part: f64) -> Option<u64> {
        let wanted = (self.count as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (i, count) in self.buckets.iter().enumerate().take(BUCKETS) {
            seen += count;
            if *count > 0 && seen >= wanted {
                return bucket_end_ns(i);
            }
        }
        None
    }

    /// Nanoseconds on average; 0 if nothing was counted.
    pub fn mean_ns(&self) -> u64 {
        self.total_ns.checked_div(self.count).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn times(buckets: &[(usize, u64)]) -> StageTimes {
        let mut out = StageTimes {
            buckets: vec![0; BUCKETS],
            ..StageTimes::default()
        };
        for (bucket, count) in buckets {
            out.buckets[*bucket] = *count;
            out.count += count;
        }
        out
    }

    #[test]
    fn every_stage_has_a_name_of_its_own() {
        let names: Vec<_> = all().map(|times| (times.layer, times.stage)).collect();
        let distinct: BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        let layers: BTreeSet<&str> = names.iter().map(|(layer, _)| layer.as_str()).collect();
        let expected = ["chain", "crypto", "disk", "fuse", "lock", "network", "store"];
        assert!(layers.iter().eq(expected.iter()), "{layers:?}");
    }

    #[test]
    fn quantiles_are_bounds() {
        let some = times(&[(0, 90), (4, 9), (10, 1)]);
        assert_eq!(some.quantile_ns(0.5), Some(512));
        assert_eq!(some.quantile_ns(0.99), Some(512 << 4));
        assert_eq!(some.quantile_ns(1.0), Some(512 << 10));
        assert_eq!(times(&[]).quantile_ns(0.5), None);
        assert_eq!(times(&[(BUCKETS - 1, 1)]).quantile_ns(0.5), None);
    }

    #[test]
    fn differences_count_what_came_between() {
        let (before, after) = (times(&[(1, 5)]), times(&[(1, 7), (2, 1)]));
        let between = after.since(&before);
        assert_eq!((between.count, between.buckets[1], between.buckets[2]), (3, 2, 1));
    }
}
