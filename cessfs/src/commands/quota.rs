//! `cessfs quota set|show|clear PATH`.

use super::{Context, print_json};
use crate::control::client::unexpected;
use crate::control::serving::serving;
use crate::control::{Event, Op, QuotaChange, QuotaNumbers, Reply};
use crate::exit::Failure;
use crate::mountpoint;
use crate::output;
use crate::progress::Waiting;
use crate::units;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

/// Limit how much a directory and all below it may hold
///
/// Bytes are those that `du` counts. What exceeds a limit fails with "Disk quota exceeded". Directories do not move between
/// trees with different quotas; programs copy them, as between file systems.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs quota set ~/Cloud/scans --bytes 20GiB --inodes 100000
  cessfs quota show ~/Cloud/scans --json | jq .[0].bytes_used")]
pub struct QuotaArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Set a limit, or change it
    #[command(after_help = "Examples:
  cessfs quota set ~/Cloud/scans --bytes 20GiB
  cessfs quota set ~/Cloud/scans --inodes 0")]
    Set {
        /// A directory inside a mounted volume
        path: PathBuf,
        /// Bytes at most, such as 20GiB; 0: any number
        #[arg(long, value_parser = units::parse_bytes, required_unless_present = "inodes")]
        bytes: Option<u64>,
        /// Files, directories and other inodes at most; 0: any number
        #[arg(long)]
        inodes: Option<u64>,
    },
    /// Tell the quota that something counts for
    #[command(after_help = "Examples:
  cessfs quota show ~/Cloud/scans/2026
  cessfs quota show ~/Cloud --all")]
    Show {
        /// Something inside a mounted volume
        path: PathBuf,
        /// All quotas of the volume that it lies in
        #[arg(long)]
        all: bool,
    },
    /// Take the quota from a directory
    #[command(after_help = "Examples:
  cessfs quota clear ~/Cloud/scans")]
    Clear {
        /// The directory it is set on
        path: PathBuf,
    },
}

/// Asks the daemon of the mount that the path lies in.
///
/// # Errors
/// [`Exit::NotMounted`](crate::exit::Exit::NotMounted) when the path is in no mounted volume of this home.
pub fn run(args: &QuotaArgs, context: &Context) -> Result<(), Failure> {
    let (path, change, all) = match &args.what {
        What::Set { path, bytes, inodes } => {
            let (bytes, inodes) = (*bytes, *inodes);
            (path, QuotaChange::Set { bytes, inodes }, false)
        }
        What::Show { path, all } => (path, QuotaChange::Show, *all),
        What::Clear { path } => (path, QuotaChange::Clear, false),
    };
    let quotas = ask(path, change, all, context)?;
    if context.json {
        print_json(&quotas);
    } else {
        if quotas.is_empty() && change == QuotaChange::Show {
            tell!("no quota holds here");
        }
        quotas.iter().for_each(print);
    }
    Ok(())
}

fn ask(path: &Path, change: QuotaChange, all: bool, context: &Context) -> Result<Vec<QuotaNumbers>, Failure> {
    let path = mountpoint::resolve(path)?;
    let mount = mountpoint::ours_of(&path)?;
    let mut client = serving(&mount, &context.home)?.client;
    let path_hex = (!all).then(|| hex::encode(mountpoint::path_within(&mount, &path)));
    let waiting = Waiting::on("counting");
    let mut quotas = Vec::new();
    let reply = client.call(Op::Quota { path_hex, change }, &mut |event| {
        if let Event::Quota(quota) = event {
            quotas.push(quota);
        }
    });
    drop(waiting);
    match reply.map_err(|failure| failure.about(&path))? {
        Reply::QuotaTold => Ok(quotas),
        other => Err(unexpected(&other)),
    }
}

fn print(quota: &QuotaNumbers) {
    let place = quota.path.clone().unwrap_or_else(|| format!("inode {}", quota.inode));
    say!("quota   {}", output::name(&place));
    match quota.bytes_max {
        0 => say!("bytes   {} of any number", units::bytes(quota.bytes_used)),
        max => say!("bytes   {} of {}", units::bytes(quota.bytes_used), units::bytes(max)),
    }
    match quota.inodes_max {
        0 => say!("inodes  {} of any number", quota.inodes_used),
        max => say!("inodes  {} of {max}", quota.inodes_used),
    }
}
