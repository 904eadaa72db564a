//! Files that others read and write themselves: the kernel, by `FUSE_PASSTHROUGH`. Plain layout only.
//!
//! While an inode has a [`Pass`], its backing file is the truth about size, times of content and content; the record and the
//! extents are what the last *look* found (see [`look`]). Nothing of such an inode is evicted or punched.
//!
//! ```text
//!   none --first open--> passing --last close--> alone? --yes, looked at--> none
//!                         ^   |                    | no: somebody has it mapped still
//!                         +---+ a look now and then+--> asked again every tick
//! ```
//!
//! Before the first pass the backing file is made to look like the file. Opening for writing puts a note into the store that
//! is durable before anything can be written over: a note found by the next mount means that the backing file is to be
//! believed, not the records. So an `fsync` needs no look: the file's own sync, and the journal's barrier for its names.
//!
//! What the daemon itself is asked to do to such a file (truncate, allocate, copy) it does to the backing file.

mod births;
mod change;
mod look;
mod probe;

pub(crate) use births::Births;
pub(crate) use look::Looker;
#[cfg(test)]
pub(crate) use look::PASS_PREFIX;
pub(crate) use probe::why_not;

use super::{BLOCK, CHUNK, Shared};
use crate::attr::Timestamp;
use crate::backing::sparse;
use crate::core::{AtimeRule, Core};
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::limits::{BACKING_PART_CHUNKS, CHUNK_BLOCKS, PASS_CLOCK_MARGIN, PASSES_MAX, SMALL_FILE_BYTES};
use crate::records::{Extent, InodeRecord, encode_counter};
use cessfs_sync::Batch;
use look::pass_key;
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::Duration;

/// Longest file that passes: what the first part of a backing file holds.
const PASS_BYTES_MAX: u64 = BACKING_PART_CHUNKS * CHUNK;

/// An inode that others read and write.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) file: Arc<File>,
    /// The backing file when it was looked at last.
    seen: Stamp,
    /// It may have changed since without a difference to `seen`.
    changed: bool,
    /// Somebody may write: the store has the note.
    pub(crate) noted: bool,
    /// The note is durable.
    durable: bool,
    /// How often it was opened.
    opened: u64,
    /// When it may be looked at next (monotonic).
    look_at: Duration,
}

/// What `fstat` tells of a backing file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    /// In units of 512 bytes.
    pub(crate) blocks: u64,
    pub(crate) atime: Timestamp,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
}

impl Stamp {
    fn of(file: &File) -> io::Result<Stamp> {
        let found = file.metadata()?;
        let time = |secs, nanos| Timestamp {
            secs,
            nanos: u32::try_from(nanos).unwrap_or(0),
        };
        Ok(Stamp {
            size: found.len(),
            blocks: found.blocks(),
            atime: time(found.atime(), found.atime_nsec()),
            mtime: time(found.mtime(), found.mtime_nsec()),
            ctime: time(found.ctime(), found.ctime_nsec()),
        })
    }

    fn is_content_of(&self, other: &Stamp) -> bool {
        (self.size, self.mtime, self.ctime) == (other.size, other.mtime, other.ctime)
    }

    /// So young that a later change may bear the same time: the kernel's clock of files is coarse.
    fn is_young(&self, core: &Core) -> bool {
        let now = core.clock.wall();
        let ctime = Duration::new(u64::try_from(self.ctime.secs).unwrap_or(0), self.ctime.nanos);
        ctime + PASS_CLOCK_MARGIN >= now
    }
}

impl Pass {
    /// A backing file that looks like its file.
    fn new(file: Arc<File>) -> io::Result<Pass> {
        let seen = Stamp::of(&file)?;
        Ok(Pass {
            file,
            seen,
            changed: false,
            noted: false,
            durable: false,
            opened: 0,
            look_at: Duration::ZERO,
        })
    }

    /// There may be something that the last look has not seen.
    fn may_have_changed(&self) -> io::Result<bool> {
        Ok(self.changed || !Stamp::of(&self.file)?.is_content_of(&self.seen))
    }

