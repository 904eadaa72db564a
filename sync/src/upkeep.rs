//! Upkeep: what happens to packs after they are Confirmed.
//!
//! ```text
//!   scrub: looks at columns ──▶ health ──▶ repair: damaged packs ──┐
//!                                                                  ├─▶ Draining: what lives moves ─▶ a checkpoint ─▶ deleted
//!   count: what files name  ──▶ usage  ──▶ collect: dead packs  ───┘
//! ```
//!
//! Tasks of its own, which the engine starts:
//!
//! | task | what it does | for how long |
//! |---|---|---|
//! | `watch` | looks at packs, at its own pace, and at the territory's end; if `scrub` is on | always |
//! | `keep` | moves and deletes, one round after the other; whoever asks for a round by hand waits for the one that runs | always |
//! | `replace` | sends again what lives in packs that never became Confirmed, because miners do not give back what they reported | always |
//! | `see_again` | asks the chain for packs that have to be seen there again, since a territory expired or lost something | always |
//! | `settle_inheritance` | after a recovery: waits until whoever wrote before has stopped deleting, and takes stock of what he left | until that is done |
//! | `claim` | after a recovery: seals the first pack of the new epoch, so that other writers come to know | until it is sealed |
//!
//! Promises I4: a pack is deleted only when each chunk that lives in it is Confirmed elsewhere, a later checkpoint is Confirmed,
//! no snapshot needs it and history may end there. Every step is journaled before its effect, and may be interrupted anywhere.
//! Refuses to move or delete anything while it is not known what lives.

mod arrival;
mod collect;
mod deleting;
mod emptying;
mod health;
mod odd;
mod repair;
mod scrub;
mod sight;
mod tasks;
mod usage;

pub use collect::CollectReport;
pub(crate) use health::HealthBook;
pub use health::{ColumnHealth, Grade, Health, Thresholds, Verdict};
pub use repair::RepairReport;
pub use scrub::Depth;
pub use tasks::ScrubReport;
pub use usage::{Usage, Usages};

use crate::builder::Builder;
use crate::chain::{Chain, ChainError, Head, StoredFile};
use crate::clock::Clock;
use crate::dice::Dice;
use crate::engine::Errors;
use crate::ledger::{Blocked, Durable, Ledger, PackRecord, PackState, stopped};
use crate::limits::{
    AWAY_PATIENCE, GC_GRACE, GC_INTERVAL, GC_LIVE_PERCENT_MAX, KEEP_HISTORY, READ_BACK_PATIENCE, REPAIR_BELOW,
    SCRUB_FULL_INTERVAL, SCRUB_INTERVAL, SCRUB_RATE, URGENT_BELOW,
};
use crate::miners::Miners;
use crate::pipeline::Pipeline;
use crate::reader::Reader;
use crate::store::StoreError;
use crate::tasks::{Gone, Tasks};
use cessfs_crypto::PackSeq;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpkeepConfig {
    /// Look at packs in the background.
    pub scrub: bool,
    /// How often all columns of a pack are sampled.
    pub scrub_interval: Duration,
    /// How often every byte of it is read.
    pub scrub_full_interval: Duration,
    /// Bytes a second that looking may read.
    pub scrub_rate: u64,
    /// Rewrite damaged packs in the background.
    pub repair: bool,
    /// What counts as damaged.
    pub thresholds: Thresholds,
    /// How long miners may fail to give back a new pack before what is in it is sent again, whatever else is switched off.
    pub read_back: Duration,
    /// Collect dead packs in the background.
    pub gc: bool,
    /// How often.
    pub gc_interval: Duration,
    /// Packs of which more lives, in percent, are left alone.
    pub live_percent_max: u8,
    /// How long points of the past stay recoverable, while the territory has room.
    pub keep_history: Duration,
    /// How long a dead pack stays at the least, however little room there is.
    pub grace: Duration,
}

impl Default for UpkeepConfig {
    fn default() -> UpkeepConfig {
        UpkeepConfig {
            scrub: true,
            scrub_interval: SCRUB_INTERVAL,
            scrub_full_interval: SCRUB_FULL_INTERVAL,
            scrub_rate: SCRUB_RATE,
            repair: true,
            thresholds: Thresholds {
                rewrite_below: REPAIR_BELOW,
                urgent_below: URGENT_BELOW,
                away: AWAY_PATIENCE,
            },
            read_back: READ_BACK_PATIENCE,
            gc: true,
            gc_interval: GC_INTERVAL,
            live_percent_max: GC_LIVE_PERCENT_MAX,
            keep_history: KEEP_HISTORY,
            grace: GC_GRACE,
        }
    }
}

impl UpkeepConfig {
    /// Nothing happens unasked.
    pub fn by_hand() -> UpkeepConfig {
        UpkeepConfig {
            scrub: false,
            repair: false,
            gc: false,
            ..UpkeepConfig::default()
        }
    }
}

