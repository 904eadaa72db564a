//! What people do in their first hours, by mistake among it: each time they are told what is true, and what to do.

use anyhow::{Context, Result, ensure};
use cessfs_tests::network::eventually;
use cessfs_tests::process::{binary, command, fail, output, succeed};
use cessfs_tests::{InitOptions, Network, Opener, Volume, can_mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn scene(options: &InitOptions) -> Result<(tempfile::TempDir, Network, Volume)> {
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, options)?;
    Ok((dir, network, volume))
}

/// The command fails with `code` and says each of `words`.
fn refused(command: &mut Command, code: i32, words: &[&str]) -> Result<()> {
    let (exit, said) = fail(command)?;
    ensure!(exit == code, "{command:?} ended with {exit}, not {code}: {said}");
    for word in words {
        ensure!(said.contains(word), "{command:?} does not say `{word}`: {said}");
    }
    Ok(())
}

/// Bytes that do not shrink.
fn noise(len: u64) -> Vec<u8> {
    let mut out = vec![0; len as usize];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

#[test]
fn what_init_fixed_is_told_from_damage() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene(&InitOptions::default())?;
    let at = dir.path().join("m");
    let mount = volume.mount(&at)?;
    std::fs::write(at.join("file"), "kept")?;
    mount.umount()?;
    let (sealed, plain) = ("at_rest = \"sealed\"", "at_rest = \"plain\"");
    volume.configure(&[(sealed, plain)])?;
    let mut mount = volume.cessfs()?;
    mount
        .args(["mount", "home"])
        .arg(&at)
        .args(["-o", &volume.secret_option()]);
    refused(&mut mount, 6, &["at_rest", "put the old value back"])?;
    let mut rebuild = volume.cessfs()?;
    rebuild.args(["fsck", "home", "--rebuild"]);
    volume.add_secret(&mut rebuild);
    refused(&mut rebuild, 6, &["at_rest", "put the old value back"])?;
    volume.configure(&[(plain, sealed)])?;
    let mount = volume.mount(&at)?;
    assert_eq!(std::fs::read_to_string(at.join("file"))?, "kept");
    mount.umount()
}

#[test]
fn what_is_not_sent_is_counted_once() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, network, volume) = scene(&InitOptions::default())?;
    let mount = volume.mount(&dir.path().join("m"))?;
    network.stop()?;
    std::fs::write(mount.path().join("file"), noise(8 * MIB))?;
    volume.run(&["sync"])?;
    let status = volume.status()?;
    let number = |key: &str| status[key].as_u64().context("no number");
    let left = number("dirty_bytes")? + number("unsent_bytes")?;
    ensure!(
        (8 * MIB..12 * MIB).contains(&left),
        "{left} bytes of 8 MiB are left to send"
    );
    mount.umount()?;
    let status = volume.status()?;
    let left = status["dirty_bytes"].as_u64().unwrap_or(0) + status["unsent_bytes"].as_u64().unwrap_or(0);
    ensure!(
        (8 * MIB..12 * MIB).contains(&left),
        "{left} bytes of 8 MiB were left to send"
    );
    Ok(())
}

#[test]
fn who_still_has_a_mount_is_told() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene(&InitOptions::default())?;
    let at = dir.path().join("m");
    std::fs::create_dir(&at)?;
    let mut mount = volume.cessfs()?;
    mount
        .args(["mount", "home"])
        .arg(&at)
        .args(["-o", &volume.secret_option()]);
    succeed(&mut mount)?;
    let mut holder = Command::new("unshare");
    let mut holder = holder.args(["--mount", "sleep", "6"]).stdin(Stdio::null()).spawn()?;
    let copied = || Ok(std::fs::read_to_string(format!("/proc/{}/comm", holder.id()))?.trim() == "sleep");
    eventually("the other namespace", PATIENCE, copied)?;
    let mut umount = volume.cessfs()?;
    let said = output(umount.arg("umount").arg(&at))?;
    holder.wait()?;
    let stderr = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(said.status.success(), "{stderr}");
    let word = holder.id().to_string();
    ensure!(stderr.contains(&word), "umount does not say `{word}`: {stderr}");
    let log = std::fs::read_to_string(volume.home().join("volumes/home/log"))?;
    ensure!(log.contains(&word), "the log does not say `{word}`: {log}");
    Ok(())
}

