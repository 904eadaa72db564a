//! Simulated miners: they keep fragments, report to the chain, and misbehave as told.

use crate::chain::{Call, SimChain};
use crate::clock::SimClock;
use crate::death::Death;
use crate::dice::Dice;
use crate::trace::Trace;
use bytes::Bytes;
use cessfs_crypto::AccountId;
use cessfs_sync::chain::Miner;
use cessfs_sync::erasure::geometry::fragment_bytes;
use cessfs_sync::erasure::sha256;
use cessfs_sync::fragment_store::{Fid, FragmentBody, FragmentStore, MinerError, MinerStatus, Sha256Hash};
use cessfs_sync::{Clock, limits};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How a miner misbehaves, while it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Toxic {
    /// Connections are refused.
    Gone,
    /// Takes connections and never answers puts and gets.
    Stalls,
    /// So few bytes a second.
    Slow(u64),
    /// Every other transfer breaks off.
    Resets,
    /// Refuses every put.
    Refuses,
    /// One byte of what arrives, or of what it gives back, is another one.
    Corrupts,
    /// Gives another range than the one asked for.
    LiesOnRange,
    /// Says it took a fragment, and drops it.
    AcceptsThenDrops,
    /// Reports what it has, and then does not have it.
    ReportsThenForgets,
    /// Takes fragments and reports only when it is well again.
    Silent,
}

impl Toxic {
    /// All of them, for dice.
    pub const ALL: [(Toxic, &'static str); 10] = [
        (Toxic::Gone, "miner: gone"),
        (Toxic::Stalls, "miner: stalls"),
        (Toxic::Slow(400), "miner: slow"),
        (Toxic::Resets, "miner: resets"),
        (Toxic::Refuses, "miner: refuses"),
        (Toxic::Corrupts, "miner: corrupts a byte"),
        (Toxic::LiesOnRange, "miner: lies on range"),
        (Toxic::AcceptsThenDrops, "miner: accepts, then drops"),
        (Toxic::ReportsThenForgets, "miner: reports, then forgets"),
        (Toxic::Silent, "miner: silent"),
    ];
}

#[derive(Default)]
struct SimMiner {
    fragments: BTreeMap<(Fid, Sha256Hash), Bytes>,
    toxic: Option<Toxic>,
    /// Reports it owes.
    silent: Vec<(Fid, u8)>,
    /// Columns it gave back well.
    proven: BTreeSet<(Fid, u8)>,
    /// Files of which it lost its column for good.
    rotten: BTreeSet<Fid>,
}

struct State {
    miners: Vec<SimMiner>,
    /// Files that somebody's journal called Confirmed, or Doubted and not replaced yet.
    relied_on: BTreeSet<Fid>,
    /// Those that somebody recovered from: whatever another machine does about them.
    recovered: BTreeSet<Fid>,
    dice: Dice,
}

impl State {
    fn rotten_columns(&self, fid: Fid) -> usize {
        self.miners.iter().filter(|miner| miner.rotten.contains(&fid)).count()
    }
}

/// Columns of one file that are lost for good while the volume lives, at most.
pub const ROTTEN_MAX: usize = 2;

/// See the module head. Endpoints are numbers: `sim:0`, `sim:1`, ... Cheap to clone.
#[derive(Clone)]
pub struct SimMiners {
    chain: SimChain,
    clock: SimClock,
    trace: Trace,
    state: Arc<Mutex<State>>,
    death: Death,
}

impl SimMiners {
    /// So many good miners, on the chain's list.
    pub fn new(seed: u64, count: u8, chain: SimChain, clock: SimClock, trace: Trace) -> SimMiners {
        for number in 0..count {
            chain.register(Miner {
                account: account(number),
                endpoint: format!("sim:{number}"),
                positive: true,
                idle_bytes: 1 << 40,
                failed_audits: 0,
                leaving: false,
            });
        }
        let state = State {
            miners: (0..count).map(|_| SimMiner::default()).collect(),
            relied_on: BTreeSet::new(),
            recovered: BTreeSet::new(),
            dice: Dice::new(seed, "miners"),
        };
        SimMiners {
            chain,
            clock,
            trace,
            state: Arc::new(Mutex::new(state)),
            death: Death::default(),
        }
    }

    /// The same miners, as one life of a machine reaches them.
    pub fn seen_by(&self, death: Death) -> SimMiners {
        SimMiners { death, ..self.clone() }
    }

    /// How many there are.
    pub fn count(&self) -> u8 {
        self.state.lock().miners.len() as u8
    }

