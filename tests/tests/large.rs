//! Memory does not grow with file size: 4 GiB in, out to the network, evicted, and back, under 400 MiB resident.

use anyhow::Result;
use cessfs_tests::process::drop_kernel_caches;
use cessfs_tests::{InitOptions, Network, Volume, can_mount, tree};
use std::time::Duration;

const FILE_MIB: usize = 4096;
const PEAK_RSS_BYTES_MAX: u64 = 400 << 20;

#[test]
fn four_gib_pass_through_in_bounded_memory() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(
        &dir.path().join("volume"),
        &network.ws,
        &InitOptions {
            gib: 24,
            ..InitOptions::default()
        },
    )?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    let path = mount.path().join("large.bin");
    tree::write_noise(&path, 42, FILE_MIB)?;
    let expected = tree::hash(&path)?;
    volume.sync(Duration::from_secs(900))?;
    volume.evict()?;
    drop_kernel_caches()?;
    assert_eq!(tree::hash(&path)?, expected);
    let peak = mount.peak_rss_bytes()?;
    println!("peak RSS {} MiB", peak >> 20);
    assert!(peak < PEAK_RSS_BYTES_MAX, "peak RSS {} MiB", peak >> 20);
    mount.umount()
}
