//! kill -9 of the daemon again and again while real programs write: SQLite, git, rsync, and somebody who patches a file and
//! syncs it now and then. After every kill whatever was acknowledged is there, and the programs' own checks are clean; at the
//! end once more from the network, through an empty cache.
//!
//! `KILL_CYCLES=n` kills more often (`make soak`).

use anyhow::{Context, Result, ensure};
use cessfs_tests::{InitOptions, Network, Volume, can_mount, process, tree};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
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

// Each works in its own directory: what it does after the daemon died fails, and does not land beneath the mount.

/// Rows go in one transaction each; a number is noted once SQLite said that it is safe. That is so only with a write-ahead log: it
/// commits by an fsync. With a rollback journal it commits by removing a file (docs/DURABILITY.md, what is not promised).
const SQLITE: &str = r#"
cd "$M" || exit 0
sqlite3 data.db 'PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, x BLOB);' >/dev/null || exit 0
n=$(cat "$A/sqlite" 2>/dev/null || echo 0)
while :; do
  n=$((n + 1))
  sqlite3 data.db "PRAGMA synchronous=FULL; INSERT OR REPLACE INTO t VALUES ($n, randomblob(3000));" >/dev/null 2>&1 || exit 0
  echo $n >"$A/sqlite.new" && mv "$A/sqlite.new" "$A/sqlite"
done"#;

const GIT: &str = r#"
cd "$M" || exit 0
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
cd "$M" || exit 0
n=$(cat "$A/rsync" 2>/dev/null || echo 0)
while :; do
  n=$((n + 1))
  rsync -a --fsync "$S/" "copy-$((n % 3))/" >/dev/null 2>&1 || exit 0
  sync -d "copy-$((n % 3))" 2>/dev/null || exit 0
  echo $n >"$A/rsync.new" && mv "$A/rsync.new" "$A/rsync"
done"#;

impl Programs {
    fn start(&self, mount: &Path) -> Result<Vec<Child>> {
        let start = |script: &str| {
            let mut shell = Command::new("bash");
            shell
                .args(["-c", script])
                .env("M", mount)
                .env("A", &self.acks)
                .env("S", &self.source);
            shell
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        [SQLITE, GIT, RSYNC]
            .into_iter()
            .map(|script| Ok(start(script)?))
            .collect()
    }

    fn acked(&self, program: &str) -> Option<String> {
        let text = fs::read_to_string(self.acks.join(program)).ok()?;
        Some(text.trim().to_owned())
    }

    /// What was acknowledged is there, and every program finds its own in order.
    fn check(&self, mount: &Path) -> Result<()> {
        if let Some(n) = self.acked("sqlite") {
            let mut sqlite = Command::new("sqlite3");
            sqlite
                .arg(mount.join("data.db"))
                .arg("PRAGMA integrity_check; SELECT count(*), max(n) FROM t;");
            let said = process::succeed(&mut sqlite)?;
            let mut lines = said.lines();
            ensure!(lines.next() == Some("ok"), "integrity_check: {said}");
            let (count, max) = lines
                .next()
                .and_then(|line| line.split_once('|'))
                .context("no counts")?;
            let (count, max, acked): (u64, u64, u64) = (count.parse()?, max.parse()?, n.parse()?);
            ensure!(
                max >= acked && count == max,
                "SQLite said {acked} is safe; it has {count} rows up to {max}"
            );
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
    fn work(&mut self, path: &Path, stop: &AtomicBool) {
        let Ok(file) = OpenOptions::new().write(true).create(true).truncate(false).open(path) else {
            return;
        };
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

#[test]
fn programs_keep_what_was_acknowledged_however_often_the_daemon_is_killed() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let cycles: u64 = std::env::var("KILL_CYCLES").map_or(Ok(4), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 16)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let programs = Programs {
        acks: dir.path().join("acks"),
        source: dir.path().join("source"),
    };
    fs::create_dir(&programs.acks)?;
    fs::create_dir(&programs.source)?;
    tree::write_many(&programs.source, 60)?;
    let at = dir.path().join("mnt");
    let mut patched = Patched::new();
    for cycle in 0..cycles {
        let mount = volume.mount(&at)?;
        let check = programs.check(&at).and_then(|()| patched.check(&at.join("patched")));
        check.with_context(|| format!("after {cycle} kills"))?;
        let mut children = programs.start(&at)?;
        let stop = Arc::new(AtomicBool::new(false));
        let patcher = std::thread::spawn({
            let (stop, path) = (stop.clone(), at.join("patched"));
            move || {
                patched.work(&path, &stop);
                patched
            }
        });
        std::thread::sleep(Duration::from_millis(700 + cycle * 377 % 1900));
        mount.kill()?;
        stop.store(true, Ordering::Relaxed);
        patched = patcher.join().expect("the patcher does not panic");
        for child in &mut children {
            child.wait()?;
        }
    }
    let mount = volume.mount(&at)?;
    let mut whole = |what: &str| -> Result<()> {
        let check = programs.check(&at).and_then(|()| patched.check(&at.join("patched")));
        check.with_context(|| format!("{what} (after {cycles} kills)"))
    };
    whole("from the cache")?;
    for program in ["sqlite", "git", "rsync"] {
        ensure!(programs.acked(program).is_some(), "{program} never got anything done");
    }
    File::open(&at)?.sync_all()?;
    volume.sync(PATIENCE)?;
    volume.evict()?;
    process::drop_kernel_caches()?;
    whole("from the network")?;
    println!(
        "{cycles} kills, 0 losses; SQLite got to {}, rsync to {}",
        programs.acked("sqlite").unwrap_or_default(),
        programs.acked("rsync").unwrap_or_default()
    );
    mount.umount()
}
