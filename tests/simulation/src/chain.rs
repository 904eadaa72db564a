//! A simulated chain: blocks every six seconds, a pool of transactions, a head that forks and a head that is final.
//!
//! What is in a block that is not final may be undone: a fork takes the newest blocks back, their transactions return to the
//! pool or are lost, and come again later or not at all.

mod link;
mod pallet;

pub use link::{Link, RpcFaults};
pub use pallet::{Call, Pallet};

use crate::clock::SimClock;
use crate::device::Secrets;
use crate::dice::Dice;
use crate::trace::Trace;
use cessfs_sync::Clock;
use cessfs_sync::chain::{ChainError, Miner, Territory, TerritoryState};
use cessfs_sync::fragment_store::Fid;
use cessfs_sync::fragment_store::Sha256Hash;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Time from block to block.
pub const BLOCK: Duration = Duration::from_secs(6);
/// Blocks that finality is behind when nothing is wrong.
const FINALITY_BLOCKS: usize = 2;
/// Finalized states that are remembered, for nodes that lag.
const HISTORY: usize = 24;
/// Height at time zero.
const FIRST_HEIGHT: u32 = 100;
/// Blocks a transaction lives after the head it was signed at.
const LIFE_BLOCKS: u32 = 32;

/// What is wrong with the chain itself, for every node.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChainFaults {
    /// One block in so many begins a fork; 0: none.
    pub fork_one_in: u64,
    /// One transaction in so many does not survive a fork; 0: all do.
    pub lost_one_in: u64,
    /// Blocks that finality is behind beyond the usual.
    pub finality_lag: usize,
}

#[derive(Clone, Debug)]
struct Transaction {
    id: u64,
    call: Call,
    not_before: Duration,
    dies_at: u32,
}

struct Block {
    height: u32,
    transactions: Vec<Transaction>,
}

struct State {
    height: u32,
    base: Arc<Pallet>,
    base_height: u32,
    /// Not final yet, oldest first.
    blocks: VecDeque<Block>,
    best: Arc<Pallet>,
    history: VecDeque<(u32, Arc<Pallet>)>,
    pool: Vec<Transaction>,
    sent: u64,
    /// What finally became of a transaction.
    outcomes: BTreeMap<u64, Result<(), ChainError>>,
    faults: ChainFaults,
    miners: Vec<Miner>,
    /// Since which height each epoch of the volume has a final file.
    epochs: BTreeMap<u32, u32>,
    dice: Dice,
}

impl State {
    /// What the blocks that are not final make of what is.
    fn replayed(&self) -> Arc<Pallet> {
        let mut best = Pallet::clone(&self.base);
        for block in &self.blocks {
            for transaction in &block.transactions {
                // What failed on this branch before fails on it again, and changes nothing.
                let _ = best.apply(&transaction.call);
            }
        }
        Arc::new(best)
    }
}

/// See the module head. Cheap to clone.
#[derive(Clone)]
pub struct SimChain {
    clock: SimClock,
    trace: Trace,
    secrets: Arc<Secrets>,
    state: Arc<Mutex<State>>,
}

/// A state, and the height it is of.
pub type At = (u32, Arc<Pallet>);

