//! What one life of one machine sees of the chain: an RPC node with faults of its own.

use super::{BLOCK, Call, SimChain};
use crate::chain::{At, Pallet};
use crate::clock::SimClock;
use crate::death::Death;
use crate::dice::Dice;
use crate::trace::Trace;
use cessfs_crypto::AccountId;
use cessfs_sync::chain::{ChainError, ChainInfo, Deal, Declaration, Head, Miner, Planck, StoredFile, Territory};
use cessfs_sync::fragment_store::Fid;
use cessfs_sync::{Chain, Clock};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// What is wrong with a node.
#[derive(Clone, Copy, Debug, Default)]
pub struct RpcFaults {
    /// Nobody is there.
    pub away: bool,
    /// Blocks that one answer in three is behind.
    pub lag_blocks: usize,
    /// One answer in so many breaks off; 0: none.
    pub reset_one_in: u64,
    /// One call of the account in so many meets a fate of its own; 0: none.
    pub declare_one_in: u64,
    /// Files and deals are left out of one answer in so many; 0: of none.
    pub omit_one_in: u64,
}

/// A node, as one machine sees it through all its lives. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    chain: SimChain,
    clock: SimClock,
    trace: Trace,
    faults: Arc<Mutex<RpcFaults>>,
    dice: Arc<Mutex<Dice>>,
    /// When it last left something out.
    omitted_at: Arc<Mutex<Option<Duration>>>,
    death: Death,
}

/// Blocks after which a writer must have noticed that another one took over: a node may lag by twenty.
const FENCE_BLOCKS: u32 = 40;

enum Fate {
    Counts,
    /// It never reaches the pool.
    Lost,
    /// It counts, and the answer is lost.
    ReplyLost,
    /// It is included when the client has given up, or is about to.
    Late(Duration),
    /// Another transaction had the nonce.
    Nonce,
}

impl Link {
    /// A good node.
    pub fn new(chain: SimChain, clock: SimClock, trace: Trace, dice: Dice, death: Death) -> Link {
        Link {
            chain,
            clock,
            trace,
            faults: Arc::default(),
            dice: Arc::new(Mutex::new(dice)),
            omitted_at: Arc::default(),
            death,
        }
    }

    /// The same node, asked by the next life.
    pub fn reborn(&self, death: Death) -> Link {
        Link { death, ..self.clone() }
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: RpcFaults) {
        *self.faults.lock() = faults;
    }

    /// Asks the node at a head.
    fn ask<T: Send + 'static>(
        &self,
        head: Head,
        what: &'static str,
        answer: impl FnOnce(u32, &Pallet, bool) -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ChainError>> {
        let this = self.clone();
        async move {
            this.death.guard().await;
            let (wait, lags, breaks, omits) = {
                let faults = *this.faults.lock();
                let mut dice = this.dice.lock();
                let wait = dice.time(Duration::from_millis(5), Duration::from_millis(900));
                let lags = faults.lag_blocks > 0 && dice.one_in(3);
                let breaks = faults.reset_one_in > 0 && dice.one_in(faults.reset_one_in);
                let omits = faults.omit_one_in > 0 && dice.one_in(faults.omit_one_in);
                (wait, lags.then_some(faults.lag_blocks), breaks, omits)
            };
            this.clock.sleep(wait).await;
            this.death.guard().await;
            if this.faults.lock().away {
                return Err(ChainError::Away("no route".into()));
            }
            if breaks {
                this.trace.count("rpc: connections broken");
                return Err(ChainError::Away("connection reset".into()));
            }
            let (height, pallet): At = match (lags, head) {
                (Some(blocks), _) => {
                    this.trace.count("rpc: answers that lagged");
                    this.chain.finalized_before(blocks)
                }
                (None, Head::Finalized) => this.chain.finalized(),
                (None, Head::Best) => this.chain.best(),
            };
            if omits {
                this.trace.count("rpc: answers that left something out");
                *this.omitted_at.lock() = Some(this.clock.monotonic());
            }
            this.trace.note(format_args!("rpc: {what} at {height}"));
            Ok(answer(height, &pallet, omits))
        }
        .boxed()
    }

