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

/// What to do. What each verb is stands at its arguments: a comment here would be all that `--help` and the manual pages tell.
#[derive(Debug, Subcommand)]
pub enum Verb {
    Init(init::InitArgs),
    Recover(recover::RecoverArgs),
    Mount(mount::MountArgs),
    #[command(visible_alias = "unmount")]
    Umount(umount::UmountArgs),
    Status(status::StatusArgs),
    Sync(sync::SyncArgs),
    Evict(evict::EvictArgs),
    Explain(explain::ExplainArgs),
    Scrub(scrub::ScrubArgs),
    Repair(repair::RepairArgs),
    Gc(gc::GcArgs),
    Quota(quota::QuotaArgs),
    Trash(trash::TrashArgs),
    Snapshot(snapshot::SnapshotArgs),
    Unsent(unsent::UnsentArgs),
    Passphrase(passphrase::PassphraseArgs),
    Territory(territory::TerritoryArgs),
    Config(config::ConfigArgs),
    Profile(profile::ProfileArgs),
    Metrics(metrics::MetricsArgs),
    Bench(bench::BenchArgs),
    Doctor(doctor::DoctorArgs),
    Fsck(fsck::FsckArgs),
    #[command(visible_alias = "list")]
    Volumes(volumes::VolumesArgs),
    Completions(completions::CompletionsArgs),
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
    fn what_a_verb_does_is_told_at_length() {
        let command = Cli::command();
        let told = |verb: &str| command.find_subcommand(verb).and_then(|verb| verb.get_long_about());
        for (verb, words) in [
            ("init", "whoever has it can read everything"),
            ("mount", "a daemon serves it in the background"),
            ("umount", "--wait sends it first"),
            ("gc", "deletes the old ones from the chain"),
        ] {
            let text = told(verb).map(ToString::to_string).unwrap_or_default();
            assert!(
                text.replace('\n', " ").contains(words),
                "`{verb} --help` lacks {words:?}: {text}"
            );
        }
        let short = |verb: &clap::Command| verb.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(command.get_subcommands().all(|verb| !short(verb).is_empty()));
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
