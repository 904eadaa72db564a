//! Every bound of the binary, by name.

pub use cessfs_crypto::limits::{KEY_FILE_BYTES_MAX, PASSPHRASE_BYTES_MAX};
use std::time::Duration;

/// Bytes of a volume's name.
pub const VOLUME_NAME_MAX: usize = 64;
/// Bytes of a volume's lock file that are read: a process id, and the end of its line.
pub const LOCK_BYTES_MAX: u64 = 16;
/// Bytes of a recovery phrase file: 24 words of at most 8 letters, with room for line breaks.
pub const PHRASE_FILE_BYTES_MAX: usize = 4096;
/// Bytes of `volume.toml`.
pub const CONFIG_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of one line on the control socket, in either direction.
pub const CONTROL_LINE_MAX: usize = 64 * 1024;
/// Connections served at once on the control socket; more wait in the kernel's queue.
pub const CONTROL_CONNECTIONS_MAX: usize = 256;
/// Commands among them that may wait for the network for as long as it is away; one more is told so at once. Whoever asks how the daemon is, or
/// wants it to end, always finds a connection.
pub const NETWORK_WAITS_MAX: usize = 24;
const _: () = assert!(NETWORK_WAITS_MAX * 4 < CONTROL_CONNECTIONS_MAX);
/// Events buffered for a client of the control socket that reads slowly; past it the operation waits for the client.
pub const EVENTS_BUFFERED: usize = 16;
/// Times a `sync --wait` hands over and waits before it gives up: each time something it had handed over was in no pack afterwards, or
/// there was no room for the pack.
pub const SYNC_ROUNDS_MAX: usize = 16;
/// Pause before a `sync --wait` that found no room for a pack on this disk hands over again.
pub const SYNC_ROOM_PAUSE: Duration = Duration::from_secs(2);
/// Repairs and collections by hand whose round goes on, whether who asked for them still waits or not; more wait for
/// one to end.
pub const ROUNDS_BY_HAND_MAX: usize = 4;
const _: () = assert!(ROUNDS_BY_HAND_MAX < NETWORK_WAITS_MAX);
/// How often a waiting `sync` reports progress.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Bytes of the daemon's log before it is rotated; one older file is kept, so twice this rests on disk.
pub const LOG_BYTES_MAX: u64 = 8 << 20;
/// Warnings about failed operations that are logged within [`WARN_WINDOW`]; the rest are counted.
pub const WARN_BURST: u32 = 20;
/// Window of [`WARN_BURST`].
pub const WARN_WINDOW: Duration = Duration::from_secs(60);
/// Entries of a list of packs in one event on the control socket.
pub const CONTROL_PAGE: usize = 256;
/// JSON of one such entry, at most: number, columns and grade of a damaged pack.
const PAGE_ENTRY_BYTES_MAX: usize = 96;
/// Entries of such lists that a verb takes in; a volume of as many packs holds a hundred TiB.
pub const REPORT_ENTRIES_MAX: usize = 1 << 20;
const _: () = assert!(CONTROL_PAGE * PAGE_ENTRY_BYTES_MAX < CONTROL_LINE_MAX);

/// Lines of volume errors that `status` tells.
pub const STATUS_ERRORS_MAX: usize = 64;
/// Bytes of one of them, or of another message.
pub const STATUS_TEXT_BYTES_MAX: usize = 2048;
/// Bytes of JSON of all of them; more are counted.
pub const STATUS_ERRORS_BYTES_MAX: usize = 8 << 10;
/// The same of the files with lost content that `status` names.
pub const STATUS_FILES_BYTES_MAX: usize = 8 << 10;
/// The same of what a recovery could not bring back.
pub const STATUS_HISTORY_BYTES_MAX: usize = 4 << 10;
/// JSON writes a control character with six bytes; the mount point and one message have no other bound. The rest of a status, and a
/// failure with its hint, have room beside that.
const _: () = assert!(
    STATUS_ERRORS_BYTES_MAX
        + STATUS_FILES_BYTES_MAX
        + STATUS_HISTORY_BYTES_MAX
        + 6 * (STATUS_TEXT_BYTES_MAX + libc::PATH_MAX as usize)
        < CONTROL_LINE_MAX - (6 << 10)
);

/// Damaged packs, and files with lost content, that `status` names.
pub const STATUS_PACKS_MAX: usize = 64;
/// Least rate at which a scrub may read: one sample of a pack in twelve seconds.
pub const SCRUB_RATE_MIN: u64 = 64 << 10;

