//! The ballast: a file of allocated blocks that nobody reads, given up piece by piece when the journal finds the disk
//! full.
//!
//! The [reserve](crate::disk) is left free by whoever asks before writing. Others do not ask: files that pass are
//! written by the kernel, and the disk may be shared. A journal that cannot be written takes no more changes, not even the
//! deletions that would make room, and one that cannot be opened keeps the volume from being mounted. So some room is
//! taken beforehand.
//!
//! ```text
//! none --(mounted for writing, enough is free)--> whole --(the journal meets a full disk)--> broken
//!                                                   ^                                          |
//!                                                   +------------(there is room)---------------+
//! ```
//!
//! While it is broken only deletions are [admitted](Ballast::admit): what is left is for them. It is made of blocks
//! that `fallocate` sets aside; a filesystem without that has no ballast, since it may store zeros as nothing.
//!
//! Promises: nothing of the volume's. The file may be removed at any time.

use crate::disk::Disk;
use crate::limits::{
    BALLAST_BYTES_MAX, BALLAST_DISK_SHARE, BALLAST_PROBE_BYTES, BALLAST_STEP_BYTES, DISK_RESERVE_BYTES,
};
use crate::store::StoreError;
use nix::fcntl::{FallocateFlags, fallocate};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of the units `st_blocks` counts in.
const STAT_BLOCK_BYTES: u64 = 512;

/// Room on a journal's disk that only the journal gets.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
    held: Mutex<Held>,
    /// Something was given up and has not been made again.
    broken: AtomicBool,
    /// It is made, and made again, when there is room.
    kept: AtomicBool,
}

#[derive(Debug)]
struct Held {
    /// Open as long as it is there: a descriptor may be as hard to have as room.
    file: Option<File>,
    bytes: u64,
}

