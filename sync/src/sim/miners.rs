//! Miners that keep fragments in memory, report to the simulated chain, and fail as told.

use crate::chain::Miner;
use crate::clock::Clock;
use crate::erasure::sha256;
use crate::fragment_store::{Fid, FragmentBody, FragmentStore, MinerError, MinerStatus, Sha256Hash};
use crate::limits::FRAGMENT_BYTES;
use crate::sim::{SimChain, SimClock};
use bytes::Bytes;
use cessfs_crypto::AccountId;
use futures::future::{BoxFuture, pending, ready};
use futures::{FutureExt, TryStreamExt};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How a miner misbehaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// No answer to anything: connections are refused.
    Gone,
    /// Takes connections and never answers puts and gets.
    Stalls,
    /// Takes what is put, half a MiB in nearly six minutes.
    Trickles,
    /// Refuses every put.
    Refuses,
    /// Takes fragments and never reports.
    Silent,
    /// Gives back bytes with one bit wrong.
    Corrupts,
    /// Reports what it has and then does not have it.
    Forgets,
}

#[derive(Default)]
struct SimMiner {
    fragments: HashMap<(Fid, Sha256Hash), Bytes>,
    fault: Option<Fault>,
    asked: usize,
}

/// See the module head. Endpoints are numbers: `sim:0`, `sim:1`, ...
#[derive(Clone)]
pub struct SimMiners {
    chain: Arc<SimChain>,
    clock: Arc<SimClock>,
    miners: Arc<Mutex<Vec<SimMiner>>>,
}

const LATENCY: Duration = Duration::from_millis(50);

impl SimMiners {
    pub(super) fn new(chain: Arc<SimChain>, clock: Arc<SimClock>, count: u8) -> SimMiners {
        let miners = SimMiners {
            chain,
            clock,
            miners: Arc::default(),
        };
        for _ in 0..count {
            miners.add();
        }
        miners
    }

    /// One more good miner; its number.
    pub fn add(&self) -> u8 {
        let mut miners = self.miners.lock();
        let number = miners.len() as u8;
        miners.push(SimMiner::default());
        self.chain.register(Miner {
            account: SimMiners::account(number),
            endpoint: format!("sim:{number}"),
            positive: true,
            leaving: false,
            failed_audits: 0,
            idle_bytes: 1 << 40,
        });
        number
    }

    /// The account of a miner by its number.
    pub fn account(number: u8) -> AccountId {
        AccountId([number + 1; 32])
    }

    /// The number of a miner by its account.
    pub fn number(account: AccountId) -> u8 {
        account.0[0] - 1
    }

    /// Makes a miner misbehave, or good again.
    pub fn set_fault(&self, number: u8, fault: Option<Fault>) {
        self.miners.lock()[usize::from(number)].fault = fault;
    }

    /// How often a miner was asked for something it may hold.
    pub fn asked(&self, number: u8) -> usize {
        self.miners.lock()[usize::from(number)].asked
    }

    /// Drops everything a miner holds of one file.
    pub fn lose(&self, number: u8, fid: Fid) {
        self.miners.lock()[usize::from(number)]
            .fragments
            .retain(|(held, _), _| *held != fid);
    }

    /// One bit of each fragment of a file that a miner holds is wrong from now on, at this byte.
    pub fn flip(&self, number: u8, fid: Fid, at: usize) {
        let mut miners = self.miners.lock();
        let held = &mut miners[usize::from(number)].fragments;
        for (_, fragment) in held.iter_mut().filter(|((of, _), _)| *of == fid) {
            let mut wrong = fragment.to_vec();
            wrong[at] ^= 1;
            *fragment = wrong.into();
        }
    }

    /// Copies everything one miner holds to another, as a repair does.
    pub fn copy(&self, from: u8, to: u8) {
        let mut miners = self.miners.lock();
        let held = miners[usize::from(from)].fragments.clone();
        miners[usize::from(to)].fragments.extend(held);
    }

    /// Fragments held in all.
    pub fn fragments(&self) -> usize {
        self.miners.lock().iter().map(|miner| miner.fragments.len()).sum()
    }

