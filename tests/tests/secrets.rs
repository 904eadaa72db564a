//! What opens a volume: a file, the environment, a systemd credential, a key file, the terminal. And what a mount leaves
//! behind on the terminal it was made on: nothing, also when that closes at once.

use anyhow::{Context, Result};
use cessfs_tests::process::{command, fail, output, succeed};
use cessfs_tests::{InitOptions, Network, Opener, Volume, can_mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Runs its arguments on a terminal of their own as its first process, types a line when asked, and closes the terminal as soon
/// as they end.
const ON_A_TERMINAL: &str = r#"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
shown = b""
while b":" not in shown:
    shown += os.read(terminal, 1000)
os.write(terminal, sys.argv[1].encode() + b"\n")
try:
    while os.read(terminal, 1000):
        pass
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

/// The phrase of 32 bytes of zeros (a test vector of BIP-39).
const OTHER_PHRASE: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon \
    abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art";

/// `cessfs mount`, with nothing given that opens the volume. An empty `CESSFS_HOME` is none.
fn bare(volume: &Volume, at: &Path) -> Result<Command> {
    let mut mount = volume.cessfs()?;
    mount.args(["mount", &volume.name]).arg(at).env("CESSFS_HOME", "");
    Ok(mount)
}

fn is_mounted(at: &Path) -> Result<()> {
    assert_eq!(std::fs::read_to_string(at.join("file"))?, "content");
    Ok(())
}

fn umount(volume: &Volume, at: &Path) -> Result<()> {
    succeed(volume.cessfs()?.arg("umount").arg(at)).map(drop)
}

/// A volume that a passphrase opens.
fn scene() -> Result<(tempfile::TempDir, Network, Volume)> {
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let options = InitOptions {
        opened_by: Opener::Passphrase,
        ..InitOptions::default()
    };
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &options)?;
    Ok((dir, network, volume))
}

#[test]
fn every_source_of_a_passphrase_opens_the_volume() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, network, volume) = scene()?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    std::fs::write(at.join("file"), "content")?;
    mount.umount()?;

    let (code, stderr) = fail(&mut bare(&volume, &at)?)?;
    assert!(code == 5 && stderr.contains("hint:"), "{code}: {stderr}");

    succeed(bare(&volume, &at)?.env("CESSFS_PASSPHRASE_FILE", volume.secret_file()))?;
    is_mounted(&at)?;
    umount(&volume, &at)?;

    let credentials = dir.path().join("credentials");
    std::fs::create_dir(&credentials)?;
    for name in [format!("cessfs-{}", volume.name), "cessfs-passphrase".to_owned()] {
        std::fs::copy(volume.secret_file(), credentials.join(&name))?;
        succeed(bare(&volume, &at)?.env("CREDENTIALS_DIRECTORY", &credentials))?;
        is_mounted(&at)?;
        umount(&volume, &at)?;
        std::fs::remove_file(credentials.join(&name))?;
    }

    let passphrase = std::fs::read_to_string(volume.secret_file())?;
    for _ in 0..3 {
        let asked = bare(&volume, &at)?;
        let mut terminal = Command::new("python3");
        terminal.args(["-c", ON_A_TERMINAL, passphrase.trim_end()]);
        terminal.arg(asked.get_program()).args(asked.get_args());
        succeed(terminal.env_remove("CESSFS_HOME").env_remove("CESSFS_PASSPHRASE_FILE"))?;
        is_mounted(&at).context("the mount outlives the terminal it was made on")?;
        umount(&volume, &at)?;
    }
    in_the_foreground(&volume, &at, &dir.path().join("log"))?;
    by_a_key_file(dir.path(), &network.ws, &at)
}

/// As systemd runs it: ready when it answers, logs without colours, ends well on SIGTERM.
fn in_the_foreground(volume: &Volume, at: &Path, log: &Path) -> Result<()> {
    let mut foreground = bare(volume, at)?;
    foreground.arg("--foreground").stderr(File::create(log)?);
    foreground.env("CESSFS_PASSPHRASE_FILE", volume.secret_file());
    let mut foreground = foreground.spawn()?;
    let answers = || Ok(at.join("file").exists());
    cessfs_tests::network::eventually("the mount in the foreground", Duration::from_secs(30), answers)?;
    kill(Pid::from_raw(foreground.id() as i32), Signal::SIGTERM)?;
    assert!(foreground.wait()?.success());
    let said = std::fs::read_to_string(log)?;
    assert!(said.contains("mounted") && said.contains("closed"), "{said}");
    assert!(!said.contains('\u{1b}'), "no colours in a file: {said}");
    Ok(())
}

fn by_a_key_file(dir: &Path, ws: &str, at: &Path) -> Result<()> {
    let (home, key) = (dir.join("home"), dir.join("key"));
    std::fs::write(&key, [7; 64])?;
    let cessfs = |arguments: &[&str]| -> Result<Command> {
        let mut cessfs = command("cessfs")?;
        cessfs.arg("--home").arg(&home).args(arguments);
        Ok(cessfs)
    };
    let mut init = cessfs(&["init", "keyed", "--rpc", ws, "--gib", "1"])?;
    init.arg("--key-file")
        .arg(&key)
        .arg("--new-phrase-file")
        .arg(dir.join("phrase"));
    succeed(&mut init)?;
    let mut mount = cessfs(&["mount", "keyed"])?;
    succeed(mount.arg(at).arg("-o").arg(format!("key-file={}", key.display())))?;
    succeed(cessfs(&["umount"])?.arg(at))?;
    std::fs::write(&key, [8; 64])?;
    let mut mount = cessfs(&["mount", "keyed"])?;
    mount.arg(at).arg("-o").arg(format!("key-file={}", key.display()));
    assert_eq!(output(&mut mount)?.status.code(), Some(5), "another key file");
    Ok(())
}

