//! The same check on a mount of each at-rest mode.

use crate::{InitOptions, Mount, Network, Volume, can_mount, tree};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// How content may rest in the local cache.
const AT_REST: [&str; 2] = ["sealed", "plain"];

/// A volume as its makers choose it.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// How content rests in the local cache.
    pub at_rest: &'static str,
    /// The database under the metadata store.
    pub store: &'static str,
}

impl Kind {
    /// Each at-rest mode, and the second database, which has nothing to do with content, with one of them.
    pub const ALL: [Kind; 3] = [
        Kind::of("sealed", "redb"),
        Kind::of("plain", "redb"),
        Kind::of("sealed", "sled"),
    ];

    const fn of(at_rest: &'static str, store: &'static str) -> Kind {
        Kind { at_rest, store }
    }

    /// What to call it.
    pub fn name(self) -> String {
        match self.store {
            "redb" => self.at_rest.into(),
            store => format!("{} on {store}", self.at_rest),
        }
    }

    /// The ways the kernel may treat its content, see [`kernel_modes`]; on the second database the first of them.
    pub fn kernel_modes(self) -> Vec<&'static [&'static str]> {
        let mut modes = kernel_modes(self.at_rest);
        if self.store != "redb" {
            modes.truncate(1);
        }
        modes
    }

    /// Makes such a volume in its own directory below `dir`.
    pub fn init(self, dir: &Path, ws: &str, gib: u32) -> Result<Volume> {
        let options = InitOptions {
            at_rest: self.at_rest,
            gib,
            ..InitOptions::default()
        };
        Volume::init_on(self.store, &dir.join(self.name().replace(' ', "-")), ws, &options)
    }
}

/// The ways the kernel may treat content of such a volume, as mount options: gather writes, hand each over, and, if it is a
/// plain one, read and write the backing files itself.
pub fn kernel_modes(at_rest: &str) -> Vec<&'static [&'static str]> {
    let mut modes: Vec<&[&str]> = vec![
        &["passthrough=off", "kernel-cache=writeback"],
        &["passthrough=off", "kernel-cache=none"],
    ];
    if at_rest == "plain" {
        modes.push(&["passthrough=auto"]);
    }
    modes
}

/// Runs `check` on a fresh mount of each at-rest mode, and again after a remount with `after`. In between the tree must not
/// have changed. Nothing, where no test can mount.
pub fn on_each_mode(check: impl Fn(&Path) -> Result<()>, after: impl Fn(&Path) -> Result<()>) -> Result<()> {
    on_each_volume(|volume, at| {
        let mount = volume.mount(at)?;
        check(mount.path())?;
        let before = tree::manifest(mount.path())?;
        mount.umount()?;
        let mount = volume.mount(at)?;
        assert_eq!(
            tree::differences(&before, &tree::manifest(mount.path())?),
            Vec::<String>::new()
        );
        after(mount.path()).context("mounted again")?;
        mount.umount()
    })
}

/// Runs `check` on a fresh mount of each at-rest mode, with these `-o` options.
pub fn on_each_mount(options: &[&str], check: impl Fn(&Mount) -> Result<()>) -> Result<()> {
    on_each_volume(|volume, at| {
        let mount = volume.mount_with(at, options)?;
        check(&mount)?;
        mount.umount()
    })
}

/// Runs `check` on a mount in every way the kernel may treat content, of each at-rest mode, and `after` once it is mounted
/// again the same way; each beginning with an empty directory of its own. `options` are added to the mount's.
pub fn on_each_kernel_mode(
    options: &[&str],
    check: impl Fn(&Mount, &Path) -> Result<()>,
    after: impl Fn(&Mount, &Path) -> Result<()>,
) -> Result<()> {
    on_each_volume(|volume, at| {
        for mode in kernel_modes(volume.at_rest()?) {
            let options = [options, mode].concat();
            let mode = mode.join(",");
            let mount = volume.mount_with(at, &options)?;
            let dir = at.join(mode.replace('=', "-"));
            std::fs::create_dir(&dir)?;
            check(&mount, &dir).with_context(|| mode.clone())?;
            mount.umount()?;
            let mount = volume.mount_with(at, &options)?;
            after(&mount, &dir).with_context(|| format!("{mode}, mounted again"))?;
            mount.umount()?;
        }
        Ok(())
    })
}

/// Runs `check` with a fresh volume of each at-rest mode and a directory to mount it on. Nothing, where no test can mount.
pub fn on_each_volume(check: impl Fn(&Volume, &Path) -> Result<()>) -> Result<()> {
    let kinds = AT_REST.map(|at_rest| Kind::of(at_rest, "redb"));
    on_volumes(&kinds, |_, volume, at| check(volume, at))
}

/// Runs `check` with a fresh volume of each of these kinds and a directory to mount it on. Nothing, where no test can mount.
pub fn on_volumes(kinds: &[Kind], check: impl Fn(Kind, &Volume, &Path) -> Result<()>) -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    // Other users must reach the mount: the directory of a test is its owner's alone.
    open_to_all(dir.path())?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    for kind in kinds {
        let volume = kind.init(dir.path(), &network.ws, 16)?;
        check(*kind, &volume, &dir.path().join("mnt")).with_context(|| kind.name())?;
    }
    Ok(())
}

fn open_to_all(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?)
}

/// What scripts may use beside bash's own: `as UID[:GROUP,…] COMMAND…` is a user with a group of the same number and these
/// further groups, and no capabilities; `no COMMAND…` expects failure.
const PROLOGUE: &str = r#"set -euo pipefail; exec 2>&1; umask 022
as() {
    local user=${1%%:*} groups=--clear-groups
    case $1 in *:*) groups=--groups=${1#*:} ;; esac
    setpriv --reuid="$user" --regid="$user" "$groups" -- "${@:2}"
}
no() { if "$@"; then echo "should have failed: $*"; exit 1; fi; }
"#;

/// Runs a bash script in `dir` that ends at the first failure; what it said, or an error with it.
pub fn bash(dir: &Path, script: &str) -> Result<String> {
    let output = Command::new("bash")
        .args(["-c", &format!("{PROLOGUE}{script}")])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .output()
        .context("bash")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(
        output.status.success(),
        "{}: {said}\nof the script: {script}",
        output.status
    );
    Ok(said)
}
