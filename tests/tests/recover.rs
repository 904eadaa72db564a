//! The phrase alone: a volume's home is gone, eight of twelve miners of every pack too, and everything comes back.

use anyhow::{Context, Result};
use cessfs_tests::metadata::{full_manifest, set_xattr, write_zoo};
use cessfs_tests::network::eventually;
use cessfs_tests::process::{drop_kernel_caches, fail, output};
use cessfs_tests::volume::miners_of;
use cessfs_tests::{InitOptions, Mount, Network, Volume, can_mount, tree};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(180);
const MINERS: usize = 20;

/// A network, a volume and a place to mount it.
struct Scene {
    network: Network,
    volume: Volume,
    /// Last, so that it goes last: the network is taken down through its socket in here.
    dir: tempfile::TempDir,
}

impl Scene {
    fn set(miners: usize, at_rest: &'static str) -> Result<Scene> {
        let dir = tempfile::tempdir()?;
        let network = Network::up(&dir.path().join("net"), miners)?;
        let options = InitOptions {
            at_rest,
            ..InitOptions::default()
        };
        let volume = Volume::init(&dir.path().join("volume"), &network.ws, &options)?;
        Ok(Scene { network, volume, dir })
    }

    fn mount(&self, volume: &Volume) -> Result<Mount> {
        volume.mount(&self.dir.path().join("mnt"))
    }

    /// The volume on a machine that never saw it.
    fn elsewhere(&self, name: &str) -> Result<Volume> {
        self.volume.elsewhere(&self.dir.path().join(name))
    }

    fn points(&self) -> Result<Vec<Value>> {
        let listed = self.volume.recover(&self.network.ws, &["--list"])?;
        Ok(listed["points"].as_array().context("points")?.clone())
    }
}

/// What the volume holds, told by the volume: the kernel's idea of times may run ahead of it.
fn held(at: &Path) -> Result<tree::Manifest> {
    drop_kernel_caches()?;
    full_manifest(at)
}

/// Everything is as it was; contents come from the network.
fn assert_same(expected: &tree::Manifest, at: &Path, when: &str) -> Result<()> {
    let differences = tree::differences(expected, &held(at)?);
    assert_eq!(differences, Vec::<String>::new(), "{when}");
    Ok(())
}

/// The first tree, and the changes of later rounds: every round fills a pack of its own.
fn write_round(root: &Path, round: u64) -> Result<()> {
    match round {
        1 => {
            tree::write_many(&root.join("many"), 5000)?;
            write_zoo(&root.join("zoo"))?;
            tree::write_noise(&root.join("big.bin"), 1, 40)?;
        }
        2 => {
            fs::remove_dir_all(root.join("many/007"))?;
            fs::rename(root.join("many/008"), root.join("moved"))?;
            fs::rename(root.join("moved/file-00801.txt"), root.join("many/009/file-00900.txt"))?;
            fs::write(root.join("many/010/file-01000.txt"), "overwritten")?;
            let big = fs::File::options().write(true).open(root.join("big.bin"))?;
            std::os::unix::fs::FileExt::write_all_at(&big, &tree::noise(5, 3 << 20), 7_654_321)?;
            fs::remove_file(root.join("zoo/again"))?;
        }
        _ => {
            fs::remove_file(root.join("zoo/sparse"))?;
            fs::hard_link(root.join("zoo/a/file"), root.join("zoo/third"))?;
            set_xattr(&root.join("zoo/a/file"), "user.comment", b"changed")?;
            fs::File::options()
                .write(true)
                .open(root.join("big.bin"))?
                .set_len(9_000_000)?;
            tree::write_many(&root.join("more"), 300)?;
        }
    }
    tree::write_noise(&root.join(format!("round-{round}.bin")), 100 + round, 2)
}

