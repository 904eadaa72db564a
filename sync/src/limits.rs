//! Every bound of the sync crate, by name, and how they hang together (I12).

pub use crate::erasure::geometry::{fragment_bytes, segment_bytes};
pub use crate::erasure::limits::{
    COLUMNS, DATA_FRAGMENTS, FRAGMENT_BYTES, PARITY_FRAGMENTS, SEGMENT_BYTES, STRIPE_BYTES,
};
use std::time::Duration;

/// Bytes of a chunk of a logical file: the unit of dirt, residency, sealing and identity.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Segments of one CESS file (facts 1.2: SegmentCount).
pub const PACK_SEGMENTS_MAX: usize = 1000;
/// Territory bytes charged for each started segment (F2).
pub const SEGMENT_CHARGE_BYTES: u64 = 96 << 20;
/// How many bytes of territory a byte of a pack is charged.
pub const CHARGE_FACTOR: u64 = SEGMENT_CHARGE_BYTES / SEGMENT_BYTES as u64;

// The chain.

/// How long a connection to the chain's RPC may take, TLS included.
pub const CHAIN_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after a failed connection the next one is tried at the earliest; calls in between fail at once.
pub const CHAIN_RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// How long one answer of the RPC may take.
pub const CHAIN_REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a question may take that needs a few answers, connecting included.
pub const CHAIN_CALL_TIMEOUT: Duration = Duration::from_secs(45);
/// How long reading all miners, or all files of the account, may take.
pub const CHAIN_LIST_TIMEOUT: Duration = Duration::from_secs(180);
/// A connection on which neither an answer nor a pong came for so long is given up.
pub const CHAIN_SILENCE_MAX: Duration = Duration::from_secs(40);
/// How often the RPC is pinged.
pub const CHAIN_PING_INTERVAL: Duration = Duration::from_secs(15);
/// Bytes of an answer of the RPC. The account's file list is one value: 500,000 entries of at most 144 bytes, in hex.
pub const CHAIN_ANSWER_BYTES_MAX: u32 = 160 << 20;
/// Storage entries asked for at once when a map is read.
pub const CHAIN_PAGE_ENTRIES: u32 = 256;
/// Miners read from the chain at most (facts 1.2: Sminer.ItemLimit).
pub const CHAIN_MINERS_MAX: usize = 200_000;
/// How long the list of miners is used before it is read again.
pub const CHAIN_MINERS_CACHE: Duration = Duration::from_secs(60);
/// How long only lower heights must be heard before a finalized height is forgotten as a mistake: longer than nodes behind one
/// address lag behind each other.
pub const CHAIN_LAG_MAX: Duration = Duration::from_secs(10 * 60);
/// Types inside each other that values are decoded by; spec 137 has twelve, in its events.
pub const CHAIN_TYPE_DEPTH_MAX: usize = 16;
/// Parts of one such type when it is unfolded; spec 137 has 38.
pub const CHAIN_TYPE_PARTS_MAX: usize = 4096;
/// Characters of a text from the chain that are passed on: errors are long, with their causes.
pub const CHAIN_TEXT_CHARS_MAX: usize = 600;
/// Characters of a chain's name.
pub const CHAIN_NAME_CHARS_MAX: usize = 64;
/// Characters of a token's name.
pub const TOKEN_CHARS_MAX: usize = 16;
/// Blocks after which a transaction that is in none is dead: 192 s at 6 s per block. A power of two, as eras are.
pub const TRANSACTION_LIFE_BLOCKS: u64 = 32;
/// How long a transaction may take to be finalized. Longer than it lives, so that at the end it is decided either way.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(300);
/// How often the chain is asked for the fate of a transaction whose connection broke.
pub const TRANSACTION_FATE_INTERVAL: Duration = Duration::from_secs(3);

// Miners.

