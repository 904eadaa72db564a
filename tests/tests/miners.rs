//! Miners that corrupt, forget, stall or vanish: reads stay right, uploads find other miners.

use anyhow::{Context, Result};
use cessfs_tests::network::eventually;
use cessfs_tests::process::drop_kernel_caches;
use cessfs_tests::volume::miners_of;
use cessfs_tests::{InitOptions, Network, Volume, can_mount, tree};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn reads_stay_right_while_miners_corrupt_forget_and_stall() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 14)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    tree::write_noise(&mount.path().join("file"), 9, 24)?;
    let expected = tree::manifest(mount.path())?;
    volume.sync(PATIENCE)?;

    let explained = volume.explain(&mount.path().join("file"))?;
    let holders = network.indexes(&miners_of(&explained["chunks"][0]))?;
    assert_eq!(holders.len(), 12);
    network.miner("corrupt", &holders[0..3])?;
    network.miner("forget", &holders[3..6])?;
    let slow: Vec<String> = holders[6..8].iter().map(usize::to_string).collect();
    let mut arguments = vec!["miner", "slow", "--ms", "4000"];
    arguments.extend(slow.iter().map(String::as_str));
    network.run(&arguments)?;

    volume.evict()?;
    drop_kernel_caches()?;
    assert_eq!(
        tree::differences(&expected, &tree::manifest(mount.path())?),
        Vec::<String>::new()
    );
    mount.umount()
}

#[test]
fn with_fewer_than_four_good_miners_a_read_fails_and_says_so() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    let file = mount.path().join("file");
    tree::write_noise(&file, 10, 2)?;
    tree::write_noise(&mount.path().join("other"), 11, 2)?;
    let expected = tree::manifest(mount.path())?;
    volume.sync(PATIENCE)?;
    // A miner with a data column can give what lies in it alone; so those go first.
    let mut columns = volume.explain(&mount.path().join("file"))?["chunks"][0]["pack"]["miners"].clone();
    let columns = columns.as_array_mut().context("explain names the miners")?;
    columns.sort_by_key(|miner| miner["column"].as_u64());
    let accounts: Vec<String> = columns
        .iter()
        .filter_map(|miner| miner["account"].as_str().map(String::from))
        .collect();
    let holders = network.indexes(&accounts)?;
    volume.evict()?;
    drop_kernel_caches()?;
    network.miner("stop", &holders[..9])?;
    let read = std::fs::read(&file).map(|bytes| bytes.len());
    let error = read.expect_err("three miners with parity cannot give a file");
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    changes_that_need_what_is_absent_fail(mount.path())?;
    // It, and nothing else, is named.
    let status = volume.status()?;
    let errors: Vec<&str> = status["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|e| e.as_str())
        .collect();
    let named = format!("inode {} ", std::fs::metadata(&file)?.ino());
    assert!(
        !errors.is_empty() && errors.iter().all(|error| error.starts_with(&named)),
        "status names what could not be read, {named}: {errors:?}"
    );

    network.miner("start", &holders[4..5])?;
    assert_eq!(
        tree::differences(&expected, &tree::manifest(mount.path())?),
        Vec::<String>::new(),
        "four miners are enough"
    );
    mount.umount()
}

/// A process that does not run until this goes.
struct Halted(Pid);

impl Halted {
    fn network(network: &Network) -> Result<Halted> {
        let pid = network.status()?["pid"].as_i64().context("status names the process")?;
        let pid = Pid::from_raw(i32::try_from(pid)?);
        kill(pid, Signal::SIGSTOP)?;
        Ok(Halted(pid))
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGCONT).expect("it was halted a moment ago");
    }
}

/// The kernel has so many readaheads and writes of its pages on their way, and no more: those that wait for a network that does not
/// answer must not keep others from the disk.
#[test]
fn whoever_writes_does_not_wait_for_readers_that_wait_for_the_network() -> Result<()> {
    // More readaheads than may go on once they were refused, and the kernel's places besides.
    const READERS: u64 = 48;
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    for i in 0..READERS {
        tree::write_noise(&mount.path().join(format!("{i}")), i, 2)?;
    }
    let expected = tree::manifest(mount.path())?;
    volume.sync(PATIENCE)?;
    volume.evict()?;
    drop_kernel_caches()?;
    let halted = Halted::network(&network)?;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|i| {
                let path = mount.path().join(format!("{i}"));
                scope.spawn(move || std::fs::read(path).map(|bytes| bytes.len()))
            })
            .collect();
        std::thread::sleep(Duration::from_secs(2));
        assert!(readers.iter().all(|reader| !reader.is_finished()), "nobody waits");
        let path = mount.path().join("written meanwhile");
        let (done, written) = std::sync::mpsc::channel();
        scope.spawn(move || done.send(std::fs::write(&path, b"not for the network to hold up")));
        let written = written.recv_timeout(Duration::from_secs(20));
        drop(halted);
        written.context("a write to the disk waits for the network")??;
        for reader in readers {
            assert_eq!(reader.join().expect("no panic")?, 2 << 20);
        }
        anyhow::Ok(())
    })?;
    std::fs::remove_file(mount.path().join("written meanwhile"))?;
    let found = tree::manifest(mount.path())?;
    assert_eq!(tree::differences(&expected, &found), Vec::<String>::new());
    mount.umount()
}

