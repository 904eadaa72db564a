//! A CESS network in one process: a chain with CESS's rules, and miners that serve over HTTP.
//!
//! `runtime` has the rules; [`chain`] makes blocks of them and keeps them; [`node`] gives the chain a pace, a pool and
//! watchers; [`rpc`] speaks to clients; [`miner`] stores fragments and sees the chain through [`seam`]; [`network`] puts
//! all that into one directory, and [`control`] is the owner's door to it. Clients of the network under test see only
//! [`rpc`] and the miners' HTTP.

pub mod chain;
pub mod control;
pub mod limits;
pub mod miner;
pub mod network;
pub mod node;
pub mod rpc;
pub mod seam;
