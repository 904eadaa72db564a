//! fsx (from crates.io) on the mount: random operations on a file, each read compared with what was written. Several at
//! once, in every mode. Beside them somebody reads a file that the cache cannot hold, again and again, so that chunks leave
//! the cache for room all the time and are fetched again; and somebody sends everything to the network and evicts it.
//!
//! `CESSFS_FSX_SECS` says how long they are at it in each mode (60 s unless told otherwise); `CESSFS_FSX_OPS` how many operations there
//! are to be in each mode instead, however long that takes (`make nightly` asks for a million); `CESSFS_FSX_SEED` repeats a run;
//! `CESSFS_FSX_MODE` leaves out the modes whose name, as it is printed, does not begin like this.

use anyhow::{Context, Result, ensure};
use cessfs_tests::modes::Kind;
use cessfs_tests::{Network, Volume, can_mount};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Bound of the cache, the least there may be.
const CACHE_MIB: usize = 64;
/// Size of the file that is read beside them: it never fits.
const CROWD_MIB: usize = 72;
/// As much of it is written at once: what is not sent yet cannot leave the cache.
const CROWD_STEP_MIB: usize = 24;
/// How long sending something may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// Pause between two evictions of a long run: each sends a segment of 96 MiB.
const LONG_RUN_PAUSE: Duration = Duration::from_secs(10);
/// Pause between two passes over the file that does not fit, in a long run.
const LONG_RUN_READ_PAUSE: Duration = Duration::from_secs(2);
/// Evictions of a long run after which what nobody needs any more is collected.
const LONG_RUN_ROUNDS: u32 = 10;

/// Every operation there is, of at least one byte: fsx takes the EINVAL of an empty `posix_fallocate` for a failure. Files of
/// three chunks and a bit, so that chunk borders are crossed all the time.
const CONFIG: &str = "
flen = 3300000
[opsize]
max = 200000
min = 1
[weights]
close_open = 2
invalidate = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
truncate = 4
fsync = 1
fdatasync = 1
posix_fallocate = 3
punch_hole = 4
sendfile = 3
posix_fadvise = 1
copy_file_range = 5
";

/// Small files: from inline to outgrown and back.
const CONFIG_SMALL: &str = "
flen = 20000
[opsize]
max = 5000
min = 1
[weights]
close_open = 5
invalidate = 1
read = 10
write = 10
mapread = 5
mapwrite = 5
truncate = 10
fsync = 1
fdatasync = 1
posix_fallocate = 3
punch_hole = 5
sendfile = 3
posix_fadvise = 1
copy_file_range = 5
";

/// Bytes; no block size is larger.
const DIRECT_ALIGNMENT: usize = 4096;

/// When enough was done in a mode.
#[derive(Clone, Copy)]
enum Goal {
    Time(Duration),
    Operations(u64),
}

/// fsx at work.
struct Fsx {
    name: String,
    child: Child,
    log: PathBuf,
    done: bool,
}

impl Fsx {
    /// Without `operations` it goes on until it finds something.
    fn start(
        program: &Path,
        (name, config): (&str, &str),
        (seed, operations): (u64, Option<u64>),
        artifacts: &Path,
        on: &Path,
    ) -> Result<Fsx> {
        let (config_file, log) = (
            artifacts.join(format!("{name}.toml")),
            artifacts.join(format!("{name}.log")),
        );
        fs::write(&config_file, config)?;
        let mut fsx = Command::new(program);
        if let Some(operations) = operations {
            fsx.args(["-N", &operations.to_string()]);
        }
        let child = fsx
            .arg("-f")
            .arg(config_file)
            .args(["-S", &seed.to_string(), "-P"])
            .arg(artifacts)
            .arg(on.join(name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()
            .context("cannot run fsx")?;
        let name = name.to_string();
        let done = false;
        Ok(Fsx { name, child, log, done })
    }

    /// Fails if it found something; then it has ended.
    fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        self.done = true;
        if status.success() {
            return Ok(());
        }
        let said = fs::read_to_string(&self.log)?;
        let end: Vec<&str> = said.lines().rev().take(60).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        anyhow::bail!("fsx {} ended with {status}:\n{}", self.name, end.join("\n"));
    }
}

impl Drop for Fsx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn fsx_finds_nothing() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let Some(program) = cessfs_tests::process::installed("fsx") else {
        println!("SKIPPED: fsx is not installed (scripts/setup --test)");
        return Ok(());
    };
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = number("CESSFS_FSX_SEED").unwrap_or(since_epoch.subsec_nanos().into());
    let time = Duration::from_secs(number("CESSFS_FSX_SECS").unwrap_or(60));
    let operations = number("CESSFS_FSX_OPS");
    let chosen = std::env::var("CESSFS_FSX_MODE").unwrap_or_default();
    println!("CESSFS_FSX_SEED={seed}");
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let mut exercised = 0;
    for kind in Kind::ALL {
        let volume = kind.init(dir.path(), &network.ws, 64)?;
        for mode in kind.kernel_modes() {
            let name = format!("{} {}", kind.name(), mode.join(","));
            if !name.starts_with(&chosen) {
                continue;
            }
            println!("{name}");
            let bound = format!("cache-size={CACHE_MIB}MiB");
            let tight: &[&str] = &[&bound, "writeback-delay=300ms"];
            let mount = volume.mount_with(&dir.path().join("mnt"), &[mode, tight].concat())?;
            let goal = match operations {
                Some(operations) => Goal::Operations(operations),
                None => Goal::Time(time),
            };
            exercise(&program, &volume, mount.path(), dir.path(), seed, goal)
                .with_context(|| format!("{name}, CESSFS_FSX_SEED={seed}"))?;
            mount.umount()?;
            exercised += 1;
        }
    }
    ensure!(exercised > 0, "no mode begins with {chosen:?}");
    Ok(())
}

