//! Who else could change what a volume's directory is.
//!
//! What is in it is found by path, and created, emptied and replaced by path. Who can change a directory on the way
//! there could put a symbolic link in the place of `journal` or `log`, and have a daemon with more rights write where
//! it leads. So, as sshd is with keys: HOME, HOME/volumes and the volume's directory belong to the user or to root, and
//! nobody else may change them. What is above them is the business of who chose the place: a checkout that root builds
//! in often is somebody else's.

use super::VolumeDir;
use crate::exit::{Exit, Failure};
use crate::output;
use nix::unistd::{Uid, User};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Others may make entries, but not touch those of others.
const STICKY: u32 = 0o1000;
/// Group and others may change it.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A home by a path without symbolic links, as far as it is there. Who can change one of those cannot redirect this
/// path.
pub(super) fn resolved(home: &Path) -> PathBuf {
    for dir in home.ancestors() {
        if let Ok(real) = dir.canonicalize() {
            let rest = home.strip_prefix(dir).expect("it is above this path");
            return if rest.as_os_str().is_empty() {
                real
            } else {
                real.join(rest)
            };
        }
    }
    home.to_owned()
}

/// Refuses a volume whose directories, as far as they are there, somebody else could change. Its home's path is
/// [`resolved`].
///
/// # Errors
/// [`Exit::Permission`].
pub(super) fn check(volume: &VolumeDir) -> Result<(), Failure> {
    let me = nix::unistd::geteuid();
    let volumes = volume.path.parent().expect("a volume lies in HOME/volumes");
    let ours = [volume.home(), volumes, &volume.path];
    for dir in ours {
        // A link, too: in a sticky directory anybody can make one.
        if let Some(entry) = there(dir, std::fs::symlink_metadata(dir))? {
            check_owner(dir, entry.uid(), me)?;
        }
    }
    for dir in ours {
        if let Some(found) = there(dir, std::fs::metadata(dir))? {
            check_owner(dir, found.uid(), me)?;
            // Names in the volume's own directory are fixed: who can make any is one too many.
            check_mode(dir, found.mode(), *dir != volume.path)?;
        }
    }
    Ok(())
}

/// Refuses a directory that somebody else could change, or could exchange for another: in a sticky one nobody else can once it is there.
///
/// # Errors
/// [`Exit::Permission`].
pub fn check_dir(dir: &Path) -> Result<(), Failure> {
    let me = nix::unistd::geteuid();
    let cannot = |e: std::io::Error| Failure::disk(format!("cannot look at {}", dir.display()), &e);
    let entry = std::fs::symlink_metadata(dir).map_err(cannot)?;
    check_owner(dir, entry.uid(), me)?;
    let found = std::fs::metadata(dir).map_err(cannot)?;
    check_owner(dir, found.uid(), me)?;
    check_mode(dir, found.mode(), false)
}

fn there(dir: &Path, found: std::io::Result<Metadata>) -> Result<Option<Metadata>, Failure> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::disk(format!("cannot look at {}", dir.display()), &e)),
    }
}

fn check_owner(dir: &Path, owner: u32, me: Uid) -> Result<(), Failure> {
    let owner = Uid::from_raw(owner);
    if owner.is_root() || owner == me {
        return Ok(());
    }
    let known = User::from_uid(owner).ok().flatten();
    let user = known.map_or_else(|| format!("#{owner}"), |user| user.name);
    let what = format!(
        "{} belongs to another user ({user}), who could make this process write elsewhere",
        dir.display()
    );
    Err(Failure::new(Exit::Permission, what).hint(format!(
        "do it as that user: `sudo -u {user} cessfs …`, the option `user` in fstab, or the user unit cessfs@.service; \
         a volume that is root's rests in directories of root's"
    )))
}

fn check_mode(dir: &Path, mode: u32, sticky_is_enough: bool) -> Result<(), Failure> {
    if mode & WRITABLE_BY_OTHERS == 0 || sticky_is_enough && mode & STICKY != 0 {
        return Ok(());
    }
    let what = format!(
        "{} may be changed by others (mode {:04o}), who could make this process write elsewhere",
        dir.display(),
        mode & 0o7777
    );
    Err(Failure::new(Exit::Permission, what).hint(format!("`chmod go-w {}`", output::word(dir))))
}

