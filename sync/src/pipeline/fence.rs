//! The fence: a writer that was recovered from sends nothing more (I10), and neither does one of two copies of a volume.
//!
//! A recovery starts a new epoch, and its first pack shows it in the account's list to whoever can open labels. So before each
//! declaration the list is read, and files not seen before are asked for their labels. Looking and declaring are two steps:
//! one pack may still slip through between them, and is then seen to be beside the history by whoever recovers.
//!
//! A label of this writer's own epoch on a file that its ledger does not know was sealed by a copy of it: a directory that was put
//! back from a backup, a clone, or a second recovery that could not see the first (`docs/decisions/0025-forks.md`).
//!
//! | its number | |
//! |---|---|
//! | of no pack that was sealed here: above all of them, or taken and thrown away in this run | a fork |
//! | that of a pack whose name never left this machine | a fork |
//! | that of a pack that was declared | nothing: the name may be copied. If it is a fork, the next number shows it |
//! | of another recovery's range, below | a fork, while nothing of this epoch was declared here; later it is the other one that ends |
//! | below, and in no record | nothing: the pack was deleted and forgotten, and this node is late |

use super::Pipeline;
use crate::chain::{ChainError, Head};
use crate::fragment_store::Fid;
use crate::ledger::{Blocked, PackRecord, PackState};
use crate::limits::{EPOCH_SEQS, SURVEYS_IN_FLIGHT};
use crate::rules::{Rule, holds};
use cessfs_crypto::{PackLabel, PackSeq};
use futures::StreamExt;

/// Whose a listed file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kin {
    /// Nobody's who stands in the way of this writer.
    Harmless,
    /// Not known yet: to be asked again.
    Unclear,
    /// A writer's who recovered the volume.
    Newer(u32),
    /// A copy's of this writer.
    Fork,
    /// That of the machine which this volume was recovered from, and not in what was recovered.
    Late(PackSeq),
}

/// What the chain says of a listed file.
enum Named {
    /// The node that was asked does not have it (any more, or yet).
    Absent,
    /// It is none of this volume.
    Foreign,
    Pack(PackLabel),
}

impl Pipeline {
    pub(super) async fn check_fence(&self) -> Result<(), Blocked> {
        if !holds(Rule::Fence) {
            return Ok(());
        }
        if let Some(epoch) = self.ledger.fenced() {
            return Err(self.is_fenced_by(epoch));
        }
        let listed = self.chain.files().await?;
        // Read after the list: of whatever this writer has in the list, the ledger knew before it was sent.
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
        let questions = fresh.into_iter().map(|fid| async move { (fid, self.named(fid).await) });
        let mut asked = futures::stream::iter(questions).buffer_unordered(SURVEYS_IN_FLIGHT);
        let mut late = Vec::new();
        while let Some((fid, named)) = asked.next().await {
            let kin = match named? {
                Named::Absent => Kin::Unclear,
                Named::Foreign => Kin::Harmless,
                Named::Pack(label) => self.kin(&label),
            };
            match kin {
                Kin::Newer(epoch) => return Err(self.fenced(epoch)),
                Kin::Fork => return Err(self.fenced(self.ledger.epoch())),
                Kin::Unclear => {}
                Kin::Harmless => drop(self.known_files.lock().insert(fid)),
                Kin::Late(seq) => {
                    self.known_files.lock().insert(fid);
                    late.push(seq);
                }
            }
        }
        self.tell_late(&late);
        Ok(())
    }

    /// Whoever uses both machines has to know: what these packs carry is in no tree from here on.
    fn tell_late(&self, late: &[PackSeq]) {
        if let Some(newest) = late.iter().max() {
            self.errors.push(format!(
                "what the machine that this volume was recovered from has in packs up to {} is not in what was recovered: it was sent \
                 since then, or could not be read. `cessfs unsent` on that machine lists the paths; `cessfs recover --list` and \
                 `--at` find them",
                newest.0
            ));
        }
    }

    /// Whose a pack is that this ledger does not know by its file: see the room's head.
    fn kin(&self, label: &PackLabel) -> Kin {
        let epoch = self.ledger.epoch();
        if label.epoch != epoch {
            return match label.epoch > epoch {
                true => Kin::Newer(label.epoch),
                false if self.is_late(label) => Kin::Late(label.seq),
                false => Kin::Harmless,
            };
        }
        // The open pack may have taken it: nobody knows that outside.
        if self.ledger.is_unused(label.seq) {
            return Kin::Fork;
        }
        let last = self.ledger.last_seq();
        let is_fork = match self.ledger.get(label.seq) {
            Some(pack) if pack.encoded.is_none() => return Kin::Unclear,
            Some(pack) => !is_named_outside(&pack),
            None => {
                let own = |pack: &PackRecord| pack.epoch == epoch && is_named_outside(pack);
                range(label.seq) != range(last) && !self.ledger.all().iter().any(|pack| own(pack))
            }
        };
        match is_fork {
            true => Kin::Fork,
            false => Kin::Harmless,
        }
    }

    /// A pack of an older epoch that the recovery did not see, looked at before anything of this epoch is on the network. Later the
    /// older machine knows, and sends no more.
    fn is_late(&self, label: &PackLabel) -> bool {
        let packs = self.ledger.all();
        let epoch = self.ledger.epoch();
        let began = |pack: &PackRecord| pack.epoch == epoch && pack.state >= PackState::Confirmed;
        let known = |pack: &PackRecord| pack.epoch == label.epoch && pack.seq >= label.seq;
        !packs.iter().any(|pack| began(pack) || known(pack))
    }

    /// From now on nothing is sent, and whoever changes files is told so.
    fn fenced(&self, epoch: u32) -> Blocked {
        match self.ledger.fence(epoch) {
            Ok(()) => self.is_fenced_by(epoch),
            Err(error) => Blocked::Journal(error.to_string()),
        }
    }

    fn is_fenced_by(&self, epoch: u32) -> Blocked {
        match self.ledger.is_forked() {
            true => Blocked::Forked,
            false => Blocked::Fenced { epoch },
        }
    }

    /// What a listed file is called.
    async fn named(&self, fid: Fid) -> Result<Named, ChainError> {
        let file = match self.chain.file(fid, Head::Finalized).await {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(Named::Absent),
            // No file that cessfs made.
            Err(ChainError::Refused(_)) => return Ok(Named::Foreign),
            Err(error) => return Err(error),
        };
        let account = self.chain.account();
        let own = file.owners.iter().filter(|(owner, _, _)| *owner == account);
        let mut labels = own.filter_map(|(_, name, _)| self.builder.labels.open(name));
        let ours = labels.find(|label| label.volume == self.builder.keys.volume());
        Ok(ours.map_or(Named::Foreign, Named::Pack))
    }
}

/// The pack's name may be known outside: it was declared, or is about to be.
fn is_named_outside(pack: &PackRecord) -> bool {
    pack.intent.is_some() || pack.state >= PackState::Placing
}

/// Which of the ranges a number is in that recoveries begin with.
fn range(seq: PackSeq) -> u64 {
    seq.0.saturating_sub(1) / EPOCH_SEQS
}
