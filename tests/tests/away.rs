//! The network goes away for a minute and comes back: the mount keeps working from disk and nothing is lost.

use anyhow::Result;
use cessfs_tests::process::succeed;
use cessfs_tests::{InitOptions, Network, Volume, can_mount, tree};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
/// How long the network is away. Long enough that every retry has reached its longest pause.
const AWAY: Duration = Duration::from_secs(60);

/// How long the network stays away while a writer waits for it. Longer than writers wait unless configured.
const HELD_BACK: Duration = Duration::from_secs(13);

/// What is copied meanwhile: more than the cache may hold.
const HELD_BACK_MIB: usize = 200;

/// The content as the mount gives it, past the pages that the kernel has of it.
fn hash_from_the_mount(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path)?;
    nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    tree::hash(path)
}

/// Somebody who copies more than the cache can hold waits for the network if that is configured, instead of failing; meanwhile
/// what is here is read as always.
#[test]
fn a_writer_waits_for_the_network_as_long_as_configured() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    volume.configure(&[
        ("full_wait = \"10s\"", "full_wait = \"90s\""),
        ("backlog_max = \"8GiB\"", "backlog_max = \"256MiB\""),
    ])?;
    // Without the kernel's cache the writer itself is held back, and not pages that it left behind.
    let tight = ["cache-size=64MiB", "kernel-cache=none"];
    let mount = volume.mount_with(&dir.path().join("mnt"), &tight)?;
    let (early, much) = (mount.path().join("early"), mount.path().join("much"));
    tree::write_noise(&early, 1, 4)?;
    std::fs::File::open(&early)?.sync_all()?;
    let content = tree::hash(&early)?;
    network.stop()?;
    let stopped = Instant::now();
    std::thread::scope(|scope| {
        let copying = scope.spawn(|| tree::write_noise(&much, 2, HELD_BACK_MIB));
        while stopped.elapsed() < HELD_BACK {
            let began = Instant::now();
            assert_eq!(hash_from_the_mount(&early)?, content);
            let took = began.elapsed();
            assert!(took < Duration::from_secs(5), "a read waited {took:?} for writers");
            std::thread::sleep(Duration::from_millis(200));
        }
        let written = std::fs::metadata(&much)?.len();
        network.start(12)?;
        copying.join().expect("no panic")?;
        assert!(written < (HELD_BACK_MIB as u64) << 20, "nobody was held back");
        anyhow::Ok(())
    })?;
    std::fs::File::open(&much)?.sync_all()?;
    let expected = tree::manifest(mount.path())?;
    volume.comes_back(mount.path(), &expected, PATIENCE)?;
    mount.umount()
}

/// The mount goes at once; the daemon stays until everything is sent, or until the volume is mounted again.
#[test]
fn unmounted_in_the_background_the_rest_is_sent() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    network.stop()?;
    tree::write_noise(&mount.path().join("first"), 1, 5)?;
    let mut expected = tree::manifest(mount.path())?;
    mount.umount_with(&["--background"])?;
    assert!(!at.join("first").exists(), "the mount is gone");
    let status = volume.status()?;
    assert_eq!(status["state"], "sending", "{status}");
    assert!(status["dirty_bytes"].as_u64().unwrap_or(0) + status["unsent_bytes"].as_u64().unwrap_or(0) > 0);

    // Who mounts it again does not wait for the network, and finds everything.
    let mount = volume.mount(&at)?;
    assert_eq!(
        tree::differences(&expected, &tree::manifest(mount.path())?),
        Vec::<String>::new()
    );
    tree::write_noise(&mount.path().join("second"), 2, 5)?;
    expected.extend(tree::manifest(mount.path())?);
    mount.umount_with(&["--background"])?;
    network.start(12)?;
    let began = Instant::now();
    while volume.status()?["state"] != "unmounted" {
        assert!(began.elapsed() < PATIENCE, "{}", volume.status()?);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(volume.status()?["unsent_bytes"], 0);
    let elsewhere = volume.elsewhere(&dir.path().join("elsewhere"))?;
    elsewhere.recover(&network.ws, &[])?;
    let mount = elsewhere.mount(&at)?;
    assert_eq!(
        tree::differences(&expected, &tree::manifest(mount.path())?),
        Vec::<String>::new()
    );
    mount.umount()
}

#[test]
fn writes_and_reads_go_on_while_the_network_is_away() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 13)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    tree::write_noise(&mount.path().join("before"), 1, 3)?;
    volume.sync(PATIENCE)?;

    network.stop()?;
    let stopped = Instant::now();
    tree::write_noise(&mount.path().join("during"), 2, 5)?;
    std::fs::rename(mount.path().join("before"), mount.path().join("renamed"))?;
    let expected = tree::manifest(mount.path())?;
    let waits = volume.run(&["sync", "--wait", "--timeout", "3"]);
    assert!(waits.is_err(), "sync --wait cannot succeed without a network");
    volume.status_says(&["away", "reach"], PATIENCE)?;
    assert!(
        volume.status()?["unsent_bytes"].as_u64().unwrap_or(0) + volume.status()?["dirty_bytes"].as_u64().unwrap_or(0)
            > 0
    );

    // Unmount and mount again with the network still away: also that must work.
    mount.umount()?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    assert_eq!(
        tree::differences(&expected, &tree::manifest(mount.path())?),
        Vec::<String>::new()
    );

    // The mount is used all the while.
    let mut rounds = 0u32;
    while stopped.elapsed() < AWAY {
        std::fs::write(mount.path().join("log"), format!("round {rounds}"))?;
        assert_eq!(
            std::fs::read_to_string(mount.path().join("log"))?,
            format!("round {rounds}")
        );
        rounds += 1;
        std::thread::sleep(Duration::from_millis(500));
    }
    let expected = tree::manifest(mount.path())?;
    network.start(13)?;
    volume.comes_back(mount.path(), &expected, PATIENCE)?;
    assert_eq!(
        network.events("UploadDeclaration")?,
        network.events("StorageCompleted")?
    );
    mount.umount()
}

/// Who waits for the network learns why, also where there is no terminal: in a script, in a service's journal.
#[test]
fn who_waits_for_the_network_is_told_why() -> Result<()> {
    const VERBS: [&[&str]; 3] = [&["gc", "home"], &["repair", "home"], &["sync", "home", "--wait"]];
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    std::fs::write(mount.path().join("file"), "content")?;
    network.stop()?;
    succeed(volume.cessfs()?.args(["snapshot", "create", "home"]))?;
    let waiting = VERBS.map(|verb| -> Result<_> {
        let mut cessfs = volume.cessfs()?;
        cessfs.args(verb).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = cessfs.spawn()?;
        let said = BufReader::new(child.stderr.take().expect("it was asked for")).lines();
        Ok((child, said))
    });
    let mut waiting = waiting.into_iter().collect::<Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_secs(20));
    network.start(12)?;
    for (verb, (child, said)) in VERBS.iter().zip(&mut waiting) {
        let said: Vec<String> = said.collect::<std::io::Result<_>>()?;
        let why = "waiting: the chain cannot be reached";
        assert!(said.iter().any(|line| line.starts_with(why)), "{verb:?}: {said:?}");
        assert!(said.len() < 4, "{verb:?}: {said:?}");
        assert!(child.wait()?.success(), "{verb:?}: {said:?}");
    }
    mount.umount()
}
