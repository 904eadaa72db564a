//! `cessfs-scale`: how a mount does as the tree grows.
//!
//! For each store and each number of files: one directory of so many empty files through a real mount, and what each
//! operation on it costs. The network is stopped after `init`: packs are sealed as ever, and wait. `bench/scale` is the way
//! in. Ends with 1 when a demand of [`Demands`] is missed.
//!
//! `--keep DIR` leaves the volumes in DIR, as they are when their daemon is killed after the operations; what is there already
//! is only mounted again. So the machine can be given over to the mounts once the files are made.
//!
//! `--recover N,N` measures something else: how long so many files take to come back from the phrase alone.
//!
//! Operations are timed from one thread, so that a rate is a latency. What the kernel could answer alone is made to come
//! through: attributes are asked for with `AT_STATX_FORCE_SYNC`, names looked up after the kernel forgot them.

mod recovery;

use anyhow::{Context, Result, ensure};
use cessfs_tests::network::{Network, eventually};
use cessfs_tests::process::{command, drop_kernel_caches, succeed};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Operations per measurement at most: names are picked at random from the whole directory.
const SAMPLE: u64 = 50_000;
/// Files made just before the kill.
const LAST_FILES: u64 = 1000;

/// What a volume must do, at any size up to a million files.
struct Demands {
    rss_bytes: u64,
    mount_clean: Duration,
    mount_crashed: Duration,
    /// What the daemon may grow by while one directory is listed, however many entries it has.
    list_bytes: u64,
}

/// The store of new volumes: what it misses fails the run, what another misses is only told (docs/decisions/0005).
const DEFAULT_STORE: &str = "redb";

const DEMANDS: Demands = Demands {
    list_bytes: 32 << 20,
    rss_bytes: 600 << 20,
    mount_clean: Duration::from_secs(2),
    mount_crashed: Duration::from_secs(10),
};

/// One column of the table.
#[derive(Default)]
struct Column {
    name: String,
    rows: Vec<(&'static str, String)>,
    missed: Vec<String>,
}

impl Column {
    fn row(&mut self, what: &'static str, value: String) {
        eprintln!("  {what}: {value}");
        self.rows.push((what, value));
    }

    /// Operations per second.
    fn rate(&mut self, what: &'static str, count: u64, taken: Duration) {
        let rate = count as f64 / taken.as_secs_f64();
        self.row(what, format!("{rate:.0}/s"));
    }

    fn mount(&mut self, what: &'static str, taken: Duration, demand: Duration) {
        self.row(what, seconds(taken));
        if taken > demand {
            self.missed
                .push(format!("{}: {what} took {}", self.name, seconds(taken)));
        }
    }

    fn rss(&mut self, what: &'static str, bytes: u64) {
        self.row(what, mib(bytes));
        if bytes > DEMANDS.rss_bytes {
            self.missed.push(format!("{}: {what} is {}", self.name, mib(bytes)));
        }
    }
}

fn main() -> Result<()> {
    let mut stores = vec!["sled".to_owned(), "redb".to_owned()];
    let mut counts = vec![10_000, 100_000, 1_000_000];
    let mut at_rest = "sealed".to_owned();
    let mut keep = None;
    let mut recovered: Vec<u64> = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--stores" => stores = value.split(',').map(String::from).collect(),
            "--files" => counts = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--at-rest" => at_rest = value,
            "--recover" => recovered = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--keep" => keep = Some(PathBuf::from(value)),
            _ => {
                anyhow::bail!(
                    "usage: cessfs-scale [--stores sled,redb] [--files N,N] [--at-rest sealed|plain] [--keep DIR] | --recover N,N"
                )
            }
        }
    }
    ensure!(cessfs_tests::can_mount(), "this needs root and /dev/fuse");
    let mut columns = Vec::new();
    for count in &recovered {
        eprintln!("recovery of {count} files");
        columns.push(recovery::measure(*count)?);
    }
    for store in stores.iter().filter(|_| recovered.is_empty()) {
        for count in &counts {
            eprintln!("{store}, {count} files, {at_rest}");
            columns.push(measure(store, *count, &at_rest, keep.as_deref())?);
        }
    }
    print(&columns);
    let missed: Vec<&String> = columns.iter().flat_map(|column| &column.missed).collect();
    for miss in &missed {
        println!("MISSED: {miss}");
    }
    let fails = missed
        .iter()
        .any(|miss| miss.contains(DEFAULT_STORE) || !recovered.is_empty());
    std::process::exit(i32::from(fails));
}

