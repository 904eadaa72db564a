//! The demo behind `make run` and `make demo`: a person mounts a volume, copies a real tree in, it reaches twelve miners
//! and the chain; then eight of the twelve vanish, the cache is emptied, and every byte comes back.
//!
//! With a terminal it stays mounted until Ctrl-C. Without one, or with `--once`, it cleans up and ends: 0 if nothing
//! differed.

use anyhow::{Context, Result, ensure};
use cessfs_tests::process::{binary, command, drop_kernel_caches};
use cessfs_tests::volume::miners_of;
use cessfs_tests::{InitOptions, Mount, Network, Opener, Volume, can_mount, tree};
use indicatif::HumanBytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MINERS: usize = 16;
const BIG_FILE_MIB: usize = 200;
const SMALL_FILES: usize = 2000;
const SYNC_PATIENCE: Duration = Duration::from_secs(600);

/// Set by Ctrl-C or SIGTERM; looked at between steps.
static STOP: AtomicBool = AtomicBool::new(false);

const USAGE: &str = "usage: cessfs-demo [--once]   (--once: clean up and end by itself; so without a terminal)";

/// Whether it is to end by itself.
fn is_once() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => !std::io::stdout().is_terminal(),
        ["--once"] => true,
        ["--help" | "-h"] => {
            println!("{USAGE}");
            std::process::exit(0)
        }
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2)
        }
    }
}

fn main() -> Result<()> {
    let once = is_once();
    ensure!(
        can_mount(),
        "the demo mounts a filesystem: run it as root on a machine with /dev/fuse"
    );
    watch_signals()?;
    let state = state_dir()?;
    let network = step("starting a CESS network of 16 miners on this machine", || {
        Network::up(&state.join("net"), MINERS)
    })?;
    println!("    chain  {}", network.ws);
    let volume = step("creating a volume: keys, account, 16 GiB of territory", || {
        let options = InitOptions {
            opened_by: Opener::Passphrase,
            ..InitOptions::default()
        };
        Volume::init(&state.join("volume"), &network.ws, &options)
    })?;
    let mount = step("mounting it", || volume.mount(&state.join("mnt")))?;
    println!("    mount  {}", mount.path().display());
    let summary = tell(&network, &volume, &mount)?;
    println!("{summary}");
    if !once {
        stay(&volume, &mount)?;
    }
    step("unmounting and stopping the network", || {
        mount.umount()?;
        drop(network);
        Ok(std::fs::remove_dir_all(&state)?)
    })
}

/// Everything between mounting and the summary.
fn tell(network: &Network, volume: &Volume, mount: &Mount) -> Result<String> {
    let started = Instant::now();
    step(
        "copying a tree in: these sources, 2,000 small files, one file of 200 MiB",
        || copy_in(mount.path()),
    )?;
    let written = Instant::now();
    let expected = step("hashing what was written", || tree::manifest(mount.path()))?;
    let bytes = tree_bytes(mount.path(), &expected)?;
    println!("    wrote  {} files, {}", expected.len(), HumanBytes(bytes));
    println!("==> waiting until the network holds all of it");
    sync_visibly(volume)?;
    let uploaded = Instant::now();

    let sample = mount.path().join("big.bin");
    println!("==> where does {} lie?", sample.display());
    let mut explain = volume.cessfs()?;
    let status = explain.arg("explain").arg(&sample).status()?;
    ensure!(status.success(), "explain failed");

    let survivors = survivors(network, volume, mount.path(), &expected)?;
    let lost: Vec<usize> = (0..MINERS).filter(|index| !survivors.contains(index)).collect();
    step(
        &format!(
            "stopping {} miners ({lost:?}): every pack keeps only four of its twelve",
            lost.len()
        ),
        || network.miner("stop", &lost),
    )?;
    step(
        "dropping the cache: what is over 4 KiB is no longer on this machine",
        || {
            volume.evict()?;
            drop_kernel_caches()
        },
    )?;
    let reading = Instant::now();
    let found = step("reading everything back through the mount", || {
        tree::manifest(mount.path())
    })?;
    let differences = tree::differences(&expected, &found);
    ensure!(
        differences.is_empty(),
        "what came back differs:\n{}",
        differences.join("\n")
    );
    let status = volume.status()?;
    Ok(format!(
        "\n  {} files, {} came back, byte for byte.\n\
         \x20 written  in {:>6.1} s   (at the speed of the disk)\n\
         \x20 uploaded in {:>6.1} s   ({} packs, each in 12 columns on 12 miners)\n\
         \x20 read     in {:>6.1} s   (with {} of {} miners gone, from an empty cache)\n\
         \x20 account  {}\n\
         \x20 mounted  {}\n",
        expected.len(),
        HumanBytes(bytes),
        (written - started).as_secs_f64(),
        (uploaded - written).as_secs_f64(),
        status["packs"]
            .as_object()
            .map_or(0, |packs| packs.values().filter_map(|n| n.as_u64()).sum()),
        reading.elapsed().as_secs_f64(),
        lost.len(),
        MINERS,
        status["account"].as_str().unwrap_or("?"),
        mount.path().display(),
    ))
}