#[test]
fn the_daemon_holds_nothing_of_who_started_it() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene(&InitOptions::default())?;
    let (lock, at) = (dir.path().join("lock"), dir.path().join("m"));
    std::fs::create_dir(&at)?;
    let mut script = Command::new("flock");
    script
        .arg(&lock)
        .arg(binary("cessfs")?)
        .arg("--home")
        .arg(volume.home());
    script
        .args(["mount", "home"])
        .arg(&at)
        .args(["-o", &volume.secret_option()]);
    succeed(script.stdin(Stdio::null()))?;
    let free = Command::new("flock").arg("-n").arg(&lock).arg("true").status();
    let mut umount = volume.cessfs()?;
    succeed(umount.arg("umount").arg(&at))?;
    ensure!(free?.success(), "the daemon holds the lock of the script that mounted");
    Ok(())
}

/// Answers the prompt of a command with one byte; prints how the command ended, and whether the terminal echoes then.
const AT_THE_PROMPT: &str = r#"
import os, pty, sys, termios, time
key, command = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(command[0], command)
echoes = lambda: bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
said = b''
while b'passphrase of volume' not in said or echoes():
    said += os.read(terminal, 1024)
os.write(terminal, key.encode())
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status), echoes())
"#;

#[test]
fn a_prompt_leaves_the_terminal_as_it_was() -> Result<()> {
    let options = InitOptions {
        opened_by: Opener::Passphrase,
        ..InitOptions::default()
    };
    let (dir, _network, volume) = scene(&options)?;
    let at = dir.path().join("m");
    std::fs::create_dir(&at)?;
    // Ctrl-C, Ctrl-\, the end of the input, and an empty line.
    for (key, expected) in [
        ("\x03", "-2 True"),
        ("\x1c", "-3 True"),
        ("\x04", "5 True"),
        ("\n", "5 True"),
    ] {
        let mut python = Command::new("timeout");
        python
            .args(["60", "python3", "-c", AT_THE_PROMPT, key])
            .arg(binary("cessfs")?);
        python.arg("--home").arg(volume.home()).args(["mount", "home"]).arg(&at);
        python.env_remove("CESSFS_PASSPHRASE_FILE").stdin(Stdio::null());
        assert_eq!(succeed(&mut python)?.trim(), expected, "{key:?}");
    }
    Ok(())
}

#[test]
fn a_recovered_journal_is_private() -> Result<()> {
    let (dir, network, volume) = scene(&InitOptions::default())?;
    if !can_mount() {
        return Ok(());
    }
    let mount = volume.mount(&dir.path().join("m"))?;
    std::fs::write(mount.path().join("file"), "content")?;
    volume.sync(PATIENCE)?;
    mount.umount()?;
    let other = volume.elsewhere(&dir.path().join("other"))?;
    other.recover(&network.ws, &[])?;
    for entry in std::fs::read_dir(other.home().join("volumes/home/journal"))? {
        let entry = entry?;
        let mode = entry.metadata()?.permissions().mode();
        ensure!(mode & 0o077 == 0, "{:?} has the mode {mode:o}", entry.file_name());
    }
    Ok(())
}

#[test]
fn what_the_chain_would_refuse_is_refused_before() -> Result<()> {
    let (dir, network, volume) = scene(&InitOptions::default())?;
    for arguments in [
        &["territory", "expand", "home", "--gib", "0"][..],
        &["territory", "renew", "home", "--days", "0"],
        &["territory", "mint", "home", "--days", "29"],
        &["scrub", "home", "--rate", "1"],
    ] {
        refused(volume.cessfs()?.args(arguments), 2, &["--"])?;
    }
    for wrong in [["--gib", "0"], ["--days", "1"]] {
        let mut init = command("cessfs")?;
        init.arg("--home").arg(dir.path().join("none"));
        init.args(["init", "x", "--rpc", &network.ws, "--new-phrase-file", "x"])
            .args(wrong);
        refused(&mut init, 2, &[wrong[0]])?;
    }
    let mut mint = volume.cessfs()?;
    mint.args(["territory", "mint", "home", "--gib", "1"]);
    volume.add_secret(&mut mint);
    refused(&mut mint, 18, &["`docs` already", "territory expand"])
}

