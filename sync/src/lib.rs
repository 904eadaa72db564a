//! Packs, chain, miners and the pipeline between them.
//!
//! Knows chunks and packs; knows no path, no inode and no errno. Chunks come in through [`ChunkStore`]; the metadata
//! delta that travels with them is asked for through [`DeltaSource`], the only upcall. [`recovery`] reads back what is on the
//! network when nothing is left here. Everything slow or fallible is
//! behind a seam with a real and a simulated side: [`Chain`], [`FragmentStore`], [`Clock`], [`MetaStore`].

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests have threads and wait for them")
)]

pub mod ballast;
mod builder;
pub mod chain;
pub mod check;
pub mod chunk_store;
pub mod clock;
mod deltas;
mod dice;
pub mod disk;
pub mod engine;
pub mod foreground;
pub mod fragment_store;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod ledger;
pub mod limits;
mod miners;
pub mod pack;
mod pipeline;
mod printable;
pub mod priority;
mod ranges;
mod reader;
pub mod recovery;
pub mod rules;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod stages;
mod staging;
pub mod store;
pub mod tasks;
pub mod upkeep;
mod watched;

pub use cessfs_erasure as erasure;
pub use chain::Chain;
pub use chunk_store::{ChunkSink, ChunkStore, CutCause, DeltaSource, FetchError, Standing};
pub use clock::Clock;
pub use deltas::FrameSink;
pub use engine::{Config, Engine, Seams};
pub use foreground::Foreground;
pub use fragment_store::FragmentStore;
pub use pipeline::UplinkLimit;
pub use store::{Batch, MetaStore, StoreError};
pub use tasks::Tasks;
