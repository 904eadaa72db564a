//! Opening a volume and closing it.
//!
//! A volume that was closed says so in the store; the note is taken away, durably, before anything changes. Without it
//! the last mount ended in a crash: the content room compares its cache with the journal.

use super::handles::HandleTable;
use super::{Data, FileKind, Vfs, VfsParts};
use crate::change::Change;
use crate::core::Core;
use crate::error::VfsError;
use crate::inode::{ROOT_INO, lock_many};
use crate::limits::{SCAN_PAGE, SWEEP_PAGE};
use crate::quota::QuotaUse;
use crate::records::{self, InodeRecord};
use crate::trash::TrashSize;
use cessfs_sync::{Batch, DeltaSource};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Permissions of a new volume's root.
const ROOT_PERM: u16 = 0o755;

impl Vfs {
    /// Opens a volume: makes the root on an empty store, sweeps what was unlinked while open, looks the cache over after a
    /// crash, and starts writing back.
    pub fn open(parts: VfsParts) -> Result<Arc<Vfs>, VfsError> {
        let core = Arc::new(Core::new(parts));
        let was_clean = core.store.get(records::CLEAN_KEY)?.is_some();
        core.snapshots.load(&*core.store)?;
        if !core.config.read_only {
            core.shelf.open(&core.snapshots.after(0))?;
        }
        start_counters(&core, was_clean)?;
        if was_clean {
            let mut batch = Batch::new();
            batch.delete(records::CLEAN_KEY);
            core.marks.take_tally(&mut batch)?;
            if !core.config.read_only {
                core.store.commit(batch)?;
                // Content rests outside the store: it must not change while the disk still says "clean".
                core.store.barrier()?;
            }
        }
        let vfs = Arc::new(Vfs {
            data: Data::open(core.clone())?,
            core,
            handles: HandleTable::new(),
            renames: Mutex::new(()),
            walks: RwLock::new(()),
            syncing: Mutex::default(),
            sweeper: super::trash::Sweeper::default(),
        });
        make_root(&vfs.core)?;
        vfs.data.tell_missing()?;
        if vfs.core.config.read_only && !was_clean {
            vfs.data.recover_content()?;
        }
        if !vfs.core.config.read_only {
            vfs.sweep_orphans()?;
            if !was_clean {
                vfs.data.recover()?;
            }
        }
        vfs.data.resume_passes()?;
        if !vfs.core.config.read_only {
            vfs.resume_quotas()?;
            if vfs.core.config.background {
                vfs.data.start()?;
                vfs.start_sweeper()?;
            }
        }
        Ok(vfs)
    }

    /// The other end of the pipeline's upcall.
    pub fn delta_source(self: &Arc<Self>) -> Arc<dyn DeltaSource> {
        self.data.delta_source()
    }

    /// Journals what memory is ahead with, stops the background threads and marks the volume clean, durably. Changes after
    /// it fail with `EROFS`; a second close does nothing.
    pub fn close(&self) -> Result<(), VfsError> {
        if self.core.closed.swap(true, Ordering::SeqCst) || self.core.config.read_only {
            return Ok(());
        }
        self.sweeper.stop();
        self.journal_lazy()?;
        self.data.stop()?;
        let mut batch = Batch::new();
        self.put_counters(&mut batch);
        self.core.marks.put_tally(&mut batch);
        batch.put(records::NEXT_INO_KEY, records::encode_counter(self.core.inos.next()));
        batch.put(records::CLEAN_KEY, records::encode_counter(1));
        self.core.store.commit(batch)?;
        self.core.store.barrier()?;
        Ok(())
    }

