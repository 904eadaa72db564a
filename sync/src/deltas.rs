//! Footer, directory and delta frames of a pack, wherever its bytes are: in staging or at miners.
//!
//! Promises: every frame that is handed out passed its AEAD tag (I9), under a key that names volume, pack and place; no whole
//! pack is read. Refuses to know what a delta says.

use crate::chunk_store::FetchError;
use crate::ledger::{Ledger, PackRecord};
use crate::limits::{DELTA_RANGE_BYTES_MAX, DELTA_RANGES_IN_FLIGHT, DIRECTORY_BYTES_MAX, SEGMENT_BYTES};
use crate::pack::{DeltaEntry, Directory, FOOTER_SEALED_BYTES, Footer};
use crate::ranges::{Accept, Neighbours, Ranges};
use crate::staging::Staging;
use crate::tasks::Tasks;
use bytes::Bytes;
use cessfs_crypto::{FrameId, FrameKind, PackKind, PackSeq, VolumeKeys};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use std::ops::Range;
use std::sync::Arc;

/// Takes delta frames, in their order.
pub type FrameSink = Box<dyn FnMut(Vec<u8>) -> Result<(), crate::store::StoreError> + Send>;

/// Bodies on this disk, of packs that are not Confirmed yet, or never were and are kept for a snapshot.
pub(crate) struct Staged {
    pub(crate) staging: Staging,
    pub(crate) tasks: Tasks,
}

pub(crate) struct Deltas {
    keys: VolumeKeys,
    ranges: Arc<Ranges>,
    /// `None`: every pack is read from miners.
    staged: Option<Staged>,
}

impl Deltas {
    pub(crate) fn new(keys: VolumeKeys, ranges: Arc<Ranges>, staged: Option<Staged>) -> Deltas {
        Deltas { keys, ranges, staged }
    }

    async fn read<T>(&self, pack: &PackRecord, range: Range<u64>, accept: impl Accept<T>) -> Result<T, FetchError> {
        let mut why = String::from("it is not on the network yet");
        if pack.may_be_staged()
            && let Some(staged) = &self.staged
        {
            match staged.read(pack.seq, range.clone()).await.and_then(&accept) {
                Ok(got) => return Ok(got),
                Err(error) => why = format!("staged body: {error}"),
            }
        }
        // A pack confirmed since it was asked for has no staged body any more.
        if pack.encoded.is_none() || pack.columns.iter().any(|column| column.miner.is_none()) {
            return Err(unavailable(pack.seq, &why));
        }
        self.ranges.read(pack, range, Neighbours::Unwanted, &accept).await
    }

    /// What stands at the end of a pack.
    pub(crate) async fn footer(&self, pack: &PackRecord) -> Result<Footer, FetchError> {
        let (seq, body) = (pack.seq, pack.body_bytes());
        let open = |sealed: Bytes| Footer::open(&self.keys, seq, &sealed).map_err(|error| error.to_string());
        let footer = self.read(pack, body - FOOTER_SEALED_BYTES as u64..body, open).await?;
        if footer.segments != pack.segments || footer.kind != pack.kind {
            return Err(unavailable(seq, "its footer is not of this file"));
        }
        Ok(footer)
    }

    /// Where everything lies in it.
    pub(crate) async fn directory(&self, pack: &PackRecord, footer: &Footer) -> Result<Directory, FetchError> {
        let bytes = footer.directory_bytes();
        if bytes > DIRECTORY_BYTES_MAX {
            return Err(unavailable(footer.seq, "its directory is too long"));
        }
        if bytes == 0 {
            return Ok(Directory::default());
        }
        let range = footer.directory_offset..footer.directory_offset + bytes;
        let open = |sealed: Bytes| Directory::open(&self.keys, footer, &sealed).map_err(|error| error.to_string());
        self.read(pack, range, open).await
    }

    /// Hands these delta frames of a pack to `sink`, in their order.
    ///
    /// # Errors
    /// Fewer than four miners give a good range; or what `sink` says.
    pub(crate) async fn frames<E: From<FetchError>>(
        &self,
        pack: &PackRecord,
        deltas: &[DeltaEntry],
        mut sink: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Boxed, or the compiler cannot see that the whole may be sent from thread to thread.
        let reads: Vec<BoxFuture<'_, _>> = runs(deltas)
            .into_iter()
            .map(|(first, run)| self.run(pack, first, run).boxed())
            .collect();
        let mut reading = futures::stream::iter(reads).buffered(DELTA_RANGES_IN_FLIGHT);
        while let Some(frames) = reading.next().await {
            for frame in frames? {
                sink(frame)?;
            }
        }
        Ok(())
    }