/// The daemon looks once a second, and the kernel asks once more for what was refused for a second.
#[test]
fn who_waits_for_the_network_can_be_killed() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    for name in ["buffered", "direct", "mapped", "terminated"] {
        tree::write_noise(&mount.path().join(name), 3, 2)?;
    }
    let expected = tree::manifest(mount.path())?;
    volume.sync(PATIENCE)?;
    volume.evict()?;
    drop_kernel_caches()?;
    let halted = Halted::network(&network)?;
    for (name, signal, program) in [
        ("buffered", Signal::SIGKILL, "open(sys.argv[1], 'rb').read()"),
        (
            "direct",
            Signal::SIGKILL,
            "os.preadv(os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT), [mmap.mmap(-1, 1 << 20)], 0)",
        ),
        (
            "mapped",
            Signal::SIGKILL,
            "mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 0, prot=mmap.PROT_READ)[0]",
        ),
        ("terminated", Signal::SIGTERM, "open(sys.argv[1], 'rb').read()"),
    ] {
        let mut reader = std::process::Command::new("python3")
            .args(["-c", &format!("import mmap, os, sys; {program}")])
            .arg(mount.path().join(name))
            .spawn()?;
        std::thread::sleep(Duration::from_millis(2500));
        assert!(reader.try_wait()?.is_none(), "{name}: it waits");
        kill(Pid::from_raw(i32::try_from(reader.id())?), signal)?;
        eventually(&format!("the end of {name}"), Duration::from_secs(3), || {
            Ok(reader.try_wait()?.is_some())
        })?;
    }
    drop(halted);
    let found = tree::manifest(mount.path())?;
    assert_eq!(tree::differences(&expected, &found), Vec::<String>::new());
    mount.umount()
}

/// A seek for holes makes the kernel write what it has, and the kernel lets nobody write to the file meanwhile.
#[test]
fn a_seek_beside_a_reader_that_waits_holds_up_no_writer_and_hides_nothing() -> Result<()> {
    const CHUNK: u64 = 1 << 20;
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    let path = mount.path().join("file");
    tree::write_noise(&path, 4, 8)?;
    for last in [false, true] {
        volume.sync(PATIENCE)?;
        volume.evict()?;
        drop_kernel_caches()?;
        let file = File::options().read(true).write(true).open(&path)?;
        let size = file.metadata()?.len();
        let waited_for = if last { size - 1 } else { 3 * CHUNK };
        let halted = Halted::network(&network)?;
        std::thread::scope(|scope| {
            let read = || File::open(&path)?.read_at(&mut [0], waited_for);
            let reader = scope.spawn(read);
            std::thread::sleep(Duration::from_millis(2500));
            assert!(!reader.is_finished(), "it waits");
            let appended = size.next_multiple_of(CHUNK) + CHUNK;
            file.write_all_at(&[7; 8192], appended)?;
            let (done, ended) = std::sync::mpsc::channel();
            let seeker = File::open(&path)?;
            scope.spawn(move || {
                let whence = nix::unistd::Whence::SeekData;
                let found = nix::unistd::lseek(&seeker, i64::try_from(appended).expect("small"), whence);
                done.send(found)
            });
            let seeker = File::open(&path)?;
            let (done, written) = std::sync::mpsc::channel();
            let writer = &file;
            scope.spawn(move || {
                let hole = nix::unistd::lseek(&seeker, 0, nix::unistd::Whence::SeekHole);
                let wrote = writer.write_all_at(&[8; CHUNK as usize], CHUNK);
                done.send((hole, wrote))
            });
            let found = ended.recv_timeout(Duration::from_secs(8));
            let wrote = written.recv_timeout(Duration::from_secs(8));
            drop(halted);
            let at = i64::try_from(appended)?;
            assert_eq!(
                found.context("a seek waits for the network")?,
                Ok(at),
                "what was appended is no hole"
            );
            let (hole, wrote) = wrote.context("a seek and a write wait for the network")?;
            wrote?;
            assert!(hole? >= i64::try_from(size)?, "there is none before");
            assert_eq!(reader.join().expect("no panic")?, 1);
            anyhow::Ok(())
        })?;
    }
    mount.umount()
}

