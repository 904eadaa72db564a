//! The facade over a store in memory: what each operation does, what it refuses, and that no interleaving, crash or
//! sequence breaks an invariant.

use super::*;
use crate::attr::{DirEntry, Timestamp};
use crate::check::check_tree;
use crate::core::{AtRest, VfsConfig};
use crate::fakes::{FakeChunks, FakeClock, FakeEntropy, FakeTrees, volume_keys};
use crate::inode::ROOT_INO;
use crate::request::{OpenFlags, RenameFlags, XattrMode};
use cessfs_sync::store::MemStore;
use std::sync::LazyLock;
use std::time::Duration;

mod acls;
mod attributes;
mod crash;
mod listing;
mod model;
mod names;
mod open_files;
mod quota;
mod restored;
mod snapshots;
mod space;
mod taken_over;
mod threads;
mod told;
mod trash;
mod xattrs;

const USER: Caller = Caller {
    uid: 1000,
    gid: 1000,
    pid: 7,
    umask: 0,
};
const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 7,
    umask: 0,
};

/// Made once: a phrase is slow to turn into keys, on purpose.
static KEYS: LazyLock<cessfs_crypto::VolumeKeys> = LazyLock::new(volume_keys);

/// A volume over memory.
struct World {
    store: Arc<MemStore>,
    clock: Arc<FakeClock>,
    dir: Arc<tempfile::TempDir>,
    chunks: FakeChunks,
    trees: FakeTrees,
    vfs: Arc<Vfs>,
}

/// A directory in memory where there is one: opening a volume syncs its cache directory, and hundreds are opened.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn config(dir: &tempfile::TempDir) -> VfsConfig {
    let mut config = VfsConfig::new(dir.path().to_path_buf());
    config.at_rest = AtRest::Plain;
    config
}

impl World {
    fn new() -> World {
        World::on(Arc::new(MemStore::new()), |_| {})
    }

    /// A volume on what is in `store` already, with an empty cache.
    fn on(store: Arc<MemStore>, tune: impl FnOnce(&mut VfsConfig)) -> World {
        World::over(
            store,
            Arc::new(FakeClock::new()),
            Arc::new(scratch()),
            FakeChunks::new(),
            tune,
        )
    }

    fn over(
        store: Arc<MemStore>,
        clock: Arc<FakeClock>,
        dir: Arc<tempfile::TempDir>,
        chunks: FakeChunks,
        tune: impl FnOnce(&mut VfsConfig),
    ) -> World {
        World::with_trees(store, clock, dir, chunks, FakeTrees::default(), tune)
    }

    fn with_trees(
        store: Arc<MemStore>,
        clock: Arc<FakeClock>,
        dir: Arc<tempfile::TempDir>,
        chunks: FakeChunks,
        trees: FakeTrees,
        tune: impl FnOnce(&mut VfsConfig),
    ) -> World {
        let mut config = config(&dir);
        tune(&mut config);
        let parts = VfsParts {
            store: store.clone(),
            clock: clock.clone(),
            chunks: Arc::new(chunks.clone()),
            keys: KEYS.clone(),
            config,
            entropy: Arc::new(Mutex::new(FakeEntropy::new(1))),
            trees: Arc::new(trees.clone()),
        };
        let vfs = Vfs::open(parts).unwrap();
        chunks.attach(&vfs.delta_source(), store.clone());
        World {
            store,
            clock,
            dir,
            chunks,
            trees,
            vfs,
        }
    }

    /// Closes the volume and opens it again.
    fn reopen(self) -> World {
        self.vfs.close().unwrap();
        let chunks = FakeChunks::new();
        World::over(self.store.clone(), self.clock.clone(), self.dir.clone(), chunks, |_| {})
    }

    /// The same on the network and with the trees it had: what was evicted can be fetched.
    fn remount(self) -> World {
        self.vfs.close().unwrap();
        let (chunks, trees) = (self.chunks.clone(), self.trees.clone());
        World::with_trees(
            self.store.clone(),
            self.clock.clone(),
            self.dir.clone(),
            chunks,
            trees,
            |_| {},
        )
    }

    /// Everything reaches the network, and whatever it holds leaves the cache.
    fn evict(&self) {
        restored::seal(self, cessfs_sync::CutCause::Forced, true);
        self.chunks.confirm();
        self.vfs.evict_all().unwrap();
    }

    /// Every invariant of the records holds.
    #[track_caller]
    fn check(&self) {
        let findings = check_tree(&*self.store, &KEYS).unwrap();
        assert!(findings.is_empty(), "{findings:#?}");
    }

    fn split<'p>(&self, path: &'p str) -> (u64, &'p [u8]) {
        let (dir, name) = path.rsplit_once('/').expect("paths are absolute");
        (self.ino(dir), name.as_bytes())
    }

    #[track_caller]
    fn ino(&self, path: &str) -> u64 {
        self.vfs.resolve(path.as_bytes()).unwrap()
    }

    #[track_caller]
    fn stat(&self, path: &str) -> Attr {
        self.vfs.getattr(self.ino(path)).unwrap()
    }

    fn exists(&self, path: &str) -> bool {
        self.vfs.resolve(path.as_bytes()).is_ok()
    }

    fn mkdir(&self, path: &str) -> Result<Attr, VfsError> {
        let (dir, name) = self.split(path);
        self.vfs.mkdir(dir, name, 0o755, USER)
    }

    fn touch_file(&self, path: &str) -> Result<Attr, VfsError> {
        let (dir, name) = self.split(path);
        self.vfs.mknod(dir, name, FileKind::Regular, 0o644, 0, USER)
    }

    fn unlink(&self, path: &str) -> Result<(), VfsError> {
        let (dir, name) = self.split(path);
        self.vfs.unlink(dir, name)
    }

    fn rmdir(&self, path: &str) -> Result<(), VfsError> {
        let (dir, name) = self.split(path);
        self.vfs.rmdir(dir, name)
    }

    fn link(&self, from: &str, to: &str) -> Result<Attr, VfsError> {
        let (dir, name) = self.split(to);
        self.vfs.link(self.ino(from), dir, name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), VfsError> {
        self.rename_with(from, to, RenameFlags::default())
    }

    fn rename_with(&self, from: &str, to: &str, flags: RenameFlags) -> Result<(), VfsError> {
        let ((dir, name), (new_dir, new_name)) = (self.split(from), self.split(to));
        self.vfs.rename(dir, name, new_dir, new_name, flags)
    }

    fn open(&self, path: &str, flags: OpenFlags) -> Result<u64, VfsError> {
        self.vfs.open_file(self.ino(path), flags)
    }

    /// Names in a directory, sorted, without the dots.
    fn list(&self, path: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut fill = |entry: DirEntry<'_>| {
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            false
        };
        self.vfs.readdir(self.ino(path), 0, false, &mut fill).unwrap();
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }

    fn tick(&self) -> Timestamp {
        self.clock.advance(Duration::from_secs(1));
        self.vfs.core.now()
    }
}

/// The error of something that must fail, as an errno.
#[track_caller]
fn errno<T>(result: Result<T, VfsError>) -> i32 {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(e) => e.errno(),
    }
}