fn print(columns: &[Column]) {
    let line = |cells: Vec<&str>| println!("| {} |", cells.join(" | "));
    line(
        std::iter::once("")
            .chain(columns.iter().map(|column| &*column.name))
            .collect(),
    );
    line(vec!["---"; columns.len() + 1]);
    let Some(first) = columns.first() else { return };
    for (i, (what, _)) in first.rows.iter().enumerate() {
        line(
            std::iter::once(*what)
                .chain(columns.iter().map(|column| &*column.rows[i].1))
                .collect(),
        );
    }
}

/// A volume opened by a key file: a passphrase's slow hash is no part of what is measured.
struct Volume {
    home: PathBuf,
    key: PathBuf,
    at: PathBuf,
}

impl Volume {
    fn in_dir(dir: &Path) -> Volume {
        Volume {
            home: dir.join("home"),
            key: dir.join("key"),
            at: dir.join("mnt"),
        }
    }

    fn init(dir: &Path, ws: &str, store: &str, at_rest: &str) -> Result<Volume> {
        let volume = Volume::in_dir(dir);
        std::fs::create_dir_all(&volume.at)?;
        std::fs::write(&volume.key, [7; 32])?;
        let mut init = command("cessfs")?;
        init.arg("--home")
            .arg(&volume.home)
            .args(["init", "scale", "--rpc", ws, "--store", store]);
        init.args(["--at-rest", at_rest, "--gib", "16", "--days", "30"]);
        init.arg("--new-phrase-file")
            .arg(dir.join("phrase"))
            .arg("--key-file")
            .arg(&volume.key);
        succeed(&mut init)?;
        Ok(volume)
    }

    /// Mounts; how long until it answers, and the daemon.
    fn mount(&self) -> Result<(Duration, Pid)> {
        let mut mount = command("cessfs")?;
        mount
            .arg("--home")
            .arg(&self.home)
            .args(["mount", "scale"])
            .arg(&self.at);
        mount.args(["-o", &format!("key-file={}", self.key.display())]);
        let start = Instant::now();
        succeed(&mut mount)?;
        let taken = start.elapsed();
        let pid = std::fs::read_to_string(self.home.join("volumes/scale/lock"))?;
        Ok((
            taken,
            Pid::from_raw(pid.trim().parse().context("the lock file has no pid")?),
        ))
    }

    fn umount(&self) -> Result<Duration> {
        let mut umount = command("cessfs")?;
        umount.arg("--home").arg(&self.home).arg("umount").arg(&self.at);
        let start = Instant::now();
        succeed(&mut umount)?;
        Ok(start.elapsed())
    }

    /// SIGKILL; the dead mount is detached.
    fn kill(&self, pid: Pid) -> Result<()> {
        kill(pid, Signal::SIGKILL)?;
        nix::mount::umount2(&self.at, nix::mount::MntFlags::MNT_DETACH)?;
        eventually("the killed daemon to be gone", Duration::from_secs(60), || {
            Ok(kill(pid, None).is_err())
        })
    }

