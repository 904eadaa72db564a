//! Open files: handles, reads and writes. Content itself is the data room's.

use super::handles::Handle;
use super::{FileKind, Vfs};
use crate::Later;
use crate::change::Change;
use crate::data::Content;
use crate::error::VfsError;
use crate::inode::{Inode, lock_many};
use crate::limits::FILE_BYTES_MAX;
use crate::request::OpenFlags;
use cessfs_sync::Batch;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A file opened for a caller that can have the kernel read and write it.
pub struct Opened {
    /// The handle.
    pub fh: u64,
    /// What the kernel is to read and write: every open of the file has one, or none has.
    pub through: Option<Arc<File>>,
    /// The open must not be answered before [`await_opened`](Vfs::await_opened).
    pub waits: bool,
}

impl Vfs {
    /// Opens a regular file; where it may be read and written past this program, gives the file that holds its content.
    pub fn open_through(&self, ino: u64, flags: OpenFlags) -> Result<Opened, VfsError> {
        if flags.write {
            self.core.check_writable()?;
        }
        let inode = self.inode(ino)?;
        let change = self.core.marks.enter();
        let mut state = inode.state.write();
        state.check_alive()?;
        let may = state.record.kind == FileKind::Regular && !flags.truncate && self.core.check_writable().is_ok();
        let entered = match may {
            true => self.data.enter_pass(&inode, &mut state, flags.write)?,
            false => None,
        };
        let Some((file, waits)) = entered else {
            drop(state);
            drop(change);
            let fh = self.open_file(ino, flags)?;
            return Ok(Opened {
                fh,
                through: None,
                waits: false,
            });
        };
        state.opens += 1;
        drop(state);
        drop(change);
        if flags.read {
            self.touch(&inode)?;
        }
        Ok(Opened {
            fh: self.handles.insert(inode, flags),
            through: Some(file),
            waits: waits || (flags.sync && flags.write),
        })
    }

    /// Waits for what an open said it waits for.
    pub fn await_opened(&self, ino: u64, fh: u64) -> Result<(), VfsError> {
        let handle = self.handles.get(ino, fh)?;
        if handle.flags.sync {
            return self.data.fsync(&handle.inode, false);
        }
        self.data.await_note(&handle.inode)
    }

