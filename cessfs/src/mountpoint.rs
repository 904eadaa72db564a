//! Directories as mount points: what is mounted where, whether a volume may be mounted there, and how it goes away.
//!
//! Looks at `/proc/self/mountinfo` before it touches a directory: a `stat` on an automount trigger would start the very
//! mount it is asked about, and one on a dead FUSE mount fails.

mod held;
mod holders;
mod place;
mod source;
#[cfg(test)]
mod tests;

pub use holders::still_held;
pub use place::Place;
pub use source::Source;

use crate::exit::{Exit, Failure};
use crate::home::{VolumeDir, VolumeName};
use crate::limits::ANSWER_TIMEOUT;
use crate::output;
pub use held::Held;
use nix::errno::Errno;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

/// File system type that a mount of ours shows.
pub const FS_TYPE: &str = "fuse.cessfs";

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Where.
    pub dir: PathBuf,
    /// What of the file system shows there: a bind mount may show a part of it.
    pub root: PathBuf,
    /// Type, with subtype.
    pub fs_type: String,
    /// Source.
    pub source: OsString,
    /// Device number's major half.
    pub major: u32,
    /// Device number's minor half: the name of a FUSE connection under `/sys/fs/fuse/connections`.
    pub minor: u32,
}

impl MountEntry {
    /// The volume that is mounted here, if it is one of ours.
    pub fn volume(&self) -> Option<VolumeName> {
        let source = (self.fs_type == FS_TYPE).then(|| Source::parse(&self.source));
        source?.ok().map(|source| source.name().clone())
    }

    /// Whether what shows here can be this volume; whose home it is is not always shown.
    pub fn may_be(&self, volume: &VolumeDir) -> bool {
        let source = (self.fs_type == FS_TYPE).then(|| Source::parse(&self.source));
        let source = source.and_then(Result::ok);
        source.is_some_and(|s| s.name() == volume.name() && s.home().is_none_or(|home| home == volume.home()))
    }

    /// Device number, `MAJOR:MINOR`: the same for every place where one mount shows, another for every other mount.
    pub fn device(&self) -> String {
        format!("{}:{}", self.major, self.minor)
    }
}

/// Everything this process sees mounted, in mount order.
///
/// # Errors
/// When `/proc` is not there.
pub fn mounts() -> Result<Vec<MountEntry>, Failure> {
    let text =
        std::fs::read("/proc/self/mountinfo").map_err(|e| Failure::disk("cannot read /proc/self/mountinfo", &e))?;
    Ok(text.split(|b| *b == b'\n').filter_map(parse_line).collect())
}

/// `36 35 98:0 /root /mnt rw,noatime shared:1 - ext4 /dev/root rw`: see proc_pid_mountinfo(5).
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|b| *b == b' ');
    let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let root = PathBuf::from(unescape(fields.next()?));
    let dir = PathBuf::from(unescape(fields.next()?));
    let mut rest = fields.skip_while(|f| *f != b"-").skip(1);
    let fs_type = String::from_utf8_lossy(rest.next()?).into_owned();
    Some(MountEntry {
        dir,
        root,
        fs_type,
        source: unescape(rest.next()?),
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

/// The kernel writes space, tab, newline, backslash and `#` as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut i = 0;
    while i < field.len() {
        let octal = (field[i] == b'\\')
            .then(|| field.get(i + 1..i + 4))
            .flatten()
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                i += 4;
            }
            None => {
                out.push(field[i]);
                i += 1;
            }
        }
    }
    OsString::from_vec(out)
}

/// A path made absolute without touching its last component, which may be a dead mount or an automount trigger.
///
/// # Errors
/// When the directory it lies in does not exist.
pub fn resolve(dir: &Path) -> Result<PathBuf, Failure> {
    let wrong = |e: std::io::Error| Failure::new(Exit::Mountpoint, format!("{}: {e}", dir.display()));
    let absolute = std::path::absolute(dir).map_err(wrong)?;
    if let Ok(path) = absolute.canonicalize() {
        return Ok(path);
    }
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => match parent.canonicalize() {
            Ok(parent) => Ok(parent.join(name)),
            // Below a dead mount nothing can be looked at.
            Err(e) if e.kind() == std::io::ErrorKind::NotConnected => Ok(absolute),
            Err(e) => Err(wrong(e)),
        },
        _ => Ok(absolute),
    }
}

