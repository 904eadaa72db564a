//! `cessfs completions SHELL`.

use crate::cli::Cli;
use crate::exit::Failure;
use crate::output;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Print a shell's completion script
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs completions bash > /etc/bash_completion.d/cessfs
  cessfs completions zsh > ~/.zfunc/_cessfs
  cessfs completions fish > ~/.config/fish/completions/cessfs.fish")]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// None.
pub fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cessfs", &mut script);
    output::text(&String::from_utf8_lossy(&script));
    Ok(())
}
