//! Bad input and bad days: each gets a clear error that says what to do, a non-zero exit, and loses nothing.

use anyhow::{Context, Result, ensure};
use cessfs_tests::process::{fail, succeed};
use cessfs_tests::{InitOptions, Mount, Network, Opener, Volume, can_mount, tree};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

fn scene(options: &InitOptions, miners: usize) -> Result<(tempfile::TempDir, Network, Volume)> {
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), miners)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, options)?;
    Ok((dir, network, volume))
}

/// An error must say what happened (`words`) and what to do (`hint:`).
fn says(stderr: &str, words: &[&str]) {
    let said = stderr.to_lowercase();
    assert!(
        words.iter().any(|word| said.contains(word)),
        "none of {words:?} in: {stderr}"
    );
    assert!(said.contains("hint"), "no hint what to do in: {stderr}");
}

#[test]
fn wrong_secrets_and_unreachable_networks() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let passphrase = dir.path().join("passphrase");
    std::fs::write(&passphrase, "pw")?;
    let phrase = dir.path().join("phrase");
    std::fs::write(&phrase, "abandon abandon notaword")?;
    let mut volume = cessfs_tests::process::command("cessfs")?;
    volume
        .arg("--home")
        .arg(dir.path().join("home"))
        .args(["init", "v", "--rpc", "ws://127.0.0.1:9"]);
    volume
        .arg("--passphrase-file")
        .arg(&passphrase)
        .arg("--phrase-file")
        .arg(&phrase);
    let (_, stderr) = fail(&mut volume)?;
    says(&stderr, &["phrase", "24"]);
    let mut volume = cessfs_tests::process::command("cessfs")?;
    volume
        .arg("--home")
        .arg(dir.path().join("home"))
        .args(["init", "v", "--rpc", "ws://127.0.0.1:9"]);
    volume
        .arg("--passphrase-file")
        .arg(&passphrase)
        .arg("--new-phrase-file")
        .arg(dir.path().join("new"));
    let (_, stderr) = fail(&mut volume)?;
    says(&stderr, &["reach", "connect"]);
    assert!(
        !dir.path().join("home/volumes/v").exists(),
        "a failed init leaves nothing behind"
    );
    let mut volume = cessfs_tests::process::command("cessfs")?;
    volume
        .arg("--home")
        .arg(dir.path().join("home"))
        .args(["status", "nosuch"]);
    let (_, stderr) = fail(&mut volume)?;
    says(&stderr, &["no volume", "nosuch"]);
    Ok(())
}

#[test]
fn mounting_what_cannot_be_mounted() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let options = InitOptions {
        opened_by: Opener::Passphrase,
        ..InitOptions::default()
    };
    let (dir, _network, volume) = scene(&options, 12)?;
    let mount = |at: &Path, passphrase: &Path| -> Result<std::process::Command> {
        let mut mount = volume.cessfs()?;
        mount.args(["mount", &volume.name]).arg(at);
        mount.arg("-o").arg(format!("passphrase-file={}", passphrase.display()));
        Ok(mount)
    };
    let good = volume.secret_file();
    let (_, stderr) = fail(&mut mount(&dir.path().join("nowhere"), &good)?)?;
    says(&stderr, &["does not exist", "no such"]);
    let full = dir.path().join("full");
    std::fs::create_dir(&full)?;
    std::fs::write(full.join("file"), "")?;
    let (_, stderr) = fail(&mut mount(&full, &good)?)?;
    says(&stderr, &["not empty"]);
    let wrong = dir.path().join("wrong");
    std::fs::write(&wrong, "not the passphrase")?;
    let at = dir.path().join("mnt");
    std::fs::create_dir(&at)?;
    let (_, stderr) = fail(&mut mount(&at, &wrong)?)?;
    says(&stderr, &["passphrase"]);
    let mut unknown = volume.cessfs()?;
    unknown
        .args(["mount", &volume.name])
        .arg(&at)
        .args(["-o", "no-such-option=1"]);
    let (_, stderr) = fail(&mut unknown)?;
    says(&stderr, &["no-such-option"]);

    let first = volume.mount(&at)?;
    let second_at = dir.path().join("second");
    std::fs::create_dir(&second_at)?;
    let (_, stderr) = fail(&mut mount(&second_at, &good)?)?;
    says(&stderr, &["is mounted on"]);
    std::fs::write(first.path().join("still"), "works")?;
    first.umount()
}