/// How long a connection to a miner may take to be made.
pub const MINER_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long nothing may move in a transfer. Covers a miner that hashes and stores 8 MiB before it answers.
pub const MINER_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an upload that may be taken and not sent yet: 4 MiB in the system (the most that Linux takes by itself, `tcp_wmem`), and what
/// the connection gathers.
pub const MINER_SEND_BUFFER_BYTES: u64 = 5 << 20;
/// How long those may take to leave at the most, in times of the longest pause. A miner that is gone the system itself notices
/// sooner: it acknowledges nothing.
pub const MINER_DRAIN_PAUSES: u32 = 10;
/// How long an unused connection to a miner is kept.
pub const MINER_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Unused connections kept per miner.
pub const MINER_IDLE_CONNECTIONS_MAX: usize = 4;
/// Bytes of an upload that count as movement when the connection takes them.
pub const MINER_UPLOAD_PIECE_BYTES: usize = 64 << 10;
/// Bytes of a miner's JSON answer.
pub const MINER_REPLY_BYTES_MAX: usize = 64 << 10;
/// Characters of a miner's text that are passed on.
pub const MINER_TEXT_CHARS_MAX: usize = 200;

// Packs (docs/FORMAT-packs.md).

/// Bytes at which the open pack stops taking chunks: four segments. Larger packs amortise the declaration's fee and wait;
/// four segments keep what a crash of the machine can take with it, and what must be read back at once, small.
pub const PACK_TARGET_BYTES: u64 = 4 * SEGMENT_BYTES as u64;
/// Bytes up to which it goes on while an earlier pack still waits to be declared. Declarations go one after the other, each
/// until it is final: packs that did not grow would then send 128 MiB per wait, however fast the line. Recovery, collection
/// and repair read or write whole packs, so there is a bound.
pub const PACK_BYTES_MAX: u64 = 16 * SEGMENT_BYTES as u64;
/// Plaintext bytes of one delta frame: the same bound as a chunk, so one buffer size fits every frame.
pub const DELTA_FRAME_BYTES_MAX: usize = CHUNK_BYTES;
/// Plaintext bytes of one directory frame.
pub const DIRECTORY_FRAME_BYTES: usize = CHUNK_BYTES;
/// Sealed bytes of its directory at which the open pack stops taking chunks: 95,000 of them. 512 whole chunks have 22 KiB. A pack
/// becomes smaller by it only where chunks have less than 1.4 KiB on average, or 5.6 KiB in one that grew to [`PACK_BYTES_MAX`].
pub const PACK_DIRECTORY_BYTES_MAX: u64 = 4 << 20;
/// Buffer in which pad is made and written.
pub const PAD_BUFFER_BYTES: usize = CHUNK_BYTES;
/// Packs after which all metadata travels again where it is small anyway: what is not filled is padding, so such a
/// checkpoint costs nothing, and what comes after it needs nothing that was before.
pub const CHECKPOINT_PACKS_MIN: usize = 8;
/// What counts as small there: a quarter of a segment.
pub const CHECKPOINT_SMALL_BYTES: u64 = 8 << 20;
/// Bytes of deltas since the last checkpoint (and at least as many as that had) after which the next one is due. So all
/// checkpoints together are never larger than all deltas, and recovery reads at most three times the tree.
pub const CHECKPOINT_BYTES_MIN: u64 = 64 << 20;
/// Packs after which a checkpoint is due in any case: recovery asks for three ranges of each pack since the last.
pub const CHECKPOINT_PACKS_MAX: usize = 256;
/// How long a pack may stay open after its first content (`pack.max_age`).
///
/// A pack costs 96 MiB of territory however little is in it (F2), and aged ones are merged only later: ten minutes
/// bound what a day of small changes costs at first to 144 of them. `sync --wait` never waits for it.
pub const PACK_AGE_MAX: Duration = Duration::from_secs(600);
/// How often the sealer looks at ages when nothing wakes it.
pub const SEALER_TICK: Duration = Duration::from_secs(1);
/// How long the sealer leaves a pack alone after sealing failed (full disk): time for somebody to make room.
pub const SEAL_RETRY_DELAY: Duration = Duration::from_secs(5);
/// Unsent bytes at which `submit` blocks, unless configured (`backlog_max`).
pub const BACKLOG_BOUND_BYTES: u64 = 8 << 30;
/// A backlog bound below this could never let a full pack be sealed while another is in flight.
pub const BACKLOG_BOUND_BYTES_MIN: u64 = 2 * PACK_TARGET_BYTES;

/// So many full packs what moves out of other packs may pass that bound by. Writers hold a backlog at its bound for as long as they are
/// faster than the line, and what is about to be lost must not wait for them.
pub const MOVE_RESERVE_PACKS: u64 = 1;

// Pipeline.

