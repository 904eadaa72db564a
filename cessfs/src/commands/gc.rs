//! `cessfs gc NAME`.

use super::{Context, print_json};
use crate::control::client::{Client, unexpected};
use crate::control::{Op, Reply};
use crate::exit::Failure;
use crate::home::VolumeName;
use crate::progress::Waiting;
use crate::units;
use clap::Args;

/// Give back the space of what was deleted
///
/// Moves what lives in packs that are mostly dead or mostly padding into new ones, waits until the network holds it there, and
/// deletes the old ones from the chain. Packs that a point of the past needs stay until `gc.keep_history` is over; what is in
/// the trash, and what a snapshot needs, lives. The same happens in the background (`gc` in volume.toml); this does it now.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs gc photos --dry-run
  cessfs gc photos --json | jq .freed_bytes")]
pub struct GcArgs {
    /// The volume
    name: VolumeName,
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Asks the daemon.
///
/// # Errors
/// [`Exit::NotMounted`](crate::exit::Exit::NotMounted); what the chain says.
pub fn run(args: &GcArgs, context: &Context) -> Result<(), Failure> {
    let volume = context.home.existing(&args.name)?;
    let mut waiting = Waiting::on("collecting what is dead");
    let op = Op::Collect { dry_run: args.dry_run };
    let reply = Client::connect(&volume)?.call(op, &mut |event| waiting.event(&event))?;
    drop(waiting);
    let Reply::Collected(collected) = reply else {
        return Err(unexpected(&reply));
    };
    if context.json {
        print_json(&collected);
        return Ok(());
    }
    say!(
        "live      {}, dead {} (padding included)",
        units::bytes(collected.live_bytes),
        units::bytes(collected.dead_bytes)
    );
    say!(
        "{}   {} packs, of which {} move: {} of territory to gain",
        if args.dry_run { "would empty" } else { "emptied    " },
        collected.chosen.len(),
        units::bytes(collected.moving_bytes),
        units::bytes(collected.gain_bytes)
    );
    if !args.dry_run {
        say!(
            "deleted   {} packs, {} of territory",
            collected.deleted.len(),
            units::bytes(collected.freed_bytes)
        );
    }
    if !collected.kept.is_empty() {
        say!(
            "kept      {} empty packs, for the history (`gc.keep_history`)",
            collected.kept.len()
        );
    }
    Ok(())
}
