//! `cessfs sync NAME [--wait]`.

use super::Context;
use crate::control::client::{self, Client, unexpected};
use crate::control::{Op, Reply};
use crate::exit::Failure;
use crate::home::VolumeName;
use crate::progress::SyncProgress;
use clap::Args;

/// Send off what was written
///
/// Without --wait the command returns when everything written so far would survive a power cut here and was handed to the
/// uploader. With --wait it returns when the network holds all of it: every pack is on chain at a finalized block and was read
/// back from all twelve miners.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs sync photos --wait
  cessfs sync photos --wait --timeout 600 || echo 'not all of it yet'")]
pub struct SyncArgs {
    /// The volume
    name: VolumeName,
    /// Return only when everything is confirmed on the network
    #[arg(long)]
    wait: bool,
    /// Give up waiting after so many seconds (exit code 14); the upload goes on
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
}

/// Asks the daemon.
///
/// # Errors
/// [`Exit::NotMounted`](crate::exit::Exit::NotMounted), [`Exit::Timeout`](crate::exit::Exit::Timeout).
pub fn run(args: &SyncArgs, context: &Context) -> Result<(), Failure> {
    let volume = context.home.existing(&args.name)?;
    let deadline = client::deadline(args.timeout);
    let mut progress = SyncProgress::start();
    let op = Op::Sync { wait: args.wait };
    let answer = Client::connect(&volume)?.call_until(op, deadline, &mut |event| progress.event(&event));
    let last = progress.finish();
    match answer {
        Ok(Reply::Synced) => Ok(()),
        Ok(other) => Err(unexpected(&other)),
        Err(failure) => Err(match last.and_then(|p| p.blocked) {
            Some(blocked) if failure.hint.is_none() => failure.hint(format!("the upload waits: {blocked}")),
            _ => failure,
        }),
    }
}
