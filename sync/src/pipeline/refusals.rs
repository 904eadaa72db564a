//! Calls that the chain refused. One that was in a block has cost its fee, so what was refused is asked for again less and less often,
//! from [`CALL_RETRY_MIN`] to [`CALL_RETRY_MAX`] apart; what else goes on between two attempts costs nothing. Whoever pokes the pipeline has
//! done something about it, and starts anew.
//!
//! A paused call is refused to every pack, another refusal is one pack's own. A lack of funds is no matter of this: it is refused before
//! it costs anything.

use crate::chain::ChainError;
use crate::ledger::Blocked;
use crate::limits::{CALL_RETRY_MAX, CALL_RETRY_MIN};
use cessfs_crypto::PackSeq;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Call {
    Declare,
    Delete,
}

struct Refusal {
    reason: Blocked,
    pause: Duration,
    until: Duration,
}

/// By call and pack; `None`: every pack.
#[derive(Default)]
pub(super) struct Refusals(Mutex<BTreeMap<(Call, Option<PackSeq>), Refusal>>);

impl Refusals {
    /// The call may be made now; or why it was refused last.
    pub(super) fn check(&self, call: Call, seq: PackSeq, now: Duration) -> Result<(), Blocked> {
        let refusals = self.0.lock();
        let of = |of| refusals.get(&(call, of)).filter(|refusal| now < refusal.until);
        match of(None).or_else(|| of(Some(seq))) {
            Some(refusal) => Err(refusal.reason.clone()),
            None => Ok(()),
        }
    }

    /// What came of it.
    pub(super) fn note(&self, call: Call, seq: PackSeq, now: Duration, answer: &Result<(), ChainError>) {
        let mut refusals = self.0.lock();
        let of = match answer {
            Ok(()) => {
                refusals.remove(&(call, None));
                refusals.remove(&(call, Some(seq)));
                return;
            }
            Err(ChainError::Away(_) | ChainError::NoFunds(_) | ChainError::Shape(_)) => return,
            Err(ChainError::Paused(_)) => None,
            Err(_) => Some(seq),
        };
        let before = refusals.get(&(call, of)).map(|refusal| refusal.pause);
        let pause = before.map_or(CALL_RETRY_MIN, |before| (before * 2).min(CALL_RETRY_MAX));
        if let Err(error) = answer {
            let refusal = Refusal {
                reason: error.clone().into(),
                pause,
                until: now + pause,
            };
            refusals.insert((call, of), refusal);
        }
    }

    /// This pack asks for nothing any more.
    pub(super) fn forget(&self, seq: PackSeq) {
        self.0.lock().retain(|(_, of), _| *of != Some(seq));
    }

    /// Everything may be asked for again.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PackSeq = PackSeq(1);
    const TWO: PackSeq = PackSeq(2);

    #[test]
    fn what_was_refused_is_asked_for_less_and_less_often() {
        let refusals = Refusals::default();
        let paused = Err(ChainError::Paused("for a day".into()));
        let (mut now, mut calls) = (Duration::ZERO, 0);
        while now < CALL_RETRY_MAX * 24 {
            if refusals.check(Call::Declare, ONE, now).is_ok() {
                refusals.note(Call::Declare, ONE, now, &paused);
                calls += 1;
            }
            now += Duration::from_secs(1);
        }
        assert!((24..=36).contains(&calls), "{calls} fees in a day");
        let waits = refusals.check(Call::Declare, TWO, now);
        assert!(matches!(waits, Err(Blocked::CallPaused(_))), "it is paused for all");
        assert!(refusals.check(Call::Delete, ONE, now).is_ok(), "another call");
        refusals.note(Call::Declare, ONE, now, &Ok(()));
        assert!(refusals.check(Call::Declare, TWO, now).is_ok());
    }

    #[test]
    fn a_refusal_is_its_packs_own_until_somebody_pokes() {
        let (refusals, now) = (Refusals::default(), Duration::ZERO);
        refusals.note(Call::Delete, ONE, now, &Err(ChainError::Refused("no".into())));
        assert!(refusals.check(Call::Delete, ONE, now).is_err() && refusals.check(Call::Delete, TWO, now).is_ok());
        refusals.clear();
        assert!(refusals.check(Call::Delete, ONE, now).is_ok());
        for error in [ChainError::Away("x".into()), ChainError::NoFunds("x".into())] {
            refusals.note(Call::Delete, ONE, now, &Err(error));
            assert!(refusals.check(Call::Delete, ONE, now).is_ok(), "nothing was paid");
        }
    }
}
