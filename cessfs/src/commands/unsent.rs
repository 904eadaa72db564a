//! `cessfs unsent NAME`.

use super::{Context, print_json};
use crate::control::client::{Client, unexpected};
use crate::control::{Event, Op, Reply, UnsentPath};
use crate::exit::Failure;
use crate::home::VolumeName;
use crate::output;
use clap::Args;

/// List what is not known to be on the network
///
/// Files and directories whose content, attributes or names changed since the last pack that the network is known to hold. On a
/// volume that was recovered on another machine it is what only this machine has.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs unsent photos
  cessfs unsent photos --json | jq -r '.[] | select(.kind == \"file\") | .path'")]
pub struct UnsentArgs {
    /// The volume
    name: VolumeName,
}

/// Asks the daemon.
///
/// # Errors
/// [`Exit::NotMounted`](crate::exit::Exit::NotMounted).
pub fn run(args: &UnsentArgs, context: &Context) -> Result<(), Failure> {
    let volume = context.home.existing(&args.name)?;
    let mut all: Vec<UnsentPath> = Vec::new();
    let reply = Client::connect(&volume)?.call(Op::Unsent, &mut |event| {
        if let Event::Unsent(path) = event {
            all.push(*path);
        }
    })?;
    if reply != Reply::Told {
        return Err(unexpected(&reply));
    }
    if context.json {
        print_json(&all);
        return Ok(());
    }
    for unsent in all {
        let slash = if unsent.kind == "directory" { "/" } else { "" };
        say!("{}{slash}", output::name(&unsent.path));
    }
    Ok(())
}