impl Ballast {
    /// What is there of it at `path`, which should be on the journal's disk. Makes nothing.
    pub fn at(path: &Path) -> Ballast {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path);
        let file = opened
            .inspect_err(|e| {
                if e.kind() != ErrorKind::NotFound {
                    tracing::warn!("{}: {e}", path.display());
                }
            })
            .ok();
        let bytes = file.as_ref().map_or(0, allocated);
        let broken = file.is_some() && bytes < wanted(path);
        Ballast {
            path: path.to_owned(),
            held: Mutex::new(Held { file, bytes }),
            broken: AtomicBool::new(broken),
            kept: AtomicBool::new(false),
        }
    }

    /// From now on it is made whenever there is room and it is not whole.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
        self.make();
    }

    /// Makes it whole, if it is to be kept and there is room. Costs nothing while it is.
    pub(crate) fn make(&self) {
        if !self.kept.load(Ordering::Relaxed) {
            return;
        }
        let mut held = self.held.lock();
        let broken = self.broken.load(Ordering::Relaxed);
        if held.bytes > 0 && !broken {
            return;
        }
        let Some(disk) = Disk::of(self.dir()) else { return };
        let wanted = wanted_of(&disk);
        // The first must not be what makes a disk tight.
        let beside = if broken {
            BALLAST_STEP_BYTES
        } else {
            2 * DISK_RESERVE_BYTES
        };
        if wanted == 0 || disk.available < wanted.saturating_sub(held.bytes) + beside {
            return;
        }
        match self.fill(&mut held, wanted) {
            Ok(()) => {
                self.broken.store(false, Ordering::Relaxed);
                tracing::debug!("{wanted} bytes of the disk are set aside for the journal");
            }
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => self.do_without(&mut held),
            Err(e) => tracing::debug!("no room was set aside for the journal: {e}"),
        }
    }

    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn fill(&self, held: &mut Held, wanted: u64) -> io::Result<()> {
        if held.file.is_none() {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            held.file = Some(options.open(&self.path)?);
        }
        let file = held.file.as_ref().expect("it has just been opened, or was before");
        let filled = allocate(file, FallocateFlags::empty(), 0, wanted);
        if filled.is_err() {
            // What it got before it failed.
            file.set_len(held.bytes)?;
        }
        let synced = filled.and_then(|()| file.sync_all());
        held.bytes = allocated(file);
        synced
    }

    fn do_without(&self, held: &mut Held) {
        tracing::info!("no room is set aside for the journal: the disk's filesystem cannot");
        self.kept.store(false, Ordering::Relaxed);
        self.broken.store(false, Ordering::Relaxed);
        *held = Held { file: None, bytes: 0 };
        if let Err(e) = std::fs::remove_file(&self.path) {
            tracing::debug!("{}: {e}", self.path.display());
        }
    }

    /// Gives up a piece; false if there is none left.
    fn give(&self) -> bool {
        let mut held = self.held.lock();
        let Some(file) = held.file.as_ref().filter(|_| held.bytes > 0) else {
            return false;
        };
        let left = held.bytes.saturating_sub(BALLAST_STEP_BYTES);
        // Synced, because some filesystems hand blocks out again only then.
        if let Err(e) = file.set_len(left).and_then(|()| file.sync_all()) {
            tracing::warn!("{}: {e}", self.path.display());
            return false;
        }
        held.bytes = left;
        self.broken.store(true, Ordering::Relaxed);
        tracing::warn!(
            "the disk is full: the journal takes of the room that was set aside for it, {left} bytes of which are left; \
             only deletions are possible until there is room again"
        );
        true
    }

    /// Writes, giving up one piece after the other while the disk is full. Every try writes to the same place.
    pub(crate) fn write<T, E: MayBeFull>(&self, mut write: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        loop {
            match write() {
                Err(e) if e.is_full() && self.give() => {}
                written => return written,
            }
        }
    }

    /// Takes blocks for a file that will grow by `bytes`, while the disk is nearly full: before something is written that
    /// cannot be tried again. Nobody else gets them meanwhile.
    pub(crate) fn claim(&self, file: &File, bytes: u64) {
        let tight = Disk::of(self.dir()).is_some_and(|disk| disk.available < DISK_RESERVE_BYTES + bytes);
        if !tight {
            return;
        }
        let claimed = self.write(|| {
            let end = file.metadata()?.len();
            allocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, end, bytes)
        });
        if let Err(e) = claimed {
            tracing::debug!("the journal's database may find no room: {e}");
        }
    }

    /// Gives up a piece if the disk is full: what is done next needs a little room.
    pub fn make_room(&self) {
        let tight = Disk::of(self.dir()).is_some_and(|disk| disk.available < BALLAST_STEP_BYTES);
        if tight && !self.disk_takes_more() {
            self.give();
        }
    }

    /// Asks the disk itself: who may use what it keeps for root, and how much a quota leaves, it alone knows.
    fn disk_takes_more(&self) -> bool {
        let held = self.held.lock();
        let Some(file) = &held.file else { return true };
        let probed = allocate(
            file,
            FallocateFlags::FALLOC_FL_KEEP_SIZE,
            held.bytes,
            BALLAST_PROBE_BYTES,
        );
        if let Err(e) = file.set_len(held.bytes) {
            tracing::debug!("{}: {e}", self.path.display());
        }
        !probed.is_err_and(|e| e.is_full())
    }

    /// Whether there is room for changes that do not make room.
    ///
    /// # Errors
    /// `Full` while it is broken.
    pub(crate) fn admit(&self) -> Result<(), StoreError> {
        if !self.broken.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.make();
        match self.broken.load(Ordering::Relaxed) {
            true => Err(StoreError::Full),
            false => Ok(()),
        }
    }
}

/// An error of which a full disk may be the cause.
pub(crate) trait MayBeFull {
    fn is_full(&self) -> bool;
}

impl MayBeFull for io::Error {
    fn is_full(&self) -> bool {
        matches!(self.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }
}

impl MayBeFull for StoreError {
    fn is_full(&self) -> bool {
        matches!(self, StoreError::Full)
    }
}

fn allocate(file: &File, flags: FallocateFlags, from: u64, bytes: u64) -> io::Result<()> {
    let signed = |number: u64| i64::try_from(number).map_err(io::Error::other);
    Ok(fallocate(file, flags, signed(from)?, signed(bytes)?)?)
}

/// Bytes that the file really has of the disk: a copy of it may be all hole.
fn allocated(file: &File) -> u64 {
    let found = file.metadata();
    found.map_or(0, |found| found.len().min(found.blocks() * STAT_BLOCK_BYTES))
}

fn wanted(path: &Path) -> u64 {
    let disk = Disk::of(path.parent().unwrap_or(Path::new("/")));
    disk.as_ref().map_or(0, wanted_of)
}

fn wanted_of(disk: &Disk) -> u64 {
    let share = disk.total / BALLAST_DISK_SHARE / BALLAST_STEP_BYTES * BALLAST_STEP_BYTES;
    share.min(BALLAST_BYTES_MAX)
}

#[cfg(test)]
mod tests;
