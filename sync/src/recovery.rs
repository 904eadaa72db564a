//! Recovery: what the network holds of an account, read back without any local state.
//!
//! ```text
//! files of the account ──▶ labels that open: packs of which volume ──▶ footer and directory of each pack
//!                                                                             │ plan: newest complete history
//!                  journal of an engine that goes on ◀── where chunks lie ────┤
//!                                                vfs ◀── delta frames ────────┘
//! ```
//!
//! Promises: only packs whose frames open with the volume's keys count, so that files somebody else put into the account, also
//! under a copied label, change nothing; no whole pack is read, only footers, directories and the deltas that are needed;
//! what cannot be read is told, never guessed. Refuses to know what a delta says.

mod archive;
mod install;
mod parting;
mod plan;
mod staged;
mod survey;
mod twins;

pub use archive::{Archive, ArchiveParts, LostPack, Pack, Packs};
pub use install::{Continuation, has_chunk, install};
pub(crate) use parting::Parting;
pub use plan::{At, NoPlan, Plan, Point};
pub use staged::{StagedPacks, staged_deltas, take_staged};
pub use survey::{Found, Survey, survey};

/// What a recovery is doing, for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Files of the account that were looked at, of so many.
    Files(usize, usize),
    /// Packs whose directory was read, of so many.
    Packs(usize, usize),
}

/// Sees the steps.
pub type Tell<'a> = &'a (dyn Fn(Step) + Send + Sync);

#[cfg(test)]
mod tests;
