//! The pipeline: takes every sealed pack to twelve miners and the chain, however often it is interrupted.
//!
//! One driver task per pack walks [`PackState`]. Each step reads the journal, does its part and journals the outcome; a step
//! that cannot go on says why ([`Blocked`]) and is tried again. A restart is the same as a retry: the journal says where the
//! pack is, then `File(fid)` and `DealMap(fid)` at a finalized head are asked, and the chain wins.
//!
//! Promises: a fid is declared only while chain and journal both say that no declaration of it can be alive (I2); the staged
//! body goes only after all twelve miners gave back what they were given (I1). Refuses to guess: an unknown answer is waited
//! out, never assumed. [`delete`](Pipeline::delete) is the way back: it takes a pack from the chain that nothing needs.
//!
//! Order: at most [`PACKS_IN_FLIGHT`] packs have bytes to send, oldest first. A pack whose bytes are all with miners waits for
//! reports without holding up the next.

mod backoff;
mod body;
mod column;
mod declare;
mod delete;
mod encode;
mod fence;
mod hopeless;
mod lanes;
mod place;
mod progress;
mod queue;
mod reconcile;
mod refusals;
mod rows;
mod uplink;
mod verify;

pub use progress::ColumnProgress;
pub(crate) use progress::ProgressBoard;
pub(crate) use reconcile::is_far_above;

use crate::builder::Builder;
use crate::chain::{Chain, ChainError, ChainInfo};
use crate::clock::Clock;
use crate::dice::Dice;
use crate::engine::Errors;
use crate::foreground::Foreground;
use crate::fragment_store::Fid;
use crate::ledger::{Blocked, Durable, Ledger, PackRecord, PackState, stopped};
use crate::limits::{PACKS_IN_ENCODE, PACKS_IN_FLIGHT, PACKS_IN_VERIFY, RETRY_DELAY_MAX, RETRY_DELAY_MIN};
use crate::miners::Miners;
use crate::stages;
use crate::staging::Staging;
use crate::store::StoreError;
use crate::tasks::{Gone, Tasks};
use backoff::Backoff;
use cessfs_crypto::PackSeq;
use futures::FutureExt;
use hopeless::Hopeless;
use lanes::Lanes;
use parking_lot::Mutex;
use refusals::Refusals;
use rows::Rows;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use uplink::Uplink;
pub use uplink::UplinkLimit;
use verify::Patience;

/// What the pipeline works with.
pub(crate) struct PipelineParts {
    pub(crate) chain: Arc<dyn Chain>,
    pub(crate) miners: Arc<Miners>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) builder: Arc<Builder>,
    pub(crate) staging: Staging,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dice: Dice,
    pub(crate) errors: Arc<Errors>,
    pub(crate) tasks: Tasks,
    pub(crate) foreground: Arc<Foreground>,
    pub(crate) uplink: UplinkLimit,
    /// How long miners may fail to give back a new pack.
    pub(crate) read_back: Duration,
}

pub(crate) struct Pipeline {
    pub(crate) chain: Arc<dyn Chain>,
    miners: Arc<Miners>,
    ledger: Arc<Ledger>,
    builder: Arc<Builder>,
    staging: Staging,
    rows: Arc<Rows>,
    clock: Arc<dyn Clock>,
    dice: Dice,
    errors: Arc<Errors>,
    tasks: Tasks,
    foreground: Arc<Foreground>,
    /// Packs with an intent of which it is known since when nothing was signed for them.
    quiet: Mutex<HashSet<PackSeq>>,
    /// Files of the account that are no packs of a newer epoch. At most as many as the chain lists.
    known_files: Mutex<HashSet<Fid>>,
    refusals: Refusals,
    /// Packs that were Confirmed in this run, and when (monotonic). At most as many as it sent.
    confirmed: Mutex<BTreeMap<PackSeq, Duration>>,
    /// How far finality was when it was last heard of, or as the records have it.
    final_height: AtomicU32,
    /// What the chain said about itself; asked once.
    info: OnceLock<ChainInfo>,
    encodes: Semaphore,
    packs: Arc<Semaphore>,
    lanes: Lanes,
    uplink: Uplink,
    read_back: Duration,
    verifies: Semaphore,
    /// Packs that go before all others: what is in them is about to be lost elsewhere. Of this run only.
    urgent: Mutex<HashSet<PackSeq>>,
    poke: Notify,
    pub(crate) progress: ProgressBoard,
}

