//! A run: a volume on a recording disk, and somebody who works on it, with a model that keeps up.

use crate::disk::{Content, Dice, Op, PAGE};
use crate::model::{History, Listing, Seen, Step};
use crate::network::Network;
use crate::recorder::Recorder;
use crate::volume::{self, Setup};
use cessfs_sync::CutCause;
use cessfs_sync::store::MemStore;
use cessfs_vfs::{Caller, FileKind, Later, OpenFlags, RenameFlags, SetAttr, SpaceChange, Vfs, VfsError, XattrMode};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::runtime::Handle;

pub const ROOT_INO: u64 = 1;
const WHO: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 1,
    umask: 0,
};
const READ_WRITE: OpenFlags = OpenFlags {
    read: true,
    write: true,
    append: false,
    truncate: false,
    direct: false,
    sync: false,
};
const FILES_MAX: usize = 10;
const FILE_BYTES_MAX: u64 = 2 << 20;

/// Runs what had to wait.
pub fn wait<T: Send + 'static>(runtime: &Handle, later: Later<T>) -> Result<T, VfsError> {
    runtime.block_on(later.settled())
}

/// Everything a run left behind.
pub struct Run {
    pub seed: u64,
    pub setup: Setup,
    pub log: Vec<Op>,
    pub history: History,
    pub network: Network,
}

struct Node {
    kind: FileKind,
    perm: u16,
    target: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    names: BTreeMap<String, u64>,
}

struct Worker<'r> {
    vfs: Arc<Vfs>,
    recorder: &'r Recorder,
    network: Network,
    runtime: Handle,
    dice: Dice,
    nodes: BTreeMap<u64, Node>,
    history: History,
    setup: Setup,
    seals: u32,
}

/// Works on a new volume for `steps` operations.
pub fn run(seed: u64, setup: Setup, steps: usize, runtime: &Handle) -> std::io::Result<Run> {
    let scratch = tempfile::tempdir()?;
    let recorder = Recorder::mount(scratch.path())?;
    volume::make(scratch.path())?;
    let (log, history, network) = {
        let dir = scratch.path();
        let store = volume::journal(dir, setup, seed).expect("a new journal opens");
        let network = Network::new(setup.staged, dir, store.clone(), volume::keys());
        let parts = volume::parts(dir, setup, store.clone(), network.chunks(), seed);
        let vfs = Vfs::open(parts).expect("a new volume opens");
        network.attach(vfs.delta_source());
        let mut worker = Worker::new(vfs, &recorder, network, runtime.clone(), (seed, setup));
        for _ in 0..steps {
            worker.step();
        }
        worker.compare();
        // What closing adds is not part of the run.
        let log = recorder.log();
        worker.network.close(runtime);
        worker.vfs.close().expect("the volume closes");
        drop(store);
        let elsewhere = tempfile::tempdir()?;
        let nowhere = Arc::new(MemStore::new());
        let network = worker.network.at(usize::MAX, elsewhere.path(), nowhere, volume::keys());
        (log, worker.history, network)
    };
    drop(recorder);
    Ok(Run {
        seed,
        setup,
        log,
        history,
        network,
    })
}

impl<'r> Worker<'r> {
    fn new(
        vfs: Arc<Vfs>,
        recorder: &'r Recorder,
        network: Network,
        runtime: Handle,
        (seed, setup): (u64, Setup),
    ) -> Worker<'r> {
        let root = Node {
            kind: FileKind::Directory,
            perm: 0o755,
            target: Vec::new(),
            xattrs: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        let mut worker = Worker {
            vfs,
            recorder,
            network,
            runtime,
            dice: Dice(seed),
            nodes: BTreeMap::from([(ROOT_INO, root)]),
            history: History::default(),
            setup,
            seals: 0,
        };
        worker.note("an empty volume".into(), 0, false);
        worker
    }

    /// The end state is the model's, so the model is right.
    fn compare(&mut self) {
        let (tree, content) = look(&self.vfs, &self.runtime).expect("a volume that works can be read");
        let last = self.history.steps.last().expect("there is a first step");
        assert_eq!(tree, *last.tree, "the model is not what was done");
        for (ino, found) in content {
            let expected = self.history.latest(ino);
            assert_eq!(found.len, expected.len, "inode {ino}");
            assert!(
                (0..found.len.div_ceil(512)).all(|sector| found.sector(sector) == expected.sector(sector)),
                "inode {ino} is not what was written"
            );
        }
    }

