//! Extended attributes: opaque values under `user.`, `trusted.` and `security.`.
//!
//! Who may see or set which is the kernel's business (it refuses `user.` on symlinks and devices, `trusted.` without the
//! capability). Names of other namespaces are not supported.

use super::Vfs;
use crate::error::VfsError;
use crate::limits::{BUCKET_NAMES_MAX, SCAN_PAGE, XATTR_NAME_MAX, XATTR_VALUE_MAX, XATTRS_MAX};
use crate::records::{self, InodeRecord, Xattr, XattrBucket};
use crate::request::XattrMode;
use cessfs_sync::Batch;

/// Fails unless an xattr may be called `name`.
fn check_xattr_name(name: &[u8]) -> Result<(), VfsError> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        return Err(VfsError::Range);
    }
    if name.contains(&0) {
        return Err(VfsError::Invalid("an xattr name holds no NUL"));
    }
    let spaces: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    match spaces.iter().find_map(|space| name.strip_prefix(*space)) {
        Some(b"") => Err(VfsError::Invalid("an xattr name needs more than its namespace")),
        Some(_) => Ok(()),
        None => Err(VfsError::Unsupported("xattr namespace")),
    }
}

impl Vfs {
    /// Sets an attribute.
    pub fn setxattr(&self, ino: u64, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), VfsError> {
        self.core.check_writable()?;
        check_xattr_name(name)?;
        if value.len() > XATTR_VALUE_MAX {
            return Err(VfsError::TooBig);
        }
        self.change_xattr(ino, name, |record, bucket| {
            let old = bucket.0.iter_mut().find(|xattr| xattr.name == name);
            match (old, mode) {
                (Some(_), XattrMode::Create) => return Err(VfsError::Exists),
                (None, XattrMode::Replace) => return Err(VfsError::NoAttribute),
                (Some(old), _) => old.value = value.to_vec(),
                (None, _) => {
                    if record.xattrs >= XATTRS_MAX || bucket.0.len() >= BUCKET_NAMES_MAX {
                        return Err(VfsError::NoSpace("an inode has room for 256 extended attributes"));
                    }
                    record.xattrs += 1;
                    bucket.0.push(Xattr {
                        name: name.to_vec(),
                        value: value.to_vec(),
                    });
                }
            }
            Ok(())
        })
    }

    /// The value of an attribute; `NoAttribute` if it is not there.
    pub fn getxattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>, VfsError> {
        check_xattr_name(name)?;
        let inode = self.inode(ino)?;
        let state = inode.state.read();
        // The kernel asks for `security.capability` before every write: mostly there is nothing, and the record says so.
        if state.record.xattrs == 0 {
            return Err(VfsError::NoAttribute);
        }
        match self
            .core
            .store
            .get(&records::xattr_key(ino, self.core.name_hash(ino, name)))?
        {
            Some(value) => {
                let bucket = XattrBucket::decode(&value)?;
                let found = bucket.0.into_iter().find(|xattr| xattr.name == name);
                found.map(|xattr| xattr.value).ok_or(VfsError::NoAttribute)
            }
            None => Err(VfsError::NoAttribute),
        }
    }

    /// All names, each with a NUL behind it.
    pub fn listxattr(&self, ino: u64) -> Result<Vec<u8>, VfsError> {
        let inode = self.inode(ino)?;
        let state = inode.state.read();
        let mut names = Vec::new();
        if state.record.xattrs == 0 {
            return Ok(names);
        }
        let prefix = records::xattr_prefix(ino);
        // At most XATTRS_MAX records, so that one page holds them.
        const { assert!(XATTRS_MAX as usize <= SCAN_PAGE) };
        for (_, value) in self.core.store.scan(&prefix, &prefix, SCAN_PAGE)? {
            for xattr in XattrBucket::decode(&value)?.0 {
                names.extend_from_slice(&xattr.name);
                names.push(0);
            }
        }
        Ok(names)
    }

    /// Removes an attribute; `NoAttribute` if it is not there.
    pub fn removexattr(&self, ino: u64, name: &[u8]) -> Result<(), VfsError> {
        self.core.check_writable()?;
        check_xattr_name(name)?;
        self.change_xattr(ino, name, |record, bucket| {
            let before = bucket.0.len();
            bucket.0.retain(|xattr| xattr.name != name);
            if bucket.0.len() == before {
                return Err(VfsError::NoAttribute);
            }
            record.xattrs = record.xattrs.saturating_sub(1);
            Ok(())
        })
    }

    /// Changes the bucket of `name`, and the inode with it, in one batch.
    fn change_xattr(
        &self,
        ino: u64,
        name: &[u8],
        change: impl FnOnce(&mut InodeRecord, &mut XattrBucket) -> Result<(), VfsError>,
    ) -> Result<(), VfsError> {
        let inode = self.inode(ino)?;
        let _change = self.core.marks.enter();
        let mut state = inode.state.write();
        state.check_alive()?;
        let key = records::xattr_key(ino, self.core.name_hash(ino, name));
        let mut bucket = match self.core.store.get(&key)? {
            Some(value) => XattrBucket::decode(&value)?,
            None => XattrBucket::default(),
        };
        let mut record = state.record.clone();
        change(&mut record, &mut bucket)?;
        record.ctime = self.core.now();
        let mut batch = Batch::new();
        self.core.marks.mark(&mut batch, &key);
        if bucket.0.is_empty() {
            batch.delete(key);
        } else {
            batch.put(key, bucket.encode());
        }
        self.data.stage(&inode, &mut state, &mut batch)?;
        self.core.put_inode(&mut batch, ino, &record);
        self.core.store.commit(batch)?;
        state.record = record;
        state.lazy = false;
        Ok(())
    }
}
