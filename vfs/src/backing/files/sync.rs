//! Making parts durable: one inode's, or whatever there is.

use super::{Files, Unsynced, dir_of, lacks_descriptors};
use crate::limits::SYNC_EACH_MAX;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

impl Files {
    /// Everything written to `ino` before is durable when it returns.
    pub(in crate::backing) fn sync(&self, ino: u64) -> io::Result<()> {
        let _turn = self.sync_locks[dir_of(ino)].lock();
        // Before the parts are taken: a cut notes its part first.
        let cut = self.cut.lock().get(&ino).copied();
        let Some(taken) = self.unsynced.lock().remove(&ino) else {
            return Ok(());
        };
        let result = match taken.failed {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => self.sync_parts(ino, &taken.parts),
        };
        match &result {
            Ok(()) => self.cut_is_durable(ino, cut),
            Err(e) => self.put_back(ino, taken, Some(e)),
        }
        result
    }

    /// The last cut was this one when a sync began that has ended.
    fn cut_is_durable(&self, ino: u64, cut: Option<u64>) {
        let mut cuts = self.cut.lock();
        if cut.is_some() && cuts.get(&ino).copied() == cut {
            cuts.remove(&ino);
        }
    }

    fn sync_parts(&self, ino: u64, parts: &BTreeMap<u64, bool>) -> io::Result<()> {
        for (&number, &is_new) in parts {
            if let Some(part) = self.part(ino, number, false)? {
                part.file.sync_data()?;
            }
            if is_new {
                let home = self.dir.join(format!("{:02x}", dir_of(ino)));
                self.sync_dir(&home)?;
                if number > 0 {
                    self.sync_dir(&self.parts_dir(ino))?;
                }
            }
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let opened = match File::open(dir) {
            Err(e) if lacks_descriptors(&e) && self.close_idle() => File::open(dir),
            opened => opened,
        };
        opened?.sync_all()
    }

    /// Notes again what was to be synced; with an error it never will be.
    pub(super) fn put_back(&self, ino: u64, taken: Unsynced, error: Option<&io::Error>) {
        let mut unsynced = self.unsynced.lock();
        let entry = unsynced.entry(ino).or_default();
        // Without a descriptor nothing was tried.
        let failed = error.filter(|error| !lacks_descriptors(error));
        let code = failed.map(|error| error.raw_os_error().unwrap_or(libc::EIO));
        entry.failed = taken.failed.or(code);
        for (number, is_new) in taken.parts {
            *entry.parts.entry(number).or_insert(is_new) |= is_new;
        }
    }

    /// The same for every inode.
    pub(in crate::backing) fn sync_all(&self) -> io::Result<()> {
        // A sync that is running has taken its notes already: what it does is done, or noted again, when it ends.
        for lock in &self.sync_locks {
            drop(lock.lock());
        }
        let inos: Vec<u64> = self.unsynced.lock().keys().copied().collect();
        if inos.len() > SYNC_EACH_MAX && self.sync_disk().is_ok() {
            return Ok(());
        }
        // One that fails keeps none of the others from being synced.
        let failed = inos.into_iter().filter_map(|ino| self.sync(ino).err());
        failed.reduce(|first, _| first).map_or(Ok(()), Err)
    }

    /// Everything is durable that is on the filesystem of the cache, whoever wrote it. If that fails it may be for a file of
    /// somebody else: of ours those that are open can each be asked, and are left to their next sync.
    pub(in crate::backing) fn sync_disk(&self) -> io::Result<()> {
        let _turns: Vec<_> = self.sync_locks.iter().map(|lock| lock.lock()).collect();
        let cuts = self.cut.lock().clone();
        let taken = std::mem::take(&mut *self.unsynced.lock());
        let synced = nix::unistd::syncfs(&self.root).map_err(io::Error::from);
        let mut failed = None;
        for (ino, taken) in taken {
            match (taken.failed, &synced) {
                (Some(code), _) => {
                    failed = failed.or(Some(code));
                    self.put_back(ino, taken, None);
                }
                (None, Ok(())) => {}
                (None, Err(e)) => {
                    let error = (!self.is_open(ino, &taken)).then_some(e);
                    self.put_back(ino, taken, error);
                }
            }
        }
        synced?;
        let whole = |ino: &u64| self.unsynced.lock().get(ino).is_none_or(|entry| entry.failed.is_none());
        let durable = cuts.into_iter().filter(|(ino, _)| whole(ino));
        durable.for_each(|(ino, cut)| self.cut_is_durable(ino, Some(cut)));
        failed.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }

    /// Its descriptors are there that will be told of a failure. One that is opened now may not be.
    fn is_open(&self, ino: u64, unsynced: &Unsynced) -> bool {
        let open = self.open.lock();
        let pinned = self.pinned.lock().contains_key(&ino);
        let is_there = |part: &u64| (*part == 0 && pinned) || open.peek((ino, *part)).is_some();
        unsynced.parts.keys().all(is_there)
    }
}
