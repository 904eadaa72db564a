//! Where time goes: one histogram per stage of the work, for `cessfs profile` and `cessfs metrics`.
//!
//! A stage is a static of the room it belongs to ([`Stage::new`] is `const`), entered with [`Stage::enter`] and left when the
//! [`Span`] is dropped. What it counts influences nothing: like a logger it is reached from everywhere and decides nowhere.
//! Until [`measure_with`] gave it a clock a span costs one atomic load; afterwards two looks at the clock and three additions.
//!
//! Stages may nest (a commit that waits for room contains the waiting), so their times do not add up to anything.

use crate::clock::Clock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Buckets of a histogram. Bucket `i` counts times below `2^(i + BUCKET_SHIFT)` ns that are in no earlier one; the last all
/// longer ones: the first ends at 512 ns, the last but one at 17 s.
pub const BUCKETS: usize = 27;
const BUCKET_SHIFT: u32 = 9;

static CLOCK: OnceLock<Arc<dyn Clock>> = OnceLock::new();

/// Measures from now on, with this clock. The first call counts; there is one process and one clock.
pub fn measure_with(clock: Arc<dyn Clock>) {
    let _the_first_stays = CLOCK.set(clock);
}

/// One kind of work whose time is counted.
#[derive(Debug)]
pub struct Stage {
    /// Whose work it is: `fuse`, `lock`, `store`, `disk`, `crypto`, `network`, `chain`.
    pub layer: &'static str,
    /// What it is, within its layer.
    pub name: &'static str,
    nanos: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// Counts the time until it is dropped.
#[derive(Debug)]
#[must_use = "a span that is dropped at once measures nothing"]
pub struct Span {
    stage: &'static Stage,
    since: Option<Duration>,
}

/// What a stage has counted so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// See [`Stage::layer`].
    pub layer: &'static str,
    /// See [`Stage::name`].
    pub name: &'static str,
    /// Nanoseconds of all spans together.
    pub nanos: u64,
    /// Spans by how long they took; see [`BUCKETS`].
    pub buckets: [u64; BUCKETS],
}

