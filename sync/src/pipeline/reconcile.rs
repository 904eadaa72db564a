//! What the chain says about a pack. It wins over whatever the journal hoped for.

use super::Pipeline;
use crate::chain::{ChainError, Deal, Head, StoredFile};
use crate::fragment_store::Fid;
use crate::ledger::{Blocked, Column, Durable, PackRecord, PackState};
use crate::limits::HEIGHT_AHEAD_MAX;
use std::sync::atomic::Ordering;

/// A fid at a finalized head.
pub(super) enum OnChain {
    /// Stored, and ours.
    File(StoredFile),
    /// Declared, and ours, at a head that is at least this high.
    Deal { deal: Deal, height: u32 },
    /// Neither, at a head that is at least this high.
    Nothing {
        /// Finalized height read before file and deal were.
        height: u32,
    },
}

/// What stands under the id and makes no sense is somebody else's: nothing is refused to who only asks.
pub(super) fn foreign(error: ChainError) -> Blocked {
    match error {
        ChainError::Refused(why) => Blocked::Taken(why),
        other => other.into(),
    }
}

/// One of two finalized heights was a mistake: nobody lags so far behind for long.
pub(crate) fn is_far_above(known: u32, now: u32) -> bool {
    known > now.saturating_add(HEIGHT_AHEAD_MAX)
}

impl Pipeline {
    /// Takes in how far finality is. The chain's client takes nothing lower for final than what it knows, but for a height that it forgot
    /// as a mistake: what the records have of that is forgotten, too, or the next run would begin with it.
    fn hear_final(&self, height: u32) -> Result<(), Blocked> {
        let known = self.final_height.fetch_max(height, Ordering::Relaxed);
        if is_far_above(known, height) {
            self.final_height.store(height, Ordering::Relaxed);
            let lowered = self.ledger.lower_heights(height);
            return lowered.map_err(|error| Blocked::Journal(error.to_string()));
        }
        Ok(())
    }

    /// Asks for height, file and deal, in this order, so that "nothing" holds at the height given or later.
    pub(super) async fn reconcile(&self, pack: &PackRecord) -> Result<OnChain, Blocked> {
        let fid = pack.encoded().fid;
        let height = self.chain.height(Head::Finalized).await?;
        self.hear_final(height)?;
        if let Some(file) = self.our_file(pack, fid).await? {
            return Ok(OnChain::File(file));
        }
        if let Some(deal) = self.chain.deal(fid, Head::Finalized).await.map_err(foreign)? {
            let ours = deal.owner == self.chain.account() && deal.segments == pack.encoded().segments;
            return match ours {
                true => Ok(OnChain::Deal { deal, height }),
                false => Err(Blocked::Taken(format!("a deal, fid {}", hex::encode(fid.0)))),
            };
        }
        // The deal may have become a file between the two questions.
        Ok(match self.our_file(pack, fid).await? {
            Some(file) => OnChain::File(file),
            None => OnChain::Nothing { height },
        })
    }

    async fn our_file(&self, pack: &PackRecord, fid: Fid) -> Result<Option<StoredFile>, Blocked> {
        let Some(file) = self.chain.file(fid, Head::Finalized).await.map_err(foreign)? else {
            return Ok(None);
        };
        let account = self.chain.account();
        let owned = file.owners.iter().any(|(owner, _, _)| *owner == account);
        let same = file
            .segments
            .iter()
            .map(|(hashes, _)| hashes)
            .eq(&pack.encoded().segments);
        match owned && same {
            true => Ok(Some(file)),
            false => Err(Blocked::Taken(format!("a file, fid {}", hex::encode(fid.0)))),
        }
    }

    /// -> Stored: who holds what is what the chain says, even where it names a miner twice (I8): a pack is not Confirmed so.
    pub(super) async fn enter_stored(&self, pack: &PackRecord, file: &StoredFile) -> Result<(), Blocked> {
        let (_, holders) = file
            .segments
            .first()
            .expect("compared with our segments, of which there is one");
        let columns = holders.map(|miner| Column {
            miner: Some(miner),
            delivered: true,
        });
        // The file is final since then at the least: what a later run goes by.
        let height = self.final_height.load(Ordering::Relaxed);
        self.advance(pack.seq, Durable::Eventually, move |pack| {
            pack.columns = columns;
            pack.state = PackState::Stored;
            if let Some(intent) = &mut pack.intent {
                intent.height = intent.height.max(height);
            }
        })
        .await?;
        Ok(())
    }

    /// Takes the deal's reports into the record; Placing from here on.
    pub(super) async fn enter_placing(&self, pack: &PackRecord, deal: &Deal) -> Result<(), Blocked> {
        let reported = deal.reported.clone();
        self.advance(pack.seq, Durable::Eventually, move |pack| {
            pack.state = PackState::Placing;
            for (column, miner) in reported {
                // A miner counts for one column only; wherever else it was tried, another has to take its place.
                for other in pack.columns.iter_mut().filter(|other| other.miner == Some(miner)) {
                    *other = Column::default();
                }
                if let Some(column) = pack.columns.get_mut(usize::from(column)) {
                    *column = Column {
                        miner: Some(miner),
                        delivered: true,
                    };
                }
            }
        })
        .await?;
        Ok(())
    }
}
