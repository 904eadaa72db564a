//! A directory held from when it was found fit to be mounted on until it is.
//!
//! In between lie a passphrase and the opening of a journal, and mount(2) follows symbolic links: whoever can rename a
//! directory of the path could have root mount over another one meanwhile.

use crate::exit::{Exit, Failure};
use crate::steps;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, fstat};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// An open directory. Keeps the filesystem that it is on from being unmounted.
#[derive(Debug)]
pub struct Held {
    fd: OwnedFd,
    found: FileStat,
}

impl Held {
    /// Opens a directory by a path without symbolic links.
    ///
    /// # Errors
    /// `ENOTDIR` where a symbolic link has come into the path.
    pub fn open(dir: &Path) -> nix::Result<Held> {
        let root = open(
            "/",
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let fd = steps::walk(root, dir)?;
        let found = fstat(&fd)?;
        Ok(Held { fd, found })
    }

    /// A path that leads to this very directory, in this process.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// File type and permissions.
    pub fn mode(&self) -> u32 {
        self.found.st_mode
    }

    /// Makes sure that a path still leads here.
    ///
    /// # Errors
    /// [`Exit::Mountpoint`].
    pub fn is_still(&self, dir: &Path) -> Result<(), Failure> {
        let there = Held::open(dir).map(|held| (held.found.st_dev, held.found.st_ino));
        if there == Ok((self.found.st_dev, self.found.st_ino)) {
            return Ok(());
        }
        let what = format!(
            "{} was put aside for something else while it was being mounted on",
            dir.display()
        );
        Err(Failure::new(Exit::Mountpoint, what).hint("mount on a directory that nobody else can rename"))
    }
}