/// Packs whose bytes are on their way to miners at the same time.
pub const PACKS_IN_FLIGHT: usize = 2;
/// Fragments on their way at the same time at most, over all packs.
pub const FRAGMENTS_IN_FLIGHT: usize = PACKS_IN_FLIGHT * COLUMNS;
/// Bytes of a row: the piece of a fragment that is in memory while it is sent.
pub const ROW_BYTES: usize = 512 << 10;
/// Bytes of a row where fragments are smaller than that.
pub fn row_bytes() -> usize {
    ROW_BYTES.min(fragment_bytes())
}
/// Rows kept for columns that have not taken their part yet, 6 MiB each: two per pack in flight, so that a column may be a
/// row behind.
pub const ROWS_KEPT: usize = 2 * PACKS_IN_FLIGHT;
/// Packs hashed with their parity at the same time.
pub const PACKS_IN_ENCODE: usize = 1;
/// Groups of segments of a pack hashed at the same time; each takes a processor and 1 MiB.
pub const HASHES_IN_FLIGHT: usize = 2;
/// Packs read back at the same time.
pub const PACKS_IN_VERIFY: usize = 2;
/// Probes in flight while looking for miners.
pub const PROBES_IN_FLIGHT: usize = 24;
/// Willing miners wanted beyond the twelve before declaring, if the network has them: the first replacements.
pub const SPARE_MINERS: usize = 4;
/// A declaration whose fate is unknown is known to be void once the finalized head is this far past a head after which
/// none was signed (F4, I2): the life of a transaction, and as much again for nodes that disagree about the head.
pub const DECLARE_MORTAL_BLOCKS: u32 = 64;
/// A finalized height that is so many blocks above what finality is at now was a node's mistake, or its lie: an hour, which no node lags
/// behind another for as long as it takes to forget that height ([`CHAIN_LAG_MAX`]).
pub const HEIGHT_AHEAD_MAX: u32 = 600;
/// Pause between two looks at the chain after something was new; doubles while nothing is.
pub const CHAIN_POLL_MIN: Duration = Duration::from_millis(500);
/// Longest pause between two looks at the chain: one block (facts 1.2).
pub const CHAIN_POLL_MAX: Duration = Duration::from_secs(6);
/// A miner reports at the latest 30 s after its last fragment (facts 3.1); then a block, then finality. Ten times that.
pub const REPORT_DEADLINE: Duration = Duration::from_secs(5 * 60);
/// So many blocks have to become final in that time: in them its report would be.
pub const REPORT_BLOCKS: u32 = 25;
/// A PUT that takes nothing of its body for so long counts as failed.
pub const PUT_BEGIN_TIMEOUT: Duration = Duration::from_secs(120);
/// One that has taken some counts as failed when it takes no more, nor ends, for so long: longer than its sender bears it.
pub const PUT_STALL_TIMEOUT: Duration = Duration::from_secs(400);
const _: () = assert!(PUT_STALL_TIMEOUT.as_secs() > MINER_STALL_TIMEOUT.as_secs() * (1 + MINER_DRAIN_PAUSES as u64));
/// In this time a fragment that is sent is to arrive, others beside it: so many go at a time.
pub const FRAGMENT_TIME: Duration = Duration::from_secs(30);
/// A fragment that takes so many times as long as those that arrived lately is its miner's doing.
pub const FRAGMENT_SLOW_TIMES: u32 = 10;
/// What a fragment may take at the least: a miner that takes no more than 28 KB/s beside quick ones is replaced.
pub const FRAGMENT_BEARABLE_MIN: Duration = Duration::from_secs(5 * 60);
/// What one may take while none has arrived yet.
pub const FRAGMENT_BEARABLE_FIRST: Duration = Duration::from_secs(3600);
/// Fragments on their way at a time before it is known how fast the line is.
pub const LANES_FIRST: usize = 4;
/// The fewest on their way at a time: while one waits for its answer the other uses the line.
pub const LANES_MIN: usize = 2;
const _: () = assert!(LANES_MIN <= LANES_FIRST && LANES_FIRST <= FRAGMENTS_IN_FLIGHT);
/// A GET of a whole fragment that takes longer counts as failed.
pub const GET_DEADLINE: Duration = Duration::from_secs(60);
/// A probe that takes longer counts as failed, connecting included.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(5);
/// PUT attempts at one miner before its column moves to another.
pub const PUT_ATTEMPTS_MAX: u32 = 4;
/// First pause between attempts; doubles from one to the next, each with jitter.
pub const RETRY_DELAY_MIN: Duration = Duration::from_millis(500);
/// Longest pause between attempts.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);
/// First pause before a call is made again that the chain refused in a block, and took its fee for; doubles.
pub const CALL_RETRY_MIN: Duration = Duration::from_secs(60);
/// Longest such pause.
pub const CALL_RETRY_MAX: Duration = Duration::from_secs(3600);
/// How long a miner that reported its column of a new pack may fail to give it back before what is in the pack is sent again
/// (`repair.read_back`). A restart takes minutes; sending a pack again costs its bytes and, until it is deleted, its space.
pub const READ_BACK_PATIENCE: Duration = Duration::from_secs(15 * 60);
/// So many miners must answer, when a pack is read back or looked at, for the others to be to blame, and not this machine's own network.
pub const READ_BACK_ANSWERS_MIN: usize = DATA_FRAGMENTS;
/// How long a miner that did not give back what it had reported is given nothing new, or until the next start: where there are no twelve
/// others, content is sent again once in that time at most. Longer, and a bad hour of the network would leave too few for a day.
pub const DISTRUST: Duration = Duration::from_secs(3600);
/// Random ranges compared per column when a pack is read back.
pub const VERIFY_RANGES_PER_COLUMN: usize = 4;
/// Bytes of each.
pub const VERIFY_RANGE_BYTES: usize = 64 << 10;
/// Bytes of each where fragments are small.
pub fn verify_range_bytes() -> usize {
    VERIFY_RANGE_BYTES.min(fragment_bytes() / 4)
}
/// Columns read back at the same time.
pub const VERIFY_COLUMNS_IN_FLIGHT: usize = COLUMNS;
/// Errors kept for `status`.
pub const ERRORS_KEPT: usize = 32;

