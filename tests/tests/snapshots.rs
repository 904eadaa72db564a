//! Snapshots as people use them: the old tree is there, whole, whatever became of the volume, its cache and its miners.

use anyhow::{Context, Result, ensure};
use cessfs_tests::metadata::{full_manifest, set_xattr, write_zoo};
use cessfs_tests::network::eventually;
use cessfs_tests::process::{drop_kernel_caches, fail, succeed};
use cessfs_tests::{InitOptions, Mount, Network, Volume, can_mount, tree};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(180);
/// So few that eight of them down leave every pack exactly four.
const MINERS: usize = 12;

struct Scene {
    mount: Mount,
    volume: Volume,
    network: Network,
    dir: tempfile::TempDir,
}

impl Scene {
    fn set(at_rest: &'static str) -> Result<Scene> {
        let dir = tempfile::tempdir()?;
        let network = Network::up(&dir.path().join("net"), MINERS)?;
        let options = InitOptions {
            at_rest,
            ..InitOptions::default()
        };
        let volume = Volume::init(&dir.path().join("volume"), &network.ws, &options)?;
        let mount = volume.mount(&dir.path().join("mnt"))?;
        Ok(Scene {
            mount,
            volume,
            network,
            dir,
        })
    }

    fn path(&self, below: &str) -> PathBuf {
        self.mount.path().join(below)
    }

    fn at(&self, snapshot: &str) -> PathBuf {
        self.path(".cessfs/snapshots").join(snapshot)
    }
}

fn command(volume: &Volume, arguments: &[&str]) -> Result<Command> {
    let mut cessfs = volume.cessfs()?;
    cessfs
        .args(["snapshot", arguments[0], &volume.name])
        .args(&arguments[1..]);
    Ok(cessfs)
}

fn snapshot(volume: &Volume, arguments: &[&str]) -> Result<Value> {
    let said = succeed(command(volume, arguments)?.arg("--json"))?;
    Ok(serde_json::from_str(&said)?)
}

fn names(volume: &Volume) -> Result<Vec<String>> {
    let listed = snapshot(volume, &["list"])?;
    let listed = listed.as_array().context("a list")?;
    Ok(listed
        .iter()
        .filter_map(|s| Some(s["name"].as_str()?.to_owned()))
        .collect())
}

/// What a tree holds, told by the volume: the kernel's idea of times may run ahead of it.
fn held(at: &Path) -> Result<tree::Manifest> {
    drop_kernel_caches()?;
    full_manifest(at)
}

fn write_first(root: &Path) -> Result<()> {
    tree::write_many(&root.join("many"), 600)?;
    write_zoo(&root.join("zoo"))?;
    tree::write_noise(&root.join("big.bin"), 1, 9)?;
    fs::copy("/bin/true", root.join("program"))?;
    fs::create_dir(root.join("closed"))?;
    fs::write(root.join("closed/secret"), "mine")?;
    fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o700))?;
    Ok(())
}

fn change_everything(root: &Path) -> Result<()> {
    fs::remove_dir_all(root.join("zoo"))?;
    fs::rename(root.join("many/001"), root.join("moved"))?;
    fs::remove_dir_all(root.join("many/002"))?;
    fs::write(root.join("many/000/file-00007.txt"), "overwritten")?;
    let big = File::options().write(true).open(root.join("big.bin"))?;
    for chunk in 0..9 {
        big.write_all_at(&tree::noise(7 + chunk, 5000), chunk << 20)?;
    }
    big.set_len(4_000_000)?;
    fs::remove_file(root.join("program"))?;
    fs::write(root.join("program"), "#!/bin/false\n")?;
    set_xattr(&root.join("big.bin"), "user.comment", b"changed")?;
    fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o777))?;
    tree::write_many(&root.join("more"), 50)
}

/// A line of a full manifest without what a copy cannot keep: the time of the inode's change, and how blocks came to be.
fn kept_by_cp(manifest: tree::Manifest) -> tree::Manifest {
    let keep = |what: String| {
        let mut words = what.split(' ').peekable();
        let mut kept = Vec::new();
        while let Some(word) = words.next() {
            if matches!(word, "ctime" | "blocks") {
                words.next();
            } else {
                kept.push(word);
            }
        }
        kept.join(" ")
    };
    manifest.into_iter().map(|(path, what)| (path, keep(what))).collect()
}

