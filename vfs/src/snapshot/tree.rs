//! A snapshot's tree, as the kernel asks for it. Nothing in it ever changes, so nothing is locked and nothing is counted.
//!
//! Inode numbers, given and taken, are those of [`number`].

use super::number;
use super::shelf::OnShelf;
use crate::Later;
use crate::attr::{Attr, DirEntry, FileKind};
use crate::data::{BLOCK, CHUNK, copy_visible, pieces};
use crate::dentry::check_name;
use crate::error::VfsError;
use crate::inode::ROOT_INO;
use crate::limits::{SCAN_PAGE, SNAPSHOT_PREFETCH_CHUNKS, XATTRS_MAX};
use crate::records::{self, Dentry, DentryBucket, Extent, InodeRecord, XattrBucket};
use crate::request::{AclKind, Seek};
use crate::vfs::attr_of;
use cessfs_crypto::{AtRestKeys, ChunkId};
use cessfs_sync::{ChunkStore, FetchError, MetaStore};
use std::ops::ControlFlow;
use std::sync::Arc;

const COOKIE_DOT: u64 = 1;
const COOKIE_DOT_DOT: u64 = 2;
/// The cookie of hash 0; see the listing of live directories.
const COOKIE_BASE: u64 = 3;

/// A tree that is only read.
pub struct Tree {
    number: u64,
    pub(super) place: OnShelf,
    at_rest: AtRestKeys,
    chunks: Arc<dyn ChunkStore>,
}

/// A piece of a read that comes from the network: where it goes, and what of it.
struct Part {
    start: usize,
    extent: Extent,
    id: ChunkId,
    len: u32,
    range: std::ops::Range<usize>,
}

impl Tree {
    pub(super) fn new(number: u64, place: OnShelf, at_rest: AtRestKeys, chunks: Arc<dyn ChunkStore>) -> Tree {
        Tree {
            number,
            place,
            at_rest,
            chunks,
        }
    }

    /// The records.
    pub(crate) fn store(&self) -> &dyn MetaStore {
        self.place.store()
    }

    /// The inode's own number.
    fn own(&self, seen: u64) -> Result<u64, VfsError> {
        match number::split(seen) {
            Some((snapshot, ino)) if snapshot == self.number => Ok(ino),
            _ => Err(VfsError::Stale),
        }
    }

    fn record(&self, ino: u64) -> Result<InodeRecord, VfsError> {
        let value = self.store().get(&records::inode_key(ino))?.ok_or(VfsError::Stale)?;
        Ok(InodeRecord::decode(&value)?)
    }

    fn directory(&self, ino: u64) -> Result<InodeRecord, VfsError> {
        let record = self.record(ino)?;
        match record.kind {
            FileKind::Directory => Ok(record),
            _ => Err(VfsError::NotDirectory),
        }
    }

    fn attr(&self, ino: u64) -> Result<Attr, VfsError> {
        Ok(attr_of(number::seen(self.number, ino), &self.record(ino)?))
    }

    /// Attributes.
    ///
    /// # Errors
    /// `Stale`; the store cannot be read. The same below.
    pub fn getattr(&self, seen: u64) -> Result<Attr, VfsError> {
        self.attr(self.own(seen)?)
    }

