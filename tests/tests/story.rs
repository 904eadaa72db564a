//! The story of `make run`, small: copy a tree in, reach the network, lose eight of twelve miners, read it back.

use anyhow::Result;
use cessfs_tests::process::drop_kernel_caches;
use cessfs_tests::tree::Manifest;
use cessfs_tests::volume::miners_of;
use cessfs_tests::{InitOptions, Network, Opener, Volume, can_mount, tree};
use std::collections::BTreeSet;
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
    // Long enough for all of it to be there before the first pack is made, however slow the machine.
    let mount = volume.mount_with(&dir.path().join("mnt"), &["writeback-delay=60s"])?;

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

    let packs = packs_of(&volume, &network, mount.path(), &expected)?;
    assert!(!packs.is_empty());
    for holders in &packs {
        assert_eq!(holders.len(), 12, "a pack lies on twelve distinct miners");
    }
    // Any three sets of twelve out of sixteen have four in common, and there are not more packs than that: these four stay.
    let common = (0..16).filter(|index| packs.iter().all(|holders| holders.contains(index)));
    let survivors: Vec<usize> = common.take(4).collect();
    assert_eq!(survivors.len(), 4, "of {packs:?}");
    let lost: Vec<usize> = (0..16).filter(|index| !survivors.contains(index)).collect();
    network.miner("stop", &lost)?;

    volume.evict()?;
    let resident = volume.status()?["cache_bytes"].as_u64().unwrap_or(u64::MAX);
    assert!(resident < 4 << 20, "{resident} bytes still in the cache after evict");
    drop_kernel_caches()?;
    let found = tree::manifest(mount.path())?;
    assert_eq!(tree::differences(&expected, &found), Vec::<String>::new());
    mount.umount()
}

/// The holders of every pack that any of these files lies in, as device indexes.
fn packs_of(volume: &Volume, network: &Network, at: &Path, files: &Manifest) -> Result<Vec<BTreeSet<usize>>> {
    let mut packs = BTreeSet::new();
    for path in files.keys().map(|path| at.join(path)) {
        if path.symlink_metadata()?.is_file() {
            let explained = volume.explain(&path)?;
            let chunks = explained["chunks"].as_array().expect("explain lists chunks");
            packs.extend(chunks.iter().map(miners_of).filter(|miners| !miners.is_empty()));
        }
    }
    let holders = |pack: &Vec<String>| Ok(network.indexes(pack)?.into_iter().collect());
    packs.iter().map(holders).collect()
}

#[test]
fn sealed_volume_survives_the_loss_of_eight_miners() -> Result<()> {
    lose_eight_of_twelve("sealed")
}

#[test]
fn plain_volume_survives_the_loss_of_eight_miners() -> Result<()> {
    lose_eight_of_twelve("plain")
}