    /// Delta frames that lie back to back; `first` is the index of the first one.
    async fn run(&self, pack: &PackRecord, first: usize, run: &[DeltaEntry]) -> Result<Vec<Vec<u8>>, FetchError> {
        let Some((start, last)) = run.first().zip(run.last()) else {
            return Ok(Vec::new());
        };
        let range = start.offset..last.offset + u64::from(last.len);
        let open = |sealed: Bytes| {
            let mut rest = &sealed[..];
            let mut frames = Vec::with_capacity(run.len());
            for (index, entry) in (first..).zip(run) {
                let (frame, after) = rest.split_at(entry.len as usize);
                let id = FrameId::Pack {
                    seq: pack.seq,
                    kind: FrameKind::Delta,
                    index: index as u32,
                };
                frames.push(self.keys.open(id, frame).map_err(|error| error.to_string())?);
                rest = after;
            }
            Ok(frames)
        };
        self.read(pack, range, open).await
    }

    /// Hands over the delta frames that make the tree as of pack `seq`, oldest first: from the checkpoint at or before it,
    /// or from the first pack of its history.
    ///
    /// # Errors
    /// A pack on the way is not known here or cannot be read; or what `sink` says.
    pub(crate) async fn replay(&self, ledger: &Ledger, seq: PackSeq, mut sink: FrameSink) -> Result<(), FetchError> {
        let mut back = Vec::new();
        let mut at = seq;
        loop {
            let pack = ledger
                .get(at)
                .ok_or_else(|| unavailable(at, "nothing is known of it"))?;
            let footer = self.footer(&pack).await?;
            let directory = self.directory(&pack, &footer).await?;
            back.push((at, directory.deltas));
            if pack.kind == PackKind::Checkpoint || footer.previous.0 == 0 {
                break;
            }
            if footer.previous >= at {
                return Err(unavailable(at, "its footer names a later pack as the one before it"));
            }
            at = footer.previous;
        }
        while let Some((at, deltas)) = back.pop() {
            // Asked again: it may have moved on from this disk to the network meanwhile.
            let pack = ledger
                .get(at)
                .ok_or_else(|| unavailable(at, "nothing is known of it"))?;
            self.frames(&pack, &deltas, |frame| sink(frame).map_err(FetchError::from))
                .await?;
        }
        Ok(())
    }

    /// Hands over the delta frames of one pack.
    ///
    /// # Errors
    /// As [`replay`](Deltas::replay).
    pub(crate) async fn of_pack(&self, pack: &PackRecord, sink: &mut FrameSink) -> Result<(), FetchError> {
        let footer = self.footer(pack).await?;
        let directory = self.directory(pack, &footer).await?;
        self.frames(pack, &directory.deltas, |frame| sink(frame).map_err(FetchError::from))
            .await
    }
}

impl Staged {
    async fn read(&self, seq: PackSeq, range: Range<u64>) -> Result<Bytes, String> {
        let staging = self.staging.clone();
        let len = u32::try_from(range.end - range.start).map_err(|error| error.to_string())?;
        let read = move || staging.read(seq, range.start, len);
        let bytes = self.tasks.blocking(read).await;
        bytes
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    }
}

/// Cuts delta frames into runs of bounded length, each with the index of its first frame.
fn runs(deltas: &[DeltaEntry]) -> Vec<(usize, &[DeltaEntry])> {
    let mut runs = Vec::new();
    let mut first = 0;
    let mut bytes = 0;
    for (index, delta) in deltas.iter().enumerate() {
        if index > first && bytes + u64::from(delta.len) > DELTA_RANGE_BYTES_MAX {
            runs.push((first, &deltas[first..index]));
            (first, bytes) = (index, 0);
        }
        bytes += u64::from(delta.len);
    }
    runs.push((first, &deltas[first..]));
    runs
}

pub(crate) fn unavailable(seq: PackSeq, why: &str) -> FetchError {
    FetchError::Unavailable(format!("pack {}: {why}", seq.0))
}

const _: () = assert!(DELTA_RANGE_BYTES_MAX < SEGMENT_BYTES as u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_bounded_and_leave_nothing_out() {
        let entry = |len| DeltaEntry { offset: 0, len };
        let deltas: Vec<DeltaEntry> = (0..50).map(|i| entry(300_000 + i * 1000)).collect();
        let runs = runs(&deltas);
        assert!(runs.len() > 1);
        let mut next = 0;
        for (first, run) in runs {
            assert_eq!(first, next);
            assert!(run.iter().map(|d| u64::from(d.len)).sum::<u64>() <= DELTA_RANGE_BYTES_MAX);
            next += run.len();
        }
        assert_eq!(next, deltas.len());
        assert_eq!(super::runs(&[]).len(), 1);
    }
}