    fn fate(&self) -> Fate {
        let one_in = self.faults.lock().declare_one_in;
        let mut dice = self.dice.lock();
        if one_in == 0 || !dice.one_in(one_in) {
            return Fate::Counts;
        }
        let late = dice.time(Duration::from_secs(1), BLOCK * 31);
        let (name, fate) = match dice.below(4) {
            0 => ("calls lost", Fate::Lost),
            1 => ("calls whose answer was lost", Fate::ReplyLost),
            2 => ("calls included late", Fate::Late(late)),
            _ => ("calls that lost a nonce race", Fate::Nonce),
        };
        self.trace.count(name);
        fate
    }

    /// Signs, sends, and waits for a final answer, as the real client does.
    async fn submit(self, call: Call) -> Result<(), ChainError> {
        self.death.guard().await;
        let wait = self.dice.lock().time(Duration::from_millis(5), Duration::from_secs(2));
        self.clock.sleep(wait).await;
        self.death.guard().await;
        if self.faults.lock().away {
            return Err(ChainError::Away("no route".into()));
        }
        let (signed_at, pallet) = self.chain.finalized();
        if pallet.broke {
            return Err(ChainError::NoFunds("inability to pay some fees".into()));
        }
        self.note_call(&call, signed_at);
        let travel = self.dice.lock().time(Duration::from_millis(10), BLOCK);
        let id = match self.fate() {
            Fate::Counts => self.chain.send(call, travel, signed_at),
            Fate::Lost => return self.give_up("broken pipe").await,
            Fate::Nonce => return Err(ChainError::Away("another transaction had this nonce".into())),
            Fate::ReplyLost => {
                self.chain.send(call, travel, signed_at);
                return self.give_up("connection reset").await;
            }
            Fate::Late(late) => self.chain.send(call, late, signed_at),
        };
        let patience = self.dice.lock().time(Duration::from_secs(30), Duration::from_secs(300));
        let until = self.clock.monotonic() + patience;
        loop {
            self.clock.sleep(BLOCK).await;
            self.death.guard().await;
            if let Some(outcome) = self.chain.outcome(id) {
                return outcome;
            }
            if self.clock.monotonic() > until {
                return Err(ChainError::Away("not finalized in time".into()));
            }
        }
    }

    fn note_call(&self, call: &Call, signed_at: u32) {
        match call {
            Call::Declare(declaration) => {
                let fid = declaration.fid.0;
                self.trace.note(format_args!("rpc: declare {:02x?}", &fid[..4]));
                self.check_fence(declaration, signed_at);
            }
            Call::Delete(fid) => self.trace.note(format_args!("rpc: delete {:02x?}", &fid.0[..4])),
            Call::Report { .. } => unreachable!("miners report by themselves"),
        }
    }

    /// I10, from outside: nobody declares for long after a newer epoch has a final file.
    fn check_fence(&self, declaration: &Declaration, now: u32) {
        let omitted = *self.omitted_at.lock();
        if omitted.is_some_and(|at| self.clock.monotonic() < at + BLOCK * 2 * FENCE_BLOCKS) {
            return;
        }
        if let Some(newer) = self.chain.newer_epoch(&declaration.label)
            && newer + FENCE_BLOCKS < now
        {
            let ago = now - newer;
            self.trace.violation(format_args!(
                "I10: a writer still declares {ago} blocks after another took over"
            ));
        }
    }

    async fn give_up(&self, why: &str) -> Result<(), ChainError> {
        let wait = self
            .dice
            .lock()
            .time(Duration::from_millis(10), Duration::from_secs(60));
        self.clock.sleep(wait).await;
        self.death.guard().await;
        Err(ChainError::Away(why.into()))
    }
}

