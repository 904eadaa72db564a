//! The trash as people and file managers use it.

use anyhow::{Context, Result, ensure};
use cessfs_tests::network::eventually;
use cessfs_tests::process::{drop_kernel_caches, fail, succeed};
use cessfs_tests::{InitOptions, Mount, Network, Volume, can_mount};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

struct World {
    mount: Mount,
    volume: Volume,
    _network: Network,
    _dir: tempfile::TempDir,
}

/// A mount whose trash takes files of any age and keeps them for `keep`.
fn world(keep: &str) -> Result<World> {
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("v"), &network.ws, &InitOptions::default())?;
    volume.configure(&[
        ("keep = \"7d\"", &format!("keep = \"{keep}\"")),
        ("min_age = \"10m\"", "min_age = \"0s\""),
    ])?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    Ok(World {
        mount,
        volume,
        _network: network,
        _dir: dir,
    })
}

impl World {
    fn trash(&self, arguments: &[&str]) -> Result<String> {
        let mut cessfs = self.volume.cessfs()?;
        cessfs
            .args(["trash", arguments[0], &self.volume.name])
            .args(&arguments[1..]);
        succeed(&mut cessfs)
    }

    fn listed(&self) -> Result<Vec<(u64, String)>> {
        let listed: Value = serde_json::from_str(&self.trash(&["list", "--json"])?)?;
        let entry = |entry: &Value| Some((entry["id"].as_u64()?, entry["path"].as_str()?.to_owned()));
        listed
            .as_array()
            .context("a list")?
            .iter()
            .map(|e| entry(e).context("an entry"))
            .collect()
    }
}

#[test]
fn what_was_deleted_comes_back_byte_for_byte() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let w = world("1h")?;
    let at = w.mount.path();
    let content: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    fs::create_dir_all(at.join("a/b"))?;
    fs::write(at.join("a/b/large"), &content)?;
    fs::write(at.join("a/small"), "small")?;
    let before = fs::metadata(at.join("a/b/large"))?;
    let open = File::open(at.join("a/small"))?;
    fs::remove_dir_all(at.join("a"))?;
    ensure!(open.metadata()?.nlink() == 0, "fstat tells that the last name is gone");
    drop(open);
    ensure!(!at.join("a").exists());
    let status = w.volume.status()?;
    ensure!(
        status["trash_files"] == 2 && status["trash_bytes"].as_u64() >= Some(3_000_000),
        "{status}"
    );

    let listed = w.listed()?;
    let mut paths: Vec<&str> = listed.iter().map(|(_, path)| &**path).collect();
    paths.sort_unstable();
    ensure!(paths == ["/a/b/large", "/a/small"], "{paths:?}");
    let ids: Vec<String> = listed.iter().map(|(id, _)| id.to_string()).collect();
    w.trash(&["restore", &ids[0], &ids[1]])?;
    ensure!(fs::read(at.join("a/b/large"))? == content);
    ensure!(fs::read(at.join("a/small"))? == b"small");
    let after = fs::metadata(at.join("a/b/large"))?;
    ensure!(
        (after.ino(), after.mtime(), after.nlink()) == (before.ino(), before.mtime(), 1),
        "times and all"
    );
    ensure!(w.listed()?.is_empty());

    // What a save replaces is there too; its place is taken.
    fs::write(at.join("a/new"), "new")?;
    fs::rename(at.join("a/new"), at.join("a/small"))?;
    let id = w.listed()?[0].0.to_string();
    let mut restore = w.volume.cessfs()?;
    let (code, said) = fail(restore.args(["trash", "restore", &w.volume.name, &id]))?;
    ensure!(code == 4 && said.contains("--to"), "{code}: {said}");
    fs::create_dir(at.join("found"))?;
    let to = at.join("found").display().to_string();
    w.trash(&["restore", &id, "--to", &to])?;
    ensure!(fs::read_to_string(at.join("found/small"))? == "small");
    w.mount.umount()
}

