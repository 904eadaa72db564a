//! What the journal says about one pack, and its bytes: a version, then SCALE (canonical, bounded by its input).

use crate::chain::SegmentHashes;
use crate::fragment_store::{Fid, Sha256Hash};
use crate::limits::{COLUMNS, segment_bytes};
use crate::store::StoreError;
use cessfs_crypto::{AccountId, PackKind, PackSeq};
use codec::{Decode, DecodeAll, Encode};
use std::fmt;

const RECORD_VERSION: u8 = 2;

/// How far a pack has come. Every arrow is one journal record, written before what it allows happens.
///
/// ```text
///            (builder: body durable,             finalized: deal
///             locations and delta in             is ours
///             the same batch)                  +------------------+
///    [open] ------------------> Sealed         |                  v
///                                 | encoded    |               Placing
///                                 v            |                  |   File at a finalized head
///                             Declaring -------+                  v
///                              ^  |  File is there already      Stored  -- for long not all give it back --> Doubted
///                              |  +-------------------------->    |   right answers from all twelve            |
///                              |                                  v                                            |
///                              +--- deal gone from Placing     Confirmed --> staging removed                   |
///            (Sealed, Declaring and Placing are Doubted, too, where waiting does not help)                      |
///                                                                 |                                            |
///               fewer than four columns, and not all of     too little lives, or too few columns are good      |
///               what lives is here                                v        what lives in it, and a checkpoint, |
///       Lost <------------------------------------------------ Draining <-------- are Confirmed elsewhere -----+
///        |   four columns again, or nothing lives in it           ^  |  chunks to other packs, a checkpoint
///        +--------------------------------------------------------+  | I4: all of it Confirmed elsewhere, a later
///                                                                    v checkpoint Confirmed, no snapshot, history over
///                                                                 Deleting
///                                                                    | finalized: the account has no such file
///                                                                    v
///                                                                  Gone --> no location names it: forgotten
/// ```
///
/// Any state before Confirmed can be blocked: it keeps its place and tries again, see [`Blocked`]. Deleting is tried again
/// and again, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum PackState {
    /// The body rests on this disk; nothing is known about its hashes.
    #[codec(index = 0)]
    Sealed,
    /// Hashes and fid are known. With an intent: a declaration may be on its way.
    #[codec(index = 1)]
    Declaring,
    /// The deal is open; twelve columns are being placed.
    #[codec(index = 2)]
    Placing,
    /// The chain holds the file at a finalized head.
    #[codec(index = 3)]
    Stored,
    /// The same, but a miner that reported its column does not give it back, and had time to; or it can never be placed, since
    /// somebody else stands under its id or its body cannot be read. What lives in it is sent again, in
    /// other packs; until those are Confirmed it counts as on its way, takes no new references, and its body stays staged.
    #[codec(index = 9)]
    Doubted,
    /// All twelve miners gave back what they were given.
    #[codec(index = 4)]
    Confirmed,
    /// Takes no new references: what lives in it moves to other packs. Reads still come from here.
    #[codec(index = 5)]
    Draining,
    /// Nothing needs it. Its deletion may be on its way.
    #[codec(index = 6)]
    Deleting,
    /// The chain does not list it any more. Remembered until no location of a chunk names it.
    #[codec(index = 7)]
    Gone,
    /// Fewer than four columns can be had, and this machine does not have all that lives in it. Asked for again and again.
    #[codec(index = 8)]
    Lost,
}

impl PackState {
    /// Every state, in order.
    pub const ALL: [PackState; 10] = [
        PackState::Sealed,
        PackState::Declaring,
        PackState::Placing,
        PackState::Stored,
        PackState::Doubted,
        PackState::Confirmed,
        PackState::Draining,
        PackState::Deleting,
        PackState::Gone,
        PackState::Lost,
    ];
}

impl fmt::Display for PackState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PackState::Sealed => "sealed",
            PackState::Declaring => "declaring",
            PackState::Placing => "placing",
            PackState::Stored => "stored",
            PackState::Doubted => "doubted",
            PackState::Confirmed => "confirmed",
            PackState::Draining => "draining",
            PackState::Deleting => "deleting",
            PackState::Gone => "gone",
            PackState::Lost => "lost",
        })
    }
}