    /// How many misbehave now.
    pub fn ill(&self) -> usize {
        let state = self.state.lock();
        state.miners.iter().filter(|miner| miner.toxic.is_some()).count()
    }

    /// Makes a miner misbehave, or good again: then it makes up for what it owes.
    pub fn set_toxic(&self, number: u8, toxic: Option<Toxic>) {
        let owed = {
            let mut state = self.state.lock();
            let miner = &mut state.miners[usize::from(number)];
            miner.toxic = toxic;
            match toxic {
                Some(Toxic::Silent) => Vec::new(),
                _ => std::mem::take(&mut miner.silent),
            }
        };
        self.trace.note(format_args!("miner {number}: {toxic:?}"));
        for (fid, column) in owed {
            self.report(number, fid, column);
        }
    }

    /// A miner leaves the network, or stays after all.
    pub fn set_leaving(&self, number: u8, leaving: bool) {
        self.trace.note(format_args!("miner {number}: leaves: {leaving}"));
        self.chain.set_leaving(account(number), leaving);
    }

    /// A miner loses its column of some file for good, whether it has given it back before or only reported it.
    pub fn rot(&self, number: u8) {
        let mut state = self.state.lock();
        let held = &state.miners[usize::from(number)].fragments;
        let fids: BTreeSet<Fid> = held.keys().map(|(fid, _)| *fid).collect();
        let fids: Vec<Fid> = fids
            .into_iter()
            .filter(|fid| state.rotten_columns(*fid) < ROTTEN_MAX)
            .collect();
        if fids.is_empty() {
            return;
        }
        let fid = *state.dice.pick(&fids);
        let miner = &mut state.miners[usize::from(number)];
        miner.fragments.retain(|(held, _), _| *held != fid);
        miner.rotten.insert(fid);
        self.trace.count("miner: loses a column for good");
        self.trace
            .note(format_args!("miner {number}: lost {:02x?} for good", &fid.0[..4]));
    }

    /// The network gives a column of some file of a miner to another one, and the first drops it.
    pub fn move_column(&self, number: u8) {
        let (_, pallet) = self.chain.finalized();
        let mut state = self.state.lock();
        let from = account(number);
        let held = &state.miners[usize::from(number)].fragments;
        let fids: BTreeSet<Fid> = held.keys().map(|(fid, _)| *fid).collect();
        let holders = |fid: &Fid| pallet.files.get(fid).map(|file| file.segments[0].1);
        let is_holder = |fid: &Fid| holders(fid).is_some_and(|holders| holders.contains(&from));
        let fids: Vec<Fid> = fids.into_iter().filter(is_holder).collect();
        if fids.is_empty() {
            return;
        }
        let fid = *state.dice.pick(&fids);
        let taken = holders(&fid).expect("it is a file");
        let free: Vec<u8> = (0..state.miners.len() as u8)
            .filter(|other| !taken.contains(&account(*other)))
            .collect();
        let to = *state.dice.pick(&free);
        let miner = &mut state.miners[usize::from(number)];
        let moved: Vec<_> = miner.fragments.extract_if(.., |(held, _), _| *held == fid).collect();
        let proven: Vec<_> = miner.proven.iter().filter(|(of, _)| *of == fid).copied().collect();
        let other = &mut state.miners[usize::from(to)];
        other.fragments.extend(moved);
        other.proven.extend(proven);
        drop(state);
        self.chain.decree(|pallet| pallet.move_column(fid, from, account(to)));
        self.trace.count("miner: a column moves to another");
        self.trace
            .note(format_args!("miner {number}: {:02x?} goes to miner {to}", &fid.0[..4]));
    }

    /// Whether every column of a pack was given back well by the miner that the chain names.
    pub fn proven(&self, fid: Fid) -> bool {
        let (_, pallet) = self.chain.best();
        let Some(file) = pallet.files.get(&fid) else {
            return false;
        };
        let holders = file.segments[0].1;
        let state = self.state.lock();
        (0..).zip(holders).all(|(column, holder)| {
            let miner = &state.miners[usize::from(number_of(holder))];
            miner.proven.contains(&(fid, column))
        })
    }

    /// Somebody relies on this file.
    pub fn rely_on(&self, fid: Fid) {
        self.state.lock().relied_on.insert(fid);
    }

    /// Somebody recovered from this file.
    pub fn recovered_from(&self, fid: Fid) {
        self.state.lock().recovered.insert(fid);
    }

