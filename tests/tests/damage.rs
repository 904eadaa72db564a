//! A journal that is damaged, every file of it in turn: flipped, cut, zeroed, deleted. Either the volume opens and is what it
//! was; or it does not open, says so and what to do, and what `fsck --rebuild` makes of it is the tree of the journal, or of
//! the packs. Never another tree, never a wrong byte, never without a word.
//!
//! A test does two damages to each file; `DAMAGE_PLACES=n` does all, and flips at so many places (`make soak`).

use anyhow::{Context, Result, ensure};
use cessfs_tests::{InitOptions, Network, Volume, can_mount, process, tree};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
enum Damage {
    /// One byte, at so many thousandths of the file.
    Flip(u64),
    Cut,
    Zero,
    Delete,
}

impl Damage {
    fn inflict(self, path: &Path) -> Result<()> {
        let len = fs::metadata(path)?.len();
        match self {
            Damage::Delete => fs::remove_file(path)?,
            Damage::Cut => File::options().write(true).open(path)?.set_len(len / 2)?,
            Damage::Zero => fs::write(path, vec![0; len as usize])?,
            Damage::Flip(thousandths) => {
                let file = File::options().read(true).write(true).open(path)?;
                let at = (len * thousandths / 1000).min(len.saturating_sub(1));
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                file.write_all_at(&[byte[0] ^ 0x41], at)?;
            }
        }
        Ok(())
    }
}

/// A closed volume: some of it on the network, some in a pack that waits on this disk, some only in the journal and the cache.
struct Scene {
    network: Network,
    volume: Volume,
    whole: tree::Manifest,
    packed: tree::Manifest,
    dir: tempfile::TempDir,
}

impl Scene {
    fn set(store: &str) -> Result<Scene> {
        let dir = tempfile::tempdir()?;
        let network = Network::up(&dir.path().join("net"), 16)?;
        let volume = Volume::init_on(store, &dir.path().join("volume"), &network.ws, &InitOptions::default())?;
        let at = dir.path().join("mnt");
        let mount = volume.mount(&at)?;
        tree::write_many(&at.join("on-the-network"), 150)?;
        tree::write_noise(&at.join("large"), 5, 3)?;
        volume.sync(PATIENCE)?;
        // From here on nothing is sent any more.
        network.run(&["chain", "pause"])?;
        tree::write_many(&at.join("in-a-pack"), 30)?;
        let mut sync = volume.cessfs()?;
        process::fail(sync.args(["sync", &volume.name, "--wait", "--timeout", "4"]))?;
        ensure!(volume.packs("confirmed")? > 0 && volume.packs("declaring")? + volume.packs("sealed")? > 0);
        let packed = tree::manifest(&at)?;
        tree::write_many(&at.join("only-here"), 30)?;
        tree::write_noise(&at.join("large-and-only-here"), 6, 2)?;
        // The tree that comes back knows this one: the report can name it.
        tree::write_noise(&at.join("large"), 8, 3)?;
        let whole = tree::manifest(&at)?;
        mount.umount()?;
        Ok(Scene {
            network,
            volume,
            whole,
            packed,
            dir,
        })
    }

