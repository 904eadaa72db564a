//! Sealed -> Declaring: segments, fragments and their hashes, and the fid that follows from them.

use super::{Pipeline, staging_lost};
use crate::chain::SegmentHashes;
use crate::erasure::{SegmentPool, file_id};
use crate::ledger::{Blocked, Durable, Encoded, PackRecord, PackState};
use crate::limits::{COLUMNS, SEGMENT_BYTES};
use crate::staging::store_error;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

impl Pipeline {
    pub(super) async fn encode(&self, pack: &PackRecord) -> Result<(), Blocked> {
        let _permit = self.encodes.acquire().await.expect("the semaphore is never closed");
        // A pool for this pack only: an idle filesystem holds no 96 MiB.
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let pool = SegmentPool::new(NonZeroUsize::MIN, threads);
        let body = Arc::new(self.staging.body(pack.seq).map_err(staging_lost)?);
        let mut segments = Vec::with_capacity(pack.segments as usize);
        for index in 0..u64::from(pack.segments) {
            let mut segment = pool.take().await;
            let body = body.clone();
            let hashes = self.blocking(move || {
                body.read_exact_at(segment.data_mut(), index * SEGMENT_BYTES as u64)
                    .map_err(store_error)?;
                Ok(segment.encode().hashes().clone())
            });
            segments.push(hashes.await.map_err(staging_lost)?);
        }
        assert_distinct(&segments);
        let hashes: Vec<_> = segments.iter().map(|segment| segment.segment).collect();
        let encoded = Encoded {
            fid: file_id(&hashes),
            segments,
        };
        self.advance(pack.seq, Durable::Eventually, |pack| {
            pack.encoded = Some(encoded);
            pack.state = PackState::Declaring;
        })
        .await?;
        Ok(())
    }
}

/// I8: no fragment of a pack equals another; a miner would be paid for one and hold none (F8).
fn assert_distinct(segments: &[SegmentHashes]) {
    let fragments: HashSet<_> = segments.iter().flat_map(|segment| segment.fragments).collect();
    assert_eq!(
        fragments.len(),
        segments.len() * COLUMNS,
        "two fragments of a pack are equal"
    );
}
