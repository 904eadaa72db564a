//! The kernel's side of a mount: every FUSE request becomes one call to [`Vfs`] and one reply.
//!
//! This room is the only one that knows fuser. It holds no state of the filesystem: what a request means is decided in
//! vfs. What must wait (for the network, or for the disk in `fsync`) moves to the runtime together with its reply, so that
//! the few event loops never wait. Permission checks are the kernel's (`default_permissions`). A panic in a request is
//! logged and answered with EIO; the mount goes on.

mod answers;
mod attributes;
mod convert;
mod fault;
mod labels;
mod pages;
mod passthrough;
mod patience;
mod privileges;
mod seek;
mod session;
mod snapshots;
mod space;
mod stages;
mod waiting;

pub use fault::Faults;
pub use session::{Mounted, Settings, mount};
pub use stages::ALL as STAGES;

use crate::config::KernelCache;
use crate::limits::FUSE_TTL;
use attributes::Sent;
use cessfs_sync::Foreground;
use cessfs_sync::limits::FOREGROUND_SMALL_BYTES;
use cessfs_vfs::{AclKind, Content, Vfs, VfsError, is_snapshot};
use convert::{caller, creator, file_attr, file_kind, rename_flags, xattr_mode};
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};
use labels::Labels;
use passthrough::{Asked, Passthrough, ttl_of};
use patience::{Patience, Wanted};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;
use waiting::{Reader, Reads};

/// Inode numbers are never reused, so all are of one generation.
const GENERATION: Generation = Generation(0);

/// How long the kernel may keep what it was told about these inodes.
fn ttl<const N: usize>(inos: [u64; N]) -> Duration {
    // `.cessfs` and what is under it are made up as they are asked for, and change without a request that the kernel would see.
    if inos.into_iter().any(cessfs_vfs::is_virtual) {
        Duration::ZERO
    } else {
        FUSE_TTL
    }
}

/// Translates between fuser and [`Vfs`].
#[derive(Clone)]
pub struct Adapter {
    vfs: Arc<Vfs>,
    runtime: Handle,
    faults: Arc<Faults>,
    kernel_cache: KernelCache,
    /// The way to tell the kernel things unasked; there once the session is.
    kernel: Arc<OnceLock<Notifier>>,
    blocks: Arc<space::StaleBlocks>,
    passthrough: Arc<Passthrough>,
    labels: Labels,
    foreground: Arc<Foreground>,
    patience: Arc<Patience>,
    reads: Reads,
    behind: seek::Behind,
    /// What the kernel sends for itself, as root, is not refused.
    hears_root: bool,
}

impl Adapter {
    /// An adapter over a volume; waiting work goes to `runtime`, and `foreground` hears of requests.
    pub fn new(
        vfs: Arc<Vfs>,
        runtime: Handle,
        faults: Arc<Faults>,
        kernel_cache: KernelCache,
        foreground: Arc<Foreground>,
    ) -> Adapter {
        let passthrough = Arc::new(Passthrough::new(vfs.has_passthrough()));
        Adapter {
            vfs,
            runtime,
            faults,
            kernel_cache,
            kernel: Arc::default(),
            blocks: Arc::default(),
            passthrough,
            labels: Labels::here(),
            foreground,
            patience: Arc::default(),
            reads: Reads::default(),
            behind: seek::Behind::default(),
            hears_root: false,
        }
    }

    fn flags(&self) -> FopenFlags {
        // Nothing changes a file behind the kernel's back, so its pages stay good from one open to the next.
        FopenFlags::FOPEN_KEEP_CACHE
    }

    /// Runs a request that somebody waits for.
    fn guard(&self, op: &'static str, work: impl FnOnce()) {
        self.foreground.note();
        self.faults.guard(op, work);
    }

    /// Runs a request that moves so many bytes of content.
    fn guard_content(&self, op: &'static str, bytes: usize, work: impl FnOnce()) {
        if bytes < FOREGROUND_SMALL_BYTES {
            self.foreground.note();
        }
        self.faults.guard(op, work);
    }
}