impl Pipeline {
    pub(crate) fn new(parts: PipelineParts) -> Pipeline {
        let final_height = parts.ledger.final_height().unwrap_or(0);
        Pipeline {
            chain: parts.chain,
            miners: parts.miners,
            ledger: parts.ledger,
            builder: parts.builder,
            uplink: Uplink::new(parts.clock.clone(), parts.uplink),
            lanes: Lanes::new(parts.clock.clone()),
            rows: Arc::new(Rows::new(
                parts.staging.clone(),
                parts.tasks.clone(),
                parts.foreground.clone(),
            )),
            foreground: parts.foreground,
            staging: parts.staging,
            read_back: parts.read_back,
            clock: parts.clock,
            dice: parts.dice,
            errors: parts.errors,
            tasks: parts.tasks,
            quiet: Mutex::default(),
            known_files: Mutex::default(),
            refusals: Refusals::default(),
            confirmed: Mutex::default(),
            final_height: AtomicU32::new(final_height),
            info: OnceLock::new(),
            encodes: Semaphore::new(PACKS_IN_ENCODE),
            packs: Arc::new(Semaphore::new(PACKS_IN_FLIGHT)),
            verifies: Semaphore::new(PACKS_IN_VERIFY),
            urgent: Mutex::default(),
            poke: Notify::new(),
            progress: ProgressBoard::default(),
        }
    }

