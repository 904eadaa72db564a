//! What becomes of packs: damage is found and rewritten in time, what was deleted is given back, and what lives stays.

use anyhow::{Context, Result};
use cessfs_tests::metadata::full_manifest;
use cessfs_tests::process::drop_kernel_caches;
use cessfs_tests::volume::miners_of;
use cessfs_tests::{InitOptions, Mount, Network, Volume, can_mount, tree};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(180);
const MIB: u64 = 1 << 20;

/// A volume that keeps neither history nor deleted files.
fn forgetful(dir: &Path, network: &Network) -> Result<Volume> {
    let volume = Volume::init(dir, &network.ws, &InitOptions::default())?;
    volume.configure(&[
        ("keep_history = \"7d\"", "keep_history = \"0s\""),
        ("grace = \"1h\"", "grace = \"0s\""),
        ("keep = \"7d\"", "keep = \"0s\""),
    ])?;
    Ok(volume)
}

fn ask(volume: &Volume, arguments: &[&str]) -> Result<Value> {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    Ok(serde_json::from_str(&volume.run(&arguments)?)?)
}

fn count(value: &Value) -> usize {
    value.as_array().map_or(0, Vec::len)
}

#[test]
fn three_miners_fail_the_pack_is_rewritten_and_eight_more_may_go() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 20)?;
    let volume = forgetful(&dir.path().join("volume"), &network)?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    let file = mount.path().join("file");
    tree::write_noise(&file, 31, 20)?;
    tree::write_many(&mount.path().join("many"), 200)?;
    let expected = tree::manifest(mount.path())?;
    volume.sync(PATIENCE)?;

    let clean = ask(&volume, &["scrub"])?;
    assert_eq!(
        (clean["packs"].as_u64(), count(&clean["damaged"])),
        (Some(1), 0),
        "{clean}"
    );
    let old = volume.explain(&file)?["chunks"][0].clone();
    let holders = network.indexes(&miners_of(&old))?;
    network.miner("corrupt", &holders[2..3])?;
    network.miner("forget", &holders[5..7])?;
    let seen = ask(&volume, &["scrub", "--sample", "--rate", "1GiB"])?;
    assert_eq!(
        (
            seen["damaged"][0]["good"].as_u64(),
            seen["damaged"][0]["grade"].as_str()
        ),
        (Some(9), Some("watch")),
        "{seen}"
    );
    let status = volume.status()?;
    assert_eq!(status["pack_health"]["watch"].as_u64(), Some(1), "{status}");
    assert_eq!(status["damaged_packs"][0]["good"].as_u64(), Some(9), "{status}");
    assert!(status["scrubbed_at"].as_u64() > Some(0), "{status}");

    let repaired = ask(&volume, &["repair"])?;
    assert_eq!(
        (count(&repaired["rewritten"]), count(&repaired["deleted"])),
        (1, 1),
        "{repaired}"
    );
    assert_eq!(network.events("DeleteFile")?, 1);
    let new = volume.explain(&file)?["chunks"][0].clone();
    assert!(new["pack"]["seq"].as_u64() > old["pack"]["seq"].as_u64(), "{new}");
    assert_eq!(new["standing"].as_str(), Some("confirmed"));
    let full = ask(&volume, &["scrub", "--full", "--rate", "1GiB"])?;
    assert_eq!(
        (full["packs"].as_u64(), count(&full["damaged"])),
        (Some(1), 0),
        "{full}"
    );
    assert_eq!(full["bytes_read"].as_u64(), Some(12 * 8 * MIB), "{full}");

    network.miner("stop", &network.indexes(&miners_of(&new))?[..8])?;
    volume.evict()?;
    drop_kernel_caches()?;
    assert_eq!(
        tree::differences(&expected, &tree::manifest(mount.path())?),
        Vec::<String>::new()
    );
    mount.umount()
}