// Reader.

/// Chunk fetches from the network at the same time.
pub const FETCHES_IN_FLIGHT: usize = 16;
/// Of those, prefetches: what one sequential reader asks for, and half of that of another.
pub const PREFETCHES_IN_FLIGHT: usize = 12;
/// Segments rebuilt from parity at the same time.
pub const REBUILDS_IN_FLIGHT: usize = 1;
/// Fragments that one rebuild holds or asks for at the same time: four, and two for miners that turn out slow.
pub const REBUILD_FRAGMENTS_MAX: usize = DATA_FRAGMENTS + 2;
/// How long a rebuild waits for whole fragments before it asks one more miner.
pub const REBUILD_HEDGE_DELAY: Duration = Duration::from_secs(3);
/// Bytes of fetched chunks kept.
pub const CHUNK_CACHE_BYTES: usize = 32 << 20;
/// Rebuilt segments kept, 32 MiB each.
pub const SEGMENT_CACHE_COUNT: usize = 1;
/// Latencies remembered for the hedge delay.
pub const LATENCIES_KEPT: usize = 128;
/// Ranges of fewer bytes say nothing about how long a chunk may take.
pub const LATENCY_BYTES_MIN: usize = 256 << 10;
/// Shortest hedge delay: below it jitter alone would hedge.
pub const HEDGE_DELAY_MIN: Duration = Duration::from_millis(20);
/// Longest hedge delay: above it a person waits.
pub const HEDGE_DELAY_MAX: Duration = Duration::from_secs(5);
/// Hedge delay while no latency is known.
pub const HEDGE_DELAY_UNKNOWN: Duration = Duration::from_secs(1);
/// Hedged reads that ask other columns at the same time: where everything is slow, asking four times as much does not help.
pub const HEDGES_IN_FLIGHT: usize = 4;
/// Bytes that a miner is asked for to see whether it still is slow or away.
pub const TRIAL_BYTES: u32 = 4096;
/// So often a miner that is slow or away is tried while others stand in for it.
pub const TRIAL_INTERVAL: Duration = Duration::from_millis(500);
/// Segments of which is remembered how far they were read round a miner.
pub const DETOURS_KEPT: usize = 64;
/// One in so many choices ignores the ranking: a miner that was slow once would otherwise never be asked again.
pub const EXPLORE_ONE_IN: u64 = 10;
/// Miners whose addresses are remembered over restarts, some 150 bytes each.
pub const ADDRESSES_MAX: usize = 4096;
/// The list of miners is asked for at most this often.
pub const MINERS_REFRESH_MIN: Duration = Duration::from_secs(30);
/// Stored files whose holders were asked for again after a failed read.
pub const HOLDERS_KEPT: usize = 64;