#[test]
fn a_config_key_that_does_not_exist() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (_dir, _network, volume) = scene(&InitOptions::default(), 12)?;
    succeed(volume.cessfs()?.args(["config", "check", &volume.name]))?;
    let path = volume.home().join("volumes").join(&volume.name).join("volume.toml");
    let text = std::fs::read_to_string(&path)?;
    std::fs::write(&path, format!("writeback_dealy = \"1s\"\n{text}"))?;
    let (_, stderr) = fail(volume.cessfs()?.args(["config", "check", &volume.name]))?;
    says(&stderr, &["writeback_dealy"]);
    std::fs::write(&path, text)?;
    Ok(())
}

/// Sees `sync --wait` give up and status name the reason while the mount works on; heals, and everything arrives.
fn blocked_then_healed(volume: &Volume, mount: Mount, words: &[&str], heal: impl FnOnce() -> Result<()>) -> Result<()> {
    let expected = tree::manifest(mount.path())?;
    blocked(volume, words)?;
    let meanwhile = mount.path().join("meanwhile");
    let mut file = std::fs::File::create(&meanwhile)?;
    file.write_all(b"the mount works on")?;
    file.sync_all()?;
    drop(file);
    assert_eq!(std::fs::read_to_string(&meanwhile)?, "the mount works on");
    std::fs::remove_file(&meanwhile)?;
    heal()?;
    volume.comes_back(mount.path(), &expected, PATIENCE)?;
    mount.umount()
}

fn blocked(volume: &Volume, words: &[&str]) -> Result<()> {
    let (code, stderr) = fail(
        volume
            .cessfs()?
            .args(["sync", &volume.name, "--wait", "--timeout", "3"]),
    )?;
    assert_eq!(code, 14, "sync cannot succeed yet: {stderr}");
    volume.status_says(words, PATIENCE)
}

#[test]
fn fewer_than_twelve_willing_miners() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, network, volume) = scene(&InitOptions::default(), 13)?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    network.miner("stop", &[0, 1])?;
    tree::write_noise(&mount.path().join("file"), 1, 2)?;
    blocked_then_healed(&volume, mount, &["miners"], || network.miner("start", &[0, 1]))?;
    assert_eq!(
        network.events("UploadDeclaration")?,
        network.events("StorageCompleted")?
    );
    Ok(())
}

#[test]
fn a_full_territory() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    // 1 GiB holds ten segments, and remaining space must stay strictly greater: 400 MiB cannot go in.
    let (dir, _network, volume) = scene(
        &InitOptions {
            gib: 1,
            ..InitOptions::default()
        },
        12,
    )?;
    // The cache holds what does not go in until it is full, too.
    let mount = volume.mount_with(&dir.path().join("mnt"), &["cache-size=64MiB"])?;
    let mut written = 0;
    let error = loop {
        let path = mount.path().join(format!("file-{written}"));
        let (content, mut file) = (tree::noise(written, 8 << 20), std::fs::File::create(&path)?);
        match file.write_all(&content).and_then(|()| file.sync_all()) {
            Ok(()) => written += 1,
            Err(error) => {
                std::fs::remove_file(path)?;
                break error;
            }
        }
        assert!(
            written < 50,
            "a territory of 320 MiB of content and a cache of 64 take more"
        );
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    assert!(written > 64 / 8, "only {written} files of 8 MiB: the cache alone");
    assert_eq!(std::fs::read_dir(mount.path())?.count() as u64, written);
    for seed in [0, written - 1] {
        let content = std::fs::read(mount.path().join(format!("file-{seed}")))?;
        assert!(
            content == tree::noise(seed, 8 << 20),
            "file {seed} is not what was written"
        );
    }
    // Of what was refused the kernel tells once more, to whoever syncs the whole mount first; perhaps it did already.
    if let Err(told) = volume.run(&["sync"]) {
        says(&format!("{told:#}"), &["writes into the mount were refused", "status"]);
    }
    let expected = tree::manifest(mount.path())?;
    blocked(&volume, &["territory"])?;
    // Names still change: only content needs room in the cache.
    let (name, other) = (mount.path().join("file-0"), mount.path().join("renamed"));
    std::fs::rename(&name, &other)?;
    std::fs::rename(&other, &name)?;
    volume.territory(&["expand", "--gib", "2"])?;
    volume.comes_back(mount.path(), &expected, PATIENCE)?;
    mount.umount()
}

