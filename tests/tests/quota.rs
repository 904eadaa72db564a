//! Quotas as a person sets them: what `cessfs quota` says, what programs are told, and that a crash changes no count.

use anyhow::{Result, ensure};
use cessfs_tests::process::{fail, succeed};
use cessfs_tests::{InitOptions, Mount, Network, Volume, can_mount};
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

const EDQUOT: Option<i32> = Some(nix::errno::Errno::EDQUOT as i32);
const EXDEV: Option<i32> = Some(nix::errno::Errno::EXDEV as i32);

fn quota(volume: &Volume, arguments: &[&str], path: &Path) -> Result<String> {
    let mut cessfs = volume.cessfs()?;
    cessfs.args(["quota", arguments[0]]).arg(path).args(&arguments[1..]);
    succeed(&mut cessfs)
}

/// Bytes and inodes used, as `quota show --json` tells.
fn used(volume: &Volume, path: &Path) -> Result<(u64, u64)> {
    let shown: Value = serde_json::from_str(&quota(volume, &["show", "--json"], path)?)?;
    let number = |key: &str| shown[0][key].as_u64().unwrap_or(u64::MAX);
    Ok((number("bytes_used"), number("inodes_used")))
}

/// The same by looking at everything.
fn by_walking(dir: &Path) -> Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = (fs::symlink_metadata(dir)?.blocks() * 512, 1);
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        let below = if metadata.is_dir() {
            by_walking(&path)?
        } else {
            (metadata.blocks() * 512, 1)
        };
        sum = (sum.0 + below.0, sum.1 + below.1);
    }
    Ok(sum)
}

fn refused(result: std::io::Result<()>, errno: Option<i32>, what: &str) -> Result<()> {
    let found = result.err().map(|e| e.raw_os_error());
    ensure!(found == Some(errno), "{what}: {found:?}, not {errno:?}");
    Ok(())
}

fn scratch(store: &str) -> Result<(tempfile::TempDir, Network, Volume)> {
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init_on(store, &dir.path().join("v"), &network.ws, &InitOptions::default())?;
    Ok((dir, network, volume))
}

#[test]
fn a_quota_holds_for_programs_and_over_mounts_and_crashes() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scratch("sled")?;
    let at = dir.path().join("mnt");
    let mount = volume.mount_with(&at, &["kernel-cache=none"])?;
    let tree = at.join("scans");
    fs::create_dir_all(tree.join("2026"))?;
    fs::write(tree.join("2026/first"), vec![7; 300_000])?;
    quota(&volume, &["set", "--bytes", "1MiB", "--inodes", "8"], &tree)?;
    ensure!(used(&volume, &tree.join("2026/first"))? == by_walking(&tree)?);

    let mut file = OpenOptions::new().create(true).append(true).open(tree.join("large"))?;
    let mut written = 0;
    let error = loop {
        match file.write(&[8; 65_536]) {
            Ok(n) => written += n,
            Err(e) => break e,
        }
    };
    ensure!(error.raw_os_error() == EDQUOT, "{error}");
    ensure!((600_000..1 << 20).contains(&written), "{written} bytes were taken");
    drop(file);
    for i in 0..3 {
        fs::write(tree.join(format!("{i}")), "")?;
    }
    fs::create_dir(tree.join("last"))?;
    refused(fs::create_dir(tree.join("one too many")), EDQUOT, "mkdir")?;
    refused(std::os::unix::fs::symlink("x", tree.join("link")), EDQUOT, "symlink")?;
    fs::create_dir(at.join("outside"))?;
    refused(
        fs::rename(tree.join("last"), at.join("outside/last")),
        EXDEV,
        "a directory out of the tree",
    )?;
    fs::rename(tree.join("2026/first"), at.join("outside/first"))?;
    let room = nix::sys::statvfs::statvfs(&tree)?;
    ensure!(
        room.blocks() * room.fragment_size() == 1 << 20,
        "statfs tells the quota's size"
    );
    ensure!(by_walking(&tree)? == used(&volume, &tree)?);

    mount.umount()?;
    let mount = volume.mount_with(&at, &["kernel-cache=none"])?;
    ensure!(by_walking(&tree)? == used(&volume, &tree)?, "after a mount");
    fs::remove_file(tree.join("large"))?;
    fs::write(tree.join("0"), vec![9; 100_000])?;
    fs::File::open(tree.join("0"))?.sync_all()?;
    mount.kill()?;
    let mount = volume.mount_with(&at, &["kernel-cache=none"])?;
    ensure!(by_walking(&tree)? == used(&volume, &tree)?, "after a crash");

    let mut clear = volume.cessfs()?;
    let (code, said) = fail(clear.args(["quota", "clear"]).arg(at.join("outside")))?;
    ensure!(code == 1 && said.contains("no quota is set"), "{code}: {said}");
    quota(&volume, &["clear"], &tree)?;
    fs::create_dir(tree.join("one more"))?;
    ensure!(quota(&volume, &["show", "--all", "--json"], &at)?.trim() == "[]");
    mount.umount()
}

/// With the kernel's cache a write is refused when it reaches the daemon: fsync says so.
#[test]
fn with_the_kernels_cache_fsync_tells() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scratch("redb")?;
    let mount: Mount = volume.mount(&dir.path().join("mnt"))?;
    let tree = mount.path().join("t");
    fs::create_dir(&tree)?;
    quota(&volume, &["set", "--bytes", "1MiB"], &tree)?;
    let mut file = fs::File::create(tree.join("f"))?;
    let ended = file.write_all(&vec![7; 4 << 20]).and_then(|()| file.sync_all());
    refused(ended, EDQUOT, "write and fsync")?;
    drop(file);
    ensure!(used(&volume, &tree)?.0 <= 1 << 20);
    mount.umount()
}