/// Why a round ended early. What was begun goes on at the next one.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpkeepError {
    /// The local store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The chain did not answer, or refused.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A deletion stands still.
    #[error("a deletion is tried again: {0}")]
    Blocked(Blocked),
    /// The backlog is at its bound.
    #[error("the backlog is at its bound: what is to move waits until more of that is sent")]
    NoRoom,
    /// Nobody is attached who knows which chunks live.
    #[error("it is not known which chunks are needed, so nothing is deleted")]
    NobodyKnows,
}

/// What upkeep works with.
pub(crate) struct UpkeepParts {
    pub(crate) config: UpkeepConfig,
    pub(crate) chain: Arc<dyn Chain>,
    pub(crate) miners: Arc<Miners>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) builder: Arc<Builder>,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dice: Dice,
    pub(crate) errors: Arc<Errors>,
    pub(crate) health: Arc<HealthBook>,
    pub(crate) tasks: Tasks,
}

pub(crate) struct Upkeep {
    config: UpkeepConfig,
    chain: Arc<dyn Chain>,
    miners: Arc<Miners>,
    ledger: Arc<Ledger>,
    builder: Arc<Builder>,
    pipeline: Arc<Pipeline>,
    reader: Arc<Reader>,
    clock: Arc<dyn Clock>,
    dice: Dice,
    errors: Arc<Errors>,
    health: Arc<HealthBook>,
    tasks: Tasks,
    /// When this run began: monotonic, and by the wall clock.
    began: (Duration, Duration),
    /// Held by the round that moves or deletes.
    alone: tokio::sync::Mutex<()>,
    /// What lives, as last counted.
    counted: Mutex<Option<usage::Counted>>,
    /// Packs that stay and were copied in this run.
    copied: Mutex<BTreeMap<PackSeq, repair::Copied>>,
    /// Lost chunks as last told, by their number and the sum of their ids; and the packs they are in.
    told_lost: Mutex<(usize, u128)>,
    told_packs: Mutex<HashSet<PackSeq>>,
    /// The last trouble of each task, so that it is told once.
    troubles: Mutex<BTreeMap<&'static str, String>>,
}

impl Upkeep {
    pub(crate) fn new(parts: UpkeepParts) -> Upkeep {
        Upkeep {
            began: (parts.clock.monotonic(), parts.clock.wall()),
            config: parts.config,
            chain: parts.chain,
            miners: parts.miners,
            ledger: parts.ledger,
            builder: parts.builder,
            pipeline: parts.pipeline,
            reader: parts.reader,
            clock: parts.clock,
            dice: parts.dice,
            errors: parts.errors,
            health: parts.health,
            tasks: parts.tasks,
            alone: tokio::sync::Mutex::default(),
            counted: Mutex::default(),
            copied: Mutex::default(),
            told_lost: Mutex::default(),
            told_packs: Mutex::default(),
            troubles: Mutex::default(),
        }
    }

    pub(crate) fn health(&self, seq: PackSeq) -> Health {
        self.health.get(seq)
    }

    /// What to do about a pack.
    fn grade(&self, seq: PackSeq) -> Grade {
        self.health.get(seq).grade(&self.config.thresholds)
    }

    /// The file under a pack's id, at a finalized head. What makes no sense there is somebody else's, who declared it when ours was gone.
    async fn file_of(&self, pack: &PackRecord) -> Result<Option<StoredFile>, ChainError> {
        match self.chain.file(pack.encoded().fid, Head::Finalized).await {
            Err(ChainError::Refused(_)) => Ok(None),
            told => told,
        }
    }

    /// Changes a pack's record, durably.
    async fn change(
        &self,
        seq: PackSeq,
        change: impl FnOnce(&mut PackRecord) + Send + 'static,
    ) -> Result<(), UpkeepError> {
        let ledger = self.ledger.clone();
        let now_s = self.clock.wall().as_secs();
        self.blocking(move || {
            ledger.update(seq, Durable::Now, |pack| {
                let before = pack.state;
                change(pack);
                if pack.state != before {
                    pack.changed_at_s = now_s;
                }
            })
        })
        .await?;
        Ok(())
    }

    /// Runs work that blocks on disk or processor off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, UpkeepError> {
        match self.tasks.blocking(work).await {
            Ok(done) => Ok(done?),
            Err(Gone) => Err(stopped().into()),
        }
    }
}

/// A snapshot needs the pack itself, or what came into it out of one that it needs.
fn is_pinned(pack: &PackRecord, pinned: Option<PackSeq>) -> bool {
    pinned.is_some_and(|pinned| pack.first() <= pinned)
}

/// Packs that miners are to hold.
fn is_held(pack: &PackRecord) -> bool {
    matches!(pack.state, PackState::Confirmed | PackState::Draining | PackState::Lost) && pack.was_stored()
}
