//! `cessfs bench DIR`.

use super::{Context, print_json};
use crate::bench::report::Report;
use crate::bench::{self, Interrupt, NAMES, Plan};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::progress::Waiting;
use clap::Args;
use clap::builder::PossibleValuesParser;
use std::path::{Path, PathBuf};

/// Measure how fast a directory is, beside another
///
/// Does ordinary work in a new directory below DIR and times it: large and small files, random access, fsync, listings,
/// trees, sqlite. Everything that is made is removed again. Works on any filesystem; DIR is usually a mounted volume, and the
/// directory beside it one on the disk underneath. The JSON of an earlier run serves as a baseline.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs bench ~/Photos --beside /var/tmp
  cessfs bench ~/Photos --beside /var/tmp --save now.json --baseline before.json
  cessfs bench ~/Photos --only create_4k,list --files 20000 --json")]
pub struct BenchArgs {
    /// The directory to measure
    dir: PathBuf,
    /// Do the same here in turns, and tell how many times slower DIR is
    #[arg(long, value_name = "DIR2")]
    beside: Option<PathBuf>,
    /// How often; medians are told
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=99))]
    reps: u16,
    /// MiB of the large file
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=65_536))]
    mib: u32,
    /// Small files to make
    #[arg(long, default_value_t = 5000, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    files: u32,
    /// Only these workloads [default: all]
    #[arg(long, value_delimiter = ',', value_name = "WORKLOADS", value_parser = PossibleValuesParser::new(NAMES))]
    only: Vec<String>,
    /// Write the result here, as JSON
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Compare with a result that was saved before
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// [`Exit::Disk`] when a directory fails; [`Exit::Interrupted`] by a signal; [`Exit::Usage`] when the baseline is none.
pub fn run(args: &BenchArgs, context: &Context) -> Result<(), Failure> {
    let baseline = args.baseline.as_deref().map(read).transpose()?;
    let only = with_what_they_need(&args.only);
    let plan = Plan {
        dir: args.dir.clone(),
        beside: args.beside.clone(),
        reps: args.reps.into(),
        mib: args.mib as usize,
        files: args.files as usize,
        only,
    };
    // Before the thread that turns the spinner.
    let interrupt = Interrupt::watch()?;
    let waiting = Waiting::on("measuring");
    let report = bench::run(&plan, &interrupt, &mut |what| tracing::info!("{what}"))?;
    drop(waiting);
    if let Some(path) = &args.save {
        let text = serde_json::to_vec_pretty(&report).expect("a report has a JSON form");
        std::fs::write(path, text).map_err(|e| Failure::disk(format!("cannot write {}", path.display()), &e))?;
    }
    if context.json {
        print_json(&report);
    } else {
        output::text(&report.markdown(baseline.as_ref()));
    }
    for (workload, factor) in baseline.iter().flat_map(|baseline| report.regressions(baseline)) {
        tell!("{workload} is {factor:.2} times slower than before");
    }
    Ok(())
}

/// Some workloads use what others leave.
fn with_what_they_need(chosen: &[String]) -> Vec<String> {
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|c| c == name);
    let needed = |name: &str| match name {
        "seq_write" => [
            "seq_read_cold",
            "seq_read_warm",
            "rand_read_4k",
            "rand_write_4k",
            "write_fsync_4k",
        ]
        .iter()
        .any(|n| wanted(n)),
        "create_4k" => ["list", "copy", "remove"].iter().any(|n| wanted(n)),
        "copy" => wanted("remove"),
        "tree_write" => ["tree_read_cold", "tree_remove"].iter().any(|n| wanted(n)),
        _ => false,
    };
    let names = NAMES.iter().filter(|name| wanted(name) || needed(name));
    names.map(|name| (*name).to_owned()).collect()
}

fn read(path: &Path) -> Result<Report, Failure> {
    let text = std::fs::read(path).map_err(|e| Failure::disk(format!("cannot read {}", path.display()), &e))?;
    serde_json::from_slice(&text).map_err(|e| {
        Failure::new(
            Exit::Usage,
            format!("{} is no result of `cessfs bench`: {e}", path.display()),
        )
        .hint("a result is what `--save FILE` wrote")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_brings_what_it_reads() {
        assert_eq!(with_what_they_need(&[]), NAMES);
        assert_eq!(with_what_they_need(&["remove".into()]), ["create_4k", "copy", "remove"]);
        assert_eq!(with_what_they_need(&["sqlite_wal".into()]), ["sqlite_wal"]);
    }

    #[test]
    fn every_workload_runs_and_leaves_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let beside = tempfile::tempdir().unwrap();
        let plan = Plan {
            dir: tmp.path().into(),
            beside: Some(beside.path().into()),
            reps: 1,
            mib: 1,
            files: 20,
            // Those that drop the kernel's caches would slow down everybody else's tests.
            only: NAMES
                .iter()
                .filter(|n| !n.contains("cold") && **n != "rand_read_4k")
                .map(|n| (*n).into())
                .collect(),
        };
        let report = bench::run(&plan, &Interrupt::watch().unwrap(), &mut |_| ()).unwrap();
        for row in &report.rows {
            assert!(row.ratio.is_some() || row.skipped.is_some(), "{row:?}");
        }
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_no_baseline_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("x.json");
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(read(&path).unwrap_err().exit, Exit::Usage);
    }
}