fn nothing_can_be_changed(old: &Path, root: &Path) -> Result<()> {
    let refused = |result: std::io::Result<()>, what: &str| -> Result<()> {
        let error = result.expect_err(what);
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what}: {error}");
        Ok(())
    };
    refused(fs::write(old.join("new"), "x"), "create")?;
    refused(fs::write(old.join("big.bin"), "x"), "overwrite")?;
    refused(fs::remove_file(old.join("big.bin")), "unlink")?;
    refused(fs::create_dir(old.join("dir")), "mkdir")?;
    refused(fs::rename(old.join("big.bin"), root.join("stolen")), "rename")?;
    refused(fs::hard_link(old.join("big.bin"), root.join("linked")), "link")?;
    refused(
        fs::set_permissions(old.join("big.bin"), fs::Permissions::from_mode(0o600)),
        "chmod",
    )?;
    Ok(())
}

fn old_tree_stays(at_rest: &'static str) -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let scene = Scene::set(at_rest)?;
    let root = scene.mount.path();
    write_first(root)?;
    let taken = snapshot(&scene.volume, &["create", "before"])?;
    assert_eq!(taken["name"], "before", "{taken}");
    let expected = held(root)?;
    change_everything(root)?;
    scene.volume.sync(PATIENCE)?;
    let listed = snapshot(&scene.volume, &["list"])?;
    assert_eq!(
        (&listed[0]["name"], &listed[0]["on_network"]),
        (&"before".into(), &true.into()),
        "{listed}"
    );
    assert_eq!(scene.volume.status()?["snapshots"], 1);
    let now = held(root)?;

    // From an empty cache, with eight of twelve miners down.
    scene.volume.evict()?;
    scene.network.miner("stop", &(0..8).collect::<Vec<_>>())?;
    let old = scene.at("before");
    assert_eq!(tree::differences(&expected, &held(&old)?), Vec::<String>::new());
    assert_eq!(scene.volume.status()?["snapshot_trees"], 1);
    ensure!(
        Command::new(old.join("program")).status()?.success(),
        "a program runs out of a snapshot"
    );
    let walk = format!(
        "cd '{}' && find . -links +1 | sort && ls -lR >/dev/null && tar -cf - . | tar -tf - | wc -l",
        old.display()
    );
    let walked = succeed(Command::new("bash").args(["-c", &walk]))?;
    assert!(walked.contains("./zoo"), "{walked}");

    nothing_can_be_changed(&old, root)?;
    assert_eq!(
        tree::differences(&now, &held(root)?),
        Vec::<String>::new(),
        "looking changed nothing"
    );

    // cp -a brings it back: modes, owners, times, attributes, links, holes.
    let back = scene.path("back");
    tree::copy(&old, &back)?;
    assert_eq!(
        tree::differences(&kept_by_cp(expected.clone()), &kept_by_cp(held(&back)?)),
        Vec::<String>::new()
    );
    let sparse = |root: &Path| -> Result<(u64, u64)> {
        let meta = fs::metadata(root.join("zoo/sparse"))?;
        Ok((meta.len(), meta.blocks()))
    };
    let (len, blocks) = sparse(&old)?;
    assert!(blocks * 512 < len, "{len} bytes in {blocks} blocks");
    assert_eq!(sparse(&back)?, (len, blocks), "holes stay holes");
    succeed(
        Command::new("diff")
            .arg("-r")
            .arg(old.join("many"))
            .arg(back.join("many")),
    )?;

    scene.network.miner("start", &(0..8).collect::<Vec<_>>())?;
    snapshot(&scene.volume, &["delete", "before"])?;
    assert_eq!(names(&scene.volume)?, Vec::<String>::new());
    assert!(!old.exists());
    let (code, said) = fail(&mut command(&scene.volume, &["delete", "before"])?)?;
    assert!(code == 1 && said.contains("no snapshot"), "{code}: {said}");
    scene.mount.umount()
}

#[test]
fn the_old_tree_stays_in_a_sealed_volume() -> Result<()> {
    old_tree_stays("sealed")
}

#[test]
fn the_old_tree_stays_in_a_plain_volume() -> Result<()> {
    old_tree_stays("plain")
}

