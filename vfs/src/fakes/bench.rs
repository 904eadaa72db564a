//! A volume's content room over a store in memory and a real cache directory, without names and without threads.

use super::{FakeChunks, FakeClock, FakeEntropy, volume_keys};
use crate::Later;
use crate::attr::FileKind;
use crate::core::{AtRest, Core, VfsConfig, VfsParts};
use crate::data::{Content, Data};
use crate::delta::frame::apply_delta;
use crate::error::VfsError;
use crate::inode::Inode;
use crate::records::{self, InodeRecord};
use crate::request::{Seek, SpaceChange};
use cessfs_sync::store::MemStore;
use cessfs_sync::{Batch, CutCause, MetaStore};
use parking_lot::Mutex;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

/// Both ways the cache rests on the disk.
pub const BOTH: [AtRest; 2] = [AtRest::Plain, AtRest::Sealed];

/// A directory to throw away, in memory where there is such a place: these tests sync all the time.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// Runs what had to wait.
pub fn wait<T: Send + 'static>(later: Later<T>) -> Result<T, VfsError> {
    match later {
        Later::Ready(value) => Ok(value),
        later => tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(later.settled()),
    }
}

/// The content room of one volume.
pub struct Bench {
    pub store: Arc<MemStore>,
    pub clock: Arc<FakeClock>,
    pub chunks: FakeChunks,
    pub dir: Arc<tempfile::TempDir>,
    pub core: Arc<Core>,
    pub data: Data,
    setup: Setup,
    mounts: u64,
}

/// What stays the same from mount to mount.
#[derive(Clone, Copy)]
struct Setup {
    at_rest: AtRest,
    cache_bytes_max: u64,
    passthrough: bool,
    read_only: bool,
    boot: [u8; 16],
}

impl Bench {
    /// An empty volume with plenty of room.
    pub fn new(at_rest: AtRest) -> Bench {
        Bench::with_room(at_rest, u64::MAX / 4)
    }

    /// An empty volume whose files may be handed out.
    pub fn passing() -> Bench {
        Bench::set_up(Setup {
            at_rest: AtRest::Plain,
            cache_bytes_max: u64::MAX / 4,
            passthrough: true,
            read_only: false,
            boot: [0; 16],
        })
    }

    /// An empty volume on a machine that tells which start it is.
    pub fn in_boot(at_rest: AtRest, boot: [u8; 16]) -> Bench {
        Bench::set_up(Setup {
            at_rest,
            cache_bytes_max: u64::MAX / 4,
            passthrough: false,
            read_only: false,
            boot,
        })
    }

    /// The next mount is in another start of the machine.
    pub fn reboot(&mut self, boot: [u8; 16]) {
        self.setup.boot = boot;
    }

    /// An empty volume whose cache has this bound.
    pub fn with_room(at_rest: AtRest, cache_bytes_max: u64) -> Bench {
        Bench::set_up(Setup {
            at_rest,
            cache_bytes_max,
            passthrough: false,
            read_only: false,
            boot: [0; 16],
        })
    }

    fn set_up(setup: Setup) -> Bench {
        let dir = Arc::new(scratch());
        let clock = Arc::new(FakeClock::new());
        Bench::mount(Arc::new(MemStore::new()), clock, FakeChunks::new(), dir, setup, 1)
    }

    fn mount(
        store: Arc<MemStore>,
        clock: Arc<FakeClock>,
        chunks: FakeChunks,
        dir: Arc<tempfile::TempDir>,
        setup: Setup,
        mounts: u64,
    ) -> Bench {
        let mut config = VfsConfig::new(dir.path().to_owned());
        config.at_rest = setup.at_rest;
        config.cache_bytes_max = setup.cache_bytes_max;
        config.passthrough = setup.passthrough;
        config.read_only = setup.read_only;
        config.boot = setup.boot;
        let core = Arc::new(Core::new(VfsParts {
            store: store.clone(),
            clock: clock.clone(),
            chunks: Arc::new(chunks.clone()),
            keys: volume_keys(),
            config,
            entropy: Arc::new(Mutex::new(FakeEntropy::new(mounts))),
            trees: Arc::new(crate::fakes::FakeTrees::default()),
        }));
        let data = Data::open(core.clone()).unwrap();
        Bench {
            store,
            clock,
            chunks,
            dir,
            core,
            data,
            setup,
            mounts,
        }
    }

    fn again(&self, store: Arc<MemStore>, dir: Arc<tempfile::TempDir>) -> Bench {
        let (clock, chunks) = (self.clock.clone(), self.chunks.clone());
        Bench::mount(store, clock, chunks, dir, self.setup, self.mounts + 1)
    }

    /// Closes and opens again.
    pub fn reopen(self) -> Bench {
        self.data.stop().unwrap();
        let after = self.again(self.store.clone(), self.dir.clone());
        after.resume();
        after
    }

