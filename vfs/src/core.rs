//! What every part of the room shares: the seams (store, clock, chunks, randomness), the keys, the settings and the tables
//! in memory.
//!
//! Nothing here knows how names or content work; it only turns inode records into batches and time into timestamps.

use crate::attr::Timestamp;
use crate::data::untold::Untold;
use crate::delta::Marks;
use crate::dentry::DentryCache;
use crate::error::VfsError;
use crate::ino_counter::InoCounter;
use crate::inode::InodeTable;
use crate::limits::ROOM_WAIT_DEFAULT;
use crate::places::Places;
use crate::quota::Quotas;
use crate::records::{self, InodeRecord};
use crate::snapshot::{Shelf, Snapshots, TreeStores};
use crate::trash::Trash;
use cessfs_crypto::{AtRestKeys, Entropy, VolumeKeys};
use cessfs_sync::{Batch, ChunkStore, Clock, MetaStore};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How content and names rest on the local disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtRest {
    /// Backing blocks are encrypted in place, records are sealed (by the store).
    Sealed,
    /// Both are readable to the machine's owner: for disks that are encrypted already.
    Plain,
}

/// What a user may tune, and what wiring has to say about this machine.
#[derive(Clone, Debug)]
pub struct VfsConfig {
    /// Where backing files live; exists and belongs to this volume alone.
    pub cache_dir: PathBuf,
    /// How the cache rests on the disk.
    pub at_rest: AtRest,
    /// A chunk quiet for this long is written back (5 s unless told otherwise).
    pub writeback_delay: Duration,
    /// Bytes of clean content kept in the cache before eviction starts.
    pub cache_bytes_max: u64,
    /// How long a writer waits for room in a cache that is full of unsent content before it is told that there is none.
    pub room_wait: Duration,
    /// Every change is refused with `EROFS`.
    pub read_only: bool,
    /// When reading moves an access time.
    pub atime: AtimeRule,
    /// Reading moves the access times of directories too.
    pub dir_atime: bool,
    /// How long deleted files can be had back; zero: not at all.
    pub trash_keep: Duration,
    /// Younger files are deleted for good: they are what programs make and throw away again.
    pub trash_min_age: Duration,
    /// The kernel may read and write plain backing files itself. Ask [`passthrough_obstacle`](crate::passthrough_obstacle)
    /// first.
    pub passthrough: bool,
    /// Which start of the machine this is (`/proc/sys/kernel/random/boot_id`); zeros: not known, and then what a crash of the
    /// process left is looked at as if the power had been cut.
    pub boot: [u8; 16],
    /// Owner of the root directory when it is made.
    pub root_uid: u32,
    /// Group of the root directory when it is made.
    pub root_gid: u32,
    /// Threads of the volume write back and keep house. Without them whoever opened it calls [`work`](crate::Vfs::work).
    pub background: bool,
}

impl VfsConfig {
    /// The settings a volume has unless told otherwise, over this cache directory.
    pub fn new(cache_dir: PathBuf) -> VfsConfig {
        VfsConfig {
            cache_dir,
            at_rest: AtRest::Sealed,
            writeback_delay: Duration::from_secs(5),
            cache_bytes_max: 10 << 30,
            room_wait: ROOM_WAIT_DEFAULT,
            read_only: false,
            atime: AtimeRule::default(),
            dir_atime: true,
            trash_keep: Duration::ZERO,
            trash_min_age: Duration::ZERO,
            passthrough: false,
            boot: [0; 16],
            root_uid: 0,
            root_gid: 0,
            background: true,
        }
    }
}

/// When reading moves an access time (mount(8) names the rules).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtimeRule {
    /// `noatime`
    Never,
    /// `relatime`: the first time after a change, and else once a day.
    #[default]
    Relative,
    /// `strictatime`
    Always,
}

/// What wiring hands over to build a [`Vfs`](crate::Vfs).
pub struct VfsParts {
    /// The one store that vfs and sync share. It seals its values itself where the volume is sealed at rest.
    pub store: Arc<dyn MetaStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where chunks go and come from.
    pub chunks: Arc<dyn ChunkStore>,
    /// Keys of the volume.
    pub keys: VolumeKeys,
    /// Settings.
    pub config: VfsConfig,
    /// Where random bytes come from.
    pub entropy: Arc<Mutex<dyn Entropy>>,
    /// Where trees of snapshots are put while somebody looks at them.
    pub trees: Arc<dyn TreeStores>,
}

impl VfsParts {
    /// The same parts once more: for a second opening after the first was closed.
    pub fn again(&self) -> VfsParts {
        VfsParts {
            store: self.store.clone(),
            clock: self.clock.clone(),
            chunks: self.chunks.clone(),
            keys: self.keys.clone(),
            config: self.config.clone(),
            entropy: self.entropy.clone(),
            trees: self.trees.clone(),
        }
    }
}

