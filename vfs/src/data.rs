//! File content: backing files, extents, reads and writes.
//!
//! A file is inline (its bytes are a record, up to 4096 of them) or cut into chunks of 1 MiB. A chunk is a hole, absent (the
//! network has it), resident (the backing file has it), and if resident, dirty (nobody else has it).
//!
//! ```text
//!   hole --write--> dirty --submitted and sealed--> clean --evict--> absent
//!                     ^                              |  ^               |
//!                     +------------write-------------+  +-----fetch-----+
//!                     +-----------------write of the whole chunk--------+
//!                     ^                                                 |
//!                     +--fetch of the rest-- patched <--write of blocks-+
//! ```
//!
//! A patched chunk is dirty and in part here: the blocks that were written over what the network has
//! (`docs/decisions/0028-written-over.md`).
//!
//! Promises: after [`fsync`](Data::fsync) everything written before survives a power cut; a later write that is not synced
//! never takes that away. What a crash leaves of unsynced writes is a prefix in the order of the journal's batches. Bytes
//! are never made up: what cannot be read is an error, and is told in [`errors`](Data::errors).
//! Refuses: names, permissions, who may write.
//!
//! Locks, in the order they are taken: the mutation guard of [`Marks`](crate::delta::Marks), the inode's `state`, then small
//! locks of this room that are never held while another is taken; before all of them, giving space back takes turns. Nobody
//! waits for the network under any of them.

mod copy;
mod errors;
mod extents;
mod fetch;
mod filling;
mod heartbeat;
mod inline;
mod journal;
mod listed;
pub(crate) mod logged;
pub(crate) mod passthrough;
mod piece;
mod read;
mod reclaim;
pub(crate) mod room;
mod seek;
pub(crate) mod size;
mod space;
pub(crate) mod state;
pub(crate) mod unsure;
pub(crate) mod untold;
mod write;
pub(crate) mod young;

use crate::backing::{self, Backing};
use crate::core::Core;
use crate::delta::cut::Cutter;
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::limits::{BLOCK_BYTES, RECENT_INODES_MAX};
use crate::records::{self, InodeRecord};
use crate::request::{Seek, SpaceChange};
use crate::restore::MissingFile;
use crate::writeback::{Completions, DirtyQueue, Workers};
use crate::{EvictReport, ExtentInfo, Later};
use cessfs_sync::disk::DiskRoom;
use cessfs_sync::limits::CHUNK_BYTES;
use cessfs_sync::{Batch, DeltaSource};
use errors::ErrorLog;
use filling::Filling;
use futures::future::BoxFuture;
use heartbeat::Heartbeat;
use listed::Listed;
use lru::LruCache;
use parking_lot::Mutex;
use passthrough::{Births, Looker, Stamp};
use reclaim::ReclaimQueue;
use space::SpaceCall;
use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

pub(crate) use heartbeat::{HEARTBEAT_KEY, Moment};
pub(crate) use piece::{ChunkAt, Piece, chunk_len, pieces};
pub use read::Content;
pub(crate) use read::copy_visible;
pub use state::DataState;

/// Bytes of a block, as an index.
pub(crate) const BLOCK: usize = BLOCK_BYTES as usize;
/// Bytes of a chunk, as an offset.
pub(crate) const CHUNK: u64 = CHUNK_BYTES as u64;

/// Key of what the backing files took on the disk at the last clean close (a counter): so a mount need not look at each. After
/// a crash the recovery does.
const CACHE_KEY: &[u8] = b"scache-used";

/// Content of all files of a volume. Cheap to clone.
#[derive(Clone)]
pub struct Data(Arc<Shared>);

