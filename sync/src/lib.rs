//! Packs, chain, miners.
