//! The story of `make run`, small: copy a tree in, reach the network, lose eight of twelve miners, read it back.

use anyhow::Result;
use cessfs_tests::process::drop_kernel_caches;
use cessfs_tests::volume::miners_of;
use cessfs_tests::{InitOptions, Network, Opener, Volume, can_mount, tree};
use std::path::Path;
use std::time::Duration;

fn lose_eight_of_twelve(at_rest: &'static str) -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 16)?;
    let options = InitOptions {
        at_rest,
        opened_by: Opener::Passphrase,
        ..InitOptions::default()
    };
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &options)?;
    let mount = volume.mount(&dir.path().join("mnt"))?;

    let sources = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ has a parent")
        .join("crypto");
    tree::copy(&sources, &mount.path().join("sources"))?;
    tree::write_noise(&mount.path().join("big.bin"), 1, 40)?;
    tree::write_many(&mount.path().join("many"), 300)?;
    std::os::unix::fs::symlink("big.bin", mount.path().join("link"))?;
    let expected = tree::manifest(mount.path())?;
    volume.sync(Duration::from_secs(120))?;
    assert_eq!(
        network.events("UploadDeclaration")?,
        network.events("StorageCompleted")?
    );

    let accounts = miners_of(&volume.explain(&mount.path().join("big.bin"))?);
    let holders = network.indexes(&accounts)?;
    assert!(holders.len() >= 12, "{} holders", holders.len());
    // Eight of the twelve of *each* pack: with at most four running, no pack has more than four left.
    let survivors: Vec<usize> = pack_survivors(&volume, &network, mount.path())?;
    let lost: Vec<usize> = (0..16).filter(|index| !survivors.contains(index)).collect();
    let stopped = holders.iter().filter(|index| lost.contains(index)).count();
    assert!(stopped >= 8, "only {stopped} of {holders:?} are stopped");
    network.miner("stop", &lost)?;

    volume.evict()?;
    let resident = volume.status()?["cache_bytes"].as_u64().unwrap_or(u64::MAX);
    assert!(resident < 4 << 20, "{resident} bytes still in the cache after evict");
    drop_kernel_caches()?;
    let found = tree::manifest(mount.path())?;
    assert_eq!(tree::differences(&expected, &found), Vec::<String>::new());
    mount.umount()
}

/// Four miners of every pack that the big file lies in, as device indexes: the smallest set that must stay.
fn pack_survivors(volume: &Volume, network: &Network, at: &Path) -> Result<Vec<usize>> {
    let explained = volume.explain(&at.join("big.bin"))?;
    let mut keep = std::collections::BTreeSet::new();
    for chunk in explained["chunks"].as_array().expect("explain lists chunks") {
        let holders = network.indexes(&miners_of(chunk))?;
        assert_eq!(
            holders.len(),
            12,
            "a chunk's pack lies on twelve distinct miners: {chunk}"
        );
        let kept = holders.iter().filter(|index| keep.contains(*index)).count();
        let more: Vec<usize> = holders
            .iter()
            .rev()
            .filter(|index| !keep.contains(*index))
            .take(4usize.saturating_sub(kept))
            .copied()
            .collect();
        keep.extend(more);
    }
    Ok(keep.into_iter().collect())
}

#[test]
fn sealed_volume_survives_the_loss_of_eight_miners() -> Result<()> {
    lose_eight_of_twelve("sealed")
}

#[test]
fn plain_volume_survives_the_loss_of_eight_miners() -> Result<()> {
    lose_eight_of_twelve("plain")
}