/// Why a pack stands still. Nothing is lost; the same step is tried again, sooner after `poke`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Encode, Decode)]
#[non_exhaustive]
pub enum Blocked {
    /// Fee or price exceed the balance.
    #[error("the account has too little TCESS: {0}")]
    NoFunds(String),
    /// The territory has no room for the pack (F2).
    #[error("the territory is full: {0}")]
    TerritoryFull(String),
    /// Frozen, expired or on consignment.
    #[error("the territory takes no uploads: {0}")]
    TerritoryInactive(String),
    /// Not minted yet.
    #[error("there is no such territory: {0}")]
    NoTerritory(String),
    /// Fewer than twelve miners are willing (F5).
    #[error("too few miners are willing: {willing} of {wanted}")]
    FewMiners {
        /// Miners that answered and have room.
        willing: u32,
        /// Miners needed.
        wanted: u32,
    },
    /// No answer from the RPC.
    #[error("the chain cannot be reached: {0}")]
    ChainAway(String),
    /// Root paused the call.
    #[error("the chain has paused this call: {0}")]
    CallPaused(String),
    /// Not the network cessfs knows (F1).
    #[error("this chain is not one cessfs knows: {0}")]
    Shape(String),
    /// The chain refused for a reason of its own.
    #[error("the chain refused: {0}")]
    Refused(String),
    /// A declaration's fate is unknown; declared again only when it is void (F4).
    #[error("waiting to learn what became of the declaration: finalized block {now} of {until}")]
    Undecided {
        /// Finalized height now.
        now: u32,
        /// Height at which it is void.
        until: u32,
    },
    /// Miners do not give back what they were given; the body stays staged.
    #[error("not confirmed, the body stays on this disk and reading back is tried again: {0}")]
    ReadBack(String),
    /// The body cannot be read from the staging directory.
    #[error("the staged body cannot be read: {0}")]
    Staging(String),
    /// The local journal takes no more.
    #[error("the local journal failed: {0}")]
    Journal(String),
    /// The volume was recovered elsewhere, and goes on there (I10).
    #[error(
        "this volume was recovered on another machine and goes on there (epoch {epoch}); nothing more is sent from here: copy \
         what only this machine has over to that one"
    )]
    Fenced {
        /// Epoch of the other writer.
        epoch: u32,
    },
    /// Miners did not give back what they were given for so long that what is in the pack is sent again.
    #[error("not confirmed for long, so what is in it is sent again, to other miners: {0}")]
    Doubted(String),
    /// A copy of this writer sends, too (I10).
    #[error(
        "packs are on the network that another copy of this directory has sent, and this one does not know: it is older (put back \
         from a backup, or with a snapshot of its machine), or both are in use; nothing more is sent from here: go on with the newer \
         one, or recover from the phrase, and copy what only this one has over"
    )]
    Forked,
    /// Somebody else declared the pack's id, with another content.
    #[error("somebody else stands under the id of this pack: {0}")]
    Taken(String),
    /// A node told a height that the chain is far from, and the declaration was noted at that.
    #[error(
        "a node told a wrong height when this pack was declared, {recorded} where the chain is at {now}: what is in it is sent again in \
         another pack"
    )]
    Astray {
        /// Height that was noted.
        recorded: u32,
        /// Finalized height now.
        now: u32,
    },
}

/// Hashes of an encoded pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The CESS file's id.
    pub fid: Fid,
    /// Segment and fragment hashes, in order.
    pub segments: Vec<SegmentHashes>,
}

/// A declaration that was, or is about to be, submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Intent {
    /// Finalized height after which it was not signed any more, as far as known. It is void
    /// [`DECLARE_MORTAL_BLOCKS`](crate::limits::DECLARE_MORTAL_BLOCKS) later.
    pub height: u32,
    /// How many declarations of this pack there were, this one included.
    pub attempt: u32,
}

/// Who holds, or shall hold, one fragment of every segment (F3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// The miner, once chosen.
    pub miner: Option<AccountId>,
    /// It took all its bytes.
    pub delivered: bool,
}