#[test]
fn a_frozen_territory() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, network, volume) = scene(&InitOptions::default(), 12)?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    let account = volume.status()?["account"]
        .as_str()
        .context("status has the account")?
        .to_string();
    network.run(&["territory", "freeze", &account, "docs"])?;
    tree::write_noise(&mount.path().join("file"), 3, 2)?;
    blocked_then_healed(&volume, mount, &["territory", "frozen"], || {
        volume.territory(&["renew", "--days", "30"])
    })
}

#[test]
fn an_expired_territory() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, network, volume) = scene(&InitOptions::default(), 12)?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    tree::write_noise(&mount.path().join("before"), 6, 2)?;
    volume.sync(PATIENCE)?;
    network.run(&["territory", "expire", &account(&volume)?, "docs"])?;
    tree::write_noise(&mount.path().join("after"), 7, 2)?;
    let expected = tree::manifest(mount.path())?;
    assert!(
        volume.run(&["sync", "--wait", "--timeout", "3"]).is_err(),
        "sync cannot succeed yet"
    );
    volume.status_says(&["expired"], PATIENCE)?;
    // The chain deletes what was in it: this machine has the only copy of what was confirmed.
    let (code, stderr) = fail(volume.cessfs()?.args(["evict", &volume.name]))?;
    assert_eq!(code, 12, "{stderr}");
    says(&stderr, &["expired"]);
    // The territory starts again, empty, and what waited goes into it.
    volume.territory(&["renew", "--days", "30"])?;
    volume.sync(PATIENCE)?;
    cessfs_tests::process::drop_kernel_caches()?;
    assert_eq!(
        tree::differences(&expected, &tree::manifest(mount.path())?),
        Vec::<String>::new()
    );
    mount.umount()
}

fn account(volume: &Volume) -> Result<String> {
    let status = volume.status()?;
    Ok(status["account"]
        .as_str()
        .context("status has the account")?
        .to_string())
}

#[test]
fn funds_that_run_out() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, network, volume) = scene(&InitOptions::default(), 12)?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    let account = account(&volume)?;
    network.run(&["drain", &account, "1"])?;
    tree::write_noise(&mount.path().join("file"), 4, 2)?;
    blocked_then_healed(&volume, mount, &["funds", "balance"], || {
        network.run(&["fund", &account, "1000"]).map(drop)
    })?;
    assert_eq!(
        network.events("UploadDeclaration")?,
        network.events("StorageCompleted")?
    );
    Ok(())
}