/// How long `mount` waits for its daemon to say something before it gives up on it: that it is ready, or that it still works.
pub const READY_TIMEOUT: Duration = Duration::from_secs(180);
/// How often a daemon that opens its volume says that it works.
pub const WORKING_EVERY: Duration = Duration::from_secs(5);
const _: () = assert!(WORKING_EVERY.as_secs() * 10 < READY_TIMEOUT.as_secs());
/// Processor time within [`WORKING_EVERY`] by which a daemon counts as working, if it does not wait for the disk: far below what any
/// work takes, and above what threads take that wait.
pub const WORKING_TIME_MIN: Duration = Duration::from_millis(2);
/// How long a daemon says at most that it works. The recovery of a cache of a TiB reads what was written last, not all of it; what takes longer
/// than this is a mistake that goes round in circles.
pub const WORKING_MAX: Duration = Duration::from_secs(6 * 3600);
/// How long a verb that only asks how a daemon is waits for its answer; a daemon waits for the chain for a part of that.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long something has to wait for the network before it is told where no bar shows it.
pub const WAIT_TOLD_AFTER: Duration = Duration::from_secs(10);
/// How long it is until another reason is told.
pub const WAIT_TOLD_AGAIN: Duration = Duration::from_secs(60);
/// How long the daemon waits for requests in flight after the mount is gone.
pub const SESSION_END_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a daemon that is told to end waits for the pages that the kernel has of a mount in use.
pub const LEAVE_FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the daemon waits at its very end for tasks that were told to stop.
pub const TASKS_END_TIMEOUT: Duration = Duration::from_secs(2);
/// How long `umount` waits for the daemon to close its files after the mount is gone.
pub const DAEMON_END_TIMEOUT: Duration = Duration::from_secs(120);
/// How long after an unmount it is told who still has the mount elsewhere.
pub const HOLDERS_AFTER: Duration = Duration::from_secs(3);
/// Processes that are named then.
pub const HOLDERS_TOLD: usize = 8;
/// How long a sync waits, after syncfs(2), for the last of the kernel's writes to arrive (some kernels only start them).
pub const KERNEL_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a verb waits for the RPC endpoint before it calls it unreachable.
pub const CHAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long `status` waits for the chain before it tells the rest without it.
pub const STATUS_CHAIN_TIMEOUT: Duration = Duration::from_secs(3);
const _: () = assert!(STATUS_CHAIN_TIMEOUT.as_secs() * 2 < ANSWER_TIMEOUT.as_secs());
/// How long `init` waits for a faucet's money to arrive: ten blocks of 6 s.
pub const FAUCET_TIMEOUT: Duration = Duration::from_secs(60);
/// Miners that `doctor` probes at once.
pub const PROBES_AT_ONCE: usize = 16;

/// Event loops of the FUSE session for each core, in all within the two below: while one waits for the disk another answers. With one
/// a core, cold random reads by four jobs are fewer by a third and more; small files read again from the kernel's pages are a little
/// faster (docs/PERFORMANCE.md).
pub const FUSE_THREADS_PER_CORE: usize = 2;
/// See [`FUSE_THREADS_PER_CORE`].
pub const FUSE_THREADS_MIN: usize = 2;
/// See [`FUSE_THREADS_PER_CORE`].
pub const FUSE_THREADS_MAX: usize = 8;
/// Largest WRITE the kernel may send. A large file is written as fast as with a MiB, and who asks for something meanwhile waits half as long
/// for those before him (docs/PERFORMANCE.md).
pub const FUSE_WRITE_BYTES_MAX: u32 = 512 << 10;
/// Largest READ: a part of the readahead, so that one sequential reader keeps every event loop busy.
pub const FUSE_READ_BYTES_MAX: u32 = 128 << 10;
/// Readahead the kernel may do; beyond 128 KiB (what it offers a FUSE mount) it takes root.
pub const FUSE_READAHEAD_BYTES: u32 = 1 << 20;
/// Background requests (readahead, writeback) in flight.
pub const FUSE_BACKGROUND_MAX: u16 = 64;
/// A readahead that waits for the network for longer is refused, for the kernel to ask again for the page that somebody waits for. A read
/// from miners in another country takes a tenth of this.
pub const READAHEAD_WAIT_MAX: Duration = Duration::from_secs(1);
/// How often the daemon looks whether a process that waits for the network is being killed. Each look reads a file of `/proc`.
pub const KILLED_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a seek for holes waits for pages that the kernel cannot write, because somebody reads others from the network.
pub const SEEK_WAIT_MAX: Duration = Duration::from_secs(1);
/// Threads that go on waiting for them.
pub const SEEKS_BEHIND_READS_MAX: usize = 8;
/// Refused readaheads that go on by themselves; as many as 32 readers have.
pub const READS_GOING_ON_MAX: usize = 256;
/// Refused readaheads that are remembered, 24 bytes each.
pub const READS_REFUSED_MAX: usize = 4096;
const _: () = assert!(READS_GOING_ON_MAX < READS_REFUSED_MAX);
/// Part of the kernel's dirty pages that may be this mount's, in percent (by default 1). Far below the point from which on the
/// kernel makes writers wait (three quarters of its limit): so this mount's pages alone never hold up the daemon's own writes,
/// which are what cleans them.
pub const DIRTY_PAGES_PERCENT: u32 = 25;
/// How long the kernel may keep names and attributes. This mount is the volume's only writer, so nothing changes
/// behind the kernel's back.
pub const FUSE_TTL: Duration = Duration::from_secs(86_400);

