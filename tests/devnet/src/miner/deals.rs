//! The miners' common view of the deals.
//!
//! A deal of a big file lists 12,000 fragments, and its client sends 12,000 requests: decoding the list for each of them
//! would be the slowest part of the devnet. So a decoded deal is kept for as long as the best block is the same.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::seam::{ChainView, Deal};

use super::limits::DEALS_REMEMBERED_MAX;
use super::name::{Fid, FragmentHash};

/// A live deal, with its fragments ready for the question whether one of them belongs to it.
pub struct LiveDeal {
    /// The deal as the chain has it.
    pub deal: Deal,
    fragments: HashSet<String>,
}

impl LiveDeal {
    /// True where the deal lists the fragment, in any segment.
    pub fn lists(&self, fragment: &FragmentHash) -> bool {
        self.fragments.contains(fragment.as_str())
    }
}

/// The chain, with a memory of one block's deals.
pub struct Deals {
    chain: Arc<dyn ChainView>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    height: u32,
    deals: HashMap<Fid, Arc<LiveDeal>>,
}

impl Deals {
    /// A view of `chain`.
    pub fn new(chain: Arc<dyn ChainView>) -> Deals {
        Deals {
            chain,
            memory: Mutex::default(),
        }
    }

    /// The chain itself.
    pub fn chain(&self) -> &dyn ChainView {
        &*self.chain
    }

    /// The live deal of a file. Only what is there is remembered: a deal may be made at any moment.
    pub fn live(&self, fid: &Fid) -> Option<Arc<LiveDeal>> {
        let height = self.chain.height();
        {
            let mut memory = self.memory.lock();
            if memory.height != height || memory.deals.len() >= DEALS_REMEMBERED_MAX {
                *memory = Memory {
                    height,
                    deals: HashMap::new(),
                };
            }
            if let Some(deal) = memory.deals.get(fid) {
                return Some(deal.clone());
            }
        }
        let deal = self.chain.deal(fid.as_str())?;
        let fragments = deal.segments.iter().flatten().cloned().collect();
        let live = Arc::new(LiveDeal { deal, fragments });
        let mut memory = self.memory.lock();
        if memory.height == height {
            memory.deals.insert(fid.clone(), live.clone());
        }
        Some(live)
    }
}