    /// Bytes that the journal takes on the disk.
    fn journal_bytes(&self) -> Result<u64> {
        let mut pending = vec![self.home.join("volumes/scale/journal")];
        let mut bytes = 0;
        while let Some(dir) = pending.pop() {
            for entry in std::fs::read_dir(dir)? {
                let (path, metadata) = {
                    let e = entry?;
                    (e.path(), e.metadata()?)
                };
                bytes += metadata.blocks() * 512;
                if metadata.is_dir() {
                    pending.push(path);
                }
            }
        }
        Ok(bytes)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // After a failure the mount is still there; after a good end there is none.
        let _ = self.umount();
    }
}

fn measure(store: &str, count: u64, at_rest: &str, keep: Option<&Path>) -> Result<Column> {
    let mut column = Column {
        name: format!("{store} {count}"),
        ..Column::default()
    };
    let scratch = tempfile::Builder::new().prefix("cessfs-scale.").tempdir()?;
    let kept = keep.map(|keep| keep.join(format!("{store}-{count}-{at_rest}")));
    let dir = kept.as_deref().unwrap_or(scratch.path());
    let made_before = dir.join("home").exists();
    if !made_before {
        let network = Network::up(&scratch.path().join("net"), 16)?;
        let volume = Volume::init(dir, &network.ws, store, at_rest)?;
        network.stop()?;
        make(&volume, count, &mut column)?;
    }
    if made_before || keep.is_none() {
        mounts(&Volume::in_dir(dir), count, &mut column)?;
    }
    Ok(column)
}

/// Makes the files, in one mount that ends with a kill.
fn make(volume: &Volume, count: u64, column: &mut Column) -> Result<()> {
    let (_, pid) = volume.mount()?;
    let dir = volume.at.join("d");
    std::fs::create_dir(&dir)?;
    create(&dir, count, column)?;
    File::open(&dir)?.sync_all()?;
    column.row("resident set of the daemon", mib(rss_bytes(pid, "VmRSS")?));
    column.rss("highest resident set, files made", rss_bytes(pid, "VmHWM")?);
    column.row("journal on disk", mib(volume.journal_bytes()?));
    volume.kill(pid)
}

fn name(dir: &Path, i: u64) -> PathBuf {
    dir.join(format!("file-{i:07}"))
}

fn make_file(dir: &Path, i: u64) -> Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(name(dir, i))?;
    drop(file);
    Ok(())
}

/// What it costs to make a directory of `count` files.
fn create(dir: &Path, count: u64, column: &mut Column) -> Result<()> {
    let make = |i: u64| make_file(dir, i);
    let sample = count.min(SAMPLE);
    // The first and the last part apart: what growth costs shows in their difference.
    let start = Instant::now();
    (0..sample).try_for_each(make)?;
    let first = start.elapsed();
    (sample..count - sample.min(count - sample)).try_for_each(make)?;
    let start_last = Instant::now();
    (count - sample.min(count - sample)..count).try_for_each(make)?;
    let last = if count == sample { first } else { start_last.elapsed() };
    column.rate("create, the first of them", sample, first);
    column.rate("create, the last of them", sample, last);
    Ok(())
}

/// What each operation costs in such a directory, just mounted.
fn operations(dir: &Path, count: u64, pid: Pid, column: &mut Column) -> Result<()> {
    let name = |i: u64| name(dir, i);
    let sample = count.min(SAMPLE);
    let picked = picked(count, sample);
    let start = Instant::now();
    picked
        .iter()
        .try_for_each(|i| std::fs::symlink_metadata(name(*i)).map(drop))?;
    column.rate("lookup, nothing cached", sample, start.elapsed());
    let start = Instant::now();
    picked.iter().try_for_each(|i| stat_through(&name(*i)))?;
    column.rate("stat, kernel cache bypassed", sample, start.elapsed());

    drop_kernel_caches()?;
    let before = rss_bytes(pid, "VmRSS")?;
    let start = Instant::now();
    let listed = std::fs::read_dir(dir)?.count() as u64;
    column.rate("list, entries", count, start.elapsed());
    ensure!(listed == count, "{listed} of {count} entries were listed");
    let grown = rss_bytes(pid, "VmRSS")?.saturating_sub(before);
    column.row("list, growth of the daemon", mib(grown));
    if grown > DEMANDS.list_bytes {
        column
            .missed
            .push(format!("{}: a listing takes {}", column.name, mib(grown)));
    }

    let start = Instant::now();
    picked
        .iter()
        .try_for_each(|i| std::fs::rename(name(*i), dir.join(format!("moved-{i:07}"))))?;
    column.rate("rename", sample, start.elapsed());
    let start = Instant::now();
    picked
        .iter()
        .try_for_each(|i| std::fs::remove_file(dir.join(format!("moved-{i:07}"))))?;
    column.rate("unlink", sample, start.elapsed());
    // The directory is whole again for what follows.
    picked.iter().try_for_each(|i| make_file(dir, *i))
}

