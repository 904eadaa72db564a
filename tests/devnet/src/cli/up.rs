//! `up`: here, or detached.

use anyhow::{Context, Result, bail};
use cessfs_devnet::{
    control::{Request, ask},
    limits::{END_TIMEOUT, START_TIMEOUT},
    network::{self, Wish},
};
use std::{
    fs::File,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(50);
/// Lines of a failed process's log that are shown.
const LOG_LINES: usize = 20;

/// Starts the devnet, unless it runs; the last line printed is the RPC's URL.
///
/// # Errors
/// If it does not come up.
pub fn up(dir: &Path, wish: &Wish, daemon: bool, detached: bool) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if detached {
        nix::unistd::setsid().context("cannot detach")?;
        return run(dir, wish, |_| {});
    }
    if network::lock(dir)?.is_none()
        && let Some(ws) = wait(dir, None)?
    {
        println!("The devnet in {} is already running.", dir.display());
        return say(&ws);
    }
    if daemon {
        let mut child = detach(dir, wish)?;
        let ws = wait(dir, Some(&mut child))?.context("the devnet let go of its lock while it started")?;
        println!("The devnet in {} is up (pid {}).", dir.display(), child.id());
        println!("Stop it: cessfs-devnet down --dir {}", dir.display());
        return say(&ws);
    }
    run(dir, wish, |ws| {
        println!("The devnet in {} is up; Ctrl-C stops it.", dir.display());
        let _ = say(ws); // nobody may read it
    })
}

/// Prints the URL as a line of its own.
fn say(ws: &str) -> Result<()> {
    println!("{ws}");
    Ok(std::io::stdout().flush()?)
}

fn run(dir: &Path, wish: &Wish, ready: impl FnOnce(&str)) -> Result<()> {
    let lock = network::lock(dir)?.context("another process runs a devnet in this directory")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(network::run(dir, wish, &lock, ready));
    // Threads that wait for a client or a disk are not waited for: all that matters is on disk.
    runtime.shutdown_timeout(END_TIMEOUT);
    outcome
}

/// Starts ourselves once more, in a session of its own, talking to the log.
fn detach(dir: &Path, wish: &Wish) -> Result<Child> {
    let path = network::log(dir);
    let log = File::options().create(true).append(true).open(&path);
    let log = log.with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("up").arg("--detached").arg("--dir").arg(dir);
    let numbers = [
        ("--miners", wish.miners.map(|n| n.to_string())),
        ("--miner-space", wish.miner_space_gib.map(|n| n.to_string())),
        ("--block-ms", wish.block_ms.map(|n| n.to_string())),
        ("--report-ms", wish.report_ms.map(|n| n.to_string())),
        ("--chain", wish.chain.clone()),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            command.args([name, &value]);
        }
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("cannot start the detached process")
}

/// Waits until the network answers; returns the RPC's URL. `None` if a network that is not our child's turns out to have
/// ended: one that was killed a moment ago holds its lock a little longer than it answers.
fn wait(dir: &Path, mut child: Option<&mut Child>) -> Result<Option<String>> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Ok(status) = ask(dir, &Request::Status) {
            return status["ws"]
                .as_str()
                .map(String::from)
                .context("the devnet has no URL")
                .map(Some);
        }
        if child.is_none() && network::lock(dir)?.is_some() {
            return Ok(None);
        }
        if let Some(child) = &mut child
            && let Some(status) = child.try_wait()?
        {
            bail!(
                "the devnet did not start ({status}):\n{}",
                last_lines(&network::log(dir))
            );
        }
        if Instant::now() > deadline {
            bail!("the devnet does not answer; see {}", network::log(dir).display());
        }
        std::thread::sleep(POLL);
    }
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