// Recovery.

/// Files of the account asked of the chain at the same time.
pub const SURVEYS_IN_FLIGHT: usize = 32;
/// How long a machine that was taken over from asks the network where the newer history leaves its own.
pub const PARTING_TIMEOUT: Duration = Duration::from_secs(30);
/// Packs whose footer and directory are read at the same time.
pub const ARCHIVE_PACKS_IN_FLIGHT: usize = 16;
/// Sealed bytes of a directory that recovery reads: four times what [`PACK_DIRECTORY_BYTES_MAX`] lets a pack have.
pub const DIRECTORY_BYTES_MAX: u64 = 16 << 20;
/// Sealed bytes of delta frames asked for in one range; never less than a frame.
pub const DELTA_RANGE_BYTES_MAX: u64 = 4 << 20;
/// Such ranges asked for at the same time.
pub const DELTA_RANGES_IN_FLIGHT: usize = 6;
/// Records of one batch while a journal is made.
pub const INSTALL_BATCH_RECORDS: usize = 4096;
/// Packs that one epoch may ever seal before its numbers reach the next step: at one a minute, two years.
pub const EPOCH_SEQS: u64 = 1_000_000;
/// Steps at which the numbers of an epoch may begin, one of them at random.
pub const EPOCH_STEPS: u64 = 1_000_000;

// Upkeep.

/// Seconds between two blocks (facts 1.2).
pub const BLOCK_SECONDS: u64 = 6;
/// How often upkeep looks for something to do.
pub const UPKEEP_TICK: Duration = Duration::from_secs(30);
/// How often all columns of a pack are sampled (`scrub.interval`): 768 KiB of traffic for each pack.
pub const SCRUB_INTERVAL: Duration = Duration::from_secs(86_400);
/// How often every byte of a pack is read (`scrub.full_interval`).
pub const SCRUB_FULL_INTERVAL: Duration = Duration::from_secs(30 * 86_400);
/// Bytes a second that looking may read (`scrub.rate`): 30 days of it read three copies of 3 TiB.
pub const SCRUB_RATE: u64 = 4 << 20;
/// Bytes of the range that a sample reads of each column. Damage that is spread over a fragment is more likely seen than not once one
/// byte in 90,000 is wrong; damage in one place is seen by chance, or by the next full read.
pub const SCRUB_RANGE_BYTES: usize = 64 << 10;
/// The same where fragments are small.
pub fn scrub_range_bytes() -> usize {
    SCRUB_RANGE_BYTES.min(fragment_bytes() / 4)
}
/// Whole fragments in memory while every byte of a pack is read.
pub const SCRUB_FRAGMENTS_IN_FLIGHT: usize = 2;
/// Packs with fewer good columns than this are rewritten (`repair.rewrite_below`).
pub const REPAIR_BELOW: u8 = 9;
/// Packs with fewer good columns than this are rewritten before anything else is sent (`repair.urgent_below`).
pub const URGENT_BELOW: u8 = 6;
/// How far two looks that a miner did not answer must be apart for its columns to count as bad (`repair.away`): a restart is no loss, a day
/// would be too long to wait when four of them go at once.
pub const AWAY_PATIENCE: Duration = Duration::from_secs(6 * 3600);
/// How often a pack is looked at while one of its miners is away and does not count as bad yet: a handful of samples each time.
pub const AWAY_LOOK_INTERVAL: Duration = Duration::from_secs(3600);
/// Other miners that are asked at most whether they are there, when too few of a pack's twelve answer.
pub const WITNESSES_MAX: usize = PROBES_IN_FLIGHT;
/// After this time a pack that stays, and could not be copied whole, is copied again.
pub const COPY_RETRY: Duration = Duration::from_secs(3600);
/// Bytes of packs that one round of repair rewrites, unless it is urgent: its budget.
pub const REPAIR_ROUND_BYTES: u64 = 2 * PACK_TARGET_BYTES;
/// How often what is dead is counted (`gc.interval`).
pub const GC_INTERVAL: Duration = Duration::from_secs(3600);
/// Packs of which more than this lives, in percent, are left alone (`gc.live_percent`): at a half, what is gained is never
/// less than what is sent for it.
pub const GC_LIVE_PERCENT_MAX: u8 = 50;
/// Sealed bytes that one round of collection moves.
pub const GC_ROUND_BYTES: u64 = 4 * PACK_TARGET_BYTES;
/// Segments of 96 MiB that a round in the background has to gain: the checkpoint it needs costs one.
pub const GC_GAIN_SEGMENTS_MIN: u64 = 4;
/// How long a dead pack stays at the least, once a later checkpoint is known to be on the network (`gc.grace`): in that time
/// whoever recovered the volume elsewhere, and needs the pack, makes himself known.
pub const GC_GRACE: Duration = Duration::from_secs(3600);
/// Dead packs that are given up at a time. Until they are gone no others are, but for one a round.
pub const DELETIONS_AT_ONCE: usize = 8;
/// After this time a round of deletions begins with no other pack: each takes a transaction, and a pack that is about to be lost waits
/// for the round.
pub const DELETE_ROUND: Duration = Duration::from_secs(60);
/// How long points of the past stay recoverable (`gc.keep_history`), while the territory has room.
pub const KEEP_HISTORY: Duration = Duration::from_secs(7 * 86_400);
/// Percent of the territory that have to be free for history to be kept.
pub const HISTORY_ROOM_PERCENT: u8 = 25;
/// How long before a territory freezes that is told.
pub const TERRITORY_WARNING: Duration = Duration::from_secs(7 * 86_400);
/// Ids of living chunks held at a time, 8 bytes each: 2 TiB of content in one go.
pub const LIVE_IDS_MAX: usize = 2 << 20;
/// Locations read per scan.
pub const PLACES_PAGE: usize = 1024;
/// Chunks of draining packs looked at in one go, about 150 bytes each.
pub const MOVE_CHUNKS_MAX: usize = 1 << 16;
/// Lost chunks that files name and that are told of, 50 bytes each: 64 GiB of content.
pub const LOST_CHUNKS_MAX: usize = 1 << 16;
/// Chunks on the move at the same time.
pub const MOVES_IN_FLIGHT: usize = 4;

