//! `cessfs evict NAME`.

use super::{Context, print_json};
use crate::control::client::{Client, unexpected};
use crate::control::{Op, Reply};
use crate::exit::Failure;
use crate::home::VolumeName;
use crate::progress::Waiting;
use crate::units;
use clap::Args;

/// Drop what the network has from the local cache
///
/// Only chunks that were read back from all twelve miners are dropped; the next read fetches them again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs sync photos --wait && cessfs evict photos
  cessfs evict photos --json")]
pub struct EvictArgs {
    /// The volume
    name: VolumeName,
}

/// Asks the daemon.
///
/// # Errors
/// [`Exit::NotMounted`](crate::exit::Exit::NotMounted).
pub fn run(args: &EvictArgs, context: &Context) -> Result<(), Failure> {
    let volume = context.home.existing(&args.name)?;
    let waiting = Waiting::on("evicting");
    let reply = Client::connect(&volume)?.call(Op::Evict, &mut |_| ())?;
    drop(waiting);
    let Reply::Evicted(evicted) = reply else {
        return Err(unexpected(&reply));
    };
    if context.json {
        print_json(&evicted);
        return Ok(());
    }
    say!("evicted {}", units::bytes(evicted.evicted_bytes));
    if evicted.kept_unconfirmed_chunks > 0 {
        tell!(
            "{} stay: {} chunks are not confirmed on the network yet (`cessfs sync {} --wait`)",
            units::bytes(evicted.kept_bytes),
            evicted.kept_unconfirmed_chunks,
            args.name
        );
    }
    Ok(())
}
