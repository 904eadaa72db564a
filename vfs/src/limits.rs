//! Every bound of the vfs crate, by name.

use std::time::Duration;

/// Bytes of a name.
pub const NAME_BYTES_MAX: usize = 255;
/// Hard links of one inode.
pub const NLINK_MAX: u32 = 65_000;
/// Bytes of a backing block: the unit of allocation, of sealing at rest and of `st_blocks`.
pub const BLOCK_BYTES: u64 = 4096;
/// Blocks of a chunk.
pub const CHUNK_BLOCKS: usize = cessfs_sync::limits::CHUNK_BYTES / BLOCK_BYTES as usize;
/// Files up to this many bytes live inline in the metadata store and travel in the delta.
pub const INLINE_BYTES_MAX: usize = 4096;
/// Bytes up to which a file stays a record while it is young.
pub const YOUNG_BYTES_MAX: usize = 16 << 10;
/// How long it is young, from when it outgrew [`INLINE_BYTES_MAX`].
pub const YOUNG_AGE_MAX: Duration = Duration::from_secs(5);
/// Young files of a volume at a time: 16 MiB of records.
pub const YOUNG_FILES_MAX: usize = 1024;
/// Bytes that a disk writes as a whole at least, whatever happens to its power.
pub const SECTOR_BYTES: usize = 512;
/// Bytes of one xattr value (Linux: XATTR_SIZE_MAX).
pub const XATTR_VALUE_MAX: usize = 65_536;
/// Largest file: what an `off_t` can say.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Links of a directory (2 + subdirectories): what a signed 32-bit count can say, as XFS has it.
pub const DIR_NLINK_MAX: u32 = i32::MAX as u32;
/// Bytes of a symlink's target (Linux: PATH_MAX less the final NUL).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Bytes of an xattr name (Linux: XATTR_NAME_MAX).
pub const XATTR_NAME_MAX: usize = 255;
/// Bytes of the list of an inode's xattr names, NULs included (Linux: XATTR_LIST_MAX).
pub const XATTR_LIST_MAX: usize = 65_536;
/// Xattrs of one inode: as many as always fit the list.
pub const XATTRS_MAX: u32 = (XATTR_LIST_MAX / (XATTR_NAME_MAX + 1)) as u32;
/// Inodes kept in memory though nobody uses them; about 400 bytes each.
pub const INODES_CACHED_MAX: usize = 65_536;
/// Locks the inode table is spread over.
pub const INODE_SHARDS: usize = 16;
/// Least recently used inodes looked at for one that may go, per insertion.
pub const INODE_EVICT_TRIES: usize = 8;
/// Reads of a record without the table's lock before one is made with it.
pub const INODE_LOAD_TRIES: usize = 3;
/// Inode numbers reserved at a time; a crash skips at most this many.
pub const INO_BLOCK: u64 = 4096;
/// Dentry buckets (also empty ones: names that are not there) kept in memory.
pub const DENTRIES_CACHED_MAX: usize = 65_536;
/// Locks the dentry cache is spread over.
pub const DENTRY_SHARDS: usize = 16;
/// Records read at a time by a directory listing or a sweep of the store.
pub const SCAN_PAGE: usize = 256;
/// Records read at a time by a sweep over all inodes: few scans, and still at most about half a MiB.
pub const SWEEP_PAGE: usize = 4096;
/// Bits of the filter that knows which marks may be there, 256 KiB: at 200,000 marks one new one in a hundred is looked up.
pub const MARKS_TRIED_BITS: usize = 1 << 21;
/// Change marks counted after a crash: beyond it there is enough for a pack anyway.
pub const MARKS_COUNTED_MAX: u64 = 1 << 18;
/// Pages of change marks that no longer count, deleted by one round of housekeeping.
pub const MARK_SWEEP_PAGES: usize = 4;
/// Inodes whose access times may run ahead of the store before all of them are journaled.
pub const LAZY_INODES_MAX: usize = 4096;
/// Inodes journaled by one batch when lazy changes are written.
pub const LAZY_BATCH: usize = 64;
/// Directories whose names are remembered; about 100 bytes each.
pub const PLACES_MAX: usize = 16_384;
/// Names that may share one 62-bit hash: two is luck, this many is an attack on the key.
pub const BUCKET_NAMES_MAX: usize = 64;
/// Inodes that `statfs` promises; numbers have 64 bits, the disk ends first.
pub const INODES_MAX: u64 = 1 << 40;
/// Directories on the way up to the root: beyond it the way is taken for a loop.
pub const TREE_DEPTH_MAX: usize = 1 << 20;
/// Sentences that a check of the tree gives; whoever needs more has lost the tree.
pub const FINDINGS_MAX: usize = 1000;
/// Files with missing content that a restore names; the rest is counted.
pub const MISSING_FILES_MAX: usize = 10_000;
/// Of those, how many the volume itself remembers and tells in `status`.
pub const MISSING_NOTES_MAX: usize = 64;