    fn journal_files(&self, volume: &Volume) -> Result<Vec<PathBuf>> {
        let journal = volume.home().join("volumes").join(&volume.name).join("journal");
        let mut found = Vec::new();
        let mut pending = vec![journal.clone()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    found.push(path.strip_prefix(&journal)?.to_path_buf());
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// The same volume in another home, with this file of its journal damaged.
    fn damaged(&self, number: usize, file: &Path, damage: Damage) -> Result<Volume> {
        let place = self.dir.path().join(format!("case-{number}"));
        let copy = self.volume.elsewhere(&place)?;
        tree::copy(&self.volume.home(), &place)?;
        let journal = copy.home().join("volumes").join(&copy.name).join("journal");
        damage.inflict(&journal.join(file))?;
        Ok(copy)
    }

    /// Mounts, and compares with `expected`.
    fn compare(&self, volume: &Volume, expected: &tree::Manifest) -> Result<()> {
        let mount = volume.mount(&self.dir.path().join("mnt"))?;
        let found = tree::manifest(mount.path());
        mount.umount()?;
        let differences = tree::differences(expected, &found?);
        ensure!(differences.is_empty(), "{differences:?}");
        Ok(())
    }

    /// A rebuilt volume sends what is staged, once, and what is written then; all of it comes back.
    fn goes_on(&self, volume: &Volume) -> Result<()> {
        self.network.run(&["chain", "resume"])?;
        let at = self.dir.path().join("mnt");
        let mount = volume.mount(&at)?;
        tree::write_noise(&at.join("after-the-rebuild"), 9, 1)?;
        let expected = tree::manifest(&at)?;
        volume.sync(PATIENCE)?;
        volume.evict()?;
        process::drop_kernel_caches()?;
        let differences = tree::differences(&expected, &tree::manifest(&at)?);
        ensure!(differences.is_empty(), "after going on: {differences:?}");
        let declared = self.network.events("UploadDeclaration")?;
        ensure!(
            declared == self.network.events("StorageCompleted")?,
            "declared twice, or left open"
        );
        mount.umount()
    }

    /// What becomes of the damage: in one word.
    fn outcome(&self, volume: &Volume) -> Result<&'static str> {
        let mut mount = volume.cessfs()?;
        let at = self.dir.path().join("mnt");
        mount.args(["mount", &volume.name]).arg(&at);
        mount.arg("-o").arg(volume.secret_option());
        let output = process::output(&mut mount)?;
        if output.status.success() {
            let found = tree::manifest(&at);
            let mut umount = volume.cessfs()?;
            process::succeed(umount.arg("umount").arg(&at))?;
            if let Ok(found) = &found {
                let differences = tree::differences(&self.whole, found);
                ensure!(differences.is_empty(), "it opened, but: {differences:?}");
                return Ok("opened");
            }
            // Noticed when it was read; then the check notices, too.
            let (code, said) = process::fail(&mut fsck(volume, &[])?)?;
            ensure!(code == 21 || code == 15, "fsck ended with {code}: {said}");
        } else {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(
                output.status.code() == Some(15),
                "mount ended with {}: {said}",
                output.status
            );
            ensure!(said.contains("fsck") && said.contains("--rebuild"), "no advice: {said}");
        }
        let output = process::output(&mut fsck(volume, &["--rebuild", "--json"])?)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let report: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("--rebuild: {said}"))?;
        let kept = report["kept"].as_array().context("nothing was kept")?;
        ensure!(
            !kept.is_empty()
                && kept
                    .iter()
                    .all(|path| Path::new(path.as_str().unwrap_or("/none")).exists())
        );
        match (report["source"].as_str(), output.status.code()) {
            (Some("journal"), Some(0)) => {
                self.compare(volume, &self.whole).context("from the journal")?;
                Ok("rebuilt from the journal")
            }
            (Some("network"), Some(20)) => {
                self.compare(volume, &self.packed).context("from the packs")?;
                let only_here = report["local_only"].as_array().map_or(0, Vec::len);
                ensure!(only_here > 0, "what is missing was not told: {report}");
                let told = report["local_only"].as_array().into_iter().flatten();
                let told: Vec<&str> = told.filter_map(|file| file["path"].as_str()).collect();
                ensure!(!told.is_empty(), "no path was told: {report}");
                let left = volume.home().join("volumes").join(&volume.name).join("fsck.json");
                let left = fs::read_to_string(left)?;
                let named = told.iter().find(|path| left.contains(**path));
                ensure!(
                    left.contains("local_only") && named.is_none(),
                    "a name in the clear: {left}"
                );
                Ok("rebuilt from the packs")
            }
            other => anyhow::bail!("--rebuild: {other:?}: {said}"),
        }
    }
}

fn fsck(volume: &Volume, arguments: &[&str]) -> Result<std::process::Command> {
    let mut fsck = volume.cessfs()?;
    fsck.args(["fsck", &volume.name]).args(arguments);
    volume.add_secret(&mut fsck);
    Ok(fsck)
}