/// The fewest miners that leave each of these files' packs four.
fn survivors(volume: &Volume, network: &Network, files: &[PathBuf]) -> Result<BTreeSet<usize>> {
    let mut keep = BTreeSet::new();
    for file in files {
        let explained = volume.explain(file)?;
        for chunk in explained["chunks"].as_array().context("chunks")? {
            let holders = network.indexes(&miners_of(chunk))?;
            assert_eq!(holders.len(), 12, "{chunk}");
            let kept = holders.iter().filter(|index| keep.contains(*index)).count();
            let others: Vec<usize> = holders.into_iter().filter(|index| !keep.contains(index)).collect();
            keep.extend(others.into_iter().rev().take(4usize.saturating_sub(kept)));
        }
    }
    Ok(keep)
}

fn everything_comes_back(at_rest: &'static str) -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let scene = Scene::set(MINERS, at_rest)?;
    let (volume, network) = (&scene.volume, &scene.network);
    let mount = scene.mount(volume)?;
    let mut trees = Vec::new();
    let mut heads = Vec::new();
    for round in 1..=3 {
        write_round(mount.path(), round)?;
        volume.sync(PATIENCE)?;
        trees.push(held(mount.path())?);
        let newest = scene.points()?.pop().context("a point")?;
        heads.push(newest["pack"].as_u64().context("its number")?);
    }
    assert!(heads[0] < heads[1] && heads[1] < heads[2], "{heads:?}");
    let files: Vec<PathBuf> = (1..=3)
        .map(|round| mount.path().join(format!("round-{round}.bin")))
        .collect();
    let keep = survivors(volume, network, &[&files[..], &[mount.path().join("big.bin")]].concat())?;
    mount.umount()?;
    fs::remove_dir_all(volume.home())?;
    let lost: Vec<usize> = (0..MINERS).filter(|index| !keep.contains(index)).collect();
    network.miner("stop", &lost)?;

    let again = scene.elsewhere("second")?;
    let told = again.recover(&network.ws, &["--at-rest", at_rest])?;
    assert_eq!(told["head"].as_u64(), Some(heads[2]), "{told}");
    assert!(told["files"].as_u64() > Some(5000), "{told}");
    assert_eq!(
        (told["missing_file_count"].as_u64(), told["epoch"].as_u64()),
        (Some(0), Some(2))
    );
    let mount = scene.mount(&again)?;
    assert_same(&trees[2], mount.path(), "with eight of twelve miners gone")?;

    // It goes on: new writes reach the network, and come back too, though this machine is lost as well.
    network.miner("start", &lost)?;
    write_zoo(&mount.path().join("second zoo"))?;
    fs::write(
        mount.path().join("many/000/file-00001.txt"),
        "written after the recovery",
    )?;
    fs::remove_dir_all(mount.path().join("more"))?;
    again.sync(PATIENCE)?;
    let expected = held(mount.path())?;
    mount.kill()?;
    fs::remove_dir_all(again.home())?;
    let third = scene.elsewhere("third")?;
    let told = third.recover(&network.ws, &[])?;
    assert_eq!(told["epoch"].as_u64(), Some(3), "{told}");
    assert_eq!(
        told["replayed"].as_u64(),
        Some(2),
        "the first pack of an epoch is a checkpoint, sealed when it was mounted: {told}"
    );
    let mount = scene.mount(&third)?;
    assert_same(&expected, mount.path(), "after the second recovery")?;
    mount.umount()?;

    // Earlier points, by number and by time.
    for (round, head) in heads.iter().enumerate().take(2) {
        let past = scene.elsewhere(&format!("past-{round}"))?;
        let told = past.recover(&network.ws, &["--at", &head.to_string()])?;
        assert_eq!(told["head"].as_u64(), Some(*head));
        let mount = scene.mount(&past)?;
        assert_same(&trees[round], mount.path(), "an earlier point")?;
        mount.umount()?;
        let by_time = scene.elsewhere(&format!("time-{round}"))?;
        let time = told["sealed_at"].as_str().context("a time")?;
        let told = by_time.recover(&network.ws, &["--at", time])?;
        assert_eq!(told["head"].as_u64(), Some(*head), "as of {time}");
    }
    Ok(())
}

#[test]
fn the_phrase_alone_brings_a_sealed_volume_back() -> Result<()> {
    everything_comes_back("sealed")
}

