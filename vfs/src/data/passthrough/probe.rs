//! Whether the cache's filesystem allows what passing relies on: asked of the filesystem, not of its name.

use crate::backing::sparse;
use std::ffi::c_void;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;
use std::time::Duration;

/// Name of the file that is tried; none of an inode.
const PROBE_NAME: &str = "probe";
const PAGE: usize = 4096;
/// Longer than a tick of the kernel's clock of files.
const A_TICK: Duration = Duration::from_millis(12);

/// Why files under `dir` cannot be handed to the kernel; `None` if they can.
pub(crate) fn why_not(dir: &Path) -> Option<String> {
    let path = dir.join(PROBE_NAME);
    let found = probe(&path);
    // A file left behind is written over by the next probe.
    let _ = fs::remove_file(&path);
    match found {
        Ok(found) => found.map(str::to_owned),
        Err(e) => Some(format!("{} cannot be tried: {e}", dir.display())),
    }
}

fn probe(path: &Path) -> io::Result<Option<&'static str>> {
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
    };
    let kept = open()?;
    kept.set_len(0)?;
    kept.write_all_at(&[1; PAGE], 0)?;
    kept.sync_data()?;
    if !sparse::is_alone(&kept)? {
        return Ok(Some("its filesystem gives no leases"));
    }
    let page = Mapped::of(&open()?)?;
    if sparse::is_alone(&kept)? {
        return Ok(Some("its filesystem does not tell who has a file mapped"));
    }
    // A page that was stored to and synced is one that must be asked for again.
    page.store(2);
    kept.sync_data()?;
    let before = kept.metadata()?;
    #[expect(clippy::disallowed_methods, reason = "the tick is that of the kernel's own clock")]
    std::thread::sleep(A_TICK);
    page.store(3);
    let after = kept.metadata()?;
    let moved = (before.ctime(), before.ctime_nsec()) != (after.ctime(), after.ctime_nsec());
    Ok((!moved).then_some("its filesystem does not tell when a mapping was written to"))
}

/// The first page of a file, mapped shared; the file need not stay open.
struct Mapped(NonNull<c_void>);

impl Mapped {
    fn of(file: &File) -> io::Result<Mapped> {
        let (fd, both) = (file.as_raw_fd(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the kernel chooses the place, so no memory of this process is replaced; the descriptor is open.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, both, libc::MAP_SHARED, fd, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(at)
            .map(Mapped)
            .ok_or_else(|| io::Error::other("mapped at address 0"))
    }

    fn store(&self, byte: u8) {
        // SAFETY: the mapping is a page long and lives as long as `self`; the file has a byte there, so that no SIGBUS comes.
        unsafe { self.0.cast::<u8>().write_volatile(byte) };
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length, and nothing else holds the address.
        let unmapped = unsafe { libc::munmap(self.0.as_ptr(), PAGE) };
        debug_assert_eq!(unmapped, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_no_disk() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        assert!(why_not(dir.path()).is_some_and(|why| why.contains("mapping was written")));
        assert!(why_not(&dir.path().join("missing")).is_some_and(|why| why.contains("cannot be tried")));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_mapping_is_company() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [0; PAGE]).unwrap();
        let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let kept = open();
        assert!(sparse::is_alone(&kept).unwrap());
        let page = Mapped::of(&open()).unwrap();
        assert!(!sparse::is_alone(&kept).unwrap(), "mapped, though closed");
        drop(page);
        assert!(sparse::is_alone(&kept).unwrap());
        let reader = std::fs::File::open(&path).unwrap();
        assert!(!sparse::is_alone(&kept).unwrap(), "a reader counts");
        drop(reader);
        assert!(sparse::is_alone(&kept).unwrap());
    }
}
