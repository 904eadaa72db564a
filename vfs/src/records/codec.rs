//! Values: hand-written, little-endian, a version byte first (`docs/FORMAT-records.md`).

use super::{BlockMap, Dentry, DentryBucket, Extent, InodeRecord, Kept, Xattr, XattrBucket};
use crate::attr::{FileKind, Timestamp};
use crate::error::VfsError;
use crate::limits::{BUCKET_NAMES_MAX, NAME_BYTES_MAX, SYMLINK_BYTES_MAX, XATTR_NAME_MAX, XATTR_VALUE_MAX};
use cessfs_crypto::ChunkId;
use cessfs_sync::StoreError;
use cessfs_sync::limits::CHUNK_BYTES;

/// The version every record starts with.
pub(super) const VERSION: u8 = 1;

const INLINE: u8 = 1;
const QUOTA: u8 = 2;
const TRASH: u8 = 4;

const STORED: u8 = 1;
const RESIDENT: u8 = 2;
const DIRTY: u8 = 4;
const RESERVED: u8 = 8;
const KEPT: u8 = 16;
const OVER: u8 = 32;

/// Bytes of an encoded inode without its target.
const INODE_FIXED_BYTES: usize = 99;

const _: () = assert!(NAME_BYTES_MAX == u8::MAX as usize && XATTR_NAME_MAX == u8::MAX as usize);
const _: () = assert!(SYMLINK_BYTES_MAX <= u16::MAX as usize);

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Written by a newer cessfs, or not a record.
    #[error("unknown record version {0}")]
    Version(u8),
    /// It ends too early.
    #[error("record is cut short")]
    Short,
    /// Something follows its end.
    #[error("record has trailing bytes")]
    Trailing,
    /// A field says what it cannot say.
    #[error("record field out of range: {0}")]
    Field(&'static str),
}

impl From<RecordError> for VfsError {
    fn from(e: RecordError) -> VfsError {
        VfsError::Store(StoreError::Corrupt(e.to_string()))
    }
}

/// The rest of a record being decoded.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Checks the version byte and steps over it.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Fields<'a>, RecordError> {
        let mut fields = Fields(bytes);
        match fields.u8()? {
            VERSION => Ok(fields),
            other => Err(RecordError::Version(other)),
        }
    }

    pub(super) fn bytes(&mut self, n: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    /// Everything that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, RecordError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, RecordError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, RecordError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, RecordError> {
        let secs = i64::from_le_bytes(self.array()?);
        let nanos = self.u32()?;
        if nanos >= 1_000_000_000 {
            return Err(RecordError::Field("nanoseconds"));
        }
        Ok(Timestamp { secs, nanos })
    }

    fn blocks(&mut self) -> Result<BlockMap, RecordError> {
        let mut blocks = BlockMap::default();
        for word in &mut blocks.0 {
            *word = self.u64()?;
        }
        Ok(blocks)
    }

    fn kind(&mut self) -> Result<FileKind, RecordError> {
        FileKind::from_u8(self.u8()?).ok_or(RecordError::Field("file kind"))
    }

    fn flags(&mut self, known: u8) -> Result<u8, RecordError> {
        let flags = self.u8()?;
        if flags & !known != 0 {
            return Err(RecordError::Field("flags"));
        }
        Ok(flags)
    }

    /// A number above 0 if a flag says that there is one, else 0.
    fn number_if(&mut self, there: bool) -> Result<u64, RecordError> {
        if !there {
            return Ok(0);
        }
        match self.u64()? {
            0 => Err(RecordError::Field("a number that is there and 0")),
            number => Ok(number),
        }
    }

    pub(super) fn end(self) -> Result<(), RecordError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(RecordError::Trailing)
        }
    }
}