#[test]
fn the_phrase_alone_brings_a_plain_volume_back() -> Result<()> {
    everything_comes_back("plain")
}

#[test]
fn a_killed_recovery_leaves_nothing_the_next_does_not_clear() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let scene = Scene::set(13, "sealed")?;
    let mount = scene.mount(&scene.volume)?;
    tree::write_many(&mount.path().join("many"), 3000)?;
    scene.volume.sync(PATIENCE)?;
    let expected = held(mount.path())?;
    mount.umount()?;
    let again = scene.elsewhere("again")?;
    let mut killed = 0;
    for round in 0u64..12 {
        let mut recover = again.recover_command(&scene.network.ws)?;
        let mut child = recover.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(40 + round * round * 25));
        if child.try_wait()?.is_some() {
            break;
        }
        child.kill()?;
        child.wait()?;
        killed += 1;
        if again.home().join("volumes").join(&again.name).exists() {
            break;
        }
        let known = output(again.cessfs()?.args(["volumes", "--json"]))?;
        assert_eq!(
            String::from_utf8_lossy(&known.stdout).trim(),
            "[]",
            "half a volume is no volume"
        );
    }
    assert!(killed > 2, "only {killed} recoveries lived long enough to be killed");
    if !again.home().join("volumes").join(&again.name).exists() {
        again.recover(&scene.network.ws, &[])?;
    }
    let left: Vec<_> = fs::read_dir(again.home().join("volumes"))?
        .map(|entry| entry.map(|e| e.file_name()))
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let mount = scene.mount(&again)?;
    assert_same(&expected, mount.path(), "after the last recovery")?;
    mount.umount()
}

/// Longer than the network of the tests takes to finalize what is in a block.
const FINALITY: Duration = Duration::from_secs(6);

/// Makes these miners the only ones that take new packs.
fn only(network: &Network, open: std::ops::Range<usize>, all: usize) -> Result<()> {
    let state = |state: &str, indexes: Vec<String>| {
        let indexes: Vec<&str> = indexes.iter().map(String::as_str).collect();
        network
            .run(&[&["miner", "state", state][..], &indexes[..]].concat())
            .map(drop)
    };
    state("positive", open.clone().map(|index| index.to_string()).collect())?;
    let rest = (0..all).filter(|index| !open.contains(index));
    state("frozen", rest.map(|index| index.to_string()).collect())?;
    // Whoever mounts now reads the list of miners at the finalized head, and keeps it for a while: the last change has to be in it.
    std::thread::sleep(FINALITY);
    Ok(())
}