/// Files with lost content that are named.
pub const LOST_FILES_MAX: usize = 1000;

const _: () = assert!(YOUNG_BYTES_MAX <= cessfs_sync::limits::CHUNK_BYTES);
const _: () = assert!(PENDING_CHUNKS_MAX < EXTENTS_CACHED_MAX && UNSYNCED_CHUNKS_MAX < EXTENTS_CACHED_MAX);
const _: () = assert!(INODES_CACHED_MAX.is_multiple_of(INODE_SHARDS));
const _: () = assert!(DENTRIES_CACHED_MAX.is_multiple_of(DENTRY_SHARDS));
const _: () = assert!(XATTRS_MAX as usize * (XATTR_NAME_MAX + 1) <= XATTR_LIST_MAX);
/// Bytes of the path that is remembered of something in the trash (Linux: PATH_MAX less the final NUL).
pub const TRASH_PATH_BYTES_MAX: usize = 4095;
/// Entries of the trash that expire, or go for room, between two looks at the clock and the room.
pub const TRASH_BATCH: usize = 64;
/// How often the trash is looked over.
pub const TRASH_TICK: Duration = Duration::from_secs(1);
/// Rounds of making room from the trash that one write asks for before it fails.
pub const TRASH_ROOM_ROUNDS: usize = 64;
/// Bytes that a marked record is taken to add to a delta, for a rough size of what is pending.
pub const DELTA_RECORD_BYTES: u64 = 128;
/// Directories that backing files are spread over: one per value of the inode number's low byte.
pub const BACKING_DIRS: usize = 256;
/// Chunks of a file in one part of its backing file: 1 TiB of content, about 2 TiB when sealed; ext4 ends at 16 TiB.
pub const BACKING_PART_CHUNKS: u64 = 1 << 20;
/// Descriptors of backing files kept open.
pub const BACKING_PARTS_OPEN_MAX: usize = 512;
/// One in so many of the descriptors that the process may open, at most, is such a one: most are for the database and for miners.
pub const PARTS_OPEN_SHARE: usize = 4;
/// One in so many, at most, is that of a file that passes, see [`PASSES_MAX`].
pub const PARTS_PINNED_SHARE: usize = 8;
/// Tag tables of sealed chunks kept in memory, about 17 KiB each.
pub const TAG_TABLES_MAX: usize = 1024;
/// Buffers of at most a chunk each that sealed blocks are written from, kept for the next write.
pub const SEAL_BUFFERS_MAX: usize = 4;
/// Bytes of a write that are worth being sealed before the inode is locked.
pub const PREPARE_BYTES_MIN: usize = 32 << 10;
/// Bytes of a write into one chunk with which the disk begins at once, instead of with the next sync. Large enough to be
/// written in one go, and by programs that write much in order.
pub const WRITE_AHEAD_BYTES_MIN: usize = 256 << 10;
/// Stale slots in a chunk that are worth a round of hole punching.
pub const STALE_BLOCKS_MIN: usize = 16;
/// Chunk states kept in memory per live inode, beside those that are ahead of the store; about 300 bytes each.
pub const EXTENTS_CACHED_MAX: usize = 256;
/// Written chunks of one inode that may be ahead of the store.
pub const PENDING_CHUNKS_MAX: usize = 32;
/// Bytes written to one inode before its extents and size are journaled, if nobody asked earlier.
pub const PENDING_BYTES_MAX: u64 = 8 << 20;
/// How long extents and size may be ahead of the store.
pub const PENDING_AGE_MAX: Duration = Duration::from_secs(1);
/// Chunks of one inode that may wait for a sync before they are journaled.
pub const UNSYNCED_CHUNKS_MAX: usize = 64;
/// Blocks that one fsync puts into the store instead of syncing the backing file.
pub const FSYNC_LOG_BLOCKS_MAX: usize = 32;
/// Blocks of all inodes that are in the store for that: after a crash so many are read back before the mount.
pub const LOGGED_BLOCKS_MAX: usize = 1024;
/// How long they may be there before their backing file is synced.
pub const LOGGED_AGE_MAX: Duration = Duration::from_secs(5);
/// Inodes synced one by one; more are synced by one call for the whole filesystem.
pub const SYNC_EACH_MAX: usize = 16;
/// Fetches that one read or write tries when the content changes under it.
pub const FETCH_ROUNDS_MAX: usize = 8;
/// How often a writer that waits for room in the cache looks again.
pub const ROOM_POLL: Duration = Duration::from_millis(50);
/// How long a writer waits for room in the cache before it is told that there is none, unless configured (`full_wait`).
pub const ROOM_WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// Part of the cache's size that content not yet sent may take beyond it: one eighth, at least this many bytes.
pub const CACHE_SLACK_BYTES_MIN: u64 = 16 << 20;
/// Eviction goes on until the cache takes at most this percentage of its bound.
pub const EVICT_TO_PERCENT: u64 = 90;
/// Chunks evicted by one batch and barrier.
pub const EVICT_BATCH: usize = 32;
/// Files of the cache, the least recently used ones, that an eviction remembers at a time, about 40 bytes each. Where they are not
/// enough the cache is listed once more.
pub const EVICT_FILES_MAX: usize = 65_536;
/// Bytes that the cache gives up for somebody who finds no room, before he goes on; the rest is the background's.
pub const GIVE_WAY_BYTES: u64 = 32 << 20;
/// How long he waits for an eviction that is running.
pub const GIVE_WAY_WAIT: Duration = Duration::from_secs(1);
/// Pause after an eviction that could not make enough room.
pub const EVICT_PAUSE: Duration = Duration::from_secs(1);
/// Inodes whose last use is remembered for eviction.
pub const RECENT_INODES_MAX: usize = 65_536;
/// Messages kept for `errors`.
pub const ERRORS_KEPT_MAX: usize = 256;
/// Reads in a row, each where the last one ended, that make a sequential reader.
pub const PREFETCH_STREAK: u32 = 2;
/// A read this far from where the last one ended still counts as the next.
pub const PREFETCH_DISORDER_BYTES: u64 = 1 << 20;
/// Chunks hinted at ahead of a sequential reader.
pub const PREFETCH_CHUNKS: u64 = 8;
/// Directories of which is remembered in what order their files were listed.
pub const LISTINGS_MAX: usize = 256;
/// Files of each that are remembered.
pub const LISTED_FILES_MAX: usize = 1024;
/// Files of all of them, about 60 bytes each.
pub const LISTED_FILES_ALL_MAX: usize = 16_384;
/// Files that were read of a directory before others of it are read ahead.
pub const LISTED_STREAK: usize = 3;
/// Files that are read ahead of somebody who read as many: fewer at first, more than chunks may be on their way in the end, since
/// many are small enough to be records.
pub const LISTED_AHEAD_MIN: usize = 6;
/// See [`LISTED_AHEAD_MIN`]. They fit into what the network's reader keeps in memory.
pub const LISTED_AHEAD_MAX: usize = 24;
/// How long after a file was read as foreseen the next directory is believed to be read whole, too.
pub const LISTED_TRUST_AGE: Duration = Duration::from_secs(2);
/// A file this far behind the last one is the next one that is read: the kernel has some in memory, or they are of no interest.
pub const LISTED_GAP_MAX: usize = 4;
/// Directories that are listed, and read ahead, before one of them has to be read.
pub const LISTED_TRUST_MAX: usize = 8;
/// Files that wait to be read ahead.
pub const LISTED_QUEUE_MAX: usize = 64;
/// How soon chunks that had no turn are asked for again.
pub const LISTED_RETRY: Duration = Duration::from_millis(10);
/// How long the thread that reads ahead waits for something to do before it looks whether its volume is still there.
pub const LISTED_WAIT: Duration = Duration::from_secs(5);
/// Bytes that one copy within the volume takes on; whoever asked for more asks again, so that none lasts long.
pub const COPY_BYTES_MAX: u64 = 64 << 20;
/// Files that pass at a time, each with a descriptor that stays open, where the process may open 32,768 and more; what is opened beyond
/// goes through the daemon.
pub const PASSES_MAX: usize = 4096;
/// How often a file that the kernel writes itself is looked at while it stays open.
pub const PASS_LOOK_EVERY: Duration = Duration::from_secs(30);
/// A look that took long is not repeated before this many times as long: at most 1/20 of the time is spent on it.
pub const PASS_LOOK_SHARE: u32 = 20;
/// Chunks that the last close of a file compares at once; more are compared in the background.
pub const PASS_CLOSE_CHUNKS_MAX: usize = 4;
/// Changes this close to each other may bear the same time: more than a tick of the kernel's clock of files.
pub const PASS_CLOCK_MARGIN: Duration = Duration::from_millis(100);
/// Directories of which is remembered whether files made in them stay small.
pub const BIRTH_DIRS_MAX: usize = 1024;
/// A file up to this size is cheaper to read and write through the daemon than to hand out.
pub const SMALL_FILE_BYTES: u64 = 64 << 10;
/// Threads that write back.
pub const WRITEBACK_THREADS: usize = 2;
/// A chunk that is never quiet is written back after this many delays.
pub const WRITEBACK_DELAYS_MAX: u32 = 6;
/// Chunks written over in part of which the rest is fetched at a time, before they are written back: 1 MiB of memory each.
pub const COMPLETIONS_MAX: usize = 8;
/// How often is looked whether it has come.
pub const COMPLETION_POLL: Duration = Duration::from_millis(100);
/// Chunks that turn clean at a time, whose inodes are in memory meanwhile.
pub const SETTLE_CHUNKS_MAX: usize = 1024;
/// Pause before a chunk that could not be submitted is tried again.
pub const WRITEBACK_RETRY: Duration = Duration::from_secs(5);
/// How often the background threads look for work.
pub const TICK: Duration = Duration::from_millis(200);
/// How often the heartbeat is journaled while content changes.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);
/// A backing file written this long before the last heartbeat may still be ahead of the store: pending changes, the time a
/// batch takes to the disk, and clocks that are not quite right.
pub const HEARTBEAT_MARGIN: Duration = Duration::from_secs(120);
/// Snapshots of a volume; each takes about 400 bytes of memory.
pub const SNAPSHOTS_MAX: usize = 4096;
/// Bytes of a snapshot's name.
pub const SNAPSHOT_NAME_BYTES_MAX: usize = 128;
/// Bits of an inode number that are the inode's own; the rest tells the snapshot it is seen in. A hundred thousand new files a
/// second use them up after five years.
pub const INO_BITS: u32 = 44;
/// Numbers of snapshots that inode numbers can tell. They are used in turn.
pub const SNAPSHOT_NUMBERS: u64 = (1 << (63 - INO_BITS)) - 2;
/// Trees of snapshots kept on the disk after they were looked at.
pub const SNAPSHOT_TREES_KEPT: usize = 4;
/// Chunks hinted at when a file of a snapshot is read from a chunk's start.
pub const SNAPSHOT_PREFETCH_CHUNKS: u64 = 2;
/// How long changes wait, at most, while a snapshot is taken.
pub const SNAPSHOT_FREEZE_MAX: Duration = Duration::from_secs(2);
/// Dirty bytes above which changes do not wait yet, but are written back first.
pub const SNAPSHOT_CALM_BYTES: u64 = 8 << 20;
/// Rounds of writing back before a snapshot is taken whatever is still dirty.
pub const SNAPSHOT_ROUNDS_MAX: usize = 4;
/// Free room in the backlog without which none is taken: nothing may wait for the network while changes wait for the snapshot.
pub const SNAPSHOT_BACKLOG_BYTES: u64 = 64 << 20;
/// Pause between two looks at chunks that somebody else is handing over.
pub const SNAPSHOT_POLL: Duration = Duration::from_millis(1);
/// Changed paths that a comparison of two trees tells; about 200 bytes each.
pub const DIFF_ENTRIES_MAX: usize = 1_000_000;
/// Paths that a list of what was not sent tells; about 200 bytes each.
pub const UNSENT_PATHS_MAX: usize = 1_000_000;

const _: () = assert!(INODES_MAX < 1 << INO_BITS);
const _: () = assert!(SNAPSHOTS_MAX < SNAPSHOT_NUMBERS as usize);
const _: () = assert!(SNAPSHOT_NAME_BYTES_MAX <= NAME_BYTES_MAX);