// Sending beside those who use the mount.

/// How much the threads that send in the background step back (nice(2)): a third of the processor where others want it too.
pub const BACKGROUND_NICE: i32 = 5;
/// Small requests of the mount are counted over this time and what ran of the next.
pub const FOREGROUND_WINDOW: Duration = Duration::from_millis(50);
/// So many in that time are somebody who waits for one after the other: 160 a second at the least. Programs that only look from time
/// to time whether something has changed make fewer.
pub const FOREGROUND_REQUESTS_MIN: u16 = 8;
/// A request that carries fewer bytes is small.
pub const FOREGROUND_SMALL_BYTES: usize = 64 << 10;
/// What was held asks again after this time.
pub const FOREGROUND_PAUSE: Duration = Duration::from_millis(25);
/// As long as this the background is held at most. Longer than most things that somebody waits for at a prompt; no miner takes
/// it for a stall.
pub const FOREGROUND_HELD_MAX: Duration = Duration::from_secs(10);
/// For each second that the background works it may be held as many: a busy mount leaves it a quarter of the time.
pub const FOREGROUND_REFILL: u32 = 3;
// The journal.

/// Memory that changes may take that the journal's table does not have yet, before `commit` blocks.
pub const JOURNAL_BEHIND_BYTES_MAX: usize = 64 << 20;
/// The same of those that are in the log, before the table is brought up to date.
pub const JOURNAL_TABLE_BEHIND_BYTES_MAX: usize = 24 << 20;
/// The same of those that the journal's writer merges into one record.
pub const JOURNAL_MERGE_BYTES_MAX: usize = 4 << 20;
/// Memory that one waiting change takes beside its bytes: two allocations, and a place in two maps.
pub const JOURNAL_OP_BYTES: usize = 200;
/// So long, and less than twice so long, the journal's writer lets changes gather that nobody waits for. A kill of the process
/// costs those that were not put down.
pub const JOURNAL_GATHER: Duration = Duration::from_millis(2);
/// So often in a row the journal's writer looks for changes by itself, one such pause apart, before it sleeps until it is woken. Those who
/// put their changes down themselves then need not wake it each time: on a virtual machine that takes as long as the change.
pub const JOURNAL_LOOKS: u32 = 25;
/// After this long without work the journal's table is brought up to date, and made durable.
pub const JOURNAL_IDLE_FLUSH: Duration = Duration::from_secs(2);
/// Bytes of each of the two segments of the journal's log.
pub const JOURNAL_SEGMENT_BYTES: u64 = 8 << 20;
/// The least that a page of a scan looks at, since most of it may turn out to be deleted.
pub const JOURNAL_SCAN_PAGE_MIN: usize = 64;
/// Bytes that content leaves free on the local disk for the journal.
pub const DISK_RESERVE_BYTES: u64 = 32 << 20;
/// Bytes beyond those that the cache makes free, of what the network has, once less than half of them are left: for content, and for the
/// packs that it is sent in.
pub const DISK_EASE_BYTES: u64 = 256 << 20;
/// So many of them on a small disk, for half of them takes a pack of one segment.
pub const DISK_EASE_BYTES_MIN: u64 = 2 * SEGMENT_BYTES as u64;
/// In between, one byte of so many that the disk has.
pub const DISK_EASE_SHARE: u64 = 16;
/// Bytes that are set aside on the local disk for a journal that finds it full.
pub const BALLAST_BYTES_MAX: u64 = 32 << 20;
/// At most one byte of so many that the disk has is set aside.
pub const BALLAST_DISK_SHARE: u64 = 16;
/// So many of those bytes are given up at a time: others write to the disk, too.
pub const BALLAST_STEP_BYTES: u64 = 4 << 20;
/// A disk that does not take so many bytes more is full.
pub const BALLAST_PROBE_BYTES: u64 = 256 << 10;
/// Content written between two looks at the disk's free room.
pub const DISK_LOOK_BYTES: u64 = 1 << 20;
/// The journal's mark follows the journal at least this often while it is flushed, and when it is closed.
pub const JOURNAL_MARK_EVERY: Duration = Duration::from_secs(5);
/// Two changes of a directory closer together than this may carry the same time.
pub const MTIME_TICK_MAX: Duration = Duration::from_millis(100);
/// How often an opening looks whether sled's threads of an earlier one have let go of its file.
pub const SLED_LOCK_TRIES: u32 = 500;
/// The time between two looks.
pub const SLED_LOCK_POLL: Duration = Duration::from_millis(10);
/// Bytes that sled's log gets beforehand on a disk that is nearly full, beside what is written: two of its segments.
pub const SLED_CLAIM_BYTES: u64 = 1 << 20;
/// Bytes of sled's page cache.
pub const SLED_CACHE_BYTES: u64 = 64 << 20;
/// Up to this size every page of a redb file is checked when it is opened.
pub const REDB_CHECK_BYTES_MAX: u64 = 16 << 20;
/// Bytes of redb's page cache.
pub const REDB_CACHE_BYTES: usize = 32 << 20;
/// Bytes of changes that redb applies before it makes them durable unasked: the pages they free are reused only then.
pub const REDB_LOOSE_BYTES_MAX: u64 = 16 << 20;