    /// Takes every pack of the ledger that is not Confirmed, oldest first, and every one that is sealed from now on.
    /// Runs until it is aborted, which aborts the drivers too.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut drivers = JoinSet::new();
        let mut driven = BTreeSet::new();
        loop {
            let version = self.ledger.version();
            while drivers.try_join_next().is_some() {}
            let waiting = self.ledger.unconfirmed();
            driven.retain(|seq| waiting.iter().any(|pack| pack.seq == *seq));
            let next = queue::next(&waiting, &driven, &self.urgent.lock());
            let Some(pack) = next else {
                self.ledger.changed_since(version).await;
                continue;
            };
            let slot = self.a_slot().await;
            driven.insert(pack.seq);
            drivers.spawn_on(self.clone().keep_driving(pack.seq, slot), self.tasks.handle());
        }
    }

    /// Limits what is sent from now on.
    pub(crate) fn limit_uplink(&self, limit: UplinkLimit) {
        self.uplink.set(limit);
    }

    /// Waits as long as nothing may be sent: what is paused is not read either.
    pub(crate) async fn until_open(&self) {
        self.uplink.open().await;
    }

    /// Sends this pack before all others that are not on their way yet.
    pub(crate) fn prefer(&self, seq: PackSeq) {
        self.urgent.lock().insert(seq);
    }

    /// Wakes whatever waits between two attempts: the user minted a territory, the network is back.
    pub(crate) fn poke(&self) {
        self.refusals.clear();
        self.poke.notify_waiters();
    }

    /// Drives a pack to its end. A panic on the way costs that attempt and is told: without another the pack would stand still
    /// until the next start, and whoever waits for it. It goes on without a slot where none is free: those that hold them may be
    /// checkpoints, which wait for it.
    async fn keep_driving(self: Arc<Self>, seq: PackSeq, slot: OwnedSemaphorePermit) {
        let mut slot = Some(slot);
        loop {
            let driven = AssertUnwindSafe(self.clone().drive(seq, slot)).catch_unwind();
            if driven.await.is_ok() {
                return;
            }
            self.errors.push(format!(
                "pack {}: a mistake in cessfs ended its way to the network; it is tried again, please report it",
                seq.0
            ));
            self.clock.sleep(RETRY_DELAY_MAX).await;
            slot = self.packs.clone().try_acquire_owned().ok();
        }
    }

    async fn a_slot(&self) -> OwnedSemaphorePermit {
        let slot = self.packs.clone().acquire_owned().await;
        slot.expect("the semaphore is never closed")
    }

    async fn drive(self: Arc<Self>, seq: PackSeq, mut slot: Option<OwnedSemaphorePermit>) {
        let mut backoff = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
        let mut patience = Patience::default();
        let mut hopeless = Hopeless::default();
        loop {
            let pack = self
                .ledger
                .get(seq)
                .expect("a pack stays in the ledger while it is driven");
            let step = match pack.state {
                PackState::Sealed => self.encode(&pack).await,
                PackState::Declaring => {
                    // What is declared has to be sent soon, or its deal ends.
                    self.uplink.open().await;
                    let _span = stages::CHAIN_DECLARE.enter();
                    self.declare(&pack).await
                }
                PackState::Placing => {
                    let _span = stages::CHAIN_PLACE.enter();
                    self.place(&pack, &mut slot).await
                }
                PackState::Stored => {
                    slot = None;
                    self.verify(&pack, &mut patience).await
                }
                PackState::Doubted => {
                    slot = None;
                    self.await_replacement(seq).await
                }
                PackState::Confirmed
                | PackState::Draining
                | PackState::Deleting
                | PackState::Gone
                | PackState::Lost => return self.finish(seq).await,
            };
            match step {
                Ok(()) => {
                    backoff.reset();
                    hopeless.reset();
                }
                Err(reason) => {
                    self.failed(seq, reason, &mut hopeless).await;
                    self.pause(backoff.next(&self.dice)).await;
                }
            }
        }
    }

    /// The body has done its duty, unless a snapshot needs it and miners never gave all of it back.
    async fn finish(&self, seq: PackSeq) {
        let pinned = self.builder.pinned();
        let stays = |pack: Arc<PackRecord>| {
            let is_pinned = pinned.is_some_and(|pinned| pack.first() <= pinned);
            is_pinned && pack.may_be_staged()
        };
        if !self.ledger.get(seq).is_some_and(stays) {
            self.remove_body(seq).await;
        }
        self.progress.forget(seq);
        self.rows.forget(seq);
        self.quiet.lock().remove(&seq);
        self.refusals.forget(seq);
        self.urgent.lock().remove(&seq);
    }

    async fn remove_body(&self, seq: PackSeq) {
        let (staging, builder) = (self.staging.clone(), self.builder.clone());
        let removed = self.blocking(move || {
            let removed = staging.remove(seq);
            builder.wake_submitters();
            removed
        });
        if let Err(error) = removed.await {
            self.errors
                .push(format!("pack {}: its staged body could not be removed: {error}", seq.0));
        }
    }

    /// Makes visible why a pack stands still.
    fn block(&self, seq: PackSeq, reason: Blocked) {
        let known = self
            .ledger
            .get(seq)
            .is_some_and(|pack| pack.blocked.as_ref() == Some(&reason));
        if known {
            return;
        }
        // That a declaration takes a few blocks to become final is no error.
        if !matches!(reason, Blocked::Undecided { .. }) {
            self.errors.push(format!("pack {}: {reason}", seq.0));
        }
        let journaled = self
            .ledger
            .update(seq, Durable::Eventually, |pack| pack.blocked = Some(reason));
        if let Err(error) = journaled {
            self.errors.push(format!("pack {}: {error}", seq.0));
        }
    }

    /// Waits, or less if poked.
    async fn pause(&self, duration: Duration) {
        tokio::select! {
            biased;
            () = self.clock.sleep(duration) => {}
            () = self.poke.notified() => {}
        }
    }

    /// Moves a pack on: whatever blocked it is over. What may not be lost in a power cut asks for [`Durable::Now`].
    async fn advance(
        &self,
        seq: PackSeq,
        durable: Durable,
        change: impl FnOnce(&mut PackRecord) + Send + 'static,
    ) -> Result<Arc<PackRecord>, Blocked> {
        let ledger = self.ledger.clone();
        let now_s = self.clock.wall().as_secs();
        let update = move || {
            ledger.update(seq, durable, |pack| {
                let before = pack.state;
                change(pack);
                pack.blocked = None;
                if pack.state != before {
                    pack.changed_at_s = now_s;
                }
            })
        };
        let advanced = match durable {
            Durable::Now => self.blocking(update).await,
            Durable::Eventually => update(),
        };
        advanced.map_err(|error| Blocked::Journal(error.to_string()))
    }

    /// Runs work that blocks on disk or processor off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.tasks.blocking(work).await.unwrap_or_else(|Gone| Err(stopped()))
    }
}

impl From<ChainError> for Blocked {
    fn from(error: ChainError) -> Blocked {
        match error {
            ChainError::Away(why) => Blocked::ChainAway(why),
            ChainError::NoFunds(why) => Blocked::NoFunds(why),
            ChainError::TerritoryFull(why) => Blocked::TerritoryFull(why),
            ChainError::TerritoryInactive(why) => Blocked::TerritoryInactive(why),
            ChainError::NoTerritory(why) => Blocked::NoTerritory(why),
            ChainError::Paused(why) => Blocked::CallPaused(why),
            ChainError::Refused(why) => Blocked::Refused(why),
            ChainError::Shape(why) => Blocked::Shape(why),
        }
    }
}

fn staging_lost(error: impl std::fmt::Display) -> Blocked {
    Blocked::Staging(error.to_string())
}