// Not implemented here, so that fuser answers ENOSYS and the kernel helps itself: `access` (it checks permissions), `getlk`
// and `setlk` (locks are local to this machine).
impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        if self.passthrough.negotiate(config) {
            self.kernel_cache = KernelCache::None;
        }
        session::negotiate(config, self.kernel_cache);
        if self.kernel_cache == KernelCache::Writeback && self.hears_root {
            self.vfs.times_are_told();
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if is_snapshot(parent.0) {
            return self.lookup_in_snapshot(parent, name, reply);
        }
        self.guard("lookup", || match self.vfs.lookup(parent.0, name.as_bytes()) {
            // Inode 0 lets the kernel remember that the name does not exist.
            Err(VfsError::NotFound) => reply.entry(&ttl([parent.0]), &convert::ABSENT, GENERATION),
            result => self.entry("lookup", parent, result, reply),
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.faults.guard("forget", || self.vfs.forget(ino.0, nlookup));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        if is_snapshot(ino.0) {
            return self.getattr_in_snapshot(ino, reply);
        }
        self.guard("getattr", || match self.vfs.getattr(ino.0) {
            Ok(attr) => reply.attr(&ttl_of(&attr), &file_attr(&attr)),
            Err(e) => reply.error(self.faults.errno("getattr", ino.0, &e)),
        });
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let sent = Sent {
            mode,
            uid,
            gid,
            size,
            atime,
            mtime,
            ctime,
            fh,
        };
        self.guard("setattr", || self.set_attributes(req, ino, sent, reply));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        if is_snapshot(ino.0) {
            return self.readlink_in_snapshot(ino, reply);
        }
        self.guard("readlink", || match self.vfs.readlink(ino.0) {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(self.faults.errno("readlink", ino.0, &e)),
        });
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        self.guard("mknod", || {
            let made = convert::kind_of_mode(mode)
                .ok_or(VfsError::Invalid("unknown file type"))
                .and_then(|kind| {
                    self.vfs.mknod(
                        parent.0,
                        name.as_bytes(),
                        kind,
                        convert::perm(mode),
                        rdev,
                        creator(req, umask),
                    )
                });
            self.entry("mknod", parent, self.kept(made), reply);
        });
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.guard("mkdir", || {
            let made = self
                .vfs
                .mkdir(parent.0, name.as_bytes(), convert::perm(mode), creator(req, umask));
            self.entry("mkdir", parent, self.kept(made), reply);
        });
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guard("unlink", || {
            let removed = self.vfs.unlink(parent.0, name.as_bytes());
            self.empty("unlink", parent, self.kept(removed), reply)
        });
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guard("rmdir", || {
            let removed = self.vfs.rmdir(parent.0, name.as_bytes());
            self.empty("rmdir", parent, self.kept(removed), reply)
        });
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.guard("symlink", || {
            let target = target.as_os_str().as_bytes();
            let made = self.vfs.symlink(parent.0, name.as_bytes(), target, caller(req));
            self.entry("symlink", parent, self.kept(made), reply);
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.guard("rename", || {
            let (old, new) = (name.as_bytes(), newname.as_bytes());
            let flags = rename_flags(flags, caller(req));
            let renamed = self.vfs.rename(parent.0, old, newparent.0, new, flags);
            self.empty("rename", parent, self.kept(renamed), reply);
        });
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        self.guard("link", || {
            let made = self.vfs.link(ino.0, newparent.0, newname.as_bytes());
            self.entry("link", ino, self.kept(made), reply);
        });
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if is_snapshot(ino.0) {
            return self.open_in_snapshot(ino, flags, reply);
        }
        self.guard("open", || self.open_file(ino, flags.0, reply));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let asked = Asked { mode, umask, flags };
        self.guard("create", || self.create_file(req, parent, name, asked, reply));
    }

    /// When the kernel asks, every page is with us, and nothing of `close` waits: it need not ask again.
    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let wanted = Wanted {
            ino: ino.0,
            offset,
            bytes: size,
        };
        let reader = Reader::of(req, flags);
        if is_snapshot(ino.0) {
            return self.read_in_snapshot(wanted, reader, reply);
        }
        self.guard_content("read", size as usize, || {
            let result = self.vfs.read(ino.0, fh.0, offset, size);
            self.content(wanted, reader, result, reply, Content::bytes, |content| {
                drop(content.keep())
            });
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.guard_content("write", data.len(), || {
            let kill_priv = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
            if kill_priv && let Some(perm) = self.loses_set_id(req, ino) {
                let set = cessfs_vfs::SetAttr {
                    perm: Some(perm),
                    ..cessfs_vfs::SetAttr::default()
                };
                if let Err(e) = self.vfs.setattr(ino.0, set, caller(req)) {
                    return reply.error(self.faults.errno("write", ino.0, &e));
                }
                self.attributes_changed(ino);
            }
            // By what the descriptor says now, not when it was opened. A page of a mapping knows its place; the kernel may send
            // it by the handle of somebody who appends.
            let result = if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
                self.vfs.write_pages(ino.0, fh.0, offset, data, kill_priv)
            } else if flags.0 & libc::O_APPEND != 0 {
                self.vfs.write(ino.0, fh.0, offset, data, kill_priv)
            } else {
                self.vfs.write_at(ino.0, fh.0, offset, data, kill_priv)
            };
            self.blocks_changed(ino);
            self.later("write", (ino, req.pid()), result, move |answer| match answer {
                Ok(written) => reply.written(written),
                Err(errno) => reply.error(errno),
            });
        });
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if is_snapshot(ino.0) {
            return self.nothing_to_do(reply);
        }
        self.guard("release", || {
            self.passthrough.take_back(fh.0);
            self.empty("release", ino, self.vfs.release(ino.0, fh.0), reply)
        });
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        if is_snapshot(ino.0) {
            return self.nothing_to_do(reply);
        }
        self.guard("fsync", || match self.vfs.fsync_soon(ino.0, fh.0, datasync) {
            Ok(true) => reply.ok(),
            Ok(false) => self.blocking("fsync", ino, reply, move |vfs| vfs.fsync(ino.0, fh.0, datasync)),
            Err(e) => reply.error(self.faults.errno("fsync", ino.0, &e)),
        });
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.guard("fallocate", || {
            self.change_space(req, ino, fh, offset..offset.saturating_add(length), mode, reply)
        });
    }

    fn lseek(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        if is_snapshot(ino.0) {
            return self.seek_in_snapshot(ino, offset, whence, reply);
        }
        self.guard("lseek", || self.seek(ino, fh, offset, whence, reply));
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        if is_snapshot(ino_in.0) {
            // The kernel copies itself then, by reading and writing.
            return reply.error(Errno::EXDEV);
        }
        let from = space::Place {
            ino: ino_in,
            fh: fh_in,
            offset: offset_in,
        };
        let to = space::Place {
            ino: ino_out,
            fh: fh_out,
            offset: offset_out,
        };
        self.guard("copy_file_range", || self.copy(req, from, to, len, reply));
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        if is_snapshot(ino.0) {
            return self.nothing_to_do(reply);
        }
        self.blocking("fsyncdir", ino, reply, move |vfs| vfs.fsyncdir(ino.0));
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // With NO_OPENDIR_SUPPORT this tells the kernel to stop asking, and to cache directories.
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if is_snapshot(ino.0) {
            return self.readdir_in_snapshot(ino, offset, reply);
        }
        self.guard("readdir", || {
            let listed = self.vfs.readdir(ino.0, offset, false, &mut |entry| {
                reply.add(
                    INodeNo(entry.ino),
                    entry.cookie,
                    file_kind(entry.kind),
                    OsStr::from_bytes(entry.name),
                )
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(self.faults.errno("readdir", ino.0, &e)),
            }
        });
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        if is_snapshot(ino.0) {
            return self.readdirplus_in_snapshot(ino, offset, reply);
        }
        self.guard("readdirplus", || {
            let listed = self.vfs.readdir(ino.0, offset, true, &mut |entry| {
                answers::add_plus(&mut reply, ino, entry)
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(self.faults.errno("readdirplus", ino.0, &e)),
            }
        });
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u32 = 4096;
        const NAME: u32 = cessfs_vfs::limits::NAME_BYTES_MAX as u32;
        self.guard("statfs", || {
            let s = self.vfs.statfs_at(ino.0);
            reply.statfs(
                s.blocks,
                s.free,
                s.available,
                s.files + s.files_free,
                s.files_free,
                BLOCK,
                NAME,
                BLOCK,
            );
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.guard("setxattr", || {
            let name = name.as_bytes();
            let set = match AclKind::of(name) {
                Some(kind) => {
                    let keeps_set_gid = |gid| privileges::keeps_set_gid(req, gid);
                    self.vfs.set_acl(ino.0, kind, value, &keeps_set_gid)
                }
                None => self.vfs.setxattr(ino.0, name, value, xattr_mode(flags)),
            };
            self.empty("setxattr", ino, self.kept(set), reply);
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if is_snapshot(ino.0) {
            return self.getxattr_in_snapshot(ino, name, size, reply);
        }
        self.guard("getxattr", || {
            let value = self.vfs.getxattr(ino.0, name.as_bytes());
            self.attribute(ino, name, value, size, reply);
        });
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let asker = privileges::Asker::of(req);
        if is_snapshot(ino.0) {
            return self.listxattr_in_snapshot(ino, asker, size, reply);
        }
        self.guard("listxattr", || {
            self.names(ino, self.vfs.listxattr(ino.0), asker, size, reply)
        });
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        // Programs ask every file whether it is a terminal: not worth fuser's line in the log each time.
        reply.error(Errno::ENOTTY);
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guard("removexattr", || {
            let removed = self.vfs.removexattr(ino.0, name.as_bytes());
            self.empty("removexattr", ino, self.kept(removed), reply);
        });
    }
}
