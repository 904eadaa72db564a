//! `cessfs profile NAME`.

use super::{Context, print_json};
use crate::control::client::{self, Client};
use crate::exit::{Exit, Failure};
use crate::home::VolumeName;
use crate::timings::StageTimes;
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Show where a mounted volume's time goes
///
/// Counts for some seconds, or while a command runs, how often the daemon did what and how long it took: requests of the
/// kernel (fuse), waiting for locks (lock), records (store), the local disk (disk), sealing and hashing (crypto), miners
/// (network) and the chain (chain). Stages contain each other, so their times do not add up.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs profile photos --seconds 10
  cessfs profile photos -- cp -a ~/Pictures ~/Photos/
  cessfs profile photos --json -- tar xf sources.tar -C ~/Photos | jq '.stages[] | select(.layer == \"fuse\")'")]
pub struct ProfileArgs {
    /// The volume
    name: VolumeName,
    /// How long to count when no command is given
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Count while this runs; its output goes to stderr
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What was counted.
#[derive(Debug, Serialize)]
struct Profile {
    /// Seconds it lasted.
    seconds: f64,
    stages: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    layer: String,
    stage: String,
    count: u64,
    total_ns: u64,
    mean_ns: u64,
    /// Upper bounds, at most twice the truth; null beyond 17 s.
    p50_ns: Option<u64>,
    p99_ns: Option<u64>,
}

/// Counts and prints.
///
/// # Errors
/// [`Exit::NotMounted`]; [`Exit::Failed`] when the command cannot be started.
pub fn run(args: &ProfileArgs, context: &Context) -> Result<(), Failure> {
    let volume = context.home.existing(&args.name)?;
    let mut client = Client::connect(&volume)?;
    let (before, _) = client::timings(&mut client)?;
    let began = Instant::now();
    match args.command.split_first() {
        Some((program, arguments)) => run_command(program, arguments)?,
        None => std::thread::sleep(Duration::from_secs(args.seconds)),
    }
    let seconds = began.elapsed().as_secs_f64();
    let (after, _) = client::timings(&mut client)?;
    let profile = Profile {
        seconds,
        stages: difference(&before, &after),
    };
    if context.json {
        print_json(&profile);
    } else {
        print(&profile);
    }
    Ok(())
}

fn run_command(program: &OsString, arguments: &[OsString]) -> Result<(), Failure> {
    let shown = program.to_string_lossy();
    let ended = Command::new(program)
        .args(arguments)
        .stdout(Stdio::from(std::io::stderr()))
        .status()
        .map_err(|e| Failure::new(Exit::Failed, format!("cannot run `{shown}`: {e}")))?;
    if !ended.success() {
        tell!("`{shown}` ended with {ended}; what it did until then is shown");
    }
    Ok(())
}

/// What was counted between two looks, the longest first; stages that were not used are left out.
fn difference(before: &[StageTimes], after: &[StageTimes]) -> Vec<Line> {
    let earlier = |now: &StageTimes| {
        let same = |then: &&StageTimes| (&then.layer, &then.stage) == (&now.layer, &now.stage);
        before.iter().find(same).map(|then| now.since(then))
    };
    let mut lines: Vec<Line> = after
        .iter()
        .filter_map(earlier)
        .filter(|times| times.count > 0)
        .map(|times| Line {
            mean_ns: times.mean_ns(),
            p50_ns: times.quantile_ns(0.5),
            p99_ns: times.quantile_ns(0.99),
            layer: times.layer,
            stage: times.stage,
            count: times.count,
            total_ns: times.total_ns,
        })
        .collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.total_ns));
    lines
}

fn print(profile: &Profile) {
    say!("{:.1} s", profile.seconds);
    say!(
        "{:<8} {:<16} {:>9} {:>10} {:>9} {:>9} {:>9}",
        "layer",
        "stage",
        "count",
        "total",
        "mean",
        "p50 <",
        "p99 <"
    );
    for line in &profile.stages {
        say!(
            "{:<8} {:<16} {:>9} {:>10} {:>9} {:>9} {:>9}",
            line.layer,
            line.stage,
            line.count,
            time(Some(line.total_ns)),
            time(Some(line.mean_ns)),
            time(line.p50_ns),
            time(line.p99_ns)
        );
    }
}

/// Nanoseconds as people read them.
fn time(nanos: Option<u64>) -> String {
    match nanos {
        None => "long".to_owned(),
        Some(n) if n < 1_000 => format!("{n} ns"),
        Some(n) if n < 1_000_000 => format!("{:.1} µs", n as f64 / 1e3),
        Some(n) if n < 1_000_000_000 => format!("{:.1} ms", n as f64 / 1e6),
        Some(n) => format!("{:.2} s", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, count: u64, total_ns: u64) -> StageTimes {
        let mut buckets = vec![0; cessfs_sync::stages::BUCKETS];
        buckets[0] = count;
        StageTimes {
            layer: "store".into(),
            stage: name.into(),
            count,
            total_ns,
            buckets,
        }
    }

    #[test]
    fn only_what_happened_and_the_longest_first() {
        let before = [stage("commit", 5, 50), stage("get", 7, 70), stage("scan", 1, 1)];
        let after = [stage("commit", 6, 60), stage("get", 7, 70), stage("scan", 3, 100)];
        let lines = difference(&before, &after);
        let seen: Vec<_> = lines.iter().map(|l| (l.stage.as_str(), l.count, l.total_ns)).collect();
        assert_eq!(seen, [("scan", 2, 99), ("commit", 1, 10)]);
    }

    #[test]
    fn times_for_people() {
        assert_eq!(time(Some(999)), "999 ns");
        assert_eq!(time(Some(1_500)), "1.5 µs");
        assert_eq!(time(Some(2_000_000)), "2.0 ms");
        assert_eq!(time(Some(3_250_000_000)), "3.25 s");
        assert_eq!(time(None), "long");
    }
}