#[test]
fn a_network_without_a_faucet_is_told_what_to_send_where() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up_with(&dir.path().join("net"), 12, &["--chain", "cess-elsewhere"])?;
    let (passphrase, home) = (dir.path().join("passphrase"), dir.path().join("home"));
    std::fs::write(&passphrase, "pw")?;
    let cessfs = |arguments: &[&str]| -> Result<std::process::Command> {
        let mut cessfs = cessfs_tests::process::command("cessfs")?;
        cessfs.arg("--home").arg(&home).args(arguments);
        cessfs.arg("--passphrase-file").arg(&passphrase);
        Ok(cessfs)
    };
    let mut init = cessfs(&["init", "v", "--rpc", &network.ws, "--gib", "2", "--days", "30"])?;
    init.arg("--new-phrase-file").arg(dir.path().join("phrase"));
    let said = cessfs_tests::process::output(&mut init)?;
    assert_eq!(said.status.code(), Some(11), "{said:?}");
    let stdout = String::from_utf8(said.stdout)?;
    let told = |what: &str| stdout.lines().find_map(|line| line.strip_prefix(what)).map(str::trim);
    let account = told("account ").context("it says which account")?;
    let amount = told("send ").context("it says how much")?;
    says(&String::from_utf8(said.stderr)?, &["too little"]);
    // What it asked for is enough, and the command of the hint completes the volume.
    let amount = amount.split(' ').next().context("an amount")?;
    network.run(&["fund", account, amount])?;
    succeed(&mut cessfs(&["territory", "mint", "v", "--gib", "2", "--days", "30"])?)?;
    let at = dir.path().join("mnt");
    std::fs::create_dir(&at)?;
    let mut mount = cessfs_tests::process::command("cessfs")?;
    mount.arg("--home").arg(&home).args(["mount", "v"]).arg(&at);
    mount.arg("-o").arg(format!("passphrase-file={}", passphrase.display()));
    succeed(&mut mount)?;
    std::fs::write(at.join("file"), "content")?;
    let mut umount = cessfs_tests::process::command("cessfs")?;
    succeed(umount.arg("--home").arg(&home).arg("umount").arg(&at))?;
    Ok(())
}

#[test]
fn a_chain_of_unknown_shape() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, network, volume) = scene(&InitOptions::default(), 12)?;
    let rename = || network.run(&["chain", "rename", "upload_declaration", "upload_declamation"]);
    // A restart, so that nobody is connected who has seen the shape already.
    network.stop()?;
    network.start(12)?;
    rename()?;

    let mut init = cessfs_tests::process::command("cessfs")?;
    let home = dir.path().join("another");
    init.arg("--home").arg(&home).args(["init", "v", "--rpc", &network.ws]);
    volume.add_secret(&mut init);
    init.arg("--new-phrase-file").arg(dir.path().join("another-phrase"));
    let said = cessfs_tests::process::output(&mut init)?;
    assert_eq!(said.status.code(), Some(13), "{said:?}");
    says(&String::from_utf8(said.stderr)?, &["upload_declaration"]);
    assert!(!home.join("volumes/v").exists(), "a failed init leaves nothing behind");

    let mount = volume.mount(&dir.path().join("mnt"))?;
    tree::write_noise(&mount.path().join("file"), 5, 2)?;
    blocked_then_healed(&volume, mount, &["upload_declaration"], || {
        network.stop()?;
        network.start(12).map(drop)
    })
}

#[test]
fn a_cache_full_of_what_cannot_be_sent_says_so_and_loses_nothing() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (dir, network, volume) = scene(&InitOptions::default(), 12)?;
    let mount = volume.mount_with(&dir.path().join("mnt"), &["cache-size=64MiB"])?;
    tree::write_noise(&mount.path().join("early"), 6, 4)?;
    network.stop()?;
    let expected = tree::manifest(mount.path())?;
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(mount.path().join("too-much"))?;
        for i in 0..160 {
            file.write_all(&tree::noise(i, 1 << 20))?;
        }
        file.sync_all()
    };
    let error = write().expect_err("160 MiB cannot be kept in 64");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    std::fs::remove_file(mount.path().join("too-much"))?;
    assert_eq!(
        tree::differences(&expected, &tree::manifest(mount.path())?),
        Vec::<String>::new()
    );
    tree::write_noise(&mount.path().join("late"), 7, 8)?;
    std::fs::File::open(mount.path().join("late"))?.sync_all()?;
    let expected = tree::manifest(mount.path())?;
    network.start(12)?;
    // Of what was refused the kernel tells once more, to whoever syncs the whole mount first.
    let told = volume.run(&["sync"]).expect_err("something that was written is lost");
    assert!(format!("{told:#}").contains("No space left"), "{told:#}");
    volume.comes_back(mount.path(), &expected, PATIENCE)?;
    mount.umount()
}

