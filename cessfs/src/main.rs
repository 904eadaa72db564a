//! `cessfs`: the command line, the daemon behind a mount, and the wiring of both.

mod cli;
mod commands;
mod config;
mod control;
mod daemon;
mod exit;
mod fuse;
mod home;
mod limits;
mod mountpoint;
mod options;
mod progress;
mod secret;
mod survey;
mod units;
mod wiring;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse_from(cli::arguments(std::env::args_os()));
    // `mount` chooses its own output: the daemon's log, or stderr in the foreground.
    if !matches!(cli.verb, cli::Verb::Mount(_)) {
        daemon::log::to_stderr(cli.global.level().unwrap_or(config::LogLevel::Warn));
    }
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cessfs: {failure}");
            if let Some(hint) = &failure.hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(failure.exit.code())
        }
    }
}
