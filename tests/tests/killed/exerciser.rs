//! fsx under kills. It does the same operations on every filesystem for the same seed, so what its file may be after a kill is asked
//! of fsx itself: run again beside the mount, as far as the last fsync that returned, and one operation further each time, up to
//! the one that the kill interrupted. Every byte has to be as one of these leaves it.

use anyhow::{Context, Result, ensure};
use cessfs_tests::process::installed;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Every way to change a file, over chunks and blocks; and so many syncs that a kill leaves few operations in doubt.
const CONFIG: &str = "
flen = 1300000
[opsize]
max = 60000
min = 1
[weights]
close_open = 2
read = 5
write = 10
mapread = 3
mapwrite = 10
truncate = 4
fsync = 6
fdatasync = 4
posix_fallocate = 3
punch_hole = 4
copy_file_range = 5
";

/// fsx at work on a file of the mount, a new one after each kill.
pub struct Exerciser {
    program: PathBuf,
    /// Config, logs, and files of fsx beside the mount.
    beside: tempfile::TempDir,
    seed: u64,
    /// Operations whose outcome a fsync had promised, in all.
    pub promised: u64,
    /// What is in the file since the last check, and must stay.
    is: Option<(String, Vec<u8>)>,
}

impl Exerciser {
    /// `None` if fsx is not installed.
    pub fn new() -> Result<Option<Exerciser>> {
        let Some(program) = installed("fsx") else {
            println!("SKIPPED: fsx under kills: fsx is not installed (scripts/setup --test)");
            return Ok(None);
        };
        let beside = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        fs::write(beside.path().join("config"), CONFIG)?;
        Ok(Some(Exerciser {
            program,
            beside,
            seed: 0,
            promised: 0,
            is: None,
        }))
    }

    fn fsx(&self, file: &Path, operations: Option<u64>) -> Command {
        let mut fsx = Command::new(&self.program);
        fsx.arg("-f").arg(self.beside.path().join("config"));
        fsx.args(["-S", &self.seed.to_string(), "-P"]).arg(self.beside.path());
        if let Some(operations) = operations {
            fsx.args(["-N", &operations.to_string()]);
        }
        fsx.arg(file).stdin(Stdio::null()).stdout(Stdio::null());
        fsx
    }

    /// Begins on a file of its own; goes on until the mount is gone.
    pub fn start(&mut self, mount: &Path) -> Result<Child> {
        if let Some((name, _)) = self.is.take() {
            fs::remove_file(mount.join(name))?;
        }
        self.seed += 1;
        let log = File::create(self.beside.path().join("log"))?;
        let name = format!("fsx-{}", self.seed);
        // From within: what comes after the kill must not land beneath the mount.
        let mut fsx = self.fsx(Path::new(&name), None);
        fsx.arg("-v").current_dir(mount).stderr(log);
        fsx.spawn().context("cannot run fsx")
    }

    /// The last sync that returned, and the last operation that was begun; 0: none.
    fn got_to(&self) -> Result<(u64, u64)> {
        let log = fs::read_to_string(self.beside.path().join("log"))?;
        let operation = |line: &str| {
            let mut words = line.strip_prefix("[INFO  fsx]")?.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.to_owned()))
        };
        let begun: Vec<(u64, String)> = log.lines().filter_map(operation).collect();
        let last = begun.last().map_or(0, |(number, _)| *number);
        let returned = begun.iter().rev().skip(1);
        let mut syncs = returned.filter(|(_, what)| what == "fsync" || what == "fdatasync");
        Ok((syncs.next().map_or(0, |(number, _)| *number), last))
    }

    /// The file as fsx leaves it after so many operations where nobody kills anything.
    fn after(&self, operations: u64) -> Result<Vec<u8>> {
        if operations == 0 {
            return Ok(Vec::new());
        }
        let file = self.beside.path().join("file");
        let status = self.fsx(&file, Some(operations)).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "fsx beside the mount ended with {status}");
        Ok(fs::read(file)?)
    }

    /// After a kill: the file is what it may be. Later: it is what it was then.
    pub fn check(&mut self, mount: &Path) -> Result<()> {
        if self.seed == 0 {
            return Ok(());
        }
        if let Some((name, was)) = &self.is {
            ensure!(
                fs::read(mount.join(name))? == *was,
                "{name} changed since the last kill"
            );
            return Ok(());
        }
        let name = format!("fsx-{}", self.seed);
        let (synced, last) = self.got_to()?;
        let found = match fs::read(mount.join(&name)) {
            Err(e) if synced == 0 && e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            found => found.with_context(|| format!("{name}, synced in operation {synced}"))?,
        };
        let states: Vec<Vec<u8>> = (synced..=last).map(|n| self.after(n)).collect::<Result<_>>()?;
        let lens = || states.iter().map(Vec::len);
        ensure!(
            lens().min() <= Some(found.len()) && lens().max() >= Some(found.len()),
            "{name} has {} bytes, operations {synced} to {last} leave {:?}",
            found.len(),
            lens().collect::<Vec<_>>()
        );
        // Where a state has no byte, a later one may have grown over it before it wrote there.
        let may_be = |at: usize, byte: u8| states.iter().any(|state| state.get(at).copied().unwrap_or(0) == byte);
        let wrong = found.iter().enumerate().find(|(at, byte)| !may_be(*at, **byte));
        if let Some((at, byte)) = wrong {
            anyhow::bail!("{name}: byte {at} is {byte}, which no state from operation {synced} (a sync) to {last} has");
        }
        self.promised += synced;
        self.is = Some((name, found));
        Ok(())
    }
}
