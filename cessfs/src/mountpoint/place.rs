//! The place of one mount, by what it is and not by its path: another file system may come to lie on the directory, a directory above it
//! may get another name, and somebody may take the mount away while it is in use.

use super::{FS_TYPE, MountEntry, detach, mounted_at, mounts, unmount};
use crate::exit::{Exit, Failure};
use crate::home::VolumeName;
use nix::sys::stat::{fstat, major, minor};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where a mount was made, and which one it is.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    /// Its device number, which no other mount has while this one lives; empty before it was seen.
    device: OnceLock<String>,
}

impl Place {
    /// The directory of a mount that is about to be made.
    pub fn new(dir: &Path) -> Place {
        Place {
            dir: dir.to_owned(),
            device: OnceLock::new(),
        }
    }

    /// Remembers what was just mounted; right after it was.
    pub fn note(&self, volume: &VolumeName) {
        let ours = mounts().ok().and_then(|mounts| mounted_at(&mounts, &self.dir));
        if let Some(ours) = ours.filter(|mount| mount.volume().as_ref() == Some(volume)) {
            let _noted_before = self.device.set(ours.device());
        }
    }

    /// Where it was mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Device number of the mount. It is given to another once this mount is gone.
    pub fn device(&self) -> Option<String> {
        self.device.get().cloned()
    }

    /// Where it is now.
    ///
    /// # Errors
    /// [`Exit::Busy`] when no path leads to it any more; [`Exit::Disk`] when the mounts cannot be read.
    pub fn now(&self) -> Result<PathBuf, Failure> {
        match self.device.get() {
            Some(device) => found(&mounts()?, device, &self.dir).ok_or_else(|| self.taken_away()),
            // It could not be seen: there is nothing but the path.
            None => Ok(self.dir.clone()),
        }
    }

    /// Opens its root.
    ///
    /// # Errors
    /// As [`now`](Place::now), and [`Exit::Disk`] when it does not open.
    pub fn open(&self) -> Result<File, Failure> {
        let cannot = |e: std::io::Error| Failure::disk("cannot open the mount", &e);
        let root = File::open(self.now()?).map_err(cannot)?;
        let dev = fstat(&root).map_err(|e| cannot(e.into()))?.st_dev;
        // What was mounted over it since has another.
        match self.device.get() {
            Some(device) if *device != format!("{}:{}", major(dev), minor(dev)) => Err(self.taken_away()),
            _ => Ok(root),
        }
    }

    /// Unmounts it, and nothing else.
    ///
    /// # Errors
    /// As [`now`](Place::now) and [`unmount`].
    pub fn unmount(&self) -> Result<(), Failure> {
        unmount(&self.now()?)
    }

    /// Takes it, and nothing else, out of the tree even while it is in use.
    ///
    /// # Errors
    /// As [`now`](Place::now) and [`detach`].
    pub fn detach(&self) -> Result<(), Failure> {
        detach(&self.now()?)
    }

    fn taken_away(&self) -> Failure {
        let what = format!(
            "the mount on {} was taken away, or covered, while in use",
            self.dir.display()
        );
        Failure::new(Exit::Busy, what)
            .hint("what programs wrote there may still be with the kernel: close them, and unmount what covers it")
    }
}

/// Where a path leads to this mount: to `dir` if it does, else to another place where all of it shows.
fn found(mounts: &[MountEntry], device: &str, dir: &Path) -> Option<PathBuf> {
    let is_on_top = |dir: &Path| mounted_at(mounts, dir).is_some_and(|mount| mount.device() == device);
    if is_on_top(dir) {
        return Some(dir.to_owned());
    }
    let shows = |mount: &&MountEntry| {
        mount.fs_type == FS_TYPE && mount.root == Path::new("/") && mount.device() == device && is_on_top(&mount.dir)
    };
    mounts.iter().find(shows).map(|mount| mount.dir.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(dir: &str, root: &str, fs_type: &str, minor: u32) -> MountEntry {
        MountEntry {
            dir: dir.into(),
            root: root.into(),
            fs_type: fs_type.into(),
            source: "photos".into(),
            major: 0,
            minor,
        }
    }

    #[test]
    fn a_mount_is_found_by_what_it_is() {
        let ours = |dir| mount(dir, "/", FS_TYPE, 51);
        let found = |mounts: &[MountEntry]| found(mounts, "0:51", Path::new("/a"));
        assert_eq!(found(&[ours("/a")]), Some("/a".into()));
        assert_eq!(found(&[ours("/b"), ours("/a")]), Some("/a".into()));
        assert_eq!(found(&[ours("/renamed/a")]), Some("/renamed/a".into()));
        assert_eq!(found(&[]), None, "taken away");
        assert_eq!(found(&[ours("/a"), mount("/a", "/", "tmpfs", 52)]), None, "covered");
        assert_eq!(
            found(&[mount("/a", "/", FS_TYPE, 52)]),
            None,
            "another of the same volume"
        );
        assert_eq!(found(&[mount("/b", "/part", FS_TYPE, 51)]), None, "a part of it");
    }

    #[test]
    fn what_is_nowhere_is_neither_opened_nor_unmounted() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        assert_eq!(place.now().unwrap(), dir.path(), "it was never seen");
        place.device.set("4095:1048575".into()).unwrap();
        assert_eq!(place.open().unwrap_err().exit, Exit::Busy);
        assert_eq!(place.unmount().unwrap_err().exit, Exit::Busy);
        assert_eq!(place.detach().unwrap_err().exit, Exit::Busy);
    }
}
