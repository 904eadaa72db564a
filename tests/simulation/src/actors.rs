//! Who uses a machine: a writer that also renames, reads and makes things durable, the volume's own housekeeping, somebody who
//! empties the cache, somebody who waits for the network, and somebody who has packs looked at, repaired and collected.
//!
//! Each change is made in the volume and in the model, and nothing comes between.

use crate::clock::SimClock;
use crate::device::{Life, read};
use crate::dice::Dice;
use crate::model::{FileId, Model, Node, differ};
use crate::trace::Trace;
use cessfs_sync::store::MemStore;
use cessfs_sync::upkeep::{Depth, UpkeepError};
use cessfs_sync::{ChunkStore, Clock, StoreError};
use cessfs_vfs::{Caller, OpenFlags, RenameFlags, SetAttr, VfsError};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

/// Files of a tree at most; more would only take time.
const FILES_MAX: usize = 14;
/// Bytes of a file at most: a few frames in packs of the small geometry, and far above what is kept inline.
const FILE_BYTES_MAX: u64 = 40 << 10;

const NOBODY: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 1,
    umask: 0o022,
};

const WRITE: OpenFlags = OpenFlags {
    read: true,
    write: true,
    append: false,
    truncate: false,
    direct: false,
    sync: false,
};

/// What all actors of one life share.
pub struct Stage<'a> {
    pub life: &'a Life,
    pub model: &'a RefCell<Model>,
    pub dice: &'a RefCell<Dice>,
    pub journal: Arc<MemStore>,
    pub clock: SimClock,
    pub trace: Trace,
    /// Pause between two changes at most.
    pub pace: Duration,
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').expect("paths begin with a slash")
}