/// Who shares a mount with root can put links where files were that root restores.
#[test]
fn nothing_is_restored_through_a_link() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let w = world("1h")?;
    let at = w.mount.path();
    let outside = tempfile::tempdir()?;
    for dir in ["a/b", "other"] {
        fs::create_dir_all(at.join(dir))?;
    }
    fs::write(at.join("a/b/file"), "content")?;
    fs::remove_dir_all(at.join("a"))?;
    let id = w.listed()?[0].0.to_string();
    let refused = || -> Result<()> {
        let mut restore = w.volume.cessfs()?;
        let (code, said) = fail(restore.args(["trash", "restore", &w.volume.name, &id]))?;
        ensure!(
            code == 4 && said.contains("symbolic link") && said.contains("--to"),
            "{code}: {said}"
        );
        ensure!(
            fs::read_dir(outside.path())?.next().is_none(),
            "something was made outside"
        );
        ensure!(
            fs::read_dir(at.join("other"))?.next().is_none(),
            "something was moved elsewhere"
        );
        Ok(())
    };
    for target in [outside.path(), Path::new("other")] {
        std::os::unix::fs::symlink(target, at.join("a"))?;
        refused()?;
        fs::remove_file(at.join("a"))?;
    }
    fs::create_dir(at.join("a"))?;
    std::os::unix::fs::symlink(outside.path(), at.join("a/b"))?;
    refused()?;
    fs::remove_file(at.join("a/b"))?;
    w.trash(&["restore", &id])?;
    ensure!(fs::read_to_string(at.join("a/b/file"))? == "content");

    // The caller's own directory may be anywhere in the mount, and only there.
    fs::remove_file(at.join("a/b/file"))?;
    let id = w.listed()?[0].0.to_string();
    let mut restore = w.volume.cessfs()?;
    restore.args(["trash", "restore", &w.volume.name, &id, "--to"]);
    let (code, said) = fail(restore.arg(outside.path()))?;
    ensure!(code == 2 && said.contains("not in the same mount"), "{code}: {said}");
    w.mount.umount()
}

#[test]
fn its_directory_is_hidden_and_what_is_moved_out_is_restored() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let w = world("1h")?;
    let at = w.mount.path();
    let trash = at.join(".cessfs/trash");
    ensure!(fs::read_dir(&trash)?.count() == 0);
    for name in ["one", "two", "three"] {
        fs::write(at.join(name), name)?;
    }
    fs::remove_file(at.join("one"))?;
    fs::remove_file(at.join("two"))?;
    let names = || -> Result<Vec<String>> {
        let names = fs::read_dir(&trash)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<String> = names.collect::<Result<_>>()?;
        names.sort_by_key(|name| name.split('.').nth(1).map(String::from));
        Ok(names)
    };
    let listed = names()?;
    ensure!(listed.len() == 2 && listed[0].ends_with(".one"), "{listed:?}");
    ensure!(fs::read_dir(at)?.count() == 1, "the root lists it not");
    ensure!(
        fs::read_to_string(trash.join(&listed[0]))? == "one",
        "it can be read there"
    );
    // The kernel listed the directory before: what comes must show all the same.
    fs::remove_file(at.join("three"))?;
    ensure!(names()?.len() == 3);
    let mv = Command::new("mv")
        .arg(trash.join(&listed[0]))
        .arg(at.join("one"))
        .status()?;
    ensure!(mv.success() && fs::read_to_string(at.join("one"))? == "one");
    fs::remove_file(trash.join(&listed[1]))?;
    ensure!(!trash.join(&listed[1]).exists() && names()?.len() == 1);
    drop_kernel_caches()?;
    ensure!(names()?.len() == 1);
    for refused in [
        fs::write(trash.join("x"), "x").err(),
        fs::create_dir(at.join(".cessfs/x")).err(),
        fs::remove_dir(&trash).err(),
        fs::rename(at.join("one"), trash.join("one")).err(),
    ] {
        let errno = refused.context("it should be refused")?.raw_os_error();
        ensure!(errno == Some(nix::libc::EPERM), "{errno:?}");
    }
    ensure!(fs::metadata(&trash)?.mode() & 0o7777 == 0o700);
    w.mount.umount()
}

