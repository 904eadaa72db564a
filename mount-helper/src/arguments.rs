//! The argument form of mount helpers (mount(8), "External helpers").

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What was not understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong(pub String);

/// One call by mount(8).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// `NAME`, `cess://NAME`, or the volume's directory.
    pub source: OsString,
    /// Where to mount.
    pub dir: OsString,
    /// Values of `-o`, in order.
    pub options: Vec<OsString>,
    /// `-f`: do everything but mount.
    pub fake: bool,
    /// `-v`.
    pub verbose: bool,
}

impl Invocation {
    /// Reads the arguments after the program's name. `-s` (sloppy), `-n` (no mtab), `-w` and `-t TYPE` change nothing.
    pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Invocation, Wrong> {
        let mut arguments = arguments;
        let mut invocation = Invocation::default();
        let mut names = Vec::new();
        while let Some(argument) = arguments.next() {
            let bytes = argument.as_bytes();
            if bytes.len() < 2 || bytes[0] != b'-' {
                names.push(argument);
                continue;
            }
            for (at, letter) in bytes[1..].iter().enumerate() {
                match letter {
                    b's' | b'n' | b'w' => {}
                    b'f' => invocation.fake = true,
                    b'v' => invocation.verbose = true,
                    b'r' => invocation.options.push("ro".into()),
                    b'o' | b't' | b'N' => {
                        let attached = OsStr::from_bytes(&bytes[at + 2..]).to_owned();
                        let value = if attached.is_empty() {
                            arguments.next()
                        } else {
                            Some(attached)
                        };
                        let value = value.ok_or_else(|| Wrong(format!("-{} needs a value", char::from(*letter))))?;
                        if *letter == b'o' {
                            invocation.options.push(value);
                        }
                        break;
                    }
                    other => return Err(Wrong(format!("unknown option -{}", char::from(*other)))),
                }
            }
        }
        let [source, dir] = <[OsString; 2]>::try_from(names).map_err(|names| {
            Wrong(format!(
                "a volume and a directory are needed, {} words were given",
                names.len()
            ))
        })?;
        Ok(Invocation {
            source,
            dir,
            ..invocation
        })
    }

    /// The arguments of `cessfs`.
    pub fn to_arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        if self.verbose {
            arguments.push("-v".into());
        }
        arguments.extend(["mount".into(), self.source.clone(), self.dir.clone()]);
        for options in &self.options {
            arguments.extend(["-o".into(), options.clone()]);
        }
        arguments
    }
}

/// What a remount can change: flags that the kernel keeps for a mount, whatever the filesystem.
const KERNEL_FLAGS: [&str; 8] = ["ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev"];

impl Invocation {
    /// The arguments of mount(8) for `-o remount`, `None` without it. The kernel does it alone (`-i`: no helper); mount(8)
    /// hands on everything that the mount has or fstab says, and what is not the kernel's stays as it was.
    pub fn to_remount(&self) -> Option<Vec<OsString>> {
        let options: Vec<&str> = self
            .options
            .iter()
            .filter_map(|list| list.to_str())
            .flat_map(|list| list.split(','))
            .collect();
        if !options.contains(&"remount") {
            return None;
        }
        let kept = options.iter().filter(|option| KERNEL_FLAGS.contains(option));
        let list = std::iter::once("remount").chain(kept.copied()).collect::<Vec<_>>();
        Some(vec!["-i".into(), "-o".into(), list.join(",").into(), self.dir.clone()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation, Wrong> {
        Invocation::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn table() {
        for (line, expected) in [
            ("photos /mnt", "mount photos /mnt"),
            ("photos /mnt -o rw,_netdev", "mount photos /mnt -o rw,_netdev"),
            ("photos /mnt -sn -v -o ro", "-v mount photos /mnt -o ro"),
            ("-w photos -t cessfs /mnt -oro", "mount photos /mnt -o ro"),
            ("-r cess://photos /mnt", "mount cess://photos /mnt -o ro"),
            (
                "/srv/cessfs/volumes/photos /mnt",
                "mount /srv/cessfs/volumes/photos /mnt",
            ),
            ("photos /mnt -o a -o b", "mount photos /mnt -o a -o b"),
        ] {
            let arguments = parse(line).unwrap().to_arguments();
            let words: Vec<&str> = arguments.iter().map(|a| a.to_str().unwrap()).collect();
            assert_eq!(words.join(" "), expected, "{line}");
        }
        assert!(parse("photos /mnt -f").unwrap().fake);
    }

    #[test]
    fn remounts_are_the_kernels() {
        let line = "cess://a /mnt -o rw,relatime,remount,ro,nodev,user_id=0,allow_other";
        let arguments = parse(line).unwrap().to_remount().unwrap();
        assert_eq!(arguments, ["-i", "-o", "remount,rw,ro,nodev", "/mnt"]);
        assert_eq!(parse("a /mnt -o ro").unwrap().to_remount(), None);
    }

    #[test]
    fn wrong_calls() {
        for line in ["", "photos", "a b c", "photos /mnt -x", "photos /mnt -o"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