#[test]
fn a_full_disk_says_so_and_loses_nothing() -> Result<()> {
    on_a_small_disk("size=96m", fill_the_disk)
}

/// A cache may be configured larger than its disk: what is written next, and the packs that it is sent in, find room all the same.
#[test]
fn what_the_network_has_gives_way_on_a_full_disk() -> Result<()> {
    on_a_small_disk("size=256m", |small, network, at| {
        let volume = Volume::init(small, &network.ws, &InitOptions::default())?;
        let mount = volume.mount(at)?;
        let path = |i: u64| mount.path().join(format!("{i}"));
        for i in 0..10 {
            let mut file = std::fs::File::create(path(i))?;
            file.write_all(&tree::noise(i, 30 << 20))?;
            file.sync_all().with_context(|| format!("file {i}"))?;
            volume.sync(PATIENCE)?;
        }
        for i in 0..10 {
            ensure!(std::fs::read(path(i))? == tree::noise(i, 30 << 20), "file {i} differs");
        }
        // Nor is what was only read in anybody's way.
        std::fs::write(path(10), tree::noise(10, 30 << 20))?;
        volume.sync(PATIENCE)?;
        mount.umount()
    })
}

/// There is no room for a pack just now: whoever waits for the network waits for that, too.
#[test]
fn a_sync_waits_for_room_for_its_pack() -> Result<()> {
    on_a_small_disk("size=256m", |small, network, at| {
        let volume = Volume::init(small, &network.ws, &InitOptions::default())?;
        let mount = volume.mount(at)?;
        let left = || -> Result<u64> {
            let disk = nix::sys::statvfs::statvfs(small)?;
            Ok(disk.blocks_available() * disk.fragment_size())
        };
        let mut filler = std::fs::File::create(small.join("filler"))?;
        let mut fill_to = |free: u64| -> Result<()> {
            let zeros = vec![0; usize::try_from(left()?.saturating_sub(free))?];
            Ok(filler.write_all(&zeros)?)
        };
        // Before the pack is sealed by its age: there is room for the content, and then for no pack of a segment beside it.
        fill_to(64 << 20)?;
        std::fs::write(mount.path().join("file"), tree::noise(1, 4 << 20))?;
        fill_to(40 << 20)?;
        let mut sync = volume.cessfs()?;
        let mut sync = sync.args(["sync", "home", "--wait"]).spawn()?;
        std::thread::sleep(Duration::from_secs(5));
        let ended = sync.try_wait()?;
        std::fs::remove_file(small.join("filler"))?;
        ensure!(ended.is_none(), "it did not wait: {ended:?}");
        drop(filler);
        ensure!(sync.wait()?.success());
        mount.umount()
    })
}

/// The disk takes a part of what the kernel writes back: whoever syncs the file hears of it.
#[test]
fn a_disk_that_fills_up_under_a_write_is_told_of() -> Result<()> {
    on_a_small_disk("size=160m", |small, network, at| {
        let volume = Volume::init(small, &network.ws, &InitOptions::default())?;
        let mount = volume.mount(at)?;
        // The disk is looked at each MiB. The next 300 KiB, which lie in two chunks, nobody looks.
        std::fs::write(mount.path().join("before"), tree::noise(1, 600 << 10))?;
        let mut file = std::fs::File::create(mount.path().join("file"))?;
        file.write_all(&tree::noise(2, (1 << 20) - (16 << 10)))?;
        file.sync_all()?;
        let disk = nix::sys::statvfs::statvfs(small)?;
        let left = disk.blocks_available() * disk.fragment_size();
        let filler = small.join("filler");
        std::fs::write(&filler, vec![1; usize::try_from(left)? - (96 << 10)])?;
        file.write_all(&tree::noise(3, 256 << 10))?;
        let error = file.sync_all().expect_err("there is room for a part of it");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
        std::fs::remove_file(filler)?;
        drop(file);
        mount.umount()
    })
}

