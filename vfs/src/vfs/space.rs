//! Holes, allocation and copies of open files.

use super::Vfs;
use crate::Later;
use crate::error::VfsError;
use crate::request::{Seek, SpaceChange};
use std::sync::atomic::Ordering;

impl Vfs {
    /// `fallocate(2)`: reserves, zeroes or punches out `len` bytes from `offset`. `keep_size`: the file does not grow
    /// (punching never makes it). `kill_priv`: as with [`write`](Vfs::write).
    ///
    /// # Errors
    /// `Invalid` for an empty range, `TooLarge`, `NoSpace` if less is free than was to be allocated.
    #[expect(clippy::too_many_arguments, reason = "the arguments of the system call")]
    pub fn fallocate(
        &self,
        ino: u64,
        fh: u64,
        what: SpaceChange,
        keep_size: bool,
        offset: u64,
        len: u64,
        kill_priv: bool,
    ) -> Result<Later<()>, VfsError> {
        let handle = self.handle_to_write(ino, fh)?;
        if len == 0 {
            return Err(VfsError::Invalid("an empty range cannot be allocated"));
        }
        let end = offset.checked_add(len).ok_or(VfsError::TooLarge)?;
        if what != SpaceChange::Punch {
            self.core.check_room()?;
        }
        if kill_priv {
            self.kill_privileges(&handle.inode)?;
        }
        let grows = !keep_size && what != SpaceChange::Punch;
        let free = self.statfs().available;
        let changed = self.data.change_space(&handle.inode, what, offset..end, grows, free)?;
        self.then_sync(&handle, changed)
    }

    /// `lseek(2)` for holes and data: the first byte from `offset` on that is what is asked for.
    ///
    /// # Errors
    /// `NoOffset` at or beyond the end of the file, or when no data follows.
    pub fn seek(&self, ino: u64, fh: u64, offset: u64, what: Seek) -> Result<u64, VfsError> {
        let handle = self.handles.get(ino, fh)?;
        self.data.seek(&handle.inode, offset, what)
    }

    /// Somebody has the file open for writing: whoever caches for them may know of content that is not here yet.
    pub fn is_open_to_write(&self, ino: u64) -> bool {
        let writers = self.inode(ino).map(|inode| inode.writers.load(Ordering::Relaxed));
        writers.is_ok_and(|writers| writers > 0)
    }

    /// `copy_file_range(2)`: copies bytes between open files, or within one, and tells how many: fewer than asked where that
    /// would take long. The caller does not ask for bytes beyond the end of the source. `kill_priv`: as with
    /// [`write`](Vfs::write).
    ///
    /// # Errors
    /// `Invalid` if the ranges overlap in one file; those of reads and writes.
    #[expect(clippy::too_many_arguments, reason = "the arguments of the system call")]
    pub fn copy_range(
        &self,
        from_ino: u64,
        from_fh: u64,
        from_offset: u64,
        to_ino: u64,
        to_fh: u64,
        to_offset: u64,
        len: u64,
        kill_priv: bool,
    ) -> Result<Later<u64>, VfsError> {
        let from = self.handles.get(from_ino, from_fh)?;
        let to = self.handle_to_write(to_ino, to_fh)?;
        if len == 0 {
            return Ok(Later::Ready(0));
        }
        self.core.check_room()?;
        if kill_priv {
            self.kill_privileges(&to.inode)?;
        }
        let copy = self.data.copy(&from.inode, from_offset, &to.inode, to_offset, len)?;
        self.touch(&from.inode)?;
        self.then_sync(&to, copy)
    }
}
