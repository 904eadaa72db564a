//! Files that the kernel reads and writes itself (`FUSE_PASSTHROUGH`): which of vfs's files it was given, under which number.
//!
//! All opens of an inode must name one backing id, or the kernel refuses them (EIO). So ids are counted by open files: the
//! first open registers the file with the kernel, the last release takes it back. A release comes after the kernel has let
//! go itself, so what is decided here never contradicts what the kernel believes.

use super::convert::{creator, file_attr, open_flags};
use super::{Adapter, GENERATION};
use cessfs_vfs::{Attr, Opened};
use fuser::{BackingId, FileHandle, FopenFlags, INodeNo, InitFlags, KernelConfig, ReplyCreate, ReplyOpen, Request};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Filesystems that the backing files may be stacked on above a disk: none, so that this mount may be stacked on itself.
const STACK_DEPTH: u32 = 1;

/// How a new file is asked for.
pub(super) struct Asked {
    pub(super) mode: u32,
    pub(super) umask: u32,
    pub(super) flags: i32,
}

/// The files that the kernel was given.
pub(super) struct Passthrough {
    on: AtomicBool,
    given: Mutex<Given>,
}

/// Bounded by what the kernel lets processes open.
#[derive(Default)]
struct Given {
    /// By open file.
    handles: HashMap<u64, (u64, Arc<BackingId>)>,
    /// By inode.
    inodes: HashMap<u64, Weak<BackingId>>,
}

impl Passthrough {
    /// None yet; `wanted`: the volume has files that can be given.
    pub(super) fn new(wanted: bool) -> Passthrough {
        Passthrough {
            on: AtomicBool::new(wanted),
            given: Mutex::default(),
        }
    }

    fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Asks the kernel; true if files are going to be given to it. That excludes its writeback cache.
    pub(super) fn negotiate(&self, config: &mut KernelConfig) -> bool {
        if !self.is_on() {
            return false;
        }
        let agreed = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(STACK_DEPTH).is_ok();
        if agreed {
            tracing::info!("passthrough: the kernel reads and writes resident files itself");
        } else {
            tracing::info!("no passthrough: this kernel does without (Linux 6.9 has it)");
        }
        self.on.store(agreed, Ordering::Relaxed);
        agreed
    }

    /// The id under which the kernel knows the inode's file; `register` tells it.
    fn give(
        &self,
        ino: u64,
        fh: u64,
        file: &File,
        register: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> io::Result<Arc<BackingId>> {
        let mut given = self.given.lock();
        let known = given.inodes.get(&ino).and_then(Weak::upgrade);
        let id = match known {
            Some(id) => id,
            None => Arc::new(register(file)?),
        };
        given.inodes.insert(ino, Arc::downgrade(&id));
        given.handles.insert(fh, (ino, id.clone()));
        Ok(id)
    }

    /// The open file is no more.
    pub(super) fn take_back(&self, fh: u64) {
        let mut given = self.given.lock();
        let Some((ino, id)) = given.handles.remove(&fh) else {
            return;
        };
        if Arc::strong_count(&id) == 1 {
            given.inodes.remove(&ino);
        }
        drop(given);
    }

    /// The kernel does not take a file: from now on it gets none.
    fn give_up(&self, error: &io::Error) {
        if self.on.swap(false, Ordering::Relaxed) {
            tracing::warn!("no passthrough any more: the kernel does not take a file: {error}");
        }
    }
}

impl Adapter {
    pub(super) fn open_file(&self, ino: INodeNo, flags: i32, reply: ReplyOpen) {
        let flags = open_flags(flags, self.kernel_cache);
        let opened = match self.passthrough.is_on() {
            true => self.vfs.open_through(ino.0, flags),
            false => self.vfs.open_file(ino.0, flags).map(past_nobody),
        };
        let Opened { fh, through, waits } = match opened {
            Ok(opened) => opened,
            Err(e) => return reply.error(self.faults.errno("open", ino.0, &e)),
        };
        let Some(file) = through else {
            return reply.opened(FileHandle(fh), self.flags());
        };
        let id = match self.passthrough.give(ino.0, fh, &file, |file| reply.open_backing(file)) {
            Ok(id) => id,
            Err(e) => {
                self.passthrough.give_up(&e);
                return reply.opened(FileHandle(fh), FopenFlags::empty());
            }
        };
        if flags.write {
            // Stores through a mapping move times that the kernel may believe it knows.
            self.attributes_changed(ino);
        }
        if !waits {
            return reply.opened_passthrough(FileHandle(fh), FopenFlags::empty(), &id);
        }
        let (vfs, faults) = (self.vfs.clone(), self.faults.clone());
        let passthrough = self.passthrough.clone();
        self.runtime.spawn_blocking(move || {
            faults.guard("open", || match vfs.await_opened(ino.0, fh) {
                Ok(()) => reply.opened_passthrough(FileHandle(fh), FopenFlags::empty(), &id),
                Err(e) => {
                    reply.error(faults.errno("open", ino.0, &e));
                    passthrough.take_back(fh);
                    // What could not be opened will not be released by the kernel.
                    let _already_told = vfs.release(ino.0, fh);
                }
            });
        });
    }

    pub(super) fn create_file(&self, req: &Request, parent: INodeNo, name: &OsStr, asked: Asked, reply: ReplyCreate) {
        let flags = open_flags(asked.flags, self.kernel_cache);
        let (name, perm) = (name.as_bytes(), super::convert::perm(asked.mode));
        let caller = creator(req, asked.umask);
        let created = match self.passthrough.is_on() {
            true => self.vfs.create_through(parent.0, name, perm, flags, caller),
            false => {
                let made = self.vfs.create(parent.0, name, perm, flags, caller);
                made.map(|(attr, fh)| (attr, past_nobody(fh)))
            }
        };
        let (attr, Opened { fh, through, waits }) = match self.kept(created) {
            Ok(created) => created,
            Err(e) => return reply.error(self.faults.errno("create", parent.0, &e)),
        };
        let (ttl, file_attr) = (ttl_of(&attr), file_attr(&attr));
        let Some(file) = through else {
            return reply.created(&ttl, &file_attr, GENERATION, FileHandle(fh), self.flags());
        };
        let none = FopenFlags::empty();
        let id = match self
            .passthrough
            .give(attr.ino, fh, &file, |file| reply.open_backing(file))
        {
            Ok(id) => id,
            Err(e) => {
                self.passthrough.give_up(&e);
                return reply.created(&ttl, &file_attr, GENERATION, FileHandle(fh), none);
            }
        };
        if !waits {
            return reply.created_passthrough(&ttl, &file_attr, GENERATION, FileHandle(fh), none, &id);
        }
        let (vfs, faults) = (self.vfs.clone(), self.faults.clone());
        self.runtime.spawn_blocking(move || {
            faults.guard("create", || {
                // The file is there, so the program gets it; that the disk failed it hears from its next fsync.
                if let Err(e) = vfs.await_opened(attr.ino, fh) {
                    faults.errno("create", attr.ino, &e);
                }
                reply.created_passthrough(&ttl, &file_attr, GENERATION, FileHandle(fh), none, &id);
            });
        });
    }
}

/// A file that goes through this program.
fn past_nobody(fh: u64) -> Opened {
    Opened {
        fh,
        through: None,
        waits: false,
    }
}

/// How long the kernel may keep these attributes.
pub(super) fn ttl_of(attr: &Attr) -> Duration {
    if attr.fleeting {
        Duration::ZERO
    } else {
        super::ttl([attr.ino])
    }
}
