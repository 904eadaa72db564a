//! Names of things that keys are bound to.

/// Name of a chunk: keyed BLAKE3 of its plaintext, so equal chunks of one volume are one, and nothing links two volumes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ChunkId(pub [u8; 32]);

/// Random name of a volume, drawn when it is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct VolumeId(pub [u8; 16]);

/// Number of a pack within its volume, from 1, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PackSeq(pub u64);
