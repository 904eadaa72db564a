//! Taking names away.

use super::Vfs;
use crate::attr::FileKind;
use crate::change::Change;
use crate::dentry::check_name;
use crate::error::VfsError;
use crate::inode::lock_many;
use crate::records;

impl Vfs {
    /// Removes a name that is not a directory's. With the last name the inode goes, or, while it is open, lives on as an
    /// orphan until the last handle is closed.
    pub fn unlink(&self, parent: u64, name: &[u8]) -> Result<(), VfsError> {
        self.core.check_writable()?;
        check_name(name)?;
        if matches!(name, b"." | b"..") {
            return Err(VfsError::IsDirectory);
        }
        if let Some(purged) = self.virtual_unlink(parent, name) {
            return purged;
        }
        let dir = self.inode(parent)?;
        let _change = self.core.marks.enter();
        // Whoever made the name change in between succeeded: going round again is progress, not waiting.
        loop {
            let child = self.find(&dir, name)?.ok_or(VfsError::NotFound)?;
            if child.state.read().record.kind == FileKind::Directory {
                return Err(VfsError::IsDirectory);
            }
            let mut locked = lock_many([&dir, &child]);
            if !self.still_names(&locked, parent, name, Some(child.ino))? {
                continue;
            }
            let now = self.core.now();
            let mut change = Change::new(&self.core, &self.data);
            let dir_record = change.record(&locked, parent);
            dir_record.mtime = now;
            dir_record.ctime = now;
            change.remove_entry(parent, name)?;
            change.unlink_name(&mut locked, child.ino, parent, name)?;
            return change.commit(&mut locked);
        }
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: u64, name: &[u8]) -> Result<(), VfsError> {
        self.core.check_writable()?;
        check_name(name)?;
        match name {
            b"." => return Err(VfsError::Invalid("the last component is a dot")),
            b".." => return Err(VfsError::NotEmpty),
            _ => self.check_not_virtual(parent, name)?,
        }
        let dir = self.inode(parent)?;
        let _change = self.core.marks.enter();
        loop {
            let child = self.find(&dir, name)?.ok_or(VfsError::NotFound)?;
            if child.state.read().record.kind != FileKind::Directory {
                return Err(VfsError::NotDirectory);
            }
            let mut locked = lock_many([&dir, &child]);
            if !self.still_names(&locked, parent, name, Some(child.ino))? {
                continue;
            }
            if !self.is_empty(child.ino)? {
                return Err(VfsError::NotEmpty);
            }
            let now = self.core.now();
            let mut change = Change::new(&self.core, &self.data);
            let dir_record = change.record(&locked, parent);
            dir_record.mtime = now;
            dir_record.ctime = now;
            change.remove_entry(parent, name)?;
            change.remove_directory(&mut locked, parent, child.ino)?;
            return change.commit(&mut locked);
        }
    }

    /// A locked directory has no names.
    pub(super) fn is_empty(&self, ino: u64) -> Result<bool, VfsError> {
        let prefix = records::dentry_prefix(ino);
        Ok(self.core.store.scan(&prefix, &prefix, 1)?.is_empty())
    }
}
