//! Placing -> Stored: twelve columns in parallel, until the chain says that the file exists.

use super::Pipeline;
use super::backoff::Backoff;
use super::reconcile::OnChain;
use crate::chain::Deal;
use crate::ledger::{Blocked, Durable, Intent, PackRecord, PackState};
use crate::limits::{CHAIN_POLL_MAX, CHAIN_POLL_MIN, COLUMNS};
use crate::watched::Watched;
use cessfs_crypto::{AccountId, PackSeq};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::OwnedSemaphorePermit;

/// What the columns of one pack share while it is being placed.
pub(super) struct Placement {
    pub(super) pack: Arc<PackRecord>,
    /// Which columns the chain has a report for.
    pub(super) reported: Watched<[bool; COLUMNS]>,
    /// Miners that failed this pack; asked again only when nobody else is left. Also the lock under which one is chosen.
    pub(super) shunned: tokio::sync::Mutex<HashSet<AccountId>>,
    /// Height of the last finalized block whose reports are in `reported`; 0: none was looked at.
    pub(super) looked_at: AtomicU32,
    /// Why the staged body could not be read, if so.
    pub(super) unreadable: OnceLock<Blocked>,
}

impl Pipeline {
    /// Runs the columns and watches the deal; the watch alone decides when this is over, and what is still being sent then
    /// is dropped.
    pub(super) async fn place(
        &self,
        pack: &Arc<PackRecord>,
        slot: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), Blocked> {
        // Nobody takes anything for a deal that is not ours.
        if let Err(taken @ Blocked::Taken(_)) = self.reconcile(pack).await {
            return Err(taken);
        }
        let placement = Placement {
            pack: pack.clone(),
            reported: Watched::new([false; COLUMNS]),
            shunned: tokio::sync::Mutex::default(),
            looked_at: AtomicU32::default(),
            unreadable: OnceLock::new(),
        };
        let columns = async {
            let mut columns: FuturesUnordered<_> = (0..COLUMNS as u8)
                .map(|column| self.column(&placement, column))
                .collect();
            while columns.next().await.is_some() {}
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            outcome = self.watch_deal(&placement, slot) => outcome,
            () = columns => unreachable!("the columns never end by themselves"),
        }
    }

    async fn watch_deal(&self, placement: &Placement, slot: &mut Option<OwnedSemaphorePermit>) -> Result<(), Blocked> {
        let seq = placement.pack.seq;
        let mut wait = Backoff::new(CHAIN_POLL_MIN, CHAIN_POLL_MAX);
        loop {
            match self.reconcile(&placement.pack).await {
                Ok(OnChain::File(file)) => return self.enter_stored(&placement.pack, &file).await,
                Ok(OnChain::Deal { deal, height }) => {
                    if self.book_reports(placement, &deal).await? {
                        wait.reset();
                    }
                    // After the reports: who waits for one by this height has seen those that were there.
                    placement.looked_at.store(height, Ordering::Release);
                }
                Ok(OnChain::Nothing { height }) => return self.deal_gone(seq, height).await,
                Err(taken @ Blocked::Taken(_)) => return Err(taken),
                // The columns go on: miners may well be reachable while the RPC is not.
                Err(reason) => self.block(seq, reason),
            }
            if let Some(lost) = placement.unreadable.get() {
                return Err(lost.clone());
            }
            let record = self
                .ledger
                .get(seq)
                .expect("a pack stays in the ledger while it is driven");
            if record.columns.iter().all(|column| column.delivered) && slot.take().is_some() {
                // All bytes are with miners: the next pack may send, and the reports are near.
                wait.reset();
            }
            self.pause(wait.next(&self.dice)).await;
        }
    }

    /// True if there are reports that were not known.
    async fn book_reports(&self, placement: &Placement, deal: &Deal) -> Result<bool, Blocked> {
        let mut reported = [false; COLUMNS];
        for (column, _) in &deal.reported {
            if let Some(flag) = reported.get_mut(usize::from(*column)) {
                *flag = true;
                self.progress.change(placement.pack.seq, *column, |progress| {
                    progress.reported = true;
                    progress.trouble = None;
                });
            }
        }
        self.enter_placing(&placement.pack, deal).await?;
        Ok(placement.reported.change(|known| {
            let news = *known != reported;
            *known = reported;
            news
        }))
    }

    /// The deal is no more and no file came of it: the territory expired under it (facts 1.5), or this RPC lags. Back to
    /// Declaring, with the intent moved to now: it is declared again only when nothing can be on its way any more.
    async fn deal_gone(&self, seq: PackSeq, height: u32) -> Result<(), Blocked> {
        self.advance(seq, Durable::Now, move |pack| {
            pack.state = PackState::Declaring;
            let before = pack.intent.unwrap_or(Intent { height, attempt: 0 });
            pack.intent = Some(Intent {
                height: before.height.max(height),
                ..before
            });
        })
        .await?;
        self.quiet.lock().insert(seq);
        Ok(())
    }
}
