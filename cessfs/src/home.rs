//! Where volumes live on this machine.
//!
//! `HOME/volumes/NAME/{volume.toml, chain.json, keys.json, journal/, cache/, staging/, snapshots/, control.sock, lock, log}`;
//! directories are 0700 and files 0600, because names of volumes and sizes of files are nobody else's business. A
//! volume whose directories somebody else could change is refused ([`trust`]), and what is written there by name is
//! never written through a symbolic link.

#[cfg(test)]
mod tests;
pub mod trust;

use crate::exit::{Exit, Failure};
use crate::limits::{LOCK_BYTES_MAX, VOLUME_NAME_MAX};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A volume's name: `[a-z0-9_-]{1,64}`. Safe in paths, unit names, mount options and on chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeName(String);

impl VolumeName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for VolumeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no volume name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a volume name cannot be empty")]
    Empty,
    /// Past the bound.
    #[error("a volume name has at most {VOLUME_NAME_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// A character outside the set.
    #[error("a volume name has only lower-case letters, digits, `_` and `-`; this one has `{0}`")]
    Character(char),
    /// A dash in front reads like an option.
    #[error("a volume name cannot start with `-`")]
    Dash,
}

impl FromStr for VolumeName {
    type Err = NameError;
    /// Also takes `cess://NAME`, the form that fstab lines use.
    fn from_str(text: &str) -> Result<VolumeName, NameError> {
        let name = text.strip_prefix("cess://").unwrap_or(text);
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if let Some(c) = name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '_' | '-')) {
            return Err(NameError::Character(c));
        }
        if name.starts_with('-') {
            return Err(NameError::Dash);
        }
        if name.len() > VOLUME_NAME_MAX {
            return Err(NameError::TooLong(name.len()));
        }
        Ok(VolumeName(name.to_owned()))
    }
}

/// The directory that holds all volumes of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// The given directory, else the one the platform suggests: `$XDG_DATA_HOME/cessfs` or `~/.local/share/cessfs` for
    /// users, `/var/lib/cessfs` for root (so that a volume made by hand is found by a mount at boot).
    ///
    /// # Errors
    /// When neither is known.
    pub fn find(given: Option<&Path>) -> Result<Home, Failure> {
        let root = nix::unistd::geteuid().is_root();
        let dir = choose(
            given,
            root,
            std::env::var_os("XDG_DATA_HOME").map(PathBuf::from),
            std::env::var_os("HOME").map(PathBuf::from),
        );
        dir.map(Home).ok_or_else(|| {
            Failure::new(Exit::Config, "there is no home directory to keep volumes in").hint("give --home DIR")
        })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A volume's place, whether it exists or not, to ask its daemon; see [`place`](Home::place).
    pub fn volume(&self, name: &VolumeName) -> VolumeDir {
        VolumeDir {
            path: self.0.join("volumes").join(name.as_str()),
            name: name.clone(),
        }
    }

    /// A volume's place, to make it or to work on it.
    ///
    /// # Errors
    /// [`Exit::Permission`] when others could change the directories.
    pub fn place(&self, name: &VolumeName) -> Result<VolumeDir, Failure> {
        let dir = Home(trust::resolved(&self.0)).volume(name);
        trust::check(&dir)?;
        Ok(dir)
    }

    /// A volume that exists.
    ///
    /// # Errors
    /// [`Exit::NoVolume`], naming those that do; [`Exit::Permission`] when others could change its directories.
    pub fn existing(&self, name: &VolumeName) -> Result<VolumeDir, Failure> {
        if self.volume(name).config().is_file() {
            return self.place(name);
        }
        let known = self.names()?;
        let hint = if known.is_empty() {
            format!(
                "there is none in {}: `--home DIR` looks elsewhere, `cessfs init {name} --rpc URL` makes one",
                self.0.display()
            )
        } else {
            let names: Vec<&str> = known.iter().map(VolumeName::as_str).collect();
            format!("volumes in {}: {}", self.0.display(), names.join(", "))
        };
        Err(Failure::new(Exit::NoVolume, format!("there is no volume `{name}`")).hint(hint))
    }

    /// Names of the volumes that exist, sorted.
    ///
    /// # Errors
    /// When the directory is there but cannot be read.
    pub fn names(&self) -> Result<Vec<VolumeName>, Failure> {
        let dir = self.0.join("volumes");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Failure::disk(format!("cannot list {}", dir.display()), &e)),
        };
        let mut names: Vec<VolumeName> = entries
            .filter_map(Result::ok)
            .filter(|e| e.path().join("volume.toml").is_file())
            .filter_map(|e| e.file_name().to_str().and_then(|n| n.parse().ok()))
            .collect();
        names.sort();
        Ok(names)
    }
}