    /// The daemon is killed; the store keeps its first `batches` batches, the cache directory what was written.
    pub fn crash_at(self, batches: usize) -> Bench {
        self.chunks.crash();
        let after = self.again(Arc::new(self.store.crashed_at(batches)), self.dir.clone());
        after.data.recover().unwrap();
        after.resume();
        after
    }

    /// The power goes; the store keeps its first `batches` batches, the cache directory becomes what `image` holds.
    pub fn power_cut(self, batches: usize, image: &Path) -> Bench {
        self.chunks.crash();
        let dir = Arc::new(scratch());
        copy_dir(image, dir.path());
        let after = self.again(Arc::new(self.store.crashed_at(batches)), dir);
        after.data.recover().unwrap();
        after.resume();
        after
    }

    /// What a crash would leave at this moment, beside it: the first `batches` batches, and this copy of the cache directory.
    pub fn crashed_copy(&self, batches: usize, dir: tempfile::TempDir) -> Bench {
        let after = self.again(Arc::new(self.store.crashed_at(batches)), Arc::new(dir));
        after.data.recover().unwrap();
        after.resume();
        after
    }

    /// The same, mounted for reading only.
    pub fn read_only_copy(&self, batches: usize, dir: tempfile::TempDir) -> Bench {
        let (clock, chunks) = (self.clock.clone(), self.chunks.clone());
        let store = Arc::new(self.store.crashed_at(batches));
        let setup = Setup {
            read_only: true,
            ..self.setup
        };
        let after = Bench::mount(store, clock, chunks, Arc::new(dir), setup, self.mounts + 1);
        let (batches, _) = after.store.progress();
        after.data.recover_content().unwrap();
        after.data.resume_passes().unwrap();
        assert_eq!(after.store.progress().0, batches, "a volume that must not change");
        after
    }

    fn resume(&self) {
        self.data.resume_passes().unwrap();
        self.data.shared().look_at_all().unwrap();
    }

    /// The volume on another machine: only what the packs carried.
    pub fn restore(&self) -> Bench {
        let store = Arc::new(MemStore::new());
        for pack in self.chunks.packs() {
            apply_delta(&pack.delta, &*store).unwrap();
        }
        self.again(store, Arc::new(scratch()))
    }

    /// Makes an empty file.
    pub fn create(&self, ino: u64) -> Arc<Inode> {
        let record = InodeRecord::new(FileKind::Regular, 0o644, 0, 0, self.core.now());
        let inode = Arc::new(Inode::new(ino, record.clone()));
        let _guard = self.core.marks.enter();
        let mut batch = Batch::new();
        self.core.put_inode(&mut batch, ino, &record);
        self.core.inodes.insert(inode.clone());
        self.core.store.commit(batch).unwrap();
        inode
    }

    /// The file, if it is there.
    pub fn find(&self, ino: u64) -> Option<Arc<Inode>> {
        match self.core.inodes.get(&self.core, ino) {
            Ok(inode) => Some(inode),
            Err(VfsError::Stale) => None,
            Err(e) => panic!("inode {ino}: {e}"),
        }
    }

    /// The file.
    #[track_caller]
    pub fn file(&self, ino: u64) -> Arc<Inode> {
        self.find(ino).expect("the file is there")
    }

    /// Writes, waiting if need be.
    pub fn try_write(&self, ino: u64, offset: u64, bytes: &[u8]) -> Result<u32, VfsError> {
        wait(self.data.write(&self.file(ino), offset, bytes)?)
    }

    /// Writes all of it.
    #[track_caller]
    pub fn write(&self, ino: u64, offset: u64, bytes: &[u8]) {
        assert_eq!(self.try_write(ino, offset, bytes).unwrap() as usize, bytes.len());
    }

    /// What was written is on the network, and nowhere else.
    #[track_caller]
    pub fn make_absent(&self) {
        self.settle();
        self.keep_house();
        self.data.evict_all().unwrap();
    }

    /// Reads, waiting if need be.
    pub fn try_read(&self, ino: u64, offset: u64, len: u32) -> Result<Vec<u8>, VfsError> {
        wait(self.data.read(&self.file(ino), offset, len)?).map(Content::keep)
    }

    /// The whole file.
    #[track_caller]
    pub fn content(&self, ino: u64) -> Vec<u8> {
        let size = self.file(ino).state.read().record.size;
        self.try_read(ino, 0, u32::try_from(size).unwrap()).unwrap()
    }

    /// Truncates or extends, as `setattr` does.
    pub fn set_size(&self, ino: u64, size: u64) {
        let inode = self.file(ino);
        let _guard = self.core.marks.enter();
        let mut state = inode.state.write();
        let mut batch = Batch::new();
        self.data.set_size(&inode, &mut state, size, &mut batch).unwrap();
        self.data.put_inode(ino, &state, &state.record, &mut batch).unwrap();
        self.core.store.commit(batch).unwrap();
    }

