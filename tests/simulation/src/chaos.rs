//! What goes wrong outside the machines, and when.

use crate::chain::{ChainFaults, Link, RpcFaults, SimChain};
use crate::clock::SimClock;
use crate::dice::Dice;
use crate::miners::{ROTTEN_MAX, SimMiners, Toxic};
use crate::trace::Trace;
use cessfs_sync::Clock;
use cessfs_sync::chain::TerritoryState;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Miners that misbehave at one time at most: whichever they are, every pack keeps four good columns.
const ILL_MAX: usize = 8;

/// How bad a world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing goes wrong but crashes.
    Fair,
    /// Now and then something does.
    Mixed,
    /// Something always does.
    Storm,
}

/// What can go wrong, and be well again. Cheap to clone: all of them are of one world.
#[derive(Clone)]
pub struct Outsiders {
    pub trace: Trace,
    pub chain: SimChain,
    pub miners: SimMiners,
    pub links: Vec<Link>,
    /// Nothing goes wrong now.
    pub calm: Rc<Cell<bool>>,
}

impl Outsiders {
    /// Everything is well again, until [`calm`](Outsiders::calm) says otherwise.
    pub fn calm_down(&self) {
        self.calm.set(true);
        self.trace.note("calm");
        self.pay();
        self.chain.set_faults(ChainFaults::default());
        for link in &self.links {
            link.set_faults(RpcFaults::default());
        }
        for number in 0..self.miners.count() {
            self.miners.set_toxic(number, None);
            self.miners.set_leaving(number, false);
        }
    }

    fn pay(&self) {
        self.chain.decree(|pallet| {
            pallet.broke = false;
            pallet.paused = false;
            if let Some(territory) = &mut pallet.territory {
                territory.state = TerritoryState::Active;
                territory.remaining_bytes = territory.remaining_bytes.max(1 << 38);
            }
        });
    }
}

/// The world that misbehaves.
pub struct Chaos {
    pub weather: Weather,
    pub clock: SimClock,
    pub outsiders: Outsiders,
    /// Miners lose columns for good, too.
    pub rots: bool,
    /// Nodes leave things out. Not once another machine has taken over: a node that hides that from the older one is believed.
    pub omits: Rc<Cell<bool>>,
    pub dice: Dice,
}

impl Chaos {
    /// Goes on until it is dropped.
    pub async fn rage(&mut self) {
        let longest = match self.weather {
            Weather::Fair => return std::future::pending().await,
            Weather::Mixed => Duration::from_secs(1800),
            Weather::Storm => Duration::from_secs(240),
        };
        loop {
            let pause = self.dice.time(Duration::from_secs(1), longest);
            self.clock.sleep(pause).await;
            if self.outsiders.calm.get() {
                continue;
            }
            match self.dice.below(12) {
                0..5 => self.a_miner(),
                5..7 => self.a_node(),
                7..9 => self.the_chain(),
                9 => self.a_stranger(),
                10 => self.the_time(),
                _ => self.the_owner().await,
            }
        }
    }

    fn a_miner(&mut self) {
        let number = self.dice.below(u64::from(self.outsiders.miners.count())) as u8;
        if self.rots && self.dice.one_in(3) {
            return self.outsiders.miners.rot(number);
        }
        if self.dice.one_in(8) {
            return self.outsiders.miners.move_column(number);
        }
        if self.dice.one_in(8) {
            let leaves = self.dice.one_in(2);
            if leaves {
                self.outsiders.trace.count("miner: leaves");
            }
            return self.outsiders.miners.set_leaving(number, leaves);
        }
        let ill_max = if self.rots { ILL_MAX - ROTTEN_MAX } else { ILL_MAX };
        if self.dice.one_in(2) || self.outsiders.miners.ill() >= ill_max {
            return self.outsiders.miners.set_toxic(number, None);
        }
        let (mut toxic, name) = *self.dice.pick(&Toxic::ALL);
        if let Toxic::Slow(rate) = &mut toxic {
            *rate += self.dice.below(20_000);
        }
        self.outsiders.trace.count(name);
        self.outsiders.miners.set_toxic(number, Some(toxic));
    }

