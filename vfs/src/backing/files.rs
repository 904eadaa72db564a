//! The files themselves: names, descriptors, space and durability, the same for both layouts.
//!
//! ```text
//! <cache>/<low byte of the inode, 2 hex>/<inode, 16 hex>                 part 0
//! <cache>/<low byte of the inode, 2 hex>/<inode, 16 hex>.d/<part, 16 hex>  the others
//! ```
//!
//! A file is split into parts so that a sparse file of any size works on filesystems that bound the offset (ext4: 16 TiB).
//! Descriptors are few: the least recently used is closed, and opened again when needed. What was written and not synced
//! is remembered by number, not by descriptor.

mod open;
mod pinned;
mod sync;
mod write;

#[cfg(test)]
pub(crate) use open::DESCRIPTORS;
pub(crate) use open::lacks_descriptors;

use super::recent::Recent;
use super::{BackingFile, sparse};
use crate::limits::{BACKING_DIRS, BACKING_PARTS_OPEN_MAX, PARTS_OPEN_SHARE, PARTS_PINNED_SHARE};
use crate::records::BlockMap;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Whence;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, StatxFlags};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of the units `st_blocks` counts in.
const STAT_BLOCK_BYTES: u64 = 512;

/// A range of one part of an inode's backing file.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartAt {
    pub(super) ino: u64,
    pub(super) part: u64,
    pub(super) offset: u64,
}

/// Who says what is read from the disk before it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readahead {
    /// The disk's filesystem, which sees files read in order.
    Disk,
    /// Whoever calls [`will_read`](Files::will_read): what lies in order is half holes, which the filesystem would read as
    /// pages of zeros.
    Asked,
}

/// Every backing file of a volume.
pub(crate) struct Files {
    dir: PathBuf,
    /// The same, open since before anything was written: the filesystem tells each opening of a failure once, and one that is opened
    /// later not of what somebody else has heard of already.
    root: File,
    open: Mutex<Recent<Arc<Part>>>,
    /// First parts that others read and write: open as long as they do. Taken while `open` is held, never before it.
    pinned: Mutex<HashMap<u64, Arc<Part>>>,
    /// What was written since the last sync that succeeded, by inode.
    unsynced: Mutex<HashMap<u64, Unsynced>>,
    /// Inodes of which something was punched out since their last sync: which of all cuts was the last. A power cut may give it
    /// back, whatever the file shows now.
    cut: Mutex<HashMap<u64, u64>>,
    cuts: AtomicU64,
    /// Syncs of one inode run one after the other, or the second would report what the first has not done yet.
    sync_locks: Vec<Mutex<()>>,
    used: AtomicU64,
    /// Descriptors that may be kept open.
    open_max: usize,
    /// First parts that may be pinned at a time.
    pins_max: usize,
    readahead: Readahead,
    /// How many bytes of a write the disk takes, by its place and length.
    #[cfg(test)]
    takes: Option<super::Takes>,
}

/// What a sync of an inode has to do.
#[derive(Debug, Default)]
struct Unsynced {
    /// Parts that were written; true: the part is new, so its directory has to be synced too.
    parts: BTreeMap<u64, bool>,
    /// A sync of it failed with this error. The kernel tells of a failure once and then takes the pages for clean: whoever asks
    /// later must not hear of success, whoever had asked before.
    failed: Option<i32>,
}

struct Part {
    file: Arc<File>,
    /// Bytes it took on the disk when last asked.
    used: AtomicU64,
}

impl Files {
    pub(super) fn open(dir: &Path, readahead: Readahead) -> io::Result<Files> {
        make_dir(dir)?;
        for number in 0..BACKING_DIRS {
            make_dir(&dir.join(format!("{number:02x}")))?;
        }
        let root = File::open(dir)?;
        root.sync_all()?;
        let descriptors = descriptors_max();
        Ok(Files {
            dir: dir.to_owned(),
            root,
            open: Mutex::default(),
            pinned: Mutex::new(HashMap::new()),
            unsynced: Mutex::new(HashMap::new()),
            cut: Mutex::new(HashMap::new()),
            cuts: AtomicU64::new(0),
            sync_locks: (0..BACKING_DIRS).map(|_| Mutex::new(())).collect(),
            used: AtomicU64::new(0),
            open_max: usize::clamp(descriptors / PARTS_OPEN_SHARE, 1, BACKING_PARTS_OPEN_MAX),
            pins_max: descriptors / PARTS_PINNED_SHARE,
            readahead,
            #[cfg(test)]
            takes: None,
        })
    }