/// What the content room's parts share.
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) backing: Arc<dyn Backing>,
    /// Chunks that have to be written back, or were and wait for their pack.
    pub(crate) dirty: Mutex<DirtyQueue>,
    /// What is fetched for chunks that have to be written back, and are not all here.
    pub(crate) completions: Completions,
    /// Inodes with content that is ahead of the store; kept alive by being here.
    pending: Mutex<BTreeMap<u64, Arc<Inode>>>,
    /// Fetched chunks that somebody is putting into the cache.
    filling: Filling,
    listed: Listed,
    /// Space to give back once the journal is durable.
    reclaim: ReclaimQueue,
    /// Last use of inodes, for eviction.
    pub(crate) recent: Mutex<LruCache<u64, Duration>>,
    pub(crate) errors: ErrorLog,
    /// Inodes that others read and write (the kernel): those they have open or mapped, at most
    /// [`PASSES_MAX`](crate::limits::PASSES_MAX), and no more than there are descriptors for.
    passing: Mutex<BTreeMap<u64, Arc<Inode>>>,
    births: Births,
    /// Files with content that the network has lost, as last told.
    pub(crate) lost: Mutex<Vec<MissingFile>>,
    heartbeat: Mutex<Heartbeat>,
    /// Held by the one eviction that runs: not before this monotonic time shall room be looked for again.
    pub(crate) evicting: Mutex<Duration>,
    /// Directories of the cache in which, after a crash, files of inodes that are no more may be left.
    pub(crate) strays: Mutex<Range<usize>>,
    cutter: Cutter,
    /// How often something that had been submitted turned out not to be on its way.
    pub(crate) untold: AtomicU64,
    workers: Workers,
    disk: DiskRoom,
    /// Blocks of all inodes of which the store has [copies](logged).
    logged_blocks: AtomicUsize,
    young: young::Young,
}

impl Data {
    /// Opens the backing files and what the last mount left to write back. Once per volume, after [`Core::new`].
    ///
    /// # Errors
    /// The cache directory cannot be made or read; the store cannot be read.
    pub fn open(core: Arc<Core>) -> Result<Data, VfsError> {
        let config = &core.config;
        let keys = core.keys.at_rest();
        let backing = backing::open(&config.cache_dir, config.at_rest, keys, core.entropy.clone())?;
        Data::over(core, backing)
    }

    /// The same over backing files of the caller's.
    pub(crate) fn over(core: Arc<Core>, backing: Arc<dyn Backing>) -> Result<Data, VfsError> {
        core.marks.open()?;
        match core.store.get(CACHE_KEY)? {
            Some(bytes) => backing.expect_used(records::decode_counter(&bytes)?),
            None => backing.recount(&mut |_| ())?,
        }
        let remembered = NonZeroUsize::new(RECENT_INODES_MAX).expect("the limit is not zero");
        let data = Data(Arc::new(Shared {
            backing,
            dirty: Mutex::new(DirtyQueue::default()),
            completions: Completions::default(),
            pending: Mutex::new(BTreeMap::new()),
            filling: Filling::default(),
            listed: Listed::default(),
            reclaim: ReclaimQueue::default(),
            recent: Mutex::new(LruCache::new(remembered)),
            errors: ErrorLog::default(),
            passing: Mutex::new(BTreeMap::new()),
            births: Births::new(),
            lost: Mutex::default(),
            heartbeat: Mutex::new(Heartbeat::new(&*core.clock)),
            evicting: Mutex::new(Duration::ZERO),
            strays: Mutex::new(0..0),
            cutter: Cutter::default(),
            untold: AtomicU64::new(0),
            workers: Workers::default(),
            disk: DiskRoom::new(&core.config.cache_dir),
            logged_blocks: AtomicUsize::new(0),
            young: young::Young::default(),
            core,
        }));
        data.0.load_dirty()?;
        data.0.resume_deletions()?;
        Ok(data)
    }

    /// After an unclean end, once orphans are swept and before anything else: compares the cache with the journal.
    ///
    /// # Errors
    /// The cache or the store cannot be read. Damage found is repaired or told in [`errors`](Data::errors), not returned.
    pub fn recover(&self) -> Result<(), VfsError> {
        self.0.recover()
    }

    /// The same for a volume that must not change: content that was promised can be read.
    ///
    /// # Errors
    /// The cache or the store cannot be read.
    pub(crate) fn recover_content(&self) -> Result<(), VfsError> {
        self.0.recover_content()
    }

    /// Believes the backing files that the last mount left open to others. After [`recover`](Data::recover), if that is due.
    ///
    /// # Errors
    /// The cache or the store cannot be read.
    pub fn resume_passes(&self) -> Result<(), VfsError> {
        self.0.resume_passes()
    }