#[test]
fn snapshots_survive_a_kill_and_the_machine() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let scene = Scene::set("sealed")?;
    write_first(scene.mount.path())?;
    snapshot(&scene.volume, &["create", "one"])?;
    let first = held(scene.mount.path())?;
    change_everything(scene.mount.path())?;
    snapshot(&scene.volume, &["create", "two"])?;
    // What is bound first goes last: the network is taken down through its socket in `dir`.
    let Scene {
        dir,
        network,
        volume,
        mount,
    } = scene;
    // Nothing had to be synced: what create returned is on this disk.
    mount.kill()?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    assert_eq!(names(&volume)?, ["one", "two"]);
    let at = mount.path().join(".cessfs/snapshots");
    assert_eq!(tree::differences(&first, &held(&at.join("one"))?), Vec::<String>::new());
    let second = held(&at.join("two"))?;
    snapshot(&volume, &["delete", "two"])?;
    volume.sync(PATIENCE)?;
    mount.umount()?;
    fs::remove_dir_all(volume.home())?;

    let again = volume.elsewhere(&dir.path().join("second"))?;
    again.recover(&network.ws, &["--store", "sled"])?;
    let journal = again.home().join("volumes").join(&again.name).join("journal");
    assert!(journal.join("db").is_file(), "it has the store that was asked for");
    let mount = again.mount(&dir.path().join("mnt2"))?;
    assert_eq!(names(&again)?, ["one"], "a deletion travels too");
    let at = mount.path().join(".cessfs/snapshots");
    assert_eq!(tree::differences(&first, &held(&at.join("one"))?), Vec::<String>::new());
    assert_eq!(tree::differences(&second, &held(mount.path())?), Vec::<String>::new());
    // And it goes on there.
    fs::write(mount.path().join("after"), "recovered")?;
    snapshot(&again, &["create", "three"])?;
    fs::remove_file(mount.path().join("after"))?;
    assert_eq!(fs::read_to_string(at.join("three/after"))?, "recovered");
    mount.umount()?;

    // The tree that was looked at is still there after a mount, also with the network away.
    network.miner("stop", &(0..MINERS).collect::<Vec<_>>())?;
    let mount = again.mount(&dir.path().join("mnt2"))?;
    assert_eq!(again.status()?["snapshot_trees"], 2);
    assert!(at.join("one/zoo").is_dir());
    mount.umount()
}

#[test]
fn what_changed_is_told_and_bad_input_is_refused() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let scene = Scene::set("sealed")?;
    let (root, volume) = (scene.mount.path(), &scene.volume);
    fs::create_dir(root.join("dir"))?;
    for name in ["dir/stays", "dir/moves", "goes", "grows"] {
        fs::write(root.join(name), name)?;
    }
    let taken = snapshot(volume, &["create"])?;
    let monday = taken["name"].as_str().context("a name made of the time")?.to_owned();
    assert!(monday.starts_with("20") && monday.ends_with('Z'), "{monday}");
    fs::rename(root.join("dir/moves"), root.join("moved"))?;
    fs::remove_file(root.join("goes"))?;
    fs::write(root.join("grows"), "longer than it was")?;
    fs::write(root.join("new"), "new")?;
    let text = succeed(&mut command(volume, &["diff", &monday])?)?;
    let expected = "- /goes\n~ /grows\n> /dir/moves -> /moved\n+ /new\n";
    assert_eq!(text, expected);
    snapshot(volume, &["create", "tuesday"])?;
    assert_eq!(succeed(&mut command(volume, &["diff", &monday, "tuesday"])?)?, expected);
    let json = snapshot(volume, &["diff", "tuesday", &monday])?;
    let goes = json
        .as_array()
        .context("a list")?
        .iter()
        .find(|entry| entry["path"] == "/goes");
    assert_eq!(goes.context("it is back")?["change"], "added");

    for (arguments, code) in [
        (&["create", "tuesday"][..], 4),
        (&["create", "a/b"], 2),
        (&["create", ".hidden"], 2),
        (&["diff", "wednesday"], 1),
        (&["diff", "tuesday", "wednesday"], 1),
    ] {
        let (found, said) = fail(&mut command(volume, arguments)?)?;
        assert_eq!(found, code, "{arguments:?}: {said}");
    }

    // What is not sent yet is listed, and nothing once it is.
    let listed = volume.run(&["unsent"])?;
    assert!(
        listed.lines().any(|line| line == "/new") && listed.contains("/moved"),
        "{listed}"
    );
    volume.sync(PATIENCE)?;
    eventually("nothing to be unsent", PATIENCE, || {
        Ok(volume.run(&["unsent"])?.is_empty())
    })?;
    let (code, said) = {
        scene.mount.umount()?;
        fail(&mut command(volume, &["list"])?)?
    };
    assert_eq!(code, 9, "{said}");
    Ok(())
}