/// The topmost mount on exactly this directory.
pub fn mounted_at(mounts: &[MountEntry], dir: &Path) -> Option<MountEntry> {
    mounts.iter().rev().find(|m| m.dir == dir).cloned()
}

/// The mount that a path lies in.
pub fn mount_of(mounts: &[MountEntry], path: &Path) -> Option<MountEntry> {
    let depth = |m: &MountEntry| m.dir.components().count();
    mounts
        .iter()
        .filter(|m| path.starts_with(&m.dir))
        .max_by_key(|m| depth(m))
        .cloned()
}

/// A directory to mount on.
#[derive(Debug)]
pub struct MountPoint {
    /// Its path, without symbolic links.
    pub path: PathBuf,
    /// What is there until it is mounted on.
    pub beneath: Beneath,
}

/// What a volume is mounted on.
#[derive(Debug)]
pub enum Beneath {
    /// An empty directory.
    Directory(Held),
    /// An automount trigger: to open it is what the trigger waits for.
    Trigger,
    /// A mount that a daemon left which has died. It stays until the new one is made: programs are told that nobody answers, and do not
    /// write into the directory beneath, where nobody would look for it.
    DeadMount,
}

impl Beneath {
    /// Makes way for a mount, which is to be made at once. The directory to mount on, but for a trigger.
    ///
    /// # Errors
    /// [`Exit::Mountpoint`] when something else is there by now, or something was put into the directory.
    pub fn clear(self, dir: &Path) -> Result<Option<Held>, Failure> {
        let held = match self {
            Beneath::Trigger => return Ok(None),
            Beneath::Directory(held) => held,
            Beneath::DeadMount => uncover(dir)?,
        };
        held.is_still(dir)?;
        is_empty(&held, dir)?;
        Ok(Some(held))
    }
}

/// Takes a dead mount away, and gives the directory that it covered.
fn uncover(dir: &Path) -> Result<Held, Failure> {
    let mount = mounted_at(&mounts()?, dir).filter(|mount| mount.volume().is_some());
    if mount.is_none() || !is_dead(dir) {
        let what = format!("the dead mount on {} is not there any more", dir.display());
        return Err(Failure::new(Exit::Mountpoint, what).hint("try again"));
    }
    detach(dir)?;
    tell!("removed a mount that a daemon left behind on {}", dir.display());
    hold_dir(dir)
}

/// Makes sure that a volume can be mounted on a directory, and changes nothing there. Links in the path are followed here, and never
/// again.
///
/// # Errors
/// [`Exit::Mountpoint`].
pub fn prepare(dir: &Path) -> Result<MountPoint, Failure> {
    prepare_resolved(resolve(dir)?)
}

/// The same for a path that [`prepare`] has found.
///
/// # Errors
/// [`Exit::Mountpoint`].
pub fn prepare_resolved(dir: PathBuf) -> Result<MountPoint, Failure> {
    if let Some(mount) = mounted_at(&mounts()?, &dir) {
        if mount.fs_type == "autofs" {
            // The trigger that asked for this mount; it lets the mounting process through.
            return Ok(MountPoint {
                path: dir,
                beneath: Beneath::Trigger,
            });
        }
        if mount.volume().is_none() || !is_dead(&dir) {
            let what = match mount.volume() {
                Some(volume) => format!("volume `{volume}` is already mounted on {}", dir.display()),
                None => format!("{} is already a mount point of {}", dir.display(), mount.fs_type),
            };
            return Err(Failure::new(Exit::Mountpoint, what).hint("unmount it, or choose another directory"));
        }
        return Ok(MountPoint {
            path: dir,
            beneath: Beneath::DeadMount,
        });
    }
    let held = hold_dir(&dir)?;
    is_empty(&held, &dir)?;
    Ok(MountPoint {
        path: dir,
        beneath: Beneath::Directory(held),
    })
}

fn hold_dir(dir: &Path) -> Result<Held, Failure> {
    let wrong = |what: String| Failure::new(Exit::Mountpoint, what);
    Held::open(dir).map_err(|e| match e {
        Errno::ENOENT => wrong(format!("mount point {} does not exist", dir.display()))
            .hint(format!("`mkdir {}`", output::word(dir))),
        Errno::ENOTDIR => {
            wrong(format!("mount point {} is not a directory", dir.display())).hint("choose an empty directory")
        }
        _ => wrong(format!("mount point {}: {e}", dir.display())),
    })
}