// How they hang together.

const _: () = assert!(PACK_BYTES_MAX as usize <= PACK_SEGMENTS_MAX * SEGMENT_BYTES);
const _: () = assert!(PACK_TARGET_BYTES <= PACK_BYTES_MAX);
const _: () = assert!(DECLARE_MORTAL_BLOCKS as u64 >= 2 * TRANSACTION_LIFE_BLOCKS);
const _: () = assert!(DELTA_RANGE_BYTES_MAX > DELTA_FRAME_BYTES_MAX as u64 + 28);
const _: () = assert!(PREFETCHES_IN_FLIGHT < FETCHES_IN_FLIGHT);
const _: () = assert!(JOURNAL_MERGE_BYTES_MAX as u64 <= JOURNAL_SEGMENT_BYTES);
const _: () = assert!(JOURNAL_TABLE_BEHIND_BYTES_MAX + JOURNAL_MERGE_BYTES_MAX <= JOURNAL_BEHIND_BYTES_MAX / 2);
const _: () = assert!(AWAY_LOOK_INTERVAL.as_secs() < AWAY_PATIENCE.as_secs());
const _: () = assert!(FOREGROUND_HELD_MAX.as_secs() * 2 < MINER_STALL_TIMEOUT.as_secs());
const _: () = assert!(BALLAST_BYTES_MAX.is_multiple_of(BALLAST_STEP_BYTES) && BALLAST_PROBE_BYTES < BALLAST_STEP_BYTES);
const _: () = assert!(TRANSACTION_LIFE_BLOCKS.is_power_of_two());
const _: () = assert!(TRANSACTION_TIMEOUT.as_secs() > TRANSACTION_LIFE_BLOCKS * 6);
const _: () = assert!(SEGMENT_CHARGE_BYTES == (COLUMNS * FRAGMENT_BYTES) as u64);
const _: () = assert!(FRAGMENT_BYTES.is_multiple_of(ROW_BYTES));
const _: () = assert!(ROW_BYTES.is_multiple_of(STRIPE_BYTES));
const _: () = assert!(FRAGMENT_BYTES.is_multiple_of(CHUNK_BYTES));
const _: () = assert!(
    PACK_DIRECTORY_BYTES_MAX + (PACK_SEGMENTS_MAX * SEGMENT_BYTES / DELTA_FRAME_BYTES_MAX * 12) as u64
        <= DIRECTORY_BYTES_MAX / 2
);