    /// An open that is not counted yet: the backing file for the kernel to read and write, if it may. The caller holds the
    /// mutation guard. With `true` the open must not be answered before [`await_note`](Data::await_note).
    ///
    /// # Errors
    /// The cache or the store fails.
    pub fn enter_pass(
        &self,
        inode: &Arc<Inode>,
        state: &mut InodeState,
        write: bool,
    ) -> Result<Option<(Arc<File>, bool)>, VfsError> {
        let entered = self.0.enter_pass(inode, state, write)?;
        Ok(entered.map(|file| (file, write && self.0.note_is_young(state))))
    }

    /// The same for a file that was just made in directory `dir` with this name, and is open once; with the same errors.
    pub fn born_to_pass(&self, inode: &Arc<Inode>, dir: u64, name: &[u8]) -> Result<Option<Arc<File>>, VfsError> {
        self.0.born_to_pass(inode, dir, name)
    }

    /// Waits until a power cut cannot hide that others may have written to the inode's backing file; fails if the journal does.
    pub fn await_note(&self, inode: &Arc<Inode>) -> Result<(), VfsError> {
        self.0.await_note(inode)
    }

    /// Size, blocks and times of a file that others write, and whether they may be writing; `None` if the record has them.
    pub(crate) fn written_by_others(&self, state: &InodeState) -> Result<Option<(Stamp, bool)>, VfsError> {
        let Some(pass) = &state.data.pass else { return Ok(None) };
        Ok(Some((pass.now(&self.0.core, &state.record)?, pass.noted)))
    }

    /// Before times of the inode are set: the record gets those that others gave its content.
    pub(crate) fn take_times(&self, state: &mut InodeState) -> Result<(), VfsError> {
        self.0.take_times(state)
    }

    /// After times of the inode were set.
    pub(crate) fn times_were_set(&self, state: &mut InodeState) -> Result<(), VfsError> {
        self.0.times_were_set(state)
    }

