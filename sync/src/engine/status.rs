//! What `status` and `explain` show.

use super::{Errors, Trouble};
use crate::builder::Builder;
use crate::chunk_store::Backlog;
use crate::fragment_store::Fid;
use crate::ledger::{Blocked, Ledger, PackRecord, PackState, Place};
use crate::miners::Miners;
use crate::pack::{Piece, pieces};
use crate::pipeline::{ColumnProgress, Pipeline};
use crate::upkeep::Upkeep;
use cessfs_crypto::{AccountId, PackSeq};
use std::collections::BTreeMap;

/// A snapshot of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Bytes no miner confirmed yet, and their bound.
    pub backlog: Backlog,
    /// Packs by state.
    pub packs: BTreeMap<PackState, u64>,
    /// Packs that are not Confirmed, oldest first.
    pub underway: Vec<PackStatus>,
    /// Packs that the network is to hold, by what is known of their columns (names of [`Grade`](crate::upkeep::Grade)).
    pub health: BTreeMap<&'static str, u64>,
    /// Those that are not whole: number, and good columns of twelve.
    pub damaged: Vec<(PackSeq, u8)>,
    /// Wall time since which every one of them was looked at, seconds since 1970; 0: one never was.
    pub scrubbed_at_s: u64,
    /// Sealed bytes that files need, and bytes of packs that nobody needs; `None` before they were counted.
    pub living: Option<(u64, u64)>,
    /// Last errors, oldest first.
    pub errors: Vec<Trouble>,
}

/// A pack on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackStatus {
    /// Its number.
    pub seq: PackSeq,
    /// How far it is.
    pub state: PackState,
    /// Why it stands still.
    pub blocked: Option<Blocked>,
    /// Its id on chain, once encoded.
    pub fid: Option<Fid>,
    /// Bytes of its body.
    pub bytes: u64,
    /// Chunks in it.
    pub chunks: u32,
    /// Wall time of sealing, seconds since 1970.
    pub sealed_at_s: u64,
    /// Its twelve columns.
    pub columns: Vec<ColumnStatus>,
}

/// One column of a pack on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnStatus {
    /// Who holds, or shall hold it.
    pub miner: Option<AccountId>,
    /// The miner took all its bytes.
    pub delivered: bool,
    /// How far it is.
    pub progress: ColumnProgress,
}

/// Where a chunk lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkLocation {
    /// The pack.
    pub seq: PackSeq,
    /// How far it is; `None` while it is open.
    pub state: Option<PackState>,
    /// Its id on chain, once encoded.
    pub fid: Option<Fid>,
    /// Where the chunk's frame starts in the pack.
    pub offset: u64,
    /// Bytes of the frame.
    pub len: u32,
    /// Segments and data fragments it touches.
    pub pieces: Vec<Piece>,
    /// Miners by column with their endpoints, as far as known. Any four of them suffice.
    pub miners: Vec<Option<(AccountId, Option<String>)>>,
}

impl Status {
    pub(super) fn of(
        ledger: &Ledger,
        builder: &Builder,
        pipeline: &Pipeline,
        upkeep: &Upkeep,
        errors: &Errors,
    ) -> Status {
        let mut packs = BTreeMap::new();
        for pack in ledger.all() {
            *packs.entry(pack.state).or_default() += 1;
        }
        let underway = ledger.unconfirmed();
        let (health, damaged, scrubbed_at_s) = upkeep.grades();
        Status {
            health,
            damaged,
            scrubbed_at_s,
            living: upkeep.last_count(),
            backlog: builder.backlog(),
            packs,
            underway: underway.iter().map(|pack| PackStatus::of(pack, pipeline)).collect(),
            errors: errors.list(),
        }
    }
}

impl PackStatus {
    fn of(pack: &PackRecord, pipeline: &Pipeline) -> PackStatus {
        let progress = pipeline.progress.get(pack.seq);
        let columns = pack.columns.iter().zip(progress);
        PackStatus {
            seq: pack.seq,
            state: pack.state,
            blocked: pack.blocked.clone(),
            fid: pack.encoded.as_ref().map(|encoded| encoded.fid),
            bytes: pack.body_bytes(),
            chunks: pack.chunks,
            sealed_at_s: pack.sealed_at_s,
            columns: columns
                .map(|(column, progress)| ColumnStatus {
                    miner: column.miner,
                    delivered: column.delivered,
                    progress,
                })
                .collect(),
        }
    }
}

impl ChunkLocation {
    pub(super) fn of(place: Place, ledger: &Ledger, miners: &Miners) -> ChunkLocation {
        let pack = ledger.get(place.seq);
        let columns = pack.as_ref().map(|pack| pack.columns).unwrap_or_default();
        let holder = |account| (account, miners.known_endpoint(account));
        ChunkLocation {
            seq: place.seq,
            state: pack.as_ref().map(|pack| pack.state),
            fid: pack.and_then(|pack| pack.encoded.as_ref().map(|encoded| encoded.fid)),
            offset: place.offset,
            len: place.len,
            pieces: pieces(place.offset, place.len),
            miners: columns.iter().map(|column| column.miner.map(holder)).collect(),
        }
    }
}
