//! When everything is on the network.
//!
//! A pack that was Confirmed may not be there any more: its territory was purged, or bought again (see
//! [`Ledger`](crate::ledger)'s own room `sight`). Whoever waits for the network then waits until the chain shows the pack again, or
//! until what this machine has of it is Confirmed in others. What nobody has is not waited for: the pack is Lost, and
//! what was in it named. Of a pack that stays, damaged or Lost, its metadata is waited for: a checkpoint after it.

use super::Upkeep;
use super::health::Grade;
use super::is_pinned;
use super::repair::Copied;
use crate::ledger::{PackRecord, PackState};
use crate::limits::UPKEEP_TICK;
use crate::store::StoreError;
use cessfs_crypto::{PackKind, PackSeq};
use std::sync::Arc;

impl Upkeep {
    /// Waits until the network has every pack that exists now, or what takes the place of those that it is known to have lost.
    ///
    /// # Errors
    /// The journal failed; or a pack was lost there and nobody sends it again unasked.
    pub(crate) async fn arrived(&self) -> Result<(), StoreError> {
        let last = self.ledger.newest();
        loop {
            let version = self.ledger.version();
            if let Some(until) = self.complete_at(last)?
                && self.ledger.unconfirmed().iter().all(|pack| pack.seq > until)
            {
                return Ok(());
            }
            self.ledger.may_change()?;
            tokio::select! {
                biased;
                () = self.ledger.changed_since(version) => {}
                // What was seen of a pack, and what was copied, is not in the ledger.
                () = self.clock.sleep(UPKEEP_TICK) => {}
            }
        }
    }

    /// Up to which pack everything has to be Confirmed, so that nothing of the packs up to `last` is missed; `None`: that is not
    /// decided yet.
    fn complete_at(&self, last: PackSeq) -> Result<Option<PackSeq>, StoreError> {
        let pinned = self.builder.pinned();
        let packs = self.ledger.all();
        let mut until = last;
        for pack in packs.iter().filter(|pack| pack.seq <= last) {
            match self.stood_in_by(pack, &packs, pinned) {
                Some(seq) => until = until.max(seq),
                None if self.is_left_alone(pack) => return Err(StoreError::Dropped(pack.seq)),
                None => return Ok(None),
            }
        }
        Ok(Some(until))
    }

    /// All that was in the pack is, or was sealed into packs, up to this one. `None`: the chain may not have the pack any more, and what
    /// becomes of it is open.
    fn stood_in_by(&self, pack: &PackRecord, packs: &[Arc<PackRecord>], pinned: Option<PackSeq>) -> Option<PackSeq> {
        match pack.state {
            PackState::Confirmed if self.ledger.is_unseen(pack.seq) => {
                let copied = match self.copied.lock().get(&pack.seq) {
                    Some(Copied::UpTo(seq)) => *seq,
                    _ if self.is_kept_empty(pack, pinned) => pack.seq,
                    _ => return None,
                };
                Some(self.told_without(pack, packs)?.max(copied))
            }
            // Only a round of repair sees to it that there is one.
            PackState::Lost if self.config.repair => self.told_without(pack, packs),
            PackState::Draining if self.grade(pack.seq) == Grade::Lost => pack.drain?.checkpoint.map(PackSeq),
            _ => Some(pack.seq),
        }
    }

    /// The first checkpoint after a pack that stays: that tells the tree without it. `None`: there is none yet.
    fn told_without(&self, pack: &PackRecord, packs: &[Arc<PackRecord>]) -> Option<PackSeq> {
        if pack.beside {
            return Some(pack.seq);
        }
        let tells = |later: &&Arc<PackRecord>| {
            let is_there = later.state <= PackState::Confirmed && !self.ledger.is_unseen(later.seq);
            later.seq > pack.seq && later.kind == PackKind::Checkpoint && is_there
        };
        packs.iter().find(tells).map(|checkpoint| checkpoint.seq)
    }

    /// Nothing of the pack is going to be sent again, though the network does not have it.
    fn is_left_alone(&self, pack: &PackRecord) -> bool {
        let goes_on = self.config.repair || self.config.gc && pack.state == PackState::Draining;
        // Of what a recovery found the stock is to be taken: it may be dead, and whoever wrote before may delete it.
        let is_inherited = self.ledger.inherits() && pack.epoch < self.ledger.epoch();
        let is_decided = self.grade(pack.seq) == Grade::Lost && !is_inherited;
        // A round that somebody asked for may be at it.
        let is_idle = self.alone.try_lock().is_ok();
        is_decided && !goes_on && is_idle
    }

    /// It stays where it is, and no chunk is read from it.
    pub(super) fn is_kept_empty(&self, pack: &PackRecord, pinned: Option<PackSeq>) -> bool {
        let counted = self.counted.lock();
        let is_bare = counted.as_ref().is_some_and(|counted| counted.is_bare(pack.seq));
        (is_pinned(pack, pinned) || pack.beside) && (pack.chunks == 0 || is_bare)
    }
}