/// Runs `on` with a directory on a disk of its own, a network, and a place for a mount.
fn on_a_small_disk(size: &str, on: impl FnOnce(&Path, &Network, &Path) -> Result<()>) -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let small = dir.path().join("volume");
    std::fs::create_dir(&small)?;
    let tmpfs = nix::mount::mount(
        Some("tmpfs"),
        &small,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some(size),
    );
    tmpfs.context("mount a small tmpfs")?;
    let result = on(&small, &network, &dir.path().join("mnt"));
    nix::mount::umount2(&small, nix::mount::MntFlags::MNT_DETACH)?;
    result
}

fn fill_the_disk(small: &Path, network: &Network, at: &Path) -> Result<()> {
    let volume = Volume::init(small, &network.ws, &InitOptions::default())?;
    // The kernel's cache would give the background time to give room back.
    let mount = volume.mount_with(at, &["kernel-cache=none"])?;
    std::fs::write(mount.path().join("early"), "kept")?;
    std::fs::File::open(mount.path().join("early"))?.sync_all()?;
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(mount.path().join("too-much"))?;
        for i in 0..160 {
            file.write_all(&tree::noise(i, 1 << 20))?;
        }
        file.sync_all()
    };
    let error = write().expect_err("160 MiB cannot fit");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    std::fs::remove_file(mount.path().join("too-much"))?;
    // Its room is there for who writes next, not when the background gets to it.
    let mut next = std::fs::File::create(mount.path().join("next"))?;
    next.write_all(&tree::noise(200, 4 << 20))?;
    next.sync_all()?;
    drop(next);
    assert_eq!(std::fs::read_to_string(mount.path().join("early"))?, "kept");
    mount.umount()?;
    let mount = volume.mount(at)?;
    assert_eq!(std::fs::read_to_string(mount.path().join("early"))?, "kept");
    mount.umount()?;
    // Others take the rest, and the last of it from a lock that was about to be signed.
    std::fs::write(volume.home().join("volumes").join(&volume.name).join("lock"), "")?;
    let others = std::fs::File::create(small.join("others"))?;
    let taken = std::iter::repeat_with(|| (&others).write_all(&[0; 4096])).find(std::io::Result::is_err);
    assert!(taken.is_some_and(|full| full.unwrap_err().raw_os_error() == Some(libc::ENOSPC)));
    let mount = volume.mount(at)?;
    assert_eq!(std::fs::read_to_string(mount.path().join("early"))?, "kept");
    mount.umount()
}

#[test]
#[ignore = "minutes: scripts/nightly runs it"]
fn one_link_more_than_there_may_be() -> Result<()> {
    const LINKS_MAX: u64 = 65_000;
    if !can_mount() {
        return Ok(());
    }
    let (dir, _network, volume) = scene(&InitOptions::default(), 12)?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    let (file, names) = (mount.path().join("file"), mount.path().join("names"));
    std::fs::write(&file, "content")?;
    std::fs::create_dir(&names)?;
    for number in 1..LINKS_MAX {
        std::fs::hard_link(&file, names.join(number.to_string()))?;
    }
    let before = std::fs::metadata(&names)?;
    let refused = std::fs::hard_link(&file, names.join("more")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EMLINK), "{refused}");
    let check = || -> Result<()> {
        assert_eq!(std::fs::metadata(&file)?.nlink(), LINKS_MAX);
        assert!(!names.join("more").exists());
        assert_eq!(std::fs::metadata(&names)?.modified()?, before.modified()?);
        assert_eq!(std::fs::read_dir(&names)?.count() as u64, LINKS_MAX - 1);
        Ok(())
    };
    check()?;
    mount.umount()?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    check()?;
    // One that goes makes room for one.
    std::fs::remove_file(names.join("1"))?;
    std::fs::hard_link(&file, names.join("more"))?;
    assert_eq!(std::fs::metadata(&file)?.nlink(), LINKS_MAX);
    mount.umount()
}
