//! The systemd units, as far as they can be tried without systemd: their commands are read from the files and run.

use anyhow::{Context, Result, ensure};
use cessfs_tests::network::eventually;
use cessfs_tests::process::{binary, fail};
use cessfs_tests::{InitOptions, Network, Volume, can_mount, tree};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const UNITS: [&str; 2] = ["cessfs@.service", "cessfs-user@.service"];

/// The values of a key of a unit, in their order.
fn values(unit: &str, key: &str) -> Result<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging/systemd")
        .join(unit);
    let text = std::fs::read_to_string(path)?;
    let values = text
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    Ok(values.map(str::to_owned).collect())
}

fn value(unit: &str, key: &str) -> Result<String> {
    let all = values(unit, key)?;
    all.last().cloned().with_context(|| format!("{unit} has no {key}="))
}

/// The command of a unit for a volume below `at`, and whether it may fail.
fn command(unit: &str, key: &str, volume: &Volume, at: &Path) -> Result<(Command, bool)> {
    let line = value(unit, key)?;
    let (line, may_fail) = match line.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (line.as_str(), false),
    };
    let place = at.to_str().context("a path in UTF-8")?;
    let expand = |word: &str| {
        word.replace("/mnt", place)
            .replace("%h", place)
            .replace("%i", &volume.name)
    };
    let mut words = line.split(' ').map(expand);
    let program = words.next().context("a program")?;
    let program = match program.strip_prefix("/usr/bin/cessfs") {
        Some("") => binary("cessfs")?,
        _ => program.into(),
    };
    let mut command = bounded(unit, &program)?;
    command.args(words).stdin(Stdio::null());
    command.env("CESSFS_HOME", volume.home());
    command.env("CESSFS_PASSPHRASE_FILE", volume.secret_file());
    Ok((command, may_fail))
}

/// A program with no more capabilities than the unit has.
fn bounded(unit: &str, program: &Path) -> Result<Command> {
    let Some(set) = values(unit, "CapabilityBoundingSet")?.pop() else {
        return Ok(Command::new(program));
    };
    let kept = set.split(' ').map(|name| name.replace("CAP_", "+").to_lowercase());
    let kept = std::iter::once("-all".to_owned()).chain(kept).collect::<Vec<_>>();
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set={}", kept.join(","))).arg(program);
    Ok(command)
}

/// A running unit: what is still there of it when the test ends is killed.
struct Started {
    daemon: Child,
    root: PathBuf,
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ended_already = self.daemon.kill();
        let _reaped = self.daemon.wait();
        let _unmounted_already = nix::mount::umount2(&self.root, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// What systemd does to start the unit; returns once its mount answers.
fn start(unit: &str, volume: &Volume, at: &Path) -> Result<Started> {
    let (mut before, may_fail) = command(unit, "ExecStartPre", volume, at)?;
    let output = before.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(may_fail || output.status.success(), "{unit}: ExecStartPre: {said}");
    let (mut main, _) = command(unit, "ExecStart", volume, at)?;
    let mut started = Started {
        daemon: main.stdout(Stdio::null()).spawn()?,
        root: at.join(&volume.name),
    };
    eventually("the mount of the unit", PATIENCE, || {
        if let Some(ended) = started.daemon.try_wait()? {
            anyhow::bail!("{unit}: ExecStart ended with {ended}");
        }
        Ok(is_mounted(&started.root)? && !is_dead(&started.root))
    })?;
    Ok(started)
}

fn is_mounted(root: &Path) -> std::io::Result<bool> {
    // Others may have mounts with names in no encoding.
    let mounts = std::fs::read("/proc/self/mountinfo")?;
    Ok(String::from_utf8_lossy(&mounts).contains(&format!(" {} ", root.display())))
}

/// Statistics are asked of the daemon; attributes may be in the kernel's memory.
fn is_dead(root: &Path) -> bool {
    nix::sys::statvfs::statvfs(root).is_err()
}

fn with_passphrase() -> InitOptions {
    InitOptions {
        opened_by: cessfs_tests::Opener::Passphrase,
        ..InitOptions::default()
    }
}

#[test]
fn a_killed_daemon_is_started_again_over_its_dead_mount() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &with_passphrase())?;
    for unit in UNITS {
        let at = dir.path().join(unit);
        let root = at.join(&volume.name);
        let mut first = start(unit, &volume, &at)?;
        std::fs::write(root.join("file"), unit)?;
        std::fs::File::open(root.join("file"))?.sync_all()?;
        // A change of the directory: the kernel has its attributes to ask for when mkdir wants them.
        std::fs::File::create(root.join("last"))?;
        first.daemon.kill()?;
        first.daemon.wait()?;
        ensure!(is_mounted(&root)? && is_dead(&root), "a dead mount is in the way");
        let mut second = start(unit, &volume, &at)?;
        let content = std::fs::read(root.join("file"));
        let (mut stop, _) = command(unit, "ExecStop", &volume, &at)?;
        let stopped = stop.output()?;
        let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
        ensure!(stopped.status.success(), "{unit}: {}: {said}", stopped.status);
        let ended = second.daemon.wait()?;
        ensure!(ended.success(), "{unit}: {ended}");
        let content = content?;
        ensure!(content == unit.as_bytes(), "{unit}: the file holds {content:?}");
    }
    Ok(())
}

