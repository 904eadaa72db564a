//! The metadata delta: what a pack must carry beside chunks so that packs alone restore the tree.
//!
//! Every change of a record leaves a mark ([`Marks`]). When the pipeline seals a pack it asks for a cut ([`cut`]): the
//! marked records as they were at one instant, as frames ([`frame`], `docs/FORMAT-delta.md`). Only after the pack is
//! durable are those marks cleared; a cut that is given up loses nothing.

pub(crate) mod cut;
pub mod frame;
mod freeze;
mod liveness;
mod marks;

#[cfg(test)]
pub(crate) use marks::SAVED_PREFIX;
pub use marks::{Marks, MutationGuard};
