//! What the control side asks: numbers, reports, and making the network catch up.

use super::Vfs;
use crate::attr::{ExtentInfo, StatFs};
use crate::error::VfsError;
use crate::evict::EvictReport;
use crate::limits::{BLOCK_BYTES, INODES_MAX};
use crate::restore::MissingFile;
use futures::future::BoxFuture;
use std::sync::atomic::Ordering;

impl Vfs {
    /// Returns when every change of names and attributes made so far outlives this process, however it ends. Says nothing of the
    /// power, nor of content. To be called before a change is answered; the caller holds no lock.
    pub fn put_down(&self) -> Result<(), VfsError> {
        Ok(self.core.store.put_down()?)
    }

    /// Room in the territory, or, while nothing was heard of it, on the disk of the cache. What can be written now is limited by
    /// that disk, less what the cache can give up for it; it is nothing while the backlog of unsent bytes is at its bound.
    pub fn statfs(&self) -> StatFs {
        let (mut disk_blocks, mut local) = (0, 0);
        if let Ok(disk) = nix::sys::statvfs::statvfs(&self.core.config.cache_dir) {
            let unit = disk.fragment_size();
            disk_blocks = (disk.blocks()).saturating_mul(unit) / BLOCK_BYTES;
            local = (disk.blocks_available()).saturating_mul(unit) / BLOCK_BYTES;
        }
        let (blocks, free, available) = match self.core.chunks.network_room().territory {
            Some(territory) => {
                let unsent = self.data.dirty_bytes();
                let free = territory.free_bytes.saturating_sub(unsent) / BLOCK_BYTES;
                let sent = self.data.cache_bytes().saturating_sub(unsent) / BLOCK_BYTES;
                (
                    territory.total_bytes / BLOCK_BYTES,
                    free,
                    free.min(local.saturating_add(sent)),
                )
            }
            None => (disk_blocks, local, local),
        };
        let backlog = self.core.chunks.backlog();
        let is_stuck = backlog.bound_bytes > 0 && backlog.unsent_bytes >= backlog.bound_bytes;
        let available = if is_stuck { 0 } else { available };
        let files = self.file_count();
        StatFs {
            blocks,
            free,
            available,
            files,
            files_free: INODES_MAX.saturating_sub(files),
        }
    }

    /// Room in the tree that an inode lies in: what its quota leaves, where it has one and that is less.
    pub fn statfs_at(&self, ino: u64) -> StatFs {
        let disk = self.statfs();
        let tree = self.inode(ino).ok().map(|inode| inode.state.read().record.quota);
        let Some(report) = tree.and_then(|tree| self.core.quotas.report(tree)) else {
            return disk;
        };
        let mut room = disk;
        if report.bytes_max > 0 {
            let max = report.bytes_max / BLOCK_BYTES;
            room.blocks = max;
            room.free = max.saturating_sub(report.used.blocks).min(disk.free);
            room.available = room.free.min(disk.available);
        }
        if report.inodes_max > 0 {
            room.files = report.used.inodes;
            room.files_free = report
                .inodes_max
                .saturating_sub(report.used.inodes)
                .min(disk.files_free);
        }
        room
    }

    /// Files can be handed to the kernel ([`open_through`](Vfs::open_through)).
    pub fn has_passthrough(&self) -> bool {
        self.core.config.passthrough
    }

    /// Inodes there are, the root and unlinked open files included.
    pub fn file_count(&self) -> u64 {
        self.core.files.load(Ordering::Relaxed)
    }

    /// The path of a directory from the root, a slash before each name (empty for the root); `None` where it was not seen
    /// lately.
    pub fn known_path(&self, ino: u64) -> Option<Vec<u8>> {
        self.core.places.path(ino)
    }

    /// The chunks of a file, for `explain`.
    pub fn extents(&self, ino: u64) -> Result<Vec<ExtentInfo>, VfsError> {
        let inode = self.inode(ino)?;
        self.data.extents(&inode)
    }

    /// Bytes of chunks not known to be in a sealed pack.
    pub fn dirty_bytes(&self) -> u64 {
        self.data.dirty_bytes()
    }

    /// Bytes of chunks that are in no pack, neither a sealed nor an open one.
    pub fn unsubmitted_bytes(&self) -> u64 {
        self.data.unsubmitted_bytes()
    }

    /// Bytes the backing files take on the disk.
    pub fn cache_bytes(&self) -> u64 {
        self.data.cache_bytes()
    }

    /// Fetches what only the network has of chunks that were written over in part: until then these cannot be submitted, though they
    /// survive a power cut here.
    ///
    /// # Errors
    /// The network does not give it, or the cache fails. The others are complete.
    pub fn complete_all(&self) -> BoxFuture<'static, Result<(), VfsError>> {
        self.data.complete_all()
    }

    /// Everything dirty at the call, and every attribute, has been submitted when it returns, and survives a power cut here; but for
    /// chunks that wait for [`complete_all`](Vfs::complete_all), which only survive it.
    pub fn write_back_all(&self) -> Result<(), VfsError> {
        if self.core.check_writable().is_ok() {
            self.journal_lazy()?;
        }
        self.data.write_back_all()
    }

    /// How often, since the volume was opened, something that had been submitted turned out not to be on its way: its pack could not be
    /// sealed, or was about to go. It is submitted again, but whoever waits for the network has to wait once more if this changed
    /// between [`write_back_all`](Vfs::write_back_all) and [`note_sent`](Vfs::note_sent).
    pub fn untold(&self) -> u64 {
        self.data.untold()
    }

    /// Notes, durably, what the packs sealed so far told the network. A network sync ends with it: whatever happens to this machine
    /// afterwards, no pack tells of less than what the sync promised.
    ///
    /// # Errors
    /// The store fails.
    pub fn note_sent(&self) -> Result<(), VfsError> {
        self.data.settle()?;
        Ok(self.core.store.barrier()?)
    }

    /// A pack did not fit on the disk: gives up some of what the cache has and the network, too. Whether it could.
    pub fn give_way_to_pack(&self) -> bool {
        self.data.give_way_to_pack()
    }

    /// Drops every chunk from the cache that the network is known to hold.
    pub fn evict_all(&self) -> Result<EvictReport, VfsError> {
        self.data.evict_all()
    }

    /// One round of what the background threads do, for a volume that was opened without them: writes back what is due, and
    /// keeps house. Blocks on the disk.
    pub fn work(&self) -> Result<(), VfsError> {
        if self.core.check_writable().is_err() {
            return Ok(());
        }
        self.data.work()?;
        while self.sweep_trash()? {}
        Ok(())
    }

    /// What a recovery could not bring back of the names and attributes, in sentences; told for good.
    pub fn lost_history(&self) -> Vec<String> {
        crate::restore::lost_history(&self.core).into_iter().collect()
    }

    /// Files with content that the network has lost: fewer than four miners have it, and it is not in the cache.
    pub fn lost_files(&self) -> Vec<MissingFile> {
        self.data.lost_files()
    }

    /// What went wrong lately (unreadable chunks and the like), newest last.
    pub fn errors(&self) -> Vec<String> {
        self.data.errors()
    }

    /// The same without names, for what rests on the disk unsealed.
    pub fn errors_without_names(&self) -> Vec<String> {
        self.data.errors_without_names()
    }
}