fn choose(given: Option<&Path>, root: bool, xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let given = given.filter(|p| !p.as_os_str().is_empty());
    if let Some(dir) = given {
        return Some(std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
    }
    if root {
        return Some(PathBuf::from("/var/lib/cessfs"));
    }
    xdg.filter(|p| p.is_absolute())
        .or_else(|| home.filter(|p| p.is_absolute()).map(|h| h.join(".local/share")))
        .map(|d| d.join("cessfs"))
}

/// The directory of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeDir {
    path: PathBuf,
    name: VolumeName,
}

impl VolumeDir {
    /// The volume's name.
    pub fn name(&self) -> &VolumeName {
        &self.name
    }
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// The home it is in.
    pub fn home(&self) -> &Path {
        let home = self.path.parent().and_then(Path::parent);
        home.expect("a volume lies in HOME/volumes")
    }
    /// Where this volume is put together before it exists: beside it, under a name that no volume can have.
    pub fn under_construction(&self) -> VolumeDir {
        VolumeDir {
            path: self.path.with_file_name(format!(".{}.recovering", self.name)),
            name: self.name.clone(),
        }
    }
    /// Removes what an interrupted construction left here.
    ///
    /// # Errors
    /// [`Exit::Busy`] while another process is at it.
    pub fn clear(&self) -> Result<(), Failure> {
        if !self.path.exists() {
            return Ok(());
        }
        let lock = self.lock()?;
        std::fs::remove_dir_all(&self.path)
            .map_err(|e| Failure::disk(format!("cannot remove {}", self.path.display()), &e))?;
        drop(lock);
        Ok(())
    }
    /// Removes everything from the journal's directory. Nobody may have it open.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn empty_journal(&self) -> Result<(), Failure> {
        let journal = self.journal();
        let cannot = |e| Failure::disk(format!("cannot empty {}", journal.display()), &e);
        std::fs::remove_dir_all(&journal).map_err(cannot)?;
        private_dirs().create(&journal).map_err(cannot)
    }
    /// Gives a finished construction its place, atomically and durably.
    ///
    /// # Errors
    /// [`Exit::Exists`] when there is a volume by now.
    pub fn move_to(&self, place: &VolumeDir) -> Result<(), Failure> {
        let cannot = |e| Failure::disk(format!("cannot make {}", place.path.display()), &e);
        for dir in [self.journal(), self.path.clone()] {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(cannot)?;
        }
        if place.path.exists() {
            let what = format!("there is already a volume `{}`", place.name);
            return Err(Failure::new(Exit::Exists, what).hint("choose another name"));
        }
        // Were it made this very moment, the rename would fail: its directory would not be empty.
        std::fs::rename(&self.path, &place.path).map_err(cannot)?;
        sync_parent(&place.path).map_err(cannot)
    }
    /// `volume.toml`.
    pub fn config(&self) -> PathBuf {
        self.path.join("volume.toml")
    }
    /// The network it is on.
    pub fn network(&self) -> PathBuf {
        self.path.join("chain.json")
    }
    /// The key slots.
    pub fn keys(&self) -> PathBuf {
        self.path.join("keys.json")
    }
    /// The metadata store.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }
    /// Room that is set aside for the metadata store.
    pub fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
    /// The backing files.
    pub fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }
    /// Sealed packs on their way out.
    pub fn staging(&self) -> PathBuf {
        self.path.join("staging")
    }
    /// What the last `fsck` found.
    pub fn fsck_report(&self) -> PathBuf {
        self.path.join("fsck.json")
    }
    /// Trees of snapshots that were looked at.
    pub fn trees(&self) -> PathBuf {
        self.path.join("snapshots")
    }
    /// The daemon's log.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }
    /// What the daemon knew when it ended: `status` tells it while nothing is mounted.
    pub fn last_status(&self) -> PathBuf {
        self.path.join("last-status.json")
    }

    /// Path of the control socket as `bind` and `connect` take it. Goes through the directory's descriptor, because a
    /// socket's address has room for 107 bytes and homes can be deeper than that. Keep the file open while using it.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn socket(&self) -> std::io::Result<(File, PathBuf)> {
        let dir = File::open(&self.path)?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&dir);
        let path = PathBuf::from(format!("/proc/self/fd/{fd}/control.sock"));
        Ok((dir, path))
    }

    /// Makes the volume's directories.
    ///
    /// # Errors
    /// [`Exit::Exists`] when there is a volume already; nothing was changed then.
    pub fn create(&self) -> Result<(), Failure> {
        let parent = self.path.parent().expect("a volume lies in HOME/volumes");
        let cannot = |e| Failure::disk(format!("cannot make {}", self.path.display()), &e);
        private_dirs().recursive(true).create(parent).map_err(cannot)?;
        match private_dirs().create(&self.path) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                let what = format!("there is already a volume `{}` in {}", self.name, parent.display());
                return Err(Failure::new(Exit::Exists, what).hint("choose another name, or move that directory away"));
            }
            Err(e) => return Err(cannot(e)),
        }
        for dir in [self.journal(), self.cache(), self.staging()] {
            private_dirs().create(&dir).map_err(cannot)?;
        }
        // Looked at again: where anybody may make directories, somebody can have made one of these since.
        trust::check(self)?;
        // The names of the directories, up to the home's own: what is written in them later is no safer than they are.
        for made in [&self.journal(), &self.path, parent, self.home()] {
            sync_parent(made).map_err(cannot)?;
        }
        Ok(())
    }

    /// Takes the volume for this process, until the result is dropped (I10).
    ///
    /// # Errors
    /// [`Exit::Busy`] with the pid of the process that has it.
    pub fn lock(&self) -> Result<VolumeLock, Failure> {
        let path = self.path.join("lock");
        let cannot = |e| Failure::disk(format!("cannot lock {}", path.display()), &e);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let who = match self.holder() {
                    Some(pid) => format!("process {pid}"),
                    None => "another process".to_owned(),
                };
                let what = format!("volume `{}` is in use by {who}", self.name);
                return Err(Failure::new(Exit::Busy, what).hint(format!(
                    "`cessfs status {}` tells more; unmount it there first",
                    self.name
                )));
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(cannot(e)),
        }
        // Only told to people: a disk without room for it may be one on which this process is to make some.
        let _without_a_pid = sign(&mut file);
        Ok(VolumeLock { _file: file })
    }

    /// The process that has the volume, as it says of itself; `None` if that cannot be read. It may have ended since.
    pub fn holder(&self) -> Option<u32> {
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(self.path.join("lock")).ok()?;
        let mut pid = String::new();
        file.take(LOCK_BYTES_MAX).read_to_string(&mut pid).ok()?;
        pid.trim().parse().ok()
    }

    /// Whether some process has the volume. Only looks.
    pub fn is_locked(&self) -> bool {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.path.join("lock"));
        file.is_ok_and(|f| matches!(f.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
    }
}

