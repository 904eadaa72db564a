//! Packs read back from miners: footer and directory of each, delta frames of those that are replayed.

use super::{Found, Step, Tell};
use crate::chain::Chain;
use crate::chunk_store::FetchError;
use crate::clock::Clock;
use crate::deltas::{Deltas, unavailable};
use crate::dice::Dice;
use crate::fragment_store::{Fid, FragmentStore};
use crate::ledger::{Column, Encoded, PackRecord, PackState};
use crate::limits::ARCHIVE_PACKS_IN_FLIGHT;
use crate::miners::Miners;
use crate::pack::Directory;
use crate::ranges::{Ranges, RangesParts};
use crate::tasks::Tasks;
use cessfs_crypto::{Entropy, PackKind, PackSeq, VolumeKeys};
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
    deltas: Deltas,
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
    /// Files that are good packs under the number of another good one, which counts instead: two copies of the volume's directory
    /// wrote at the same time.
    pub twins: BTreeMap<PackSeq, Vec<Fid>>,
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
            None,
        ));
        let ranges = Ranges::new(RangesParts {
            chain: parts.chain,
            miners,
            clock: parts.clock,
            tasks: parts.tasks,
        });
        Archive {
            deltas: Deltas::new(parts.keys, Arc::new(ranges), None),
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
                    packs.take(pack);
                    tell(Step::Packs(packs.good.len(), total));
                }
                Err(error) => failed.push((found, error)),
            }
        }
        failed
    }

    async fn open_one(&self, found: &Found) -> Result<Pack, FetchError> {
        let mut record = record(found)?;
        let footer = self.deltas.footer(&record).await?;
        let directory = self.deltas.directory(&record, &footer).await?;
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

    /// Hands the delta frames of a pack to `sink`, in their order.
    ///
    /// # Errors
    /// Fewer than four miners give a good range; or what `sink` says.
    pub async fn deltas<E: From<FetchError>>(
        &self,
        pack: &Pack,
        sink: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.deltas.frames(&pack.record, &pack.directory.deltas, sink).await
    }
}

/// What the chain and the label say of a pack; counts are still to come.
pub(super) fn record(found: &Found) -> Result<PackRecord, FetchError> {
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
        drain: None,
        stands_for: None,
        beside: false,
    })
}
