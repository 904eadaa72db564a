//! Which daemon is asked: volumes of one name in several homes, and mounts that show in several places.

use anyhow::{Result, ensure};
use cessfs_tests::process::{command, fail, output, succeed};
use cessfs_tests::{InitOptions, Network, Volume, can_mount};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A bind mount; taken away when dropped, if it is still there.
struct Bind<'a>(&'a Path);

impl Bind<'_> {
    fn new<'a>(from: &Path, to: &'a Path) -> Result<Bind<'a>> {
        fs::create_dir(to)?;
        let none = None::<&str>;
        nix::mount::mount(Some(from), to, none, nix::mount::MsFlags::MS_BIND, none)?;
        Ok(Bind(to))
    }
}

impl Drop for Bind<'_> {
    fn drop(&mut self) {
        let _it_is_gone_already = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn scene() -> Result<(tempfile::TempDir, Network, Volume)> {
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("v"), &network.ws, &InitOptions::default())?;
    Ok((dir, network, volume))
}

/// `cessfs` as somebody whose volumes are elsewhere.
fn from_home(home: &Path) -> Result<Command> {
    let mut cessfs = command("cessfs")?;
    cessfs.env("CESSFS_HOME", home);
    Ok(cessfs)
}

/// Only its daemon can send what is left: who cannot ask it must not be told that it did.
#[test]
fn an_unmount_that_waits_does_not_end_well_without_the_daemon() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene()?;
    let (at, nowhere) = (dir.path().join("mnt"), dir.path().join("nowhere"));
    let mount = volume.mount(&at)?;
    fs::write(at.join("file"), "content")?;
    for option in ["--wait", "--background"] {
        let (code, said) = fail(from_home(&nowhere)?.arg("umount").arg(&at).arg(option))?;
        ensure!(code == 9, "umount {option}: {code}, {said}");
        ensure!(said.contains("nothing was sent") && said.contains("hint: give the home of the volume: --home DIR"));
        ensure!(fs::read(at.join("file"))? == b"content", "umount {option} unmounted");
    }
    // A part of the mount elsewhere: it goes, the mount stays.
    let place = dir.path().join("place");
    let bind = Bind::new(&at, &place)?;
    let (code, said) = fail(volume.cessfs()?.arg("umount").arg(&place).arg("--wait"))?;
    ensure!(
        code == 9 && said.contains(&format!("hint: unmount {}", at.display())),
        "{code}: {said}"
    );
    ensure!(place.join("file").exists());
    succeed(volume.cessfs()?.arg("umount").arg(&place))?;
    ensure!(!place.join("file").exists() && at.join("file").exists());
    drop(bind);
    ensure!(volume.status()?["state"] == "mounted");

    succeed(from_home(&nowhere)?.arg("umount").arg(&at))?;
    ensure!(!at.join("file").exists());
    std::mem::forget(mount);
    let ended = || Ok(volume.status()?["state"] == "unmounted");
    cessfs_tests::network::eventually("the daemon to end", Duration::from_secs(60), ended)
}

/// A dead mount is cleared away, but what was asked for was not done.
#[test]
fn an_unmount_that_waits_does_not_end_well_when_the_daemon_has_died() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene()?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    nix::sys::signal::kill(mount.pid, nix::sys::signal::Signal::SIGKILL)?;
    cessfs_tests::network::eventually("the mount to be dead", Duration::from_secs(20), || {
        Ok(nix::sys::statvfs::statvfs(&at).is_err())
    })?;
    let (code, said) = fail(volume.cessfs()?.arg("umount").arg(&at).arg("--wait"))?;
    ensure!(code == 9 && said.contains("nothing was sent"), "{code}: {said}");
    ensure!(at.read_dir()?.next().is_none(), "the dead mount is in the way");
    std::mem::forget(mount);
    Ok(())
}