    /// Reads; what was never written reads as zeros.
    pub(super) fn read(&self, at: PartAt, out: &mut [u8]) -> io::Result<()> {
        let Some(part) = self.part(at.ino, at.part, false)? else {
            out.fill(0);
            return Ok(());
        };
        let mut done = 0;
        while done < out.len() {
            match part.file.read_at(&mut out[done..], at.offset + done as u64) {
                Ok(0) => {
                    out[done..].fill(0);
                    return Ok(());
                }
                Ok(read) => done += read,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Has the disk begin to read. Advice: nobody hears of failure.
    pub(super) fn will_read(&self, at: PartAt, bytes: u64) {
        if let Ok(Some(part)) = self.part(at.ino, at.part, false) {
            advise(&part.file, at.offset, bytes, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }

    /// Has the disk begin to write what was written here. Advice: nobody hears of failure, a sync still does all of it.
    pub(super) fn will_sync(&self, at: PartAt, bytes: u64) {
        if let Ok(Some(part)) = self.part(at.ino, at.part, false)
            && let Err(e) = sparse::begin_to_write(&part.file, at.offset, bytes)
        {
            tracing::trace!("no writing ahead: {e}");
        }
    }

    /// The part, made if need be and noted: whatever of it is written is known not to be durable, also while it is.
    fn part_to_write(&self, at: PartAt) -> io::Result<Arc<Part>> {
        let part = self
            .part(at.ino, at.part, true)?
            .expect("a part that was asked for is made");
        self.note_unsynced(at.ino, at.part);
        Ok(part)
    }

    fn note_unsynced(&self, ino: u64, part: u64) {
        let mut unsynced = self.unsynced.lock();
        unsynced.entry(ino).or_default().parts.entry(part).or_insert(false);
    }

    /// Copies bytes as the disk does it, sharing its blocks where it can; false if it cannot copy all of them.
    pub(super) fn copy(&self, from: PartAt, to: PartAt, bytes: u64) -> io::Result<bool> {
        let Some(source) = self.part(from.ino, from.part, false)? else {
            return Ok(false);
        };
        let target = self.part_to_write(to)?;
        let copied = sparse::copy(&source.file, from.offset, &target.file, to.offset, bytes);
        // As in `write`.
        self.note_unsynced(to.ino, to.part);
        let whole = copied?;
        self.account(&target)?;
        Ok(whole)
    }

    /// Makes a hole.
    pub(super) fn punch(&self, at: PartAt, bytes: u64) -> io::Result<()> {
        let Some(part) = self.part(at.ino, at.part, false)? else {
            return Ok(());
        };
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&part.file, flags, at.offset as libc::off_t, bytes as libc::off_t)?;
        // After it: a sync that ran meanwhile may not have had it.
        self.note_unsynced(at.ino, at.part);
        self.account(&part)
    }

    /// Something of the inode was cut off or punched out, and that is not durable before the next sync.
    pub(super) fn note_cut(&self, ino: u64) {
        let number = self.cuts.fetch_add(1, Ordering::Relaxed);
        self.cut.lock().insert(ino, number);
    }

    /// A power cut may give back what was punched out of the inode.
    pub(super) fn is_cut(&self, ino: u64) -> bool {
        self.cut.lock().contains_key(&ino)
    }

    /// Some of these bytes are not in a hole.
    pub(super) fn holds_data(&self, at: PartAt, bytes: u64) -> io::Result<bool> {
        let Some(part) = self.part(at.ino, at.part, false)? else {
            return Ok(false);
        };
        let data = sparse::seek(&part.file, at.offset, Whence::SeekData)?;
        Ok(data.is_some_and(|data| data < at.offset + bytes))
    }

    /// Where something is that is not in a hole: the first such place of the inode from this one on, perhaps in a later part.
    pub(super) fn next_data(&self, from: PartAt) -> io::Result<Option<PartAt>> {
        let mut next = Some(from);
        while let Some(at) = next {
            let part = self.part(at.ino, at.part, false)?;
            let data = part.map(|part| sparse::seek(&part.file, at.offset, Whence::SeekData));
            if let Some(offset) = data.transpose()?.flatten() {
                return Ok(Some(PartAt { offset, ..at }));
            }
            let later = self.part_after(at.ino, at.part)?;
            next = later.map(|part| PartAt { part, offset: 0, ..at });
        }
        Ok(None)
    }

    /// Blocks of one chunk's length from here on that are not in a hole.
    pub(super) fn data_blocks(&self, at: PartAt) -> io::Result<BlockMap> {
        match self.part(at.ino, at.part, false)? {
            Some(part) => sparse::data_blocks_at(&part.file, at.offset),
            None => Ok(BlockMap::default()),
        }
    }

    /// The number of the inode's next part.
    fn part_after(&self, ino: u64, number: u64) -> io::Result<Option<u64>> {
        let paths = match list_dir(&self.parts_dir(ino)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            listed => listed?,
        };
        let number_of = |path: &PathBuf| u64::from_str_radix(path.file_name()?.to_str()?, 16).ok();
        Ok(paths.iter().filter_map(number_of).filter(|other| *other > number).min())
    }

    /// Notes that others wrote to the first part.
    pub(super) fn written_by_others(&self, ino: u64) -> io::Result<()> {
        if let Some(part) = self.part(ino, 0, false)? {
            self.note_unsynced(ino, 0);
            // What others do is not known: perhaps they cut it.
            self.note_cut(ino);
            self.account(&part)?;
        }
        Ok(())
    }

    /// Deletes the parts of an inode that may get new ones: that the old ones' names are gone is durable after the next sync.
    pub(super) fn empty(&self, ino: u64) -> io::Result<()> {
        self.remove(ino)?;
        let mut unsynced = self.unsynced.lock();
        unsynced.entry(ino).or_default().parts.insert(0, true);
        self.note_cut(ino);
        Ok(())
    }

    /// Deletes all parts of `ino`.
    pub(super) fn remove(&self, ino: u64) -> io::Result<()> {
        self.unsynced.lock().remove(&ino);
        self.cut.lock().remove(&ino);
        let mut freed = remove_file(&self.path(ino, 0))?;
        match fs::read_dir(self.parts_dir(ino)) {
            Ok(entries) => {
                for entry in entries {
                    freed += remove_file(&entry?.path())?;
                }
                fs::remove_dir(self.parts_dir(ino))?;
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let mut open = self.open.lock();
        let gone = (open.pop_inode(ino), self.pinned.lock().remove(&ino));
        drop(open);
        // A large file that was written here and there goes with its last descriptor, for a second: nobody waits for that.
        drop(gone);
        self.shift_used(-(freed as i64));
        Ok(())
    }

    /// Bytes that all backing files take on the disk.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Counts anew what all files take, which misses nothing that happened between two questions (delayed allocation,
    /// preallocation), and visits every inode that has some.
    pub(super) fn recount(&self, visit: &mut dyn FnMut(BackingFile)) -> io::Result<()> {
        let mut total = 0;
        for number in 0..BACKING_DIRS {
            let mut found: BTreeMap<u64, BackingFile> = BTreeMap::new();
            self.list(number, &mut |ino, path| {
                let Some((bytes, modified)) = measure(path)? else {
                    return Ok(());
                };
                let fresh = BackingFile {
                    ino,
                    bytes: 0,
                    modified,
                };
                let file = found.entry(ino).or_insert(fresh);
                file.bytes += bytes;
                file.modified = file.modified.max(modified);
                total += bytes;
                Ok(())
            })?;
            found.into_values().for_each(&mut *visit);
        }
        self.used.store(total, Ordering::Relaxed);
        Ok(())
    }

    /// Until they are counted anew, this is what the files take.
    pub(super) fn expect_used(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Relaxed);
    }

    /// The inodes that have files in directory `number`, each once.
    pub(super) fn inodes_in(&self, number: usize) -> io::Result<BTreeSet<u64>> {
        let mut found = BTreeSet::new();
        self.list(number, &mut |ino, _| {
            found.insert(ino);
            Ok(())
        })?;
        Ok(found)
    }

    /// Visits the parts in directory `number`: inode and path.
    fn list(&self, number: usize, visit: &mut dyn FnMut(u64, &Path) -> io::Result<()>) -> io::Result<()> {
        for entry in fs::read_dir(self.dir.join(format!("{number:02x}")))? {
            let entry = entry?;
            match parse_name(entry.file_name().as_encoded_bytes()) {
                Some((ino, true)) => list_dir(&entry.path())?.iter().try_for_each(|path| visit(ino, path))?,
                Some((ino, false)) => visit(ino, &entry.path())?,
                None => {}
            }
        }
        Ok(())
    }

    fn path(&self, ino: u64, part: u64) -> PathBuf {
        if part == 0 {
            self.dir.join(format!("{:02x}/{ino:016x}", dir_of(ino)))
        } else {
            self.parts_dir(ino).join(format!("{part:016x}"))
        }
    }

    fn parts_dir(&self, ino: u64) -> PathBuf {
        self.dir.join(format!("{:02x}/{ino:016x}.d", dir_of(ino)))
    }

    /// The part, if it is open already.
    fn known_part(&self, open: &mut Recent<Arc<Part>>, ino: u64, number: u64) -> Option<Arc<Part>> {
        if let Some(part) = open.get((ino, number)) {
            return Some(part.clone());
        }
        self.pinned.lock().get(&ino).filter(|_| number == 0).cloned()
    }

    /// The open part; `None` if there is no such file and none shall be made. Nobody who needs another waits for the disk.
    fn part(&self, ino: u64, number: u64, make: bool) -> io::Result<Option<Arc<Part>>> {
        if let Some(part) = self.known_part(&mut self.open.lock(), ino, number) {
            return Ok(Some(part));
        }
        let Some(part) = self.open_part(ino, number, make)? else {
            return Ok(None);
        };
        let mut open = self.open.lock();
        // Whoever was faster: what a part takes is counted by one only.
        if let Some(part) = self.known_part(&mut open, ino, number) {
            return Ok(Some(part));
        }
        open.put((ino, number), part.clone());
        if open.len() > self.open_max {
            open.pop_oldest();
        }
        Ok(Some(part))
    }

    fn account(&self, part: &Part) -> io::Result<()> {
        let now = taken_by(&part.file)?;
        let before = part.used.swap(now, Ordering::Relaxed);
        self.shift_used(now as i64 - before as i64);
        Ok(())
    }

    fn shift_used(&self, by: i64) {
        let shift = |used: u64| Some(used.saturating_add_signed(by));
        let shifted = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shift);
        debug_assert!(shifted.is_ok());
    }
}

/// Bytes that a file takes on the disk. Asks for nothing else: whoever asks for times makes the kernel note every later write at
/// a time of its own (Linux 6.13 and newer), and on a filesystem without a journal the next sync then writes the inode, too.
fn taken_by(file: &File) -> io::Result<u64> {
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BLOCKS)?;
    Ok(found.stx_blocks * STAT_BLOCK_BYTES)
}

fn advise(file: &File, offset: u64, bytes: u64, advice: PosixFadviseAdvice) {
    let (Ok(offset), Ok(bytes)) = (libc::off_t::try_from(offset), libc::off_t::try_from(bytes)) else {
        return;
    };
    if let Err(e) = posix_fadvise(file, offset, bytes, advice) {
        tracing::trace!("no readahead: {e}");
    }
}

/// Descriptors that this process may have open.
fn descriptors_max() -> usize {
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    usize::try_from(allowed).unwrap_or(usize::MAX)
}

/// Which of the directories holds the files of `ino`.
fn dir_of(ino: u64) -> usize {
    (ino % BACKING_DIRS as u64) as usize
}

fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Deletes a file if it is there; returns what it took on the disk.
fn remove_file(path: &Path) -> io::Result<u64> {
    let bytes = measure(path)?.map_or(0, |(bytes, _)| bytes);
    match fs::remove_file(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        other => other.map(|()| bytes),
    }
}

fn list_dir(path: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect()
}

/// Bytes on the disk and time of the last write; `None` if it is gone.
fn measure(path: &Path) -> io::Result<Option<(u64, SystemTime)>> {
    match fs::symlink_metadata(path) {
        Ok(meta) => {
            let since = Duration::from_secs(u64::try_from(meta.mtime()).unwrap_or(0));
            Ok(Some((meta.blocks() * STAT_BLOCK_BYTES, UNIX_EPOCH + since)))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The inode a directory entry belongs to, and whether it is the directory of its further parts. Foreign names are left alone.
fn parse_name(name: &[u8]) -> Option<(u64, bool)> {
    let (digits, is_dir) = match name.strip_suffix(b".d") {
        Some(digits) => (digits, true),
        None => (name, false),
    };
    if digits.len() != 16 {
        return None;
    }
    let ino = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some((ino, is_dir))
}

#[cfg(test)]
mod tests;
