//! Packs read back from miners: footer and directory of each, delta frames of those that are replayed.

use super::{Found, Step, Tell};
use crate::chain::Chain;
use crate::chunk_store::FetchError;
use crate::clock::Clock;
use crate::dice::Dice;
use crate::fragment_store::{Fid, FragmentStore};
use crate::ledger::{Column, Encoded, PackRecord, PackState};
use crate::limits::{
    ARCHIVE_PACKS_IN_FLIGHT, DELTA_RANGE_BYTES_MAX, DELTA_RANGES_IN_FLIGHT, DIRECTORY_BYTES_MAX, SEGMENT_BYTES,
};
use crate::miners::Miners;
use crate::pack::{DeltaEntry, Directory, FOOTER_SEALED_BYTES, Footer};
use crate::ranges::{Neighbours, Ranges, RangesParts};
use crate::tasks::Tasks;
use cessfs_crypto::{Entropy, FrameId, FrameKind, PackKind, PackSeq, VolumeKeys};
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an archive reads with.
pub struct ArchiveParts {
    /// The chain.
    pub chain: Arc<dyn Chain>,
    /// The miners' data plane.
    pub fragments: Arc<dyn FragmentStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Choices among miners.
    pub entropy: Box<dyn Entropy>,
    /// Keys of the volume.
    pub keys: VolumeKeys,
    /// Where tasks and blocking work run.
    pub tasks: Tasks,
}

/// The network's side of a volume.
pub struct Archive {
    keys: VolumeKeys,
    ranges: Ranges,
}

/// A pack that was read back, as far as recovery needs it.
#[derive(Clone, Debug)]
pub struct Pack {
    /// As the journal will hold it: Confirmed.
    pub record: PackRecord,
    /// The pack before it in its history; 0: none.
    pub previous: PackSeq,
    /// Where everything lies.
    pub directory: Directory,
    /// Why its metadata cannot be read, if it was tried: its chunks still count.
    pub deltas_lost: Option<String>,
}

impl Pack {
    /// Whether replay may start here.
    pub fn is_checkpoint(&self) -> bool {
        self.record.kind == PackKind::Checkpoint
    }
}

/// A pack whose footer or directory no four miners give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostPack {
    /// Its file.
    pub fid: Fid,
    /// Epoch of its writer.
    pub epoch: u32,
    /// Segments it has.
    pub segments: u32,
    /// What went wrong.
    pub why: String,
}

/// All packs of a volume that the account lists.
#[derive(Clone, Debug, Default)]
pub struct Packs {
    /// Those that can be read.
    pub good: BTreeMap<PackSeq, Pack>,
    /// Those that cannot.
    pub lost: BTreeMap<PackSeq, LostPack>,
}

impl Packs {
    /// The highest number there is, readable or not.
    pub fn newest(&self) -> PackSeq {
        let good = self.good.keys().next_back();
        let lost = self.lost.keys().next_back();
        good.max(lost).copied().unwrap_or(PackSeq(0))
    }

    /// The metadata of a pack turned out to be unreadable: [`plan`](Packs::plan) again.
    pub fn lose_deltas(&mut self, seq: PackSeq, why: String) {
        if let Some(pack) = self.good.get_mut(&seq) {
            pack.deltas_lost = Some(why);
        }
    }
}

impl Archive {
    /// Reads through these; asks nobody yet.
    pub fn new(parts: ArchiveParts) -> Archive {
        let miners = Arc::new(Miners::new(
            parts.chain.clone(),
            parts.fragments,
            parts.clock.clone(),
            Dice::new(parts.entropy),
        ));
        Archive {
            keys: parts.keys,
            ranges: Ranges::new(RangesParts {
                chain: parts.chain,
                miners,
                clock: parts.clock,
                tasks: parts.tasks,
            }),
        }
    }

    /// Reads footer and directory of every pack; those that fail once more at the end.
    pub async fn open(&self, found: Vec<Found>, tell: Tell<'_>) -> Packs {
        let total = found.len();
        let mut packs = Packs::default();
        let mut failed = self.open_all(found, &mut packs, total, tell).await;
        if !failed.is_empty() {
            let again = failed.drain(..).map(|(found, _)| found).collect();
            failed = self.open_all(again, &mut packs, total, tell).await;
        }
        for (found, error) in failed {
            // Another file under the same label was the pack: this one is a copy of its name.
            if packs.good.contains_key(&found.label.seq) {
                continue;
            }
            let lost = LostPack {
                fid: found.fid,
                epoch: found.label.epoch,
                segments: found.file.segments.len() as u32,
                why: error.to_string(),
            };
            packs.lost.insert(found.label.seq, lost);
        }
        packs
    }