impl SimChain {
    /// A chain with an Active territory `main` of 1 TiB.
    pub fn new(seed: u64, clock: SimClock, trace: Trace, secrets: Arc<Secrets>) -> SimChain {
        let territory = Territory {
            name: "main".into(),
            total_bytes: 1 << 40,
            used_bytes: 0,
            locked_bytes: 0,
            remaining_bytes: 1 << 40,
            start_block: 0,
            deadline_block: u32::MAX,
            state: TerritoryState::Active,
        };
        let pallet = Arc::new(Pallet {
            account: secrets.account,
            territory: Some(territory),
            deals: BTreeMap::new(),
            files: BTreeMap::new(),
            paused: false,
            broke: false,
            declared_twice: Vec::new(),
        });
        let state = State {
            height: FIRST_HEIGHT,
            base: pallet.clone(),
            base_height: FIRST_HEIGHT,
            blocks: VecDeque::new(),
            best: pallet.clone(),
            history: VecDeque::from([(FIRST_HEIGHT, pallet)]),
            pool: Vec::new(),
            sent: 0,
            outcomes: BTreeMap::new(),
            faults: ChainFaults::default(),
            miners: Vec::new(),
            epochs: BTreeMap::new(),
            dice: Dice::new(seed, "chain"),
        };
        SimChain {
            clock,
            trace,
            secrets,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Adds a miner to the list.
    pub fn register(&self, miner: Miner) {
        self.state.lock().miners.push(miner);
    }

    /// A miner says that it leaves, so that nobody gives it anything new and what it holds has to go elsewhere; or stays after all.
    pub fn set_leaving(&self, account: cessfs_crypto::AccountId, leaving: bool) {
        for miner in &mut self.state.lock().miners {
            if miner.account == account {
                (miner.leaving, miner.positive) = (leaving, !leaving);
            }
        }
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: ChainFaults) {
        self.settled().faults = faults;
    }

    /// Root, time or the owner's purse change something, whatever forks. It is final at once; what is not final comes after
    /// it, and is judged anew. Changing both heads instead would let them part for ever: a declaration in a block between
    /// them, gone from the newest head with an expired territory, would come true when its block is final.
    pub fn decree(&self, change: impl Fn(&mut Pallet)) {
        let mut state = self.settled();
        change(Arc::make_mut(&mut state.base));
        state.best = state.replayed();
    }

    /// The finalized state.
    pub fn finalized(&self) -> At {
        let state = self.settled();
        (state.base_height, state.base.clone())
    }

    /// The state at the newest block.
    pub fn best(&self) -> At {
        let state = self.settled();
        (state.height, state.best.clone())
    }

    /// The files that there are, whichever head is asked.
    pub fn stored(&self) -> BTreeSet<Fid> {
        let state = self.settled();
        let both = state.base.files.keys().filter(|fid| state.best.files.contains_key(fid));
        both.copied().collect()
    }

    /// A finalized state so many blocks back.
    fn finalized_before(&self, blocks: usize) -> At {
        let state = self.settled();
        let index = state.history.len().saturating_sub(1 + blocks);
        state.history[index].clone()
    }

    fn miners(&self) -> Vec<Miner> {
        self.state.lock().miners.clone()
    }

    /// Puts a transaction into the pool, signed at `height`; its number.
    pub fn send(&self, call: Call, after: Duration, height: u32) -> u64 {
        let mut state = self.settled();
        state.sent += 1;
        let transaction = Transaction {
            id: state.sent,
            call,
            not_before: self.clock.monotonic() + after,
            dies_at: height + LIFE_BLOCKS,
        };
        state.pool.push(transaction);
        state.sent
    }

    /// What became of a transaction, once that is final.
    pub fn outcome(&self, id: u64) -> Option<Result<(), ChainError>> {
        self.settled().outcomes.get(&id).cloned()
    }

    /// How many epochs have a file that is final.
    pub fn epochs(&self) -> usize {
        self.settled().epochs.len()
    }

    /// The column that a fragment of an open deal belongs to, and all fragments of that column.
    pub fn column_of(&self, fid: Fid, fragment: Sha256Hash) -> Option<Column> {
        let (_, pallet) = self.best();
        let deal = pallet.deals.get(&fid).filter(|deal| !deal.foreign)?;
        let segments = &deal.declaration.segments;
        let column = segments
            .iter()
            .find_map(|segment| segment.fragments.iter().position(|hash| *hash == fragment))?;
        let all = segments.iter().map(|segment| segment.fragments[column]).collect();
        Some((column as u8, all))
    }

    /// The state with every block that is due by now.
    fn settled(&self) -> parking_lot::MutexGuard<'_, State> {
        let now = self.clock.monotonic();
        let due = FIRST_HEIGHT + (now.as_millis() / BLOCK.as_millis()) as u32;
        let mut state = self.state.lock();
        while state.height < due {
            let height = state.height + 1;
            let at = BLOCK * (height - FIRST_HEIGHT);
            self.fork(&mut state, at);
            self.build(&mut state, height, at);
            self.finalize(&mut state);
        }
        state
    }

    /// Perhaps takes the newest blocks back.
    fn fork(&self, state: &mut State, at: Duration) {
        let ChainFaults {
            fork_one_in,
            lost_one_in,
            ..
        } = state.faults;
        if fork_one_in == 0 || state.blocks.is_empty() || !state.dice.one_in(fork_one_in) {
            return;
        }
        let depth = 1 + state.dice.below(state.blocks.len() as u64) as usize;
        self.trace.count("chain: forks");
        self.trace.note(format_args!("chain: fork of {depth} blocks"));
        let from = state.blocks.len() - depth;
        for index in from..state.blocks.len() {
            for mut transaction in std::mem::take(&mut state.blocks[index].transactions) {
                if transaction.call.is_mortal() && lost_one_in > 0 && state.dice.one_in(lost_one_in) {
                    self.trace.count("chain: transactions lost in forks");
                    continue;
                }
                transaction.not_before = at + state.dice.time(Duration::from_millis(10), BLOCK * 10);
                state.pool.push(transaction);
            }
        }
        state.best = state.replayed();
    }

    fn build(&self, state: &mut State, height: u32, at: Duration) {
        let (ready, later): (Vec<_>, Vec<_>) = state
            .pool
            .drain(..)
            .partition(|transaction| transaction.not_before <= at);
        state.pool = later;
        let mut transactions = Vec::new();
        for transaction in ready {
            if transaction.call.is_mortal() && transaction.dies_at < height {
                self.trace.count("chain: transactions that died in the pool");
                continue;
            }
            // An outcome counts when it is final.
            let _ = Arc::make_mut(&mut state.best).apply(&transaction.call);
            transactions.push(transaction);
        }
        state.height = height;
        state.blocks.push_back(Block { height, transactions });
    }

    fn finalize(&self, state: &mut State) {
        while state.blocks.len() > FINALITY_BLOCKS + state.faults.finality_lag {
            let block = state.blocks.pop_front().expect("counted just now");
            state.base_height = block.height;
            for transaction in block.transactions {
                let twice = state.base.declared_twice.len();
                let outcome = Arc::make_mut(&mut state.base).apply(&transaction.call);
                self.note_epoch(state, &transaction.call, block.height);
                match &transaction.call {
                    Call::Declare(declaration) => {
                        self.trace.count("chain: declarations final");
                        let fid = &declaration.fid.0[..4];
                        self.trace
                            .note(format_args!("chain: declaration {fid:02x?} final: {outcome:?}"));
                        if state.base.declared_twice.len() > twice {
                            self.trace.violation(format_args!("F4: {fid:02x?} was declared twice"));
                        }
                        state.outcomes.insert(transaction.id, outcome);
                    }
                    Call::Delete(fid) => {
                        self.trace.count("chain: deletions final");
                        let fid = &fid.0[..4];
                        self.trace
                            .note(format_args!("chain: deletion {fid:02x?} final: {outcome:?}"));
                        state.outcomes.insert(transaction.id, outcome);
                    }
                    Call::Report { .. } => {}
                }
            }
            if state.history.len() == HISTORY {
                state.history.pop_front();
            }
            let now = (block.height, state.base.clone());
            state.history.push_back(now);
        }
    }

    fn note_epoch(&self, state: &mut State, call: &Call, height: u32) {
        if let Call::Report { fid, .. } = call
            && let Some(file) = state.base.files.get(fid)
            && let Some(label) = self.secrets.labels.open(&file.owners[0].1)
        {
            state.epochs.entry(label.epoch).or_insert(height);
        }
    }

    /// Since which height there is a final file of an epoch newer than that of this label.
    fn newer_epoch(&self, label: &str) -> Option<u32> {
        let own = self.secrets.labels.open(label.as_bytes())?.epoch;
        let state = self.settled();
        state.epochs.range(own + 1..).map(|(_, height)| *height).min()
    }

    /// Everything final, for comparing two runs. Also looks whether the two heads have parted, which no chain's ever do.
    pub fn fingerprint(&self) -> String {
        let state = self.settled();
        let replayed = state.replayed();
        if replayed.deals.keys().ne(state.best.deals.keys()) || replayed.files.keys().ne(state.best.files.keys()) {
            self.trace
                .violation("the simulated chain: its newest head does not follow from its final one");
        }
        format!(
            "{} {:?} {:?} {:?}",
            state.base_height,
            state.base,
            state.best.deals.keys(),
            state.dice
        )
    }
}

/// A column's number and its fragments.
pub type Column = (u8, Vec<Sha256Hash>);