/// Blocks written into a file that is not here are written here, however many, and go to the network once it answers.
#[test]
fn whole_blocks_are_written_over_what_is_not_here() -> Result<()> {
    // More chunks than the kernel has places for writes.
    const CHUNKS: u64 = 80;
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    let path = mount.path().join("file");
    tree::write_noise(&path, 5, CHUNKS as usize)?;
    let mut expected = std::fs::read(&path)?;
    volume.sync(PATIENCE)?;
    volume.evict()?;
    drop_kernel_caches()?;
    let halted = Halted::network(&network)?;
    let began = Instant::now();
    let file = OpenOptions::new().write(true).open(&path)?;
    for chunk in 0..CHUNKS {
        let at = (chunk << 20) + 8192 + (chunk % 7) * 4096;
        let block = [chunk as u8 + 1; 4096];
        file.write_all_at(&block, at)?;
        expected[at as usize..at as usize + 4096].copy_from_slice(&block);
    }
    file.sync_all()?;
    let others = mount.path().join("written meanwhile");
    std::fs::write(&others, b"not for the network to hold up")?;
    let took = began.elapsed();
    let is_here = std::fs::read(&others)?;
    drop(halted);
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(is_here, b"not for the network to hold up");
    drop(file);
    volume.sync(PATIENCE)?;
    volume.evict()?;
    drop_kernel_caches()?;
    assert!(std::fs::read(&path)? == expected, "what came back differs");
    mount.umount()
}

/// A write of part of a block of `file` and a copy from the middle of it: EIO, and nothing half done.
fn changes_that_need_what_is_absent_fail(at: &Path) -> Result<()> {
    let open = || OpenOptions::new().write(true).open(at.join("file"));
    let before = open()?.metadata()?;
    let write = || -> std::io::Result<()> {
        let file = open()?;
        file.write_all_at(b"changed", 1000)?;
        file.sync_all()
    };
    let error = write().expect_err("the rest of the block is absent");
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    let (from, to) = (File::open(at.join("file"))?, File::create(at.join("copy"))?);
    let copied = nix::fcntl::copy_file_range(&from, Some(&mut 1000), &to, None, 100_000);
    assert_eq!(copied, Err(nix::errno::Errno::EIO));
    assert_eq!((to.metadata()?.len(), to.metadata()?.blocks()), (0, 0));
    std::fs::remove_file(at.join("copy"))?;
    let after = open()?.metadata()?;
    assert_eq!((after.len(), after.blocks()), (before.len(), before.blocks()));
    Ok(())
}

#[test]
fn an_upload_moves_away_from_a_miner_that_dies_under_it() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 16)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    tree::write_noise(&mount.path().join("file"), 11, 60)?;
    let mut sync = volume.cessfs()?;
    let mut sync = sync
        .args(["sync", &volume.name, "--wait", "--timeout", "180"])
        .spawn()?;
    eventually("a deal", PATIENCE, || Ok(network.events("UploadDeclaration")? > 0))?;
    network.miner("stop", &[0, 5, 9])?;
    assert!(sync.wait()?.success(), "sync --wait: {}", volume.status()?);
    assert_eq!(
        network.events("UploadDeclaration")?,
        network.events("StorageCompleted")?
    );
    mount.umount()
}

/// Miners that go for good just after they reported their columns: what is in the pack is sent again to others, and `sync --wait` ends
/// when that is safe.
#[test]
fn an_upload_whose_miners_go_before_it_is_read_back_is_sent_again() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    const TRIES: u64 = 5;
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 15)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    volume.configure(&[("read_back = \"15m\"", "read_back = \"5s\"")])?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    let doubted = |volume: &Volume| -> Result<bool> {
        let packs = volume.status()?["packs"].clone();
        Ok(packs["doubted"].as_u64().unwrap_or(0) + packs["draining"].as_u64().unwrap_or(0) > 0)
    };
    // Reading back begins when the chain's report is final, so there is a moment for this; not always long enough.
    let mut try_number = 0;
    loop {
        try_number += 1;
        tree::write_noise(&mount.path().join(format!("file-{try_number}")), try_number, 5)?;
        let stored = network.events("StorageCompleted")?;
        let mut sync = volume.cessfs()?;
        let mut sync = sync
            .args(["sync", &volume.name, "--wait", "--timeout", "180"])
            .spawn()?;
        eventually("twelve reports", PATIENCE, || {
            Ok(network.events("StorageCompleted")? > stored)
        })?;
        network.miner("stop", &[2, 7, 11])?;
        assert!(sync.wait()?.success(), "sync --wait: {}", volume.status()?);
        if doubted(&volume)? {
            break;
        }
        assert!(try_number < TRIES, "in {TRIES} tries every pack was read back at once");
        network.miner("start", &[2, 7, 11])?;
    }
    let expected = tree::manifest(mount.path())?;
    assert_eq!(volume.status()?["unsent_bytes"], 0);
    let file = mount.path().join(format!("file-{try_number}"));
    let holders = network.indexes(&miners_of(&volume.explain(&file)?["chunks"][0]))?;
    assert!(
        !holders.iter().any(|holder| [2, 7, 11].contains(holder)),
        "it went to others: {holders:?}"
    );
    // Eight more may go.
    volume.evict()?;
    drop_kernel_caches()?;
    network.miner("stop", &holders[..8])?;
    std::fs::read(&file)?;
    network.miner("start", &holders[..8])?;
    assert_eq!(
        tree::differences(&expected, &tree::manifest(mount.path())?),
        Vec::<String>::new()
    );
    mount.umount()
}
