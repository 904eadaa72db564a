//! Ends that come at a bad moment, and resources that run out: a backlog that cannot be sent, few file descriptors, a lock that
//! a dead daemon left.

use anyhow::{Context, Result, ensure};
use cessfs_tests::network::eventually;
use cessfs_tests::{InitOptions, Network, Volume, can_mount, process, tree};
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

fn scene() -> Result<(tempfile::TempDir, Network, Volume)> {
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 16)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    Ok((dir, network, volume))
}

/// systemd ends a service with SIGTERM, a person with `umount`: with a backlog that cannot be sent nothing is dropped, synced or
/// not, and the person is told.
#[test]
fn ending_with_a_backlog_drops_nothing_and_tells() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, network, volume) = scene()?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    network.run(&["chain", "pause"])?;
    tree::write_many(&at.join("many"), 120)?;
    tree::write_noise(&at.join("large"), 8, 6)?;
    let expected = tree::manifest(&at)?;
    kill(mount.pid, Signal::SIGTERM)?;
    let pid = mount.pid;
    eventually("the daemon to end", PATIENCE, || Ok(kill(pid, None).is_err()))?;
    // It unmounted by itself, so this finds nothing to unmount.
    std::mem::forget(mount);
    ensure!(fs::read_dir(&at)?.next().is_none(), "the mount is still there");
    ensure!(volume.status()?["state"] == "unmounted");

    let mount = volume.mount(&at)?;
    let differences = tree::differences(&expected, &tree::manifest(&at)?);
    ensure!(differences.is_empty(), "after SIGTERM: {differences:?}");
    let mut umount = volume.cessfs()?;
    let output = process::output(umount.arg("umount").arg(&at))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() && said.contains("MiB"), "umount said: {said}");
    std::mem::forget(mount);

    let mount = volume.mount(&at)?;
    network.run(&["chain", "resume"])?;
    volume.sync(PATIENCE)?;
    volume.evict()?;
    process::drop_kernel_caches()?;
    let differences = tree::differences(&expected, &tree::manifest(&at)?);
    ensure!(differences.is_empty(), "from the network: {differences:?}");
    mount.umount()
}

/// A lock file with somebody's number in it is no lock: only a process that holds it is.
#[test]
fn a_lock_that_a_dead_daemon_left_is_in_nobodys_way() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene()?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    fs::write(at.join("file"), "content")?;
    fs::File::open(at.join("file"))?.sync_all()?;
    let mut second = volume.cessfs()?;
    second.args(["mount", &volume.name]).arg(dir.path());
    let (code, said) = process::fail(&mut second)?;
    ensure!(code != 0 && !said.is_empty());
    mount.kill()?;
    let lock = volume.home().join("volumes").join(&volume.name).join("lock");
    ensure!(
        !fs::read_to_string(&lock)?.is_empty(),
        "the dead daemon's number is in it"
    );
    fs::write(&lock, "1\n")?;
    let mount = volume.mount(&at)?;
    ensure!(fs::read_to_string(at.join("file"))? == "content");
    mount.umount()
}

/// A daemon that may open only a few files serves many.
#[test]
fn few_descriptors_are_enough_for_many_files() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene()?;
    let at = dir.path().join("mnt");
    fs::create_dir(&at)?;
    let mut mount = Command::new("prlimit");
    mount.arg("--nofile=256:256").arg(process::binary("cessfs")?);
    mount
        .arg("--home")
        .arg(volume.home())
        .args(["mount", &volume.name])
        .arg(&at);
    mount.arg("-o").arg(volume.secret_option());
    process::succeed(&mut mount)?;
    let written = (0..600u64).try_for_each(|n| -> Result<()> {
        let path = at.join(format!("file-{n}"));
        fs::write(&path, tree::noise(n, 5000)).with_context(|| format!("file {n}"))?;
        Ok(fs::File::open(&path)?.sync_all()?)
    });
    let read = written.and_then(|()| {
        process::drop_kernel_caches()?;
        (0..600u64).try_for_each(|n| {
            let found = fs::read(at.join(format!("file-{n}"))).with_context(|| format!("file {n}"))?;
            ensure!(found == tree::noise(n, 5000), "file {n}");
            Ok(())
        })
    });
    let mut umount = volume.cessfs()?;
    process::succeed(umount.arg("umount").arg(&at))?;
    read
}