/// Why a pack drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum DrainCause {
    /// Too little of it lives.
    Dead,
    /// Too few of its columns are good.
    Damaged,
    /// It never was Confirmed: see [`PackState::Doubted`].
    Doubted,
}

/// How far a draining pack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Drain {
    /// Why.
    pub cause: DrainCause,
    /// Wall time of its beginning, seconds since 1970.
    pub since_s: u64,
    /// Number of the checkpoint that was sealed after everything that lives in it had moved. From that point on no tree
    /// needs the pack; `None`: not everything has moved.
    pub checkpoint: Option<u64>,
}

/// One pack in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRecord {
    /// Its number.
    pub seq: PackSeq,
    /// Data or checkpoint.
    pub kind: PackKind,
    /// Writer's epoch.
    pub epoch: u32,
    /// Whole segments.
    pub segments: u32,
    /// Chunks inside.
    pub chunks: u32,
    /// Delta frames inside.
    pub deltas: u32,
    /// Sealed bytes of the delta frames.
    pub delta_bytes: u64,
    /// The public file name, sealed (F9).
    pub label: String,
    /// Territory it is charged to.
    pub territory: String,
    /// How far it has come.
    pub state: PackState,
    /// Why it stands still.
    pub blocked: Option<Blocked>,
    /// From Declaring on.
    pub encoded: Option<Encoded>,
    /// A declaration is out.
    pub intent: Option<Intent>,
    /// The twelve columns.
    pub columns: [Column; COLUMNS],
    /// Wall time of sealing, seconds since 1970.
    pub sealed_at_s: u64,
    /// Wall time of the last change of state.
    pub changed_at_s: u64,
    /// From Draining on, and where it is Doubted.
    pub drain: Option<Drain>,
    /// Chunks came into it out of this pack (the lowest of them), and a snapshot sealed in between finds them only here: while
    /// that one is pinned, so is this.
    pub stands_for: Option<PackSeq>,
    /// Beside this history: sealed by another writer, or after the point that a recovery went back to. Never deleted here.
    pub beside: bool,
}

impl PackRecord {
    /// Bytes of the body.
    pub fn body_bytes(&self) -> u64 {
        u64::from(self.segments) * segment_bytes() as u64
    }

    /// The lowest pack that a snapshot may need this one for: itself, or what it stands for.
    pub(crate) fn first(&self) -> PackSeq {
        self.stands_for.map_or(self.seq, |first| first.min(self.seq))
    }

    /// The chain had it once, and said who holds which column. Not so what was doubted before that.
    pub fn was_stored(&self) -> bool {
        self.encoded.is_some() && self.columns.iter().all(|column| column.miner.is_some())
    }

    /// Its body may rest on this disk: it is on its way, or it never came to the network whole, and a snapshot needs it.
    pub(crate) fn may_be_staged(&self) -> bool {
        let is_doubted = self.drain.is_some_and(|drain| drain.cause == DrainCause::Doubted);
        self.state < PackState::Confirmed
            || matches!(self.state, PackState::Draining | PackState::Lost) && (is_doubted || !self.was_stored())
    }

    /// Hashes; a pack past Sealed has them, unless it was doubted then.
    pub fn encoded(&self) -> &Encoded {
        self.encoded
            .as_ref()
            .expect("only a pack that was never encoded has no hashes; decode refuses others")
    }

    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![RECORD_VERSION];
        Wire::from(self).encode_to(&mut out);
        out
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// `Corrupt` if it is not one, or breaks what each state promises.
    pub fn decode(bytes: &[u8]) -> Result<PackRecord, StoreError> {
        let corrupt = |why: &str| StoreError::Corrupt(format!("pack record: {why}"));
        let Some((&RECORD_VERSION, mut rest)) = bytes.split_first() else {
            return Err(corrupt("unknown version"));
        };
        let wire = Wire::decode_all(&mut rest).map_err(|error| corrupt(&error.to_string()))?;
        let record = PackRecord::try_from(wire).map_err(corrupt)?;
        let complete = record.columns.iter().all(|column| column.miner.is_some());
        let hashes = record.encoded.as_ref().map(|encoded| encoded.segments.len() as u32);
        let given_up = record.drain.is_some_and(|drain| drain.cause == DrainCause::Doubted);
        match record.state {
            PackState::Sealed => Ok(record),
            PackState::Doubted | PackState::Draining | PackState::Deleting | PackState::Gone
                if given_up && !complete =>
            {
                Ok(record)
            }
            _ if hashes != Some(record.segments) => Err(corrupt("no hashes")),
            state if state >= PackState::Stored && !complete => Err(corrupt("a column has no miner")),
            PackState::Doubted | PackState::Draining | PackState::Deleting | PackState::Gone
                if record.drain.is_none() =>
            {
                Err(corrupt("it drains for no reason"))
            }
            _ => Ok(record),
        }
    }
}

