//! What the daemon itself does to a file that passes: to the backing file, as anybody else would.

use super::super::space::SpaceCall;
use super::super::{BLOCK, CHUNK, Shared, chunk_len};
use super::PASS_BYTES_MAX;
use super::look::as_found;
use crate::backing::sparse;
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::limits::CHUNK_BLOCKS;
use crate::request::{Seek, SpaceChange};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, copy_file_range, fallocate};
use nix::unistd::Whence;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// What a disk cannot do is no error of the caller's; what is too large for it is.
fn disk(error: io::Error) -> VfsError {
    match error.raw_os_error() {
        Some(libc::EFBIG) => VfsError::TooLarge,
        _ => error.into(),
    }
}

impl Shared {
    /// Reads at most `len` bytes; fewer at the end of the file.
    pub(in crate::data) fn read_passing(file: &File, offset: u64, len: usize) -> Result<Vec<u8>, VfsError> {
        let left = file.metadata()?.len().saturating_sub(offset);
        let mut out = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(len)];
        let mut done = 0;
        while done < out.len() {
            match file.read_at(&mut out[done..], offset + done as u64) {
                Ok(0) => out.truncate(done),
                Ok(read) => done += read,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(out)
    }

    /// Writes; fewer bytes than asked when the disk fills up on the way.
    pub(in crate::data) fn write_passing(
        &self,
        ino: u64,
        state: &mut InodeState,
        offset: u64,
        data: &[u8],
    ) -> Result<u32, VfsError> {
        let file = self.will_change(ino, state)?;
        let mut done = 0;
        while done < data.len() {
            match file.write_at(&data[done..], offset + done as u64) {
                Ok(written) => done += written,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if done == 0 => return Err(disk(e)),
                Err(_) => break,
            }
        }
        Ok(done as u32)
    }

    /// Truncates or extends.
    pub(in crate::data) fn set_size_passing(
        &self,
        ino: u64,
        state: &mut InodeState,
        size: u64,
    ) -> Result<(), VfsError> {
        let file = self.will_change(ino, state)?;
        file.set_len(size).map_err(disk)?;
        // Blocks reserved beyond the end are given back, as other filesystems do.
        let mut reserved = Vec::new();
        self.walk(ino, state, size / CHUNK, &mut |chunk, extent| {
            if !extent.reserved.is_empty() {
                reserved.push((chunk, *extent));
            }
            ControlFlow::Continue(())
        })?;
        for (chunk, mut extent) in reserved {
            let kept = size.saturating_sub(chunk * CHUNK).min(CHUNK) as usize;
            extent.reserved.remove_range(kept.div_ceil(BLOCK)..CHUNK_BLOCKS);
            self.set_extent(ino, state, chunk, &extent)?;
            state.data.set_ahead(self.core.clock.monotonic(), 0);
        }
        Ok(())
    }

    /// Reserves, zeroes or punches out.
    pub(in crate::data) fn change_space_passing(
        &self,
        ino: u64,
        state: &mut InodeState,
        call: &SpaceCall,
    ) -> Result<(), VfsError> {
        self.check_space(state, call)?;
        let file = self.will_change(ino, state)?;
        allocate(&file, call).map_err(disk)?;
        self.leave_record(ino, state)?;
        for piece in self.pieces_to_change(ino, state, call)? {
            let before = state.data.extent(&self.core, ino, piece.chunk)?;
            let mut now = before;
            if call.what == SpaceChange::Punch {
                now.reserved
                    .remove_range(piece.range.start.div_ceil(BLOCK)..piece.range.end / BLOCK);
            } else {
                // What the records call data may have been cut, punched or zeroed since the last look.
                let data = match piece.chunk * CHUNK < PASS_BYTES_MAX {
                    true => sparse::data_blocks(&file, piece.chunk)?,
                    false => before.blocks,
                };
                now = as_found(&before, data, chunk_len(state.record.size, piece.chunk));
                now.reserved
                    .insert_range(piece.range.start / BLOCK..piece.range.end.div_ceil(BLOCK));
                now.reserved.remove_all(&data);
            }
            if now != before {
                self.set_extent(ino, state, piece.chunk, &now)?;
            }
            if state.data.must_journal(self.core.clock.monotonic()) {
                self.journal_locked(ino, state, None)?;
            }
        }
        state.data.set_ahead(self.core.clock.monotonic(), 0);
        self.journal_locked(ino, state, None)
    }

    /// The first byte from `offset` on that is data (or in a hole).
    pub(in crate::data) fn seek_passing(file: &File, offset: u64, what: Seek) -> Result<u64, VfsError> {
        let whence = match what {
            Seek::Data => Whence::SeekData,
            Seek::Hole => Whence::SeekHole,
        };
        sparse::seek(file, offset, whence)?.ok_or(VfsError::NoOffset)
    }

    /// Copies between two files that both pass, as the disk does it; `None` if one does not, or the disk cannot.
    pub(in crate::data) fn copy_passing(
        &self,
        from: (&Arc<Inode>, u64),
        to: (&Arc<Inode>, u64),
        len: u64,
    ) -> Result<Option<u64>, VfsError> {
        let source = from.0.state.read().data.pass.as_ref().map(|pass| pass.file.clone());
        let Some(source) = source else { return Ok(None) };
        let _guard = self.core.marks.enter();
        let target = {
            let mut state = to.0.state.write();
            if state.data.pass.is_none() {
                return Ok(None);
            }
            self.will_change(to.0.ino, &mut state)?
        };
        let left = source.metadata()?.len().saturating_sub(from.1);
        let hole = sparse::seek(&source, from.1, Whence::SeekData)?.is_none_or(|data| data > from.1);
        // A hole stays one: that is done elsewhere.
        if left == 0 || hole {
            return Ok(None);
        }
        let (mut from_at, mut to_at) = (from.1 as libc::off64_t, to.1 as libc::off64_t);
        let end = sparse::seek(&source, from.1, Whence::SeekHole)?.unwrap_or(from.1 + left);
        let bytes = len.min(left).min(end - from.1);
        match copy_file_range(&source, Some(&mut from_at), &target, Some(&mut to_at), bytes as usize) {
            Ok(0) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EXDEV | Errno::EINVAL) => Ok(None),
            Ok(copied) => Ok(Some(copied as u64)),
            Err(e) => Err(disk(e.into())),
        }
    }

