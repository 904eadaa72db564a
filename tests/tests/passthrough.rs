//! Files of plain volumes that the kernel reads and writes itself: that it does, and that nothing is lost on the way to the
//! network, whoever writes and whenever the daemon dies.

use anyhow::{Context, Result, ensure};
use cessfs_tests::process::drop_kernel_caches;
use cessfs_tests::{InitOptions, Mount, Network, Volume, can_mount, tree};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// A network, a plain volume, and where to mount it.
struct Scene {
    volume: Volume,
    at: PathBuf,
    _network: Network,
    /// Last, so that it goes last: the network is taken down through its socket in here.
    _dir: tempfile::TempDir,
}

impl Scene {
    /// `None` where no test can mount.
    fn set() -> Result<Option<Scene>> {
        if !can_mount() {
            return Ok(None);
        }
        let dir = tempfile::tempdir()?;
        let network = Network::up(&dir.path().join("net"), 12)?;
        let options = InitOptions {
            at_rest: "plain",
            gib: 2,
            ..InitOptions::default()
        };
        let volume = Volume::init(&dir.path().join("volume"), &network.ws, &options)?;
        Ok(Some(Scene {
            volume,
            at: dir.path().join("mnt"),
            _network: network,
            _dir: dir,
        }))
    }

    fn mount(&self, passthrough: &str) -> Result<Mount> {
        let option = format!("passthrough={passthrough}");
        self.volume.mount_with(&self.at, &[&option])
    }

    /// Fetches a file, and waits until its place in the cache is durable: until then it is not handed out.
    fn make_resident(&self, path: &Path) -> Result<()> {
        ensure!(!fs::read(path)?.is_empty());
        self.volume.sync(PATIENCE)
    }

    /// Everything goes to the network and out of every cache, and comes back as it was.
    fn there_and_back(&self) -> Result<()> {
        let before = tree::manifest(&self.at)?;
        self.volume.sync(PATIENCE)?;
        self.volume.evict()?;
        drop_kernel_caches()?;
        assert_eq!(
            tree::differences(&before, &tree::manifest(&self.at)?),
            Vec::<String>::new(),
            "from the network"
        );
        Ok(())
    }
}

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).with_context(|| path.display().to_string())
}

/// Bytes that the daemon has read and written so far, requests of the kernel and their answers included.
fn traffic(mount: &Mount) -> Result<u64> {
    let io = fs::read_to_string(format!("/proc/{}/io", mount.pid))?;
    let field = |name: &str| -> Result<u64> {
        let line = io.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.context("no such line")?.trim().parse()?)
    };
    Ok(field("rchar:")? + field("wchar:")?)
}

/// What goes through the daemon when a large file is written, and when it is read again.
fn traffic_of_a_large_file(mount: &Mount) -> Result<(u64, u64)> {
    let path = mount.path().join("large");
    let content = tree::noise(1, 24 * MIB);
    let start = traffic(mount)?;
    let file = open(&path)?;
    file.write_all_at(&content, 0)?;
    file.sync_all()?;
    let written = traffic(mount)? - start;
    drop_kernel_caches()?;
    let start = traffic(mount)?;
    let mut found = vec![0; content.len()];
    file.read_exact_at(&mut found, 0)?;
    let read = traffic(mount)? - start;
    ensure!(found == content, "read as it was written");
    drop(file);
    fs::remove_file(path)?;
    Ok((written, read))
}

#[test]
fn the_daemon_sees_no_byte_of_what_is_written_and_read() -> Result<()> {
    let Some(scene) = Scene::set()? else { return Ok(()) };
    let size = 24 * MIB as u64;
    let mount = scene.mount("auto")?;
    let (written, read) = traffic_of_a_large_file(&mount)?;
    ensure!(written < size / 8, "{written} bytes went through the daemon");
    ensure!(read < size / 8, "{read} bytes went through the daemon");
    mount.umount()?;
    // That it is measured rightly.
    let mount = scene.mount("off")?;
    let (written, read) = traffic_of_a_large_file(&mount)?;
    ensure!(read >= size, "only {read} bytes went through the daemon");
    ensure!(written >= size, "only {written} bytes went through the daemon");
    mount.umount()
}