    /// What was in this file has been replaced, though it never was Confirmed.
    pub fn rely_no_more(&self, fid: Fid) {
        self.state.lock().relied_on.remove(&fid);
    }

    /// Destroys every file that nobody may rely on, as if it had never been sent.
    pub fn destroy_what_nobody_relies_on(&self) {
        let relied_on: BTreeSet<Fid> = {
            let state = self.state.lock();
            state.relied_on.union(&state.recovered).copied().collect()
        };
        let (_, pallet) = self.chain.best();
        let others = pallet.files.keys().filter(|fid| !relied_on.contains(fid)).count();
        self.trace.add("packs destroyed that nobody relied on", others as u64);
        self.chain
            .decree(|pallet| pallet.files.retain(|fid, _| relied_on.contains(fid)));
    }

    /// Destroys random columns of every file, for good, until so many are gone.
    pub fn destroy_columns(&self, columns: usize) {
        let (_, pallet) = self.chain.best();
        let mut state = self.state.lock();
        for (fid, file) in &pallet.files {
            let mut holders = file.segments[0].1;
            state.dice.shuffle(&mut holders);
            // What is gone already counts.
            holders.sort_by_key(|holder| !state.miners[usize::from(number_of(*holder))].rotten.contains(fid));
            for holder in &holders[..columns] {
                let miner = &mut state.miners[usize::from(number_of(*holder))];
                miner.fragments.retain(|(held, _), _| held != fid);
            }
            self.trace.add("columns destroyed at the end", columns as u64);
        }
    }

    /// Everything held, for comparing two runs.
    pub fn fingerprint(&self) -> String {
        let state = self.state.lock();
        let held: Vec<_> = state
            .miners
            .iter()
            .map(|miner| miner.fragments.keys().collect::<Vec<_>>())
            .collect();
        format!("{held:?} {:?}", state.dice)
    }

    fn report(&self, number: u8, fid: Fid, column: u8) {
        let delay = self
            .state
            .lock()
            .dice
            .time(Duration::from_secs(1), Duration::from_secs(30));
        let (height, _) = self.chain.finalized();
        let miner = account(number);
        self.chain.send(Call::Report { fid, column, miner }, delay, height);
    }

    /// Keeps a fragment, and reports when it was the last one of its column.
    fn keep(&self, number: u8, fid: Fid, fragment: Sha256Hash, body: Bytes) -> Result<(), MinerError> {
        if body.len() != fragment_bytes() || sha256(&body) != fragment {
            return Err(MinerError::Refused("size or hash".into()));
        }
        let Some((column, needed)) = self.chain.column_of(fid, fragment) else {
            return Err(MinerError::Refused("not in a deal".into()));
        };
        let mut state = self.state.lock();
        let miner = &mut state.miners[usize::from(number)];
        if miner.toxic == Some(Toxic::AcceptsThenDrops) {
            return Ok(());
        }
        miner.fragments.insert((fid, fragment), body);
        let complete = needed.iter().all(|hash| miner.fragments.contains_key(&(fid, *hash)));
        if complete && miner.toxic == Some(Toxic::Silent) {
            miner.silent.push((fid, column));
        } else if complete {
            drop(state);
            self.report(number, fid, column);
        }
        Ok(())
    }

    fn toxic(&self, number: u8) -> Option<Toxic> {
        self.state.lock().miners[usize::from(number)].toxic
    }

    /// The time a transfer takes, and whether it breaks off.
    async fn travel(&self, number: u8, bytes: usize) -> Result<(), MinerError> {
        self.death.guard().await;
        let toxic = self.toxic(number);
        let (latency, breaks) = {
            let mut state = self.state.lock();
            let latency = state.dice.time(Duration::from_millis(5), Duration::from_millis(1500));
            (latency, toxic == Some(Toxic::Resets) && state.dice.one_in(2))
        };
        match toxic {
            Some(Toxic::Gone) => return Err(MinerError::Unreachable("connection refused".into())),
            Some(Toxic::Stalls) => std::future::pending().await,
            _ => {}
        }
        let rate = match toxic {
            Some(Toxic::Slow(rate)) => rate,
            _ => 2_000_000,
        };
        let time = latency + Duration::from_micros(bytes as u64 * 1_000_000 / rate);
        self.clock.sleep(if breaks { time / 2 } else { time }).await;
        self.death.guard().await;
        match breaks {
            true => Err(MinerError::Unreachable("connection reset".into())),
            false => Ok(()),
        }
    }