fn not_here<T: Send + 'static>() -> BoxFuture<'static, Result<T, ChainError>> {
    ready(Err(ChainError::Refused("nobody does this in a simulation".into()))).boxed()
}

impl Chain for Link {
    fn account(&self) -> AccountId {
        self.chain.finalized().1.account
    }

    fn info(&self) -> BoxFuture<'static, Result<ChainInfo, ChainError>> {
        self.ask(Head::Best, "info", |_, _, _| ChainInfo {
            name: "simulated".into(),
            spec_version: 137,
            genesis: [0; 32],
            segment_count_max: 1000,
            fragment_count: 12,
            existential_deposit: 1,
            unit_price: None,
            token_symbol: "TCESS".into(),
        })
    }

    fn balance(&self, _: AccountId) -> BoxFuture<'static, Result<Planck, ChainError>> {
        self.ask(
            Head::Best,
            "balance",
            |_, pallet, _| if pallet.broke { 0 } else { 1 << 70 },
        )
    }

    fn height(&self, head: Head) -> BoxFuture<'static, Result<u32, ChainError>> {
        self.ask(head, "height", |height, _, _| height)
    }

    fn territory(&self, name: &str) -> BoxFuture<'static, Result<Option<Territory>, ChainError>> {
        let name = name.to_string();
        self.ask(Head::Best, "territory", move |_, pallet, _| {
            pallet.territory.clone().filter(|territory| territory.name == name)
        })
    }

    fn mint_territory(&self, _: &str, _: u32, _: u32) -> BoxFuture<'static, Result<(), ChainError>> {
        not_here()
    }

    fn expand_territory(&self, _: &str, _: u32) -> BoxFuture<'static, Result<(), ChainError>> {
        not_here()
    }

    fn renew_territory(&self, _: &str, _: u32) -> BoxFuture<'static, Result<(), ChainError>> {
        not_here()
    }

    fn miners(&self) -> BoxFuture<'static, Result<Vec<Miner>, ChainError>> {
        let miners = self.chain.miners();
        self.ask(Head::Finalized, "miners", move |_, _, _| miners)
    }

    fn deal(&self, fid: Fid, head: Head) -> BoxFuture<'static, Result<Option<Deal>, ChainError>> {
        self.ask(head, "deal", move |_, pallet, omits| {
            let deal = pallet.deals.get(&fid).filter(|_| !omits)?;
            let stranger = AccountId([0xBA; 32]);
            Some(Deal {
                owner: if deal.foreign { stranger } else { pallet.account },
                label: deal.declaration.label.clone().into(),
                segments: deal.declaration.segments.clone(),
                reported: deal.reported.clone(),
            })
        })
    }

    fn file(&self, fid: Fid, head: Head) -> BoxFuture<'static, Result<Option<StoredFile>, ChainError>> {
        self.ask(head, "file", move |_, pallet, omits| {
            let file = pallet.files.get(&fid).filter(|_| !omits)?;
            Some(StoredFile::clone(file))
        })
    }

    fn declare(&self, declaration: Declaration) -> BoxFuture<'static, Result<(), ChainError>> {
        self.clone().submit(Call::Declare(Arc::new(declaration))).boxed()
    }

    fn delete(&self, fid: Fid) -> BoxFuture<'static, Result<(), ChainError>> {
        self.clone().submit(Call::Delete(fid)).boxed()
    }

    fn files(&self) -> BoxFuture<'static, Result<Vec<Fid>, ChainError>> {
        self.ask(Head::Finalized, "files", |_, pallet, omits| {
            let all = pallet.files.keys().copied();
            match omits {
                true => all.step_by(2).collect(),
                false => all.collect(),
            }
        })
    }

    fn faucet(&self) -> BoxFuture<'static, Result<(), ChainError>> {
        not_here()
    }
}