    fn listing(&self) -> Listing {
        let mut links: BTreeMap<u64, u32> = BTreeMap::new();
        let mut pending = vec![(String::new(), ROOT_INO)];
        let mut paths = Vec::new();
        while let Some((path, ino)) = pending.pop() {
            *links.entry(ino).or_default() += 1;
            for (name, child) in &self.nodes[&ino].names {
                pending.push((format!("{path}/{name}"), *child));
            }
            paths.push((path, ino));
        }
        let seen = |(path, ino): (String, u64)| {
            let node = &self.nodes[&ino];
            let subdirs = node
                .names
                .values()
                .filter(|child| self.nodes[*child].kind == FileKind::Directory);
            let seen = Seen {
                ino,
                kind: node.kind,
                perm: node.perm,
                links: match node.kind {
                    FileKind::Directory => 2 + subdirs.count() as u32,
                    _ => links[&ino],
                },
                target: node.target.clone(),
                xattrs: node.xattrs.clone(),
            };
            (path, seen)
        };
        paths.into_iter().map(seen).collect()
    }

    fn note(&mut self, what: String, begun: usize, barrier: bool) {
        self.history.steps.push(Step {
            what,
            begun,
            done: self.recorder.position(),
            tree: Arc::new(self.listing()),
            barrier,
        });
    }

    fn dirs(&self) -> Vec<u64> {
        let dirs = self.nodes.iter().filter(|(_, node)| node.kind == FileKind::Directory);
        dirs.map(|(ino, _)| *ino).collect()
    }

    fn files(&self) -> Vec<u64> {
        let files = self.nodes.iter().filter(|(_, node)| node.kind == FileKind::Regular);
        files.map(|(ino, _)| *ino).collect()
    }

    fn pick(&mut self, from: &[u64]) -> Option<u64> {
        (!from.is_empty()).then(|| from[self.dice.below(from.len() as u64) as usize])
    }

    /// A name in some directory.
    fn place(&mut self) -> (u64, String) {
        let dirs = self.dirs();
        let dir = self.pick(&dirs).expect("the root is there");
        (dir, format!("n{}", self.dice.below(6)))
    }

    /// A name that is there.
    fn entry(&mut self) -> Option<(u64, String, u64)> {
        let all: Vec<(u64, String, u64)> = self
            .nodes
            .iter()
            .flat_map(|(dir, node)| node.names.iter().map(|(name, ino)| (*dir, name.clone(), *ino)))
            .collect();
        (!all.is_empty()).then(|| all[self.dice.below(all.len() as u64) as usize].clone())
    }

    /// Forgets what has no name left.
    fn sweep(&mut self) {
        let listing = self.listing();
        self.nodes
            .retain(|ino, _| listing.values().any(|seen| seen.ino == *ino));
    }

    fn step(&mut self) {
        let begun = self.recorder.position();
        let files = self.files();
        let done = match self.dice.below(100) {
            0..10 => self.make(begun),
            10..14 => self.make_directory(),
            14..18 => self.make_link(),
            18..26 => self.rename(),
            26..31 => self.remove(),
            31..36 => self.change_attributes(),
            36..56 => self.pick(&files).map(|ino| self.write(ino, READ_WRITE)),
            56..62 => return self.pick(&files).map(|ino| self.write_synced(ino, begun)).unwrap_or(()),
            62..66 => self.pick(&files).map(|ino| self.truncate(ino)),
            66..71 => self.pick(&files).map(|ino| self.change_space(ino)),
            71..86 => return self.pick(&files).map(|ino| self.fsync(ino, begun)).unwrap_or(()),
            86..89 => {
                self.vfs.fsyncdir(ROOT_INO).expect("fsyncdir");
                return self.note("fsyncdir".into(), begun, true);
            }
            89..92 => return self.write_back(begun),
            // A real pack is 32 MiB: two of them are enough.
            92..94 if self.setup.staged && self.seals >= 2 => None,
            92..94 => return self.seal(begun),
            94..95 => {
                self.network.confirm(self.recorder.position());
                Some("confirm".into())
            }
            95..98 if !self.setup.staged => {
                // What is written next is written over what is not here.
                self.write_back(begun);
                self.seal(self.recorder.position());
                self.network.confirm(self.recorder.position());
                let begun = self.recorder.position();
                self.vfs.evict_all().expect("evict");
                return self.note("send and evict".into(), begun, false);
            }
            _ => {
                self.vfs.evict_all().expect("evict");
                Some("evict".into())
            }
        };
        if let Some(what) = done {
            self.note(what, begun, false);
        }
    }