    async fn open_all(
        &self,
        found: Vec<Found>,
        packs: &mut Packs,
        total: usize,
        tell: Tell<'_>,
    ) -> Vec<(Found, FetchError)> {
        let mut failed = Vec::new();
        let mut opening = futures::stream::iter(found)
            .map(|found| async move {
                let opened = self.open_one(&found).await;
                (found, opened)
            })
            .buffer_unordered(ARCHIVE_PACKS_IN_FLIGHT);
        while let Some((found, opened)) = opening.next().await {
            match opened {
                Ok(pack) => {
                    packs.good.insert(found.label.seq, pack);
                    tell(Step::Packs(packs.good.len(), total));
                }
                Err(error) => failed.push((found, error)),
            }
        }
        failed
    }

    async fn open_one(&self, found: &Found) -> Result<Pack, FetchError> {
        let seq = found.label.seq;
        let mut record = record(found)?;
        let body = record.body_bytes();
        let footer = self
            .ranges
            .read(
                &record,
                body - FOOTER_SEALED_BYTES as u64..body,
                Neighbours::Unwanted,
                |sealed| Footer::open(&self.keys, seq, sealed).map_err(|error| error.to_string()),
            )
            .await?;
        if footer.segments != record.segments || footer.kind != record.kind {
            return Err(unavailable(seq, "its footer is not of this file"));
        }
        let directory = self.directory(&record, &footer).await?;
        record.chunks = footer.chunks;
        record.deltas = footer.deltas;
        record.delta_bytes = directory.deltas.iter().map(|delta| u64::from(delta.len)).sum();
        (record.sealed_at_s, record.changed_at_s) = (footer.sealed_at_s, footer.sealed_at_s);
        Ok(Pack {
            record,
            previous: footer.previous,
            directory,
            deltas_lost: None,
        })
    }

    async fn directory(&self, record: &PackRecord, footer: &Footer) -> Result<Directory, FetchError> {
        let bytes = footer.directory_bytes();
        if bytes > DIRECTORY_BYTES_MAX {
            return Err(unavailable(footer.seq, "its directory is too long"));
        }
        if bytes == 0 {
            return Ok(Directory::default());
        }
        let range = footer.directory_offset..footer.directory_offset + bytes;
        let open = |sealed: &[u8]| Directory::open(&self.keys, footer, sealed).map_err(|error| error.to_string());
        self.ranges.read(record, range, Neighbours::Unwanted, open).await
    }

    /// Hands the delta frames of a pack to `sink`, in their order.
    ///
    /// # Errors
    /// Fewer than four miners give a good range; or what `sink` says.
    pub async fn deltas<E: From<FetchError>>(
        &self,
        pack: &Pack,
        mut sink: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let runs = runs(&pack.directory.deltas);
        let mut reading = futures::stream::iter(runs)
            .map(|(first, run)| self.run(pack, first, run))
            .buffered(DELTA_RANGES_IN_FLIGHT);
        while let Some(frames) = reading.next().await {
            for frame in frames? {
                sink(frame)?;
            }
        }
        Ok(())
    }

    /// Delta frames that lie back to back; `first` is the index of the first one.
    async fn run(&self, pack: &Pack, first: usize, run: &[DeltaEntry]) -> Result<Vec<Vec<u8>>, FetchError> {
        let Some((start, last)) = run.first().zip(run.last()) else {
            return Ok(Vec::new());
        };
        let range = start.offset..last.offset + u64::from(last.len);
        let open = |sealed: &[u8]| {
            let mut rest = sealed;
            let mut frames = Vec::with_capacity(run.len());
            for (index, entry) in (first..).zip(run) {
                let (frame, after) = rest.split_at(entry.len as usize);
                let id = FrameId::Pack {
                    seq: pack.record.seq,
                    kind: FrameKind::Delta,
                    index: index as u32,
                };
                frames.push(self.keys.open(id, frame).map_err(|error| error.to_string())?.to_vec());
                rest = after;
            }
            Ok(frames)
        };
        self.ranges.read(&pack.record, range, Neighbours::Unwanted, open).await
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

/// What the chain and the label say of a pack; counts are still to come.
fn record(found: &Found) -> Result<PackRecord, FetchError> {
    let Some((_, holders)) = found.file.segments.first() else {
        return Err(unavailable(found.label.seq, "the chain lists no segment of it"));
    };
    Ok(PackRecord {
        seq: found.label.seq,
        kind: found.label.kind,
        epoch: found.label.epoch,
        segments: found.file.segments.len() as u32,
        chunks: 0,
        deltas: 0,
        delta_bytes: 0,
        label: found.name.clone(),
        territory: found.territory.clone(),
        state: PackState::Confirmed,
        blocked: None,
        encoded: Some(Encoded {
            fid: found.fid,
            segments: found.file.segments.iter().map(|(hashes, _)| hashes.clone()).collect(),
        }),
        intent: None,
        columns: holders.map(|miner| Column {
            miner: Some(miner),
            delivered: true,
        }),
        sealed_at_s: 0,
        changed_at_s: 0,
    })
}

fn unavailable(seq: PackSeq, why: &str) -> FetchError {
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
