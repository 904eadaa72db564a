//! How two trees differ: paths that came, went, changed, or have another name.
//!
//! Both trees are stores of records with the same keys, so they are walked side by side and only what differs is looked into.
//! Held in memory: the differences, at most [`DIFF_ENTRIES_MAX`], and the names of all directories.
//!
//! | told as | what it is |
//! |---|---|
//! | added, removed | a name that only one tree has |
//! | renamed | an inode that lost a name and got one |
//! | changed | the inode is in both trees, its content, size, modification time, owner, permissions or xattrs differ; or a file took the place of another |
//!
//! Access times, and what a change of its entries does to a directory, are no difference.

use crate::attr::FileKind;
use crate::error::VfsError;
use crate::inode::ROOT_INO;
use crate::limits::{DIFF_ENTRIES_MAX, SCAN_PAGE, TREE_DEPTH_MAX};
use crate::records::{self, BlockMap, Dentry, DentryBucket, Extent, InodeRecord};
use cessfs_sync::MetaStore;
use cessfs_sync::store::Record;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only the new tree has it.
    Added,
    /// Only the old tree has it.
    Removed,
    /// Both have it, and it is not the same.
    Changed,
    /// The old tree has it under another name.
    Renamed,
}

/// A path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What became of it.
    pub change: Change,
    /// What it is (now, if it is there).
    pub kind: FileKind,
    /// The path from the root, a slash in front; the new one, if there is one.
    pub path: Vec<u8>,
    /// Renamed: the path it had.
    pub from: Option<Vec<u8>>,
}

/// A name that only one tree has.
#[derive(Clone, Debug)]
struct Name {
    parent: u64,
    dentry: Dentry,
}

/// Directory and name by inode.
type Names = HashMap<u64, (u64, Vec<u8>)>;

/// One store's records of a kind, a page at a time.
struct Cursor<'a> {
    store: &'a dyn MetaStore,
    prefix: &'a [u8],
    from: Vec<u8>,
    page: VecDeque<Record>,
    ended: bool,
}

impl<'a> Cursor<'a> {
    fn new(store: &'a dyn MetaStore, prefix: &'a [u8]) -> Result<Cursor<'a>, VfsError> {
        let mut cursor = Cursor {
            store,
            prefix,
            from: prefix.to_vec(),
            page: VecDeque::new(),
            ended: false,
        };
        cursor.fill()?;
        Ok(cursor)
    }

    fn fill(&mut self) -> Result<(), VfsError> {
        if !self.page.is_empty() || self.ended {
            return Ok(());
        }
        self.page = self.store.scan(self.prefix, &self.from, SCAN_PAGE)?.into();
        match self.page.back() {
            Some((last, _)) => {
                self.from.clone_from(last);
                self.from.push(0);
            }
            None => self.ended = true,
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<Record>, VfsError> {
        let next = self.page.pop_front();
        self.fill()?;
        Ok(next)
    }
}

/// Visits the keys of a kind whose values differ: key, old value, new value.
fn merge(
    old: &dyn MetaStore,
    new: &dyn MetaStore,
    prefix: &[u8],
    mut visit: impl FnMut(&[u8], Option<&[u8]>, Option<&[u8]>) -> Result<(), VfsError>,
) -> Result<(), VfsError> {
    let (mut old, mut new) = (Cursor::new(old, prefix)?, Cursor::new(new, prefix)?);
    loop {
        let order = match (old.page.front(), new.page.front()) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let before = if order.is_le() { old.take()? } else { None };
        let after = if order.is_ge() { new.take()? } else { None };
        match (&before, &after) {
            (Some((key, a)), Some((_, b))) if a != b => visit(key, Some(a), Some(b))?,
            (Some((key, a)), None) => visit(key, Some(a), None)?,
            (None, Some((key, b))) => visit(key, None, Some(b))?,
            _ => {}
        }
    }
}

struct Comparison<'a> {
    old: &'a dyn MetaStore,
    new: &'a dyn MetaStore,
    /// Inodes that are in both trees and are not the same.
    changed: BTreeMap<u64, FileKind>,
    removed: Vec<Name>,
    added: Vec<Name>,
}

/// See the module head. Sorted by path.
pub(crate) fn compare(old: &dyn MetaStore, new: &dyn MetaStore) -> Result<Vec<Difference>, VfsError> {
    let mut comparison = Comparison {
        old,
        new,
        changed: BTreeMap::new(),
        removed: Vec::new(),
        added: Vec::new(),
    };
    comparison.inodes()?;
    comparison.content()?;
    comparison.names()?;
    comparison.told()
}

