//! `cessfs repair NAME`.

use super::{Context, print_json};
use crate::control::client::{Client, unexpected};
use crate::control::{Op, Reply};
use crate::exit::{Exit, Failure};
use crate::home::VolumeName;
use crate::progress::Waiting;
use crate::units;
use clap::Args;

/// Rewrite damaged packs now
///
/// Takes every pack of which the last scrub saw a bad column, moves what lives in it to new miners, waits until the network
/// holds it there, and deletes the old pack when history allows it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs scrub photos && cessfs repair photos
  cessfs repair photos --json | jq .rewritten")]
pub struct RepairArgs {
    /// The volume
    name: VolumeName,
}

/// Asks the daemon.
///
/// # Errors
/// [`Exit::NotMounted`]; [`Exit::Partial`] when packs are lost.
pub fn run(args: &RepairArgs, context: &Context) -> Result<(), Failure> {
    let volume = context.home.existing(&args.name)?;
    let mut waiting = Waiting::on("rewriting damaged packs");
    let reply = Client::connect(&volume)?.call(Op::Repair, &mut |event| waiting.event(&event))?;
    drop(waiting);
    let Reply::Repaired(repaired) = reply else {
        return Err(unexpected(&reply));
    };
    if context.json {
        print_json(&repaired);
    } else {
        say!(
            "rewrote {} packs: {} chunks, {}",
            repaired.rewritten.len(),
            repaired.chunks,
            units::bytes(repaired.bytes)
        );
        if !repaired.deleted.is_empty() {
            say!("deleted {} old packs", repaired.deleted.len());
        }
    }
    if repaired.lost.is_empty() {
        return Ok(());
    }
    let what = format!("{} packs are lost: {:?}", repaired.lost.len(), repaired.lost);
    Err(Failure::new(Exit::Partial, what).hint(format!(
        "`cessfs status {}` names the files; their miners are asked again",
        args.name
    )))
}