#[test]
fn it_is_emptied_when_asked_and_in_time() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let w = world("3s")?;
    let at = w.mount.path();
    for name in ["one", "two"] {
        fs::write(at.join(name), vec![7; 200_000])?;
        File::open(at.join(name))?.sync_all()?;
        fs::remove_file(at.join(name))?;
    }
    w.trash(&["empty"])?;
    ensure!(w.volume.status()?["trash_files"] == 0);
    fs::write(at.join("three"), "three")?;
    fs::remove_file(at.join("three"))?;
    ensure!(w.volume.status()?["trash_files"] == 1);
    let empty = || Ok(w.volume.status()?["trash_files"] == 0);
    eventually("the trash to empty itself", Duration::from_secs(15), empty)?;
    let gone = || Ok(w.volume.status()?["cache_bytes"] == 0);
    eventually("the cache to be given back", Duration::from_secs(15), gone)?;
    w.mount.umount()
}

/// The rules of the freedesktop.org trash, as file managers follow them: `.Trash-UID` at the top of the mount, with `files`
/// and `info`; a rename into it, never a copy.
#[test]
fn the_trash_of_file_managers_works_on_the_mount() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let w = world("0s")?;
    let at = w.mount.path();
    let uid = nix::unistd::getuid();
    let trash = at.join(format!(".Trash-{uid}"));
    fs::create_dir_all(at.join("photos/2026"))?;
    fs::write(at.join("photos/2026/cat.jpg"), "purr")?;
    ensure!(
        fs::metadata(at)?.dev() == fs::metadata(at.join("photos"))?.dev(),
        "one device"
    );
    for dir in [&trash, &trash.join("files"), &trash.join("info")] {
        fs::create_dir(dir)?;
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    // The information first, exclusively; then the rename, of a file and of a directory.
    for (what, name) in [("photos/2026/cat.jpg", "cat.jpg"), ("photos/2026", "2026")] {
        let info = trash.join(format!("info/{name}.trashinfo"));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(info)?;
        let text = format!("[Trash Info]\nPath={what}\nDeletionDate=2026-11-22T10:00:00\n");
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        fs::rename(at.join(what), trash.join("files").join(name))?;
    }
    ensure!(fs::read_dir(at.join("photos"))?.count() == 0);
    fs::rename(trash.join("files/2026"), at.join("photos/2026"))?;
    fs::rename(trash.join("files/cat.jpg"), at.join("photos/2026/cat.jpg"))?;
    for name in ["cat.jpg", "2026"] {
        fs::remove_file(trash.join(format!("info/{name}.trashinfo")))?;
    }
    ensure!(fs::read_to_string(at.join("photos/2026/cat.jpg"))? == "purr");
    with_a_program(at)?;
    w.mount.umount()
}

/// The same by a program, whichever is installed.
fn with_a_program(at: &Path) -> Result<()> {
    let file = at.join("photos/2026/cat.jpg");
    for (program, arguments) in [("trash-put", &[][..]), ("gio", &["trash"])] {
        let Ok(put) = Command::new(program).args(arguments).arg(&file).output() else {
            continue;
        };
        ensure!(
            put.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&put.stderr)
        );
        ensure!(!file.exists());
        let kept = at.join(format!(".Trash-{}/files/cat.jpg", nix::unistd::getuid()));
        ensure!(
            fs::read_to_string(kept)? == "purr",
            "{program} keeps it on the mount itself"
        );
        return Ok(());
    }
    println!("SKIPPED: neither trash-cli nor gio is installed");
    Ok(())
}
