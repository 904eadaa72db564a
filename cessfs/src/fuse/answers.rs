//! How a result becomes a reply: now, or when the disk or the network has answered.

use super::convert::{self, file_attr};
use super::passthrough::ttl_of;
use super::patience::Wanted;
use super::privileges::Asker;
use super::waiting::{Reader, unless_killed};
use super::{Adapter, GENERATION, ttl};
use crate::limits::{FUSE_TTL, READAHEAD_WAIT_MAX};
use cessfs_vfs::{DirEntry, Later, Vfs, VfsError};
use fuser::{Errno, INodeNo, ReplyData, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyXattr};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

impl Adapter {
    /// A change of names or attributes is answered once it outlives this process: who is told that a name is gone may build on
    /// it, as SQLite does when it commits by removing a file.
    pub(super) fn kept<T>(&self, changed: Result<T, VfsError>) -> Result<T, VfsError> {
        let value = changed?;
        self.vfs.put_down()?;
        Ok(value)
    }

    /// Answers with an entry of directory `ino`, or fails.
    pub(super) fn entry(
        &self,
        op: &'static str,
        ino: INodeNo,
        result: Result<cessfs_vfs::Attr, VfsError>,
        reply: ReplyEntry,
    ) {
        match result {
            Ok(attr) => reply.entry(&ttl([ino.0]).min(ttl_of(&attr)), &file_attr(&attr), GENERATION),
            Err(e) => reply.error(self.faults.errno(op, ino.0, &e)),
        }
    }

    /// Answers with success, or fails.
    pub(super) fn empty(&self, op: &'static str, ino: INodeNo, result: Result<(), VfsError>, reply: ReplyEmpty) {
        match result {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(self.faults.errno(op, ino.0, &e)),
        }
    }

    /// Runs what waits for the local disk off the event loops.
    pub(super) fn blocking(
        &self,
        op: &'static str,
        ino: INodeNo,
        reply: ReplyEmpty,
        work: impl FnOnce(&Vfs) -> Result<(), VfsError> + Send + 'static,
    ) {
        let (vfs, faults) = (self.vfs.clone(), self.faults.clone());
        self.runtime.spawn_blocking(move || {
            faults.guard(op, || match work(&vfs) {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(faults.errno(op, ino.0, &e)),
            });
        });
    }

