//! Directories that are in no record: `.cessfs` at the root, and what it shows.
//!
//! They are found by name and never listed by their parent, so that no program meets them by walking. Nothing can be made
//! in them. Their inode numbers are the last that there are; the kernel must not remember what they hold
//! ([`is_virtual`]), since it changes unseen.
//!
//! A new child of `.cessfs` is a variant of [`Node`], a line in [`CHILDREN`], and an arm wherever the compiler asks for one.

use super::Vfs;
use crate::attr::{Attr, DirEntry, FileKind, Timestamp};
use crate::error::VfsError;
use crate::inode::ROOT_INO;
use crate::request::RenameFlags;

/// Numbers from here on are no inode's: `InoCounter` would have to issue all others first.
const FIRST_INO: u64 = u64::MAX - 0xFF;

/// The name at the root.
const NAME: &[u8] = b".cessfs";

/// A directory that is in no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    /// `.cessfs`
    Top,
    /// `.cessfs/trash`
    Trash,
    /// `.cessfs/snapshots`
    Snapshots,
}

/// What `.cessfs` holds.
const CHILDREN: [(&[u8], Node); 2] = [(b"trash", Node::Trash), (b"snapshots", Node::Snapshots)];

impl Node {
    fn ino(self) -> u64 {
        match self {
            Node::Top => FIRST_INO,
            Node::Trash => FIRST_INO + 1,
            Node::Snapshots => SNAPSHOTS_INO,
        }
    }

    fn from_ino(ino: u64) -> Option<Node> {
        [Node::Top, Node::Trash, Node::Snapshots]
            .into_iter()
            .find(|node| node.ino() == ino)
    }

    /// What the trash holds may have been in a directory that others could not enter: it is its owner's alone. What a snapshot
    /// holds has the permissions it had.
    fn perm(self) -> u16 {
        match self {
            Node::Top | Node::Snapshots => 0o555,
            Node::Trash => 0o700,
        }
    }

    fn parent(self) -> u64 {
        match self {
            Node::Top => ROOT_INO,
            Node::Trash | Node::Snapshots => Node::Top.ino(),
        }
    }
}

/// The number is that of a directory in no record: what is known about it, and about what it holds, must be asked again
/// each time.
pub const fn is_virtual(ino: u64) -> bool {
    ino >= FIRST_INO
}

/// The number of the directory that shows snapshots.
pub(super) const SNAPSHOTS_INO: u64 = FIRST_INO + 2;

impl Vfs {
    /// Fails with `NotPermitted` where nothing can be made or removed: in these directories, and at the root under their name.
    pub(super) fn check_not_virtual(&self, parent: u64, name: &[u8]) -> Result<(), VfsError> {
        if is_virtual(parent) || (parent == ROOT_INO && name == NAME) {
            return Err(VfsError::NotPermitted);
        }
        Ok(())
    }

    /// `lookup`, if it is about one of these directories.
    pub(super) fn virtual_lookup(&self, parent: u64, name: &[u8]) -> Option<Result<Attr, VfsError>> {
        if parent == ROOT_INO {
            return (name == NAME).then(|| Ok(self.node_attr(Node::Top)));
        }
        if !is_virtual(parent) {
            return None;
        }
        let Some(node) = Node::from_ino(parent) else {
            return Some(Err(VfsError::Stale));
        };
        Some(match (name, node) {
            (b".", _) => Ok(self.node_attr(node)),
            (b"..", Node::Top) => self.live_attr(ROOT_INO),
            (b"..", _) => Ok(self.node_attr(Node::Top)),
            (_, Node::Top) => {
                let found = CHILDREN.iter().find(|(child, _)| *child == name);
                found.map(|(_, child)| self.node_attr(*child)).ok_or(VfsError::NotFound)
            }
            (_, Node::Trash) => self.trash_lookup(name),
            (_, Node::Snapshots) => self.snapshot_lookup(name),
        })
    }

    /// `getattr`, if it is about one of these directories.
    pub(super) fn virtual_attr(&self, ino: u64) -> Option<Attr> {
        Node::from_ino(ino).map(|node| self.node_attr(node))
    }

    /// `readdir`, if it is about one of these directories. Cookies: `.` 1, `..` 2, then as the directory has it, from 3.
    pub(super) fn virtual_readdir(
        &self,
        ino: u64,
        cookie: u64,
        plus: bool,
        fill: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Option<Result<(), VfsError>> {
        let node = Node::from_ino(ino)?;
        let mut dirs = vec![(ino, &b"."[..]), (node.parent(), b"..")];
        if node == Node::Top {
            dirs.extend(CHILDREN.iter().map(|(name, child)| (child.ino(), *name)));
        }
        for ((ino, name), number) in dirs.into_iter().zip(1..).filter(|(_, number)| *number > cookie) {
            let entry = DirEntry {
                ino,
                cookie: number,
                kind: FileKind::Directory,
                name,
                attr: plus.then(|| self.virtual_attr(ino)).flatten(),
            };
            if fill(entry) {
                return Some(Ok(()));
            }
        }
        Some(match node {
            Node::Top => Ok(()),
            Node::Trash => self.trash_readdir(cookie.max(2) - 2, plus, fill),
            Node::Snapshots => self.snapshots_readdir(cookie.max(2) - 2, plus, fill),
        })
    }

    /// `unlink`, if it is about one of these directories: what is removed from the trash is gone for good.
    pub(super) fn virtual_unlink(&self, parent: u64, name: &[u8]) -> Option<Result<(), VfsError>> {
        match Node::from_ino(parent) {
            Some(Node::Trash) => Some(self.trash_unlink(name)),
            _ => self.check_not_virtual(parent, name).err().map(Err),
        }
    }

    /// `rename`, if it is from one of these directories: what is moved out of the trash is restored.
    pub(super) fn virtual_rename(
        &self,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Option<Result<(), VfsError>> {
        match Node::from_ino(parent) {
            Some(Node::Trash) if !flags.exchange && flags.whiteout.is_none() => {
                Some(self.trash_restore(name, new_parent, new_name))
            }
            _ => self.check_not_virtual(parent, name).err().map(Err),
        }
    }

    fn node_attr(&self, node: Node) -> Attr {
        let time = match node {
            Node::Top => Timestamp::default(),
            Node::Trash => self.core.trash.changed(),
            Node::Snapshots => self.core.snapshots.changed(),
        };
        Attr {
            ino: node.ino(),
            size: super::DIRECTORY_BYTES,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: Timestamp::default(),
            kind: FileKind::Directory,
            perm: node.perm(),
            nlink: 2,
            uid: self.core.config.root_uid,
            gid: self.core.config.root_gid,
            rdev: 0,
            fleeting: false,
        }
    }
}