#[test]
fn a_lost_pack_costs_what_was_in_it_and_the_rest_comes_back() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let scene = Scene::set(24, "sealed")?;
    let (volume, network) = (&scene.volume, &scene.network);
    // Mounted anew for each pack: a daemon remembers for a while which miners take packs.
    let round = |name: &str, seed: u64, miners: std::ops::Range<usize>| -> Result<tree::Manifest> {
        only(network, miners, 24)?;
        let mount = scene.mount(volume)?;
        fs::create_dir_all(mount.path().join("dir"))?;
        tree::write_noise(&mount.path().join(name), seed, 2)?;
        volume.sync(PATIENCE)?;
        let tree = held(mount.path())?;
        mount.umount()?;
        Ok(tree)
    };
    let first = round("dir/first", 1, 0..12)?;
    round("dir/lost", 2, 12..24)?;
    round("third", 3, 0..12)?;
    network.miner("forget", &(12..21).collect::<Vec<_>>())?;

    // The second pack's metadata is gone: the tree as it was before, and what comes after is counted.
    let early = scene.elsewhere("early")?;
    let found = output(&mut early.recover_command(&network.ws)?)?;
    assert_eq!(
        found.status.code(),
        Some(20),
        "{}",
        String::from_utf8_lossy(&found.stderr)
    );
    let told: Value = serde_json::from_slice(&found.stdout)?;
    assert_eq!(
        (told["head"].as_u64(), told["lost_packs"][0]["seq"].as_u64()),
        (Some(1), Some(2)),
        "{told}"
    );
    assert_eq!(told["unreachable_packs"].as_array().map(Vec::len), Some(1), "{told}");
    {
        let mount = early.mount(&scene.dir.path().join("early-mnt"))?;
        let lost = early.status()?["lost"][0].as_str().map(str::to_owned);
        let lost = lost.context("what is lost is told as long as the volume lives")?;
        assert!(
            lost.contains("as of pack 1") && lost.contains("1 later packs (2)"),
            "{lost}"
        );
        assert_same(&first, mount.path(), "before the lost pack")?;
        mount.umount()?;
    }
    a_tree_older_than_seen_is_refused(&scene, &early, told["id"].as_str().context("id")?)?;

    // From the next checkpoint on only its content is missing.
    let mount = scene.mount(volume)?;
    for round in 4..11 {
        fs::write(mount.path().join("small"), format!("round {round}"))?;
        volume.sync(PATIENCE)?;
    }
    let expected = tree::manifest(mount.path())?;
    mount.umount()?;
    let late = scene.elsewhere("late")?;
    let found = output(&mut late.recover_command(&network.ws)?)?;
    assert_eq!(
        found.status.code(),
        Some(20),
        "{}",
        String::from_utf8_lossy(&found.stderr)
    );
    let told: Value = serde_json::from_slice(&found.stdout)?;
    assert_eq!(told["unreachable_packs"].as_array().map(Vec::len), Some(0), "{told}");
    assert_eq!(told["missing_files"][0]["path"].as_str(), Some("dir/lost"), "{told}");
    assert_eq!(told["missing_file_count"].as_u64(), Some(1), "{told}");
    let mount = scene.mount(&late)?;
    let error = fs::read(mount.path().join("dir/lost")).expect_err("its content is gone");
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    let errors = late.status()?["errors"].to_string();
    assert!(errors.contains("dir/lost"), "status names it: {errors}");
    fs::remove_file(mount.path().join("dir/lost"))?;
    let mut rest = expected;
    rest.remove(Path::new("dir/lost"));
    assert_eq!(
        tree::differences(&rest, &tree::manifest(mount.path())?),
        Vec::<String>::new()
    );
    // What could not be read is written again, and the volume is whole.
    tree::write_noise(&mount.path().join("dir/lost"), 2, 2)?;
    late.sync(PATIENCE)?;
    mount.umount()?;
    // A sealed volume leaves no name on the disk in the clear.
    for file in ["log", "last-status.json"] {
        let kept = fs::read_to_string(late.home().join("volumes").join(&late.name).join(file))?;
        assert!(kept.contains("inode"), "{file} tells of it: {kept}");
        assert!(!kept.contains("dir/lost"), "{file} has its name: {kept}");
    }
    let mount = scene.mount(&late)?;
    assert!(!late.status()?["errors"].to_string().contains("dir/lost"));
    mount.umount()
}

/// The third pack is listed, but without the second its tree cannot be read: who has seen it takes an older one only by saying so.
fn a_tree_older_than_seen_is_refused(scene: &Scene, early: &Volume, id: &str) -> Result<()> {
    let (ws, seen) = (&scene.network.ws, early.home().join("seen").join(id));
    assert_eq!(
        fs::read_to_string(&seen)?,
        "{\"newest_pack\":1}",
        "the tree that came back"
    );
    fs::remove_dir_all(early.home().join("volumes").join(&early.name))?;
    fs::write(&seen, "{\"newest_pack\":3}")?;
    let (code, said) = fail(&mut early.recover_command(ws)?)?;
    assert_eq!(code, 18, "{said}");
    assert!(
        said.contains("pack 3") && said.contains("pack 1") && said.contains("--allow-older"),
        "{said}"
    );
    assert_eq!(
        fs::read_dir(early.home().join("volumes"))?.count(),
        0,
        "nothing is left"
    );
    let (code, said) = fail(early.recover_command(ws)?.arg("--allow-older"))?;
    assert_eq!(code, 20, "{said}");
    assert_eq!(fs::read_to_string(&seen)?, "{\"newest_pack\":1}");
    fs::remove_dir_all(early.home().join("volumes").join(&early.name))?;
    let (code, said) = fail(early.recover_command(ws)?.args(["--at", "1"]))?;
    assert_eq!(code, 20, "an earlier point is what was asked for: {said}");
    Ok(())
}