    /// What a name means.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Attr, VfsError> {
        check_name(name)?;
        let parent = self.own(parent)?;
        let record = self.directory(parent)?;
        match name {
            b"." => self.attr(parent),
            b".." => self.attr(record.parent),
            _ => {
                let key = records::dentry_key(parent, self.at_rest.name_hash(parent, name));
                let value = self.store().get(&key)?.ok_or(VfsError::NotFound)?;
                let bucket = DentryBucket::decode(&value)?;
                self.attr(bucket.find(name).ok_or(VfsError::NotFound)?.ino)
            }
        }
    }

    /// Tells the entries after `cookie`, as the listing of a live directory does.
    ///
    /// # Errors
    /// `NotDirectory`.
    pub fn readdir(
        &self,
        seen: u64,
        cookie: u64,
        plus: bool,
        fill: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), VfsError> {
        let ino = self.own(seen)?;
        let parent = self.directory(ino)?.parent;
        for (name, at, ino) in [(&b"."[..], COOKIE_DOT, ino), (b"..", COOKIE_DOT_DOT, parent)] {
            let dot = Dentry {
                name: name.to_vec(),
                ino,
                kind: FileKind::Directory,
            };
            if cookie < at && self.tell(&dot, at, plus, fill)? {
                return Ok(());
            }
        }
        let mut last = cookie.max(COOKIE_DOT_DOT);
        loop {
            let from = records::dentry_key(ino, last + 1 - COOKIE_BASE);
            let page = self.store().scan(&records::dentry_prefix(ino), &from, SCAN_PAGE)?;
            for (key, value) in &page {
                let (_, hash) = records::parse_dentry_key(key)?;
                let own = hash + COOKIE_BASE;
                let bucket = DentryBucket::decode(value)?.0;
                for (i, dentry) in bucket.iter().enumerate() {
                    let cookie = if i + 1 == bucket.len() { own } else { last };
                    if self.tell(dentry, cookie, plus, fill)? {
                        return Ok(());
                    }
                }
                last = own;
            }
            if page.len() < SCAN_PAGE {
                return Ok(());
            }
        }
    }

    fn tell(
        &self,
        dentry: &Dentry,
        cookie: u64,
        plus: bool,
        fill: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<bool, VfsError> {
        Ok(fill(DirEntry {
            ino: number::seen(self.number, dentry.ino),
            cookie,
            kind: dentry.kind,
            name: &dentry.name,
            attr: if plus { Some(self.attr(dentry.ino)?) } else { None },
        }))
    }

    /// A symlink's target.
    ///
    /// # Errors
    /// `Invalid` for anything else.
    pub fn readlink(&self, seen: u64) -> Result<Vec<u8>, VfsError> {
        let record = self.record(self.own(seen)?)?;
        match record.kind {
            FileKind::Symlink => Ok(record.target),
            _ => Err(VfsError::Invalid("not a symbolic link")),
        }
    }

    /// The value of an attribute.
    ///
    /// # Errors
    /// `NoAttribute`.
    pub fn getxattr(&self, seen: u64, name: &[u8]) -> Result<Vec<u8>, VfsError> {
        let ino = self.own(seen)?;
        let record = self.record(ino)?;
        if record.xattrs == 0 {
            return Err(VfsError::NoAttribute);
        }
        let key = records::xattr_key(ino, self.at_rest.name_hash(ino, name));
        let value = self.store().get(&key)?.ok_or(VfsError::NoAttribute)?;
        let bucket = XattrBucket::decode(&value)?;
        let value = bucket.find(name).ok_or(VfsError::NoAttribute)?.value.clone();
        match AclKind::of(name) {
            Some(kind) => crate::Vfs::told_acl(kind, value, record.perm),
            None => Ok(value),
        }
    }

    /// All names of attributes, each with a NUL behind it.
    ///
    /// # Errors
    /// See [`getattr`](Tree::getattr).
    pub fn listxattr(&self, seen: u64) -> Result<Vec<u8>, VfsError> {
        let ino = self.own(seen)?;
        let mut names = Vec::new();
        if self.record(ino)?.xattrs == 0 {
            return Ok(names);
        }
        let prefix = records::xattr_prefix(ino);
        const { assert!(XATTRS_MAX as usize <= SCAN_PAGE) };
        for (_, value) in self.store().scan(&prefix, &prefix, SCAN_PAGE)? {
            for xattr in XattrBucket::decode(&value)?.0 {
                names.extend_from_slice(&xattr.name);
                names.push(0);
            }
        }
        Ok(names)
    }

    fn file(&self, ino: u64) -> Result<InodeRecord, VfsError> {
        let record = self.record(ino)?;
        match record.kind {
            FileKind::Regular => Ok(record),
            FileKind::Directory => Err(VfsError::IsDirectory),
            _ => Err(VfsError::Invalid("only regular files have content")),
        }
    }

    fn extent(&self, ino: u64, chunk: u64) -> Result<Option<Extent>, VfsError> {
        let value = self.store().get(&records::extent_key(ino, chunk))?;
        Ok(value.map(|value| Extent::decode(&value)).transpose()?)
    }

    /// Reads at most `len` bytes from `offset`; fewer at the end of the file.
    ///
    /// # Errors
    /// `Fetch`: the network does not give a chunk back.
    pub fn read(&self, seen: u64, offset: u64, len: u32) -> Result<Later<Vec<u8>>, VfsError> {
        let ino = self.own(seen)?;
        let record = self.file(ino)?;
        let end = record.size.min(offset.saturating_add(u64::from(len)));
        if offset >= end {
            return Ok(Later::Ready(Vec::new()));
        }
        if record.inline {
            let mut bytes = self.store().get(&records::inline_key(ino))?.unwrap_or_default();
            bytes.resize(record.size as usize, 0);
            return Ok(Later::Ready(bytes[offset as usize..end as usize].to_vec()));
        }
        let mut out = vec![0; (end - offset) as usize];
        let mut parts = Vec::new();
        for piece in pieces(offset, end) {
            let Some(extent) = self.extent(ino, piece.chunk)? else {
                continue;
            };
            let Some((id, len)) = extent.stored else { continue };
            parts.push(Part {
                start: (piece.chunk * CHUNK + piece.range.start as u64 - offset) as usize,
                extent,
                id,
                len,
                range: piece.range.clone(),
            });
            if piece.range.start == 0 {
                self.hint_after(ino, piece.chunk)?;
            }
        }
        if parts.is_empty() {
            return Ok(Later::Ready(out));
        }
        let fetches: Vec<_> = parts.iter().map(|part| self.chunks.fetch(part.id)).collect();
        Ok(Later::Wait(Box::pin(async move {
            let answers = futures::future::try_join_all(fetches).await?;
            for (part, bytes) in parts.iter().zip(answers) {
                if bytes.len() != part.len as usize {
                    let told = format!("it has {} bytes instead of {}", bytes.len(), part.len);
                    return Err(FetchError::Unavailable(told).into());
                }
                let into = &mut out[part.start..part.start + part.range.len()];
                copy_visible(&part.extent, &bytes, &part.range, into);
            }
            Ok(out)
        })))
    }

    /// Tells the chunk store what whoever reads on will want next.
    fn hint_after(&self, ino: u64, chunk: u64) -> Result<(), VfsError> {
        let mut ids = Vec::new();
        for next in chunk + 1..=chunk + SNAPSHOT_PREFETCH_CHUNKS {
            ids.extend(
                self.extent(ino, next)?
                    .and_then(|extent| extent.stored)
                    .map(|(id, _)| id),
            );
        }
        if !ids.is_empty() {
            // What is not on its way then comes with its own read.
            let _taken = self.chunks.prefetch(&ids);
        }
        Ok(())
    }

    /// The first byte from `offset` on that is data, or in a hole; a hole begins where the file ends.
    ///
    /// # Errors
    /// `NoOffset` at or beyond the end, or when no data follows.
    pub fn seek(&self, seen: u64, offset: u64, what: Seek) -> Result<u64, VfsError> {
        let ino = self.own(seen)?;
        let record = self.file(ino)?;
        if offset >= record.size {
            return Err(VfsError::NoOffset);
        }
        if record.inline {
            return match (what, record.blocks > 0) {
                (Seek::Data, true) | (Seek::Hole, false) => Ok(offset),
                (Seek::Hole, true) => Ok(record.size),
                (Seek::Data, false) => Err(VfsError::NoOffset),
            };
        }
        let mut found = None;
        let mut at = offset;
        self.each_extent(ino, offset / CHUNK, &mut |chunk, extent| {
            let start = chunk * CHUNK;
            let step = match what {
                Seek::Data => {
                    let first = offset.saturating_sub(start) as usize / BLOCK;
                    let block = extent.blocks.first(first, true);
                    block.map(|block| found = Some(offset.max(start + (block * BLOCK) as u64)))
                }
                // A gap between chunks is a hole that begins where the last chunk ended.
                Seek::Hole if start > at => Some(()),
                Seek::Hole => {
                    let block = extent.blocks.first((at - start) as usize / BLOCK, false);
                    at = block.map_or(start + CHUNK, |block| at.max(start + (block * BLOCK) as u64));
                    block.map(|_| ())
                }
            };
            step.map_or(ControlFlow::Continue(()), ControlFlow::Break)
        })?;
        match what {
            Seek::Data => found.filter(|at| *at < record.size).ok_or(VfsError::NoOffset),
            Seek::Hole => Ok(at.min(record.size)),
        }
    }

    fn each_extent(
        &self,
        ino: u64,
        first: u64,
        visit: &mut dyn FnMut(u64, Extent) -> ControlFlow<()>,
    ) -> Result<(), VfsError> {
        let prefix = records::extent_prefix(ino);
        let mut from = records::extent_key(ino, first);
        loop {
            let page = self.store().scan(&prefix, &from, SCAN_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
            for (key, value) in &page {
                let (_, chunk) = records::parse_extent_key(key)?;
                if visit(chunk, Extent::decode(value)?).is_break() {
                    return Ok(());
                }
            }
        }
    }

    /// The inode of the root directory, as the kernel sees it.
    pub fn root(&self) -> u64 {
        number::seen(self.number, ROOT_INO)
    }
}
