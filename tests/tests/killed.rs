//! kill -9 of the daemon again and again while real programs write: SQLite, git, rsync, fsx, and somebody who patches a file and
//! syncs it now and then. After every kill whatever was acknowledged is there, and the programs' own checks are clean; at the
//! end once more from the network, through an empty cache. On volumes of every kind, one after the other.
//!
//! `KILL_CYCLES=n` kills more often (`make soak`).

#[path = "killed/exerciser.rs"]
mod exerciser;

use anyhow::{Context, Result, ensure};
use cessfs_tests::{InitOptions, Mount, Network, Volume, can_mount, process, tree};
use exerciser::Exerciser;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(180);
/// Bytes of the file that is patched, and of the pieces that its history is kept in.
const PATCHED_BYTES: usize = 1 << 20;
const PIECE: usize = 512;

/// What each program had acknowledged is written down outside of the mount.
struct Programs {
    acks: PathBuf,
    source: PathBuf,
}

// Each is started in the mount, by whoever knows that it is there, and ends before the dead mount goes away: what it does after the
// daemon died fails, and does not land beneath, however late it gets the processor.

/// How SQLite commits, and how it syncs: a write-ahead log by an fsync; the others by removing a file, by truncating it, by writing over
/// its head. `EXTRA` syncs the directory too, unless it can no longer open it.
const SQLITE_MODES: [(&str, &str); 5] = [
    ("WAL", "FULL"),
    ("DELETE", "FULL"),
    ("DELETE", "EXTRA"),
    ("TRUNCATE", "FULL"),
    ("PERSIST", "FULL"),
];

/// Rows go in one transaction each; a number is noted once SQLite said that it is safe.
const SQLITE: &str = r#"
set -- "$MODE" "$SYNC"; db="data-$1-$2.db"; ack="$A/sqlite-$1-$2"
how="PRAGMA journal_mode=$1; PRAGMA synchronous=$2;"
sqlite3 "$db" "$how CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, x BLOB);" >/dev/null || exit 0
n=$(cat "$ack" 2>/dev/null || echo 0)
while :; do
  n=$((n + 1))
  sqlite3 "$db" "$how INSERT OR REPLACE INTO t VALUES ($n, randomblob(3000));" >/dev/null 2>&1 || exit 0
  echo $n >"$ack.new" && mv "$ack.new" "$ack"
done"#;