#[test]
fn what_was_deleted_is_given_back_and_the_phrase_still_brings_the_rest() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 14)?;
    let volume = forgetful(&dir.path().join("volume"), &network)?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    for round in 0..4 {
        tree::write_noise(&mount.path().join(format!("file-{round}")), 40 + round, 18)?;
        tree::write_many(&mount.path().join(format!("dir-{round}")), 50)?;
        volume.sync(PATIENCE)?;
    }
    let used = || -> Result<u64> {
        let status = volume.status()?;
        status["territory"]["used_bytes"].as_u64().context("used bytes")
    };
    let before = used()?;
    for round in 0..3 {
        fs::remove_file(mount.path().join(format!("file-{round}")))?;
    }
    fs::remove_dir_all(mount.path().join("dir-1"))?;
    volume.sync(PATIENCE)?;

    let told = ask(&volume, &["gc", "--dry-run"])?;
    assert!(
        count(&told["chosen"]) >= 3 && told["gain_bytes"].as_u64() > Some(96 * MIB),
        "{told}"
    );
    assert_eq!(
        (network.events("DeleteFile")?, count(&told["deleted"])),
        (0, 0),
        "a dry run does nothing"
    );
    assert!(used()? >= before);
    let done = ask(&volume, &["gc"])?;
    assert!(count(&done["deleted"]) >= 3, "{done}");
    assert_eq!(network.events("DeleteFile")?, count(&done["deleted"]) as u64);
    let after = used()?;
    assert!(after + 96 * MIB <= before, "{before} bytes were charged, now {after}");
    let status = volume.status()?;
    assert!(
        status["live_bytes"].as_u64() > Some(17 * MIB) && status["dead_bytes"].is_u64(),
        "{status}"
    );

    recovers_whole(dir.path(), &network, &volume, mount)
}

#[test]
fn what_is_in_the_trash_lives_on_the_network_until_the_trash_is_emptied() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    volume.configure(&[
        ("keep_history = \"7d\"", "keep_history = \"0s\""),
        ("grace = \"1h\"", "grace = \"0s\""),
        ("min_age = \"10m\"", "min_age = \"0s\""),
    ])?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    let file = mount.path().join("file");
    tree::write_noise(&file, 51, 18)?;
    volume.sync(PATIENCE)?;
    let content = tree::hash(&file)?;
    fs::remove_file(&file)?;
    let other = mount.path().join("other");
    tree::write_noise(&other, 52, 18)?;
    let lives = tree::hash(&other)?;
    volume.sync(PATIENCE)?;

    let nothing_goes = || -> Result<()> {
        let kept = ask(&volume, &["gc"])?;
        let deleted = (count(&kept["deleted"]), network.events("DeleteFile")?);
        assert_eq!(deleted, (0, 0), "{kept}");
        Ok(())
    };
    nothing_goes()?;
    // It is there to be had back, from the network alone.
    volume.evict()?;
    drop_kernel_caches()?;
    let trash = |arguments: &[&str]| -> Result<String> {
        let mut cessfs = volume.cessfs()?;
        cessfs.args(["trash", arguments[0], &volume.name]).args(&arguments[1..]);
        cessfs_tests::process::succeed(&mut cessfs)
    };
    let listed: Value = serde_json::from_str(&trash(&["list", "--json"])?)?;
    let id = listed[0]["id"]
        .as_u64()
        .with_context(|| format!("one entry: {listed}"))?;
    trash(&["restore", &id.to_string()])?;
    assert_eq!(tree::hash(&file)?, content);
    fs::remove_file(&file)?;
    volume.sync(PATIENCE)?;
    nothing_goes()?;

    trash(&["empty"])?;
    volume.sync(PATIENCE)?;
    let gone = ask(&volume, &["gc"])?;
    assert!(count(&gone["deleted"]) > 0, "{gone}");
    assert_eq!(network.events("DeleteFile")?, count(&gone["deleted"]) as u64);
    volume.evict()?;
    drop_kernel_caches()?;
    assert_eq!(tree::hash(&other)?, lives);
    mount.umount()
}

/// The phrase gives the tree as it is, and `recover --list` knows that older points are not whole any more.
fn recovers_whole(dir: &Path, network: &Network, volume: &Volume, mount: Mount) -> Result<()> {
    drop_kernel_caches()?;
    let expected = full_manifest(mount.path())?;
    mount.umount()?;
    let again = volume.elsewhere(&dir.join("second"))?;
    let listed = again.recover(&network.ws, &["--list"])?;
    let points = listed["points"].as_array().context("points")?;
    let newest = points.last().context("a point")?;
    assert_eq!(
        (newest["complete"].as_bool(), newest["whole"].as_bool()),
        (Some(true), Some(true)),
        "{listed}"
    );
    assert!(points.iter().any(|point| point["whole"] == false), "{listed}");
    assert_eq!(
        count(&listed["lost_packs"]),
        0,
        "what was deleted is not lost: {listed}"
    );
    let told = again.recover(&network.ws, &[])?;
    assert_eq!(
        (count(&told["lost_packs"]), told["missing_file_count"].as_u64()),
        (0, Some(0)),
        "{told}"
    );
    let mount = again.mount(&dir.join("mnt2"))?;
    assert_eq!(
        tree::differences(&expected, &full_manifest(mount.path())?),
        Vec::<String>::new()
    );
    mount.umount()
}
