//! `cessfs man DIR`: for packages.

use crate::cli::Cli;
use crate::exit::Failure;
use clap::{Args, CommandFactory};
use std::path::PathBuf;

/// Write the manual pages into a directory
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs man debian/tmp/usr/share/man/man1")]
pub struct ManArgs {
    /// Where to; it must exist
    dir: PathBuf,
}

/// Writes one page per verb.
///
/// # Errors
/// When the directory refuses.
pub fn run(args: &ManArgs) -> Result<(), Failure> {
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &args.dir)
        .map_err(|e| Failure::disk(format!("cannot write to {}", args.dir.display()), &e))
}
