//! Directories reached name by name, so that no symbolic link on the way is followed and nothing above the start is
//! reached.
//!
//! A path is resolved anew by each call that is given one, and whoever can change a directory in it can lead each call
//! elsewhere. A descriptor stays at its directory. Same as openat2(2) with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`, on
//! every kernel.

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

/// What a directory that is made gets, less the umask.
const DIR_MODE: Mode = Mode::from_bits_truncate(0o777);

/// Opens a directory as a place, neither for reading nor for listing.
///
/// # Errors
/// `ENOTDIR` for a symbolic link, too.
fn step(from: impl AsFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(from, name, flags, Mode::empty())
}

fn names(path: &Path) -> impl Iterator<Item = nix::Result<&OsStr>> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(Ok(name)),
        Component::RootDir | Component::CurDir => None,
        // They lead out of the start.
        Component::ParentDir | Component::Prefix(_) => Some(Err(Errno::EXDEV)),
    })
}

/// The directory of a path from the start, or from its root: the same thing here.
///
/// # Errors
/// `ENOTDIR` where a symbolic link, or what is no directory, is in the way; `EXDEV` for `..`.
pub fn walk(start: OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    names(path).try_fold(start, |at, name| step(at, name?))
}

/// As [`walk`], and makes what is missing.
///
/// # Errors
/// As [`walk`], and what keeps a directory from being made.
pub fn walk_making(start: OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    names(path).try_fold(start, |at, name| {
        let name = name?;
        match step(&at, name) {
            Err(Errno::ENOENT) => {}
            reached => return reached,
        }
        match mkdirat(&at, name, DIR_MODE) {
            Ok(()) | Err(Errno::EEXIST) => step(&at, name),
            Err(e) => Err(e),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_is_followed_and_nothing_is_made_beyond_one() {
        let tmp = tempfile::tempdir().unwrap();
        let (inside, outside) = (tmp.path().join("in"), tmp.path().join("out"));
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, inside.join("a/link")).unwrap();
        fs::write(inside.join("file"), "x").unwrap();
        let start = || OwnedFd::from(File::open(&inside).unwrap());
        assert!(walk(start(), Path::new("/a/./b")).is_ok());
        for (path, errno) in [
            ("a/link", Errno::ENOTDIR),
            ("a/link/new", Errno::ENOTDIR),
            ("file", Errno::ENOTDIR),
            ("a/../../out", Errno::EXDEV),
        ] {
            assert_eq!(walk(start(), Path::new(path)).unwrap_err(), errno, "{path}");
            assert_eq!(walk_making(start(), Path::new(path)).unwrap_err(), errno, "{path}");
        }
        assert_eq!(walk(start(), Path::new("new/x")).unwrap_err(), Errno::ENOENT);
        walk_making(start(), Path::new("new/x")).unwrap();
        assert!(inside.join("new/x").is_dir());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