impl Stage<'_> {
    /// Everybody at once, until the process dies, or the writer has stopped of itself after `until`.
    pub async fn everybody(&self, until: Duration) {
        tokio::select! {
            biased;
            () = self.life.death.wait() => {}
            () = self.writes(until) => {}
            () = self.keeps_house() => {}
            () = self.empties_the_cache() => {}
            () = self.syncs() => {}
            () = self.looks_after_packs() => {}
        }
    }

    fn records(&self) -> usize {
        self.journal.progress().0
    }

    fn done(&self) {
        let (_, durable) = self.journal.progress();
        let mut model = self.model.borrow_mut();
        model.done(self.records());
        model.forget_journal_before(durable);
    }

    fn pause(&self, longest: Duration) -> Duration {
        self.dice.borrow_mut().time(Duration::from_millis(10), longest)
    }

    async fn writes(&self, until: Duration) {
        while self.clock.monotonic() < until {
            self.clock.sleep(self.pause(self.pace)).await;
            if let Err(error) = self.act().await {
                if self.life.death.has_come() {
                    return;
                }
                self.trace.count("operations refused");
                self.trace.note(format_args!("writer: refused: {error}"));
            }
        }
    }

    /// The volume's threads.
    pub async fn keeps_house(&self) {
        loop {
            self.clock.sleep(Duration::from_millis(500)).await;
            if let Err(error) = self.life.vfs.work()
                && !self.life.death.has_come()
            {
                self.trace.note(format_args!("housekeeping: {error}"));
            }
        }
    }

    async fn empties_the_cache(&self) {
        loop {
            self.clock.sleep(self.pause(Duration::from_secs(1200))).await;
            match self.life.vfs.evict_all() {
                Ok(_) => self.trace.count("caches emptied"),
                Err(error) => self.trace.note(format_args!("eviction: {error}")),
            }
        }
    }

    async fn syncs(&self) {
        loop {
            self.clock.sleep(self.pause(Duration::from_secs(1800))).await;
            if let Err(why) = self.sync().await {
                if !self.life.death.has_come() {
                    self.trace.violation(format_args!("a sync failed: {why}"));
                }
                return std::future::pending().await;
            }
        }
    }

    /// `cessfs scrub`, `repair` and `gc`, beside what the volume does of itself.
    async fn looks_after_packs(&self) {
        loop {
            self.clock.sleep(self.pause(Duration::from_secs(1800))).await;
            let (what, engine) = (self.dice.borrow_mut().below(7), &self.life.engine);
            let done = match what {
                0 | 1 => {
                    let depth = if what == 0 { Depth::Sample } else { Depth::Full };
                    let looked = engine.scrub(depth, None).await;
                    looked.map(|report| format!("scrub: {report:?}"))
                }
                2 | 3 => engine.repair().await.map(|report| format!("repair: {report:?}")),
                4 => engine.collect(true).await.map(|report| format!("gc, dry: {report:?}")),
                _ => self.collect().await,
            };
            match done {
                Ok(told) => self.trace.note(told),
                Err(why) => self.trace.note(format_args!("upkeep: {why}")),
            }
        }
    }

    /// `cessfs gc`.
    ///
    /// # Errors
    /// It ended early.
    pub async fn collect(&self) -> Result<String, UpkeepError> {
        let report = self.life.engine.collect(false).await?;
        self.trace.add("packs deleted by hand", report.deleted.len() as u64);
        Ok(format!("gc: {report:?}"))
    }

    /// `cessfs repair` until it is through, then `cessfs gc`, once: where a chunk may fill half of a pack, it would find something to
    /// collect for ever.
    ///
    /// # Errors
    /// They fail.
    pub async fn tidy(&self) -> Result<String, String> {
        loop {
            match self.life.engine.repair().await {
                Ok(_) => break,
                // The backlog is full, or the disk.
                Err(UpkeepError::NoRoom | UpkeepError::Store(StoreError::Full)) => {
                    self.clock.sleep(Duration::from_secs(5)).await
                }
                Err(error) => return Err(format!("repair: {error}")),
            }
        }
        match self.collect().await {
            Err(UpkeepError::NoRoom | UpkeepError::Store(StoreError::Full)) => {
                Ok("gc: it did not get to its end".into())
            }
            Err(error) => Err(format!("gc: {error}")),
            Ok(told) => Ok(told),
        }
    }

    /// `cessfs sync --wait`. What was written before it began cannot be lost any more when it returns.
    ///
    /// # Errors
    /// The process died.
    pub async fn sync(&self) -> Result<(), String> {
        let mut mark = None;
        loop {
            let untold = self.life.vfs.untold();
            while let Err(error) = self.life.vfs.complete_all().await {
                if self.life.death.has_come() {
                    return Err(error.to_string());
                }
                // The network does not answer just now.
                self.clock.sleep(Duration::from_secs(5)).await;
            }
            while let Err(error) = self.life.vfs.write_back_all() {
                if self.life.death.has_come() {
                    return Err(error.to_string());
                }
                // The backlog is full: a real thread would wait in `submit`.
                self.clock.sleep(Duration::from_secs(5)).await;
            }
            if mark.is_none() {
                let now = self.model.borrow().mark();
                self.trace.note(format_args!("sync begins at {now}"));
                mark = Some(now);
            }
            self.life.engine.settle().await.map_err(|error| error.to_string())?;
            self.life.vfs.note_sent().map_err(|error| error.to_string())?;
            if self.life.vfs.untold() == untold {
                break;
            }
        }
        let mark = mark.expect("set in the first round");
        if self.life.death.has_come() {
            return Err("died".into());
        }
        self.trace.note(format_args!("sync of {mark} is done"));
        self.trace.count("network syncs");
        self.model.borrow_mut().floor(mark);
        Ok(())
    }

    /// Four of five files go. Names that are refused stay.
    pub fn removes_most(&self) {
        let files: Vec<String> = {
            let model = self.model.borrow();
            let files = model.names.iter().filter(|(_, node)| **node != Node::Dir);
            files.map(|(path, _)| path.clone()).collect()
        };
        for file in files {
            if self.dice.borrow_mut().below(5) > 0
                && let Err(error) = self.unlink(&file)
            {
                self.trace.note(format_args!("refused: {error}"));
            }
        }
    }

    /// One thing that a program does.
    async fn act(&self) -> Result<(), VfsError> {
        let (what, files, dirs) = {
            let model = self.model.borrow();
            let of = |dirs: bool| {
                let all = model
                    .names
                    .iter()
                    .filter(move |(_, node)| (**node == Node::Dir) == dirs);
                all.map(|(path, _)| path.clone()).collect::<Vec<_>>()
            };
            (self.dice.borrow_mut().below(100), of(false), of(true))
        };
        let mut parents = dirs.clone();
        parents.push(String::new());
        let file = (!files.is_empty()).then(|| self.dice.borrow_mut().pick(&files).clone());
        let dir = (!dirs.is_empty()).then(|| self.dice.borrow_mut().pick(&dirs).clone());
        let fresh = {
            let mut dice = self.dice.borrow_mut();
            format!("{}/{}", dice.pick(&parents), (b'a' + dice.below(20) as u8) as char)
        };
        match (what, file, dir) {
            (0..15, _, _) if files.len() < FILES_MAX => self.create(&fresh),
            (15..45, Some(file), _) => self.write(&file).await,
            (45..50, Some(file), _) => self.truncate(&file).await,
            (50..62, Some(file), _) => self.rename(&file, &fresh),
            (62..66, _, Some(dir)) => self.rename(&dir, &fresh),
            (66..72, _, _) if dirs.len() < 5 => self.mkdir(&fresh),
            (72..76, Some(file), _) => self.link(&file, &fresh),
            (76..81, Some(file), _) => self.unlink(&file),
            (81..84, _, Some(dir)) => self.rmdir(&dir),
            (84..90, Some(file), _) => self.fsync(&file),
            (_, Some(file), _) => self.read(&file).await,
            _ => self.create(&fresh),
        }
    }

    fn ino(&self, path: &str) -> Result<u64, VfsError> {
        self.life.vfs.resolve(path.as_bytes())
    }

    fn file(&self, path: &str) -> FileId {
        match self.model.borrow().names[path] {
            Node::File(file) => file,
            Node::Dir => unreachable!("only files are asked for"),
        }
    }

    fn expect<T>(&self, what: &str, path: &str, done: Result<T, VfsError>) -> Result<T, VfsError> {
        if let Err(error) = &done
            && !self.life.death.has_come()
        {
            self.trace.violation(format_args!("{what} {path}: {error}"));
        }
        done
    }

    fn create(&self, path: &str) -> Result<(), VfsError> {
        if self.model.borrow().names.contains_key(path) {
            return Ok(());
        }
        self.trace.note(format_args!("create {path}"));
        let (dir, name) = split(path);
        let made = self
            .life
            .vfs
            .create(self.ino(dir)?, name.as_bytes(), 0o644, WRITE, NOBODY);
        let (attr, handle) = self.expect("create", path, made)?;
        self.life.vfs.release(attr.ino, handle)?;
        let file = self.model.borrow_mut().new_file();
        self.model.borrow_mut().names.insert(path.into(), Node::File(file));
        self.done();
        Ok(())
    }

    fn mkdir(&self, path: &str) -> Result<(), VfsError> {
        if self.model.borrow().names.contains_key(path) {
            return Ok(());
        }
        self.trace.note(format_args!("mkdir {path}"));
        let (dir, name) = split(path);
        let made = self.life.vfs.mkdir(self.ino(dir)?, name.as_bytes(), 0o755, NOBODY);
        self.expect("mkdir", path, made)?;
        self.model.borrow_mut().names.insert(path.into(), Node::Dir);
        self.done();
        Ok(())
    }

    /// What came of a change of content that may have waited. If it was refused, the file is looked at: a part may be there.
    async fn changed(&self, path: &str, file: FileId, done: Result<(), VfsError>) -> Result<(), VfsError> {
        if done.is_err() && !self.life.death.has_come() {
            let now = read(&self.life.vfs, self.ino(path)?).await?;
            *self.model.borrow_mut().change(file) = now;
        }
        self.done();
        done
    }

    async fn write(&self, path: &str) -> Result<(), VfsError> {
        let (file, ino) = (self.file(path), self.ino(path)?);
        let size = self.model.borrow().files[&file].len() as u64;
        let (offset, data, fsync) = {
            let mut dice = self.dice.borrow_mut();
            let offset = dice.below(size + 1 + size / 4).min(FILE_BYTES_MAX - 1);
            let len = 1 + dice.below((FILE_BYTES_MAX - offset).min(20_000));
            (offset, dice.bytes(len as usize), dice.one_in(4))
        };
        self.trace.note(format_args!("write {path} {offset}+{}", data.len()));
        // Whatever comes of it, from here on the file is not what was made durable.
        self.model.borrow_mut().change(file);
        let handle = self.life.vfs.open_file(ino, WRITE)?;
        let written = match self.life.vfs.write(ino, handle, offset, &data, false) {
            Ok(written) => written.settled().await,
            Err(error) => Err(error),
        };
        let written = written.map(|written| {
            let (start, end) = (offset as usize, offset as usize + written as usize);
            let mut model = self.model.borrow_mut();
            let content = model.change(file);
            content.resize(content.len().max(end), 0);
            content[start..end].copy_from_slice(&data[..written as usize]);
        });
        let synced = fsync && written.is_ok() && self.life.vfs.fsync(ino, handle, false).is_ok();
        self.changed(path, file, written).await?;
        if synced {
            self.model.borrow_mut().fsynced(file);
        }
        self.life.vfs.release(ino, handle)
    }

    async fn truncate(&self, path: &str) -> Result<(), VfsError> {
        let (file, ino) = (self.file(path), self.ino(path)?);
        let size = self.dice.borrow_mut().below(FILE_BYTES_MAX);
        self.trace.note(format_args!("truncate {path} {size}"));
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        let done = self.life.vfs.setattr(ino, set, NOBODY).map(|_| {
            self.model.borrow_mut().change(file).resize(size as usize, 0);
        });
        self.changed(path, file, done).await
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), VfsError> {
        let inside = to
            .strip_prefix(from)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let (source, target) = {
            let model = self.model.borrow();
            (model.names[from], model.names.get(to).copied())
        };
        if inside || target.is_some_and(|target| target == source || target == Node::Dir || source == Node::Dir) {
            return Ok(());
        }
        self.trace.note(format_args!("rename {from} {to}"));
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
        let (from_dir, to_dir) = (self.ino(from_dir)?, self.ino(to_dir)?);
        let (old, new) = (from_name.as_bytes(), to_name.as_bytes());
        let renamed = self.life.vfs.rename(from_dir, old, to_dir, new, RenameFlags::default());
        self.expect("rename", from, renamed)?;
        {
            let mut model = self.model.borrow_mut();
            let moved: Vec<(String, Node)> = {
                let under = format!("{from}/");
                let all = model.names.iter();
                all.filter(|(path, _)| *path == from || path.starts_with(&under))
                    .map(|(path, node)| (path.clone(), *node))
                    .collect()
            };
            for (path, node) in moved {
                model.names.remove(&path);
                model.names.insert(format!("{to}{}", &path[from.len()..]), node);
            }
        }
        self.done();
        Ok(())
    }

    fn link(&self, path: &str, to: &str) -> Result<(), VfsError> {
        if self.model.borrow().names.contains_key(to) {
            return Ok(());
        }
        self.trace.note(format_args!("link {path} {to}"));
        let (dir, name) = split(to);
        let linked = self.life.vfs.link(self.ino(path)?, self.ino(dir)?, name.as_bytes());
        self.expect("link", to, linked)?;
        let file = self.file(path);
        self.model.borrow_mut().names.insert(to.into(), Node::File(file));
        self.done();
        Ok(())
    }

    fn unlink(&self, path: &str) -> Result<(), VfsError> {
        self.trace.note(format_args!("unlink {path}"));
        let (dir, name) = split(path);
        let gone = self.life.vfs.unlink(self.ino(dir)?, name.as_bytes());
        self.expect("unlink", path, gone)?;
        self.model.borrow_mut().names.remove(path);
        self.done();
        Ok(())
    }

    fn rmdir(&self, path: &str) -> Result<(), VfsError> {
        let under = format!("{path}/");
        if self.model.borrow().names.keys().any(|other| other.starts_with(&under)) {
            return Ok(());
        }
        self.trace.note(format_args!("rmdir {path}"));
        let (dir, name) = split(path);
        let gone = self.life.vfs.rmdir(self.ino(dir)?, name.as_bytes());
        self.expect("rmdir", path, gone)?;
        self.model.borrow_mut().names.remove(path);
        self.done();
        Ok(())
    }

    fn fsync(&self, path: &str) -> Result<(), VfsError> {
        let (file, ino) = (self.file(path), self.ino(path)?);
        self.trace.note(format_args!("fsync {path}"));
        let handle = self.life.vfs.open_file(ino, WRITE)?;
        let synced = self.life.vfs.fsync(ino, handle, false);
        self.expect("fsync", path, synced)?;
        self.model.borrow_mut().fsynced(file);
        self.done();
        self.life.vfs.release(ino, handle)
    }

    async fn read(&self, path: &str) -> Result<(), VfsError> {
        let file = self.file(path);
        let before = self.model.borrow().files[&file].clone();
        let answer = read(&self.life.vfs, self.ino(path)?).await;
        let found = match answer {
            Ok(found) => found,
            Err(error) => {
                if !self.life.death.has_come() {
                    self.trace.count("reads refused");
                }
                return Err(error);
            }
        };
        self.trace.count("reads compared");
        let model = self.model.borrow();
        let now = model.files.get(&file);
        if found != before && now.is_some_and(|now| found != *now) {
            self.trace.violation(format_args!(
                "a read of {path} gave other bytes: {}",
                differ(&before, &found)
            ));
        }
        Ok(())
    }
}
