//! Mount options: `-o key=value,flag,…` as fstab, mount(8) and people write them.
//!
//! Three kinds: ours, flags the kernel takes, and words of fstab that mean nothing to a filesystem and are let through.
//! Anything else is an error: a misspelt option must not mount something else than was meant.

use crate::config::{KernelCache, Passthrough, nearest};
use crate::exit::{Exit, Failure};
use crate::limits;
use crate::units;
use cessfs_vfs::AtimeRule;
use std::path::PathBuf;
use std::time::Duration;

/// What `-o` asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `home=DIR`
    pub home: Option<PathBuf>,
    /// `passphrase-file=FILE`
    pub passphrase_file: Option<PathBuf>,
    /// `key-file=FILE`
    pub key_file: Option<PathBuf>,
    /// `cache-size=SIZE`
    pub cache_size: Option<u64>,
    /// `writeback-delay=TIME`
    pub writeback_delay: Option<Duration>,
    /// `kernel-cache=writeback|none`
    pub kernel_cache: Option<KernelCache>,
    /// `passthrough=auto|off`
    pub passthrough: Option<Passthrough>,
    /// `allow_other`: users besides the mounting one.
    pub allow_other: bool,
    /// `ro`
    pub read_only: bool,
    /// `noexec`
    pub no_exec: bool,
    /// `suid` (off by default, as for every FUSE filesystem)
    pub suid: bool,
    /// `dev` (off by default, as for every FUSE filesystem)
    pub dev: bool,
    /// `noatime`, `relatime` (the default) or `strictatime`
    pub atime: AtimeRule,
    /// `nodiratime`
    pub no_dir_atime: bool,
    /// `nosymfollow`
    pub no_symfollow: bool,
}

/// Options of ours that take a value.
const VALUED: [&str; 7] = [
    "home",
    "passphrase-file",
    "key-file",
    "cache-size",
    "writeback-delay",
    "kernel-cache",
    "passthrough",
];
/// Options of ours and the kernel's without one.
const FLAGS: [&str; 18] = [
    "allow-other",
    "default-permissions",
    "ro",
    "rw",
    "noexec",
    "exec",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noatime",
    "atime",
    "relatime",
    "strictatime",
    "nostrictatime",
    "nodiratime",
    "diratime",
    "nosymfollow",
];
/// Words that mount(8), systemd and fstab put there for themselves.
const IGNORED: [&str; 27] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "nofail",
    "netdev",
    "rnetdev",
    "async",
    "silent",
    "loud",
    // Without another rule for access times that is the kernel's, too.
    "norelatime",
    // Access times always reach the disk lazily.
    "lazytime",
    "nolazytime",
    // They always are.
    "acl",
    "user-xattr",
    "symfollow",
    // No Linux has mandatory locks any more, and what has no version of its own counts none.
    "mand",
    "nomand",
    "iversion",
    "noiversion",
];
/// Words of mount(8) for what is not done.
const REFUSED: [&str; 2] = ["sync", "dirsync"];

impl MountOptions {
    /// Reads the values of all `-o` on the command line; later ones win.
    ///
    /// # Errors
    /// [`Exit::Config`] for an unknown option or a wrong value.
    pub fn parse(lists: &[String]) -> Result<MountOptions, Failure> {
        let mut options = MountOptions::default();
        for item in lists.iter().flat_map(|list| split(list)) {
            options.apply(&item)?;
        }
        Ok(options)
    }