/// The shared middle of a mounted volume.
pub struct Core {
    /// The metadata store.
    pub store: Arc<dyn MetaStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where chunks go and come from.
    pub chunks: Arc<dyn ChunkStore>,
    /// Keys of the volume.
    pub keys: VolumeKeys,
    /// Settings.
    pub config: VfsConfig,
    /// Where random bytes come from.
    pub entropy: Arc<Mutex<dyn Entropy>>,
    /// Live inodes.
    pub inodes: InodeTable,
    /// Change marks of the next delta.
    pub marks: Marks,
    /// Names read lately.
    pub(crate) dentries: DentryCache,
    /// Where directories lie, as far as it was seen lately.
    pub(crate) places: Places,
    /// What trees with a quota use.
    pub(crate) quotas: Quotas,
    /// What is in the trash, in numbers.
    pub(crate) trash: Trash,
    /// What is known of snapshots.
    pub(crate) snapshots: Snapshots,
    /// Trees of snapshots that were looked at.
    pub(crate) shelf: Arc<Shelf>,
    /// Hashes names.
    pub(crate) at_rest: AtRestKeys,
    /// Issues inode numbers.
    pub(crate) inos: InoCounter,
    /// Inodes that exist (the root counts, orphans too).
    pub(crate) files: AtomicU64,
    /// Held while inodes are counted and their batch is committed: the counts follow each other as the batches do.
    counting: Mutex<()>,
    /// Closed: no more changes.
    pub(crate) closed: AtomicBool,
    /// Another machine has taken the volume over: no more changes.
    pub(crate) stopped: AtomicBool,
    /// Whoever writes tells the times of it.
    pub(crate) times_are_told: AtomicBool,
}

impl Core {
    /// Builds the tables over `parts`; reads and writes nothing yet.
    pub fn new(parts: VfsParts) -> Core {
        let fenced = parts.chunks.is_fenced();
        Core {
            at_rest: parts.keys.at_rest(),
            snapshots: Snapshots::default(),
            shelf: Arc::new(Shelf::new(parts.trees, parts.chunks.clone(), parts.keys.at_rest())),
            marks: Marks::new(parts.store.clone(), parts.clock.clone(), parts.chunks.clone()),
            store: parts.store,
            clock: parts.clock,
            chunks: parts.chunks,
            keys: parts.keys,
            config: parts.config,
            entropy: parts.entropy,
            inodes: InodeTable::new(),
            dentries: DentryCache::new(),
            places: Places::new(),
            quotas: Quotas::default(),
            trash: Trash::default(),
            inos: InoCounter::new(),
            files: AtomicU64::new(0),
            counting: Mutex::new(()),
            closed: AtomicBool::new(false),
            stopped: AtomicBool::new(fenced),
            times_are_told: AtomicBool::new(false),
        }
    }

    /// The wall clock as a file time.
    pub fn now(&self) -> Timestamp {
        let wall = self.clock.wall();
        Timestamp {
            secs: i64::try_from(wall.as_secs()).unwrap_or(i64::MAX),
            nanos: wall.subsec_nanos(),
        }
    }

    /// Content changed: now, unless whoever writes tells when.
    pub(crate) fn stamp_written(&self, record: &mut InodeRecord, untold: &mut Untold) {
        let now = self.now();
        if self.times_are_told.load(Ordering::Relaxed) {
            untold.written(now);
        } else {
            record.mtime = now;
            record.ctime = now;
        }
    }

    /// Puts an inode's record into `batch` and marks it changed. The batch must be committed while the inode's `state` is
    /// locked for writing, or an older record could land on a newer one.
    pub fn put_inode(&self, batch: &mut Batch, ino: u64, record: &InodeRecord) {
        self.put_inode_with(batch, ino, record, record.blocks);
    }

    /// The same where the extents that the store has take `blocks`: the quota goes by the record.
    pub(crate) fn put_inode_with(&self, batch: &mut Batch, ino: u64, record: &InodeRecord, blocks: u64) {
        if record.quota != 0
            && let Some(inode) = self.inodes.peek(ino)
        {
            self.quotas.settle(&inode, record);
        }
        let key = records::inode_key(ino);
        self.marks.mark(batch, &key);
        let value = match blocks == record.blocks {
            true => record.encode(),
            false => InodeRecord {
                blocks,
                ..record.clone()
            }
            .encode(),
        };
        batch.put(key, value);
    }

    /// Deletes an inode's record and marks it changed.
    pub(crate) fn delete_inode(&self, batch: &mut Batch, ino: u64) {
        let key = records::inode_key(ino);
        self.marks.mark(batch, &key);
        batch.delete(key);
    }

    /// Commits a batch that brings `born` inodes and takes `erased`, and with it how many there are then. So a crash leaves a
    /// count that is right, and no mount has to look at every inode.
    pub(crate) fn commit_counted(&self, mut batch: Batch, born: u64, erased: u64) -> Result<(), VfsError> {
        if born == erased {
            return Ok(self.store.commit(batch)?);
        }
        let _in_order = self.counting.lock();
        let files = (self.files.load(Ordering::Relaxed) + born).saturating_sub(erased);
        batch.put(records::FILES_KEY, records::encode_counter(files));
        self.store.commit(batch)?;
        self.files.store(files, Ordering::Relaxed);
        Ok(())
    }

    /// The same before a change that does not make room.
    ///
    /// # Errors
    /// `ENOSPC` while the disk has only what was set aside for deletions.
    pub(crate) fn check_room(&self) -> Result<(), VfsError> {
        self.check_writable()?;
        Ok(self.store.admit()?)
    }

    /// Fails with `EROFS` on a read-only or closed volume, and on one that another machine has taken over.
    pub(crate) fn check_writable(&self) -> Result<(), VfsError> {
        if self.config.read_only || self.closed.load(Ordering::Relaxed) || self.stopped.load(Ordering::Relaxed) {
            Err(VfsError::ReadOnly)
        } else {
            Ok(())
        }
    }
}