    /// Size, blocks and times as they are now. `record`: as of the last look.
    pub(crate) fn now(&self, core: &Core, record: &InodeRecord) -> io::Result<Stamp> {
        let mut now = Stamp::of(&self.file)?;
        now.times_after(core, &self.seen, record);
        Ok(now)
    }
}

impl Stamp {
    /// Makes the times those of the file: what the record says, where the backing file has not moved since `seen`.
    fn times_after(&mut self, core: &Core, seen: &Stamp, record: &InodeRecord) {
        if self.mtime == seen.mtime {
            self.mtime = record.mtime;
        }
        self.ctime = if self.ctime == seen.ctime {
            record.ctime
        } else {
            self.ctime.max(record.ctime)
        };
        self.atime = if self.atime == seen.atime || core.config.atime == AtimeRule::Never {
            record.atime
        } else {
            self.atime.max(record.atime)
        };
    }
}

impl Shared {
    /// Lets the caller's open pass, if the inode passes already, or is not open and fit for it: gives the backing file, to be
    /// handed to the kernel. The caller holds the mutation guard, and counts the open if it is one.
    pub(super) fn enter_pass(
        &self,
        inode: &Arc<Inode>,
        state: &mut InodeState,
        write: bool,
    ) -> Result<Option<Arc<File>>, VfsError> {
        if !self.core.config.passthrough {
            return Ok(None);
        }
        if state.data.pass.is_none() && !self.begin_pass(inode, state, write)? {
            return Ok(None);
        }
        if write {
            self.note_pass(inode.ino, state)?;
        }
        self.touch_recent(inode.ino);
        let pass = state.data.pass.as_mut().expect("it has just begun, or did before");
        pass.opened += 1;
        Ok(Some(pass.file.clone()))
    }

    fn begin_pass(&self, inode: &Arc<Inode>, state: &mut InodeState, write: bool) -> Result<bool, VfsError> {
        if state.opens > 0 || !self.may_pass(state, write) || !self.has_room_to_pass() {
            return Ok(false);
        }
        self.journal_locked(inode.ino, state, None)?;
        let file = match self.backing.whole_file(inode.ino, write) {
            // What passes keeps its descriptor; through the daemon it needs one only now and then.
            Err(e) if e.lacks_descriptors() => None,
            found => found?,
        };
        let Some(file) = file else { return Ok(false) };
        if !self.look_alike(inode.ino, state, &file)? {
            self.backing.let_go(inode.ino);
            return Ok(false);
        }
        self.start_pass(inode, state, Pass::new(file)?);
        Ok(true)
    }

    fn has_room_to_pass(&self) -> bool {
        self.passing.lock().len() < PASSES_MAX.min(self.backing.whole_files_max())
    }

    fn start_pass(&self, inode: &Arc<Inode>, state: &mut InodeState, pass: Pass) {
        state.data.pass = Some(pass);
        self.passing.lock().insert(inode.ino, inode.clone());
    }

    /// Whether a file may pass. Not a small one: to hand it out costs more than its few reads and writes. Not one under a quota:
    /// nothing would ask the quota before a write. And not yet one whose content still has to be synced: from the note on the next
    /// mount after a crash believes the backing file, and part of that would not be on the disk.
    fn may_pass(&self, state: &InodeState, write: bool) -> bool {
        let record = &state.record;
        !record.inline
            && record.quota == 0
            && (SMALL_FILE_BYTES + 1..=PASS_BYTES_MAX).contains(&record.size)
            && state.data.failure.is_none()
            && !state.data.needs_sync()
            && !(write && self.is_tight())
    }

    /// A file that passed or was made was closed by the last who had it open.
    pub(super) fn learn_birth(&self, inode: &Inode) {
        let mut state = inode.state.write();
        let dir = std::mem::take(&mut state.data.born_in);
        // An empty one tells nothing.
        if dir != 0 && state.record.size > 0 {
            self.births.grew_to(dir, state.record.size);
        }
    }

