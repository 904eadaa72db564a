//! When a miner tells the chain what it holds.
//!
//! In rounds. A round looks at each file of which the miner holds something and asks the chain what became of it:
//!
//! ```text
//!            deal lives, index i whole, nobody reported i, nor this miner anything --> report(i), wait two blocks
//!   held --- deal lives, otherwise ------------------------------------------------> look again next round
//!            stored, and this miner is a holder -----------------------------------> settled: look rarely
//!            neither, for many rounds ---------------------------------------------> orphaned: delete
//! ```
//!
//! Several miners may hold the same index, because a client may have given up on one and turned to another. The first
//! report wins; the loser sees that and, where nothing else of the file is whole, deletes it once the deal is gone.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::{debug, warn};

use crate::seam::Deal;

use super::limits::{BLOCKS_FOR_A_REPORT, FRAGMENTS_PER_SEGMENT, ROUNDS_BEFORE_ORPHANED, ROUNDS_BETWEEN_SETTLED_LOOKS};
use super::name::Fid;
use super::server::Miner;

/// What one miner remembers between its rounds. All of it can be lost.
#[derive(Default)]
pub struct Reporter {
    round: u64,
    /// Best block at the time of a report that the chain has not shown yet.
    reported_at: HashMap<Fid, u32>,
    /// Round in which neither a deal nor a stored file named what is held, for the first time in a row.
    orphan_since: HashMap<Fid, u64>,
}

impl Reporter {
    /// One round. Blocks on the chain and, where something is orphaned, on the disk.
    pub fn round(&mut self, miner: &Arc<Miner>) {
        self.round += 1;
        for fid in miner.store.fids() {
            if miner.is_stopped() {
                return;
            }
            let settled = miner.settled.lock().get(&fid).copied();
            if settled.is_some_and(|round| self.round < round + ROUNDS_BETWEEN_SETTLED_LOOKS) {
                continue;
            }
            match miner.deals.live(&fid) {
                Some(live) => {
                    self.orphan_since.remove(&fid);
                    self.report(miner, &fid, &live.deal);
                }
                None => self.conclude(miner, &fid),
            }
        }
    }

    fn report(&mut self, miner: &Miner, fid: &Fid, deal: &Deal) {
        let index = miner.spec.index;
        if deal.reported.iter().any(|(_, reporter)| *reporter == Some(index)) {
            self.reported_at.remove(fid);
            return;
        }
        let height = miner.deals.chain().height();
        if self
            .reported_at
            .get(fid)
            .is_some_and(|at| height < at.saturating_add(BLOCKS_FOR_A_REPORT))
        {
            return;
        }
        let Some(column) = whole_column(miner, fid, deal) else {
            return;
        };
        match miner.deals.chain().report(index, column, fid.as_str()) {
            Ok(()) => {
                debug!(miner = index, column, %fid, "reported");
                self.reported_at.insert(fid.clone(), height);
            }
            Err(error) => warn!(miner = index, column, %fid, error, "report refused"),
        }
    }

    /// The deal is gone: either the file is stored, or nobody wants it any more.
    fn conclude(&mut self, miner: &Miner, fid: &Fid) {
        self.reported_at.remove(fid);
        if miner.deals.chain().stored(fid.as_str(), miner.spec.index) {
            self.orphan_since.remove(fid);
            miner.settled.lock().insert(fid.clone(), self.round);
            return;
        }
        miner.settled.lock().remove(fid);
        let since = *self.orphan_since.entry(fid.clone()).or_insert(self.round);
        if self.round >= since + ROUNDS_BEFORE_ORPHANED {
            self.orphan_since.remove(fid);
            match miner.store.drop_file(fid) {
                Ok(fragments) => debug!(miner = miner.spec.index, %fid, fragments, "orphaned fragments deleted"),
                Err(error) => warn!(miner = miner.spec.index, %fid, %error, "orphaned fragments not deleted"),
            }
        }
    }
}

/// The lowest index (1..=12) that nobody reported and of which the miner holds the fragment of every segment.
fn whole_column(miner: &Miner, fid: &Fid, deal: &Deal) -> Option<u8> {
    if deal.segments.is_empty() {
        return None;
    }
    let held = miner.store.fragments(fid);
    let held: std::collections::HashSet<&str> = held.iter().map(|fragment| fragment.as_str()).collect();
    (1..=FRAGMENTS_PER_SEGMENT).find(|column| {
        let place = usize::from(*column) - 1;
        deal.reported.iter().all(|(reported, _)| reported != column)
            && deal
                .segments
                .iter()
                .all(|segment| held.contains(segment[place].as_str()))
    })
}