#[test]
fn what_the_kernel_wrote_reaches_the_network_while_it_is_open_and_after() -> Result<()> {
    let Some(scene) = Scene::set()? else { return Ok(()) };
    let mount = scene.mount("auto")?;
    let path = mount.path().join("file");
    let file = open(&path)?;
    let mut expected = tree::noise(2, 5 * MIB + 1234);
    file.write_all_at(&expected, 0)?;
    // Open all the while: looked at, sent, and not evicted under whoever reads it.
    scene.there_and_back()?;
    let patch = tree::noise(3, 5000);
    file.write_all_at(&patch, 3 * MIB as u64 - 1000)?;
    expected[3 * MIB - 1000..3 * MIB + 4000].copy_from_slice(&patch);
    scene.there_and_back()?;
    assert_eq!(file.metadata()?.size(), expected.len() as u64);
    drop(file);
    fs::write(mount.path().join("small"), "a record")?;
    scene.there_and_back()?;
    ensure!(fs::read(&path)? == expected, "after its close");
    let explained = scene.volume.explain(&mount.path().join("small"))?;
    assert_eq!(explained["inline"], true, "{explained}");
    // Resident again, it is handed out again, and a change of one byte is found by the hashes.
    scene.make_resident(&path)?;
    let file = open(&path)?;
    let start = traffic(&mount)?;
    file.write_all_at(b"!", 77)?;
    expected[77] = b'!';
    ensure!(traffic(&mount)? - start < 100_000, "it went through the daemon");
    drop(file);
    mount.umount()?;
    let mount = scene.mount("off")?;
    scene.there_and_back()?;
    ensure!(fs::read(&path)? == expected, "mounted again");
    mount.umount()
}

/// Bytes of a file in memory.
struct Mapping {
    at: *mut u8,
    len: usize,
}