    /// Whether there is a hole at `offset`, and how many bytes from there on are alike, `len` at most.
    pub(in crate::data) fn run_passing(file: &File, offset: u64, len: u64) -> Result<(bool, u64), VfsError> {
        let size = file.metadata()?.len();
        if offset >= size {
            return Ok((true, len));
        }
        let data = sparse::seek(file, offset, Whence::SeekData)?.unwrap_or(size);
        if data > offset {
            return Ok((true, (data - offset).min(len)));
        }
        let hole = sparse::seek(file, offset, Whence::SeekHole)?.unwrap_or(size);
        Ok((false, (hole - offset).min(len)))
    }
}

/// `fallocate` of the backing file; where its filesystem cannot reserve, the records alone say so.
fn allocate(file: &File, call: &SpaceCall) -> io::Result<()> {
    let Range { start, end } = call.range;
    let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let len = (end - start) as libc::off_t;
    let run = |flags| match fallocate(file, flags, start as libc::off_t, len) {
        Err(Errno::EOPNOTSUPP) => Ok(false),
        Err(e) => Err(io::Error::from(e)),
        Ok(()) => Ok(true),
    };
    let may_grow = if call.grows { FallocateFlags::empty() } else { keep };
    let done = match call.what {
        SpaceChange::Reserve => run(may_grow)?,
        SpaceChange::Punch => {
            if !run(FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep)? {
                return Err(Errno::EOPNOTSUPP.into());
            }
            false
        }
        SpaceChange::Zero => {
            run(FallocateFlags::FALLOC_FL_ZERO_RANGE | may_grow)? || {
                if !run(FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep)? {
                    return Err(Errno::EOPNOTSUPP.into());
                }
                run(may_grow)?
            }
        }
    };
    if !done && call.grows && file.metadata()?.len() < end {
        file.set_len(end)?;
    }
    Ok(())
}