fn put_blocks(out: &mut Vec<u8>, blocks: &BlockMap) {
    for word in blocks.0 {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

pub(super) fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    debug_assert!(time.nanos < 1_000_000_000);
    out.extend_from_slice(&time.secs.to_le_bytes());
    out.extend_from_slice(&time.nanos.to_le_bytes());
}

impl InodeRecord {
    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.target.len() <= SYMLINK_BYTES_MAX);
        let mut out = Vec::with_capacity(INODE_FIXED_BYTES + self.target.len());
        out.push(VERSION);
        out.push(self.kind as u8);
        out.extend_from_slice(&self.perm.to_le_bytes());
        for number in [self.nlink, self.uid, self.gid, self.rdev] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let has = |number: u64, flag| u8::from(number != 0) * flag;
        out.push((u8::from(self.inline) * INLINE) | has(self.quota, QUOTA) | has(self.trash, TRASH));
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.blocks.to_le_bytes());
        for time in [self.atime, self.mtime, self.ctime, self.btime] {
            put_time(&mut out, time);
        }
        out.extend_from_slice(&self.parent.to_le_bytes());
        out.extend_from_slice(&self.xattrs.to_le_bytes());
        out.extend_from_slice(&(self.target.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.target);
        for number in [self.quota, self.trash].into_iter().filter(|number| *number != 0) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out
    }

    /// The inverse of [`encode`](InodeRecord::encode).
    pub fn decode(bytes: &[u8]) -> Result<InodeRecord, RecordError> {
        let mut fields = Fields::open(bytes)?;
        let kind = fields.kind()?;
        let perm = fields.u16()?;
        let (nlink, uid, gid, rdev) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let flags = fields.flags(INLINE | QUOTA | TRASH)?;
        let (size, blocks) = (fields.u64()?, fields.u64()?);
        let (atime, mtime, ctime, btime) = (fields.time()?, fields.time()?, fields.time()?, fields.time()?);
        let (parent, xattrs) = (fields.u64()?, fields.u32()?);
        let target_len = usize::from(fields.u16()?);
        if target_len > SYMLINK_BYTES_MAX {
            return Err(RecordError::Field("symlink target"));
        }
        let target = fields.bytes(target_len)?.to_vec();
        let quota = fields.number_if(flags & QUOTA != 0)?;
        let trash = fields.number_if(flags & TRASH != 0)?;
        fields.end()?;
        if perm > 0o7777 {
            return Err(RecordError::Field("permissions"));
        }
        if (kind == FileKind::Symlink) == target.is_empty() {
            return Err(RecordError::Field("symlink target"));
        }
        if (kind == FileKind::Directory) != (parent != 0) {
            return Err(RecordError::Field("parent"));
        }
        let inline = flags & INLINE != 0;
        if inline && kind != FileKind::Regular {
            return Err(RecordError::Field("inline"));
        }
        if trash != 0 && (kind != FileKind::Regular || nlink != 0) {
            return Err(RecordError::Field("trash"));
        }
        #[rustfmt::skip]
        let record = InodeRecord {
            kind, perm, nlink, uid, gid, rdev, size, blocks, atime, mtime, ctime, btime, parent, xattrs, inline, target,
            quota, trash,
        };
        Ok(record)
    }
}

impl Extent {
    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.kept.is_none() || (self.dirty && self.stored.is_some()));
        debug_assert_eq!(self.is_patched(), self.dirty && !self.resident);
        let mut out = Vec::with_capacity(6 + 36 + 32);
        out.push(VERSION);
        let flags = [
            (self.stored.is_some(), STORED),
            (self.resident, RESIDENT),
            (self.dirty, DIRTY),
            (!self.reserved.is_empty(), RESERVED),
            (self.kept.is_some(), KEPT),
            (self.is_patched(), OVER),
        ];
        out.push(flags.iter().map(|(set, flag)| u8::from(*set) * flag).sum());
        out.extend_from_slice(&self.valid.to_le_bytes());
        put_blocks(&mut out, &self.blocks);
        if let Some((id, len)) = &self.stored {
            out.extend_from_slice(&id.0);
            out.extend_from_slice(&len.to_le_bytes());
        }
        if !self.reserved.is_empty() {
            put_blocks(&mut out, &self.reserved);
        }
        if let Some(kept) = &self.kept {
            out.extend_from_slice(&kept.valid.to_le_bytes());
            put_blocks(&mut out, &kept.blocks);
        }
        if self.is_patched() {
            put_blocks(&mut out, &self.over);
        }
        out
    }

    /// The inverse of [`encode`](Extent::encode).
    pub fn decode(bytes: &[u8]) -> Result<Extent, RecordError> {
        let mut fields = Fields::open(bytes)?;
        let flags = fields.flags(STORED | RESIDENT | DIRTY | RESERVED | KEPT | OVER)?;
        let valid = fields.u32()?;
        let blocks = fields.blocks()?;
        let mut stored = None;
        if flags & STORED != 0 {
            let id = ChunkId(fields.array()?);
            let len = fields.u32()?;
            if len == 0 || len as usize > CHUNK_BYTES {
                return Err(RecordError::Field("chunk length"));
            }
            stored = Some((id, len));
        }
        let (mut reserved, mut kept, mut over) = (BlockMap::default(), None, BlockMap::default());
        if flags & RESERVED != 0 {
            reserved = fields.blocks()?;
            if reserved.is_empty() || reserved.intersects(&blocks) {
                return Err(RecordError::Field("reserved blocks"));
            }
        }
        if flags & KEPT != 0 {
            if flags & (STORED | DIRTY) != STORED | DIRTY {
                return Err(RecordError::Field("kept content"));
            }
            let (valid, blocks) = (fields.u32()?, fields.blocks()?);
            kept = Some(Kept { valid, blocks });
        }
        if flags & OVER != 0 {
            if flags & (STORED | RESIDENT | DIRTY | KEPT) != STORED | DIRTY | KEPT {
                return Err(RecordError::Field("written over"));
            }
            over = fields.blocks()?;
            if over.is_empty() || over.common(&blocks) != over {
                return Err(RecordError::Field("written over"));
            }
        }
        fields.end()?;
        if [Some(valid), kept.map(|kept| kept.valid)]
            .iter()
            .flatten()
            .any(|valid| *valid as usize > CHUNK_BYTES)
        {
            return Err(RecordError::Field("valid bytes"));
        }
        Ok(Extent {
            stored,
            valid,
            resident: flags & RESIDENT != 0,
            dirty: flags & DIRTY != 0,
            blocks,
            reserved,
            kept,
            over,
        })
    }
}