fn every_file_in_turn(store: &str) -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let places: Option<u64> = std::env::var("DAMAGE_PLACES")
        .ok()
        .map(|text| text.parse())
        .transpose()?;
    let scene = Scene::set(store)?;
    process::succeed(&mut fsck(&scene.volume, &[])?).context("an undamaged volume")?;
    let mut damages = vec![Damage::Cut, Damage::Zero, Damage::Delete];
    let flips = places.unwrap_or(1);
    damages.extend((0..flips).map(|n| Damage::Flip((2 * n + 1) * 1000 / (2 * flips))));
    let (mut number, mut rebuilt) = (0, None);
    for (index, file) in scene.journal_files(&scene.volume)?.into_iter().enumerate() {
        for (kind, damage) in damages.iter().enumerate() {
            if places.is_none() && (index + kind) % 2 == 1 {
                continue;
            }
            number += 1;
            let volume = scene.damaged(number, &file, *damage)?;
            let outcome = scene.outcome(&volume);
            let outcome = outcome.with_context(|| format!("{store}: {damage:?} of {}", file.display()))?;
            println!("{store}: {damage:?} of {}: {outcome}", file.display());
            if outcome == "rebuilt from the packs" {
                rebuilt = Some(volume);
            } else {
                fs::remove_dir_all(scene.dir.path().join(format!("case-{number}")))?;
            }
        }
    }
    scene.goes_on(&rebuilt.context("no damage went so far that the packs were needed")?)
}

#[test]
fn every_file_of_a_sled_journal_is_damaged_in_turn() -> Result<()> {
    every_file_in_turn("sled")
}

#[test]
fn every_file_of_a_redb_journal_is_damaged_in_turn() -> Result<()> {
    every_file_in_turn("redb")
}

/// What a check says of a volume that is mounted, and of one with damage in its cache; what it puts right stays right.
#[test]
fn fsck_refuses_a_mounted_volume_and_puts_right_what_it_can_prove() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 16)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    tree::write_noise(&at.join("file"), 7, 2)?;
    let whole = tree::manifest(&at)?;
    volume.sync(PATIENCE)?;
    let (code, said) = process::fail(&mut fsck(&volume, &[])?)?;
    ensure!(code == 8 && said.contains("unmount"), "{code}: {said}");
    mount.umount()?;
    process::succeed(&mut fsck(&volume, &[])?)?;

    // One block of the cache rots; the network has the chunk.
    let cache = volume.home().join("volumes").join(&volume.name).join("cache");
    let files = fs::read_dir(&cache)?
        .flatten()
        .flat_map(|dir| fs::read_dir(dir.path()).into_iter().flatten().flatten());
    let largest = files
        .map(|file| file.path())
        .max_by_key(|path| fs::metadata(path).map_or(0, |m| m.len()));
    let file = File::options()
        .write(true)
        .open(largest.context("the cache is empty")?)?;
    file.write_all_at(&[0xEE; 100], 16 * 1024 + 5000)?;
    let (code, said) = process::fail(&mut fsck(&volume, &[])?)?;
    ensure!(code == 21 && said.contains("--repair"), "{code}: {said}");
    let report: Value = serde_json::from_str(&process::succeed(&mut fsck(&volume, &["--repair", "--json"])?)?)?;
    ensure!(report["findings"][0]["remedy"] == "repaired", "{report}");
    // Each run leaves what it told in the volume's directory.
    let left = || -> Result<Value> {
        let path = volume.home().join("volumes").join(&volume.name).join("fsck.json");
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    };
    ensure!(left()? == report, "{} is not {report}", left()?);
    let again: Value = serde_json::from_str(&process::succeed(&mut fsck(&volume, &["--json"])?)?)?;
    ensure!(left()? == again, "{} is not {again}", left()?);
    ensure!(again["findings"].as_array().is_some_and(Vec::is_empty), "{again}");
    let mount = volume.mount(&at)?;
    ensure!(tree::differences(&whole, &tree::manifest(&at)?).is_empty());
    mount.umount()
}