    /// A file that was just made, and that only its maker has open, passes from the start, unless it is likely to be a small
    /// one: that will be a record, and is cheaper to write through the daemon.
    pub(super) fn born_to_pass(
        &self,
        inode: &Arc<Inode>,
        dir: u64,
        name: &[u8],
    ) -> Result<Option<Arc<File>>, VfsError> {
        if !self.core.config.passthrough {
            return Ok(None);
        }
        let mut state = inode.state.write();
        state.data.born_in = dir;
        let quota = state.record.quota;
        let fit = quota == 0 && state.opens == 1 && !state.gone && !self.is_tight();
        if !fit || self.births.likely_small(dir, name) || !self.has_room_to_pass() {
            return Ok(None);
        }
        let file = self.backing.whole_file(inode.ino, true)?;
        let Some(file) = file else { return Ok(None) };
        let begun = Pass::new(file.clone()).map_err(VfsError::from);
        let begun = begun.and_then(|pass| self.put_note(inode.ino).map(|()| pass));
        let mut pass = begun.inspect_err(|_| {
            self.backing.let_go(inode.ino);
            self.outgrown(inode.ino);
        })?;
        pass.changed = true;
        pass.opened = 1;
        pass.noted = true;
        // There is nothing yet that a crash could take away.
        pass.durable = true;
        self.start_pass(inode, &mut state, pass);
        Ok(Some(file))
    }

    fn put_note(&self, ino: u64) -> Result<(), VfsError> {
        let mut batch = Batch::new();
        batch.put(pass_key(ino), encode_counter(0));
        Ok(self.core.store.commit(batch)?)
    }

    /// The note that others may write. From then on a difference between the times of the backing file and of the record
    /// means that they did.
    fn note_pass(&self, ino: u64, state: &mut InodeState) -> Result<(), VfsError> {
        let InodeState { record, data, .. } = state;
        let Some(pass) = data.pass.as_mut().filter(|pass| !pass.noted) else {
            return Ok(());
        };
        if pass.seen.mtime != record.mtime {
            set_times(&pass.file, None, Some(record.mtime))?;
            pass.seen = Stamp::of(&pass.file)?;
        }
        // Once noted it is believed: what it is like now must be what it is like after a power cut.
        if self.backing.is_cut(ino) {
            self.backing.sync(ino)?;
        }
        pass.changed = pass.seen.is_young(&self.core);
        pass.noted = true;
        pass.durable = record.size == 0;
        self.put_note(ino)
    }

    /// There is a note that is not durable: the open must not be answered before [`await_note`](Shared::await_note).
    pub(super) fn note_is_young(&self, state: &InodeState) -> bool {
        state.data.pass.as_ref().is_some_and(|pass| pass.noted && !pass.durable)
    }

    /// Waits until the note is durable.
    pub(super) fn await_note(&self, inode: &Arc<Inode>) -> Result<(), VfsError> {
        self.core.store.barrier()?;
        if let Some(pass) = &mut inode.state.write().data.pass {
            pass.durable |= pass.noted;
        }
        Ok(())
    }

    /// Before the daemon itself changes what passes.
    fn will_change(&self, ino: u64, state: &mut InodeState) -> Result<Arc<File>, VfsError> {
        self.note_pass(ino, state)?;
        if self.note_is_young(state) {
            self.core.store.barrier()?;
        }
        let pass = state.data.pass.as_mut().expect("asked for an inode that passes");
        pass.durable = true;
        pass.changed = true;
        Ok(pass.file.clone())
    }

    /// Before times are set: those of the record become what they are.
    pub(crate) fn take_times(&self, state: &mut InodeState) -> Result<(), VfsError> {
        let InodeState { record, data, .. } = state;
        if let Some(pass) = &mut data.pass {
            let found = Stamp::of(&pass.file)?;
            let mut times = found;
            times.times_after(&self.core, &pass.seen, record);
            (record.atime, record.mtime, record.ctime) = (times.atime, times.mtime, times.ctime);
            pass.changed |= !found.is_content_of(&pass.seen);
            pass.seen = found;
        }
        Ok(())
    }

