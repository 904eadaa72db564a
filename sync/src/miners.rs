//! The miners as this process knows them: where they are, how they have behaved, whom to ask first.
//!
//! Every request to a miner goes through here, so that each one has a deadline and counts towards the miner's reputation.
//! Reputation is kept in memory only: it orders choices, and never excludes a miner for good. One that did not give back what it
//! had reported is given nothing for a while.

mod addresses;
mod latency;

pub(crate) use addresses::Addresses;

use crate::chain::{Chain, ChainError, Miner};
use crate::clock::Clock;
use crate::dice::Dice;
use crate::fragment_store::{Fid, FragmentBody, FragmentStore, MinerError, Sha256Hash};
use crate::limits::{
    DISTRUST, EXPLORE_ONE_IN, GET_DEADLINE, LATENCY_BYTES_MIN, MINERS_REFRESH_MIN, PROBE_DEADLINE, PROBES_IN_FLIGHT,
    PUT_BEGIN_TIMEOUT, PUT_STALL_TIMEOUT, TRIAL_INTERVAL, WITNESSES_MAX, fragment_bytes,
};
use crate::stages;
use bytes::Bytes;
use cessfs_crypto::AccountId;
use futures::StreamExt;
use latency::Latencies;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// What is remembered of a miner.
#[derive(Clone, Copy, Default, Debug)]
struct Reputation {
    /// Smoothed time of a ranged GET; `None` before the first.
    latency: Option<Duration>,
    /// Failures since the last success.
    failures: u32,
    /// The last ranged GET took longer than one may, or was given up after that time.
    slow: bool,
    /// When it was last tried, while slow or failing (monotonic).
    tried_at: Option<Duration>,
    /// A trial is on its way.
    on_trial: bool,
    /// Until then it is given nothing new (monotonic).
    distrusted_until: Option<Duration>,
}

#[derive(Default)]
struct State {
    known: HashMap<AccountId, Miner>,
    asked_at: Option<Duration>,
    reputations: HashMap<AccountId, Reputation>,
    latencies: Latencies,
}

pub(crate) struct Miners {
    chain: Arc<dyn Chain>,
    fragments: Arc<dyn FragmentStore>,
    clock: Arc<dyn Clock>,
    dice: Dice,
    /// `None`: nothing is remembered over restarts.
    addresses: Option<Addresses>,
    state: Mutex<State>,
    /// Held while the chain is asked, so that many readers of a lost miner ask once. When it failed last (monotonic), and how.
    asking: tokio::sync::Mutex<Option<(Duration, ChainError)>>,
}

