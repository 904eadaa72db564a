//! Whole lives of a volume in a simulated world: one seed, one schedule.
//!
//! The real vfs over the real engine over a journal in memory, a simulated chain and simulated miners, in one thread, on a clock
//! that jumps. See [`run`].

mod actors;
mod chain;
mod chaos;
mod clock;
mod death;
mod device;
mod dice;
mod disk;
mod miners;
mod model;
mod restorer;
mod run;
mod trace;

pub use run::{Options, Outcome, simulate};
