//! Measuring a directory: ordinary work, timed, beside the same work in another directory.
//!
//! Everything here is done through the operating system's calls, as any program does it, so it measures any filesystem. The
//! two directories take turns, work by work and repetition by repetition; what is told is the median, and the median of the
//! ratios of each repetition, because a busy machine spoils absolute times first.

mod interrupt;
pub mod report;
mod site;
mod workloads;

pub use interrupt::Interrupt;
pub use workloads::NAMES;

use crate::exit::Failure;
use report::{Report, Row};
use site::Site;
use std::path::PathBuf;
use std::time::Duration;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The directory.
    pub dir: PathBuf,
    /// The one to compare it with.
    pub beside: Option<PathBuf>,
    /// Turns.
    pub reps: usize,
    /// MiB of the large file.
    pub mib: usize,
    /// Small files that are made.
    pub files: usize,
    /// Workloads, of [`NAMES`], in that order.
    pub only: Vec<String>,
}

/// Measures; `told` hears of each workload before it begins.
///
/// # Errors
/// [`Exit::Disk`](crate::exit::Exit::Disk) when one of the directories fails,
/// [`Exit::Interrupted`](crate::exit::Exit::Interrupted). What was made there is removed in any case.
pub fn run(plan: &Plan, interrupt: &Interrupt, told: &mut dyn FnMut(&str)) -> Result<Report, Failure> {
    let mut sites = vec![Site::open(&plan.dir, plan)?];
    if let Some(beside) = &plan.beside {
        sites.push(Site::open(beside, plan)?);
    }
    let chosen: Vec<_> = workloads::ALL
        .iter()
        .filter(|w| plan.only.iter().any(|name| name == w.name))
        .collect();
    let mut taken: Vec<Vec<Vec<f64>>> = vec![vec![Vec::new(); sites.len()]; chosen.len()];
    let mut skipped = vec![None; chosen.len()];
    for rep in 0..plan.reps {
        for (which, workload) in chosen.iter().enumerate() {
            told(&format!("{} ({} of {})", workload.name, rep + 1, plan.reps));
            for (side, site) in sites.iter_mut().enumerate() {
                interrupt.check()?;
                match site.measure(workload, rep)? {
                    Some(took) => taken[which][side].push(took.as_secs_f64()),
                    None => skipped[which] = Some(workload.needs.to_owned()),
                }
            }
        }
    }
    let rows = chosen.iter().zip(taken).zip(skipped);
    let rows = rows.map(|((workload, taken), skipped)| Row::new(workload.name, taken, skipped));
    Ok(Report {
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        mib: plan.mib,
        files: plan.files,
        rows: rows.collect(),
    })
}

/// How long it took, or nothing where it could not be done.
type Taken = Option<Duration>;