    fn apply(&mut self, item: &str) -> Result<(), Failure> {
        let (key, value) = match item.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (item, None),
        };
        // `allow_other` and `allow-other` are one option; so are `_netdev` and `netdev`.
        let name = key.trim_start_matches('_').replace('_', "-");
        if item.is_empty() || name.starts_with("x-") || name == "comment" || IGNORED.contains(&name.as_str()) {
            return Ok(());
        }
        match value {
            Some(value) if VALUED.contains(&name.as_str()) => self.set(&name, value),
            None if FLAGS.contains(&name.as_str()) => {
                self.flag(&name);
                Ok(())
            }
            None if VALUED.contains(&name.as_str()) => Err(Failure::new(
                Exit::Config,
                format!("mount option `{key}` needs a value"),
            )
            .hint(format!("write `-o {name}=…`"))),
            None if REFUSED.contains(&name.as_str()) => {
                let what = format!("mount option `{key}`: writes do not wait for the disk, whatever the mount says");
                Err(Failure::new(Exit::Config, what).hint(
                    "leave it out; fsync(2), and O_SYNC for a file, make a write safe, and `cessfs sync NAME` all that were made",
                ))
            }
            _ => {
                let failure = Failure::new(Exit::Config, format!("unknown mount option `{item}`"));
                let known = VALUED.into_iter().chain(FLAGS);
                Err(match nearest(&name, known) {
                    Some(known) => failure.hint(format!("did you mean `{known}`?")),
                    None => failure.hint("`cessfs mount --help` lists the options"),
                })
            }
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        let wrong = |why: String| Failure::new(Exit::Config, format!("mount option `{name}`: {why}"));
        let path = || {
            if value.is_empty() {
                return Err(wrong("the path is empty".to_owned()));
            }
            std::path::absolute(value).map_err(|e| wrong(e.to_string()))
        };
        match name {
            "home" => self.home = Some(path()?),
            "passphrase-file" => self.passphrase_file = Some(path()?),
            "key-file" => self.key_file = Some(path()?),
            "cache-size" => {
                let size = units::parse_bytes(value).map_err(wrong)?;
                if size < limits::CACHE_BYTES_MIN {
                    let least = units::bytes(limits::CACHE_BYTES_MIN);
                    return Err(wrong(format!("{value} is below the least of {least}")));
                }
                self.cache_size = Some(size);
            }
            "writeback-delay" => self.writeback_delay = Some(units::parse_duration(value).map_err(wrong)?),
            "passthrough" => {
                self.passthrough = Some(match value {
                    "auto" => Passthrough::Auto,
                    "off" => Passthrough::Off,
                    other => return Err(wrong(format!("`{other}` is neither `auto` nor `off`"))),
                });
            }
            _ => {
                self.kernel_cache = Some(match value {
                    "writeback" => KernelCache::Writeback,
                    "none" => KernelCache::None,
                    other => return Err(wrong(format!("`{other}` is neither `writeback` nor `none`"))),
                });
            }
        }
        Ok(())
    }

    fn flag(&mut self, name: &str) {
        match name {
            "allow-other" => self.allow_other = true,
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "noexec" => self.no_exec = true,
            "exec" => self.no_exec = false,
            "nosuid" => self.suid = false,
            "suid" => self.suid = true,
            "nodev" => self.dev = false,
            "dev" => self.dev = true,
            "noatime" => self.atime = AtimeRule::Never,
            "atime" | "relatime" => self.atime = AtimeRule::Relative,
            "strictatime" => self.atime = AtimeRule::Always,
            "nostrictatime" if self.atime == AtimeRule::Always => self.atime = AtimeRule::Relative,
            "nodiratime" => self.no_dir_atime = true,
            "diratime" => self.no_dir_atime = false,
            "nosymfollow" => self.no_symfollow = true,
            // `default_permissions` is always on.
            _ => {}
        }
    }
}

