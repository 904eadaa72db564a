//! The command line: verbs, global options, and the form in which mount.fuse3 calls.

use crate::commands::{
    bench, completions, config, doctor, evict, explain, fsck, gc, init, man, metrics, mount, passphrase, profile,
    quota, recover, repair, scrub, snapshot, status, sync, territory, trash, umount, unsent, volumes,
};
use crate::config::{LogLevel, nearest};
use crate::exit::{Exit, Failure};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// An encrypted filesystem on the storage network CESS.
///
/// A volume is a directory tree whose content is encrypted on this machine, packed, erasure-coded and stored with twelve
/// independent miners. The recovery phrase alone restores it.
#[derive(Debug, Parser)]
#[command(
    name = "cessfs",
    version,
    max_term_width = 100,
    after_help = "Examples:
  cessfs init photos --rpc wss://t2-rpc.cess.network --new-phrase-file ~/photos.phrase
  cessfs mount photos ~/Photos
  cessfs sync photos --wait
  cessfs umount ~/Photos

`cessfs VERB --help` has more. What scripts may rely on, exit codes among it: /usr/share/doc/cessfs/CLI_ABI.md."
)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Directory that holds the volumes [default: /var/lib/cessfs for root, ~/.local/share/cessfs for others]
    // An empty variable is none, as everywhere; clap's own parser of paths would refuse it.
    #[arg(long, env = "CESSFS_HOME", global = true, value_name = "DIR", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub home: Option<PathBuf>,
    /// Say more; twice: everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to log
    #[arg(long, value_enum, global = true, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// Print JSON for scripts
    #[arg(long, global = true)]
    pub json: bool,
}

