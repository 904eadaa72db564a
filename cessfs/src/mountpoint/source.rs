//! What is mounted, as mount(8) and people write it: `NAME`, `cess://NAME`, or the volume's directory, `HOME/volumes/NAME`.
//!
//! mount(8) makes a path of `NAME` when there is a file of that name where it is called, such as `/home` at boot. So any path may stand
//! for its last component; whether it does is for `mount` to say.

use crate::home::{NameError, VolumeName};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A volume as it was named. The kernel shows the word itself: mount(8) knows by it that a line of fstab is mounted already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    given: OsString,
    home: Option<PathBuf>,
    name: VolumeName,
}

impl Source {
    /// Reads any of the forms.
    ///
    /// # Errors
    /// When there is no volume's name in it.
    pub fn parse(given: &OsStr) -> Result<Source, NameError> {
        let path = Path::new(given);
        let home = path.parent().filter(|dir| dir.ends_with("volumes"));
        let home = home.and_then(Path::parent).filter(|_| path.is_absolute());
        let word = path.file_name().filter(|_| path.is_absolute()).unwrap_or(given);
        Ok(Source {
            given: given.to_owned(),
            home: home.map(Path::to_owned),
            name: word.to_string_lossy().parse()?,
        })
    }

    /// The word itself.
    pub fn given(&self) -> &OsStr {
        &self.given
    }

    /// The home that it names, if it does.
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// Whether it is a path that mount(8) did not make of a name in this directory, and that names no home either.
    pub fn is_path_elsewhere(&self) -> bool {
        let path = Path::new(&self.given);
        let here = std::env::current_dir().ok();
        path.is_absolute() && self.home.is_none() && path.parent() != here.as_deref()
    }

    /// The volume.
    pub fn name(&self) -> &VolumeName {
        &self.name
    }

    /// The word that the kernel shows: what was given, unless that would have to be escaped among mount options.
    pub fn shown(&self) -> String {
        let is_simple = |text: &&str| !text.contains([',', '\\']) && !text.contains(char::is_control);
        let given = self.given.to_str().filter(is_simple);
        given.unwrap_or(self.name.as_str()).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn forms() {
        for (given, home, name) in [
            ("photos", None, "photos"),
            ("cess://photos", None, "photos"),
            ("/srv/cessfs/volumes/photos", Some("/srv/cessfs"), "photos"),
        ] {
            let source = Source::parse(OsStr::new(given)).unwrap();
            assert_eq!((source.home(), source.name().as_str()), (home.map(Path::new), name));
            assert_eq!(source.shown(), given);
        }
        for wrong in ["", "/", "volumes/photos", "cessfs:photos", "/a/volumes/cess:"] {
            assert!(Source::parse(OsStr::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_of_which_mount_made_a_path() {
        let here = std::env::current_dir().unwrap().join("photos");
        for (given, is_elsewhere) in [
            (here.as_path(), false),
            (Path::new("/elsewhere/photos"), true),
            (Path::new("/srv/volumes/photos"), false),
            (Path::new("photos"), false),
        ] {
            let source = Source::parse(given.as_os_str()).unwrap();
            assert_eq!(source.name().as_str(), "photos");
            assert_eq!(source.is_path_elsewhere(), is_elsewhere, "{given:?}");
        }
    }

    #[test]
    fn what_needs_escaping_is_not_shown() {
        for home in ["/a,b".as_bytes(), b"/a\\b", b"/a\nb", b"/a\xffb"] {
            let given = [home, b"/volumes/photos"].concat();
            let source = Source::parse(OsStr::from_bytes(&given)).unwrap();
            assert_eq!(
                (source.given().as_bytes(), source.shown().as_str()),
                (given.as_slice(), "photos")
            );
        }
    }
}
