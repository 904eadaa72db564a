//! Extended attributes: opaque values under `user.`, `trusted.` and `security.`, and the two access control lists.
//!
//! Who may see or set which is the kernel's business (it refuses `user.` on symlinks and devices, `trusted.` without the
//! capability). Names of other namespaces are not supported.

use super::Vfs;
use crate::attr::FileKind;
use crate::error::VfsError;
use crate::limits::{BUCKET_NAMES_MAX, SCAN_PAGE, XATTR_NAME_MAX, XATTR_VALUE_MAX, XATTRS_MAX};
use crate::records::{self, InodeRecord, Xattr, XattrBucket};
use crate::request::{AclKind, XattrMode};
use cessfs_sync::Batch;
use std::collections::BTreeMap;

/// What a file's program may do beyond its user (capabilities(7)); gone with any change of content or owner.
const CAPABILITY: &[u8] = b"security.capability";

/// Fails unless an xattr may be called `name`.
fn check_xattr_name(name: &[u8]) -> Result<(), VfsError> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        return Err(VfsError::Range);
    }
    if name.contains(&0) {
        return Err(VfsError::Invalid("an xattr name holds no NUL"));
    }
    if AclKind::of(name).is_some() {
        return Ok(());
    }
    let spaces: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    match spaces.iter().find_map(|space| name.strip_prefix(*space)) {
        Some(b"") => Err(VfsError::Invalid("an xattr name needs more than its namespace")),
        Some(_) => Ok(()),
        None => Err(VfsError::Unsupported("xattr namespace")),
    }
}

impl Vfs {
    /// Sets an attribute. Access control lists have a way of their own, [`set_acl`](Vfs::set_acl); `EOPNOTSUPP` here.
    pub fn setxattr(&self, ino: u64, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), VfsError> {
        self.core.check_room()?;
        check_xattr_name(name)?;
        if AclKind::of(name).is_some() {
            return Err(VfsError::Unsupported("an access control list as a plain xattr"));
        }
        if value.len() > XATTR_VALUE_MAX {
            return Err(VfsError::TooBig);
        }
        self.change_xattr(ino, name, |record, bucket| bucket.set(record, name, value, mode))
    }

    /// The value of an attribute; `NoAttribute` if it is not there.
    pub fn getxattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>, VfsError> {
        check_xattr_name(name)?;
        if super::virtual_dir::is_virtual(ino) {
            return Err(VfsError::NoAttribute);
        }
        let inode = self.inode(ino)?;
        let state = inode.state.read();
        let value = self
            .stored_xattr(ino, &state.record, name)?
            .ok_or(VfsError::NoAttribute)?;
        match AclKind::of(name) {
            Some(kind) => Vfs::told_acl(kind, value, state.record.perm),
            None => Ok(value),
        }
    }

    /// The value that the store has for an attribute of a locked inode.
    pub(super) fn stored_xattr(
        &self,
        ino: u64,
        record: &InodeRecord,
        name: &[u8],
    ) -> Result<Option<Vec<u8>>, VfsError> {
        // The kernel asks all the time, for lists and capabilities: mostly there is nothing, and the record says so.
        if record.xattrs == 0 {
            return Ok(None);
        }
        let key = records::xattr_key(ino, self.core.name_hash(ino, name));
        let Some(value) = self.core.store.get(&key)? else {
            return Ok(None);
        };
        let found = XattrBucket::decode(&value)?
            .0
            .into_iter()
            .find(|xattr| xattr.name == name);
        Ok(found.map(|xattr| xattr.value))
    }

