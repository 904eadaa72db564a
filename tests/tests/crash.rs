//! kill -9 of the daemon in each state of a pack: after a remount everything reaches the network, and no pack is declared
//! twice.

use anyhow::Result;
use cessfs_tests::network::eventually;
use cessfs_tests::{InitOptions, Mount, Network, Volume, can_mount, tree};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// A network, a volume and a mount with one fsynced file that is not on the network yet.
struct Scene {
    network: Network,
    volume: Volume,
    /// Last, so that it goes last: the network is taken down through its socket in here.
    dir: tempfile::TempDir,
}

impl Scene {
    fn set() -> Result<(Scene, Mount)> {
        Scene::set_on("redb")
    }

    fn set_on(store: &str) -> Result<(Scene, Mount)> {
        let dir = tempfile::tempdir()?;
        let network = Network::up(&dir.path().join("net"), 16)?;
        let at = dir.path().join("volume");
        let volume = Volume::init_on(store, &at, &network.ws, &InitOptions::default())?;
        let mount = volume.mount(&dir.path().join("mnt"))?;
        Ok((Scene { network, volume, dir }, mount))
    }

    /// `sync --wait` in the background; it is expected to die with the daemon.
    fn start_sync(&self) -> Result<std::process::Child> {
        let mut sync = self.volume.cessfs()?;
        sync.args(["sync", &self.volume.name, "--wait", "--timeout", "60"]);
        sync.stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        Ok(sync.spawn()?)
    }

    fn wait_for_pack(&self, states: &[&str]) -> Result<()> {
        eventually(&format!("a pack in {states:?}"), PATIENCE, || {
            Ok(states.iter().any(|state| self.volume.packs(state).unwrap_or(0) > 0))
        })
    }

    /// Kills, heals the network, mounts again, syncs, and compares through an emptied cache.
    fn kill_and_recover(self, mount: Mount, heal: impl FnOnce(&Network) -> Result<()>) -> Result<()> {
        let expected = tree::manifest(mount.path())?;
        mount.kill()?;
        heal(&self.network)?;
        let mount = self.volume.mount(&self.dir.path().join("mnt"))?;
        assert_eq!(
            tree::differences(&expected, &tree::manifest(mount.path())?),
            Vec::<String>::new(),
            "after remount"
        );
        self.volume.sync(PATIENCE)?;
        let declared = self.network.events("UploadDeclaration")?;
        assert_eq!(
            declared,
            self.network.events("StorageCompleted")?,
            "a deal was declared twice or left open"
        );
        self.volume.evict()?;
        cessfs_tests::process::drop_kernel_caches()?;
        assert_eq!(
            tree::differences(&expected, &tree::manifest(mount.path())?),
            Vec::<String>::new(),
            "from the network"
        );
        mount.umount()
    }
}

/// Writes a file and fsyncs it and its directory.
fn write_durably(dir: &Path, name: &str, seed: u64) -> Result<()> {
    let path = dir.join(name);
    tree::write_noise(&path, seed, 3)?;
    std::fs::write(dir.join(format!("{name}.small")), format!("small {seed}"))?;
    for path in [path, dir.join(format!("{name}.small"))] {
        File::open(path)?.sync_all()?;
    }
    Ok(File::open(dir)?.sync_all()?)
}

/// Delays every answer of every miner.
fn slow(network: &Network, ms: &str) -> Result<()> {
    let indexes: Vec<String> = (0..16).map(|index: usize| index.to_string()).collect();
    let mut arguments = vec!["miner", "slow", "--ms", ms];
    arguments.extend(indexes.iter().map(String::as_str));
    network.run(&arguments).map(drop)
}

#[test]
fn killed_before_anything_was_submitted() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (scene, mount) = Scene::set()?;
    write_durably(mount.path(), "file", 1)?;
    scene.kill_and_recover(mount, |_| Ok(()))
}

#[test]
fn killed_as_soon_as_a_pack_is_sealed() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (scene, mount) = Scene::set()?;
    write_durably(mount.path(), "file", 2)?;
    tree::write_noise(&mount.path().join("more"), 3, 60)?;
    File::open(mount.path().join("more"))?.sync_all()?;
    let mut sync = scene.start_sync()?;
    scene.wait_for_pack(&["sealed", "declaring", "placing"])?;
    let result = scene.kill_and_recover(mount, |_| Ok(()));
    sync.wait()?;
    result
}

#[test]
fn killed_while_too_few_miners_are_willing() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (scene, mount) = Scene::set()?;
    scene.network.miner("stop", &[0, 1, 2, 3, 4])?;
    write_durably(mount.path(), "file", 6)?;
    let mut sync = scene.start_sync()?;
    scene.volume.status_says(&["too few miners"], PATIENCE)?;
    let result = scene.kill_and_recover(mount, |network| network.miner("start", &[0, 1, 2, 3, 4]));
    sync.wait()?;
    result
}

#[test]
fn killed_while_declaring() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (scene, mount) = Scene::set()?;
    write_durably(mount.path(), "file", 3)?;
    scene.network.run(&["chain", "pause"])?;
    let mut sync = scene.start_sync()?;
    scene.wait_for_pack(&["declaring"])?;
    let result = scene.kill_and_recover(mount, |network| network.run(&["chain", "resume"]).map(drop));
    sync.wait()?;
    result
}

#[test]
fn killed_while_placing() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (scene, mount) = Scene::set()?;
    write_durably(mount.path(), "file", 4)?;
    slow(&scene.network, "1500")?;
    let mut sync = scene.start_sync()?;
    scene.wait_for_pack(&["placing"])?;
    let result = scene.kill_and_recover(mount, |network| slow(network, "0"));
    sync.wait()?;
    result
}

#[test]
fn killed_while_stored_but_not_confirmed() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (scene, mount) = Scene::set()?;
    write_durably(mount.path(), "file", 5)?;
    let mut sync = scene.start_sync()?;
    // Stored is a file at a final block, which lags behind; by then reading back is slow.
    eventually("a stored file", PATIENCE, || {
        Ok(scene.network.events("StorageCompleted")? > 0)
    })?;
    slow(&scene.network, "3000")?;
    scene.wait_for_pack(&["stored"])?;
    let result = scene.kill_and_recover(mount, |network| slow(network, "0"));
    sync.wait()?;
    result
}

#[test]
fn killed_again_and_again_while_writing() -> Result<()> {
    again_and_again("redb")
}

#[test]
fn killed_again_and_again_while_writing_on_sled() -> Result<()> {
    again_and_again("sled")
}

fn again_and_again(store: &str) -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (scene, mut mount) = Scene::set_on(store)?;
    for round in 0..4u64 {
        write_durably(mount.path(), &format!("round-{round}"), 100 + round)?;
        let mut sync = scene.start_sync()?;
        std::thread::sleep(Duration::from_millis(150 + 400 * round));
        let expected = tree::manifest(mount.path())?;
        mount.kill()?;
        sync.wait()?;
        mount = scene.volume.mount(&scene.dir.path().join("mnt"))?;
        assert_eq!(
            tree::differences(&expected, &tree::manifest(mount.path())?),
            Vec::<String>::new()
        );
    }
    scene.kill_and_recover(mount, |_| Ok(()))
}