impl Stage {
    /// A stage that has counted nothing. A room lists its stages in a table, or nobody will ask for them.
    pub const fn new(layer: &'static str, name: &'static str) -> Stage {
        Stage {
            layer,
            name,
            nanos: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    /// Begins to measure, if anybody wants to know.
    #[inline]
    pub fn enter(&'static self) -> Span {
        Span {
            stage: self,
            since: CLOCK.get().map(|clock| clock.monotonic()),
        }
    }

    /// Counts work that took so long.
    pub fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted. While work goes on the numbers may be a few spans apart from each other.
    pub fn times(&self) -> Times {
        Times {
            layer: self.layer,
            name: self.name,
            nanos: self.nanos.load(Ordering::Relaxed),
            buckets: std::array::from_fn(|i| self.buckets[i].load(Ordering::Relaxed)),
        }
    }
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let (Some(since), Some(clock)) = (self.since, CLOCK.get()) {
            self.stage.record(clock.monotonic().saturating_sub(since));
        }
    }
}

fn bucket(nanos: u64) -> usize {
    let bits = u64::BITS - nanos.leading_zeros();
    (bits.saturating_sub(BUCKET_SHIFT) as usize).min(BUCKETS - 1)
}

/// Where bucket `i` ends, in nanoseconds; the last one has no end.
pub fn bucket_end_ns(i: usize) -> Option<u64> {
    (i + 1 < BUCKETS).then(|| 1 << (i as u32 + BUCKET_SHIFT))
}

/// A commit into the journal's queue, waiting for room included.
pub static STORE_COMMIT: Stage = Stage::new("store", "commit");
/// A look-up that the journal's overlay could not answer.
pub static STORE_GET: Stage = Stage::new("store", "get");
/// A page of a scan.
pub static STORE_SCAN: Stage = Stage::new("store", "scan");
/// The writer thread seals and applies a merged batch.
pub static STORE_APPLY: Stage = Stage::new("store", "apply");
/// The writer thread makes what it applied durable.
pub static STORE_FLUSH: Stage = Stage::new("disk", "journal_flush");
/// Somebody waits for a barrier: queueing, applying and flushing.
pub static STORE_BARRIER: Stage = Stage::new("store", "barrier");
/// One record of the journal's log handed to the kernel.
pub static STORE_LOG_APPEND: Stage = Stage::new("store", "log_append");
/// The journal's log made durable.
pub static STORE_LOG_SYNC: Stage = Stage::new("disk", "log_sync");
/// Sealing the values of a merged batch.
pub static SEAL_RECORDS: Stage = Stage::new("crypto", "seal_records");
/// Opening one value.
pub static OPEN_RECORD: Stage = Stage::new("crypto", "open_record");
/// Sealing a chunk for its pack.
pub static SEAL_CHUNK: Stage = Stage::new("crypto", "seal_chunk");
/// Opening a chunk that came from staging or from miners.
pub static OPEN_CHUNK: Stage = Stage::new("crypto", "open_chunk");
/// A chunk waits for its turn at the open pack, room included.
pub static PACK_WAIT: Stage = Stage::new("lock", "pack_gate");
/// A piece of what is sent waits because the mount is busy.
pub static GIVE_WAY: Stage = Stage::new("lock", "give_way");
/// Appending a sealed chunk to the staged body.
pub static PACK_APPEND: Stage = Stage::new("disk", "pack_append");
/// Completing a pack: delta, directory, pad, sync.
pub static PACK_SEAL: Stage = Stage::new("store", "pack_seal");
/// Parity and all hashes of a pack.
pub static PACK_HASH: Stage = Stage::new("crypto", "pack_hash");
/// Reading and coding one row of twelve pieces on their way to the miners.
pub static ROW_ENCODE: Stage = Stage::new("crypto", "row_encode");
/// An upload of one fragment.
pub static MINER_PUT: Stage = Stage::new("network", "put_fragment");
/// A range or a whole fragment read from a miner.
pub static MINER_GET: Stage = Stage::new("network", "get_range");
/// A miner's answer to a probe.
pub static MINER_PROBE: Stage = Stage::new("network", "probe");
/// Everything before and at the declaration of a pack.
pub static CHAIN_DECLARE: Stage = Stage::new("chain", "declare");
/// From the deal to the file at a finalized block: all transfers and reports.
pub static CHAIN_PLACE: Stage = Stage::new("chain", "place");
/// A chunk from staging or from miners, for whoever reads it.
pub static FETCH: Stage = Stage::new("network", "fetch_chunk");

/// Every stage of this crate.
pub static ALL: &[&Stage] = &[
    &STORE_COMMIT,
    &STORE_GET,
    &STORE_SCAN,
    &STORE_APPLY,
    &STORE_FLUSH,
    &STORE_BARRIER,
    &STORE_LOG_APPEND,
    &STORE_LOG_SYNC,
    &SEAL_RECORDS,
    &OPEN_RECORD,
    &SEAL_CHUNK,
    &OPEN_CHUNK,
    &PACK_WAIT,
    &GIVE_WAY,
    &PACK_APPEND,
    &PACK_SEAL,
    &PACK_HASH,
    &ROW_ENCODE,
    &MINER_PUT,
    &MINER_GET,
    &MINER_PROBE,
    &CHAIN_DECLARE,
    &CHAIN_PLACE,
    &FETCH,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_time_has_its_bucket() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(511), 0);
        assert_eq!(bucket(512), 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        for i in 0..BUCKETS - 1 {
            let end = bucket_end_ns(i).unwrap();
            assert_eq!((bucket(end - 1), bucket(end)), (i, i + 1), "bucket {i}");
        }
        assert_eq!(bucket_end_ns(BUCKETS - 1), None);
    }

    #[test]
    fn what_is_recorded_is_told() {
        static STAGE: Stage = Stage::new("test", "recorded");
        STAGE.record(Duration::from_micros(3));
        STAGE.record(Duration::from_secs(100));
        let times = STAGE.times();
        assert_eq!(times.nanos, 100_000_003_000);
        assert_eq!(times.buckets.iter().sum::<u64>(), 2);
        assert_eq!(times.buckets[BUCKETS - 1], 1);
    }

    #[test]
    fn no_two_stages_share_a_name() {
        let names: BTreeSet<_> = ALL.iter().map(|stage| (stage.layer, stage.name)).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