impl Miners {
    pub(crate) fn new(
        chain: Arc<dyn Chain>,
        fragments: Arc<dyn FragmentStore>,
        clock: Arc<dyn Clock>,
        dice: Dice,
        addresses: Option<Addresses>,
    ) -> Miners {
        Miners {
            chain,
            fragments,
            clock,
            dice,
            addresses,
            state: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// Asks the chain for the miners, at most once per [`MINERS_REFRESH_MIN`]. An answer that fails leaves the old list, and is that of all
    /// who waited for it: asking once for each of them, one after the other, would keep the last ones waiting for minutes.
    async fn refresh(&self) -> Result<(), ChainError> {
        let came = self.clock.monotonic();
        let mut failed = self.asking.lock().await;
        if let Some((_, error)) = failed.as_ref().filter(|(asked_at, _)| *asked_at >= came) {
            return Err(error.clone());
        }
        let now = self.clock.monotonic();
        let asked_at = self.state.lock().asked_at;
        if asked_at.is_some_and(|at| now.saturating_sub(at) < MINERS_REFRESH_MIN) {
            return Ok(());
        }
        let miners = match self.chain.miners().await {
            Ok(miners) => miners,
            Err(error) => {
                *failed = Some((self.clock.monotonic(), error.clone()));
                return Err(error);
            }
        };
        let mut state = self.state.lock();
        state.known = miners.into_iter().map(|miner| (miner.account, miner)).collect();
        state.asked_at = Some(now);
        let State { known, reputations, .. } = &mut *state;
        reputations.retain(|account, _| known.contains_key(account));
        Ok(())
    }

    /// Brings the list of miners up to date.
    pub(crate) async fn look(&self) -> Result<(), ChainError> {
        self.refresh().await
    }

    /// The chain says that it leaves, or does not list it any more. Only after a [`look`](Miners::look).
    pub(crate) fn leaves(&self, account: AccountId) -> bool {
        self.state.lock().known.get(&account).is_none_or(|miner| miner.leaving)
    }

    /// The network's own audit has found it wanting lately, as far as known.
    pub(crate) fn failed_audit(&self, account: AccountId) -> bool {
        self.state
            .lock()
            .known
            .get(&account)
            .is_some_and(|miner| miner.failed_audits > 0)
    }

    /// Where a miner is, as far as known, without asking anybody.
    pub(crate) fn known_endpoint(&self, account: AccountId) -> Option<String> {
        let state = self.state.lock();
        state.known.get(&account).map(|miner| miner.endpoint.clone())
    }

    async fn endpoint(&self, account: AccountId) -> Result<String, MinerError> {
        if let Some(endpoint) = self.told_endpoint(account).or_else(|| self.earlier_endpoint(account)) {
            return Ok(endpoint);
        }
        let asked = self.refresh().await;
        self.told_endpoint(account).ok_or_else(|| {
            MinerError::Unreachable(match asked {
                Ok(()) => "the chain does not list it".into(),
                Err(error) => format!("its endpoint is unknown: {error}"),
            })
        })
    }

    /// Where the chain said that it is; remembered for later runs.
    fn told_endpoint(&self, account: AccountId) -> Option<String> {
        let endpoint = self.known_endpoint(account)?;
        if let Some(addresses) = &self.addresses {
            addresses.note(account, &endpoint);
        }
        Some(endpoint)
    }

    /// Where it was in an earlier run, while the chain was not heard in this one. It may have moved; then it does not answer, and the
    /// chain is asked.
    fn earlier_endpoint(&self, account: AccountId) -> Option<String> {
        let is_heard = self.state.lock().asked_at.is_some();
        let addresses = self.addresses.as_ref().filter(|_| !is_heard)?;
        addresses.get(account)
    }

    /// Runs a request with a deadline and books its outcome.
    async fn request<T>(
        &self,
        account: AccountId,
        deadline: Duration,
        request: impl Future<Output = Result<T, MinerError>>,
    ) -> Result<T, MinerError> {
        let outcome = tokio::select! {
            biased;
            outcome = request => outcome,
            () = self.clock.sleep(deadline) => Err(MinerError::Unreachable(format!("no answer in {deadline:?}"))),
        };
        self.book(account, &outcome).await;
        outcome
    }

    /// Books the outcome of a request; an unreachable miner may have moved, so its address is asked.
    async fn book<T>(&self, account: AccountId, outcome: &Result<T, MinerError>) {
        match outcome {
            Ok(_) => self.reputation(account, |reputation| reputation.failures = 0),
            Err(error) => {
                self.failed(account);
                if matches!(error, MinerError::Unreachable(_)) {
                    // Its failure says nothing about this request: the old address stays in use.
                    let _ = self.refresh().await;
                }
            }
        }
    }

    fn reputation(&self, account: AccountId, change: impl FnOnce(&mut Reputation)) {
        change(self.state.lock().reputations.entry(account).or_default());
    }

    /// Books a failure found by somebody else: bytes that were not what they should be.
    pub(crate) fn failed(&self, account: AccountId) {
        self.reputation(account, |reputation| {
            reputation.failures = reputation.failures.saturating_add(1);
        });
    }

    /// It reported what it then did not give back: for [`DISTRUST`] it is given nothing new.
    pub(crate) fn distrust(&self, account: AccountId) {
        let until = self.clock.monotonic() + DISTRUST;
        self.reputation(account, |reputation| reputation.distrusted_until = Some(until));
    }

    /// Sends a fragment, for as long as it moves: a slow line is no fault of the miner, and what was sent of it would be sent again.
    pub(crate) async fn put(
        &self,
        account: AccountId,
        fid: Fid,
        fragment: Sha256Hash,
        body: FragmentBody,
    ) -> Result<(), MinerError> {
        let endpoint = self.endpoint(account).await?;
        let _span = stages::MINER_PUT.enter();
        // Until when it has to move.
        let until = Arc::new(Mutex::new(self.clock.monotonic() + PUT_BEGIN_TIMEOUT));
        let body = {
            let (clock, until) = (self.clock.clone(), until.clone());
            body.inspect(move |_| *until.lock() = clock.monotonic() + PUT_STALL_TIMEOUT)
        };
        let stalls = async {
            loop {
                let left = until.lock().saturating_sub(self.clock.monotonic());
                if left.is_zero() {
                    return;
                }
                self.clock.sleep(left).await;
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = self.fragments.put(&endpoint, fid, fragment, body.boxed()) => outcome,
            () = stalls => Err(MinerError::Unreachable("the upload stands still".into())),
        };
        self.book(account, &outcome).await;
        outcome
    }

    /// A range of a fragment; its length is checked, its content is not.
    pub(crate) async fn get(
        &self,
        account: AccountId,
        fid: Fid,
        fragment: Sha256Hash,
        range: Range<u32>,
    ) -> Result<Bytes, MinerError> {
        let endpoint = self.endpoint(account).await?;
        let whole = range.len() == fragment_bytes();
        let waiting = Waiting {
            miners: self,
            account,
            began: self.clock.monotonic(),
            over: whole,
        };
        let _span = stages::MINER_GET.enter();
        let request = self.fragments.get(&endpoint, fid, fragment, range.clone());
        let answer = self.request(account, GET_DEADLINE, request).await;
        let took = waiting.over();
        let body = answer?;
        if body.len() != range.len() {
            self.failed(account);
            return Err(MinerError::Wrong(format!(
                "{} bytes instead of {}",
                body.len(),
                range.len()
            )));
        }
        if !whole {
            self.took(account, took, range.len());
        }
        Ok(body)
    }

    fn took(&self, account: AccountId, latency: Duration, bytes: usize) {
        let slow = latency > self.hedge_delay();
        if bytes >= LATENCY_BYTES_MIN {
            self.state.lock().latencies.add(latency);
        }
        self.reputation(account, |reputation| {
            reputation.latency = Some(reputation.latency.map_or(latency, |old| (old * 3 + latency) / 4));
            reputation.slow = slow;
        });
    }

    /// A ranged GET was given up after this time, because others answered.
    fn given_up(&self, account: AccountId, waited: Duration) {
        if waited >= self.hedge_delay() {
            self.reputation(account, |reputation| {
                reputation.slow = true;
                reputation.latency = reputation.latency.max(Some(waited));
            });
        }
    }

    /// How long a ranged GET may take before others are asked too: twice the p95 of the recent ones, within bounds.
    pub(crate) fn hedge_delay(&self) -> Duration {
        self.state.lock().latencies.hedge_delay()
    }

    /// Whether it made somebody wait, or failed, when it was asked last: others are asked first then.
    pub(crate) fn is_to_be_avoided(&self, account: AccountId) -> bool {
        let state = self.state.lock();
        let reputation = state.reputations.get(&account);
        reputation.is_some_and(|reputation| reputation.slow || reputation.failures > 0)
    }

    /// Whether it is time to see if a miner that is avoided does better; the caller then does, and says when it is
    /// [`over`](Miners::trial_over). One at a time, and not too often.
    pub(crate) fn may_try(&self, account: AccountId) -> bool {
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        let Some(reputation) = state.reputations.get_mut(&account) else {
            return false;
        };
        let due = reputation
            .tried_at
            .is_none_or(|at| now.saturating_sub(at) >= TRIAL_INTERVAL);
        let avoided = reputation.slow || reputation.failures > 0;
        let begins = avoided && due && !reputation.on_trial;
        if begins {
            reputation.on_trial = true;
            reputation.tried_at = Some(now);
        }
        begins
    }

    pub(crate) fn trial_over(&self, account: AccountId) {
        self.reputation(account, |reputation| reputation.on_trial = false);
    }

    /// Puts holders into the order in which to ask them: healthy before failing, fast before slow. With `explore`, one choice in
    /// [`EXPLORE_ONE_IN`] is random: of what is asked for whole no latency is known.
    pub(crate) fn rank<T>(&self, holders: &mut [(AccountId, T)], explore: bool) {
        self.dice.shuffle(holders);
        if explore && self.dice.below(EXPLORE_ONE_IN) == 0 {
            return;
        }
        let state = self.state.lock();
        holders.sort_by_key(|(account, _)| {
            let reputation = state.reputations.get(account).copied().unwrap_or_default();
            (reputation.failures, reputation.slow, reputation.latency)
        });
    }

    /// Up to `wanted` miners outside `skip` that are positive, trusted, have `room_bytes` and answer, in random order, those
    /// that failed lately last.
    pub(crate) async fn willing(
        &self,
        room_bytes: u64,
        wanted: usize,
        skip: &HashSet<AccountId>,
    ) -> Result<Vec<AccountId>, ChainError> {
        if let Err(error) = self.refresh().await
            && self.state.lock().known.is_empty()
        {
            return Err(error);
        }
        let mut candidates: Vec<Miner> = {
            let state = self.state.lock();
            let able = |miner: &&Miner| miner.positive && miner.idle_bytes >= u128::from(room_bytes);
            let now = self.clock.monotonic();
            let outside = |miner: &&Miner| {
                let reputation = state.reputations.get(&miner.account);
                let until = reputation.and_then(|reputation| reputation.distrusted_until);
                !skip.contains(&miner.account) && until.is_none_or(|until| until <= now)
            };
            state.known.values().filter(able).filter(outside).cloned().collect()
        };
        // The map's order is not ours to rely on; the dice's is.
        candidates.sort_by_key(|miner| miner.account);
        self.dice.shuffle(&mut candidates);
        candidates.sort_by_key(|miner| {
            let state = self.state.lock();
            state
                .reputations
                .get(&miner.account)
                .map_or(0, |reputation| reputation.failures)
        });
        let probes = candidates.into_iter().map(|miner| self.answers(miner));
        Ok(futures::stream::iter(probes)
            .buffered(PROBES_IN_FLIGHT)
            .filter_map(|willing| async move { willing })
            .take(wanted)
            .collect()
            .await)
    }

    /// Whether at least so many miners outside `skip` are there, of [`WITNESSES_MAX`] that are asked at most.
    pub(crate) async fn reaches(&self, wanted: usize, skip: &HashSet<AccountId>) -> bool {
        let mut others: Vec<Miner> = {
            let state = self.state.lock();
            let able = |miner: &&Miner| miner.positive && !skip.contains(&miner.account);
            state.known.values().filter(able).cloned().collect()
        };
        others.sort_by_key(|miner| miner.account);
        self.dice.shuffle(&mut others);
        others.truncate(WITNESSES_MAX);
        let probes = others.into_iter().map(|miner| self.answers(miner));
        let there = futures::stream::iter(probes)
            .buffer_unordered(PROBES_IN_FLIGHT)
            .filter_map(|there| async move { there })
            .take(wanted);
        there.count().await == wanted
    }

    /// Whether it is there at all. How much room it has is the chain's to say: what `/status` says of it is for people.
    async fn answers(&self, miner: Miner) -> Option<AccountId> {
        let _span = stages::MINER_PROBE.enter();
        let request = self.fragments.probe(&miner.endpoint);
        self.request(miner.account, PROBE_DEADLINE, request).await.ok()?;
        Some(miner.account)
    }
}

/// A ranged GET on its way. Dropped before its end, it was given up: the miner has taken at least so long.
struct Waiting<'a> {
    miners: &'a Miners,
    account: AccountId,
    began: Duration,
    over: bool,
}

impl Waiting<'_> {
    fn elapsed(&self) -> Duration {
        self.miners.clock.monotonic().saturating_sub(self.began)
    }

    fn over(mut self) -> Duration {
        self.over = true;
        self.elapsed()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.miners.given_up(self.account, self.elapsed());
        }
    }
}

#[cfg(test)]
mod tests;