type WireSegment = ([u8; 32], [[u8; 32]; COLUMNS]);

/// Field order is the format.
#[derive(Encode, Decode)]
struct Wire {
    seq: u64,
    kind: u8,
    epoch: u32,
    segments: u32,
    chunks: u32,
    deltas: u32,
    delta_bytes: u64,
    label: String,
    territory: String,
    state: PackState,
    blocked: Option<Blocked>,
    encoded: Option<([u8; 32], Vec<WireSegment>)>,
    intent: Option<Intent>,
    columns: [(Option<[u8; 32]>, bool); COLUMNS],
    sealed_at_s: u64,
    changed_at_s: u64,
    drain: Option<Drain>,
    stands_for: Option<u64>,
    beside: bool,
}

impl From<&PackRecord> for Wire {
    fn from(record: &PackRecord) -> Wire {
        let segment = |hashes: &SegmentHashes| (hashes.segment.0, hashes.fragments.map(|fragment| fragment.0));
        Wire {
            seq: record.seq.0,
            kind: record.kind as u8,
            epoch: record.epoch,
            segments: record.segments,
            chunks: record.chunks,
            deltas: record.deltas,
            delta_bytes: record.delta_bytes,
            label: record.label.clone(),
            territory: record.territory.clone(),
            state: record.state,
            blocked: record.blocked.clone(),
            encoded: record
                .encoded
                .as_ref()
                .map(|encoded| (encoded.fid.0, encoded.segments.iter().map(segment).collect())),
            intent: record.intent,
            columns: record
                .columns
                .map(|column| (column.miner.map(|miner| miner.0), column.delivered)),
            sealed_at_s: record.sealed_at_s,
            changed_at_s: record.changed_at_s,
            drain: record.drain,
            stands_for: record.stands_for.map(|seq| seq.0),
            beside: record.beside,
        }
    }
}

impl TryFrom<Wire> for PackRecord {
    type Error = &'static str;

    fn try_from(wire: Wire) -> Result<PackRecord, &'static str> {
        let kind = match wire.kind {
            1 => PackKind::Data,
            2 => PackKind::Checkpoint,
            _ => return Err("unknown kind"),
        };
        let segment = |(segment, fragments): WireSegment| SegmentHashes {
            segment: Sha256Hash(segment),
            fragments: fragments.map(Sha256Hash),
        };
        Ok(PackRecord {
            seq: PackSeq(wire.seq),
            kind,
            epoch: wire.epoch,
            segments: wire.segments,
            chunks: wire.chunks,
            deltas: wire.deltas,
            delta_bytes: wire.delta_bytes,
            label: wire.label,
            territory: wire.territory,
            state: wire.state,
            blocked: wire.blocked,
            encoded: wire.encoded.map(|(fid, segments)| Encoded {
                fid: Fid(fid),
                segments: segments.into_iter().map(segment).collect(),
            }),
            intent: wire.intent,
            columns: wire.columns.map(|(miner, delivered)| Column {
                miner: miner.map(AccountId),
                delivered,
            }),
            sealed_at_s: wire.sealed_at_s,
            changed_at_s: wire.changed_at_s,
            drain: wire.drain,
            stands_for: wire.stands_for.map(PackSeq),
            beside: wire.beside,
        })
    }
}
