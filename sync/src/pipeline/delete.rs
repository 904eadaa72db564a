//! Deleting -> Gone: the account gives a file back to the chain, which refunds its space.
//!
//! A deletion may be asked for twice, unlike a declaration: the second finds nothing. What must not happen is that a writer
//! deletes what another one needs, so the fence is looked at first (I10), and that a file goes which is not this pack.

use super::Pipeline;
use super::refusals::Call;
use crate::chain::{ChainError, Head};
use crate::ledger::{Blocked, Durable, PackRecord, PackState};
use cessfs_crypto::PackSeq;

impl Pipeline {
    /// Takes a Deleting pack from the chain. `Ok`: it is Gone, at a finalized head.
    pub(crate) async fn delete(&self, seq: PackSeq) -> Result<(), Blocked> {
        let pack = self.ledger.get(seq).expect("only packs of the ledger are deleted");
        assert_eq!(
            pack.state,
            PackState::Deleting,
            "I4: the intent is in the journal first"
        );
        if self.holds(&pack).await? {
            let now = self.clock.monotonic();
            self.refusals.check(Call::Delete, seq, now)?;
            self.check_fence().await?;
            let answer = self.chain.delete(pack.encoded().fid).await;
            let now = self.clock.monotonic();
            self.refusals.note(Call::Delete, seq, now, &answer);
            // Gone is gone: an earlier deletion, whose answer was lost, may have come before this one, which then found nothing.
            if self.holds(&pack).await? {
                answer?;
                return Err(Blocked::ChainAway("the deletion is not final yet".into()));
            }
        }
        self.refusals.forget(seq);
        self.advance(seq, Durable::Now, |pack| pack.state = PackState::Gone)
            .await?;
        // A snapshot may have kept it.
        self.remove_body(seq).await;
        Ok(())
    }

    /// Whether the account holds the file at a finalized head.
    async fn holds(&self, pack: &PackRecord) -> Result<bool, Blocked> {
        let Some(encoded) = &pack.encoded else {
            return Ok(false);
        };
        let fid = encoded.fid;
        let file = match self.chain.file(fid, Head::Finalized).await {
            // Somebody else's, who declared it when ours was gone: it makes no sense.
            Err(ChainError::Refused(_)) | Ok(None) => return Ok(false),
            Err(error) => return Err(error.into()),
            Ok(Some(file)) => file,
        };
        let account = self.chain.account();
        if !file.owners.iter().any(|(owner, _, _)| *owner == account) {
            return Ok(false);
        }
        let hashes = file.segments.iter().map(|(hashes, _)| hashes);
        match hashes.eq(&encoded.segments) {
            true => Ok(true),
            false => Err(Blocked::Refused(format!(
                "the file under fid {} is not this pack",
                hex::encode(fid.0)
            ))),
        }
    }
}
