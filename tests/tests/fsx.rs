//! fsx (from crates.io) on the mount: random operations on a file, each read compared with what was written. Several at
//! once, in both at-rest modes, while everything is again and again sent to the network and evicted.
//!
//! `CESSFS_FSX_SECS` says how long all of it may take (60 s unless told otherwise), `CESSFS_FSX_SEED` repeats a run.

use anyhow::{Context, Result, ensure};
use cessfs_tests::{InitOptions, Network, Volume, can_mount};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Every operation there is, of at least one byte: fsx takes the EINVAL of an empty `posix_fallocate` for a failure. Files of three chunks and a bit, so that chunk borders are crossed all the time.
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

/// fsx at work.
struct Fsx {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Fsx {
    fn start(program: &Path, name: &str, config: &str, seed: u64, artifacts: &Path, on: &Path) -> Result<Fsx> {
        let (config_file, log) = (
            artifacts.join(format!("{name}.toml")),
            artifacts.join(format!("{name}.log")),
        );
        fs::write(&config_file, config)?;
        let child = Command::new(program)
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
        Ok(Fsx { name, child, log })
    }

    /// Fails if it ended: it only does when it found something.
    fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
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
    println!("CESSFS_FSX_SEED={seed}");
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let modes = [
        ("sealed", "writeback"),
        ("plain", "writeback"),
        ("sealed", "none"),
        ("plain", "none"),
    ];
    for (at_rest, kernel_cache) in modes {
        let options = InitOptions {
            at_rest,
            gib: 8,
            ..InitOptions::default()
        };
        let name = format!("{at_rest}-{kernel_cache}");
        let volume = Volume::init(&dir.path().join(&name), &network.ws, &options)?;
        let cache = format!("kernel-cache={kernel_cache}");
        let mount = volume.mount_with(
            &dir.path().join("mnt"),
            &[&cache, "cache-size=64MiB", "writeback-delay=300ms"],
        )?;
        exercise(
            &program,
            &volume,
            mount.path(),
            dir.path(),
            seed,
            time / modes.len() as u32,
        )
        .with_context(|| format!("{name}, CESSFS_FSX_SEED={seed}"))?;
        mount.umount()?;
    }
    Ok(())
}

/// Runs three of them for `time`, beside somebody who evicts.
fn exercise(program: &Path, volume: &Volume, on: &Path, artifacts: &Path, seed: u64, time: Duration) -> Result<()> {
    let mut running = Vec::new();
    for (index, config) in [CONFIG, CONFIG, CONFIG_SMALL].into_iter().enumerate() {
        let name = format!("fsx{index}");
        running.push(Fsx::start(program, &name, config, seed + index as u64, artifacts, on)?);
    }
    let (end, done) = (Instant::now() + time, AtomicBool::new(false));
    let evicted = std::thread::scope(|scope| {
        let evictor = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                volume.sync(Duration::from_secs(120))?;
                volume.evict()?;
                rounds += 1;
            }
            Ok::<u32, anyhow::Error>(rounds)
        });
        let mut result = Ok(());
        while result.is_ok() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100));
            result = running.iter_mut().try_for_each(Fsx::check);
        }
        done.store(true, Ordering::Relaxed);
        let rounds = evictor.join().expect("the evicting thread does not panic")?;
        result.map(|()| rounds)
    })?;
    running.iter_mut().try_for_each(Fsx::check)?;
    println!("{evicted} evictions");
    ensure!(evicted > 0, "nothing was evicted");
    let errors = volume.status()?["errors"].clone();
    ensure!(errors.as_array().is_some_and(Vec::is_empty), "errors: {errors}");
    Ok(())
}
