//! Sealed -> Declaring: segments, fragments and their hashes, and the fid that follows from them.

use super::{Pipeline, staging_lost};
use crate::chain::SegmentHashes;
use crate::erasure::{HASH_GROUP, file_id, pack_hashes};
use crate::ledger::{Blocked, Durable, Encoded, PackRecord, PackState};
use crate::limits::{COLUMNS, HASHES_IN_FLIGHT};
use crate::stages;
use crate::staging::store_error;
use futures::{StreamExt, TryStreamExt};
use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

impl Pipeline {
    pub(super) async fn encode(&self, pack: &PackRecord) -> Result<(), Blocked> {
        let _permit = self.encodes.acquire().await.expect("the semaphore is never closed");
        let body = Arc::new(self.staging.body(pack.seq).map_err(staging_lost)?);
        let count = pack.segments as usize;
        let groups = (0..count).step_by(HASH_GROUP).map(|first| {
            let (body, group) = (body.clone(), first..count.min(first + HASH_GROUP));
            let hashes = move || {
                let _span = stages::PACK_HASH.enter();
                pack_hashes(group, |offset, piece| {
                    body.read_exact_at(piece, offset).map_err(store_error)
                })
            };
            async move {
                self.foreground.give_way().await;
                self.blocking(hashes).await
            }
        });
        let groups: Vec<_> = futures::stream::iter(groups)
            .buffered(HASHES_IN_FLIGHT)
            .try_collect()
            .await
            .map_err(staging_lost)?;
        let segments = groups.concat();
        assert_distinct(&segments);
        let hashes: Vec<_> = segments.iter().map(|segment| segment.segment).collect();
        let encoded = Encoded {
            fid: file_id(&hashes),
            segments,
        };
        self.advance(pack.seq, Durable::Eventually, |pack| {
            // Doubted meanwhile, with a pack of which it names content.
            if pack.state != PackState::Sealed {
                return;
            }
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