/// By the old passphrase while mounted, by a key file, by the phrase; a wrong one changes nothing.
#[test]
fn what_opens_a_volume_can_be_changed() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene()?;
    let at = dir.path().join("mnt");
    let file = |name: &str, content: &[u8]| -> Result<String> {
        let path = dir.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path.display().to_string())
    };
    let (second, third, key) = (
        file("second", b"second\n")?,
        file("third", b"third")?,
        file("key", &[7; 64])?,
    );
    let old = volume.secret_file().display().to_string();
    let change = |arguments: &[&str]| -> Result<Command> {
        let mut change = volume.cessfs()?;
        change.args(["passphrase", &volume.name]).args(arguments);
        Ok(change)
    };
    let opens = |option: &str, file: &str| -> Result<bool> {
        let ended = output(bare(&volume, &at)?.args(["-o", &format!("{option}={file}")]))?;
        if ended.status.success() {
            is_mounted(&at)?;
            umount(&volume, &at)?;
        }
        Ok(ended.status.success())
    };

    let mount = volume.mount(&at)?;
    std::fs::write(at.join("file"), "content")?;
    let keys = volume.home().join("volumes").join(&volume.name).join("keys.json");
    let before = std::fs::read(&keys)?;
    let (code, stderr) = fail(&mut change(&[
        "--passphrase-file",
        &third,
        "--new-passphrase-file",
        &second,
    ])?)?;
    assert!(code == 5 && stderr.contains("--phrase-file"), "{code}: {stderr}");
    let (code, stderr) = fail(&mut change(&["--passphrase-file", &old])?)?;
    assert!(
        code == 5 && stderr.contains("--new-passphrase-file"),
        "{code}: {stderr}"
    );
    let (code, stderr) = fail(&mut change(&["--passphrase-file", &old, "--new-key-file", &second])?)?;
    assert!(
        code == 5 && stderr.contains("urandom"),
        "a key file of seven bytes: {code}: {stderr}"
    );
    assert_eq!(std::fs::read(&keys)?, before, "what was refused changed nothing");
    succeed(&mut change(&[
        "--passphrase-file",
        &old,
        "--new-passphrase-file",
        &second,
    ])?)?;
    mount.umount()?;
    assert!(opens("passphrase-file", &second)? && !opens("passphrase-file", &old)?);

    succeed(&mut change(&["--passphrase-file", &second, "--new-key-file", &key])?)?;
    assert!(opens("key-file", &key)? && !opens("passphrase-file", &second)?);

    let phrase = volume.phrase_file().display().to_string();
    let other = file("other", OTHER_PHRASE.as_bytes())?;
    let (code, stderr) = fail(&mut change(&[
        "--phrase-file",
        &other,
        "--new-passphrase-file",
        &third,
    ])?)?;
    assert!(code == 5 && stderr.contains("hint:"), "{code}: {stderr}");
    succeed(&mut change(&[
        "--phrase-file",
        &phrase,
        "--new-passphrase-file",
        &third,
    ])?)?;
    assert!(opens("passphrase-file", &third)? && !opens("key-file", &key)?);
    Ok(())
}

/// A verb that holds a phrase and waits for a node that says nothing belongs to nobody but root, though a user runs it.
#[test]
fn a_verb_that_holds_secrets_is_closed_to_its_own_user() -> Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    if !can_mount() {
        return Ok(());
    }
    const NOBODY: u32 = 65534;
    let dir = tempfile::tempdir()?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    let program = dir.path().join("cessfs");
    std::fs::copy(command("cessfs")?.get_program(), &program)?;
    let own = dir.path().join("own");
    std::fs::create_dir(&own)?;
    std::fs::write(own.join("pw"), "correct horse battery staple")?;
    chown(&own, Some(NOBODY), Some(NOBODY))?;
    chown(own.join("pw"), Some(NOBODY), Some(NOBODY))?;
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut init = Command::new("setpriv");
    init.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    init.arg(&program).arg("--home").arg(own.join("home"));
    init.args(["init", "v", "--rpc", &format!("ws://{}", silent.local_addr()?)]);
    init.arg("--new-phrase-file").arg(own.join("phrase"));
    init.arg("--passphrase-file").arg(own.join("pw")).current_dir("/");
    let mut init = init.spawn()?;
    // It has its secrets once it asks the node.
    let _asking = silent.accept()?;
    let of = |name: &str| std::fs::metadata(format!("/proc/{}/{name}", init.id())).map(|of| of.uid());
    let (environ, limits) = (
        of("environ"),
        std::fs::read_to_string(format!("/proc/{}/limits", init.id())),
    );
    let status = std::fs::read_to_string(format!("/proc/{}/status", init.id()));
    init.kill()?;
    init.wait()?;
    assert!(status?.contains("Uid:\t65534"), "it runs as the user");
    assert_eq!(environ?, 0, "/proc/PID/environ is root's");
    let limits = limits?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    assert!(
        core.is_some_and(|line| line.split_whitespace().nth(4) == Some("0")),
        "{limits}"
    );
    Ok(())
}
