//! The chain: blocks without forks, every state they ever had, and the runtime that makes them.
//!
//! It promises that a sealed block survives any crash (it is on disk before anybody hears of it), that a torn tail of the
//! log costs at most the block being written, and that every state can still be read: nothing is pruned. All states are
//! kept in memory as trie nodes, about 5 KiB for an empty block; the log holds only each block's changes, and is replayed
//! and checked root by root on opening. It knows no network, no clock and no pool.

mod events;
mod execute;
mod log;
mod nodes;

pub use events::EventCounts;
pub use execute::{Refused, Sealed};
pub use log::LogError;

use cessfs_devnet_runtime::{Header, RuntimeGenesisConfig};
use codec::{Decode, Encode};
use log::Log;
use nodes::Nodes;
use sp_core::H256;
use sp_runtime::{
    BuildStorage,
    traits::{BlakeTwo256, Header as _},
};
use std::{collections::HashMap, path::Path};

/// A key of the state and what a block made of it; `None` for removed.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// What the log keeps of a block.
#[derive(Encode, Decode)]
struct Record {
    header: Header,
    body: Vec<Vec<u8>>,
    changes: Vec<Change>,
}

/// A block.
pub struct Block {
    /// Hash of the header.
    pub hash: H256,
    /// Header; its state root opens the state after this block.
    pub header: Header,
    /// SCALE bytes of its extrinsics.
    pub body: Vec<Vec<u8>>,
}

/// Why the chain can't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// No block has that hash.
    #[error("unknown block")]
    UnknownBlock,
    /// The runtime has no function of that name.
    #[error("exported method {0} is not found")]
    UnknownMethod(String),
    /// The runtime panicked.
    #[error("the runtime panicked")]
    Panicked,
    /// The state's trie is not whole.
    #[error("state: {0}")]
    State(String),
    /// The runtime's answer is not what its interface says.
    #[error("runtime answer: {0}")]
    Answer(#[from] codec::Error),
    /// The block author's own extrinsic was refused.
    #[error("own extrinsic refused: {0}")]
    OwnExtrinsic(String),
    /// A replayed or sealed block's state is not what its header says.
    #[error("block {0}: state root differs from the header's")]
    RootMismatch(u32),
    /// The genesis could not be built.
    #[error("genesis: {0}")]
    Genesis(String),
    /// The log failed. Nothing more is sealed after that.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The chain.
pub struct Chain {
    nodes: Nodes,
    blocks: Vec<Block>,
    by_hash: HashMap<H256, usize>,
    log: Log,
    events: EventCounts,
}

impl Chain {
    /// Opens the chain logged at `path`, or starts one there with the state of `genesis`.
    ///
    /// # Errors
    /// If the log can't be read or written, is of another kind, or its blocks don't give the states they claim.
    pub fn open(path: &Path, genesis: impl FnOnce() -> RuntimeGenesisConfig) -> Result<Self, ChainError> {
        let (log, records) = Log::open::<Record>(path)?;
        let mut chain = Self {
            nodes: Nodes::default(),
            blocks: Vec::new(),
            by_hash: HashMap::new(),
            log,
            events: EventCounts::default(),
        };
        for record in records {
            chain.replay(record?)?;
        }
        chain.log.cut_torn_tail()?;
        if chain.blocks.is_empty() {
            chain.begin(genesis())?;
        }
        Ok(chain)
    }

    fn begin(&mut self, genesis: RuntimeGenesisConfig) -> Result<(), ChainError> {
        let storage = genesis.build_storage().map_err(ChainError::Genesis)?;
        let changes: Vec<Change> = storage.top.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let root = self.nodes.apply(Nodes::empty_root(), &changes)?;
        let no_extrinsics = Nodes::empty_root();
        let header = Header::new(0, no_extrinsics, root, H256::zero(), Default::default());
        self.commit(Record {
            header,
            body: Vec::new(),
            changes,
        })
    }

    fn replay(&mut self, record: Record) -> Result<(), ChainError> {
        let parent = self
            .blocks
            .last()
            .map_or_else(Nodes::empty_root, |block| *block.header.state_root());
        let root = self.nodes.apply(parent, &record.changes)?;
        if root != *record.header.state_root() {
            return Err(ChainError::RootMismatch(*record.header.number()));
        }
        self.enter(record);
        Ok(())
    }

    /// Makes a block durable, then known. Its nodes are in the store already.
    fn commit(&mut self, record: Record) -> Result<(), ChainError> {
        self.log.append(&record)?;
        self.enter(record);
        Ok(())
    }

    fn enter(&mut self, record: Record) {
        self.events.count(&record.changes);
        let hash = record.header.hash();
        self.by_hash.insert(hash, self.blocks.len());
        self.blocks.push(Block {
            hash,
            header: record.header,
            body: record.body,
        });
    }

    /// The newest block.
    pub fn best(&self) -> &Block {
        self.blocks.last().expect("there is a genesis block since open")
    }

    /// Number of the newest block.
    pub fn height(&self) -> u32 {
        *self.best().header.number()
    }

    /// The block at a height.
    pub fn at_height(&self, number: u32) -> Option<&Block> {
        self.blocks.get(usize::try_from(number).ok()?)
    }

    /// The block with a hash; the newest for `None`.
    ///
    /// # Errors
    /// If there is none.
    pub fn block(&self, hash: Option<H256>) -> Result<&Block, ChainError> {
        match hash {
            None => Ok(self.best()),
            Some(hash) => Ok(&self.blocks[*self.by_hash.get(&hash).ok_or(ChainError::UnknownBlock)?]),
        }
    }

    /// Hash of block 0.
    pub fn genesis_hash(&self) -> H256 {
        self.blocks[0].hash
    }

    /// How often each event of CESS's pallets happened since block 0.
    pub fn events(&self) -> &EventCounts {
        &self.events
    }

    /// A value of the state after a block.
    ///
    /// # Errors
    /// If there is no such block.
    pub fn storage(&self, at: Option<H256>, key: &[u8]) -> Result<Option<Vec<u8>>, ChainError> {
        self.nodes.value(*self.block(at)?.header.state_root(), key)
    }

    /// Up to `count` keys that begin with `prefix`, in order, after `start`.
    ///
    /// # Errors
    /// If there is no such block.
    pub fn keys(
        &self,
        at: Option<H256>,
        prefix: &[u8],
        count: usize,
        start: Option<&[u8]>,
    ) -> Result<Vec<Vec<u8>>, ChainError> {
        self.nodes
            .keys(*self.block(at)?.header.state_root(), prefix, count, start)
    }
}

/// Hash that names a transaction.
pub fn transaction_hash(extrinsic: &[u8]) -> H256 {
    use sp_runtime::traits::Hash;
    BlakeTwo256::hash(extrinsic)
}

#[cfg(test)]
mod tests;