    fn spoil(&self, bytes: &Bytes) -> Bytes {
        let mut wrong = bytes.to_vec();
        if !wrong.is_empty() {
            let at = self.state.lock().dice.below(wrong.len() as u64) as usize;
            wrong[at] ^= 1;
        }
        wrong.into()
    }

    async fn take(self, number: u8, fid: Fid, fragment: Sha256Hash, mut body: FragmentBody) -> Result<(), MinerError> {
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| MinerError::Unreachable(error.to_string()))?;
            self.travel(number, piece.len()).await?;
            bytes.extend_from_slice(&piece);
        }
        let mut bytes = Bytes::from(bytes);
        match self.toxic(number) {
            Some(Toxic::Refuses) => return Err(MinerError::Refused("disk full".into())),
            Some(Toxic::Corrupts) => bytes = self.spoil(&bytes),
            _ => {}
        }
        let kept = self.keep(number, fid, fragment, bytes);
        self.trace
            .note(format_args!("miner {number}: put {:02x?}: {kept:?}", &fragment.0[..4]));
        self.travel(number, 0).await?;
        kept
    }

    async fn give(self, number: u8, fid: Fid, fragment: Sha256Hash, range: Range<u32>) -> Result<Bytes, MinerError> {
        self.travel(number, range.len()).await?;
        let toxic = self.toxic(number);
        let held = {
            let state = self.state.lock();
            let miner = &state.miners[usize::from(number)];
            miner.fragments.get(&(fid, fragment)).cloned()
        };
        let held = held.filter(|_| toxic != Some(Toxic::ReportsThenForgets));
        // What the chain has no file and no deal of, miners clear away.
        let (_, pallet) = self.chain.best();
        let held = held.filter(|_| pallet.files.contains_key(&fid) || pallet.deals.contains_key(&fid));
        let Some(held) = held else {
            return Err(MinerError::Missing("404".into()));
        };
        let (start, end) = (range.start as usize, range.end as usize);
        let given = match toxic {
            Some(Toxic::Corrupts) => self.spoil(&held.slice(start..end)),
            Some(Toxic::LiesOnRange) => {
                let shift = (held.len() - range.len()).min(4096);
                let start = if start >= shift {
                    start - shift
                } else {
                    held.len() - range.len()
                };
                held.slice(start..start + range.len())
            }
            _ => held.slice(start..end),
        };
        if given == held.slice(start..end) {
            let column = self.chain.best().1.files.get(&fid).and_then(|file| {
                let (hashes, _) = file
                    .segments
                    .iter()
                    .find(|(hashes, _)| hashes.fragments.contains(&fragment))?;
                hashes.fragments.iter().position(|hash| *hash == fragment)
            });
            if let Some(column) = column {
                let mut state = self.state.lock();
                state.miners[usize::from(number)].proven.insert((fid, column as u8));
            }
        }
        self.trace
            .note(format_args!("miner {number}: get {:02x?} {range:?}", &fragment.0[..4]));
        Ok(given)
    }
}

/// The account of a miner.
fn account(number: u8) -> AccountId {
    AccountId([number + 1; 32])
}

fn number_of(account: AccountId) -> u8 {
    account.0[0] - 1
}

fn number_at(endpoint: &str) -> u8 {
    let number = endpoint.strip_prefix("sim:").and_then(|number| number.parse().ok());
    number.expect("endpoints of this simulation")
}

impl FragmentStore for SimMiners {
    fn put(
        &self,
        endpoint: &str,
        fid: Fid,
        fragment: Sha256Hash,
        body: FragmentBody,
    ) -> BoxFuture<'static, Result<(), MinerError>> {
        self.clone().take(number_at(endpoint), fid, fragment, body).boxed()
    }

    fn get(
        &self,
        endpoint: &str,
        fid: Fid,
        fragment: Sha256Hash,
        range: Range<u32>,
    ) -> BoxFuture<'static, Result<Bytes, MinerError>> {
        self.clone().give(number_at(endpoint), fid, fragment, range).boxed()
    }

    fn probe(&self, endpoint: &str) -> BoxFuture<'static, Result<MinerStatus, MinerError>> {
        let (this, number) = (self.clone(), number_at(endpoint));
        async move {
            // Whoever stalls transfers still tells its status.
            match this.toxic(number) {
                Some(Toxic::Stalls) => this.clock.sleep(Duration::from_millis(50)).await,
                _ => this.travel(number, 100).await?,
            }
            let state = "positive".into();
            Ok(MinerStatus { state })
        }
        .boxed()
    }
}

const _: () = assert!(limits::COLUMNS == 12);