/// Puts this process down as the one that has the lock.
fn sign(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// Held by the one process that may change a volume; the kernel lets go of it when that process ends, however it ends.
#[derive(Debug)]
pub struct VolumeLock {
    _file: File,
}

/// Makes a private directory, and those above it, unless it is there.
///
/// # Errors
/// When the disk refuses.
pub fn private_dir(path: &Path) -> Result<(), Failure> {
    let made = private_dirs().recursive(true).create(path);
    made.map_err(|e| Failure::disk(format!("cannot make {}", path.display()), &e))
}

fn private_dirs() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Writes a new private file and returns when it would survive a power cut.
///
/// # Errors
/// [`Exit::Exists`] when the file is there already: it is never overwritten.
pub fn write_new(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let cannot = |e| Failure::disk(format!("cannot write {}", path.display()), &e);
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Failure::new(
                Exit::Exists,
                format!("{} exists and is not overwritten", path.display()),
            )
            .hint("name a file that does not exist"));
        }
        Err(e) => return Err(cannot(e)),
    };
    file.write_all(content).map_err(cannot)?;
    file.sync_all().map_err(cannot)?;
    sync_parent(path).map_err(cannot)
}

/// Replaces a private file atomically: the old content or the new, never a part.
///
/// # Errors
/// When the disk refuses.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let cannot = |e| Failure::disk(format!("cannot write {}", path.display()), &e);
    let fresh = path.with_extension("new");
    let mut file = taken(&fresh).map_err(cannot)?;
    file.set_len(0).map_err(cannot)?;
    file.write_all(content).map_err(cannot)?;
    file.sync_all().map_err(cannot)?;
    std::fs::rename(&fresh, path).map_err(cannot)?;
    sync_parent(path).map_err(cannot)
}

/// Opens a file that is about to be renamed, for one at a time: of two who write into it one would put the other's half into its place.
fn taken(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW);
    loop {
        let file = options.open(path)?;
        file.lock()?;
        // Whoever had it before has renamed it.
        let (ours, there) = (file.metadata()?, path.symlink_metadata());
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
}

/// Reads a text; `None` if it has more than `bytes_max` bytes, however long it is said to be.
///
/// # Errors
/// When the disk refuses, or it is no text.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<Option<String>, Failure> {
    let cannot = |e| Failure::disk(format!("cannot read {}", path.display()), &e);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > bytes_max {
        return Ok(None);
    }
    let not_text = |_| Failure::new(Exit::Config, format!("{} is not text in UTF-8", path.display()));
    String::from_utf8(bytes).map(Some).map_err(not_text)
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Whether somebody besides the owner can read a file.
pub fn is_exposed(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o044 != 0)
}