impl Comparison<'_> {
    fn check_room(&self) -> Result<(), VfsError> {
        if self.changed.len() + self.removed.len() + self.added.len() > DIFF_ENTRIES_MAX {
            return Err(VfsError::NoSpace(
                "more than a million paths differ; compare directories with `diff -rq`",
            ));
        }
        Ok(())
    }

    fn inodes(&mut self) -> Result<(), VfsError> {
        merge(self.old, self.new, records::INODE_PREFIX, |key, old, new| {
            let (Some(old), Some(new)) = (old, new) else {
                return Ok(());
            };
            let (old, new) = (InodeRecord::decode(old)?, InodeRecord::decode(new)?);
            if is_changed(&old, &new) {
                self.changed.insert(records::parse_ino_key(key)?, new.kind);
                self.check_room()?;
            }
            Ok(())
        })
    }

    fn content(&mut self) -> Result<(), VfsError> {
        let mut touched = Vec::new();
        let mut touch = |ino: u64| {
            if touched.last() != Some(&ino) {
                touched.push(ino);
            }
        };
        merge(self.old, self.new, records::EXTENT_PREFIX, |key, old, new| {
            let content = |value: Option<&[u8]>| value.map(|value| Ok(told_extent(Extent::decode(value)?))).transpose();
            let (old, new): (_, Result<_, VfsError>) = (content(old)?, content(new));
            if old != new? {
                touch(records::parse_extent_key(key)?.0);
            }
            Ok(())
        })?;
        merge(self.old, self.new, records::INLINE_PREFIX, |key, _, _| {
            touch(records::parse_ino_key(key)?);
            Ok(())
        })?;
        merge(self.old, self.new, records::XATTR_PREFIX, |key, _, _| {
            touch(records::parse_dentry_key(key)?.0);
            Ok(())
        })?;
        for ino in touched {
            let key = records::inode_key(ino);
            if !self.changed.contains_key(&ino)
                && self.old.get(&key)?.is_some()
                && let Some(value) = self.new.get(&key)?
            {
                self.changed.insert(ino, InodeRecord::decode(&value)?.kind);
                self.check_room()?;
            }
        }
        Ok(())
    }

    fn names(&mut self) -> Result<(), VfsError> {
        merge(self.old, self.new, records::DENTRY_PREFIX, |key, old, new| {
            let (parent, _) = records::parse_dentry_key(key)?;
            let bucket = |value: Option<&[u8]>| value.map_or(Ok(DentryBucket::default()), DentryBucket::decode);
            let (old, new) = (bucket(old)?.0, bucket(new)?.0);
            let only = |these: &[Dentry], others: &[Dentry]| -> Vec<Name> {
                let gone = these.iter().filter(|dentry| !others.contains(dentry)).cloned();
                gone.map(|dentry| Name { parent, dentry }).collect()
            };
            self.removed.extend(only(&old, &new));
            self.added.extend(only(&new, &old));
            self.check_room()
        })
    }

    fn told(self) -> Result<Vec<Difference>, VfsError> {
        let new_names = names(self.new, |ino| self.changed.contains_key(&ino))?;
        let old_names = match self.removed.is_empty() {
            true => Names::new(),
            false => names(self.old, |_| false)?,
        };
        let mut out = Vec::new();
        let mut lost: HashMap<u64, Vec<Name>> = HashMap::new();
        for name in self.removed.into_iter().rev() {
            lost.entry(name.dentry.ino).or_default().push(name);
        }
        let mut came: BTreeMap<Vec<u8>, FileKind> = BTreeMap::new();
        for name in self.added {
            let path = path_of(&name, &new_names);
            let kind = name.dentry.kind;
            match lost.get_mut(&name.dentry.ino).and_then(Vec::pop) {
                Some(before) => out.push(Difference {
                    change: Change::Renamed,
                    kind,
                    from: Some(path_of(&before, &old_names)),
                    path,
                }),
                None => drop(came.insert(path, kind)),
            }
        }
        for name in lost.into_values().flatten() {
            let path = path_of(&name, &old_names);
            let is_file = |kind: FileKind| kind != FileKind::Directory;
            // What a program saved under the name of an older file is a change of that file.
            let (change, kind) = match came.get(&path) {
                Some(kind) if is_file(*kind) && is_file(name.dentry.kind) => {
                    (Change::Changed, came.remove(&path).expect("it was found just now"))
                }
                _ => (Change::Removed, name.dentry.kind),
            };
            let from = None;
            out.push(Difference {
                change,
                kind,
                path,
                from,
            });
        }
        let added = came.into_iter().map(|(path, kind)| (Change::Added, path, kind));
        let changed = self.changed.into_iter().filter_map(|(ino, kind)| {
            let path = if ino == ROOT_INO {
                b"/".to_vec()
            } else {
                path(new_names.get(&ino)?, &new_names)
            };
            Some((Change::Changed, path, kind))
        });
        let from = None;
        out.extend(added.chain(changed).map(|(change, path, kind)| Difference {
            change,
            kind,
            path,
            from: from.clone(),
        }));
        out.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(out)
    }
}

fn is_changed(old: &InodeRecord, new: &InodeRecord) -> bool {
    let look = |record: &InodeRecord| {
        let times = (record.kind != FileKind::Directory).then_some((record.mtime, record.size));
        (record.kind, record.perm, record.uid, record.gid, record.rdev, times)
    };
    look(old) != look(new) || old.target != new.target
}

/// An extent without what is local.
fn told_extent(mut extent: Extent) -> Extent {
    extent.resident = false;
    extent.kept = None;
    extent.over = BlockMap::default();
    extent
}

/// Names of all directories, and of the inodes that are `wanted` (one of them).
fn names(store: &dyn MetaStore, wanted: impl Fn(u64) -> bool) -> Result<Names, VfsError> {
    let mut names = Names::new();
    crate::restore::each(store, records::DENTRY_PREFIX, |key, value| {
        let (parent, _) = records::parse_dentry_key(key)?;
        for dentry in DentryBucket::decode(value)?.0 {
            if dentry.kind == FileKind::Directory || wanted(dentry.ino) {
                names.insert(dentry.ino, (parent, dentry.name));
            }
        }
        Ok(())
    })?;
    Ok(names)
}

fn path_of(name: &Name, names: &Names) -> Vec<u8> {
    path(&(name.parent, name.dentry.name.clone()), names)
}

/// The path of a name, a slash in front of each part.
fn path(name: &(u64, Vec<u8>), names: &Names) -> Vec<u8> {
    let mut parts = vec![&name.1];
    let mut at = name.0;
    while let Some((parent, name)) = names.get(&at).filter(|_| parts.len() < TREE_DEPTH_MAX) {
        parts.push(name);
        at = *parent;
    }
    let mut path = Vec::new();
    for part in parts.into_iter().rev() {
        path.push(b'/');
        path.extend_from_slice(part);
    }
    path
}