    /// Keeps a fragment, and reports when it was the last one.
    fn store(
        &self,
        number: u8,
        fault: Option<Fault>,
        fid: Fid,
        fragment: Sha256Hash,
        body: Bytes,
    ) -> Result<(), MinerError> {
        if body.len() != FRAGMENT_BYTES || sha256(&body) != fragment {
            return Err(MinerError::Refused("size or hash".into()));
        }
        let Some((column, needed)) = self.chain.column_of(fid, fragment) else {
            return Err(MinerError::Refused("not in a deal".into()));
        };
        let complete = {
            let held = &mut self.miners.lock()[usize::from(number)].fragments;
            held.insert((fid, fragment), body);
            let complete = needed.iter().all(|hash| held.contains_key(&(fid, *hash)));
            if complete && fault == Some(Fault::Forgets) {
                held.clear();
            }
            complete
        };
        if complete && fault != Some(Fault::Silent) {
            self.chain.report(fid, column, SimMiners::account(number));
        }
        Ok(())
    }

    fn later<T: Send + 'static>(&self, value: Result<T, MinerError>) -> BoxFuture<'static, Result<T, MinerError>> {
        let latency = self.clock.sleep(LATENCY);
        async move {
            latency.await;
            value
        }
        .boxed()
    }
}

fn number_of(endpoint: &str) -> u8 {
    endpoint
        .strip_prefix("sim:")
        .and_then(|number| number.parse().ok())
        .expect("endpoints of this simulation")
}

fn gone<T: Send + 'static>() -> BoxFuture<'static, Result<T, MinerError>> {
    ready(Err(MinerError::Unreachable("connection refused".into()))).boxed()
}

impl FragmentStore for SimMiners {
    fn put(
        &self,
        endpoint: &str,
        fid: Fid,
        fragment: Sha256Hash,
        body: FragmentBody,
    ) -> BoxFuture<'static, Result<(), MinerError>> {
        let number = number_of(endpoint);
        let refuse = |why: &str| ready(Err(MinerError::Refused(why.into()))).boxed();
        let fault = self.miners.lock()[usize::from(number)].fault;
        match fault {
            Some(Fault::Gone) => return gone(),
            Some(Fault::Stalls) => return pending().boxed(),
            Some(Fault::Refuses) => return refuse("disk full"),
            _ => {}
        }
        let this = self.clone();
        let pace = match fault {
            Some(Fault::Trickles) => Duration::from_secs(350),
            _ => Duration::ZERO,
        };
        let clock = self.clock.clone();
        let body = body.and_then(move |piece| {
            let wait = (!pace.is_zero()).then(|| clock.sleep(pace));
            async move {
                if let Some(wait) = wait {
                    wait.await;
                }
                Ok(piece)
            }
        });
        async move {
            let pieces: Vec<Bytes> = match body.try_collect().await {
                Ok(pieces) => pieces,
                Err(error) => return Err(MinerError::Unreachable(error.to_string())),
            };
            this.store(number, fault, fid, fragment, pieces.concat().into())?;
            this.later(Ok(())).await
        }
        .boxed()
    }

    fn get(
        &self,
        endpoint: &str,
        fid: Fid,
        fragment: Sha256Hash,
        range: Range<u32>,
    ) -> BoxFuture<'static, Result<Bytes, MinerError>> {
        let mut miners = self.miners.lock();
        let miner = &mut miners[usize::from(number_of(endpoint))];
        miner.asked += 1;
        match miner.fault {
            Some(Fault::Gone) => return gone(),
            Some(Fault::Stalls) => return pending().boxed(),
            _ => {}
        }
        let held = miner.fragments.get(&(fid, fragment));
        // What the chain has no file of, miners drop.
        let Some(held) = held.filter(|_| !self.chain.is_deleted(fid)) else {
            return self.later(Err(MinerError::Missing("404".into())));
        };
        let mut bytes = held.slice(range.start as usize..range.end as usize);
        if miner.fault == Some(Fault::Corrupts) {
            let mut wrong = bytes.to_vec();
            let middle = wrong.len() / 2;
            wrong[middle] ^= 1;
            bytes = wrong.into();
        }
        self.later(Ok(bytes))
    }

    fn probe(&self, endpoint: &str) -> BoxFuture<'static, Result<MinerStatus, MinerError>> {
        let fault = self.miners.lock()[usize::from(number_of(endpoint))].fault;
        if fault == Some(Fault::Gone) {
            return gone();
        }
        self.later(Ok(MinerStatus {
            state: "positive".into(),
        }))
    }
}