/// A file larger than the cache, on the network.
struct Crowd {
    path: PathBuf,
    content: Vec<u8>,
}

impl Crowd {
    fn make(volume: &Volume, on: &Path) -> Result<Crowd> {
        let crowd = Crowd {
            path: on.join("crowd"),
            content: cessfs_tests::tree::noise(1, CROWD_MIB << 20),
        };
        if crowd.path.exists() {
            return Ok(crowd);
        }
        for part in crowd.content.chunks(CROWD_STEP_MIB << 20) {
            fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(&crowd.path)?
                .write_all(part)?;
            volume.sync(PATIENCE)?;
        }
        Ok(crowd)
    }

    /// Reads all of it, past the kernel's cache, and compares.
    fn read(&self) -> Result<()> {
        let mut file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(&self.path)?;
        // Where the kernel reads the backing file itself, memory has to be aligned as the disk's filesystem wants it.
        let mut room = vec![0; (1 << 20) + DIRECT_ALIGNMENT];
        let start = room.as_ptr().align_offset(DIRECT_ALIGNMENT);
        let piece = &mut room[start..start + (1 << 20)];
        for expected in self.content.chunks(piece.len()) {
            file.read_exact(piece)?;
            ensure!(*piece == *expected, "a chunk that left the cache came back as another");
        }
        Ok(())
    }
}

/// Runs several of them until the goal is reached, beside somebody who reads more than fits and somebody who evicts.
fn exercise(program: &Path, volume: &Volume, on: &Path, artifacts: &Path, seed: u64, goal: Goal) -> Result<()> {
    let crowd = Crowd::make(volume, on)?;
    let configs = [CONFIG, CONFIG, CONFIG_SMALL];
    let mut running = Vec::new();
    for (index, config) in configs.into_iter().enumerate() {
        let name = format!("fsx{index}");
        let each = match goal {
            Goal::Operations(all) => Some(all.div_ceil(configs.len() as u64)),
            Goal::Time(_) => None,
        };
        let seed = (seed + index as u64, each);
        running.push(Fsx::start(program, (&name, config), seed, artifacts, on)?);
    }
    let (start, done) = (Instant::now(), AtomicBool::new(false));
    let reached = |running: &[Fsx]| match goal {
        Goal::Time(time) => start.elapsed() >= time,
        Goal::Operations(_) => running.iter().all(|fsx| fsx.done),
    };
    let (evicted, read) = std::thread::scope(|scope| {
        let evictor = scope.spawn(|| {
            let mut round = 0;
            at_least_once(&done, || {
                volume.sync(PATIENCE)?;
                volume.evict()?;
                round += 1;
                if let Goal::Operations(_) = goal {
                    if round % LONG_RUN_ROUNDS == 0 {
                        volume.run(&["gc"])?;
                    }
                    std::thread::sleep(LONG_RUN_PAUSE);
                }
                Ok(())
            })
        });
        let reader = scope.spawn(|| {
            at_least_once(&done, || {
                crowd.read()?;
                if let Goal::Operations(_) = goal {
                    std::thread::sleep(LONG_RUN_READ_PAUSE);
                }
                Ok(())
            })
        });
        let mut result = Ok(());
        while result.is_ok() && !reached(&running) {
            std::thread::sleep(Duration::from_millis(100));
            result = running.iter_mut().try_for_each(Fsx::check);
        }
        done.store(true, Ordering::Relaxed);
        let evicted = evictor.join().expect("the evicting thread does not panic")?;
        let read = reader.join().expect("the reading thread does not panic")?;
        result.map(|()| (evicted, read))
    })?;
    running.iter_mut().try_for_each(Fsx::check)?;
    let took = start.elapsed().as_secs();
    println!("{took} s; {evicted} evictions beside those for room, {read} times read what does not fit");
    let status = volume.status()?;
    let errors = &status["errors"];
    ensure!(errors.as_array().is_some_and(Vec::is_empty), "errors: {errors}");
    Ok(())
}

/// Does something again and again until it is time to end; how often.
fn at_least_once(done: &AtomicBool, mut work: impl FnMut() -> Result<()>) -> Result<u32> {
    let mut rounds = 0;
    while rounds == 0 || !done.load(Ordering::Relaxed) {
        work()?;
        rounds += 1;
    }
    Ok(rounds)
}