impl Global {
    /// The level asked for, if any was.
    pub fn level(&self) -> Option<LogLevel> {
        self.log_level.or(match self.verbose {
            0 => None,
            1 => Some(LogLevel::Debug),
            _ => Some(LogLevel::Trace),
        })
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a volume: keys, account, territory
    Init(init::InitArgs),
    /// Bring a volume back from its recovery phrase alone
    Recover(recover::RecoverArgs),
    /// Mount a volume on a directory
    Mount(mount::MountArgs),
    /// Unmount a directory
    #[command(visible_alias = "unmount")]
    Umount(umount::UmountArgs),
    /// Tell how a volume is
    Status(status::StatusArgs),
    /// Send off what was written
    Sync(sync::SyncArgs),
    /// Drop what the network has from the local cache
    Evict(evict::EvictArgs),
    /// Tell where a file's bytes are: chunks, packs, miners
    Explain(explain::ExplainArgs),
    /// Look at what the miners hold
    Scrub(scrub::ScrubArgs),
    /// Rewrite damaged packs now
    Repair(repair::RepairArgs),
    /// Give back the space of what was deleted
    Gc(gc::GcArgs),
    /// Limit how much a directory and all below it may hold
    Quota(quota::QuotaArgs),
    /// Have deleted files back
    Trash(trash::TrashArgs),
    /// Keep the tree as it is, under a name
    Snapshot(snapshot::SnapshotArgs),
    /// List what is not known to be on the network
    Unsent(unsent::UnsentArgs),
    /// Change what opens a volume on this machine
    Passphrase(passphrase::PassphraseArgs),
    /// Show and buy storage space on the chain
    Territory(territory::TerritoryArgs),
    /// Show or check a volume's configuration
    Config(config::ConfigArgs),
    /// Show where a mounted volume's time goes
    Profile(profile::ProfileArgs),
    /// Print a mounted volume's numbers for Prometheus
    Metrics(metrics::MetricsArgs),
    /// Measure how fast a directory is, beside another
    Bench(bench::BenchArgs),
    /// Look for what keeps a volume from working
    Doctor(doctor::DoctorArgs),
    /// Check a volume that is not mounted, and put right what can be
    Fsck(fsck::FsckArgs),
    /// List the volumes of this machine
    #[command(visible_alias = "list")]
    Volumes(volumes::VolumesArgs),
    /// Print a shell's completion script
    Completions(completions::CompletionsArgs),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man(man::ManArgs),
}

impl Verb {
    /// Whether what it makes is not the volume's own, so that the caller decides who may read it: files and directories in a mount,
    /// manual pages, and whatever a command makes that is measured.
    pub fn makes_what_is_the_callers(&self) -> bool {
        matches!(self, Verb::Trash(_) | Verb::Bench(_) | Verb::Profile(_) | Verb::Man(_))
    }
}

/// The command line as clap takes it. mount.fuse3 (for `mount -t fuse.cessfs NAME DIR`) calls `cessfs NAME DIR -o OPTIONS`:
/// a first word that is no verb, before a directory that exists, means `mount`.
pub fn arguments(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut given: Vec<OsString> = given.into_iter().collect();
    if let [_, first, second, ..] = given.as_slice()
        && !first.as_encoded_bytes().starts_with(b"-")
        && !is_verb(first)
        && Path::new(second).is_dir()
    {
        given.insert(1, "mount".into());
    }
    given
}

/// What is said when the word that [`arguments`] took for a volume is none: whoever mistyped a verb is not told to make a volume.
pub fn neither_verb_nor_volume(word: &OsStr, failure: Failure) -> Failure {
    let word = word.to_string_lossy();
    if failure.exit != Exit::NoVolume || word.starts_with("cess://") {
        return failure;
    }
    use clap::CommandFactory;
    let command = Cli::command();
    let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let hint = match nearest(&word, shown.map(clap::Command::get_name)) {
        Some(verb) => format!("did you mean `cessfs {verb}`?"),
        None => "`cessfs --help` lists the verbs, `cessfs volumes` the volumes".to_owned(),
    };
    Failure::new(Exit::NoVolume, format!("`{word}` is neither a verb nor a volume")).hint(hint)
}

fn is_verb(word: &OsStr) -> bool {
    use clap::CommandFactory;
    let command = Cli::command();
    let found = word.to_str().is_some_and(|w| command.find_subcommand(w).is_some());
    found || word == "help"
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_examples() {
        fn check(command: &clap::Command) {
            let name = command.get_name();
            if command.has_subcommands() {
                command.get_subcommands().for_each(check);
            }
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(examples.contains("Examples:"), "`{name} --help` has no examples");
            assert!(examples.contains("cessfs "), "`{name} --help` has empty examples");
        }
        Cli::command().get_subcommands().for_each(check);
    }

    #[test]
    fn verbs_are_those_of_the_abi() {
        let abi = include_str!("../../docs/CLI_ABI.md");
        let command = Cli::command();
        let verbs: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        let expected = [
            "init",
            "recover",
            "mount",
            "umount",
            "status",
            "sync",
            "evict",
            "explain",
            "scrub",
            "repair",
            "gc",
            "quota",
            "trash",
            "snapshot",
            "unsent",
            "passphrase",
            "territory",
            "config",
            "profile",
            "metrics",
            "bench",
            "doctor",
            "fsck",
            "volumes",
            "completions",
            "man",
        ];
        assert_eq!(verbs, expected);
        for verb in verbs.iter().filter(|v| **v != "man") {
            assert!(
                abi.contains(&format!("`cessfs {verb}")),
                "docs/CLI_ABI.md does not tell {verb}"
            );
        }
    }

    #[test]
    fn the_form_of_mount_fuse3() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for (given, expected) in [
            ("cessfs photos /tmp -o rw", "cessfs mount photos /tmp -o rw"),
            ("cessfs cess://photos /tmp", "cessfs mount cess://photos /tmp"),
            ("cessfs mount photos /tmp", "cessfs mount photos /tmp"),
            ("cessfs umount /tmp", "cessfs umount /tmp"),
            ("cessfs unmount /tmp", "cessfs unmount /tmp"),
            ("cessfs status /tmp", "cessfs status /tmp"),
            ("cessfs photos /does/not/exist", "cessfs photos /does/not/exist"),
            ("cessfs --home /tmp status", "cessfs --home /tmp status"),
        ] {
            assert_eq!(arguments(words(given)), words(expected), "{given}");
        }
        let cli = Cli::try_parse_from(arguments(words("cessfs photos /tmp -o rw,dev"))).unwrap();
        assert!(matches!(cli.verb, Verb::Mount(_)));
    }
}