#[test]
fn paths_that_are_not_there_are_named() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene(&InitOptions::default())?;
    volume.configure(&[("min_age = \"10m\"", "min_age = \"0s\"")])?;
    let mount = volume.mount(&dir.path().join("m"))?;
    let none = mount.path().join("nope");
    let path = none.display().to_string();
    refused(volume.cessfs()?.arg("explain").arg(&none), 1, &[&path])?;
    refused(
        volume
            .cessfs()?
            .args(["quota", "set"])
            .arg(&none)
            .args(["--inodes", "9"]),
        1,
        &[&path],
    )?;
    std::fs::write(mount.path().join("file"), "content")?;
    volume.run(&["sync"])?;
    std::fs::remove_file(mount.path().join("file"))?;
    let list = succeed(volume.cessfs()?.args(["trash", "list", "home", "--json"]))?;
    let list: serde_json::Value = serde_json::from_str(&list)?;
    let id = list[0]["id"].as_u64().context("the trash is empty")?.to_string();
    let mut restore = volume.cessfs()?;
    restore.args(["trash", "restore", "home", &id, "--to"]).arg(&none);
    refused(&mut restore, 2, &[&path, "mkdir"])?;
    mount.umount()
}

#[test]
fn a_daemon_that_was_killed_is_told_from_none() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene(&InitOptions::default())?;
    let at = dir.path().join("m");
    let mount = volume.mount(&at)?;
    std::fs::create_dir(at.join("d"))?;
    mount.kill_under(|| {
        let is_dead = || Ok(nix::sys::statvfs::statvfs(&at).is_err());
        eventually("the mount to die", PATIENCE, is_dead)?;
        for path in ["d", "d/none"] {
            let again = format!("cessfs mount home {}", at.display());
            refused(
                volume.cessfs()?.arg("explain").arg(at.join(path)),
                9,
                &["has died", &again],
            )?;
            refused(
                volume.cessfs()?.args(["quota", "show"]).arg(at.join(path)),
                9,
                &["has died", &again],
            )?;
        }
        let free = || Ok(volume.status()?["died"] == true);
        eventually("status to say it", PATIENCE, free)?;
        let status = volume.status()?;
        ensure!(
            status["state"] == "unmounted" && status["mountpoint"] == at.display().to_string(),
            "{status}"
        );
        let said = succeed(volume.cessfs()?.args(["status", "home"]))?;
        ensure!(
            said.contains("its daemon died") && said.contains("last closed"),
            "{said}"
        );
        let doctor = output(volume.cessfs()?.args(["doctor", "home"]))?;
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        ensure!(said.contains("a dead mount is left"), "{said}");
        Ok(())
    })?;
    let mount = volume.mount(&at)?;
    ensure!(volume.status()?["died"] == false, "it lives");
    mount.umount()?;
    ensure!(volume.status()?["died"] == false, "it was closed");
    Ok(())
}