/// Splits at commas; `\,` is a comma within a value and `\\` a backslash.
fn split(list: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        let item = items.last_mut().expect("there is always one item");
        match c {
            ',' => items.push(String::new()),
            '\\' => match chars.next() {
                Some(escaped @ (',' | '\\')) => item.push(escaped),
                Some(other) => item.extend(['\\', other]),
                None => item.push('\\'),
            },
            c => item.push(c),
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<MountOptions, Failure> {
        MountOptions::parse(&[list.to_owned()])
    }

    #[test]
    fn table() {
        let base = MountOptions::default;
        let cases = [
            ("", base()),
            (
                "rw,_netdev,_rnetdev,acl,user_xattr,iversion,mand,noauto,user,nofail,x-systemd.automount,x-gvfs-show,comment=me,defaults",
                base(),
            ),
            (
                "passphrase-file=/p",
                MountOptions {
                    passphrase_file: Some("/p".into()),
                    ..base()
                },
            ),
            (
                "passphrase_file=/a\\,b",
                MountOptions {
                    passphrase_file: Some("/a,b".into()),
                    ..base()
                },
            ),
            (
                "key-file=/k,ro",
                MountOptions {
                    key_file: Some("/k".into()),
                    read_only: true,
                    ..base()
                },
            ),
            ("ro,rw", base()),
            ("user,nousers,noowner,nogroup,norelatime,nostrictatime", base()),
            ("strictatime,nostrictatime", base()),
            (
                "noatime,nostrictatime",
                MountOptions {
                    atime: AtimeRule::Never,
                    ..base()
                },
            ),
            (
                "cache-size=2GiB",
                MountOptions {
                    cache_size: Some(2 << 30),
                    ..base()
                },
            ),
            (
                "writeback-delay=250ms,kernel-cache=none",
                MountOptions {
                    writeback_delay: Some(Duration::from_millis(250)),
                    kernel_cache: Some(KernelCache::None),
                    ..base()
                },
            ),
            (
                "allow_other,default_permissions",
                MountOptions {
                    allow_other: true,
                    ..base()
                },
            ),
            (
                "rw,dev,suid",
                MountOptions {
                    dev: true,
                    suid: true,
                    ..base()
                },
            ),
            (
                "noexec,nosuid,nodev,noatime",
                MountOptions {
                    no_exec: true,
                    atime: AtimeRule::Never,
                    ..base()
                },
            ),
            (
                "noatime,strictatime,nodiratime,lazytime",
                MountOptions {
                    atime: AtimeRule::Always,
                    no_dir_atime: true,
                    ..base()
                },
            ),
            ("strictatime,relatime,nodiratime,diratime,symfollow", base()),
            (
                "nosymfollow",
                MountOptions {
                    no_symfollow: true,
                    ..base()
                },
            ),
            (
                "home=/srv/cessfs",
                MountOptions {
                    home: Some("/srv/cessfs".into()),
                    ..base()
                },
            ),
        ];
        for (list, expected) in cases {
            assert_eq!(parse(list).unwrap(), expected, "{list}");
        }
        let both = MountOptions::parse(&["ro".to_owned(), "cache-size=1GiB".to_owned()]).unwrap();
        assert_eq!((both.read_only, both.cache_size), (true, Some(1 << 30)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (list, hint) in [
            ("alow_other", Some("did you mean `allow-other`?")),
            ("passphrase-fil=/p", Some("did you mean `passphrase-file`?")),
            ("passphrase-file", Some("write `-o passphrase-file=…`")),
            ("ro=1", Some("did you mean `ro`?")),
            ("qqqqqqqqqqqq", Some("`cessfs mount --help` lists the options")),
            ("noacl", Some("`cessfs mount --help` lists the options")),
            ("cache-size=1", None),
            ("cache-size=big", None),
            ("kernel-cache=some", None),
            ("passthrough=on", None),
            ("key-file=", None),
        ] {
            let failure = parse(list).unwrap_err();
            assert_eq!(failure.exit, Exit::Config, "{list}");
            assert_eq!(failure.hint.as_deref(), hint, "{list}");
        }
    }

    #[test]
    fn writes_that_wait_are_not_promised() {
        for word in ["sync", "dirsync"] {
            let failure = parse(word).unwrap_err();
            assert_eq!(failure.exit, Exit::Config);
            assert!(failure.what.contains(word) && failure.hint.unwrap().contains("fsync"));
        }
    }
}
