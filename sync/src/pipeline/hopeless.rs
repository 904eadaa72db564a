//! What waiting cannot mend: somebody else's declaration under a pack's id, a staged body that cannot be read, or a declaration that was
//! noted at a height that a node made up, so that it is not known when it is void.
//!
//! Such a pack can never be placed, and a checkpoint after it would wait for it for ever. What lives in it is still in the cache (I1), or
//! in the body as far as that can be read. So after the time that miners have to give a new pack back (`repair.read_back`) it is
//! Doubted: its content goes into another pack, under another id ([`Upkeep::replace`](crate::upkeep)). A lack of territory, money or
//! miners and a chain that is away are waited out, however long they last.

use super::Pipeline;
use crate::ledger::{Blocked, PackState};
use cessfs_crypto::PackSeq;
use std::time::Duration;

/// Since when a pack meets what waiting cannot mend, in this run.
#[derive(Default)]
pub(super) struct Hopeless(Option<Duration>);

impl Hopeless {
    /// The pack went on.
    pub(super) fn reset(&mut self) {
        self.0 = None;
    }
}

/// Waiting does not mend it.
fn is_hopeless(reason: &Blocked) -> bool {
    matches!(reason, Blocked::Taken(_) | Blocked::Staging(_) | Blocked::Astray { .. })
}

impl Pipeline {
    /// A step of this pack failed: -> Doubted if that is for good.
    pub(super) async fn failed(&self, seq: PackSeq, reason: Blocked, hopeless: &mut Hopeless) {
        let now = self.clock.monotonic();
        let give_up = is_hopeless(&reason) && {
            let since = *hopeless.0.get_or_insert(now);
            now.saturating_sub(since) >= self.read_back
        };
        let state = self.ledger.get(seq).map(|pack| pack.state);
        if !give_up || state.is_none_or(|state| state > PackState::Stored) {
            return self.block(seq, reason);
        }
        if let Err(error) = self.doubt(seq, reason.to_string()).await {
            return self.block(seq, error);
        }
        if let Blocked::Astray { now, .. } = reason
            && let Err(error) = self.ledger.lower_heights(now)
        {
            self.errors.push(format!("pack {}: {error}", seq.0));
        }
    }
}