/// It lives, and says nothing: nobody waits for ever, and nobody takes that for a volume that is not mounted.
#[test]
fn a_daemon_that_is_stopped_is_told_from_none() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene(&InitOptions::default())?;
    let at = dir.path().join("m");
    let mount = volume.mount(&at)?;
    let who = format!("process {} does not answer", mount.pid);
    let ask = |arguments: &[&str]| -> Result<Child> {
        let mut cessfs = volume.cessfs()?;
        cessfs.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(cessfs.spawn()?)
    };
    kill(mount.pid, Signal::SIGSTOP)?;
    let (began, place) = (Instant::now(), at.display().to_string());
    let secret = volume.secret_option();
    let asked = [
        (ask(&["status", "home"])?, 8, &*who),
        (ask(&["umount", &place, "--wait"])?, 8, &who),
        (ask(&["explain", &place])?, 8, &who),
        (ask(&["metrics", "home"])?, 8, &who),
        (ask(&["volumes"])?, 0, &who),
        (ask(&["doctor", "home"])?, 16, &who),
        (ask(&["mount", "home", &place, "-o", &secret])?, 7, "already mounted"),
    ];
    let told: Vec<_> = asked
        .into_iter()
        .map(|(child, code, words)| (child.wait_with_output(), code, words))
        .collect();
    kill(mount.pid, Signal::SIGCONT)?;
    ensure!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
    for (said, code, words) in told {
        let said = said?;
        let text = String::from_utf8([said.stdout, said.stderr].concat())?;
        ensure!(
            said.status.code() == Some(code) && text.contains(words),
            "{}: {text}",
            said.status
        );
    }
    ensure!(volume.status()?["state"] == "mounted");
    mount.umount()
}

/// As a terminal does that closes over a mount in its foreground: no dead mount is left. nohup(1) is obeyed.
#[test]
fn who_hangs_up_unmounts() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene(&InitOptions::default())?;
    let at = dir.path().join("m");
    std::fs::create_dir(&at)?;
    // Whoever runs the tests may ignore hangups, as nohup and some services do, and what he starts inherits it.
    let hearing: &[&str] = &["env", "--default-signal=HUP"];
    for (start, hears) in [(hearing, true), (&["nohup"], false)] {
        let cessfs = volume.cessfs()?;
        let mut mount = Command::new(start[0]);
        mount.args(&start[1..]).arg(cessfs.get_program());
        mount.arg("--home").arg(volume.home());
        mount
            .args(["mount", "home", "-f", "-o", &volume.secret_option()])
            .arg(&at);
        let mut mount = mount
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pid = Pid::from_raw(i32::try_from(mount.id())?);
        let state = || Ok(volume.status()?["state"] == "mounted");
        eventually("the mount", PATIENCE, state)?;
        std::fs::write(at.join("file"), "content")?;
        kill(pid, Signal::SIGHUP)?;
        if !hears {
            std::thread::sleep(Duration::from_millis(500));
            ensure!(volume.status()?["state"] == "mounted", "it was to be ignored");
            kill(pid, Signal::SIGTERM)?;
        }
        eventually("the end", PATIENCE, || Ok(mount.try_wait()?.is_some()))?;
        ensure!(mount.wait()?.success());
        let status = volume.status()?;
        ensure!(status["state"] == "unmounted" && status["died"] == false, "{status}");
        ensure!(at.read_dir()?.next().is_none(), "something is left in the way");
    }
    Ok(())
}

#[test]
fn doctor_misses_the_territory_of_a_mounted_volume() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene(&InitOptions::default())?;
    volume.configure(&[("territory = \"docs\"", "territory = \"none\"")])?;
    let mount = volume.mount(&dir.path().join("m"))?;
    let doctor = output(volume.cessfs()?.args(["doctor", "home"]))?;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    ensure!(
        doctor.status.code() == Some(16) && said.contains("no territory `none`"),
        "{said}"
    );
    ensure!(said.contains("territory mint"), "{said}");
    mount.umount()
}

#[test]
fn a_measurement_that_is_broken_off_leaves_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let entries = |at: &Path| Ok::<_, std::io::Error>(std::fs::read_dir(at)?.count());
    let mut bench = command("cessfs")?;
    bench.arg("bench").arg(dir.path());
    bench.args(["--only", "create_4k,list", "--files", "2000", "--reps", "99"]);
    let mut bench = bench.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    eventually("the measurement to begin", PATIENCE, || Ok(entries(dir.path())? > 0))?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(bench.id() as i32),
        nix::sys::signal::Signal::SIGTERM,
    )?;
    let began = Instant::now();
    let ended = bench.wait()?;
    ensure!(ended.code() == Some(130), "{ended}");
    ensure!(
        began.elapsed() < PATIENCE && entries(dir.path())? == 0,
        "something is left behind"
    );
    Ok(())
}