    /// Starts the background threads.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(&self) -> Result<(), VfsError> {
        self.0.workers.start(&self.0)
    }

    /// One round of what the threads do.
    pub(crate) fn work(&self) -> Result<(), VfsError> {
        while self.0.write_back_next() {}
        self.0.keep_house()
    }

    /// Stops the background threads, makes the cache durable and brings the store up to date with memory. Making the store
    /// durable is the caller's.
    ///
    /// # Errors
    /// Something could not be synced or journaled.
    pub fn stop(&self) -> Result<(), VfsError> {
        self.0.listed.end();
        self.0.workers.stop();
        self.0.filling.end();
        let looked = self.0.look_at_all();
        self.0.settle_young(true);
        // A volume closed cleanly is not scanned: what rests in the cache has to be there after a power cut, too.
        let synced = self.0.backing.sync_all();
        self.0.persist_all()?;
        self.0.settle_submitted()?;
        synced?;
        self.0.reclaim()?;
        // What was found deleted on the way had to wait once more.
        self.0.reclaim()?;
        // Nor is it known to the next mount what was punched out and could come back.
        self.0.backing.sync_all()?;
        let mut batch = Batch::new();
        batch.put(CACHE_KEY, records::encode_counter(self.0.backing.used_bytes()));
        self.0.core.store.commit(batch)?;
        looked
    }

    /// Reads at most `len` bytes; fewer only at the end of the file.
    ///
    /// # Errors
    /// `Damaged` or `Disk` when the cache cannot give the bytes, `Fetch` when the network cannot, `Stale` when the inode is
    /// gone.
    pub fn read(&self, inode: &Arc<Inode>, offset: u64, len: u32) -> Result<Later<Content>, VfsError> {
        self.0.clone().read(inode, offset, len)
    }

    /// A directory told these regular files to whoever lists it: from its first entry on, or after what it told before.
    pub(crate) fn listed(&self, dir: u64, is_first: bool, files: &[u64]) {
        self.0.listed(dir, is_first, files);
    }

    /// Writes `data`; updates size, times and blocks of the record. Takes the mutation guard and the inode's lock itself.
    /// Returns how many bytes were written: fewer than asked when the disk filled up on the way.
    ///
    /// # Errors
    /// `TooLarge`, `NoSpace` (also when the cache is full of data not sent yet), and those of [`read`](Data::read): a write
    /// into a part of an absent chunk has to fetch it.
    pub fn write(&self, inode: &Arc<Inode>, offset: u64, data: &[u8]) -> Result<Later<u32>, VfsError> {
        self.0.clone().write(inode, offset, data)
    }

    /// Truncates or extends: changes `state.record` (size, blocks) and adds extents to `batch`; the caller, who holds the
    /// mutation guard, adds the record and commits. Never needs the network. A truncation of a very large file commits
    /// batches of its own, from the end of the file: a crash leaves it partly done.
    ///
    /// # Errors
    /// `TooLarge`; `Quota`, and nothing has changed; the store or the cache disk fails.
    pub fn set_size(
        &self,
        inode: &Inode,
        state: &mut InodeState,
        size: u64,
        batch: &mut Batch,
    ) -> Result<(), VfsError> {
        self.0.set_size(inode, state, size, batch)
    }

    /// Reserves, zeroes or punches out `range`, which is not empty. `grows`: the file becomes as long as the range's end. At
    /// most `free_blocks` blocks may be taken.
    ///
    /// # Errors
    /// `TooLarge`, `NoSpace`, and those of [`read`](Data::read): zeroing a part of a block may have to fetch its chunk.
    pub fn change_space(
        &self,
        inode: &Arc<Inode>,
        what: SpaceChange,
        range: Range<u64>,
        grows: bool,
        free_blocks: u64,
    ) -> Result<Later<()>, VfsError> {
        let call = SpaceCall {
            what,
            range,
            grows,
            free_blocks,
        };
        self.0.clone().change_space(inode, call)
    }

    /// The first byte from `offset` on that is data, or in a hole; a hole begins where the file ends.
    ///
    /// # Errors
    /// `NoOffset` at or beyond the end, or when no data follows; the store cannot be read.
    pub fn seek(&self, inode: &Inode, offset: u64, what: Seek) -> Result<u64, VfsError> {
        self.0.seek(inode, offset, what)
    }

    /// Copies bytes from file to file within the volume; tells how many, which may be fewer than asked. What lies beyond the
    /// end of `from` counts as zeros: whoever asks knows where it ends. The future works for long without waiting.
    ///
    /// # Errors
    /// `Invalid` for overlapping ranges of one file, and those of [`read`](Data::read) and [`write`](Data::write).
    pub fn copy(
        &self,
        from: &Arc<Inode>,
        from_offset: u64,
        to: &Arc<Inode>,
        to_offset: u64,
        len: u64,
    ) -> Result<Later<u64>, VfsError> {
        self.0.clone().copy(from, from_offset, to, to_offset, len)
    }

    /// Adds an inode's `record` to `batch`, and of a regular file what content has changed and was not journaled yet, so that no
    /// size runs ahead of the extents under it. Nothing in memory changes: put twice is journaled twice.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn put_inode(
        &self,
        ino: u64,
        state: &InodeState,
        record: &InodeRecord,
        batch: &mut Batch,
    ) -> Result<(), VfsError> {
        if state.gone || state.data.is_settled() {
            self.0.core.put_inode(batch, ino, record);
            return Ok(());
        }
        self.0.stage(ino, state, batch)?;
        state.data.put_record(&self.0.core, ino, record, batch);
        if let Some(inode) = self.0.core.inodes.peek(ino) {
            self.0.keep_pending(&inode);
        }
        Ok(())
    }

    /// Everything written before is on this disk when it returns; with `data_only` perhaps without its times.
    ///
    /// # Errors
    /// Whatever kept it from being so, also long before, in the background: once something could not be made durable, every
    /// fsync of the inode fails.
    pub fn fsync(&self, inode: &Arc<Inode>, data_only: bool) -> Result<(), VfsError> {
        self.0.fsync(inode, data_only)
    }

    /// The same if one flush of the journal is enough for it; false if not, and then nothing was done.
    ///
    /// # Errors
    /// See [`fsync`](Data::fsync).
    pub fn fsync_soon(&self, inode: &Arc<Inode>, data_only: bool) -> Result<bool, VfsError> {
        self.0.fsync_by_log(inode, data_only)
    }

    /// Last link and last handle are gone: adds the deletion of the content's records to `batch`. The backing file goes once
    /// that is durable.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn discard(&self, inode: &Inode, state: &mut InodeState, batch: &mut Batch) -> Result<(), VfsError> {
        self.0.discard(inode.ino, state, batch)
    }

    /// The last handle was closed: brings the store up to date, without waiting for the disk.
    pub fn released(&self, inode: &Arc<Inode>) {
        if let Err(e) = self.0.settle(inode, Looker::Close).and_then(|_| self.0.journal(inode)) {
            self.0.errors.add(format!(
                "inode {}: what was written cannot be journaled: {e}",
                inode.ino
            ));
        }
        self.0.learn_birth(inode);
    }

    /// The chunks of a file, for `explain`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn extents(&self, inode: &Inode) -> Result<Vec<ExtentInfo>, VfsError> {
        self.0.extents(inode)
    }

    /// Bytes of chunks not known to be in a sealed pack.
    pub fn dirty_bytes(&self) -> u64 {
        self.0.dirty.lock().bytes()
    }

    /// Bytes the backing files take on the disk.
    pub fn cache_bytes(&self) -> u64 {
        self.0.backing.used_bytes()
    }

    /// Everything dirty at the call has been submitted when it returns, and survives a power cut here.
    ///
    /// # Errors
    /// The pipeline's staging is full, a dirty chunk cannot be read, or something cannot be made durable; the rest is submitted.
    pub fn write_back_all(&self) -> Result<(), VfsError> {
        self.0.write_back_all()
    }

    /// Fetches what is missing of chunks that were written over in part.
    ///
    /// # Errors
    /// The network does not give it, or the cache fails; the rest is complete.
    pub(crate) fn complete_all(&self) -> BoxFuture<'static, Result<(), VfsError>> {
        let shared = self.0.clone();
        Box::pin(async move { shared.complete_all().await })
    }

    /// How often something that had been submitted turned out not to be on its way.
    pub(crate) fn untold(&self) -> u64 {
        self.0.untold.load(Ordering::Acquire)
    }

    /// Bytes of dirty chunks that were not handed to the chunk store yet.
    pub fn unsubmitted_bytes(&self) -> u64 {
        self.0.dirty.lock().unsubmitted_bytes()
    }

    /// Every dirty chunk is in the chunk store's open pack, or in one that was sealed since.
    pub(crate) fn all_submitted(&self) -> bool {
        self.0.dirty.lock().not_submitted().is_empty()
    }

    /// Takes notice of what was sealed since.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) fn settle(&self) -> Result<(), VfsError> {
        self.0.settle_submitted()
    }

    /// Journals everything about every inode.
    ///
    /// # Errors
    /// The cache or the store fails.
    pub(crate) fn persist_all(&self) -> Result<(), VfsError> {
        self.0.persist_all()
    }

    /// Drops every chunk from the cache that the network is known to hold.
    ///
    /// # Errors
    /// The cache or the store fails.
    pub fn evict_all(&self) -> Result<EvictReport, VfsError> {
        self.0.evict_all()
    }

    /// The cache, or the disk under it, has no room for content to come.
    pub fn is_tight(&self) -> bool {
        self.0.is_tight()
    }

    /// Gives up what the network has if there is no room beside it; whether there is more room now.
    pub(crate) fn give_way(&self) -> bool {
        self.0.give_way()
    }

    /// Gives up some of what the network has for a pack that did not fit beside it; whether it could.
    pub(crate) fn give_way_to_pack(&self) -> bool {
        self.0.give_way_to_pack()
    }

    /// Gives back the space of what was deleted, without waiting for the background to do it.
    ///
    /// # Errors
    /// The cache or the store fails.
    pub fn reclaim(&self) -> Result<(), VfsError> {
        self.0.reclaim()
    }

    /// Whether space waited to be given back, or was just being; it is given back then. What cannot be waits for the background.
    pub(crate) fn give_back_waiting(&self) -> bool {
        self.0.reclaim.is_busy() && self.0.reclaim().is_ok()
    }

    /// The other end of the pipeline's upcall.
    pub fn delta_source(&self) -> Arc<dyn DeltaSource> {
        self.0.clone()
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Shared {
    /// Keeps the inode in memory until nothing of it is ahead of the store.
    pub(crate) fn keep_pending(&self, inode: &Arc<Inode>) {
        self.pending.lock().entry(inode.ino).or_insert_with(|| inode.clone());
    }

    fn touch_recent(&self, ino: u64) {
        self.recent.lock().put(ino, self.core.clock.monotonic());
    }

    pub(crate) fn cutter(&self) -> &Cutter {
        &self.cutter
    }
}

#[cfg(test)]
mod tests;