#[test]
fn what_cannot_be_recovered_says_why() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let scene = Scene::set(13, "sealed")?;
    let ws = &scene.network.ws;
    let refused = |volume: &Volume, ws: &str, arguments: &[&str]| fail(volume.recover_command(ws)?.args(arguments));
    let fresh = scene.elsewhere("fresh")?;

    let (code, said) = refused(&fresh, ws, &[])?;
    assert_eq!(code, 19, "{said}");
    let account = scene.volume.status()?["account"]
        .as_str()
        .context("account")?
        .to_owned();
    assert!(said.contains(&account), "which account was searched: {said}");

    let mount = scene.mount(&scene.volume)?;
    fs::write(mount.path().join("file"), "content")?;
    scene.volume.sync(PATIENCE)?;
    mount.umount()?;
    let (code, said) = refused(&scene.volume, ws, &[])?;
    assert_eq!(code, 4, "{said}");
    let (code, said) = refused(&fresh, "ws://127.0.0.1:1", &[])?;
    assert_eq!(code, 10, "{said}");
    for (at, code) in [("1999-12-31", 2), ("12345", 2), ("yesterday", 2)] {
        let (found, said) = refused(&fresh, ws, &["--at", at])?;
        assert_eq!(found, code, "--at {at}: {said}");
    }
    let (code, said) = refused(&fresh, ws, &["--volume", "none-of-that-name"])?;
    assert_eq!(code, 3, "{said}");
    fs::write(fresh.phrase_file(), "abandon ability able")?;
    let (code, said) = refused(&fresh, ws, &[])?;
    assert_eq!(code, 5, "{said}");
    fs::copy(scene.volume.phrase_file(), fresh.phrase_file())?;
    assert!(!fresh.home().join("volumes/home").exists());

    // A second volume of the same phrase: they are told apart by id or territory.
    let second = scene.elsewhere("other")?;
    let mut init = second.cessfs()?;
    init.args(["init", &second.name, "--rpc", ws, "--territory", "other", "--gib", "4"]);
    init.arg("--phrase-file").arg(second.phrase_file());
    second.add_secret(&mut init);
    cessfs_tests::process::succeed(&mut init)?;
    let mount = scene.mount(&second)?;
    fs::write(mount.path().join("other file"), "other content")?;
    second.sync(PATIENCE)?;
    mount.umount()?;
    let (code, said) = refused(&fresh, ws, &[])?;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("docs") && said.contains("other"), "{said}");
    let told = fresh.recover(ws, &["--volume", "other"])?;
    let mount = scene.mount(&fresh)?;
    assert_eq!(fs::read_to_string(mount.path().join("other file"))?, "other content");
    mount.umount()?;

    // A node that shows less than this machine has seen is not believed.
    let id = told["id"].as_str().context("id")?;
    fs::remove_dir_all(fresh.home().join("volumes/home"))?;
    fs::write(fresh.home().join("seen").join(id), "{\"newest_pack\":1000000}")?;
    let (code, said) = refused(&fresh, ws, &["--volume", id])?;
    assert_eq!(code, 18, "{said}");
    assert!(said.contains("1000000"), "{said}");
    fresh.recover(ws, &["--volume", id, "--allow-older"])?;
    Ok(())
}