    /// Answers now, or when the network or the disk has, or when the process of that number is killed.
    pub(super) fn later<T: Send + 'static>(
        &self,
        op: &'static str,
        (ino, pid): (INodeNo, u32),
        result: Result<Later<T>, VfsError>,
        answer: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        match result {
            Ok(Later::Ready(value)) => answer(Ok(value)),
            Ok(Later::Wait(future)) => {
                let faults = self.faults.clone();
                self.runtime.spawn(async move {
                    let result = match unless_killed(pid, future).await {
                        Some(result) => result.map_err(|e| faults.errno(op, ino.0, &e)),
                        None => Err(Errno::EINTR),
                    };
                    answer(result);
                });
            }
            Ok(Later::Block(work)) => {
                let faults = self.faults.clone();
                self.runtime.spawn_blocking(move || {
                    faults.guard(op, || answer(work().map_err(|e| faults.errno(op, ino.0, &e))));
                });
            }
            Err(e) => answer(Err(self.faults.errno(op, ino.0, &e))),
        }
    }

    /// Answers a READ of content: now, or when the network has, or for the kernel to come again, or when the reader is killed.
    /// `keep`: what is done once it is answered.
    pub(super) fn content<T: Send + 'static>(
        &self,
        wanted: Wanted,
        reader: Reader,
        result: Result<Later<T>, VfsError>,
        reply: ReplyData,
        bytes: fn(&T) -> &[u8],
        keep: fn(T),
    ) {
        let whose = (INodeNo(wanted.ino), reader.pid);
        let mut future = match result {
            Ok(Later::Wait(future)) => future,
            soon => return self.later("read", whose, soon, move |read| deliver(read, reply, bytes, keep)),
        };
        let waiting = self.reads.begin(wanted);
        if !self.patience.may_refuse(&wanted, reader.flags) {
            return self.later("read", whose, Ok(Later::Wait(future)), move |read| {
                drop(waiting);
                deliver(read, reply, bytes, keep);
            });
        }
        let (patience, faults) = (self.patience.clone(), self.faults.clone());
        self.runtime.spawn(async move {
            let errno = |e| faults.errno("read", wanted.ino, &e);
            match tokio::time::timeout(READAHEAD_WAIT_MAX, &mut future).await {
                Ok(read) => deliver(read.map_err(errno), reply, bytes, keep),
                Err(_elapsed) => {
                    let goes_on = patience.refuse(wanted);
                    drop(waiting);
                    reply.error(Errno::EAGAIN);
                    if !goes_on {
                        return;
                    }
                    let read = future.await;
                    patience.ended(&wanted, read.is_ok());
                    if let Ok(content) = read {
                        keep(content);
                    }
                }
            }
        });
    }

    /// Answers with the value of an xattr, or fails; see [`Labels`](super::Labels).
    pub(super) fn attribute(
        &self,
        ino: INodeNo,
        name: &OsStr,
        value: Result<Vec<u8>, VfsError>,
        size: u32,
        reply: ReplyXattr,
    ) {
        match value {
            Err(VfsError::NoAttribute) if self.labels.are_pointless(name) => reply.error(Errno::EOPNOTSUPP),
            value => self.sized("getxattr", ino, value, size, reply),
        }
    }

    /// Answers with names of xattrs, those of `trusted` only to who may see them: the kernel leaves that to us.
    pub(super) fn names(
        &self,
        ino: INodeNo,
        names: Result<Vec<u8>, VfsError>,
        asker: Asker,
        size: u32,
        reply: ReplyXattr,
    ) {
        let names = names.map(|names| {
            let some = untrusted(&names);
            if some.len() == names.len() || asker.sees_trusted() {
                names
            } else {
                some
            }
        });
        self.sized("listxattr", ino, names, size, reply);
    }

    /// The two-step protocol of xattrs: a buffer of 0 asks for the size.
    pub(super) fn sized(
        &self,
        op: &'static str,
        ino: INodeNo,
        value: Result<Vec<u8>, VfsError>,
        size: u32,
        reply: ReplyXattr,
    ) {
        match value {
            Ok(value) if size == 0 => reply.size(value.len() as u32),
            Ok(value) if value.len() > size as usize => reply.error(self.faults.errno(op, ino.0, &VfsError::Range)),
            Ok(value) => reply.data(&value),
            Err(e) => reply.error(self.faults.errno(op, ino.0, &e)),
        }
    }
}

/// Names, each with a NUL behind it, without those of `trusted`.
fn untrusted(names: &[u8]) -> Vec<u8> {
    let names = names.split_inclusive(|byte| *byte == 0);
    names
        .filter(|name| !name.starts_with(b"trusted."))
        .flatten()
        .copied()
        .collect()
}

/// Adds an entry of directory `dir` with its attributes; true if there is no room for it. An entry without attributes (`.` and
/// `..`) has inode 0 for the kernel: it looks it up when it needs it.
pub(super) fn add_plus(reply: &mut ReplyDirectoryPlus, dir: INodeNo, entry: DirEntry<'_>) -> bool {
    let (ino, name) = (INodeNo(entry.ino), OsStr::from_bytes(entry.name));
    let ttl = ttl([dir.0, entry.ino]).min(entry.attr.as_ref().map_or(FUSE_TTL, ttl_of));
    let attr = entry.attr.map_or(convert::ABSENT, |attr| file_attr(&attr));
    reply.add(ino, entry.cookie, name, &ttl, &attr, GENERATION)
}

/// Answers a READ, and does with the content what is done once it is answered.
fn deliver<T>(read: Result<T, Errno>, reply: ReplyData, bytes: fn(&T) -> &[u8], keep: fn(T)) {
    match read {
        Ok(content) => {
            reply.data(bytes(&content));
            keep(content);
        }
        Err(errno) => reply.error(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::untrusted;

    #[test]
    fn names_of_trusted_are_left_out() {
        assert_eq!(untrusted(b"user.a\0trusted.b\0security.c\0"), b"user.a\0security.c\0");
        assert_eq!(untrusted(b"trusted.b\0"), b"");
        assert_eq!(untrusted(b"user.trusted.b\0"), b"user.trusted.b\0");
        assert_eq!(untrusted(b""), b"");
    }
}
