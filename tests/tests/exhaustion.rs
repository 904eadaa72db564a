//! Ends that come at a bad moment, and resources that run out: a backlog that cannot be sent, few file descriptors, little
//! memory, a lock that a dead daemon left.

use anyhow::{Context, Result, ensure};
use cessfs_tests::network::eventually;
use cessfs_tests::{InitOptions, Network, Volume, can_mount, process, tree};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
/// Memory that is enough for any work, the kernel's pages of the cache and of what is staged among it.
const MEMORY_BYTES: u64 = 320 << 20;
/// What goes through meanwhile.
const LARGE_MIB: usize = 400;
/// Memory that is not enough for anything.
const NO_MEMORY_BYTES: u64 = 4 << 20;

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
    volume.comes_back(&at, &expected, PATIENCE)?;
    mount.umount()
}

/// `ExecStop` of the unit is `umount --wait`: it ends when the network has everything, not before, and then the phrase is enough.
#[test]
fn an_unmount_that_waits_ends_when_the_network_has_everything() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, network, volume) = scene()?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    network.run(&["chain", "pause"])?;
    tree::write_many(&at.join("many"), 60)?;
    tree::write_noise(&at.join("large"), 8, 3)?;
    let expected = tree::manifest(&at)?;
    let mut umount = volume.cessfs()?;
    let mut umount = umount.arg("umount").arg(&at).arg("--wait").spawn()?;
    std::mem::forget(mount);
    std::thread::sleep(Duration::from_secs(3));
    ensure!(
        umount.try_wait()?.is_none(),
        "it did not wait for a chain that takes nothing"
    );
    network.run(&["chain", "resume"])?;
    let mut ended = None;
    eventually("the unmount to end", PATIENCE, || {
        ended = umount.try_wait()?;
        Ok(ended.is_some())
    })?;
    ensure!(ended.is_some_and(|status| status.success()), "it ended with {ended:?}");
    let status = volume.status()?;
    ensure!(
        status["state"] == "unmounted" && status["unsent_bytes"] == 0 && status["dirty_bytes"] == 0,
        "{status}"
    );

    let again = volume.elsewhere(&dir.path().join("again"))?;
    fs::remove_dir_all(volume.home())?;
    again.recover(&network.ws, &[])?;
    let mount = again.mount_with(&at, &["ro"])?;
    let differences = tree::differences(&expected, &tree::manifest(&at)?);
    ensure!(differences.is_empty(), "from the phrase: {differences:?}");
    mount.umount()
}

/// Sending steps aside for somebody who makes one small request after the other, and is not held up by him for ever.
#[test]
fn a_mount_that_is_always_busy_is_sent_all_the_same() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene()?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    let busy = at.join("busy");
    fs::create_dir(&busy)?;
    let synced = AtomicBool::new(false);
    let waited = std::thread::scope(|scope| -> Result<f64> {
        let works = scope.spawn(|| -> Result<()> {
            while !synced.load(Ordering::Relaxed) {
                for name in ["a", "b", "c", "d"] {
                    fs::write(busy.join(name), name)?;
                    fs::remove_file(busy.join(name))?;
                }
            }
            Ok(())
        });
        let sent = tree::write_noise(&at.join("large"), 8, 64).and_then(|()| volume.sync(PATIENCE));
        synced.store(true, Ordering::Relaxed);
        works.join().expect("it does not panic")?;
        sent?;
        let metrics: serde_json::Value = serde_json::from_str(&volume.run(&["metrics", "--json"])?)?;
        let stages = metrics.as_array().context("an array")?;
        let aside = stages.iter().find(|stage| stage["stage"] == "give_way");
        aside.context("no such stage")?["total_ns"].as_f64().context("no time")
    })?;
    ensure!(waited > 1e9, "nothing stepped aside: {waited} ns");
    mount.umount()
}

