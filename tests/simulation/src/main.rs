//! `cessfs-simulate`: runs seeds, says what was done, and fails if a promise was broken.

use cessfs_simulation::{Options, Outcome, simulate};
use clap::Parser;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lives of a volume in simulated worlds: one seed, one schedule
#[derive(Parser)]
#[command(name = "cessfs-simulate", after_help = EXAMPLES)]
struct Args {
    /// The first seed; without it, 1, or with --minutes one that the clock gives
    #[arg(long)]
    first: Option<u64>,
    /// So many seeds
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// As many seeds as fit in so many minutes, however many are asked for
    #[arg(long, conflicts_with = "seeds")]
    minutes: Option<u64>,
    /// This seed alone, twice, and everything that happens in it
    #[arg(long, conflicts_with_all = ["first", "seeds", "minutes"])]
    seed: Option<u64>,
    /// Say nothing of a single seed but its result
    #[arg(long, requires = "seed")]
    quiet: bool,
    /// Worlds simulated at the same time
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

const EXAMPLES: &str =
    "Examples:\n  cessfs-simulate --seeds 300\n  cessfs-simulate --minutes 60\n  cessfs-simulate --seed 4711";

/// Failures after which a run ends: each is there to be replayed, and one is enough to begin with.
const FAILURES_MAX: usize = 5;

#[derive(Default)]
struct Totals {
    worlds: u64,
    lasted: Duration,
    counts: BTreeMap<&'static str, u64>,
    failed: Vec<Outcome>,
}

impl Totals {
    fn add(&mut self, outcome: Outcome) {
        self.worlds += 1;
        self.lasted += outcome.lasted;
        for (kind, many) in &outcome.counts {
            *self.counts.entry(kind).or_default() += many;
        }
        if !outcome.violations.is_empty() {
            for violation in &outcome.violations {
                println!("SEED={}: {violation}", outcome.seed);
            }
            self.failed.push(outcome);
        }
    }

    fn print(&self, took: Duration) {
        println!("worlds                                      {:>12}", self.worlds);
        println!(
            "simulated hours                             {:>12}",
            self.lasted.as_secs() / 3600
        );
        for (kind, many) in &self.counts {
            println!("{kind:<44}{many:>12}");
        }
        println!("worlds with a loss or a broken promise      {:>12}", self.failed.len());
        println!(
            "{} worlds in {:.1} s, {:.2} s each",
            self.worlds,
            took.as_secs_f64(),
            took.as_secs_f64() / self.worlds.max(1) as f64
        );
    }
}

#[expect(clippy::disallowed_methods, reason = "how long it takes is asked of the real clock")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "fresh seeds come from outside")]
fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_nanos() as u64 % 1_000_000_000_000
}

#[expect(
    clippy::disallowed_methods,
    reason = "worlds side by side; each of them is one thread"
)]
fn side_by_side(threads: usize, work: impl Fn() + Copy + Send) {
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.seed.or_else(|| std::env::var("SEED").ok()?.parse().ok()) {
        Some(seed) => replay(seed, !args.quiet),
        None => many(&args),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One seed, twice: that it ends in the same state is part of the result.
fn replay(seed: u64, aloud: bool) -> ExitCode {
    let options = Options {
        aloud,
        ..Options::of(seed)
    };
    let (first, second) = (simulate(options), simulate(Options::of(seed)));
    println!("SEED={seed} state {} after {:?}", hex(&first.state), first.lasted);
    for violation in &first.violations {
        println!("SEED={seed}: {violation}");
    }
    if first.state != second.state {
        println!(
            "SEED={seed}: the second run ended in another state, {}",
            hex(&second.state)
        );
        return ExitCode::FAILURE;
    }
    match first.violations.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn many(args: &Args) -> ExitCode {
    let began = now();
    let end = args.minutes.map(|minutes| began + Duration::from_secs(minutes * 60));
    let first = args
        .first
        .unwrap_or_else(|| if end.is_some() { fresh_seed() } else { 1 });
    let last = if end.is_some() {
        u64::MAX
    } else {
        first + args.seeds - 1
    };
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let totals = Mutex::new(Totals::default());
    println!("seeds from {first}");
    let work = || {
        while !stop.load(Ordering::Relaxed) && end.is_none_or(|end| now() < end) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > last {
                return;
            }
            let outcome = simulate(Options::of(seed));
            let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
            totals.add(outcome);
            if totals.failed.len() >= FAILURES_MAX {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    side_by_side(args.threads.max(1), work);
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    totals.print(now() - began);
    for outcome in &totals.failed {
        println!("replay with: cessfs-simulate --seed {}", outcome.seed);
    }
    match totals.failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
