//! The network goes away for a minute and comes back: the mount keeps working from disk and nothing is lost.

use anyhow::Result;
use cessfs_tests::{InitOptions, Network, Volume, can_mount, tree};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
/// How long the network is away. Long enough that every retry has reached its longest pause.
const AWAY: Duration = Duration::from_secs(60);

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
    volume.sync(PATIENCE)?;
    volume.evict()?;
    cessfs_tests::process::drop_kernel_caches()?;
    assert_eq!(
        tree::differences(&expected, &tree::manifest(mount.path())?),
        Vec::<String>::new()
    );
    assert_eq!(
        network.events("UploadDeclaration")?,
        network.events("StorageCompleted")?
    );
    mount.umount()
}