    /// Opens a regular file.
    pub fn open_file(&self, ino: u64, flags: OpenFlags) -> Result<u64, VfsError> {
        if flags.write {
            self.core.check_writable()?;
        }
        let inode = self.inode(ino)?;
        // A cut waiting for this change must not be waited for under the inode's lock: enter before locking.
        let truncates = flags.truncate && flags.write;
        let _change = truncates.then(|| self.core.marks.enter());
        let mut state = inode.state.write();
        state.check_alive()?;
        match state.record.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(VfsError::IsDirectory),
            _ => return Err(VfsError::Invalid("the kernel opens special files itself")),
        }
        if truncates {
            let mut batch = Batch::new();
            self.data.set_size(&inode, &mut state, 0, &mut batch)?;
            let mut record = state.record.clone();
            record.mtime = self.core.now();
            record.ctime = record.mtime;
            self.data.put_inode(ino, &state, &record, &mut batch)?;
            self.core.store.commit(batch)?;
            state.record = record;
            state.lazy = false;
        }
        state.opens += 1;
        if flags.write && inode.writers.load(Ordering::Relaxed) == 0 {
            state.data.untold.opened(self.core.now());
        }
        drop(state);
        Ok(self.handles.insert(inode, flags))
    }

    /// Reads at most `len` bytes from `offset`; fewer at the end of the file. Counts as an access.
    pub fn read(&self, ino: u64, fh: u64, offset: u64, len: u32) -> Result<Later<Content>, VfsError> {
        let handle = self.handles.get(ino, fh)?;
        let answer = self.data.read(&handle.inode, offset, len)?;
        self.touch(&handle.inode)?;
        Ok(answer)
    }

    /// Writes `data` at `offset`, or at the end of the file if it was opened for appending. `kill_priv`: the writer may
    /// not keep set-id bits and file capabilities.
    pub fn write(&self, ino: u64, fh: u64, offset: u64, data: &[u8], kill_priv: bool) -> Result<Later<u32>, VfsError> {
        let handle = self.handle_to_write(ino, fh)?;
        if !handle.flags.append {
            return self.write_through(&handle, offset, data, kill_priv);
        }
        // Appenders queue here, so that each finds the size the one before left.
        let _queue = handle.inode.appends.lock();
        let end = {
            // Also where the kernel could write the file itself and does not: the record's size is that of the last look.
            let state = handle.inode.state.read();
            let passing = self.data.written_by_others(&state)?;
            passing.map_or(state.record.size, |(now, _)| now.size)
        };
        self.write_through(&handle, end, data, kill_priv)
    }

    /// Writes at exactly `offset`, appending or not, what the kernel's page cache writes back (`FUSE_WRITE_CACHE`): that knows its place,
    /// and may come through any handle. All of it, or it fails: the kernel takes its pages for written whatever number it is told.
    pub fn write_pages(
        &self,
        ino: u64,
        fh: u64,
        offset: u64,
        data: &[u8],
        kill_priv: bool,
    ) -> Result<Later<u32>, VfsError> {
        let handle = self.handle_to_write(ino, fh)?;
        self.prepare_to_write(&handle, offset, data, kill_priv)?;
        let written = self.write_whole(&handle.inode, offset, data)?;
        self.then_sync(&handle, written)
    }

    /// Writes on where a write ends early: that goes well, or tells why it does not.
    fn write_whole(&self, inode: &Arc<Inode>, offset: u64, data: &[u8]) -> Result<Later<u32>, VfsError> {
        let mut done = 0;
        while done < data.len() {
            let (at, rest) = (offset + done as u64, &data[done..]);
            match self.write_with_room(inode, at, rest)? {
                Later::Ready(more) => done += more as usize,
                waits => {
                    let (content, inode, rest) = (self.data.clone(), inode.clone(), rest.to_vec());
                    return Ok(Later::Wait(Box::pin(async move {
                        let mut more = waits.settled().await? as usize;
                        while more < rest.len() {
                            let written = content.write(&inode, at + more as u64, &rest[more..])?;
                            more += written.settled().await? as usize;
                        }
                        Ok((done + more) as u32)
                    })));
                }
            }
        }
        Ok(Later::Ready(done as u32))
    }

    /// Writes at exactly `offset`, appending or not.
    pub fn write_at(
        &self,
        ino: u64,
        fh: u64,
        offset: u64,
        data: &[u8],
        kill_priv: bool,
    ) -> Result<Later<u32>, VfsError> {
        let handle = self.handle_to_write(ino, fh)?;
        self.write_through(&handle, offset, data, kill_priv)
    }

    pub(super) fn handle_to_write(&self, ino: u64, fh: u64) -> Result<Arc<Handle>, VfsError> {
        self.core.check_writable()?;
        let handle = self.handles.get(ino, fh)?;
        if handle.flags.write {
            Ok(handle)
        } else {
            Err(VfsError::BadHandle)
        }
    }

    fn write_through(
        &self,
        handle: &Handle,
        offset: u64,
        data: &[u8],
        kill_priv: bool,
    ) -> Result<Later<u32>, VfsError> {
        self.prepare_to_write(handle, offset, data, kill_priv)?;
        let written = self.write_with_room(&handle.inode, offset, data)?;
        self.then_sync(handle, written)
    }

    fn prepare_to_write(&self, handle: &Handle, offset: u64, data: &[u8], kill_priv: bool) -> Result<(), VfsError> {
        if offset
            .checked_add(data.len() as u64)
            .is_none_or(|end| end > FILE_BYTES_MAX)
        {
            return Err(VfsError::TooLarge);
        }
        if kill_priv {
            self.kill_privileges(&handle.inode)?;
        }
        Ok(())
    }

    /// A change through a handle that was opened with `O_SYNC` is durable before it is answered. What takes more than one flush
    /// of the journal, or has to wait for somebody else's, is not for an event loop.
    pub(super) fn then_sync<T: Send + 'static>(&self, handle: &Handle, change: Later<T>) -> Result<Later<T>, VfsError> {
        if !handle.flags.sync {
            return Ok(change);
        }
        let (content, inode) = (self.data.clone(), handle.inode.clone());
        Ok(match change {
            Later::Ready(done) if self.sync_soon(&inode, false)? => Later::Ready(done),
            Later::Ready(done) => Later::Block(Box::new(move || content.fsync(&inode, false).map(|()| done))),
            // For the network first, beside which a flush is short.
            wait => Later::Wait(Box::pin(async move {
                let done = wait.settled().await?;
                content.fsync(&inode, false)?;
                Ok(done)
            })),
        })
    }

    /// Makes an inode durable if one flush of the journal is enough, and if no other event loop waits for one; false if not, and
    /// then nothing was done.
    fn sync_soon(&self, inode: &Arc<Inode>, data_only: bool) -> Result<bool, VfsError> {
        let Some(_turn) = self.syncing.try_lock() else {
            return Ok(false);
        };
        self.data.fsync_soon(inode, data_only)
    }

    /// One of possibly many closes of a handle. Nothing waits: what was written is in the journal's hands already.
    pub fn flush(&self, ino: u64, fh: u64) -> Result<(), VfsError> {
        self.handles.get(ino, fh).map(|_| ())
    }

    /// The last close of a handle. With the last handle of a file without links the file goes.
    pub fn release(&self, ino: u64, fh: u64) -> Result<(), VfsError> {
        let handle = self.handles.remove(ino, fh)?;
        let inode = &handle.inode;
        {
            // Nobody could see what it changes: a file without a name, records that catch up with memory.
            let _change = self.core.marks.enter_unseen();
            let mut locked = lock_many([inode]);
            let state = locked.state_mut(ino);
            state.opens -= 1;
            if handle.flags.write {
                self.tell_untold(inode, state);
            }
            if state.opens > 0 {
                return Ok(());
            }
            if state.record.nlink == 0 && state.record.trash == 0 {
                let mut change = Change::new(&self.core, &self.data);
                change.erase(&mut locked, ino)?;
                return change.commit(&mut locked);
            }
            // Of a reader's handle it is only an access time, and a batch for each file that is read would cost more than reading.
            // What is ahead of the store takes it along below.
            if state.lazy && state.data.ahead.is_none() && handle.flags.write && self.core.check_writable().is_ok() {
                let mut change = Change::new(&self.core, &self.data);
                change.record(&locked, ino);
                change.commit(&mut locked)?;
            }
        }
        self.data.released(inode);
        Ok(())
    }

    /// Returns when everything written to the file (and unless `data_only` its attributes) would survive a power cut here.
    pub fn fsync(&self, ino: u64, fh: u64, data_only: bool) -> Result<(), VfsError> {
        let handle = self.handles.get(ino, fh)?;
        if self.core.config.read_only {
            return Ok(());
        }
        self.data.fsync(&handle.inode, data_only)
    }

    /// The same if one flush of the journal is enough for it, and nobody else is about to wait for one in this call; false if not,
    /// and then nothing was done. So of the event loops one may wait, and need not hand its request to another thread.
    pub fn fsync_soon(&self, ino: u64, fh: u64, data_only: bool) -> Result<bool, VfsError> {
        let handle = self.handles.get(ino, fh)?;
        if self.core.config.read_only {
            return Ok(true);
        }
        self.sync_soon(&handle.inode, data_only)
    }

    /// Returns when every change of names so far would survive a power cut here.
    pub fn fsyncdir(&self, ino: u64) -> Result<(), VfsError> {
        self.inode(ino)?;
        if !self.core.config.read_only {
            self.core.store.barrier()?;
        }
        Ok(())
    }
}
