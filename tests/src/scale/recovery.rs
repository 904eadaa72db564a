//! How long it takes to have a tree back on an empty machine, from the phrase alone.
//!
//! Files of 1000 bytes, a thousand in each directory, through a real mount to a network on this machine; then the volume's home is
//! removed, and everything comes back from miners.

use super::{Column, Volume, rss_bytes, seconds};
use anyhow::{Context, Result, ensure};
use cessfs_tests::network::Network;
use cessfs_tests::process::{command, drop_kernel_caches, succeed};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes of each file.
const FILE_BYTES: usize = 1000;
/// Files of one directory.
const DIRECTORY_FILES: u64 = 1000;
/// Seconds that everything may take to reach the network.
const PATIENCE_SECONDS: &str = "3600";

pub(super) fn measure(count: u64) -> Result<Column> {
    let mut column = Column {
        name: format!("{count} files"),
        ..Column::default()
    };
    let scratch = tempfile::Builder::new().prefix("cessfs-scale.").tempdir()?;
    let network = Network::up(&scratch.path().join("net"), 16)?;
    let old = scratch.path().join("old");
    fs::create_dir(&old)?;
    fill(&Volume::init(&old, &network.ws, "redb", "sealed")?, count, &mut column)?;
    // The laptop burns; the phrase was elsewhere.
    let phrase = scratch.path().join("phrase");
    fs::rename(old.join("phrase"), &phrase)?;
    fs::remove_dir_all(&old)?;
    drop_kernel_caches()?;
    let new = scratch.path().join("new");
    fs::create_dir(&new)?;
    have_back(&new, &phrase, &network.ws, count, &mut column)?;
    Ok(column)
}

fn path(top: &Path, i: u64) -> PathBuf {
    top.join(format!("{}/{i}", i / DIRECTORY_FILES))
}

fn content(i: u64) -> Vec<u8> {
    let mut bytes = i.to_le_bytes().repeat(FILE_BYTES / 8);
    bytes.resize(FILE_BYTES, 0);
    bytes
}

fn fill(volume: &Volume, count: u64, column: &mut Column) -> Result<()> {
    volume.mount()?;
    let start = Instant::now();
    for i in 0..count {
        if i % DIRECTORY_FILES == 0 {
            fs::create_dir(path(&volume.at, i).parent().context("it has a directory")?)?;
        }
        fs::write(path(&volume.at, i), content(i))?;
    }
    column.row("write", seconds(start.elapsed()));
    let start = Instant::now();
    let mut sync = command("cessfs")?;
    sync.arg("--home").arg(&volume.home);
    succeed(sync.args(["sync", "scale", "--wait", "--timeout", PATIENCE_SECONDS]))?;
    column.row("sync --wait after it", seconds(start.elapsed()));
    volume.umount().map(drop)
}

fn have_back(dir: &Path, phrase: &Path, ws: &str, count: u64, column: &mut Column) -> Result<()> {
    let volume = Volume::in_dir(dir);
    fs::create_dir_all(&volume.at)?;
    fs::write(&volume.key, [8; 32])?;
    let mut recover = command("cessfs")?;
    recover
        .arg("--home")
        .arg(&volume.home)
        .args(["recover", "scale", "--rpc", ws]);
    recover
        .arg("--phrase-file")
        .arg(phrase)
        .arg("--key-file")
        .arg(&volume.key);
    let start = Instant::now();
    succeed(&mut recover)?;
    column.row("recover", seconds(start.elapsed()));
    let (mounted, pid) = volume.mount()?;
    column.row("first mount", seconds(mounted));
    let start = Instant::now();
    let wanted = count / 2;
    let found = fs::read(path(&volume.at, wanted))?;
    column.row("first read", seconds(start.elapsed()));
    ensure!(found == content(wanted), "file {wanted} is not what was written");
    let start = Instant::now();
    let mut listed = 0;
    for i in (0..count).step_by(DIRECTORY_FILES as usize) {
        let dir = path(&volume.at, i);
        listed += fs::read_dir(dir.parent().context("it has a directory")?)?.count() as u64;
    }
    column.row("listing everything", seconds(start.elapsed()));
    ensure!(listed == count, "{listed} of {count} files came back");
    column.rss("highest resident set", rss_bytes(pid, "VmHWM")?);
    volume.umount().map(drop)
}