impl DentryBucket {
    /// As stored. Never empty: an empty bucket is no record.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(!self.0.is_empty() && self.0.len() <= BUCKET_NAMES_MAX);
        let mut out = Vec::with_capacity(2 + self.0.iter().map(|dentry| 10 + dentry.name.len()).sum::<usize>());
        out.push(VERSION);
        out.push(self.0.len() as u8);
        for dentry in &self.0 {
            debug_assert!(!dentry.name.is_empty() && dentry.name.len() <= NAME_BYTES_MAX);
            out.extend_from_slice(&dentry.ino.to_le_bytes());
            out.push(dentry.kind as u8);
            out.push(dentry.name.len() as u8);
            out.extend_from_slice(&dentry.name);
        }
        out
    }

    /// The inverse of [`encode`](DentryBucket::encode). Names are checked: no `/`, no NUL, not `.` or `..`, no two alike.
    pub fn decode(bytes: &[u8]) -> Result<DentryBucket, RecordError> {
        let mut fields = Fields::open(bytes)?;
        let count = bucket_count(&mut fields)?;
        let mut bucket = DentryBucket(Vec::with_capacity(count));
        for _ in 0..count {
            let ino = fields.u64()?;
            let kind = fields.kind()?;
            let len = usize::from(fields.u8()?);
            let name = fields.bytes(len)?;
            if ino == 0 {
                return Err(RecordError::Field("inode number"));
            }
            if !is_entry_name(name) || bucket.find(name).is_some() {
                return Err(RecordError::Field("name"));
            }
            bucket.0.push(Dentry {
                name: name.to_vec(),
                ino,
                kind,
            });
        }
        fields.end()?;
        Ok(bucket)
    }
}

/// A directory may hold this name.
fn is_entry_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

fn bucket_count(fields: &mut Fields<'_>) -> Result<usize, RecordError> {
    let count = usize::from(fields.u8()?);
    if count == 0 || count > BUCKET_NAMES_MAX {
        return Err(RecordError::Field("count"));
    }
    Ok(count)
}

impl XattrBucket {
    /// The attribute called `name`.
    pub fn find(&self, name: &[u8]) -> Option<&Xattr> {
        self.0.iter().find(|xattr| xattr.name == name)
    }

    /// As stored. Never empty: an empty bucket is no record.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(!self.0.is_empty() && self.0.len() <= BUCKET_NAMES_MAX);
        let bytes = self.0.iter().map(|xattr| 5 + xattr.name.len() + xattr.value.len());
        let mut out = Vec::with_capacity(2 + bytes.sum::<usize>());
        out.push(VERSION);
        out.push(self.0.len() as u8);
        for xattr in &self.0 {
            out.push(xattr.name.len() as u8);
            out.extend_from_slice(&(xattr.value.len() as u32).to_le_bytes());
            out.extend_from_slice(&xattr.name);
            out.extend_from_slice(&xattr.value);
        }
        out
    }

    /// The inverse of [`encode`](XattrBucket::encode).
    pub fn decode(bytes: &[u8]) -> Result<XattrBucket, RecordError> {
        let mut fields = Fields::open(bytes)?;
        let count = bucket_count(&mut fields)?;
        let mut bucket = XattrBucket(Vec::with_capacity(count));
        for _ in 0..count {
            let name_len = usize::from(fields.u8()?);
            let value_len = fields.u32()? as usize;
            let name = fields.bytes(name_len)?;
            if name.is_empty() || name.contains(&0) || bucket.find(name).is_some() {
                return Err(RecordError::Field("xattr name"));
            }
            if value_len > XATTR_VALUE_MAX {
                return Err(RecordError::Field("xattr value"));
            }
            let value = fields.bytes(value_len)?.to_vec();
            bucket.0.push(Xattr {
                name: name.to_vec(),
                value,
            });
        }
        fields.end()?;
        Ok(bucket)
    }
}

/// A counter as stored; also the value of flags (1) and of orphan notes (0).
pub fn encode_counter(number: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(9);
    out.push(VERSION);
    out.extend_from_slice(&number.to_le_bytes());
    out
}

/// The inverse of [`encode_counter`].
pub fn decode_counter(bytes: &[u8]) -> Result<u64, RecordError> {
    let mut fields = Fields::open(bytes)?;
    let number = fields.u64()?;
    fields.end()?;
    Ok(number)
}

/// Two numbers as one value.
pub fn encode_pair(first: u64, second: u64) -> Vec<u8> {
    let mut out = encode_counter(first);
    out.extend_from_slice(&second.to_le_bytes());
    out
}

/// The inverse of [`encode_pair`].
pub fn decode_pair(bytes: &[u8]) -> Result<(u64, u64), RecordError> {
    let mut fields = Fields::open(bytes)?;
    let (first, second) = (fields.u64()?, fields.u64()?);
    fields.end()?;
    Ok((first, second))
}