/// How long it takes to come back: after the kill that ended the making, after a clean end, and after a kill with little done;
/// and what operations cost in between.
fn mounts(volume: &Volume, count: u64, column: &mut Column) -> Result<()> {
    let dir = volume.at.join("d");
    let (crashed, _) = volume.mount()?;
    column.mount(
        "mount after kill -9, all made since the last",
        crashed,
        DEMANDS.mount_crashed,
    );
    column.row("umount", seconds(volume.umount()?));
    column.row("journal on disk, mounted again", mib(volume.journal_bytes()?));
    let (clean, pid) = volume.mount()?;
    column.mount("mount after a clean end", clean, DEMANDS.mount_clean);
    operations(&dir, count, pid, column)?;
    for i in 0..LAST_FILES {
        std::fs::write(dir.join(format!("last-{i}")), i.to_string())?;
    }
    File::open(&dir)?.sync_all()?;
    let mut peak = rss_bytes(pid, "VmHWM")?;
    volume.kill(pid)?;
    let (crashed, pid) = volume.mount()?;
    column.mount("mount after kill -9, little done", crashed, DEMANDS.mount_crashed);
    peak = peak.max(rss_bytes(pid, "VmHWM")?);
    volume.kill(pid)?;
    drop_kernel_caches()?;
    let (crashed, pid) = volume.mount()?;
    column.mount(
        "the same, nothing in the kernel's memory",
        crashed,
        DEMANDS.mount_crashed,
    );
    let listed = std::fs::read_dir(&dir)?.count() as u64;
    ensure!(
        listed == count + LAST_FILES,
        "after the kill {listed} entries are there, not {}",
        count + LAST_FILES
    );
    column.rss(
        "highest resident set, mounted again",
        peak.max(rss_bytes(pid, "VmHWM")?),
    );
    for i in 0..LAST_FILES {
        std::fs::remove_file(dir.join(format!("last-{i}")))?;
    }
    volume.umount().map(drop)
}

/// `sample` different numbers below `count`, in no order the disk could like.
fn picked(count: u64, sample: u64) -> Vec<u64> {
    // A stride without a common factor with any count of the form 2^a 5^b visits everything once.
    const STRIDE: u64 = 7_368_787;
    (0..sample).map(|i| i * STRIDE % count).collect()
}

/// Attributes, from the daemon whatever the kernel remembers.
fn stat_through(path: &Path) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = std::mem::MaybeUninit::<libc::statx>::uninit();
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_STATX_FORCE_SYNC;
    // SAFETY: the path ends with a NUL and lives through the call, and the kernel writes at most one `statx` to `found`.
    let result = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            libc::STATX_BASIC_STATS,
            found.as_mut_ptr(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// A field of `/proc/PID/status` in bytes.
fn rss_bytes(pid: Pid, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib: u64 = line
        .with_context(|| format!("no {field}"))?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kib * 1024)
}

fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

fn seconds(taken: Duration) -> String {
    format!("{:.2} s", taken.as_secs_f64())
}
