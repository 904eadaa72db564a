//! The fence: a writer that was recovered from sends nothing more (I10).
//!
//! A recovery starts a new epoch, and its first pack shows it in the account's list to whoever can open labels. So before each
//! declaration the list is read, and files not seen before are asked for their labels. Looking and declaring are two steps:
//! one pack may still slip through between them, and is then seen to be beside the history by whoever recovers.

use super::Pipeline;
use crate::chain::{ChainError, Head};
use crate::fragment_store::Fid;
use crate::ledger::Blocked;
use crate::limits::SURVEYS_IN_FLIGHT;
use crate::rules::{Rule, holds};
use futures::StreamExt;

impl Pipeline {
    pub(super) async fn check_fence(&self) -> Result<(), Blocked> {
        if !holds(Rule::Fence) {
            return Ok(());
        }
        if let Some(epoch) = self.ledger.fenced() {
            return Err(Blocked::Fenced { epoch });
        }
        let listed = self.chain.files().await?;
        let own: Vec<Fid> = {
            let packs = self.ledger.all();
            packs
                .iter()
                .filter_map(|pack| Some(pack.encoded.as_ref()?.fid))
                .collect()
        };
        let fresh: Vec<Fid> = {
            let mut known = self.known_files.lock();
            known.extend(own);
            listed.into_iter().filter(|fid| !known.contains(fid)).collect()
        };
        let questions = fresh
            .into_iter()
            .map(|fid| async move { (fid, self.epoch_of(fid).await) });
        let mut asked = futures::stream::iter(questions).buffer_unordered(SURVEYS_IN_FLIGHT);
        while let Some((fid, epoch)) = asked.next().await {
            match epoch? {
                Some(epoch) if epoch > self.ledger.epoch() => return Err(self.fenced(epoch)),
                _ => self.known_files.lock().insert(fid),
            };
        }
        Ok(())
    }

    /// From now on nothing is sent, and whoever changes files is told so.
    fn fenced(&self, epoch: u32) -> Blocked {
        match self.ledger.fence(epoch) {
            Ok(()) => Blocked::Fenced { epoch },
            Err(error) => Blocked::Journal(error.to_string()),
        }
    }

    /// The epoch of a pack of this volume; `None` if the file is none.
    async fn epoch_of(&self, fid: Fid) -> Result<Option<u32>, ChainError> {
        let file = match self.chain.file(fid, Head::Finalized).await {
            Ok(file) => file,
            // No file that cessfs made.
            Err(ChainError::Refused(_)) => None,
            Err(error) => return Err(error),
        };
        let account = self.chain.account();
        let owners = file.map(|file| file.owners).unwrap_or_default();
        let own = owners.iter().filter(|(owner, _, _)| *owner == account);
        let mut labels = own.filter_map(|(_, name, _)| self.builder.labels.open(name));
        let ours = labels.find(|label| label.volume == self.builder.keys.volume());
        Ok(ours.map(|label| label.epoch))
    }
}