impl Mapping {
    fn of(file: &File, len: usize) -> Result<Mapping> {
        let both = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the place, so nothing of this process is replaced.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, both, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        ensure!(at != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        Ok(Mapping { at: at.cast(), len })
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes are mapped for reading and writing as long as `self` lives, and this test alone stores there.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length, and nothing borrows from it any more.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

#[test]
fn a_mapping_outlives_its_file_and_everything_stored_there_is_kept() -> Result<()> {
    let Some(scene) = Scene::set()? else { return Ok(()) };
    let mount = scene.mount("auto")?;
    let path = mount.path().join("mapped");
    fs::write(&path, tree::noise(4, 3 * MIB))?;
    // Made by writing it as a whole, and looked at since.
    scene.volume.sync(PATIENCE)?;
    let mut mapping = Mapping::of(&open(&path)?, 3 * MIB)?;
    // The file is closed; the daemon was told so. What is mapped must not be evicted, and what is stored must be found.
    std::thread::sleep(Duration::from_millis(500));
    mapping.bytes()[2 * MIB..2 * MIB + 9].copy_from_slice(b"through a");
    scene.there_and_back()?;
    // A listing tells attributes, too, and is asked for anew once something was made there.
    File::create(mount.path().join("another"))?;
    for entry in fs::read_dir(mount.path())? {
        entry?.metadata()?;
    }
    let before = fs::metadata(&path)?.modified()?;
    std::thread::sleep(Duration::from_millis(20));
    mapping.bytes()[MIB - 4..MIB + 3].copy_from_slice(b"mapping");
    ensure!(fs::metadata(&path)?.modified()? > before, "stores move the time");
    let found = fs::read(&path)?;
    ensure!(found[MIB - 4..MIB + 3] == *b"mapping", "reads and mappings agree");
    ensure!(
        mapping.bytes()[..4096] == tree::noise(4, 3 * MIB)[..4096],
        "nothing was punched under it"
    );
    drop(mapping);
    scene.there_and_back()?;
    let found = fs::read(&path)?;
    ensure!(found[MIB - 4..MIB + 3] == *b"mapping" && found[2 * MIB..2 * MIB + 9] == *b"through a");
    mount.umount()
}

#[test]
fn killed_while_the_kernel_writes() -> Result<()> {
    let Some(scene) = Scene::set()? else { return Ok(()) };
    let mount = scene.mount("auto")?;
    let (old, new) = (mount.path().join("old"), mount.path().join("new"));
    let first = tree::noise(5, 4 * MIB);
    fs::write(&old, &first)?;
    scene.there_and_back()?;
    scene.make_resident(&old)?;
    let changed = open(&old)?;
    let patch = tree::noise(6, 10_000);
    changed.write_all_at(&patch, MIB as u64 + 100)?;
    changed.sync_data()?;
    let grown = open(&new)?;
    grown.write_all_at(&tree::noise(7, 2 * MIB), 0)?;
    grown.sync_all()?;
    File::open(mount.path())?.sync_all()?;
    // Not synced: may be lost in a power cut, but here the kernel lives.
    grown.write_all_at(b"later", 2 * MIB as u64)?;
    mount.kill()?;
    // The dead mount's files still reach the disk: neither side is told.
    changed.write_all_at(b"from beyond", 3 * MIB as u64)?;
    let mount = scene.mount("auto")?;
    let mut expected = first;
    expected[MIB + 100..MIB + 10_100].copy_from_slice(&patch);
    expected[3 * MIB..3 * MIB + 11].copy_from_slice(b"from beyond");
    ensure!(
        fs::read(&old)? == expected,
        "what was synced, and what was written since"
    );
    let mut longer = tree::noise(7, 2 * MIB);
    longer.extend(b"later");
    ensure!(fs::read(&new)? == longer, "a new file, and what was appended to it");
    changed.write_all_at(b"once more", 2 * MIB as u64)?;
    expected[2 * MIB..2 * MIB + 9].copy_from_slice(b"once more");
    scene.there_and_back()?;
    ensure!(fs::read(&old)? == expected, "what the dead mount's file wrote is found");
    drop((changed, grown));
    scene.there_and_back()?;
    mount.umount()?;
    // Nothing of it depends on who was open when.
    let mount = scene.mount("off")?;
    ensure!(
        fs::read(&old)? == expected && fs::read(&new)? == longer,
        "mounted again"
    );
    assert_eq!(scene.volume.status()?["errors"], serde_json::json!([]));
    mount.umount()
}

/// A small disk in a file of the directory; taken away when this goes.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where none can be made.
    fn mount(dir: &Path, mib: u64) -> Result<Option<SmallDisk>> {
        let (image, at) = (dir.join("disk.img"), dir.join("disk"));
        File::create(&image)?.set_len(mib << 20)?;
        fs::create_dir(&at)?;
        let ran = |program: &str, args: &[&std::ffi::OsStr]| {
            let output = Command::new(program).args(args).output();
            output.is_ok_and(|output| output.status.success())
        };
        let made = ran("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_ref()]);
        if !made || !ran("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), at.as_ref()]) {
            println!("SKIPPED: no small disk can be made here");
            return Ok(None);
        }
        Ok(Some(SmallDisk(at)))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Makes directories until one is refused; says why.
fn make_until_refused(at: &Path) -> Result<std::io::Error> {
    for round in 0..40 {
        for n in 0..500 {
            let name = format!("{round}-{n}-{}", "x".repeat(200));
            if let Err(e) = fs::create_dir(at.join(name)) {
                return Ok(e);
            }
        }
        // So long that the database is brought up to date.
        std::thread::sleep(Duration::from_secs(3));
    }
    anyhow::bail!("nothing was refused on a full disk")
}

/// The kernel writes on where the daemon leaves room for the journal.
#[test]
fn a_disk_that_the_kernel_filled_takes_the_deletion_that_makes_room() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let Some(disk) = SmallDisk::mount(dir.path(), 300)? else {
        return Ok(());
    };
    let options = InitOptions {
        at_rest: "plain",
        gib: 2,
        ..InitOptions::default()
    };
    let volume = Volume::init(&disk.0.join("volume"), &network.ws, &options)?;
    let at = dir.path().join("mnt");
    let mount = volume.mount_with(&at, &["passthrough=auto"])?;
    fs::write(at.join("early"), "kept")?;
    let fill = |name: &str| -> Result<()> {
        let mut file = File::create(at.join(name))?;
        let error = loop {
            if let Err(e) = file.write_all(&tree::noise(1, MIB)) {
                break e;
            }
        };
        ensure!(error.raw_os_error() == Some(libc::ENOSPC), "writing: {error}");
        Ok(())
    };
    fill("fill-wal")?;
    let refused = make_until_refused(&at)?;
    ensure!(refused.raw_os_error() == Some(libc::ENOSPC), "making: {refused}");
    mount.umount()?;

    let mount = volume.mount_with(&at, &["ro"])?;
    ensure!(fs::read_to_string(at.join("early"))? == "kept");
    mount.umount()?;
    let mut fsck = volume.cessfs()?;
    fsck.args(["fsck", &volume.name]);
    volume.add_secret(&mut fsck);
    cessfs_tests::process::succeed(&mut fsck)?;
    let mount = volume.mount_with(&at, &["passthrough=auto"])?;
    fs::remove_file(at.join("fill-wal"))?;
    let made = |n: u32| fs::create_dir(at.join(format!("again-{n}")));
    cessfs_tests::network::eventually("room", PATIENCE, || Ok(made(0).is_ok()))?;
    fs::write(at.join("late"), "kept")?;
    mount.umount()?;
    let mount = volume.mount(&at)?;
    for name in ["early", "late"] {
        ensure!(fs::read_to_string(at.join(name))? == "kept", "{name}");
    }
    mount.umount()
}
