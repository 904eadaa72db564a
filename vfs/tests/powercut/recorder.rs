//! The recording disk: a small filesystem in memory, mounted, that writes down what is asked of it.
//!
//! The kernel hands on every write at once (there is no write-back cache on this mount), fsync, fdatasync and fsync of
//! directories, and nothing of `sync_file_range`, which is what makes it honest about sled. `syncfs` does not reach it
//! either: what only that made safe does not count here. Renames between directories are refused: no part of a volume's
//! state makes one.

use crate::disk::{Change, Content, Inode, Op, PAGE, ROOT};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const TTL: Duration = Duration::from_secs(3600);
const GENERATION: Generation = Generation(0);
const BLOCKS_FREE: u64 = 1 << 24;

struct Live {
    inode: Inode,
    modified: SystemTime,
}

#[derive(Default)]
struct State {
    inodes: HashMap<u64, Live>,
    last: u64,
    log: Vec<Op>,
}

impl State {
    fn make(&mut self, parent: u64, name: &OsStr, dir: bool, mode: u32) -> u64 {
        self.last += 1;
        let ino = self.last;
        let mode = (mode & 0o777) as u16;
        let inode = Inode {
            dir,
            aged: false,
            mode,
            content: Content::default(),
            names: BTreeMap::new(),
        };
        let modified = SystemTime::now();
        self.inodes.insert(ino, Live { inode, modified });
        self.log.push(Op::Make { ino, dir, mode });
        self.name(parent, vec![(name.as_bytes().to_vec(), Some(ino))]);
        ino
    }

    fn name(&mut self, dir: u64, changes: Vec<(Vec<u8>, Option<u64>)>) {
        let live = self
            .inodes
            .get_mut(&dir)
            .expect("the kernel names directories that are there");
        live.modified = SystemTime::now();
        for (name, ino) in &changes {
            match ino {
                Some(ino) => live.inode.names.insert(name.clone(), *ino),
                None => live.inode.names.remove(name),
            };
        }
        self.log.push(Op::Names { dir, changes });
    }

