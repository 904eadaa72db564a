//! A network that shows an older state than this machine has seen there: a chain that was set back, told by every node and miner
//! alike. Whoever asks it for the volume, `recover` or `fsck --rebuild`, refuses, and takes it only when told to. And the other way round:
//! a directory that is older than what the network has.

use anyhow::{Context, Result, ensure};
use cessfs_tests::process::fail;
use cessfs_tests::{InitOptions, Network, Opener, Volume, can_mount, tree};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const MINERS: usize = 12;

/// What this machine remembers of the only volume it knows.
fn seen(volume: &Volume) -> Result<u64> {
    let mut notes = fs::read_dir(volume.home().join("seen"))?;
    let note = notes.next().context("no volume was seen")??;
    let note: Value = serde_json::from_slice(&fs::read(note.path())?)?;
    note["newest_pack"].as_u64().context("a number")
}

/// The newest pack that the network shows.
fn newest(volume: &Volume, ws: &str) -> Result<u64> {
    let listed = volume.recover(ws, &["--list"])?;
    let points = listed["points"].as_array().context("points")?;
    points
        .last()
        .and_then(|point| point["pack"].as_u64())
        .context("a point")
}

fn rebuild(volume: &Volume, arguments: &[&str]) -> Result<(i32, String)> {
    let mut fsck = volume.cessfs()?;
    fsck.args(["fsck", &volume.name, "--rebuild"]).args(arguments);
    volume.add_secret(&mut fsck);
    fail(&mut fsck)
}

#[test]
fn a_chain_that_was_set_back_is_refused_by_recover_and_rebuild() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let (net, older) = (dir.path().join("net"), dir.path().join("older"));
    let mut network = Network::up(&net, MINERS)?;
    let options = InitOptions {
        opened_by: Opener::Passphrase,
        ..InitOptions::default()
    };
    let mut volume = Volume::init(&dir.path().join("volume"), &network.ws, &options)?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    fs::write(at.join("file"), "old")?;
    volume.sync(PATIENCE)?;
    mount.umount()?;
    network.stop()?;
    tree::copy(&net, &older)?;
    let first_ws = std::mem::take(&mut network.ws);
    network.ws = network.start(MINERS)?;
    volume.configure(&[(&first_ws, &network.ws)])?;

    // The daemon remembers what it saw to the network, while it is mounted.
    let mount = volume.mount(&at)?;
    fs::write(at.join("file"), "new")?;
    let before = seen(&volume)?;
    volume.sync(PATIENCE)?;
    let after = seen(&volume)?;
    let shown = newest(&volume, &network.ws)?;
    ensure!(
        before < after && after == shown,
        "{before}, then {after}; the network has {shown}"
    );
    mount.umount()?;
    network.stop()?;

    // The chain and its miners as they were.
    fs::remove_dir_all(&net)?;
    fs::rename(&older, &net)?;
    let second_ws = std::mem::take(&mut network.ws);
    network.ws = network.start(MINERS)?;
    volume.configure(&[(&second_ws, &network.ws)])?;
    ensure!(newest(&volume, &network.ws)? == before, "the chain was not set back");
    let journal = volume.home().join("volumes").join(&volume.name).join("journal");
    damage(&journal)?;
    let (code, said) = rebuild(&volume, &[])?;
    ensure!(code == 18 && said.contains("--allow-older"), "{code}: {said}");
    ensure!(seen(&volume)? == after, "what was seen is forgotten");
    ensure!(
        !journal.with_file_name("journal.damaged-1").exists(),
        "something was changed"
    );

    let first = std::mem::replace(&mut volume.name, "again".into());
    let (code, said) = fail(&mut volume.recover_command(&network.ws)?)?;
    ensure!(code == 18 && said.contains(&format!("pack {after}")), "{code}: {said}");
    ensure!(!volume.home().join("volumes/again").exists());

    // A person may know better; from then on this is the newest state. The passphrase opens what came back.
    volume.recover(&network.ws, &["--allow-older"])?;
    ensure!(seen(&volume)? == before);
    let mount = volume.mount_with(&at, &["ro"])?;
    ensure!(fs::read_to_string(at.join("file"))? == "old");
    mount.umount()?;
    volume.name = first;
    fs::write(
        fs::read_dir(volume.home().join("seen"))?
            .next()
            .context("a note")??
            .path(),
        format!("{{\"newest_pack\":{after}}}"),
    )?;
    let (code, said) = rebuild(&volume, &["--allow-older"])?;
    ensure!(code == 20, "{code}: {said}");
    ensure!(seen(&volume)? == before);
    Ok(())
}

/// A volume's directory that comes back from a backup, while the network has what was written since.
#[test]
fn a_directory_that_was_put_back_is_not_written_into() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), MINERS)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    fs::write(at.join("file"), "old")?;
    volume.sync(PATIENCE)?;
    mount.umount()?;
    let (here, backup) = (
        volume.home().join("volumes").join(&volume.name),
        dir.path().join("backup"),
    );
    tree::copy(&here, &backup)?;
    let mount = volume.mount(&at)?;
    fs::write(at.join("file"), "new")?;
    volume.sync(PATIENCE)?;
    mount.umount()?;
    fs::remove_dir_all(&here)?;
    tree::copy(&backup, &here)?;

    // This machine knows that there was more.
    let refused = volume.mount(&at).err().context("it was mounted")?;
    let said = format!("{refused:#}");
    ensure!(said.contains("older copy") && said.contains("-o ro"), "{said}");
    let mount = volume.mount_with(&at, &["ro"])?;
    ensure!(fs::read_to_string(at.join("file"))? == "old");
    mount.umount()?;

    // As when the whole machine goes back to a snapshot: only the network can tell.
    fs::remove_dir_all(volume.home().join("seen"))?;
    let declared = network.events("UploadDeclaration")?;
    let mount = volume.mount(&at)?;
    fs::write(at.join("only here"), "kept")?;
    let mut sync = volume.cessfs()?;
    let (code, said) = fail(sync.args(["sync", &volume.name, "--wait"]))?;
    ensure!(code == 18 && said.contains("older copy"), "{code}: {said}");
    ensure!(
        network.events("UploadDeclaration")? == declared,
        "it declared something"
    );
    volume.status_says(&["older copy"], PATIENCE)?;
    ensure!(fs::read_to_string(at.join("only here"))? == "kept");
    mount.umount()?;

    // Nothing was lost by it.
    let newer = volume.elsewhere(&dir.path().join("newer"))?;
    newer.recover(&network.ws, &[])?;
    let mount = newer.mount(&dir.path().join("new-mnt"))?;
    ensure!(fs::read_to_string(mount.path().join("file"))? == "new");
    mount.umount()
}

/// The journal as a disk gives it back that lost its blocks.
fn damage(journal: &Path) -> Result<()> {
    for entry in fs::read_dir(journal)? {
        let path = entry?.path();
        if path.is_file() {
            fs::write(&path, vec![0; fs::metadata(&path)?.len() as usize])?;
        }
    }
    Ok(())
}