    /// After times were set: the backing file's times follow those of the record.
    pub(crate) fn times_were_set(&self, state: &mut InodeState) -> Result<(), VfsError> {
        let InodeState { record, data, .. } = state;
        if let Some(pass) = &mut data.pass {
            set_times(&pass.file, Some(record.atime), Some(record.mtime))?;
            // What others changed meanwhile no longer shows in the times.
            pass.changed = true;
            pass.seen = Stamp::of(&pass.file)?;
        }
        Ok(())
    }

    /// Makes the backing file look like the file: its size, zeros where no block map names anything. False if not all of it
    /// is here.
    fn look_alike(&self, ino: u64, state: &mut InodeState, file: &File) -> Result<bool, VfsError> {
        if !state.data.exact {
            let mut barred = false;
            for chunk in self.chunks_there(ino, state, file)? {
                let extent = state.data.extent(&self.core, ino, chunk)?;
                if !extent.resident && !extent.blocks.is_empty() {
                    return Ok(false);
                }
                let mut unneeded = sparse::data_blocks(file, chunk)?;
                unneeded.remove_all(&extent.blocks);
                let tail = stale_tail(file, chunk, &extent)?;
                if unneeded.is_empty() && tail == 0 {
                    continue;
                }
                // What the journal still promises after a power cut must not be taken away.
                if !std::mem::replace(&mut barred, true) {
                    self.core.store.barrier()?;
                }
                for (run, _) in unneeded.runs(0..CHUNK_BLOCKS).into_iter().filter(|(_, there)| *there) {
                    self.backing.punch(ino, chunk, run)?;
                }
                file.write_all_at(&vec![0; tail], chunk * CHUNK + u64::from(extent.valid))?;
                self.backing.written_by_others(ino)?;
            }
            state.data.exact = true;
        }
        if file.metadata()?.len() != state.record.size {
            file.set_len(state.record.size)?;
            self.backing.written_by_others(ino)?;
        }
        Ok(true)
    }

    /// Chunks with an extent, and those with data in the backing file; 8 bytes of memory for each.
    fn chunks_there(&self, ino: u64, state: &InodeState, file: &File) -> Result<Vec<u64>, VfsError> {
        let mut chunks = sparse::data_chunks(file)?;
        self.walk(ino, state, 0, &mut |chunk, extent| {
            if *extent != Extent::default() {
                chunks.push(chunk);
            }
            ControlFlow::Continue(())
        })?;
        chunks.sort_unstable();
        chunks.dedup();
        Ok(chunks)
    }
}

/// How many bytes after the valid ones, in the last block that has some, are to be zeroed: 0 if they are zeros.
fn stale_tail(file: &File, chunk: u64, extent: &Extent) -> io::Result<usize> {
    let valid = extent.valid as usize;
    if valid.is_multiple_of(BLOCK) || !extent.blocks.contains(valid / BLOCK) {
        return Ok(0);
    }
    let mut tail = vec![0; BLOCK - valid % BLOCK];
    let mut done = 0;
    while done < tail.len() {
        match file.read_at(&mut tail[done..], chunk * CHUNK + (valid + done) as u64)? {
            0 => break,
            read => done += read,
        }
    }
    let zeros = tail.iter().all(|byte| *byte == 0);
    Ok(if zeros { 0 } else { tail.len() })
}

fn set_times(file: &File, atime: Option<Timestamp>, mtime: Option<Timestamp>) -> io::Result<()> {
    let spec = |time: Option<Timestamp>| match time {
        Some(time) => TimeSpec::new(time.secs, i64::from(time.nanos)),
        None => TimeSpec::UTIME_OMIT,
    };
    Ok(futimens(file, &spec(atime), &spec(mtime))?)
}