    fn change(&mut self, ino: u64, change: Change) {
        let live = self
            .inodes
            .get_mut(&ino)
            .expect("the kernel names files that are there");
        live.modified = SystemTime::now();
        change.apply(&mut live.inode.content);
        self.log.push(Op::Data { ino, change });
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Option<u64> {
        let parent = self.inodes.get(&parent.0)?;
        parent.inode.names.get(name.as_bytes()).copied()
    }

    fn attr(&self, ino: u64) -> Option<FileAttr> {
        let live = self.inodes.get(&ino)?;
        let time = live.modified;
        Some(FileAttr {
            ino: INodeNo(ino),
            size: live.inode.content.len,
            blocks: live.inode.content.blocks(),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: if live.inode.dir {
                FileType::Directory
            } else {
                FileType::RegularFile
            },
            perm: live.inode.mode,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: PAGE as u32,
            flags: 0,
        })
    }
}

struct Recording(Arc<Mutex<State>>);

impl Recording {
    fn entry(&self, ino: Option<u64>, reply: ReplyEntry) {
        match ino.and_then(|ino| self.0.lock().attr(ino)) {
            Some(attr) => reply.entry(&TTL, &attr, GENERATION),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.0.lock();
        let Some(ino) = state.find(parent, name) else {
            return reply.error(Errno::ENOENT);
        };
        if !state.inodes[&ino].inode.names.is_empty() {
            return reply.error(Errno::ENOTEMPTY);
        }
        state.name(parent.0, vec![(name.as_bytes().to_vec(), None)]);
        reply.ok();
    }

    fn sync(&self, ino: INodeNo, reply: ReplyEmpty) {
        self.0.lock().log.push(Op::Sync { ino: ino.0 });
        reply.ok();
    }
}

impl Filesystem for Recording {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for wanted in [InitFlags::FUSE_BIG_WRITES, InitFlags::FUSE_MAX_PAGES] {
            let _an_old_kernel_splits_more = config.add_capabilities(wanted);
        }
        let _or_what_it_takes = config.set_max_write(1 << 20);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.0.lock().find(parent, name);
        self.entry(found, reply);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.lock().attr(ino.0) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.0.lock();
        if let Some(len) = size {
            state.change(ino.0, Change::Len(len));
        }
        match state.attr(ino.0) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let made = self.0.lock().make(parent.0, name, true, mode);
        self.entry(Some(made), reply);
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut state = self.0.lock();
        let ino = state.make(parent.0, name, false, mode);
        let attr = state.attr(ino).expect("it was just made");
        reply.created(&TTL, &attr, GENERATION, FileHandle(0), FopenFlags::empty());
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut state = self.0.lock();
        if parent != newparent || !flags.is_empty() {
            return reply.error(Errno::EXDEV);
        }
        let Some(ino) = state.find(parent, name) else {
            return reply.error(Errno::ENOENT);
        };
        let changes = vec![
            (name.as_bytes().to_vec(), None),
            (newname.as_bytes().to_vec(), Some(ino)),
        ];
        state.name(parent.0, changes);
        reply.ok();
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.lock().inodes.get(&ino.0) {
            Some(live) => reply.data(&live.inode.content.read(offset, size as usize)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.0.lock().change(ino.0, Change::Write(offset, data.into()));
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync(ino, reply);
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync(ino, reply);
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE {
            return reply.error(Errno::EOPNOTSUPP);
        }
        self.0.lock().change(ino.0, Change::Punch(offset, length));
        reply.ok();
    }

    fn lseek(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let state = self.0.lock();
        let found = match (state.inodes.get(&ino.0), u64::try_from(offset)) {
            (Some(live), Ok(offset)) => live.inode.content.seek(offset, whence == libc::SEEK_DATA),
            _ => None,
        };
        match found.and_then(|found| i64::try_from(found).ok()) {
            Some(found) => reply.offset(found),
            None => reply.error(Errno::ENXIO),
        }
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = self.0.lock();
        let Some(live) = state.inodes.get(&ino.0) else {
            return reply.error(Errno::ENOENT);
        };
        for (number, (name, child)) in live.inode.names.iter().enumerate().skip(offset as usize) {
            let kind = if state.inodes[child].inode.dir {
                FileType::Directory
            } else {
                FileType::RegularFile
            };
            if reply.add(INodeNo(*child), number as u64 + 1, kind, OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let block = PAGE as u32;
        reply.statfs(
            BLOCKS_FREE,
            BLOCKS_FREE,
            BLOCKS_FREE,
            1 << 20,
            1 << 20,
            block,
            255,
            block,
        );
    }
}

/// A recording disk that is mounted.
pub struct Recorder {
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
    dir: PathBuf,
}

impl Recorder {
    /// Mounts an empty one on a directory. Needs root and `/dev/fuse`.
    pub fn mount(dir: &Path) -> std::io::Result<Recorder> {
        let root = Inode {
            dir: true,
            aged: false,
            mode: 0o700,
            content: Content::default(),
            names: BTreeMap::new(),
        };
        let modified = SystemTime::now();
        let state = Arc::new(Mutex::new(State {
            inodes: HashMap::from([(ROOT, Live { inode: root, modified })]),
            last: ROOT,
            log: Vec::new(),
        }));
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("recorder".into()),
            MountOption::Subtype("powercut".into()),
        ];
        let session = fuser::spawn_mount(Recording(state.clone()), dir, &config)?;
        Ok(Recorder {
            state,
            session: Some(session),
            dir: dir.to_path_buf(),
        })
    }

    /// How much was asked of it so far.
    pub fn position(&self) -> usize {
        self.state.lock().log.len()
    }

    /// Everything that was asked of it, oldest first.
    pub fn log(&self) -> Vec<Op> {
        self.state.lock().log.clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let session = self.session.take().expect("it is there until here");
        if let Err(e) = session.umount_and_join() {
            eprintln!("{} did not unmount: {e}", self.dir.display());
            let _gone_by_itself = nix::mount::umount2(&self.dir, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}