#[test]
fn the_older_of_two_machines_stops_sending() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let scene = Scene::set(13, "sealed")?;
    let older = &scene.volume;
    let old_mount = scene.mount(older)?;
    fs::write(old_mount.path().join("shared"), "before")?;
    older.sync(PATIENCE)?;
    let newer = scene.elsewhere("newer")?;
    newer.recover(&scene.network.ws, &[])?;
    // On the network before the older one can know, and in no tree of the newer one.
    fs::write(old_mount.path().join("in between"), "sent, too late")?;
    older.sync(PATIENCE)?;
    let new_mount = newer.mount(&scene.dir.path().join("new-mnt"))?;
    fs::write(new_mount.path().join("shared"), "after")?;
    newer.sync(PATIENCE)?;
    assert!(!new_mount.path().join("in between").exists());
    let declared = scene.network.events("UploadDeclaration")?;

    fs::write(old_mount.path().join("only here"), "kept")?;
    assert!(older.run(&["sync", "--wait", "--timeout", "5"]).is_err());
    older.status_says(&["recovered on another machine"], PATIENCE)?;
    assert_eq!(scene.network.events("UploadDeclaration")?, declared);
    assert_eq!(fs::read_to_string(old_mount.path().join("only here"))?, "kept");

    // It takes no more changes, says why, stays readable, and lists what only it has.
    let refused = || {
        let error = fs::write(old_mount.path().join("too late"), "x").err();
        Ok(error.and_then(|error| error.raw_os_error()) == Some(libc::EROFS))
    };
    eventually("changes to be refused", PATIENCE, refused)?;
    let told = older.status()?;
    assert_eq!(told["read_only"], true, "{told}");
    let reason = told["read_only_reason"].as_str().context("a reason")?;
    assert!(reason.contains("recovered on another machine"), "{reason}");
    assert_eq!(fs::read_to_string(old_mount.path().join("shared"))?, "before");
    let unsent = || -> Result<Vec<String>> {
        let listed: Value = serde_json::from_str(&older.run(&["unsent", "--json"])?)?;
        let paths = listed.as_array().context("a list")?.iter();
        let paths = paths.filter_map(|entry| Some(entry["path"].as_str()?.to_owned()));
        // It may have been written before the fence was seen.
        Ok(paths.filter(|path| path != "/too late").collect())
    };
    assert_eq!(unsent()?, ["/in between", "/only here"]);
    fs::write(new_mount.path().join("more"), "goes on")?;
    newer.sync(PATIENCE)?;
    old_mount.umount()?;

    // Also at the next mount, without asking the network first.
    let old_mount = scene.mount(older)?;
    let error = fs::write(old_mount.path().join("too late"), "x").expect_err("it is fenced");
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
    assert_eq!(fs::read_to_string(old_mount.path().join("only here"))?, "kept");
    assert_eq!(unsent()?, ["/in between", "/only here"]);
    // What would have to send something ends; what only looks does not.
    for verb in [
        &["sync", &older.name, "--wait"][..],
        &["gc", &older.name],
        &["repair", &older.name],
    ] {
        let (code, said) = fail(older.cessfs()?.args(verb))?;
        assert!(code == 18 && said.contains("unsent"), "{verb:?} {code}: {said}");
    }
    older.run(&["gc", "--dry-run"])?;
    old_mount.umount()?;
    new_mount.umount()
}

/// Who only looks takes nothing over: also when it asks for what would delete, rewrite or send.
#[test]
fn a_recovery_that_is_mounted_read_only_does_not_stop_the_first_machine() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let scene = Scene::set(13, "sealed")?;
    let first = &scene.volume;
    let mount = scene.mount(first)?;
    fs::write(mount.path().join("shared"), "before")?;
    first.sync(PATIENCE)?;
    let second = scene.elsewhere("second")?;
    second.recover(&scene.network.ws, &[])?;
    let looked_at = second.mount_with(&scene.dir.path().join("look"), &["ro"])?;
    assert_eq!(fs::read_to_string(looked_at.path().join("shared"))?, "before");
    let declared = scene.network.events("UploadDeclaration")?;
    for verb in [
        &["gc", &second.name][..],
        &["repair", &second.name],
        &["sync", &second.name, "--wait"],
    ] {
        let (code, said) = fail(second.cessfs()?.args(verb))?;
        assert!(
            code == 18 && said.contains("mounted read-only"),
            "{verb:?} {code}: {said}"
        );
    }
    second.run(&["gc", "--dry-run"])?;
    second.run(&["sync"])?;
    assert_eq!(scene.network.events("UploadDeclaration")?, declared);
    looked_at.umount()?;

    fs::write(mount.path().join("shared"), "after")?;
    first.sync(PATIENCE)?;
    mount.umount()
}
