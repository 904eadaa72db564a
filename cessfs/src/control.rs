//! The control socket: how the verbs talk to a volume's daemon.
//!
//! A Unix socket in the volume's private directory; one JSON object per line, at most
//! [`CONTROL_LINE_MAX`] bytes, each with the protocol's version. A request is one line; the
//! answer is any number of [`Event`]s and then one [`Reply`] or a failure. What is long goes in many lines ([`pages`]), and what has no
//! bound of its own is cut ([`bounds`]): no answer is longer than a line may be.

mod bounds;
pub mod client;
mod pages;
pub mod server;
pub mod serving;
#[cfg(test)]
mod tests;
mod upkeep;

use crate::config::LogLevel;
use crate::exit::{Exit, Failure};
use crate::limits::CONTROL_LINE_MAX;
use crate::timings::StageTimes;
pub use pages::Page;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
pub use upkeep::{Collected, Damaged, LostFile, Repaired, Scrubbed};

/// Version of the protocol; a daemon of another version says so instead of guessing.
pub const PROTOCOL: u32 = 1;

/// A request as it is on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`PROTOCOL`].
    pub v: u32,
    /// What is asked.
    pub op: Op,
}

/// What a daemon that is asked to end sends to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sends {
    /// Nothing more: it rests on this disk until the next mount.
    Never,
    /// Everything, before it unmounts and answers.
    Before,
    /// The same afterwards.
    After,
}

/// What can be asked of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// How it is.
    Status,
    /// How it is without asking the chain, and what its stages have counted.
    Timings,
    /// Send off everything written so far.
    Sync {
        /// Until it is confirmed on the network.
        wait: bool,
    },
    /// Drop what the network has from the cache.
    Evict,
    /// Where a file's bytes are.
    Explain {
        /// Path within the volume, hex of its bytes (names need not be UTF-8).
        path_hex: String,
    },
    /// Set, show or clear the quota of a directory's tree.
    Quota {
        /// Path within the volume, hex of its bytes; none: of all trees.
        path_hex: Option<String>,
        /// What to do.
        change: QuotaChange,
    },
    /// What is in the trash.
    TrashList,
    /// Delete what is in the trash for good.
    TrashEmpty {
        /// These entries; none given: all.
        ids: Vec<u64>,
    },
    /// Take a snapshot.
    SnapshotCreate {
        /// What it is called.
        name: String,
    },
    /// Tell the snapshots.
    SnapshotList,
    /// Delete a snapshot.
    SnapshotDelete {
        /// Which.
        name: String,
    },
    /// Tell how two trees differ.
    SnapshotDiff {
        /// The older one.
        old: String,
        /// The newer one; none: the volume as it is now.
        new: Option<String>,
    },
    /// Tell what is not known to be on the network.
    Unsent,
    /// Look at what miners hold.
    Scrub {
        /// Every byte of it.
        full: bool,
        /// Bytes a second at most; none: as configured.
        rate: Option<u64>,
    },
    /// Rewrite damaged packs.
    Repair,
    /// Give back the space of what is dead.
    Collect {
        /// Only tell what would be done.
        dry_run: bool,
    },
    /// Unmount and end.
    Shutdown {
        /// What is sent to the network, and when.
        sends: Sends,
    },
    /// Change what is logged, until the next mount.
    SetLogLevel {
        /// From now on.
        level: LogLevel,
    },
}

impl Op {
    /// Whether it may wait for the network for as long as that is away.
    pub fn may_wait_long(&self) -> bool {
        matches!(
            self,
            Op::Sync { wait: true }
                | Op::SnapshotCreate { .. }
                | Op::SnapshotDiff { .. }
                | Op::Unsent
                | Op::Scrub { .. }
                | Op::Repair
                | Op::Collect { dry_run: false }
                | Op::Shutdown { sends: Sends::Before }
        )
    }
}

/// A line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// More will come.
    Event(Event),
    /// The end, well.
    Done(Reply),
    /// The end, badly.
    Failed(Failure),
}