/// SIGTERM while a program still has its file open, with pages that only the kernel has.
#[test]
fn a_file_that_is_open_and_dirty_at_the_end_is_kept() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene()?;
    let at = dir.path().join("mnt");
    let mut mount = Some(volume.mount(&at)?);
    // Little of it, too, which the kernel leaves where it is for half a minute.
    for bytes in [64 << 10, 3 << 20] {
        let content = tree::noise(11, bytes);
        let mut writer = fs::File::create(at.join("open"))?;
        std::io::Write::write_all(&mut writer, &content)?;
        let ending = mount.take().context("it is mounted")?;
        kill(ending.pid, Signal::SIGTERM)?;
        eventually("the daemon to end", PATIENCE, || Ok(kill(ending.pid, None).is_err()))?;
        std::mem::forget(ending);
        drop(writer);
        mount = Some(volume.mount(&at)?);
        ensure!(
            fs::read(at.join("open"))? == content,
            "of {bytes} bytes what was written before the end is not there"
        );
    }
    mount.context("it is mounted")?.umount()
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
    let elsewhere = dir.path().join("second");
    fs::create_dir(&elsewhere)?;
    let mut second = volume.cessfs()?;
    second.args(["mount", &volume.name]).arg(&elsewhere);
    second.arg("-o").arg(volume.secret_option());
    let (code, said) = process::fail(&mut second)?;
    let expected = format!("volume `{}` is mounted on {}", volume.name, at.display());
    ensure!(code == 8 && said.contains(&expected), "{code}: {said}");
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

/// Mounts with a daemon that may open so many files.
fn mount_with_descriptors(volume: &Volume, at: &Path, descriptors: usize) -> Result<()> {
    fs::create_dir(at)?;
    let mut mount = Command::new("prlimit");
    mount.arg(format!("--nofile={descriptors}:{descriptors}"));
    mount.arg(process::binary("cessfs")?).arg("--home").arg(volume.home());
    mount.args(["mount", &volume.name]).arg(at);
    mount.arg("-o").arg(volume.secret_option());
    process::succeed(&mut mount).map(drop)
}

/// A shell that keeps itself from writing large files, as build scripts do, mounts all the same; and of one that may not have more at all
/// the writers are told, and nobody is killed.
#[test]
fn what_a_shell_allows_itself_does_not_end_the_daemon() -> Result<()> {
    const MIB: usize = 1 << 20;
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let at = dir.path().join("mnt");
    fs::create_dir(&at)?;
    for (limit, fits) in [("20971520:unlimited", true), ("20971520:20971520", false)] {
        let mut mount = Command::new("prlimit");
        mount.arg(format!("--fsize={limit}"));
        mount.arg(process::binary("cessfs")?).arg("--home").arg(volume.home());
        mount
            .args(["mount", &volume.name, "-o"])
            .arg(volume.secret_option())
            .arg(&at);
        process::succeed(&mut mount)?;
        let large = at.join("large");
        let written = fs::write(&large, tree::noise(1, 40 * MIB)).and_then(|()| fs::File::open(&large)?.sync_all());
        ensure!(written.is_ok() == fits, "{limit}: {written:?}");
        fs::write(at.join("small"), limit)?;
        ensure!(volume.status()?["state"] == "mounted", "{limit}: the daemon is gone");
        ensure!(fs::read_to_string(at.join("small"))? == limit);
        process::succeed(volume.cessfs()?.arg("umount").arg(&at))?;
    }
    Ok(())
}

/// What the kernel reads and writes itself keeps a descriptor each.
#[test]
fn more_files_can_be_open_than_there_are_descriptors_for() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 16)?;
    let options = InitOptions {
        at_rest: "plain",
        ..InitOptions::default()
    };
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &options)?;
    let at = dir.path().join("mnt");
    let path = |n: u64| at.join(format!("file-{n}"));
    let mount = volume.mount(&at)?;
    (0..200).try_for_each(|n| fs::write(path(n), tree::noise(n, 128 << 10)))?;
    mount.umount()?;
    fs::remove_dir(&at)?;
    mount_with_descriptors(&volume, &at, 128)?;
    let held: Result<Vec<fs::File>> = (0..200)
        .map(|n| fs::File::open(path(n)).with_context(|| format!("open file {n}")))
        .collect();
    let read = held.and_then(|held| {
        drop(held);
        process::drop_kernel_caches()?;
        (0..200).try_for_each(|n| {
            let found = fs::read(path(n)).with_context(|| format!("read file {n}"))?;
            ensure!(found == tree::noise(n, 128 << 10), "file {n}");
            Ok(())
        })
    });
    let mut umount = volume.cessfs()?;
    process::succeed(umount.arg("umount").arg(&at))?;
    read
}