/// A mount point whose name is no text is found by its daemon all the same.
#[test]
fn a_mount_point_may_have_any_name() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene()?;
    let at = dir.path().join(OsStr::from_bytes(b"caf\xe9"));
    let mount = volume.mount(&at)?;
    let file = at.join(OsStr::from_bytes(b"na\xefve"));
    fs::write(&file, "content")?;
    let told = volume.explain(&file)?;
    let ends = |key: &str, end: &str| told[key].as_str().is_some_and(|text| text.ends_with(end));
    ensure!(
        ends("path", "/na\u{fffd}ve") && ends("path_hex", "2f6e61ef7665"),
        "{told}"
    );
    mount.umount_with(&["--wait"])?;
    let status = volume.status()?;
    ensure!(
        status["state"] == "unmounted" && status["unsent_bytes"] == 0,
        "{status}"
    );
    ensure!(status["packs"]["confirmed"].as_u64() > Some(0), "{status}");
    ensure!(output(volume.cessfs()?.arg("volumes"))?.status.success());
    Ok(())
}

/// Paths are looked up where the mount shows them, and only by its own daemon.
#[test]
fn quota_and_explain_act_on_the_path_that_was_named() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, network, volume) = scene()?;
    let other = Volume::init(&dir.path().join("other"), &network.ws, &InitOptions::default())?;
    ensure!(volume.name == other.name, "the scene is about one name");
    let (at, other_at) = (dir.path().join("mnt"), dir.path().join("other-mnt"));
    let (mount, other_mount) = (volume.mount(&at)?, other.mount(&other_at)?);
    for root in [&at, &other_at] {
        fs::create_dir_all(root.join("projects/scans"))?;
        fs::create_dir(root.join("scans"))?;
    }
    fs::write(at.join("projects/scans/file"), [7; 5000])?;
    let quota = |of: &Volume, path: &Path| -> Result<Command> {
        let mut quota = of.cessfs()?;
        quota.args(["quota", "set", "--bytes", "1MiB"]).arg(path);
        Ok(quota)
    };
    let set = |of: &Volume, root: &Path| -> Result<serde_json::Value> {
        let mut quota = of.cessfs()?;
        let said = succeed(quota.args(["quota", "show", "--all", "--json"]).arg(root))?;
        Ok(serde_json::from_str(&said)?)
    };

    // The same name in the other home is another volume.
    for (of, path) in [(&other, at.join("scans")), (&volume, other_at.join("scans"))] {
        let (code, said) = fail(&mut quota(of, &path)?)?;
        ensure!(
            code == 9 && said.contains("hint: give the home of the volume"),
            "{code}: {said}"
        );
        let (code, said) = fail(of.cessfs()?.arg("explain").arg(&path))?;
        ensure!(code == 9, "{code}: {said}");
    }
    ensure!(set(&volume, &at)?[0].is_null() && set(&other, &other_at)?[0].is_null());

    let place = dir.path().join("place");
    let bind = Bind::new(&at.join("projects"), &place)?;
    succeed(&mut quota(&volume, &place.join("scans"))?)?;
    let quotas = set(&volume, &at)?;
    ensure!(
        quotas[0]["path"] == "/projects/scans" && quotas[1].is_null(),
        "{quotas}"
    );
    let explained = volume.explain(&place.join("scans/file"))?;
    ensure!(explained["size"] == 5000, "{explained}");
    drop(bind);
    other_mount.umount()?;
    mount.umount()
}

/// A user's directory is the user's to bend: root, whom no permission stops, would write where it leads.
#[test]
fn root_does_not_work_in_the_directory_of_a_user() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    const NOBODY: u32 = 65534;
    let (dir, _network, volume) = scene()?;
    let own = volume.home().join("volumes").join(&volume.name);
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious")?;
    for name in ["lock", "log", "last-status.new"] {
        let _not_there_yet = fs::remove_file(own.join(name));
        std::os::unix::fs::symlink(&victim, own.join(name))?;
    }
    let at = dir.path().join("mnt");
    fs::create_dir(&at)?;
    let mount = || -> Result<(i32, String)> {
        let mut mount = volume.cessfs()?;
        mount.args(["mount", &volume.name]).arg(&at);
        fail(mount.args(["-o", &volume.secret_option()]))
    };
    for theirs in [own.clone(), volume.home()] {
        std::os::unix::fs::chown(&theirs, Some(NOBODY), None)?;
        let (code, said) = mount()?;
        ensure!(code == 17 && said.contains("belongs to another user"), "{code}: {said}");
        ensure!(said.contains("hint: do it as that user: `sudo -u "), "{said}");
        std::os::unix::fs::chown(&theirs, Some(0), None)?;
    }
    // Even in a directory of one's own.
    let (code, said) = mount()?;
    ensure!(code == 15, "{code}: {said}");
    ensure!(fs::read_to_string(&victim)? == "precious");
    Ok(())
}