/// How long `stat` of a file that is being written may tell an older number of blocks.
pub const BLOCKS_STALE_MAX: Duration = Duration::from_secs(1);
/// Files of which that may be so at a time; of more, until they are closed.
pub const STALE_INODES_MAX: usize = 4096;

/// How often the time and the connection are looked at where they decide how fast may be sent.
pub const UPLINK_LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long the system bus may take to say whether the connection is metered.
pub const BUS_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a mounted volume asks how much room its territory has; each pack that is sent tells it, too.
pub const TERRITORY_LOOK_EVERY: Duration = Duration::from_secs(600);
/// The same when the chain did not answer.
pub const TERRITORY_RETRY: Duration = Duration::from_secs(30);
/// Smallest cache that still holds one pack's worth of chunks beside the one being read.
pub const CACHE_BYTES_MIN: u64 = 64 << 20;
/// Cache size when none is configured.
pub const CACHE_BYTES_DEFAULT: u64 = 10 << 30;
/// Quiet time before a chunk is written back when none is configured.
pub const WRITEBACK_DELAY_DEFAULT: Duration = Duration::from_secs(5);
/// How long deleted files can be had back when nothing else is configured: a week's end is survived, and what it costs in
/// territory stays small beside what lives.
pub const TRASH_KEEP_DEFAULT: Duration = Duration::from_secs(7 * 86_400);
/// Age below which a deleted file is no loss when nothing else is configured: programs that make a file only to throw it away
/// again do so sooner.
pub const TRASH_MIN_AGE_DEFAULT: Duration = Duration::from_secs(600);
/// Entries of the trash in one page of its listing.
pub const TRASH_PAGE: usize = 256;
/// Page cache of the tree of a snapshot that is looked at.
pub const TREE_CACHE_BYTES: usize = 8 << 20;
/// How often a daemon looks whether another machine has taken the volume over.
pub const FENCE_POLL: Duration = Duration::from_millis(500);
/// GiB of the territory that `init` buys when none is asked for.
pub const TERRITORY_GIB_DEFAULT: u32 = 10;
/// Days of the territory that `init` buys when none is asked for (the chain's least is 30).
pub const TERRITORY_DAYS_DEFAULT: u32 = 30;
/// Days that a territory is bought for at the least: the chain refuses fewer (`BoundariesNotMet`).
pub const TERRITORY_DAYS_MIN: u32 = 30;
/// Takes that many days, or more, on the command line.
pub fn territory_days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(TERRITORY_DAYS_MIN)..)
}
/// Planck set aside for transaction fees on top of a price: 1 TCESS, some thousand declarations.
pub const FEE_RESERVE: u128 = 1_000_000_000_000_000_000;

// A secret goes to the daemon through a pipe, which holds 65,536 bytes on Linux: nobody waits for it to be read.
const _: () = assert!(PASSPHRASE_BYTES_MAX < 65_536 && KEY_FILE_BYTES_MAX < 65_536);
const _: () = assert!(CACHE_BYTES_MIN <= CACHE_BYTES_DEFAULT);
const _: () = assert!(FUSE_THREADS_MIN <= FUSE_THREADS_MAX);
/// Records that a rebuild of the journal copies at a time.
pub const JOURNAL_COPY_RECORDS: usize = 1024;