#[cfg(test)]
mod tests {
    use super::super::{Home, VolumeDir, VolumeName};
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    #[test]
    fn whose_directory_and_who_may_change_it() {
        let (dir, me) = (Path::new("/d"), Uid::from_raw(1000));
        assert!(check_owner(dir, 0, me).is_ok() && check_owner(dir, 1000, me).is_ok());
        assert!(check_owner(dir, 0, Uid::from_raw(0)).is_ok());
        for (owner, me) in [(1001, me), (1000, Uid::from_raw(0))] {
            let failure = check_owner(dir, owner, me).unwrap_err();
            assert_eq!(failure.exit, Exit::Permission);
            assert!(failure.hint.unwrap().contains("sudo -u"));
        }
        for (mode, sticky_is_enough, fine) in [
            (0o700, false, true),
            (0o755, false, true),
            (0o775, true, false),
            (0o757, true, false),
            (0o1777, true, true),
            (0o1777, false, false),
        ] {
            assert_eq!(check_mode(dir, mode, sticky_is_enough).is_ok(), fine, "{mode:o}");
        }
    }

    fn volume(home: &Path) -> VolumeDir {
        let home = Home(home.to_owned());
        let name: VolumeName = "v".parse().unwrap();
        let volume = home.place(&name).unwrap();
        volume.create().unwrap();
        super::super::write_new(&volume.config(), b"x").unwrap();
        home.existing(&name).unwrap()
    }

    #[test]
    fn a_volume_that_others_can_change_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().canonicalize().unwrap();
        let home = root.join("home");
        let made = volume(&home);
        for (dir, mode) in [
            (home.as_path(), 0o775),
            (made.path().parent().unwrap(), 0o707),
            (made.path(), 0o1777),
        ] {
            let before = std::fs::metadata(dir).unwrap().permissions();
            std::fs::set_permissions(dir, Permissions::from_mode(mode)).unwrap();
            for refused in [
                Home(home.clone()).existing(made.name()),
                Home(home.clone()).place(made.name()),
            ] {
                let refused = refused.unwrap_err();
                assert_eq!(refused.exit, Exit::Permission, "{refused}");
                assert!(refused.what.contains(&dir.display().to_string()), "{refused}");
            }
            std::fs::set_permissions(dir, before).unwrap();
        }
        assert!(Home(home).existing(made.name()).is_ok());
    }

    #[test]
    fn a_directory_that_others_made_first_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, link) = (tmp.path().join("seen"), tmp.path().join("link"));
        assert_eq!(check_dir(&dir).unwrap_err().exit, Exit::Disk);
        std::fs::create_dir(&dir).unwrap();
        symlink(&dir, &link).unwrap();
        assert!(check_dir(&dir).is_ok() && check_dir(&link).is_ok());
        std::fs::set_permissions(&dir, Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(check_dir(&dir).unwrap_err().exit, Exit::Permission);
        std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::lchown(&link, Some(1000), None).unwrap();
            assert!(check_dir(&dir).is_ok());
            assert_eq!(check_dir(&link).unwrap_err().exit, Exit::Permission);
            chown(&dir, Some(1000), None).unwrap();
            assert_eq!(check_dir(&dir).unwrap_err().exit, Exit::Permission);
        }
    }

    #[test]
    fn root_stays_out_of_what_users_can_bend() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let tmp = tempfile::tempdir().unwrap();
        let user = tmp.path().join("user");
        let home = user.join("home");
        let made = volume(&home);
        let refused = |home: &Path| Home(home.to_owned()).existing(made.name()).unwrap_err();
        for dir in [made.path(), made.path().parent().unwrap(), &home] {
            chown(dir, Some(1000), None).unwrap();
            let failure = refused(&home);
            assert_eq!(failure.exit, Exit::Permission, "{}", dir.display());
            assert!(failure.what.contains("belongs to another user"), "{failure}");
            chown(dir, Some(0), None).unwrap();
        }
        // Who owns the directory of a link chooses a volume of root's, but not after it was looked at.
        symlink(&home, user.join("link")).unwrap();
        let led = Home(user.join("link")).existing(made.name()).unwrap();
        assert_eq!(led.home(), home.canonicalize().unwrap());
        // And a place for volumes elsewhere is looked at, too.
        let elsewhere = tmp.path().join("elsewhere");
        std::fs::rename(home.join("volumes"), &elsewhere).unwrap();
        symlink(&elsewhere, home.join("volumes")).unwrap();
        assert!(Home(home.clone()).existing(made.name()).is_ok());
        chown(&elsewhere, Some(1000), None).unwrap();
        assert_eq!(refused(&home).exit, Exit::Permission);
    }
}