/// The directory is looked at before the passphrase is asked for, and mounted on long after.
#[test]
fn a_mount_point_that_is_exchanged_meanwhile_is_not_mounted_on() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene()?;
    let secret = dir.path().join("fifo");
    nix::unistd::mkfifo(&secret, nix::sys::stat::Mode::S_IRWXU)?;
    let (at, elsewhere) = (dir.path().join("mnt"), dir.path().join("elsewhere"));
    fs::create_dir(&elsewhere)?;
    for foreground in [true, false] {
        fs::create_dir(&at)?;
        let mut mount = volume.cessfs()?;
        mount.args(["mount", &volume.name]).arg(&at);
        let option = volume.secret_option();
        let kind = option.split_once('=').map_or("", |(kind, _)| kind);
        mount.args(["-o", &format!("{kind}={}", secret.display())]);
        mount.args(foreground.then_some("--foreground"));
        let mounting = mount.stderr(std::process::Stdio::piped()).spawn()?;
        // Opens once somebody reads.
        let mut key = fs::OpenOptions::new().write(true).open(&secret)?;
        fs::remove_dir(&at)?;
        std::os::unix::fs::symlink(&elsewhere, &at)?;
        std::io::Write::write_all(&mut key, &fs::read(volume.secret_file())?)?;
        drop(key);
        let ended = mounting.wait_with_output()?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.code() == Some(7), "{}: {said}", ended.status);
        let mounts = fs::read("/proc/self/mountinfo")?;
        ensure!(!String::from_utf8_lossy(&mounts).contains(&elsewhere.display().to_string()));
        fs::remove_file(&at)?;
    }
    // A link that stays is followed.
    fs::create_dir(&at)?;
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&at, &link)?;
    succeed(
        volume
            .cessfs()?
            .args(["mount", &volume.name])
            .arg(&link)
            .args(["-o", &volume.secret_option()]),
    )?;
    fs::write(link.join("file"), "content")?;
    let mounts = fs::read("/proc/self/mountinfo")?;
    let shows = String::from_utf8_lossy(&mounts).contains(&format!(" {} ", at.display()));
    succeed(volume.cessfs()?.arg("umount").arg(&at))?;
    ensure!(shows, "the kernel tells the directory's own path");
    Ok(())
}

/// SIGTERM takes the mount away, and not what somebody has mounted over it.
#[test]
fn what_was_mounted_over_the_mount_stays() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene()?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    fs::write(at.join("file"), "content")?;
    let none = None::<&str>;
    nix::mount::mount(Some("over"), &at, Some("tmpfs"), nix::mount::MsFlags::empty(), none)?;
    let over = Bind(&at);
    fs::write(at.join("over"), "another's")?;
    let (code, said) = fail(volume.cessfs()?.args(["sync", &volume.name]))?;
    ensure!(code == 8 && said.contains("covered"), "{code}: {said}");
    nix::sys::signal::kill(mount.pid, nix::sys::signal::Signal::SIGTERM)?;
    let ended = || Ok(nix::sys::signal::kill(mount.pid, None).is_err());
    cessfs_tests::network::eventually("the daemon to end", Duration::from_secs(60), ended)?;
    ensure!(fs::read_to_string(at.join("over"))? == "another's");
    drop(over);
    std::mem::forget(mount);
    // What it covered is dead.
    drop(Bind(&at));
    let mount = volume.mount(&at)?;
    ensure!(fs::read_to_string(at.join("file"))? == "content");
    mount.umount()
}