fn is_empty(held: &Held, dir: &Path) -> Result<(), Failure> {
    let wrong = |what: String| Failure::new(Exit::Mountpoint, what);
    let mut entries =
        std::fs::read_dir(held.path()).map_err(|e| wrong(format!("mount point {}: {e}", dir.display())))?;
    if entries.next().is_some() {
        return Err(wrong(format!("mount point {} is not empty", dir.display()))
            .hint("the mount would hide what is there; choose an empty directory"));
    }
    Ok(())
}

/// Whether the daemon behind a FUSE mount is gone ("Transport endpoint is not connected"). Asks for the filesystem's
/// statistics: attributes of the directory itself may still be in the kernel's memory. A daemon that is stopped or stuck gives none; it is
/// not waited for longer than for any other answer, and is not dead.
pub fn is_dead(dir: &Path) -> bool {
    let (sender, answer) = mpsc::channel();
    let asked = dir.to_owned();
    let asking = std::thread::spawn(move || sender.send(nix::sys::statvfs::statvfs(&asked).map(drop)));
    let Ok(answer) = answer.recv_timeout(ANSWER_TIMEOUT) else {
        return false;
    };
    // Nobody else may take the signals that a prompt waits for.
    let _answered = asking.join();
    matches!(answer, Err(Errno::ENOTCONN | Errno::ECONNABORTED | Errno::ENODEV))
}

/// Unmounts.
///
/// # Errors
/// [`Exit::Busy`] while something uses the mount, [`Exit::Permission`] when the system refuses.
pub fn unmount(dir: &Path) -> Result<(), Failure> {
    remove(dir, false)
}

/// Takes a mount out of the tree even while it is in use; what is open goes on until it is closed.
///
/// # Errors
/// [`Exit::Permission`] when the system refuses.
pub fn detach(dir: &Path) -> Result<(), Failure> {
    remove(dir, true)
}

fn remove(dir: &Path, lazy: bool) -> Result<(), Failure> {
    use nix::mount::{MntFlags, umount2};
    let flags = if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(dir, flags | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err(busy(dir)),
        Err(Errno::EPERM) => fusermount(dir, lazy),
        Err(Errno::EINVAL) => Err(Failure::new(
            Exit::NotMounted,
            format!("nothing is mounted on {}", dir.display()),
        )),
        Err(e) => Err(Failure::new(
            Exit::Permission,
            format!("cannot unmount {}: {e}", dir.display()),
        )),
    }
}

/// Users may not call umount(2); fuse3's setuid helper does it for them.
fn fusermount(dir: &Path, lazy: bool) -> Result<(), Failure> {
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(dir).output().map_err(|e| {
        Failure::new(Exit::Permission, format!("cannot run fusermount3: {e}")).hint("install the package fuse3")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if message.contains("busy") {
        return Err(busy(dir));
    }
    Err(Failure::new(
        Exit::Permission,
        format!("cannot unmount {}: {message}", dir.display()),
    ))
}

fn busy(dir: &Path) -> Failure {
    Failure::new(Exit::Busy, format!("{} is in use", dir.display())).hint(format!(
        "`fuser -vm {}` tells by whom; close it and try again",
        output::word(dir)
    ))
}

/// The mount of ours that a path lies in.
///
/// # Errors
/// [`Exit::NotMounted`] when it lies in no such mount.
pub fn ours_of(path: &Path) -> Result<MountEntry, Failure> {
    let mount = mount_of(&mounts()?, path).filter(|mount| mount.volume().is_some());
    mount.ok_or_else(|| {
        let what = format!("{} is not in a mounted cessfs volume", path.display());
        Failure::new(Exit::NotMounted, what).hint("give a path inside the mount")
    })
}

/// Bytes of a path from the volume's root, with a leading slash: how the daemon names files.
pub fn path_within(mount: &MountEntry, path: &Path) -> Vec<u8> {
    let inner = path.strip_prefix(&mount.dir).unwrap_or(path);
    // Joining nothing would leave a slash at the end.
    let whole = match inner.as_os_str().is_empty() {
        true => mount.root.clone(),
        false => mount.root.join(inner),
    };
    whole.into_os_string().into_vec()
}
