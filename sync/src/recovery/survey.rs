//! The account's files on the chain, and which of them are packs of this phrase.

use super::{Step, Tell};
use crate::chain::{Chain, ChainError, Head, StoredFile};
use crate::fragment_store::Fid;
use crate::limits::{CHAIN_NAME_CHARS_MAX, SURVEYS_IN_FLIGHT};
use crate::printable::printable;
use cessfs_crypto::{LabelKey, PackLabel, VolumeId};
use futures::StreamExt;
use std::collections::BTreeMap;

/// A file whose label opens. Whether it is the pack it says to be only its footer can tell.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file.
    pub fid: Fid,
    /// What its name hides.
    pub label: PackLabel,
    /// The name as it stands on the chain.
    pub name: String,
    /// The territory it is charged to.
    pub territory: String,
    /// Hashes and holders.
    pub file: StoredFile,
}

/// What an account holds.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Packs by volume, in no order.
    pub volumes: BTreeMap<[u8; 16], Vec<Found>>,
    /// Files that are not packs of this phrase.
    pub foreign: usize,
}

impl Survey {
    /// Packs of one volume.
    pub fn take(&mut self, volume: VolumeId) -> Vec<Found> {
        self.volumes.remove(&volume.0).unwrap_or_default()
    }
}

/// Lists the chain's account and opens the labels.
///
/// # Errors
/// The chain does not answer, or is not one cessfs knows.
pub async fn survey(chain: &dyn Chain, labels: &LabelKey, tell: Tell<'_>) -> Result<Survey, ChainError> {
    let account = chain.account();
    let fids = chain.files().await?;
    let total = fids.len();
    let mut survey = Survey::default();
    let mut asked = 0;
    let mut files = futures::stream::iter(fids)
        .map(|fid| async move { (fid, chain.file(fid, Head::Finalized).await) })
        .buffer_unordered(SURVEYS_IN_FLIGHT);
    while let Some((fid, answer)) = files.next().await {
        asked += 1;
        tell(Step::Files(asked, total));
        let file = match answer {
            Ok(Some(file)) => file,
            // Deleted since it was listed.
            Ok(None) => continue,
            // No file that cessfs made.
            Err(ChainError::Refused(_)) => {
                survey.foreign += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        let own = file.owners.iter().filter(|(owner, _, _)| *owner == account);
        let mut own = own.filter_map(|(_, name, territory)| Some((labels.open(name)?, name, territory)));
        let Some((label, name, territory)) = own.next() else {
            survey.foreign += 1;
            continue;
        };
        let found = Found {
            fid,
            label,
            name: String::from_utf8_lossy(name).into_owned(),
            territory: printable(&String::from_utf8_lossy(territory), CHAIN_NAME_CHARS_MAX),
            file,
        };
        survey.volumes.entry(label.volume.0).or_default().push(found);
    }
    Ok(survey)
}