    /// Deletes the inodes that lost their last name while they were open, and then the mount ended.
    fn sweep_orphans(&self) -> Result<(), VfsError> {
        loop {
            let page = self
                .core
                .store
                .scan(records::ORPHAN_PREFIX, records::ORPHAN_PREFIX, SCAN_PAGE)?;
            if page.is_empty() {
                return Ok(());
            }
            for (key, _) in page {
                let ino = records::parse_ino_key(&key)?;
                let _change = self.core.marks.enter();
                match self.inode(ino) {
                    Ok(inode) if inode.state.read().record.nlink == 0 => {
                        let mut locked = lock_many([&inode]);
                        let mut change = Change::new(&self.core, &self.data);
                        change.erase(&mut locked, ino)?;
                        change.commit(&mut locked)?;
                    }
                    Ok(_) | Err(VfsError::Stale) => {
                        let mut batch = Batch::new();
                        batch.delete(key);
                        self.core.store.commit(batch)?;
                    }
                    Err(e) => return Err(e),
                }
            }
        }
    }
}

/// How many inodes there are and what the next number is, which the store always knows. With them what trees with a quota
/// use and what is in the trash: from the last clean close; after a crash the trash is looked over, and only where there are
/// quotas every inode.
fn start_counters(core: &Core, was_clean: bool) -> Result<(), VfsError> {
    let counter = |key: &[u8]| -> Result<Option<u64>, VfsError> {
        core.store
            .get(key)?
            .map(|value| records::decode_counter(&value))
            .transpose()
            .map_err(VfsError::from)
    };
    super::quotas::load(core)?;
    let sums_known = || -> Result<bool, VfsError> {
        if was_clean && super::quotas::load_use(core)? && super::trash::load_size(core)? {
            return Ok(true);
        }
        Ok(core.quotas.all().is_empty() && super::trash::count(core).map(|()| true)?)
    };
    let stored_next = counter(records::NEXT_INO_KEY)?;
    let (files, next) = match (counter(records::FILES_KEY)?, stored_next) {
        (Some(files), Some(next)) if sums_known()? => (files, next),
        _ => {
            let count = count_inodes(core)?;
            core.trash.start(count.trash);
            (count.files, stored_next.unwrap_or(0).max(count.last + 1))
        }
    };
    core.files.store(files, Ordering::Relaxed);
    core.inos.start(next.max(ROOT_INO + 1));
    Ok(())
}

/// What a look at every inode tells.
#[derive(Default)]
struct Count {
    files: u64,
    /// The highest number given to an inode, or to something in the trash.
    last: u64,
    trash: TrashSize,
}

/// Looks at every inode.
fn count_inodes(core: &Core) -> Result<Count, VfsError> {
    let mut count = Count::default();
    core.quotas.start_counting();
    let mut from = records::INODE_PREFIX.to_vec();
    loop {
        let page = core.store.scan(records::INODE_PREFIX, &from, SWEEP_PAGE)?;
        let Some((key, _)) = page.last() else {
            return Ok(count);
        };
        count.last = count.last.max(records::parse_ino_key(key)?);
        count.files += page.len() as u64;
        from.clone_from(key);
        from.push(0);
        for (_, value) in &page {
            // A damaged record is an error for whoever needs the inode; the volume opens without it.
            let Ok(record) = InodeRecord::decode(value) else {
                continue;
            };
            if record.quota != 0 {
                core.quotas.add(
                    record.quota,
                    QuotaUse {
                        blocks: record.blocks,
                        inodes: 1,
                    },
                );
            }
            if record.trash != 0 {
                count.last = count.last.max(record.trash);
                count.trash.files += 1;
                count.trash.blocks += record.blocks;
            }
        }
    }
}

/// Makes the root directory if the store is empty.
fn make_root(core: &Core) -> Result<(), VfsError> {
    if core.store.get(&records::inode_key(ROOT_INO))?.is_some() {
        return Ok(());
    }
    let (uid, gid) = (core.config.root_uid, core.config.root_gid);
    let mut record = InodeRecord::new(FileKind::Directory, ROOT_PERM, uid, gid, core.now());
    record.parent = ROOT_INO;
    let _change = core.marks.enter();
    let mut batch = Batch::new();
    core.put_inode(&mut batch, ROOT_INO, &record);
    core.commit_counted(batch, 1, 0)
}