    fn write_back(&mut self, begun: usize) {
        self.vfs.write_back_all().expect("write back");
        let step = self.history.steps.len();
        for ino in self.files() {
            self.history.syncs.entry(ino).or_default().push(step);
        }
        self.note("write back".into(), begun, true);
    }

    fn seal(&mut self, begun: usize) {
        self.seals += 1;
        let cause = if self.dice.chance(50) {
            CutCause::Forced
        } else {
            CutCause::Full
        };
        self.network.seal(&*self.vfs.delta_source(), cause);
        // What it stands on is a barrier of the journal.
        self.note("seal".into(), begun, true);
    }

    fn make(&mut self, _begun: usize) -> Option<String> {
        let (dir, name) = self.place();
        if self.nodes[&dir].names.contains_key(&name) || self.files().len() >= FILES_MAX {
            return None;
        }
        let made = self.vfs.create(dir, name.as_bytes(), 0o644, READ_WRITE, WHO);
        let (attr, handle) = made.expect("create");
        self.vfs.release(attr.ino, handle).expect("release");
        self.add(dir, &name, attr.ino, FileKind::Regular, 0o644, b"");
        Some(format!("create {dir}/{name}: {}", attr.ino))
    }

    fn add(&mut self, dir: u64, name: &str, ino: u64, kind: FileKind, perm: u16, target: &[u8]) {
        let node = Node {
            kind,
            perm,
            target: target.to_vec(),
            xattrs: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        self.nodes.insert(ino, node);
        self.name(dir, name, ino);
    }

    fn name(&mut self, dir: u64, name: &str, ino: u64) {
        let dir = self.nodes.get_mut(&dir).expect("it was picked");
        dir.names.insert(name.to_owned(), ino);
    }

    fn make_directory(&mut self) -> Option<String> {
        let (dir, name) = self.place();
        if self.nodes[&dir].names.contains_key(&name) || self.dirs().len() > 5 {
            return None;
        }
        let attr = self.vfs.mkdir(dir, name.as_bytes(), 0o755, WHO).expect("mkdir");
        self.add(dir, &name, attr.ino, FileKind::Directory, 0o755, b"");
        Some(format!("mkdir {dir}/{name}: {}", attr.ino))
    }

    fn make_link(&mut self) -> Option<String> {
        let (dir, name) = self.place();
        if self.nodes[&dir].names.contains_key(&name) {
            return None;
        }
        let files = self.files();
        match self.pick(&files).filter(|_| self.dice.chance(60)) {
            Some(ino) => {
                self.vfs.link(ino, dir, name.as_bytes()).expect("link");
                self.name(dir, &name, ino);
                Some(format!("link {ino} to {dir}/{name}"))
            }
            None => {
                let target = format!("to-{}", self.dice.below(1000));
                let made = self.vfs.symlink(dir, name.as_bytes(), target.as_bytes(), WHO);
                let attr = made.expect("symlink");
                self.add(dir, &name, attr.ino, FileKind::Symlink, attr.perm, target.as_bytes());
                Some(format!("symlink {dir}/{name}"))
            }
        }
    }

    fn rename(&mut self) -> Option<String> {
        let (dir, name, ino) = self.entry()?;
        let (to, new_name) = self.place();
        let old = self.nodes[&to].names.get(&new_name).copied();
        // Over nothing; files over files, directories over empty ones and not below themselves: what rename refuses is tested
        // elsewhere.
        let is_dir = self.nodes[&ino].kind == FileKind::Directory;
        let fits = |old: u64| {
            let node = &self.nodes[&old];
            (node.kind == FileKind::Directory) == is_dir && node.names.is_empty()
        };
        if old == Some(ino) || !old.is_none_or(fits) || is_dir && self.is_below(ino, to) {
            return None;
        }
        let flags = RenameFlags::default();
        self.vfs
            .rename(dir, name.as_bytes(), to, new_name.as_bytes(), flags)
            .expect("rename");
        self.nodes.get_mut(&dir).expect("it is there").names.remove(&name);
        self.name(to, &new_name, ino);
        self.sweep();
        Some(format!("rename {dir}/{name} to {to}/{new_name}"))
    }

    /// `dir` is `top`, or lies below it.
    fn is_below(&self, top: u64, dir: u64) -> bool {
        top == dir || {
            let mut names = self.nodes[&top].names.values();
            names.any(|child| self.is_below(*child, dir))
        }
    }

    fn remove(&mut self) -> Option<String> {
        let (dir, name, ino) = self.entry()?;
        if self.nodes[&ino].kind == FileKind::Directory {
            if !self.nodes[&ino].names.is_empty() {
                return None;
            }
            self.vfs.rmdir(dir, name.as_bytes()).expect("rmdir");
        } else {
            self.vfs.unlink(dir, name.as_bytes()).expect("unlink");
        }
        self.nodes.get_mut(&dir).expect("it is there").names.remove(&name);
        self.sweep();
        Some(format!("remove {dir}/{name}"))
    }

    fn change_attributes(&mut self) -> Option<String> {
        let files = self.files();
        let ino = self.pick(&files)?;
        if self.dice.chance(50) {
            let perm = [0o600, 0o640, 0o755][self.dice.below(3) as usize];
            let set = SetAttr {
                perm: Some(perm),
                ..SetAttr::default()
            };
            self.vfs.setattr(ino, set, WHO).expect("chmod");
            self.nodes.get_mut(&ino).expect("it was picked").perm = perm;
            return Some(format!("chmod {ino} {perm:o}"));
        }
        let (name, value) = (format!("user.x{}", self.dice.below(3)), format!("{}", self.dice.next()));
        let (name, value) = (name.into_bytes(), value.into_bytes());
        self.vfs.setxattr(ino, &name, &value, XattrMode::Any).expect("setxattr");
        self.nodes
            .get_mut(&ino)
            .expect("it was picked")
            .xattrs
            .insert(name, value);
        Some(format!("setxattr {ino}"))
    }

    fn versions(&mut self, ino: u64, content: Content) {
        let step = self.history.steps.len();
        self.history.versions.entry(ino).or_default().push((step, content));
    }

    /// Writes to a file opened with O_SYNC: a promise as of fsync, by the answer of the write.
    fn write_synced(&mut self, ino: u64, begun: usize) {
        let synced = OpenFlags {
            sync: true,
            ..READ_WRITE
        };
        let what = self.write(ino, synced);
        let step = self.history.steps.len();
        self.history.syncs.entry(ino).or_default().push(step);
        self.note(format!("synced {what}"), begun, true);
    }

    fn write(&mut self, ino: u64, flags: OpenFlags) -> String {
        let mut content = self.history.latest(ino);
        let len = match self.dice.below(10) {
            0..4 => 1 + self.dice.below(600),
            4..8 => 1 + self.dice.below(20_000),
            _ => 1 + self.dice.below(300_000),
        };
        let offset = match self.dice.below(4) {
            0 => content.len,
            1 => 0,
            2 => self.dice.below(content.len + 1),
            _ => self.dice.below(content.len + 100_000),
        };
        let (mut offset, mut len) = (offset.min(FILE_BYTES_MAX), len);
        if self.dice.chance(50) {
            // Whole blocks, as the kernel writes its pages.
            offset -= offset % PAGE as u64;
            len = len.next_multiple_of(PAGE as u64);
        }
        let mut data = vec![0; len as usize];
        let mut stream = Dice(self.dice.next());
        cessfs_crypto::Entropy::fill(&mut stream, &mut data);
        let handle = self.vfs.open_file(ino, flags).expect("open");
        let mut done = 0;
        while done < data.len() {
            let later = self.vfs.write(ino, handle, offset + done as u64, &data[done..], false);
            done += wait(&self.runtime, later.expect("write")).expect("write") as usize;
        }
        self.vfs.release(ino, handle).expect("release");
        content.write(offset, &data);
        self.versions(ino, content);
        format!("write {ino} {offset}+{len}")
    }

    fn truncate(&mut self, ino: u64) -> String {
        let mut content = self.history.latest(ino);
        let size = match self.dice.below(3) {
            0 => 0,
            1 => self.dice.below(content.len + 1),
            _ => self.dice.below(FILE_BYTES_MAX),
        };
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        self.vfs.setattr(ino, set, WHO).expect("truncate");
        content.set_len(size);
        self.versions(ino, content);
        format!("truncate {ino} to {size}")
    }

    fn change_space(&mut self, ino: u64) -> String {
        let mut content = self.history.latest(ino);
        let (offset, len) = (self.dice.below(content.len + 1), 1 + self.dice.below(50_000));
        let what = [SpaceChange::Punch, SpaceChange::Zero, SpaceChange::Reserve][self.dice.below(3) as usize];
        let handle = self.vfs.open_file(ino, READ_WRITE).expect("open");
        let later = self.vfs.fallocate(ino, handle, what, true, offset, len, false);
        wait(&self.runtime, later.expect("fallocate")).expect("fallocate");
        self.vfs.release(ino, handle).expect("release");
        if what != SpaceChange::Reserve {
            let within = len.min(content.len - offset);
            content.punch(offset, within);
            self.versions(ino, content);
        }
        format!("{what:?} {ino} {offset}+{len}")
    }

    fn fsync(&mut self, ino: u64, begun: usize) {
        let handle = self.vfs.open_file(ino, READ_WRITE).expect("open");
        let data_only = self.dice.chance(30);
        self.vfs.fsync(ino, handle, data_only).expect("fsync");
        let step = self.history.steps.len();
        self.history.syncs.entry(ino).or_default().push(step);
        // fdatasync may make content alone durable (docs/decisions/0013): it is no barrier for the rest of the tree.
        let call = if data_only { "fdatasync" } else { "fsync" };
        self.note(format!("{call} {ino}"), begun, !data_only);
        self.vfs.release(ino, handle).expect("release");
    }
}

/// Reads a whole volume.
pub fn look(vfs: &Vfs, runtime: &Handle) -> Result<(Listing, BTreeMap<u64, Content>), String> {
    let (mut tree, mut contents) = (Listing::new(), BTreeMap::new());
    let mut pending = vec![(String::new(), ROOT_INO)];
    while let Some((path, ino)) = pending.pop() {
        let cannot = |e: VfsError| format!("{path} (inode {ino}): {e}");
        let attr = vfs.getattr(ino).map_err(cannot)?;
        let mut xattrs = BTreeMap::new();
        for name in vfs.listxattr(ino).map_err(cannot)?.split(|byte| *byte == 0) {
            if !name.is_empty() {
                xattrs.insert(name.to_vec(), vfs.getxattr(ino, name).map_err(cannot)?);
            }
        }
        let target = match attr.kind {
            FileKind::Symlink => vfs.readlink(ino).map_err(cannot)?,
            _ => Vec::new(),
        };
        match attr.kind {
            FileKind::Directory => {
                let mut names = Vec::new();
                let mut fill = |entry: cessfs_vfs::DirEntry<'_>| {
                    names.push((String::from_utf8_lossy(entry.name).into_owned(), entry.ino));
                    false
                };
                vfs.readdir(ino, 0, false, &mut fill).map_err(cannot)?;
                let real = names.into_iter().filter(|(name, _)| name != "." && name != "..");
                pending.extend(real.map(|(name, child)| (format!("{path}/{name}"), child)));
            }
            FileKind::Regular => {
                let content = read(vfs, runtime, ino, attr.size).map_err(cannot)?;
                contents.insert(ino, content);
            }
            _ => {}
        }
        let seen = Seen {
            ino,
            kind: attr.kind,
            perm: attr.perm,
            links: attr.nlink,
            target,
            xattrs,
        };
        tree.insert(path, seen);
    }
    Ok((tree, contents))
}

fn read(vfs: &Vfs, runtime: &Handle, ino: u64, size: u64) -> Result<Content, VfsError> {
    let mut content = Content::default();
    let handle = vfs.open_file(
        ino,
        OpenFlags {
            read: true,
            ..OpenFlags::default()
        },
    )?;
    let mut offset = 0;
    while offset < size {
        let bytes = wait(runtime, vfs.read(ino, handle, offset, 1 << 20)?)?.keep();
        assert!(!bytes.is_empty(), "a read within the file gives bytes");
        content.write(offset, &bytes);
        offset += bytes.len() as u64;
    }
    content.set_len(size);
    vfs.release(ino, handle)?;
    Ok(content)
}
