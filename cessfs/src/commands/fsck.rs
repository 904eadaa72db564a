//! `cessfs fsck NAME`: everything that this machine has of a volume, checked; what can be proven, put right.

mod rebuild;

use super::{Context, print_json};
use crate::config::VolumeConfig;
use crate::exit::{Exit, Failure};
use crate::home::{self, VolumeDir, VolumeName};
use crate::output;
use crate::progress::Waiting;
use crate::secret::Sources;
use crate::units;
use crate::wiring::{self, Closed};
use cessfs_crypto::{KeySlots, VolumeSecret};
use cessfs_sync::check::check_packs;
use cessfs_vfs::fsck::{FsckReport, Remedy, fsck};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Nothing is written back while a check holds the volume.
const NEVER: Duration = Duration::from_secs(365 * 86_400);
/// Findings printed for people; JSON has all.
const LINES_MAX: usize = 50;

/// Check a volume that is not mounted, and put right what can be
///
/// Looks at every name, every cached block, every pack and every staged body on this machine; asks nothing of the network.
/// Ends with exit code 21 when something is wrong and still is. The report also goes into the volume's directory, fsck.json.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs fsck photos
  cessfs fsck photos --repair --json
  cessfs fsck photos --rebuild --passphrase-file ~/photos.pass   # when the journal does not open")]
pub struct FsckArgs {
    /// The volume
    name: VolumeName,
    /// Put right what the records prove; nothing else changes
    #[arg(long)]
    repair: bool,
    /// Make a new journal where the old one does not open: from what can be read of it, else from staged packs and the network
    #[arg(long, conflicts_with = "repair")]
    rebuild: bool,
    /// With --rebuild: accept an older state of the network than this machine has seen
    #[arg(long, requires = "rebuild")]
    allow_older: bool,
    /// Passphrase of the volume [default: asked for on the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Key file of the volume, instead of a passphrase
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    key_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Repaired,
    Repairable,
    Told,
}

#[derive(Serialize)]
struct Finding {
    what: String,
    remedy: Outcome,
}

#[derive(Serialize)]
struct Report {
    volume: String,
    closed: bool,
    inodes: u64,
    chunks: u64,
    packs: u64,
    read_bytes: u64,
    findings: Vec<Finding>,
}

/// What every kind of check needs: the volume, held, and opened with its secret.
struct Held {
    dir: VolumeDir,
    config: VolumeConfig,
    slots: KeySlots,
    secret: VolumeSecret,
    _lock: home::VolumeLock,
}

/// Checks, repairs or rebuilds.
///
/// # Errors
/// [`Exit::Busy`] while the volume is mounted, [`Exit::Damaged`] when something is wrong and still is.
pub fn run(args: &FsckArgs, context: &Context) -> Result<(), Failure> {
    let dir = context.home.existing(&args.name)?;
    let config = VolumeConfig::load(&dir.config())?;
    let lock = dir.lock().map_err(|failure| match failure.exit {
        Exit::Busy => failure.hint("unmount it first (`cessfs umount DIR`); a check needs the volume for itself"),
        _ => failure,
    })?;
    let slots = wiring::key_slots(&dir)?;
    let sources = Sources::new(args.key_file.clone(), args.passphrase_file.clone());
    let secret = sources.for_mount(&args.name, &slots)?.open(&slots)?;
    let held = Held {
        dir,
        config,
        slots,
        secret,
        _lock: lock,
    };
    if args.rebuild {
        return rebuild::run(&held, args.allow_older, context);
    }
    let report = check(&held, args.repair)?;
    leave(&held.dir, &report)?;
    if context.json {
        print_json(&report);
    } else {
        report.print();
    }
    report.verdict(args)
}

/// The report, where the next person finds it.
fn leave<T: Serialize>(dir: &VolumeDir, report: &T) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(report).expect("a report has a JSON form");
    home::replace(&dir.fsck_report(), &text)
}

fn check(held: &Held, repair: bool) -> Result<Report, Failure> {
    let runtime = wiring::runtime()?;
    let _inside = runtime.enter();
    let waiting = Waiting::on("checking packs");
    let keys = held.secret.volume_keys(held.slots.volume());
    // Before an engine is built, because building one clears the staging directory.
    let packs = {
        let store = wiring::journal(&held.dir, &held.config, &keys)?;
        check_packs(store.as_ref(), &keys, &held.dir.staging(), repair)?
    };
    let mut closed = Closed::open(
        &held.dir,
        &held.config,
        None,
        &held.slots,
        &held.secret,
        runtime.handle(),
    )?;
    closed.parts.config.writeback_delay = NEVER;
    waiting.say("checking names and content");
    let files = fsck(closed.parts, repair)?;
    drop(closed.engine);
    drop(waiting);
    runtime.shutdown_background();
    let told = packs.findings.iter().map(|finding| Finding {
        what: finding.what.clone(),
        remedy: match (finding.repairable, repair) {
            (true, true) => Outcome::Repaired,
            (true, false) => Outcome::Repairable,
            (false, _) => Outcome::Told,
        },
    });
    let mut report = Report::of(held, &files, told.collect());
    report.packs = packs.packs;
    report.read_bytes += packs.read_bytes;
    Ok(report)
}

impl Report {
    fn of(held: &Held, files: &FsckReport, mut findings: Vec<Finding>) -> Report {
        findings.extend(files.findings.iter().map(|finding| Finding {
            what: finding.what.clone(),
            remedy: match finding.remedy {
                Remedy::Repaired => Outcome::Repaired,
                Remedy::Repairable => Outcome::Repairable,
                Remedy::Told => Outcome::Told,
            },
        }));
        Report {
            volume: held.dir.name().to_string(),
            closed: files.closed,
            inodes: files.inodes,
            chunks: files.chunks,
            packs: 0,
            read_bytes: files.read_bytes,
            findings,
        }
    }

    fn print(&self) {
        for finding in self.findings.iter().take(LINES_MAX) {
            let remedy = match finding.remedy {
                Outcome::Repaired => "put right",
                Outcome::Repairable => "can be put right",
                Outcome::Told => "cannot be proven",
            };
            say!("{} ({remedy})", output::name(&finding.what));
        }
        if self.findings.len() > LINES_MAX {
            say!("… and {} more: --json lists them", self.findings.len() - LINES_MAX);
        }
        if !self.closed {
            say!(
                "the volume was not closed: its cache was not judged. The next mount puts right what a crash leaves, and so does \
                 --repair"
            );
        }
        say!(
            "{} inodes, {} chunks, {} packs; {} read",
            self.inodes,
            self.chunks,
            self.packs,
            units::bytes(self.read_bytes)
        );
    }

    fn verdict(&self, args: &FsckArgs) -> Result<(), Failure> {
        let open = |wanted: Outcome| self.findings.iter().filter(|finding| finding.remedy == wanted).count();
        let (repairable, told) = (open(Outcome::Repairable), open(Outcome::Told));
        if repairable + told == 0 {
            return Ok(());
        }
        let failure = Failure::new(
            Exit::Damaged,
            format!("{} things are wrong with volume `{}`", repairable + told, args.name),
        );
        Err(match repairable {
            0 => failure.hint(format!(
                "files that are damaged can be deleted or written again; `cessfs recover` brings back what the network has under \
                 another name; volume `{}` was not changed",
                args.name
            )),
            n => failure.hint(format!("`cessfs fsck {} --repair` puts {n} of them right", args.name)),
        })
    }
}