    /// All names, each with a NUL behind it.
    pub fn listxattr(&self, ino: u64) -> Result<Vec<u8>, VfsError> {
        if super::virtual_dir::is_virtual(ino) {
            return Ok(Vec::new());
        }
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

    /// Removes an attribute; `NoAttribute` if it is not there. A list that is not there is removed with success, as the
    /// kernel's own filesystems have it (tar relies on it).
    pub fn removexattr(&self, ino: u64, name: &[u8]) -> Result<(), VfsError> {
        self.core.check_writable()?;
        check_xattr_name(name)?;
        match self.change_xattr(ino, name, |record, bucket| bucket.remove(record, name)) {
            Err(VfsError::NoAttribute) if AclKind::of(name).is_some() => Ok(()),
            result => result,
        }
    }

    /// Stages the loss of file capabilities, if there are any. A directory keeps what bears their name.
    pub(super) fn stage_capability_loss(
        &self,
        ino: u64,
        record: &mut InodeRecord,
        batch: &mut Batch,
    ) -> Result<(), VfsError> {
        if record.kind != FileKind::Directory && self.stored_xattr(ino, record, CAPABILITY)?.is_some() {
            let mut bucket = self.xattr_bucket(ino, CAPABILITY)?;
            bucket.remove(record, CAPABILITY)?;
            self.stage_bucket(ino, CAPABILITY, &bucket, batch);
        }
        Ok(())
    }

    /// Stages the first attributes of an inode that is about to be made.
    pub(super) fn stage_first_xattrs(&self, ino: u64, xattrs: Vec<Xattr>, batch: &mut Batch) {
        let mut buckets: BTreeMap<Vec<u8>, XattrBucket> = BTreeMap::new();
        for xattr in xattrs {
            let key = records::xattr_key(ino, self.core.name_hash(ino, &xattr.name));
            buckets.entry(key).or_default().0.push(xattr);
        }
        for (key, bucket) in buckets {
            self.core.marks.mark_new(batch, &key);
            batch.put(key, bucket.encode());
        }
    }

    fn xattr_bucket(&self, ino: u64, name: &[u8]) -> Result<XattrBucket, VfsError> {
        let key = records::xattr_key(ino, self.core.name_hash(ino, name));
        Ok(match self.core.store.get(&key)? {
            Some(value) => XattrBucket::decode(&value)?,
            None => XattrBucket::default(),
        })
    }

    fn stage_bucket(&self, ino: u64, name: &[u8], bucket: &XattrBucket, batch: &mut Batch) {
        let key = records::xattr_key(ino, self.core.name_hash(ino, name));
        self.core.marks.mark(batch, &key);
        if bucket.0.is_empty() {
            batch.delete(key);
        } else {
            batch.put(key, bucket.encode());
        }
    }

    /// Changes the bucket of `name`, and the inode with it, in one batch.
    pub(super) fn change_xattr(
        &self,
        ino: u64,
        name: &[u8],
        change: impl FnOnce(&mut InodeRecord, &mut XattrBucket) -> Result<(), VfsError>,
    ) -> Result<(), VfsError> {
        let inode = self.inode(ino)?;
        let _change = self.core.marks.enter();
        let mut state = inode.state.write();
        state.check_alive()?;
        let mut bucket = self.xattr_bucket(ino, name)?;
        let mut record = state.record.clone();
        change(&mut record, &mut bucket)?;
        record.ctime = self.core.now();
        let mut batch = Batch::new();
        self.stage_bucket(ino, name, &bucket, &mut batch);
        self.data.put_inode(ino, &state, &record, &mut batch)?;
        self.core.store.commit(batch)?;
        state.record = record;
        state.lazy = false;
        Ok(())
    }
}

impl XattrBucket {
    /// Sets `name`, and counts it in the record of the inode.
    pub(super) fn set(
        &mut self,
        record: &mut InodeRecord,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), VfsError> {
        let old = self.0.iter_mut().find(|xattr| xattr.name == name);
        match (old, mode) {
            (Some(_), XattrMode::Create | XattrMode::Never) => return Err(VfsError::Exists),
            (None, XattrMode::Replace | XattrMode::Never) => return Err(VfsError::NoAttribute),
            (Some(old), _) => old.value = value.to_vec(),
            (None, _) => {
                if record.xattrs >= XATTRS_MAX || self.0.len() >= BUCKET_NAMES_MAX {
                    return Err(VfsError::NoSpace("an inode has room for 256 extended attributes"));
                }
                record.xattrs += 1;
                self.0.push(Xattr {
                    name: name.to_vec(),
                    value: value.to_vec(),
                });
            }
        }
        Ok(())
    }

    /// Removes `name`; `NoAttribute` if it is not there.
    pub(super) fn remove(&mut self, record: &mut InodeRecord, name: &[u8]) -> Result<(), VfsError> {
        let before = self.0.len();
        self.0.retain(|xattr| xattr.name != name);
        if self.0.len() == before {
            return Err(VfsError::NoAttribute);
        }
        record.xattrs = record.xattrs.saturating_sub(1);
        Ok(())
    }
}
