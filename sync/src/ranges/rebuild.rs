//! A whole segment out of any four of its twelve fragments, each checked against its hash on chain.

use super::Ranges;
use crate::chain::Head;
use crate::chunk_store::FetchError;
use crate::erasure::{decode, decode_shard, sha256};
use crate::fragment_store::MinerError;
use crate::ledger::PackRecord;
use crate::limits::{
    COLUMNS, DATA_FRAGMENTS, REBUILD_FRAGMENTS_MAX, REBUILD_HEDGE_DELAY, fragment_bytes, segment_bytes,
};
use crate::pack::Piece;
use bytes::Bytes;
use cessfs_crypto::AccountId;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::ops::Range;

/// What a piece names, out of its whole segment.
pub(super) fn slice<'a>(segment: &'a [u8], piece: &Piece) -> &'a [u8] {
    let base = usize::from(piece.column) * fragment_bytes();
    &segment[base + piece.range.start as usize..base + piece.range.end as usize]
}

/// Four distinct columns and their fragments.
type Quorum = [(u8, Bytes); DATA_FRAGMENTS];

impl Ranges {
    /// The 32 MiB of a segment.
    pub(super) async fn segment(&self, pack: &PackRecord, segment: u32) -> Result<Bytes, FetchError> {
        let _permit = self.rebuilds.acquire().await.expect("the semaphore is never closed");
        let key = (pack.encoded().fid, segment);
        if let Some(bytes) = self.segments.lock().get(&key) {
            return Ok(bytes.clone());
        }
        let whole = 0..fragment_bytes() as u32;
        let mut gathered = self.gather(pack, segment, whole.clone()).await;
        if gathered.is_err() && self.ask_holders(pack, segment).await {
            gathered = self.gather(pack, segment, whole).await;
        }
        let quorum = gathered.map_err(|good| {
            let seq = pack.seq.0;
            FetchError::Unavailable(format!(
                "pack {seq} segment {segment}: {good} of {COLUMNS} miners gave a good fragment, {DATA_FRAGMENTS} are needed"
            ))
        })?;
        let decoded = self.parts.tasks.blocking(move || {
            let mut out = vec![0; segment_bytes()];
            let columns = quorum.each_ref().map(|(column, bytes)| (*column, &bytes[..]));
            decode(columns, &mut out).expect("four distinct columns of 8 MiB each");
            Bytes::from(out)
        });
        let bytes = decoded
            .await
            .map_err(|error| FetchError::Unavailable(error.to_string()))?;
        self.segments.lock().put(key, bytes.clone());
        Ok(bytes)
    }

    /// A run of one data fragment, decoded from the same run of any four columns. Not checked in any way.
    pub(super) async fn piece(&self, pack: &PackRecord, piece: &Piece) -> Option<Vec<u8>> {
        let quorum = self.gather(pack, piece.segment, piece.range.clone()).await.ok()?;
        let mut out = vec![0; piece.range.len()];
        let columns = quorum.each_ref().map(|(column, bytes)| (*column, &bytes[..]));
        decode_shard(piece.column, columns, &mut out).expect("four distinct columns, equally long");
        Some(out)
    }

    /// Asks four miners, another one for each that fails, and one more whenever all of them take long. The number of good
    /// fragments if that was not enough.
    async fn gather(&self, pack: &PackRecord, segment: u32, range: Range<u32>) -> Result<Quorum, usize> {
        let holders = self.holders(pack, segment);
        let mut order: Vec<(AccountId, u8)> = holders.into_iter().zip(0..).collect();
        let is_whole = range.len() == fragment_bytes();
        self.parts.miners.rank(&mut order, is_whole);
        let patience = if is_whole {
            REBUILD_HEDGE_DELAY
        } else {
            self.parts.miners.hedge_delay()
        };
        let mut order = order.into_iter();
        let mut asked = FuturesUnordered::new();
        let mut good: Vec<(u8, Bytes)> = Vec::with_capacity(DATA_FRAGMENTS);
        let mut wanted = DATA_FRAGMENTS;
        while good.len() < DATA_FRAGMENTS {
            while good.len() + asked.len() < wanted
                && let Some((holder, column)) = order.next()
            {
                asked.push(self.fragment(pack, segment, column, holder, range.clone()));
            }
            if asked.is_empty() {
                return Err(good.len());
            }
            tokio::select! {
                biased;
                Some(answer) = asked.next() => good.extend(answer.ok()),
                () = self.parts.clock.sleep(patience) => wanted = (wanted + 1).min(REBUILD_FRAGMENTS_MAX),
            }
        }
        Ok(good.try_into().expect("the loop ends at four"))
    }

    /// A range of a fragment; a whole one only if it matches its hash.
    async fn fragment(
        &self,
        pack: &PackRecord,
        segment: u32,
        column: u8,
        holder: AccountId,
        range: Range<u32>,
    ) -> Result<(u8, Bytes), MinerError> {
        let encoded = pack.encoded();
        let hash = encoded.segments[segment as usize].fragments[usize::from(column)];
        let is_whole = range.len() == fragment_bytes();
        let bytes = self.parts.miners.get(holder, encoded.fid, hash, range).await?;
        if !is_whole {
            return Ok((column, bytes));
        }
        let hashed = self.parts.tasks.blocking(move || (sha256(&bytes) == hash, bytes));
        match hashed.await {
            Ok((true, bytes)) => Ok((column, bytes)),
            Ok((false, _)) => {
                self.parts.miners.failed(holder);
                Err(MinerError::Wrong("the fragment does not match its hash".into()))
            }
            Err(error) => Err(MinerError::Unreachable(error.to_string())),
        }
    }

    /// Miners repair among themselves: the chain may name other holders than it did. Whether it does.
    async fn ask_holders(&self, pack: &PackRecord, segment: u32) -> bool {
        let before = self.holders(pack, segment);
        let fid = pack.encoded().fid;
        let Ok(Some(file)) = self.parts.chain.file(fid, Head::Finalized).await else {
            return false;
        };
        self.learn(fid, &file);
        self.holders(pack, segment) != before
    }
}
