//! Whole lives of a volume in a simulated world: one seed, one schedule.
//!
//! The real vfs over the real engine over a journal in memory, a simulated chain and simulated miners, in one thread, on a clock
//! that jumps to the next thing that somebody waits for (`docs/decisions/0008-simulation.md`).
//!
//! **Fault atlas.** Faults come in any mixture, but never so many that what was promised could not be kept:
//!
//! | zone | may | but |
//! |---|---|---|
//! | miners, 20 to 40 | refuse, stall, slow down, reset, corrupt a byte, lie on a range, drop what they accepted, report and forget, keep silent | at most eight at a time, so every pack keeps four good columns; all of them are well at the end |
//! | columns, for good | be lost by their miner while the volume lives | two of each pack, and only six miners misbehave then; packs that were not read back yet among them |
//! | columns, at the end | be destroyed | eight of each pack, with those lost before; all twelve of a pack that nobody relies on: not Confirmed, not recovered from, or doubted and replaced |
//! | chain | fork what is not final, lose transactions in forks, lag in finality, pause the call | what is final stays |
//! | RPC node | be away, lag by up to 20 blocks, reset, leave things out of one answer in twenty | who recovers asks an honest one: one node alone can hide the newest packs from a new machine, and that is not promised |
//! | declarations, deletions | be lost, be included up to 31 blocks late, lose their answer, lose a nonce race | a transaction lives 32 blocks |
//! | owner | run out of funds, let the territory freeze, expire or fill | pays in the end; expiry drops open deals, and stored files stay, as they do when it is given up and bought again before the purge |
//! | process | die at any moment, and between any two journal batches | |
//! | journal | lose any batches after the last barrier | an atomic prefix stays: that is its contract |
//! | staged bodies | be cut short, holed or gone in a power cut | not those that were made durable |
//! | machines | be taken over by a second one, and not know | one at a time writes |

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
#[cfg(test)]
mod offline;
mod panics;
mod restorer;
mod run;
mod trace;

pub use cessfs_sync::rules::Rule;
pub use run::{Options, Outcome, simulate};