/// What is told on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// How far a sync is.
    Progress(Progress),
    /// One chunk of an explained file.
    Chunk(Box<ChunkPlace>),
    /// One entry of the trash.
    Trashed(Box<Trashed>),
    /// One quota.
    Quota(QuotaNumbers),
    /// One snapshot.
    Snapshot(Box<SnapshotNumbers>),
    /// One path that differs.
    Difference(Box<DiffEntry>),
    /// One path that is not known to be on the network.
    Unsent(Box<UnsentPath>),
    /// One stage.
    Stage(Box<StageTimes>),
    /// A part of the reply.
    Page(Page),
}

/// How far a sync is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Changed bytes that are not yet in a pack.
    pub dirty_bytes: u64,
    /// Bytes in packs that are not confirmed yet.
    pub unsent_bytes: u64,
    /// What it waits for, if it is stuck.
    pub blocked: Option<String>,
}

/// The end of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To `Status`, and to `Timings` after its stages.
    Status(Box<Status>),
    /// To `Sync`.
    Synced,
    /// To `Evict`.
    Evicted(Evicted),
    /// To `Explain`, after its chunks.
    Explained(Explained),
    /// To `TrashList`, after its entries.
    TrashListed,
    /// To `TrashEmpty`.
    TrashEmptied {
        /// Files deleted for good.
        files: u64,
    },
    /// To `Quota`, after the quotas.
    QuotaTold,
    /// To what is about snapshots, after its entries; and to `Unsent`.
    Told,
    /// To `Scrub`.
    Scrubbed(Scrubbed),
    /// To `Repair`.
    Repaired(Repaired),
    /// To `Collect`.
    Collected(Collected),
    /// To `Shutdown`: the mount is gone, the daemon is closing its files.
    Closing {
        /// Bytes that will be sent at the next mount.
        unsent_bytes: u64,
    },
    /// To what has no other answer.
    Ok,
}

/// What to do with a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuotaChange {
    /// Nothing: tell it.
    Show,
    /// Change what is given, keep or leave unlimited what is not; 0: no limit.
    Set {
        /// Bytes at most.
        bytes: Option<u64>,
        /// Inodes at most.
        inodes: Option<u64>,
    },
    /// There shall be none.
    Clear,
}

/// A quota, and what is used of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaNumbers {
    /// Number of the directory it is set on.
    pub inode: u64,
    /// Where that is from the volume's root, if it is known; bytes that are not UTF-8 show as `\u{fffd}`.
    pub path: Option<String>,
    /// Bytes at most; 0: any number.
    pub bytes_max: u64,
    /// Bytes used: allocated blocks.
    pub bytes_used: u64,
    /// Inodes at most; 0: any number.
    pub inodes_max: u64,
    /// Inodes used, the directory itself included.
    pub inodes_used: u64,
}

/// Something in the trash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trashed {
    /// Its number there.
    pub id: u64,
    /// Bytes.
    pub size: u64,
    /// When it was deleted: seconds since the Unix epoch.
    pub deleted: i64,
    /// Its path from the volume's root before; only its name where the rest is not known.
    pub path: String,
    /// The same, hex of its bytes (names need not be UTF-8).
    pub path_hex: String,
    /// The whole path is known.
    pub path_known: bool,
    /// Hex of its name in `.cessfs/trash`.
    pub entry_hex: String,
}

/// A snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotNumbers {
    /// Its name.
    pub name: String,
    /// When it was taken: seconds since the Unix epoch.
    pub taken: i64,
    /// The pack that it is the tree of.
    pub pack: u64,
    /// State of that pack: `sealed`, `declaring`, `placing`, `stored` or `confirmed`; `unknown` if it is not listed here.
    pub state: String,
    /// Everything it needs is on the network.
    pub on_network: bool,
}

