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
/// volume that was recovered on another machine it is what only this machine has, also where it was sent before that was known.
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
    });
    // What could be told is worth having where not all of it could.
    if !all.is_empty() || reply.is_ok() {
        print(&all, context.json);
    }
    match reply? {
        Reply::Told => Ok(()),
        reply => Err(unexpected(&reply)),
    }
}

fn print(all: &[UnsentPath], json: bool) {
    if json {
        print_json(&all);
        return;
    }
    for unsent in all {
        let slash = if unsent.kind == "directory" { "/" } else { "" };
        say!("{}{slash}", output::name(&unsent.path));
    }
}