    /// Reserves, zeroes or punches out, waiting if need be.
    pub fn change_space(&self, ino: u64, what: SpaceChange, range: Range<u64>, grows: bool) -> Result<(), VfsError> {
        wait(self.data.change_space(&self.file(ino), what, range, grows, u64::MAX)?)
    }

    /// Copies all of it, however often that has to be asked for.
    #[track_caller]
    pub fn copy(&self, from: (u64, u64), to: (u64, u64), len: u64) {
        let mut done = 0;
        while done < len {
            let (source, target) = (self.file(from.0), self.file(to.0));
            let copy = self.data.copy(&source, from.1 + done, &target, to.1 + done, len - done);
            done += wait(copy.unwrap()).unwrap();
        }
    }

    /// Where the file has data: ranges of bytes, as `lseek` tells them.
    pub fn data_ranges(&self, ino: u64) -> Vec<Range<u64>> {
        let inode = self.file(ino);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut at = 0;
        loop {
            match self.data.seek(&inode, at, Seek::Data) {
                Ok(start) => {
                    at = self.data.seek(&inode, start, Seek::Hole).unwrap();
                    assert!(at > start, "data of no bytes at {start}");
                    ranges.push(start..at);
                }
                Err(VfsError::NoOffset) => return ranges,
                Err(e) => panic!("seek from {at} in inode {ino}: {e}"),
            }
        }
    }

    /// Deletes the file, as the last `unlink` does.
    pub fn delete(&self, ino: u64) {
        let inode = self.file(ino);
        let _guard = self.core.marks.enter();
        let mut state = inode.state.write();
        let mut batch = Batch::new();
        self.data.discard(&inode, &mut state, &mut batch).unwrap();
        self.core.delete_inode(&mut batch, ino);
        self.core.store.commit(batch).unwrap();
        state.gone = true;
        self.core.inodes.drop_gone(ino);
    }

    /// Opens a file as the kernel does that is given it: a descriptor of its own, if it is handed out.
    pub fn open(&self, ino: u64, write: bool) -> Option<File> {
        let inode = self.file(ino);
        let entered = {
            let _guard = self.core.marks.enter();
            let mut state = inode.state.write();
            let entered = self.data.enter_pass(&inode, &mut state, write).unwrap();
            state.opens += 1;
            entered
        };
        let (file, waits) = entered?;
        if waits {
            self.data.await_note(&inode).unwrap();
        }
        Some(reopened(&file))
    }

    /// Makes a file as `open` opens one; in directory 1.
    pub fn create_open(&self, ino: u64) -> Option<File> {
        let inode = self.create(ino);
        inode.state.write().opens = 1;
        Some(reopened(&*self.data.born_to_pass(&inode, 1, b"a file").unwrap()?))
    }

    /// Closes it.
    pub fn close(&self, ino: u64) {
        let inode = self.file(ino);
        let last = {
            let mut state = inode.state.write();
            state.opens -= 1;
            state.opens == 0
        };
        if last {
            self.data.released(&inode);
        }
    }

    /// Others may have the file open.
    pub fn passes(&self, ino: u64) -> bool {
        self.file(ino).state.read().data.pass.is_some()
    }

    pub fn fsync(&self, ino: u64) -> Result<(), VfsError> {
        self.data.fsync(&self.file(ino), true)
    }

    /// Seals the open pack.
    pub fn seal(&self, cause: CutCause) {
        self.chunks
            .seal(&*self.data.delta_source(), &*self.store, cause)
            .unwrap();
    }

    /// Everything is on the network when it returns.
    pub fn settle(&self) {
        self.data.write_back_all().unwrap();
        self.seal(CutCause::Forced);
        self.chunks.confirm();
        self.data.shared().settle_submitted().unwrap();
    }

    /// A round of housekeeping after everything has become due.
    pub fn keep_house(&self) {
        self.clock.advance(std::time::Duration::from_secs(2));
        self.data.shared().keep_house().unwrap();
    }

    /// A record of the store.
    pub fn extent(&self, ino: u64, chunk: u64) -> Option<records::Extent> {
        let value = self.store.get(&records::extent_key(ino, chunk)).unwrap()?;
        Some(records::Extent::decode(&value).unwrap())
    }
}

/// The same file, opened once more.
fn reopened(file: &File) -> File {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options().read(true).write(true).open(path).unwrap()
}

/// Copies a cache directory.
pub fn copy_dir(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Bytes that tell where they belong.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let byte = |index: usize| (index as u64 ^ (index as u64 >> 8) ^ (index as u64 >> 16)).wrapping_add(seed * 31) as u8;
    (0..len).map(byte).collect()
}
