//! One file per verb. stdout carries data, stderr messages; every failure says what happened and what to do.

pub mod bench;
pub mod completions;
pub mod config;
pub mod doctor;
pub mod evict;
pub mod explain;
pub mod fsck;
pub mod gc;
pub mod init;
pub mod man;
pub mod metrics;
pub mod mount;
pub mod passphrase;
pub mod profile;
pub mod quota;
pub mod recover;
pub mod repair;
pub mod scrub;
pub mod snapshot;
pub mod status;
pub mod sync;
pub mod territory;
pub mod trash;
pub mod umount;
pub mod unsent;
pub mod volumes;

use crate::cli::{Cli, Verb};
use crate::exit::Failure;
use crate::home::Home;
use crate::output;
use serde::Serialize;

/// What every verb is given.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where volumes are.
    pub home: Home,
    /// Print JSON.
    pub json: bool,
}

/// Runs the verb.
///
/// # Errors
/// What the verb says.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let context = Context {
        home: Home::find(cli.global.home.as_deref())?,
        json: cli.global.json,
    };
    match cli.verb {
        Verb::Init(args) => init::run(&args, &context),
        Verb::Recover(args) => recover::run(&args, &context),
        Verb::Mount(args) => mount::run(&args, &context, &cli.global),
        Verb::Umount(args) => umount::run(&args, &context),
        Verb::Status(args) => status::run(&args, &context),
        Verb::Sync(args) => sync::run(&args, &context),
        Verb::Evict(args) => evict::run(&args, &context),
        Verb::Explain(args) => explain::run(&args, &context),
        Verb::Scrub(args) => scrub::run(&args, &context),
        Verb::Repair(args) => repair::run(&args, &context),
        Verb::Gc(args) => gc::run(&args, &context),
        Verb::Quota(args) => quota::run(&args, &context),
        Verb::Trash(args) => trash::run(&args, &context),
        Verb::Snapshot(args) => snapshot::run(&args, &context),
        Verb::Unsent(args) => unsent::run(&args, &context),
        Verb::Passphrase(args) => passphrase::run(&args, &context),
        Verb::Territory(args) => territory::run(&args, &context),
        Verb::Config(args) => config::run(&args, &context),
        Verb::Profile(args) => profile::run(&args, &context),
        Verb::Metrics(args) => metrics::run(&args, &context),
        Verb::Bench(args) => bench::run(&args, &context),
        Verb::Doctor(args) => doctor::run(&args, &context),
        Verb::Fsck(args) => fsck::run(&args, &context),
        Verb::Volumes(args) => volumes::run(&args, &context),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
    }
}

/// Prints a value as one JSON document on stdout.
pub fn print_json<T: Serialize>(value: &T) {
    let mut text = serde_json::to_string_pretty(value).expect("what verbs print has a JSON form");
    text.push('\n');
    output::text(&text);
}