    fn a_node(&mut self) {
        let mut faults = RpcFaults::default();
        let name = match self.dice.below(7) {
            0 => "rpc: good again",
            1 | 2 => {
                faults.away = true;
                "rpc: away"
            }
            3 => {
                faults.lag_blocks = 1 + self.dice.below(20) as usize;
                "rpc: lags"
            }
            4 => {
                faults.reset_one_in = 2 + self.dice.below(8);
                "rpc: resets"
            }
            5 if self.omits.get() => {
                faults.omit_one_in = 20;
                "rpc: lies by omission"
            }
            _ => {
                faults.declare_one_in = 1 + self.dice.below(3);
                "rpc: calls meet fates"
            }
        };
        self.outsiders.trace.count(name);
        self.outsiders.trace.note(format_args!("{name} {faults:?}"));
        let link = self.dice.below(self.outsiders.links.len() as u64) as usize;
        self.outsiders.links[link].set_faults(faults);
    }

    fn the_chain(&mut self) {
        let mut faults = ChainFaults::default();
        let name = match self.dice.below(4) {
            0 => "chain: good again",
            1 if self.dice.one_in(3) => {
                faults.finality_lag = usize::MAX / 2;
                "chain: finality stands still"
            }
            1 => {
                faults.finality_lag = 1 + self.dice.below(15) as usize;
                faults.fork_one_in = self.dice.below(6);
                faults.lost_one_in = self.dice.below(5);
                "chain: finality lags"
            }
            2 => {
                faults.fork_one_in = 1 + self.dice.below(6);
                faults.lost_one_in = self.dice.below(5);
                "chain: forks often"
            }
            _ => {
                let paused = self.dice.one_in(2);
                self.outsiders.chain.decree(|pallet| pallet.paused = paused);
                "chain: TxPause"
            }
        };
        self.outsiders.trace.count(name);
        self.outsiders.trace.note(format_args!("{name} {faults:?}"));
        self.outsiders.chain.set_faults(faults);
    }

    /// Declares a pending id of ours.
    fn a_stranger(&mut self) {
        let (_, pallet) = self.outsiders.chain.finalized();
        let pending = pallet.deals.iter().filter(|(_, deal)| !deal.foreign);
        let pending: Vec<_> = pending.map(|(fid, _)| *fid).collect();
        if pending.is_empty() {
            return;
        }
        let fid = *self.dice.pick(&pending);
        self.outsiders.trace.count("stranger: declares a pending id");
        self.outsiders
            .trace
            .note(format_args!("stranger: {:02x?}", &fid.0[..4]));
        self.outsiders.chain.decree(move |pallet| pallet.hijack(fid));
    }

    /// The wall clock jumps, by days at most.
    fn the_time(&mut self) {
        let wrong_s = match self.dice.below(3) {
            0 => 0,
            1 => self.dice.below(3 * 86_400) as i64,
            _ => -(self.dice.below(3 * 86_400) as i64),
        };
        self.outsiders.trace.count("clock: jumps");
        self.outsiders.trace.note(format_args!("clock: wrong by {wrong_s} s"));
        self.clock.set_wrong(wrong_s);
    }

    /// Money and territory. They come back: without them nothing can go on.
    async fn the_owner(&mut self) {
        let state = |state| {
            move |pallet: &mut crate::chain::Pallet| {
                if let Some(territory) = &mut pallet.territory {
                    territory.state = state;
                }
            }
        };
        let short = self.dice.time(Duration::from_secs(10), Duration::from_secs(1200));
        match self.dice.below(4) {
            0 => {
                self.outsiders.trace.count("owner: out of funds");
                self.outsiders.chain.decree(|pallet| pallet.broke = true);
                self.clock.sleep(short).await;
            }
            1 => {
                self.outsiders.trace.count("owner: territory frozen");
                self.outsiders.chain.decree(state(TerritoryState::Frozen));
                self.clock.sleep(short).await;
            }
            2 => {
                self.outsiders.trace.count("owner: territory frozen, then expired");
                self.outsiders.chain.decree(state(TerritoryState::Frozen));
                self.clock.sleep(short).await;
                if !self.outsiders.calm.get() {
                    self.outsiders.chain.decree(crate::chain::Pallet::expire);
                    self.clock.sleep(short).await;
                }
            }
            _ => {
                self.outsiders.trace.count("owner: territory full");
                let mut left = 0;
                if let Some(territory) = &self.outsiders.chain.best().1.territory {
                    left = territory.remaining_bytes;
                }
                self.outsiders.chain.decree(move |pallet| {
                    if let Some(territory) = &mut pallet.territory {
                        territory.remaining_bytes = 1;
                    }
                });
                self.clock.sleep(short).await;
                self.outsiders.chain.decree(move |pallet| {
                    if let Some(territory) = &mut pallet.territory {
                        territory.remaining_bytes = left;
                    }
                });
            }
        }
        self.outsiders.pay();
    }
}