/// A path that differs between two trees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffEntry {
    /// `added`, `removed`, `changed` or `renamed`.
    pub change: String,
    /// `file`, `directory`, …
    pub kind: String,
    /// The path from the volume's root; the new one, if there is one. Bytes that are not UTF-8 show as `\u{fffd}`.
    pub path: String,
    /// The same, hex of its bytes.
    pub path_hex: String,
    /// Renamed: the path it had.
    pub from: Option<String>,
    /// The same, hex of its bytes.
    pub from_hex: Option<String>,
}

/// A path that is not known to be on the network as it is here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsentPath {
    /// The path from the volume's root; bytes that are not UTF-8 show as `\u{fffd}`.
    pub path: String,
    /// The same, hex of its bytes.
    pub path_hex: String,
    /// `file`, `directory`, …
    pub kind: String,
}

/// What an eviction did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evicted {
    /// Bytes given back to the disk.
    pub evicted_bytes: u64,
    /// Bytes still in the cache.
    pub kept_bytes: u64,
    /// Chunks kept because the network does not have them for certain.
    pub kept_unconfirmed_chunks: u64,
}

/// What an explained path is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// Inode number.
    pub inode: u64,
    /// `file`, `directory`, …
    pub kind: String,
    /// Bytes.
    pub size: u64,
    /// The content is so small that it lies in the metadata and travels with it.
    pub inline: bool,
}

/// Where one chunk of a file is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkPlace {
    /// Number of the chunk within the file; a chunk is 1 MiB.
    pub index: u64,
    /// Bytes of it.
    pub len: u32,
    /// Its id (hex); none while it was never sent.
    pub id: Option<String>,
    /// `unknown`, `open`, `sealed`, `stored` or `confirmed`.
    pub standing: String,
    /// It is in the local cache.
    pub resident: bool,
    /// The cache has newer content than the network.
    pub dirty: bool,
    /// The pack that holds it.
    pub pack: Option<PackPlace>,
}

/// Where in a pack a chunk lies, and who holds that part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackPlace {
    /// Number of the pack within the volume.
    pub seq: u64,
    /// File id on chain (hex); none before it is declared.
    pub fid: Option<String>,
    /// State of the pack.
    pub state: String,
    /// Byte offset within the pack.
    pub offset: u64,
    /// Segments that the chunk touches.
    pub segments: Vec<u32>,
    /// Data columns (0..4) that hold the chunk itself.
    pub columns: Vec<u8>,
    /// The twelve holders of those segments, by column; empty before the pack is stored.
    pub miners: Vec<MinerPlace>,
}

/// One miner of a pack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinerPlace {
    /// Column, 0..12; the first four hold data.
    pub column: u8,
    /// Account (SS58).
    pub account: String,
    /// Where it answers, if it is known.
    pub endpoint: Option<String>,
}

