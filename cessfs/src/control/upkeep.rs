//! What `scrub`, `repair` and `gc` tell.

use serde::{Deserialize, Serialize};

/// A pack of which columns are bad.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Damaged {
    /// Its number.
    pub pack: u64,
    /// Good columns of twelve; four are needed.
    pub good: u8,
    /// `watch`, `rewrite`, `urgent` or `lost`; none where it is not told.
    pub grade: Option<String>,
}

/// Answer to `scrub`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scrubbed {
    /// Packs looked at.
    pub packs: u64,
    /// Bytes read from miners.
    pub bytes_read: u64,
    /// Those that are not whole.
    pub damaged: Vec<Damaged>,
}

/// Answer to `repair`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Repaired {
    /// Packs that were rewritten.
    pub rewritten: Vec<u64>,
    /// Chunks that moved.
    pub chunks: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Old packs that were deleted from the chain.
    pub deleted: Vec<u64>,
    /// Packs that are lost.
    pub lost: Vec<u64>,
}

/// Answer to `gc`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Collected {
    /// Nothing was done.
    pub dry_run: bool,
    /// Sealed bytes that files need.
    pub live_bytes: u64,
    /// Bytes of packs that nobody needs, padding included.
    pub dead_bytes: u64,
    /// Packs that were (or would be) emptied.
    pub chosen: Vec<u64>,
    /// Sealed bytes that move (or would) out of them.
    pub moving_bytes: u64,
    /// Territory bytes that come back for them once they are deleted, less what the new packs cost.
    pub gain_bytes: u64,
    /// Packs deleted from the chain.
    pub deleted: Vec<u64>,
    /// Territory bytes that came back for them.
    pub freed_bytes: u64,
    /// Packs that are empty and kept for the history.
    pub kept: Vec<u64>,
}

/// A file with lost content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LostFile {
    /// From the volume's root.
    pub path: String,
    /// Chunks it has.
    pub chunks: u64,
    /// Those that cannot be had.
    pub missing_chunks: u64,
}
