//! What the kernel asks of snapshots. Their trees are put together when somebody first looks into them, which needs the network:
//! until a tree is there its requests wait off the event loops.

use super::convert::{self, file_attr, file_kind};
use super::patience::Wanted;
use super::privileges::Asker;
use super::seek::sought;
use super::waiting::Reader;
use super::{Adapter, GENERATION, ttl};
use cessfs_vfs::{Look, Tree, VfsError};
use fuser::{
    Errno, INodeNo, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyXattr,
};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

impl Adapter {
    /// Does `work` with the tree that `ino` belongs to: at once, or when the tree is there.
    fn with_tree(
        &self,
        op: &'static str,
        ino: INodeNo,
        work: impl FnOnce(&Adapter, Result<Arc<Tree>, VfsError>) + Send + 'static,
    ) {
        match self.vfs.look(ino.0) {
            Ok(Look::Tree(tree)) => self.guard(op, || work(self, Ok(tree))),
            Err(e) => self.guard(op, || work(self, Err(e))),
            Ok(Look::Wait(wait)) => {
                let (fs, runtime) = (self.clone(), self.runtime.clone());
                self.runtime.spawn(async move {
                    let tree = wait.await;
                    runtime.spawn_blocking(move || fs.guard(op, || work(&fs, tree)));
                });
            }
        }
    }

    pub(super) fn lookup_in_snapshot(&self, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name: OsString = name.to_owned();
        self.with_tree("lookup", parent, move |fs, tree| {
            match tree.and_then(|tree| tree.lookup(parent.0, name.as_bytes())) {
                Err(VfsError::NotFound) => reply.entry(&ttl([parent.0]), &convert::ABSENT, GENERATION),
                found => fs.entry("lookup", parent, found, reply),
            }
        });
    }

    pub(super) fn getattr_in_snapshot(&self, ino: INodeNo, reply: ReplyAttr) {
        // What `ls -l` on all snapshots asks for is known without their trees.
        if let Some((attr, _)) = self.vfs.snapshot_root(ino.0) {
            return reply.attr(&ttl([ino.0]), &file_attr(&attr));
        }
        self.with_tree("getattr", ino, move |fs, tree| {
            match tree.and_then(|tree| tree.getattr(ino.0)) {
                Ok(attr) => reply.attr(&ttl([ino.0]), &file_attr(&attr)),
                Err(e) => reply.error(fs.faults.errno("getattr", ino.0, &e)),
            }
        });
    }

    pub(super) fn readlink_in_snapshot(&self, ino: INodeNo, reply: ReplyData) {
        self.with_tree("readlink", ino, move |fs, tree| {
            match tree.and_then(|tree| tree.readlink(ino.0)) {
                Ok(target) => reply.data(&target),
                Err(e) => reply.error(fs.faults.errno("readlink", ino.0, &e)),
            }
        });
    }

    pub(super) fn open_in_snapshot(&self, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.0 & (libc::O_ACCMODE | libc::O_TRUNC) != libc::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        self.with_tree("open", ino, move |fs, tree| match tree {
            // Nothing has to be remembered of an open file that never changes.
            Ok(_) => reply.opened(fuser::FileHandle(0), fs.flags()),
            Err(e) => reply.error(fs.faults.errno("open", ino.0, &e)),
        });
    }

    pub(super) fn read_in_snapshot(&self, wanted: Wanted, reader: Reader, reply: ReplyData) {
        let ino = wanted.ino;
        self.with_tree("read", INodeNo(ino), move |fs, tree| {
            let vfs = fs.vfs.clone();
            let note = move |e: &VfsError| vfs.note_snapshot_error(ino, e);
            let result = tree
                .and_then(|tree| tree.read(ino, wanted.offset, wanted.bytes))
                .map(|read| read.note_failure(note));
            fs.content(wanted, reader, result, reply, Vec::as_slice, drop);
        });
    }

    pub(super) fn seek_in_snapshot(&self, ino: INodeNo, offset: i64, whence: i32, reply: ReplyLseek) {
        let (what, from) = match sought(offset, whence) {
            Ok(sought) => sought,
            Err(errno) => return reply.error(errno),
        };
        self.with_tree("lseek", ino, move |fs, tree| {
            match tree.and_then(|tree| tree.seek(ino.0, from, what)) {
                Ok(at) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
                Err(e) => reply.error(fs.faults.errno("lseek", ino.0, &e)),
            }
        });
    }

    pub(super) fn readdir_in_snapshot(&self, ino: INodeNo, offset: u64, mut reply: ReplyDirectory) {
        self.with_tree("readdir", ino, move |fs, tree| {
            let listed = tree.and_then(|tree| {
                tree.readdir(ino.0, offset, false, &mut |entry| {
                    let name = OsStr::from_bytes(entry.name);
                    reply.add(INodeNo(entry.ino), entry.cookie, file_kind(entry.kind), name)
                })
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(fs.faults.errno("readdir", ino.0, &e)),
            }
        });
    }

    pub(super) fn readdirplus_in_snapshot(&self, ino: INodeNo, offset: u64, mut reply: ReplyDirectoryPlus) {
        self.with_tree("readdirplus", ino, move |fs, tree| {
            let listed = tree.and_then(|tree| {
                tree.readdir(ino.0, offset, true, &mut |entry| {
                    // As in every listing, the kernel looks `.` and `..` up when it needs them.
                    let is_dot = matches!(entry.name, b"." | b"..");
                    let attr = entry.attr.filter(|_| !is_dot);
                    let attr = attr.map_or(convert::ABSENT, |attr| file_attr(&attr));
                    let (ttl, name) = (ttl([ino.0, entry.ino]), OsStr::from_bytes(entry.name));
                    reply.add(INodeNo(entry.ino), entry.cookie, name, &ttl, &attr, GENERATION)
                })
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(fs.faults.errno("readdirplus", ino.0, &e)),
            }
        });
    }

    pub(super) fn getxattr_in_snapshot(&self, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if let Some((_, false)) = self.vfs.snapshot_root(ino.0) {
            return self.attribute(ino, name, Err(VfsError::NoAttribute), size, reply);
        }
        let name: OsString = name.to_owned();
        self.with_tree("getxattr", ino, move |fs, tree| {
            let value = tree.and_then(|tree| tree.getxattr(ino.0, name.as_bytes()));
            fs.attribute(ino, &name, value, size, reply);
        });
    }

    pub(super) fn listxattr_in_snapshot(&self, ino: INodeNo, asker: Asker, size: u32, reply: ReplyXattr) {
        if let Some((_, false)) = self.vfs.snapshot_root(ino.0) {
            return self.sized("listxattr", ino, Ok(Vec::new()), size, reply);
        }
        self.with_tree("listxattr", ino, move |fs, tree| {
            let names = tree.and_then(|tree| tree.listxattr(ino.0));
            fs.names(ino, names, asker, size, reply);
        });
    }

    /// Files of snapshots are closed, flushed and synced with nothing to do.
    pub(super) fn nothing_to_do(&self, reply: ReplyEmpty) {
        reply.ok();
    }
}
