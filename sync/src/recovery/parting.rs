//! Where a history that another machine goes on with leaves this one's: the last pack that both have.
//!
//! ```text
//! here       1 - 2 - 3 - 4 - 5
//!                     \
//! elsewhere            B+1 - B+2      3: what 4 and 5 carry is on the network, and on no path of the newer history
//! ```
//!
//! Of each newer epoch the lowest pack there is names the one before it, and so down to a pack of this ledger. Where the first
//! pack of an epoch was deleted already, nobody can tell any more; so the answer is to be kept once it is known.

use super::archive::record;
use super::survey::{Found, survey};
use crate::chain::Chain;
use crate::chunk_store::FetchError;
use crate::deltas::{Deltas, unavailable};
use crate::ledger::Ledger;
use cessfs_crypto::{LabelKey, PackSeq, VolumeId};
use std::collections::BTreeMap;

/// What it takes to find out.
pub(crate) struct Parting<'a> {
    pub(crate) chain: &'a dyn Chain,
    pub(crate) labels: &'a LabelKey,
    pub(crate) volume: VolumeId,
    pub(crate) deltas: &'a Deltas,
    pub(crate) ledger: &'a Ledger,
}

impl Parting<'_> {
    /// The last pack of this ledger that the newest epoch on the network builds upon.
    ///
    /// # Errors
    /// The chain or the miners do not answer; a pack on the way there is gone.
    pub(crate) async fn find(&self) -> Result<PackSeq, FetchError> {
        let own = self.ledger.epoch();
        let mut newer = BTreeMap::<PackSeq, Vec<Found>>::new();
        for found in self.listed().await? {
            if found.label.epoch > own {
                newer.entry(found.label.seq).or_default().push(found);
            }
        }
        let newest = newer.values().flatten().map(|found| found.label.epoch).max();
        let mut epochs = newer.iter().filter(|(_, found)| newest == Some(found[0].label.epoch));
        let Some((&first, _)) = epochs.next() else {
            let told = "no pack of the machine that took the volume over is listed";
            return Err(FetchError::Unavailable(told.into()));
        };
        let mut at = first;
        while let Some(found) = newer.remove(&at) {
            let previous = self.previous(found).await?;
            if let Some(pack) = self.ledger.get(previous)
                && pack.epoch <= own
                && !pack.beside
            {
                return Ok(previous);
            }
            // The lowest of that epoch: those in between do not matter.
            let epoch = newer.get(&previous).map(|found| found[0].label.epoch);
            let mut lower = newer.iter().filter(|(_, found)| epoch == Some(found[0].label.epoch));
            at = lower.next().map_or(previous, |(&seq, _)| seq.min(previous));
        }
        Err(unavailable(
            at,
            "the newer history builds upon it, and it is neither here nor listed",
        ))
    }

    async fn listed(&self) -> Result<Vec<Found>, FetchError> {
        let survey = survey(self.chain, self.labels, &|_| ()).await;
        let mut survey = survey.map_err(|error| FetchError::Unavailable(error.to_string()))?;
        Ok(survey.take(self.volume))
    }

    /// The pack before this one. Files under a copied label do not open.
    async fn previous(&self, files: Vec<Found>) -> Result<PackSeq, FetchError> {
        let mut failed = None;
        for found in files {
            match self.deltas.footer(&record(&found)?).await {
                Ok(footer) => return Ok(footer.previous),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(FetchError::Unknown))
    }
}
