//! Listing directories, a page at a time: a directory of any size costs one page of memory.
//!
//! A cookie is a position that survives every change of the directory: `.` is 1, `..` is 2, and an entry's is the 62-bit hash of
//! its name plus 3. Listing goes on after the cookie it is given. Names that share a hash come together, and all but
//! the last of them carry the cookie *before* the hash: whoever stops between them sees them again rather than not at all.

use super::{Vfs, attr_of, check_dir};
use crate::attr::{Attr, DirEntry, FileKind};
use crate::error::VfsError;
use crate::inode::Inode;
use crate::limits::SCAN_PAGE;
use crate::records::{self, Dentry, DentryBucket, InodeRecord};
use std::sync::Arc;

const COOKIE_DOT: u64 = 1;
const COOKIE_DOT_DOT: u64 = 2;
/// The cookie of hash 0.
const COOKIE_BASE: u64 = 3;

impl Vfs {
    /// Tells the entries after `cookie` (0: from the start) to `fill` until it says that it is full (the entry it was told
    /// then is not taken). With `plus` entries carry attributes, and every taken one but `.` and `..` counts one
    /// reference of the kernel. Entries made or removed meanwhile may or may not show; all others show once.
    pub fn readdir(
        &self,
        ino: u64,
        cookie: u64,
        plus: bool,
        fill: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), VfsError> {
        if let Some(listed) = self.virtual_readdir(ino, cookie, plus, fill) {
            return listed;
        }
        let dir = self.inode(ino)?;
        let parent = {
            let state = dir.state.read();
            check_dir(&state)?;
            state.record.parent
        };
        if cookie == 0 {
            self.touch(&dir)?;
        }
        let mut files = Vec::new();
        let result = self.tell_all(&dir, parent, cookie, plus, &mut |entry| {
            let file = (entry.kind == FileKind::Regular).then_some(entry.ino);
            let full = fill(entry);
            files.extend(file.filter(|_| !full));
            full
        });
        self.data.listed(dir.ino, cookie == 0, &files);
        result
    }

    fn tell_all(
        &self,
        dir: &Arc<Inode>,
        parent: u64,
        cookie: u64,
        plus: bool,
        fill: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), VfsError> {
        for (name, at, ino) in [(&b"."[..], COOKIE_DOT, dir.ino), (b"..", COOKIE_DOT_DOT, parent)] {
            if cookie >= at {
                continue;
            }
            let attr = if plus { self.live_attr(ino).ok() } else { None };
            if fill(DirEntry {
                ino,
                cookie: at,
                kind: FileKind::Directory,
                name,
                attr,
            }) {
                return Ok(());
            }
        }
        let mut last = cookie.max(COOKIE_DOT_DOT);
        loop {
            let page = self.page(dir, last + 1 - COOKIE_BASE)?;
            for (hash, bucket) in &page {
                let own = hash + COOKIE_BASE;
                for (i, dentry) in bucket.0.iter().enumerate() {
                    let cookie = if i + 1 == bucket.0.len() { own } else { last };
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

    /// The next buckets, from `hash` on.
    fn page(&self, dir: &Arc<Inode>, hash: u64) -> Result<Vec<(u64, DentryBucket)>, VfsError> {
        let state = dir.state.read();
        check_dir(&state)?;
        let from = records::dentry_key(dir.ino, hash);
        let page = self
            .core
            .store
            .scan(&records::dentry_prefix(dir.ino), &from, SCAN_PAGE)?;
        let decode = |(key, value): (Vec<u8>, Vec<u8>)| {
            let (_, hash) = records::parse_dentry_key(&key)?;
            Ok((hash, DentryBucket::decode(&value)?))
        };
        page.into_iter().map(decode).collect()
    }

    /// Tells one entry; true when it was not taken.
    fn tell(
        &self,
        dentry: &Dentry,
        cookie: u64,
        plus: bool,
        fill: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<bool, VfsError> {
        let Dentry { name, ino, kind } = dentry;
        let (ino, kind) = (*ino, *kind);
        if !plus {
            return Ok(fill(DirEntry {
                ino,
                cookie,
                kind,
                name,
                attr: None,
            }));
        }
        // The reference first: from then on a removal keeps what is read next (as in `lookup`).
        self.core.inodes.remember(ino);
        let attr = self.attr_without_caching(ino)?;
        let known = attr.is_some();
        let full = fill(DirEntry {
            ino,
            cookie,
            kind,
            name,
            attr,
        });
        if full || !known {
            self.forget(ino, 1);
        }
        Ok(full)
    }

    /// Attributes for a listing: an inode in memory answers, else the store does, and nothing is cached, so that listing a
    /// huge directory does not throw out what others use. `None` if it was removed meanwhile.
    fn attr_without_caching(&self, ino: u64) -> Result<Option<Attr>, VfsError> {
        if let Some(inode) = self.core.inodes.peek(ino) {
            let state = inode.state.read();
            let live = (!state.gone).then(|| self.live_attr_of(ino, &state));
            return live.transpose();
        }
        match self.core.store.get(&records::inode_key(ino))? {
            Some(value) => Ok(Some(attr_of(ino, &InodeRecord::decode(&value)?))),
            None => Ok(None),
        }
    }
}