/// This repository's sources, many small files and one big one.
fn copy_in(at: &Path) -> Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("tests/ has a parent")?;
    std::fs::create_dir(at.join("sources"))?;
    for entry in std::fs::read_dir(repository)? {
        let path = entry?.path();
        let name = path.file_name().context("an entry has a name")?;
        if name != "target" && name != ".git" {
            tree::copy(&path, &at.join("sources").join(name))?;
        }
    }
    tree::write_many(&at.join("many"), SMALL_FILES)?;
    tree::write_noise(&at.join("big.bin"), 1, BIG_FILE_MIB)
}

fn tree_bytes(at: &Path, manifest: &tree::Manifest) -> Result<u64> {
    let sizes = manifest
        .keys()
        .map(|path| Ok(at.join(path).symlink_metadata()?))
        .collect::<Result<Vec<_>>>()?;
    Ok(sizes
        .iter()
        .filter(|metadata| metadata.is_file())
        .map(std::fs::Metadata::len)
        .sum())
}

/// `cessfs sync --wait` with its own progress bar.
fn sync_visibly(volume: &Volume) -> Result<()> {
    let mut sync = volume.cessfs()?;
    sync.args([
        "sync",
        &volume.name,
        "--wait",
        "--timeout",
        &SYNC_PATIENCE.as_secs().to_string(),
    ]);
    let status = sync.status()?;
    ensure!(
        status.success(),
        "the network did not take everything: {}",
        volume.status()?
    );
    check_stop()
}

/// As few miners as possible that still leave four of every pack's twelve.
fn survivors(network: &Network, volume: &Volume, at: &Path, manifest: &tree::Manifest) -> Result<BTreeSet<usize>> {
    let mut packs: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    // A pack is known by the files in it; the big file and a few of the small ones meet them all.
    let sample = manifest
        .keys()
        .filter(|path| path.ends_with("big.bin") || path.extension().is_some_and(|e| e == "lock"));
    for path in sample {
        let explained = volume.explain(&at.join(path))?;
        for chunk in explained["chunks"].as_array().into_iter().flatten() {
            let holders = network.indexes(&miners_of(chunk))?;
            if !holders.is_empty() {
                packs.insert(chunk["pack"]["fid"].to_string(), holders.into_iter().collect());
            }
        }
    }
    let holders: Vec<&BTreeSet<usize>> = packs.values().collect();
    ensure!(
        !holders.is_empty() && holders.iter().all(|pack| pack.len() == 12),
        "a pack lies on 12 distinct miners"
    );
    // Few enough packs and miners to try every set, smallest first.
    let sets = (0u32..1 << MINERS).map(|bits| (0..MINERS).filter(|i| bits >> i & 1 == 1).collect::<BTreeSet<usize>>());
    let enough = sets.filter(|set| holders.iter().all(|pack| pack.intersection(set).count() >= 4));
    enough
        .min_by_key(BTreeSet::len)
        .context("all sixteen are always enough")
}

/// Stays mounted until Ctrl-C, with the miners back.
fn stay(volume: &Volume, mount: &Mount) -> Result<()> {
    println!("  It is still mounted. In another terminal:");
    println!("    ls -l {}", mount.path().display());
    println!(
        "    {} --home {} status {}",
        binary("cessfs")?.display(),
        volume.home().display(),
        volume.name
    );
    println!("  Ctrl-C unmounts and cleans up.");
    while !STOP.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(100));
    }
    // What comes now is what was asked for.
    STOP.store(false, Ordering::SeqCst);
    Ok(())
}

/// An empty directory for this run; what an earlier run that was killed left behind is taken down first.
fn state_dir() -> Result<PathBuf> {
    let dir = binary("cessfs-demo")?
        .parent()
        .context("a binary has a directory")?
        .join("demo");
    if dir.exists() {
        // Neither may be there any more; what matters is that the directory can be emptied.
        let _ = nix::mount::umount2(&dir.join("mnt"), nix::mount::MntFlags::MNT_DETACH);
        let _ = command("cessfs-devnet")?
            .args(["down", "--dir"])
            .arg(dir.join("net"))
            .output();
        std::fs::remove_dir_all(&dir).with_context(|| format!("clear {}", dir.display()))?;
    }
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Says what is being done, does it, says how long it took.
fn step<T>(what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    check_stop()?;
    println!("==> {what}");
    let started = Instant::now();
    let done = act()?;
    println!("    done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(done)
}

fn check_stop() -> Result<()> {
    ensure!(!STOP.load(Ordering::SeqCst), "stopped on request");
    Ok(())
}

/// Lets Ctrl-C and SIGTERM end the demo between steps, so that it cleans up.
fn watch_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => interrupted?,
                _ = terminate.recv() => {}
            }
            STOP.store(true, Ordering::SeqCst);
            anyhow::Ok(())
        })
    });
    Ok(())
}