const GIT: &str = r#"
[ -d repo/.git ] || git init -q repo 2>/dev/null || exit 0
cd repo || exit 0
rm -f .git/index.lock .git/HEAD.lock .git/refs/heads/*.lock
g() { git -c core.fsync=all -c core.fsyncMethod=fsync -c gc.auto=0 -c user.name=n -c user.email=e "$@" >/dev/null 2>&1; }
while :; do
  head -c 2000 /dev/urandom >"f$((RANDOM % 20))" 2>/dev/null || exit 0
  g add -A || exit 0
  g commit -m x || exit 0
  git rev-parse HEAD >"$A/git.new" 2>/dev/null || exit 0
  mv "$A/git.new" "$A/git"
done"#;

const RSYNC: &str = r#"
n=$(cat "$A/rsync" 2>/dev/null || echo 0)
while :; do
  n=$((n + 1))
  rsync -a --fsync "$S/" "copy-$((n % 3))/" >/dev/null 2>&1 || exit 0
  sync -d "copy-$((n % 3))" 2>/dev/null || exit 0
  echo $n >"$A/rsync.new" && mv "$A/rsync.new" "$A/rsync"
done"#;

impl Programs {
    fn start(&self, mount: &Path) -> Result<Vec<Child>> {
        let start = |script: &str, mode: (&str, &str)| {
            let mut shell = Command::new("bash");
            shell
                .args(["-c", script])
                .current_dir(mount)
                .env("A", &self.acks)
                .env("S", &self.source)
                .env("MODE", mode.0)
                .env("SYNC", mode.1);
            shell
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        let sqlite = SQLITE_MODES.into_iter().map(|mode| start(SQLITE, mode));
        let others = [GIT, RSYNC].into_iter().map(|script| start(script, ("", "")));
        sqlite.chain(others).map(|started| Ok(started?)).collect()
    }

    fn acked(&self, program: &str) -> Option<String> {
        let text = fs::read_to_string(self.acks.join(program)).ok()?;
        Some(text.trim().to_owned())
    }

    fn check_sqlite(&self, mount: &Path, which: &str) -> Result<()> {
        let Some(acked) = self.acked(&format!("sqlite-{which}")) else {
            return Ok(());
        };
        let mut sqlite = Command::new("sqlite3");
        sqlite
            .arg(mount.join(format!("data-{which}.db")))
            .arg("PRAGMA integrity_check; SELECT count(*), max(n) FROM t;");
        let said = process::succeed(&mut sqlite)?;
        let mut lines = said.lines();
        ensure!(lines.next() == Some("ok"), "{which}: integrity_check: {said}");
        let counts = lines.next().and_then(|line| line.split_once('|'));
        let (count, max) = counts.context("no counts")?;
        let (count, max, acked): (u64, u64, u64) = (count.parse()?, max.parse()?, acked.parse()?);
        ensure!(
            max >= acked && count == max,
            "SQLite ({which}) said {acked} is safe; it has {count} rows up to {max}"
        );
        Ok(())
    }

    /// What was acknowledged is there, and every program finds its own in order.
    fn check(&self, mount: &Path) -> Result<()> {
        for (mode, sync) in SQLITE_MODES {
            self.check_sqlite(mount, &format!("{mode}-{sync}"))?;
        }
        if let Some(commit) = self.acked("git") {
            let repo = mount.join("repo");
            let git = |arguments: &[&str]| {
                let mut git = Command::new("git");
                process::succeed(git.arg("-C").arg(&repo).args(arguments))
            };
            git(&["fsck", "--full", "--strict", "--no-dangling"])?;
            git(&["merge-base", "--is-ancestor", &commit, "HEAD"])
                .with_context(|| format!("commit {commit} was acknowledged"))?;
        }
        if let Some(n) = self.acked("rsync") {
            let copy = mount.join(format!("copy-{}", n.parse::<u64>()? % 3));
            let (source, mut copied) = (tree::manifest(&self.source)?, tree::manifest(&copy)?);
            // What a later rsync into the same copy was just writing when the mount died: its temporary file, whose name begins with a dot.
            copied.retain(|path, _| {
                let name = path.file_name().unwrap_or_default().as_encoded_bytes();
                !name.starts_with(b".") || source.contains_key(path)
            });
            let differences = tree::differences(&source, &copied);
            ensure!(differences.is_empty(), "rsync: {differences:?}");
        }
        Ok(())
    }
}

/// A file that is patched at random places, and what each of its pieces may be.
struct Patched {
    /// By piece: what was written to it since the last fsync that returned; what was safe then comes first.
    may_be: Vec<Vec<Vec<u8>>>,
    seed: u64,
}

impl Patched {
    fn new() -> Patched {
        Patched {
            may_be: vec![vec![vec![0; PIECE]]; PATCHED_BYTES / PIECE],
            seed: 1,
        }
    }

    fn next(&mut self, bound: usize) -> usize {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as usize % bound
    }

    /// Patches until it is told to stop, or the mount is gone.
    fn work(&mut self, file: &File, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let first = self.next(self.may_be.len());
            let pieces = 1 + self.next(40).min(self.may_be.len() - first - 1);
            let seed = self.next(1 << 30) as u64;
            let data = tree::noise(seed, pieces * PIECE);
            // Before it is tried: a write that failed half-way may have changed what was there.
            for (index, piece) in data.chunks(PIECE).enumerate() {
                self.may_be[first + index].push(piece.to_vec());
            }
            if file.write_all_at(&data, (first * PIECE) as u64).is_err() {
                return;
            }
            if self.next(4) == 0 {
                if file.sync_all().is_err() {
                    return;
                }
                for piece in &mut self.may_be {
                    let last = piece.pop().expect("a piece is always something");
                    *piece = vec![last];
                }
            }
        }
    }

    /// Every piece is one of those that it may be; which one is known from now on.
    fn check(&mut self, path: &Path) -> Result<()> {
        let mut found = fs::read(path).unwrap_or_default();
        ensure!(found.len() <= PATCHED_BYTES, "it has {} bytes", found.len());
        found.resize(PATCHED_BYTES, 0);
        for (index, (piece, may_be)) in found.chunks(PIECE).zip(&mut self.may_be).enumerate() {
            ensure!(
                may_be.iter().any(|version| version == piece),
                "piece {index} of the patched file is none of {} versions",
                may_be.len()
            );
            *may_be = vec![piece.to_vec()];
        }
        Ok(())
    }
}

/// A name in a directory, as far as the program knows, and what it is trying to make of it.
#[derive(Default)]
struct Names {
    /// Name and permissions.
    are: BTreeMap<String, u32>,
    /// What they are if the operation that the kill interrupted was done after all.
    may_be: BTreeMap<String, u32>,
}

impl Names {
    /// Makes, renames, removes and changes until it is told to stop, or the mount is gone. Nothing is ever synced. Works relative
    /// to `dir`, so that nothing lands beneath a mount that is gone.
    fn work(&mut self, dir: &File, seed: u64, stop: &AtomicBool) -> u64 {
        let path = |name: &str| format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
        for number in 0.. {
            let names: Vec<String> = self.are.keys().cloned().collect();
            let random = tree::noise(seed ^ number, 2);
            let old = names.get(usize::from(random[0]) % names.len().max(1)).cloned();
            let fresh = format!("{seed}-{number}");
            self.may_be = self.are.clone();
            let done = match (random[1] % 5, old) {
                (0, Some(old)) if names.len() > 20 => {
                    self.may_be.remove(&old);
                    fs::remove_file(path(&old))
                }
                (1, Some(old)) => {
                    let mode = self.may_be.remove(&old).expect("it was chosen among them");
                    self.may_be.insert(fresh.clone(), mode);
                    fs::rename(path(&old), path(&fresh))
                }
                (2, Some(old)) => {
                    self.may_be.insert(old.clone(), 0o600 | u32::from(random[0] & 0o77));
                    fs::set_permissions(path(&old), PermissionsExt::from_mode(self.may_be[&old]))
                }
                _ => {
                    self.may_be.insert(fresh.clone(), 0o640);
                    let mut new = OpenOptions::new();
                    new.write(true)
                        .create_new(true)
                        .mode(0o640)
                        .open(path(&fresh))
                        .map(drop)
                }
            };
            if done.is_err() || stop.load(Ordering::Relaxed) {
                return number;
            }
            self.are = self.may_be.clone();
        }
        unreachable!("there is always another number")
    }

    fn check(&mut self, dir: &Path) -> Result<()> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let mode = entry.metadata()?.permissions().mode() & 0o777;
            found.insert(entry.file_name().to_string_lossy().into_owned(), mode);
        }
        let differ = |expected: &BTreeMap<String, u32>| {
            let lost = expected.iter().filter(|(name, mode)| found.get(*name) != Some(mode));
            let come = found.keys().filter(|name| !expected.contains_key(*name));
            (
                lost.map(|(name, _)| name.clone()).collect::<Vec<_>>(),
                come.cloned().collect::<Vec<_>>(),
            )
        };
        ensure!(
            found == self.are || found == self.may_be,
            "lost or changed, and come back: {:?}",
            differ(&self.are)
        );
        self.are = found;
        Ok(())
    }
}

#[test]
fn every_name_that_was_answered_outlives_the_daemon() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 16)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let at = dir.path().join("mnt");
    let mut names = Names::default();
    let mut operations = 0;
    for kill in 0..4 {
        let mount = volume.mount(&at)?;
        if kill > 0 {
            names.check(&at.join("names"))?;
        } else {
            fs::create_dir(at.join("names"))?;
        }
        let names_dir = File::open(at.join("names"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let worker = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let done = names.work(&names_dir, kill, &stop);
                (names, done)
            }
        });
        std::thread::sleep(Duration::from_millis(150 + kill * 61));
        mount.kill()?;
        stop.store(true, Ordering::Relaxed);
        let (worked, done) = worker.join().expect("the worker does not panic");
        (names, operations) = (worked, operations + done);
    }
    ensure!(operations > 40, "only {operations} operations");
    let mount = volume.mount(&at)?;
    names.check(&at.join("names"))?;
    mount.umount()
}

/// How a volume rests on this machine, and its database. The first two have everything once; more kills go over all four.
const SETUPS: [(&str, &str); 4] = [
    ("sealed", "sled"),
    ("plain", "redb"),
    ("sealed", "redb"),
    ("plain", "sled"),
];
/// Kills of a volume, at the least.
const KILLS_MIN: u64 = 2;

/// Whoever writes while the daemon is killed.
struct Writers {
    programs: Programs,
    patched: Patched,
    exerciser: Option<Exerciser>,
}

impl Writers {
    fn new(dir: &Path) -> Result<Writers> {
        let programs = Programs {
            acks: dir.join("acks"),
            source: dir.join("source"),
        };
        fs::create_dir(&programs.acks)?;
        fs::create_dir(&programs.source)?;
        tree::write_many(&programs.source, 60)?;
        Ok(Writers {
            programs,
            patched: Patched::new(),
            exerciser: Exerciser::new()?,
        })
    }

    fn check(&mut self, mount: &Path) -> Result<()> {
        self.programs.check(mount)?;
        self.patched.check(&mount.join("patched"))?;
        self.exerciser.as_mut().map_or(Ok(()), |fsx| fsx.check(mount))
    }

    /// All of them write for a while; then the daemon is killed under them.
    fn work_until_killed(mut self, mount: Mount, time: Duration) -> Result<Writers> {
        let mut children = self.programs.start(mount.path())?;
        if let Some(fsx) = &mut self.exerciser {
            children.push(fsx.start(mount.path())?);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(mount.path().join("patched"))?;
        let patcher = std::thread::spawn({
            let stop = stop.clone();
            move || {
                self.patched.work(&file, &stop);
                self
            }
        });
        std::thread::sleep(time);
        mount.kill_under(|| {
            stop.store(true, Ordering::Relaxed);
            children.iter_mut().try_for_each(|child| child.wait().map(drop))?;
            Ok(())
        })?;
        Ok(patcher.join().expect("the patcher does not panic"))
    }
}

/// Kills the daemon of one volume so often; how far each program got.
fn kill_again_and_again(dir: &Path, network: &Network, setup: (&'static str, &str), kills: u64) -> Result<Vec<String>> {
    let options = InitOptions {
        at_rest: setup.0,
        ..InitOptions::default()
    };
    let volume = Volume::init_on(setup.1, &dir.join("volume"), &network.ws, &options)?;
    let mut writers = Writers::new(dir)?;
    let at = dir.join("mnt");
    for cycle in 0..kills {
        let mount = volume.mount(&at)?;
        writers.check(&at).with_context(|| format!("after {cycle} kills"))?;
        writers = writers.work_until_killed(mount, Duration::from_millis(700 + cycle * 377 % 1900))?;
    }
    let mount = volume.mount(&at)?;
    let mut whole = |what: &str| {
        writers
            .check(&at)
            .with_context(|| format!("{what} (after {kills} kills)"))
    };
    whole("from the cache")?;
    File::open(&at)?.sync_all()?;
    volume.sync(PATIENCE)?;
    volume.evict()?;
    process::drop_kernel_caches()?;
    whole("from the network")?;
    mount.umount()?;
    let sqlite = SQLITE_MODES.map(|(mode, sync)| format!("sqlite-{mode}-{sync}"));
    let others = ["git".to_owned(), "rsync".to_owned()];
    let mut busy: Vec<String> = sqlite.into_iter().chain(others).collect();
    busy.retain(|program| writers.programs.acked(program).is_some());
    if writers.exerciser.as_ref().is_none_or(|fsx| fsx.promised > 0) {
        busy.push("fsx".to_owned());
    }
    Ok(busy)
}

#[test]
fn programs_keep_what_was_acknowledged_however_often_the_daemon_is_killed() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let cycles: u64 = std::env::var("KILL_CYCLES").map_or(Ok(4), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 16)?;
    let volumes = (cycles / KILLS_MIN).clamp(1, SETUPS.len() as u64);
    let mut busy = BTreeMap::new();
    for (number, setup) in (0..volumes).zip(SETUPS) {
        let kills = (cycles + number) / volumes;
        let place = dir.path().join(number.to_string());
        fs::create_dir(&place)?;
        let programs = kill_again_and_again(&place, &network, setup, kills);
        for program in programs.with_context(|| format!("{setup:?}"))? {
            *busy.entry(program).or_insert(0) += kills;
        }
    }
    for program in ["git", "rsync", "fsx"] {
        ensure!(busy.contains_key(program), "{program} never got anything done");
    }
    for (mode, sync) in SQLITE_MODES {
        let program = format!("sqlite-{mode}-{sync}");
        ensure!(busy.contains_key(&program), "{program} never got anything done");
    }
    println!("{cycles} kills, 0 losses; on {volumes} volumes, under {busy:?}");
    Ok(())
}