/// What `status` tells. Additions are compatible; nothing is renamed or removed (docs/CLI_ABI.md).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The volume.
    pub name: String,
    /// `mounted`, `closing` or `unmounted`.
    pub state: String,
    /// The daemon.
    pub pid: Option<u32>,
    /// Where it is mounted.
    pub mountpoint: Option<String>,
    /// The last daemon was killed or fell over: the numbers are those of the last that closed the volume.
    pub died: bool,
    /// Device number of the mount, `MAJOR:MINOR`; none once it is gone.
    pub device: Option<String>,
    /// `sealed` or `plain`.
    pub at_rest: String,
    /// Changes are refused.
    pub read_only: bool,
    /// Changed bytes not yet in a pack.
    pub dirty_bytes: u64,
    /// Bytes in packs that are not confirmed yet.
    pub unsent_bytes: u64,
    /// Where what changes stays in the cache for now.
    pub unsent_bound_bytes: u64,
    /// Bytes of the cache on disk.
    pub cache_bytes: u64,
    /// Most bytes of the cache on disk.
    pub cache_bound_bytes: u64,
    /// Inodes.
    pub files: u64,
    /// Deleted files that can be had back.
    pub trash_files: u64,
    /// Bytes that they take.
    pub trash_bytes: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Of how many of them the tree is kept on this disk.
    pub snapshot_trees: u64,
    /// Why changes are refused, if it is not because the mount was asked to be read-only.
    pub read_only_reason: Option<String>,
    /// What a recovery could not bring back: metadata in packs that nobody could give.
    pub lost: Vec<String>,
    /// How many more of those there are.
    pub lost_left_out: u64,
    /// How many packs are in which state.
    pub packs: BTreeMap<String, u64>,
    /// Packs that the network is to hold, by what is known of their columns.
    pub pack_health: BTreeMap<String, u64>,
    /// Those that are not whole, the first of them.
    pub damaged_packs: Vec<Damaged>,
    /// Files with content that fewer than four miners have, the first of them.
    pub lost_files: Vec<LostFile>,
    /// How many such files there are.
    pub lost_file_count: u64,
    /// Since when every pack has been looked at, seconds since 1970; none: one never was.
    pub scrubbed_at: Option<u64>,
    /// Sealed bytes on the network that files need; none before they were counted.
    pub live_bytes: Option<u64>,
    /// Bytes on the network that nobody needs, padding included.
    pub dead_bytes: Option<u64>,
    /// What the pipeline waits for, if it is stuck.
    pub blocked: Option<String>,
    /// RPC endpoint.
    pub rpc: String,
    /// The chain answers.
    pub chain_reachable: bool,
    /// SS58 address.
    pub account: String,
    /// Free balance in planck, as text (it does not fit a JSON number); none while the chain is away.
    pub balance: Option<String>,
    /// Symbol of the token.
    pub token: String,
    /// The territory; none while the chain is away or when there is none.
    pub territory: Option<TerritoryStatus>,
    /// Troubles, oldest first.
    pub errors: Vec<String>,
    /// How many more of those there are, most of them older.
    pub errors_left_out: u64,
}

/// A territory as `status` and `territory show` tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerritoryStatus {
    /// Its name.
    pub name: String,
    /// `active`, `frozen`, `expired` or `on-consignment`.
    pub state: String,
    /// Bytes bought.
    pub total_bytes: u64,
    /// Bytes charged.
    pub used_bytes: u64,
    /// Bytes held for packs under way.
    pub locked_bytes: u64,
    /// Bytes left.
    pub remaining_bytes: u64,
    /// Block at which it freezes.
    pub deadline_block: u32,
    /// Seconds until then, at 6 s a block.
    pub seconds_left: u64,
}

/// One line.
///
/// # Panics
/// Never: these types have a JSON form.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("control messages have a JSON form");
    line.push(b'\n');
    line
}

/// More came, or would have to go, than a line may have.
fn too_long() -> Failure {
    Failure::new(Exit::Failed, "what is on the control socket is too long")
        .hint("the daemon is there and goes on; the volume's log may tell the rest")
}

/// A line back.
///
/// # Errors
/// [`Exit::Failed`] when it is too long or not understood.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, Failure> {
    if line.len() > CONTROL_LINE_MAX {
        return Err(too_long());
    }
    serde_json::from_slice(line).map_err(|e| {
        Failure::new(
            Exit::Failed,
            format!("the control socket sent what this cessfs cannot read: {e}"),
        )
    })
}

/// Checks a request line.
///
/// # Errors
/// [`Exit::Failed`] when it is not of this protocol.
pub fn decode_request(line: &[u8]) -> Result<Op, Failure> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    // The version is read first: another version's operations need not be understood to be refused well.
    let version: Version = decode(line)?;
    if version.v != PROTOCOL {
        let what = format!(
            "the daemon speaks control protocol {PROTOCOL}, the request {}",
            version.v
        );
        return Err(Failure::new(Exit::Failed, what)
            .hint("`umount DIR` (or `fusermount3 -u DIR`), and mount again with the cessfs installed now"));
    }
    decode::<Request>(line).map(|request| request.op)
}