/// Bytes that reading takes at most, of a mount or of a recovery: a segment rebuilt and one kept, chunks asked for and kept.
const READING_BYTES: usize = REBUILDS_IN_FLIGHT * (REBUILD_FRAGMENTS_MAX * FRAGMENT_BYTES + SEGMENT_BYTES)
    + SEGMENT_CACHE_COUNT * SEGMENT_BYTES
    + CHUNK_CACHE_BYTES
    + FETCHES_IN_FLIGHT * 2 * CHUNK_BYTES;
/// The same of the journal: changes that its table does not have, the record that is merged, the cache of the database.
const JOURNAL_BYTES: usize =
    JOURNAL_BEHIND_BYTES_MAX + JOURNAL_MERGE_BYTES_MAX + max(REDB_CACHE_BYTES, SLED_CACHE_BYTES as usize);
/// The same of sending and upkeep: fragments and rows on their way, segments hashed, fragments read whole, ids of what lives, chunks
/// that move.
const SENDING_BYTES: usize = FRAGMENTS_IN_FLIGHT * ROW_BYTES
    + ROWS_KEPT * COLUMNS * ROW_BYTES
    + HASHES_IN_FLIGHT * CHUNK_BYTES
    + SCRUB_FRAGMENTS_IN_FLIGHT * FRAGMENT_BYTES
    + LIVE_IDS_MAX * size_of::<u64>()
    + MOVE_CHUNKS_MAX * 150
    + LOST_CHUNKS_MAX * 50
    + MOVES_IN_FLIGHT * 2 * CHUNK_BYTES;
/// The same of the longest answer of the chain, its hex and what that says. Few accounts come near: 10,000 packs are 4 MiB.
const ANSWER_BYTES: usize = CHAIN_ANSWER_BYTES_MAX as usize / 2 * 3;
/// The same of reading directories and deltas: each directory sealed, open and as entries, each range of deltas sealed and open.
const ARCHIVE_BYTES: usize = ARCHIVE_PACKS_IN_FLIGHT * 3 * DIRECTORY_BYTES_MAX as usize
    + DELTA_RANGES_IN_FLIGHT * 2 * (DELTA_RANGE_BYTES_MAX as usize + DELTA_FRAME_BYTES_MAX);

// What this crate holds in memory at once for a mounted volume, beside what grows with it: a list of packs, which has 32 bytes for each
// fragment.
const _: () = assert!(READING_BYTES + JOURNAL_BYTES + SENDING_BYTES < 400 << 20);
const _: () = assert!(READING_BYTES + JOURNAL_BYTES + SENDING_BYTES + ANSWER_BYTES < 640 << 20);
// What it holds for a recovery, beside that list and the entries of all directories, 48 bytes for each chunk. Directories that cessfs
// writes are a quarter of the longest that it reads.
const _: () = assert!(READING_BYTES + JOURNAL_BYTES + ARCHIVE_BYTES + ANSWER_BYTES < 1536 << 20);

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}
