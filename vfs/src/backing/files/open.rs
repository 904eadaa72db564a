//! Opening a part: its descriptor, for which others give way.

use super::{Files, Part, Readahead, advise, make_dir, taken_by};
use nix::fcntl::PosixFadviseAdvice;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// There was no descriptor to be had, in this process or on this machine.
pub(crate) fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

impl Files {
    /// Where no descriptor is left, those that are only kept for later go first.
    pub(super) fn open_part(&self, ino: u64, number: u64, make: bool) -> io::Result<Option<Arc<Part>>> {
        match self.try_open_part(ino, number, make) {
            Err(e) if lacks_descriptors(&e) && self.close_idle() => self.try_open_part(ino, number, make),
            opened => opened,
        }
    }

    /// Closes what nobody has pinned or is at work with; true if there was something.
    pub(super) fn close_idle(&self) -> bool {
        let mut open = self.open.lock();
        let idle: Vec<_> = std::iter::from_fn(|| open.pop_oldest()).collect();
        drop(open);
        !idle.is_empty()
    }

    fn try_open_part(&self, ino: u64, number: u64, make: bool) -> io::Result<Option<Arc<Part>>> {
        #[cfg(test)]
        if self.open.lock().len() + self.pinned.lock().len() >= DESCRIPTORS.get() {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let path = self.path(ino, number);
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW);
        let (file, is_new) = match options.open(&path) {
            Ok(file) => (file, false),
            Err(e) if e.kind() == ErrorKind::NotFound && make => {
                if number > 0 {
                    make_dir(&self.parts_dir(ino))?;
                }
                match options.create_new(true).open(&path) {
                    // Somebody else has just made it.
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => return self.try_open_part(ino, number, false),
                    made => (made?, true),
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let used = AtomicU64::new(taken_by(&file)?);
        if is_new {
            self.unsynced.lock().entry(ino).or_default().parts.insert(number, true);
        }
        if self.readahead == Readahead::Asked {
            advise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
        }
        let file = Arc::new(file);
        Ok(Some(Arc::new(Part { file, used })))
    }
}

#[cfg(test)]
thread_local! {
    /// How many parts may be open in the files of this thread's test.
    pub(crate) static DESCRIPTORS: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}
