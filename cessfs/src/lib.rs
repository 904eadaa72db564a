//! `cessfs`: the command line, the daemon behind a mount, and the wiring of both.
//!
//! A library only so that fuzzing can reach its decoders; the program is [`main`], and nothing else is offered.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

#[macro_use]
mod output;

mod bench;
mod cli;
mod commands;
mod config;
mod control;
mod daemon;
mod exit;
mod fuse;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod home;
mod limits;
mod metered;
mod moment;
mod mountpoint;
mod network;
mod options;
mod progress;
mod secret;
mod seen;
mod signals;
mod steps;
mod survey;
mod timings;
mod units;
mod wiring;

use clap::Parser;
use std::process::ExitCode;

/// The program: runs the command line it was started with.
pub fn main() -> ExitCode {
    let closed = close_to_others();
    let given: Vec<_> = std::env::args_os().collect();
    let arguments = cli::arguments(given.clone());
    let word = (arguments != given).then(|| given[1].clone());
    let cli = cli::Cli::parse_from(arguments);
    if !cli.verb.makes_what_is_the_callers() {
        // For the files of a volume's own databases. Modes within a mount come with each request.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    }
    // `mount` chooses its own output: the daemon's log, or stderr in the foreground.
    if !matches!(cli.verb, cli::Verb::Mount(_)) {
        end_with_the_pipe();
        daemon::log::to_stderr(cli.global.level().unwrap_or(config::LogLevel::Warn));
    }
    if let Err(e) = closed {
        tracing::warn!("cannot forbid core dumps: {e}");
    }
    match commands::run(cli).and_then(|()| output::arrived()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let failure = match &word {
                Some(word) => cli::neither_verb_nor_volume(word, failure),
                None => failure,
            };
            tell!("cessfs: {}", output::sentence(&failure.to_string()));
            if let Some(hint) = &failure.hint {
                tell!("hint: {}", output::sentence(hint));
            }
            ExitCode::from(failure.exit.code())
        }
    }
}

/// Every verb may come to hold a passphrase, a phrase or keys: no core dumps, no ptrace by others of the same user, and what is in
/// /proc of this process is root's. Programs that it runs start anew, but for the limit.
fn close_to_others() -> nix::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    nix::sys::prctl::set_dumpable(false)?;
    let (_, most) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, 0, most)
}

/// `cessfs status | head` ends quietly when `head` has read enough, as every command does.
fn end_with_the_pipe() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no other thread runs yet, and the default action runs no code of this program.
    let set = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    set.expect("SIGPIPE has a default action");
}