/// A daemon that may open only a few files serves many: small ones in the cache, and large ones that the kernel could read and write
/// itself, all of them open at once.
#[test]
fn few_descriptors_are_enough_for_many_files() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 16)?;
    for (at_rest, files, bytes) in [("sealed", 600, 5000), ("plain", 300, 70_000)] {
        let options = InitOptions {
            at_rest,
            ..InitOptions::default()
        };
        let volume = Volume::init(&dir.path().join(at_rest), &network.ws, &options)?;
        with_few_descriptors(&dir.path().join(format!("{at_rest}.mnt")), &volume, files, bytes).context(at_rest)?;
    }
    Ok(())
}

fn with_few_descriptors(at: &Path, volume: &Volume, files: u64, bytes: usize) -> Result<()> {
    mount_with_descriptors(volume, at, 256)?;
    let mut open = Vec::new();
    let written = (0..files).try_for_each(|n| -> Result<()> {
        let path = at.join(format!("file-{n}"));
        fs::write(&path, tree::noise(n, bytes)).with_context(|| format!("file {n}"))?;
        let file = fs::File::open(&path)?;
        file.sync_all()?;
        open.push(file);
        Ok(())
    });
    let read = written.and_then(|()| {
        process::drop_kernel_caches()?;
        (0..files).try_for_each(|n| {
            let found = fs::read(at.join(format!("file-{n}"))).with_context(|| format!("file {n}"))?;
            ensure!(found == tree::noise(n, bytes), "file {n}");
            Ok(())
        })
    });
    drop(open);
    let mut umount = volume.cessfs()?;
    process::succeed(umount.arg("umount").arg(at))?;
    read
}

/// A control group for a daemon, with a limit of its memory; either version of the kernel's control groups.
struct MemoryGroup {
    dir: PathBuf,
    limit: PathBuf,
}

impl MemoryGroup {
    /// `None` where no control group can be made.
    fn around(pid: Pid, bytes: u64) -> Option<MemoryGroup> {
        let name = format!("cessfs-test-{pid}");
        let candidates = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        candidates.into_iter().find_map(|(top, limit)| {
            let dir = Path::new(top).join(&name);
            fs::create_dir(&dir).ok()?;
            let group = MemoryGroup {
                limit: dir.join(limit),
                dir,
            };
            let joined = group.allow(bytes).and_then(|()| {
                fs::write(group.dir.join("cgroup.procs"), pid.to_string())?;
                Ok(())
            });
            joined.ok().map(|()| group)
        })
    }

    /// Version 1 refuses a limit below what is taken and cannot be given back; version 2 kills for it.
    fn allow(&self, bytes: u64) -> Result<()> {
        fs::write(&self.limit, bytes.to_string()).with_context(|| format!("{}", self.limit.display()))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir);
    }
}

/// With little memory everything works, only slower; with none the kernel kills the daemon, which costs what any kill does.
#[test]
fn little_memory_is_enough_and_none_is_a_kill_like_any_other() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene()?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    let Some(group) = MemoryGroup::around(mount.pid, MEMORY_BYTES) else {
        println!("SKIPPED: no control group with a limit of memory can be made here");
        return mount.umount();
    };
    tree::write_many(&at.join("many"), 500)?;
    tree::write_noise(&at.join("large"), 9, LARGE_MIB)?;
    let expected = tree::manifest(&at)?;
    volume.sync(PATIENCE)?;
    volume.evict()?;
    process::drop_kernel_caches()?;
    let differences = tree::differences(&expected, &tree::manifest(&at)?);
    ensure!(differences.is_empty(), "with little memory: {differences:?}");

    fs::write(at.join("synced"), tree::noise(3, 100_000))?;
    fs::File::open(at.join("synced"))?.sync_all()?;
    let pid = mount.pid;
    let refused = group.allow(NO_MEMORY_BYTES).is_err();
    let worked = fs::write(at.join("last-straw"), tree::noise(4, 8 << 20)).is_ok();
    let killer = match refused || worked {
        true => kill(pid, Signal::SIGKILL).map(|()| "this test")?,
        false => "the kernel, for want of memory",
    };
    eventually("the daemon to be gone", PATIENCE, || Ok(kill(pid, None).is_err()))?;
    println!("killed by {killer}");
    drop(group);
    mount.kill()?;
    let mount = volume.mount(&at)?;
    ensure!(
        fs::read(at.join("synced"))? == tree::noise(3, 100_000),
        "an fsynced file is not what it was"
    );
    fs::remove_file(at.join("synced"))?;
    match fs::remove_file(at.join("last-straw")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let differences = tree::differences(&expected, &tree::manifest(&at)?);
    ensure!(differences.is_empty(), "after the kill: {differences:?}");
    mount.umount()
}