/// Pages that the kernel has of a mount that no path leads to cannot be asked for.
#[test]
fn a_sync_of_a_mount_that_was_taken_away_in_use_does_not_end_well() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene()?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    let mut writer = fs::File::create(at.join("file"))?;
    nix::mount::umount2(&at, nix::mount::MntFlags::MNT_DETACH)?;
    std::io::Write::write_all(&mut writer, b"content")?;
    let (code, said) = fail(volume.cessfs()?.args(["sync", &volume.name, "--wait"]))?;
    ensure!(code == 8 && said.contains("taken away"), "{code}: {said}");
    drop(writer);
    std::mem::forget(mount);
    let ended = || Ok(volume.status()?["state"] == "unmounted");
    cessfs_tests::network::eventually("the daemon to end", Duration::from_secs(60), ended)?;
    let mount = volume.mount(&at)?;
    ensure!(fs::read_to_string(at.join("file"))? == "content");
    mount.umount()
}

#[test]
fn a_mount_is_found_after_a_directory_above_it_was_renamed() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene()?;
    let (before, after) = (dir.path().join("x"), dir.path().join("y"));
    let mount = volume.mount(&before.join("m"))?;
    fs::write(before.join("m/file"), "content")?;
    fs::rename(&before, &after)?;
    std::mem::forget(mount);
    let moved = after.join("m");
    let mounted = Bind(&moved);
    volume.run(&["sync", "--wait"])?;
    succeed(volume.cessfs()?.arg("umount").arg(&moved).arg("--wait"))?;
    drop(mounted);
    let mount = volume.mount(&after.join("m"))?;
    ensure!(fs::read_to_string(after.join("m/file"))? == "content");
    // Nor does a signal look where it was.
    let renamed = dir.path().join("z");
    fs::rename(&after, &renamed)?;
    nix::sys::signal::kill(mount.pid, nix::sys::signal::Signal::SIGTERM)?;
    std::mem::forget(mount);
    let ended = || Ok(volume.status()?["state"] == "unmounted");
    cessfs_tests::network::eventually("the daemon to end", Duration::from_secs(60), ended)?;
    ensure!(renamed.join("m").read_dir()?.next().is_none(), "it is still mounted");
    Ok(())
}

/// Between a crash and the next mount lie a passphrase and a recovery: who goes on writing by the path is told, and writes nothing beneath.
#[test]
fn a_dead_mount_stays_until_the_next_is_there() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene()?;
    let (at, secret) = (dir.path().join("mnt"), dir.path().join("fifo"));
    nix::unistd::mkfifo(&secret, nix::sys::stat::Mode::S_IRWXU)?;
    let mount = volume.mount(&at)?;
    fs::write(at.join("file"), "content")?;
    volume.run(&["sync"])?;
    nix::sys::signal::kill(mount.pid, nix::sys::signal::Signal::SIGKILL)?;
    std::mem::forget(mount);
    let refused = || {
        let error = fs::write(at.join("late"), "x").err();
        error.and_then(|error| error.raw_os_error()) == Some(libc::ENOTCONN)
    };
    cessfs_tests::network::eventually("the mount to be dead", Duration::from_secs(20), || Ok(refused()))?;
    let right = fs::read(volume.secret_file())?;
    let option = volume.secret_option();
    let kind = option.split_once('=').map_or("", |(kind, _)| kind);
    for (given, is_right) in [(&b"wrong"[..], false), (&right[..], true)] {
        let mut mount = volume.cessfs()?;
        mount.args(["mount", &volume.name]).arg(&at);
        mount.args(["-o", &format!("{kind}={}", secret.display())]);
        let mounting = mount.stderr(std::process::Stdio::piped()).spawn()?;
        // Opens once somebody reads.
        let mut key = fs::OpenOptions::new().write(true).open(&secret)?;
        ensure!(refused(), "it was written beneath");
        std::io::Write::write_all(&mut key, given)?;
        drop(key);
        let ended = mounting.wait_with_output()?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success() == is_right, "{}: {said}", ended.status);
        match is_right {
            true => ensure!(said.contains("left behind"), "{said}"),
            false => ensure!(refused(), "the dead mount went though there is no new one"),
        }
    }
    let content = fs::read_to_string(at.join("file"));
    succeed(volume.cessfs()?.arg("umount").arg(&at))?;
    ensure!(content? == "content" && at.read_dir()?.next().is_none());
    Ok(())
}