/// Switched off where nothing can be sent: the stop ends in its time, and the rest goes on at the next mount.
#[test]
fn a_stop_that_cannot_send_ends_in_its_time() -> Result<()> {
    for unit in UNITS {
        let stop = value(unit, "ExecStop")?;
        let wait = stop.split_once("--timeout ").context("ExecStop has no --timeout")?.1;
        let most = seconds(&value(unit, "TimeoutStopSec")?)?;
        // Writing everything to this disk takes its time, too.
        ensure!(
            wait.parse::<u64>()? + 30 <= most && most <= 120,
            "{unit}: {wait}, {most}"
        );
        ensure!(
            stop.starts_with('-'),
            "{unit}: an unfinished upload is no failure of the stop"
        );
    }
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    network.run(&["chain", "pause"])?;
    tree::write_noise(&at.join("file"), 7, 3)?;
    let expected = tree::manifest(&at)?;
    let mut umount = volume.cessfs()?;
    umount.arg("umount").arg(&at).args(["--wait", "--timeout", "3"]);
    let began = Instant::now();
    let (code, said) = fail(&mut umount)?;
    ensure!(code == 14, "{code}: {said}");
    ensure!(
        said.contains("unmounted") && said.contains("hint: ") && said.contains("not yet on the network"),
        "{said}"
    );
    ensure!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    ensure!(!is_mounted(&at)?, "it is unmounted");
    ensure!(volume.status()?["state"] == "unmounted");
    // It was unmounted already.
    std::mem::forget(mount);
    network.run(&["chain", "resume"])?;
    let mount = volume.mount(&at)?;
    volume.comes_back(&at, &expected, Duration::from_secs(120))?;
    mount.umount_with(&["--wait", "--timeout", "60"])
}

/// What a restart cannot help is documented with the same number, and is not tried for ever.
#[test]
fn what_a_restart_cannot_help_is_left_alone() -> Result<()> {
    let abi = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CLI_ABI.md"))?;
    let hopeless = [
        "Usage",
        "NoVolume",
        "Secret",
        "Config",
        "Mountpoint",
        "Permission",
        "Refused",
    ];
    let code = |name: &str| -> Result<String> {
        let row = abi.lines().find(|line| line.contains(&format!("| `{name}` |")));
        let row = row.with_context(|| format!("no code {name}"))?;
        Ok(row.split('|').nth(1).context("a number")?.trim().to_owned())
    };
    let expected = hopeless
        .iter()
        .map(|name| code(name))
        .collect::<Result<BTreeSet<_>>>()?;
    for unit in UNITS {
        let left: BTreeSet<String> = value(unit, "RestartPreventExitStatus")?
            .split(' ')
            .map(str::to_owned)
            .collect();
        ensure!(left == expected, "{unit}: {left:?} instead of {expected:?}");
        // All starts that are allowed fit into the interval, even if each takes as long as it may.
        let burst: u64 = value(unit, "StartLimitBurst")?.parse()?;
        let one = seconds(&value(unit, "TimeoutStartSec")?)? + seconds(&value(unit, "RestartSec")?)?;
        let interval = seconds(&value(unit, "StartLimitIntervalSec")?)?;
        ensure!(
            burst > 1 && burst * one < interval,
            "{unit}: {burst} of {one} s in {interval} s"
        );
    }
    Ok(())
}

/// `3min` or `100s`.
fn seconds(span: &str) -> Result<u64> {
    Ok(match span.strip_suffix("min") {
        Some(minutes) => minutes.parse::<u64>()? * 60,
        None => span.trim_end_matches('s').parse()?,
    })
}

/// Of two credentials with one id systemd keeps the last.
#[test]
fn each_credential_has_an_id_of_its_own() -> Result<()> {
    for unit in UNITS {
        let mut seen = BTreeSet::new();
        for key in ["LoadCredential", "LoadCredentialEncrypted"] {
            for line in values(unit, key)? {
                let id = line.split(':').next().unwrap_or_default().to_owned();
                ensure!(seen.insert(id), "{unit} has {line} twice");
            }
        }
        ensure!(seen.contains("cessfs-%i"), "{unit} loads no passphrase");
    }
    Ok(())
}

/// systemd makes a unit of each mount that it sees, and takes all of them away at once when the machine is switched off: of one that the
/// service needs, only after the service has ended.
#[test]
fn the_mount_outlives_the_service() -> Result<()> {
    let unit = "cessfs@.service";
    let start = value(unit, "ExecStart")?;
    let at = start
        .split(' ')
        .find(|word| word.starts_with("/mnt"))
        .context("a place")?;
    let needed = value(unit, "RequiresMountsFor")?;
    ensure!(needed.split(' ').any(|path| path == at), "{at} is not in {needed}");
    Ok(())
}
