//! `cessfs snapshot create|list|delete|diff NAME`.

use super::{Context, print_json};
use crate::control::client::{Client, unexpected};
use crate::control::{DiffEntry, Event, Op, Reply, SnapshotNumbers};
use crate::exit::Failure;
use crate::home::{VolumeDir, VolumeName};
use crate::moment;
use crate::output;
use crate::progress::Waiting;
use clap::{Args, Subcommand};
use std::time::{SystemTime, UNIX_EPOCH};

/// Keep the tree as it is, under a name
///
/// A snapshot costs one pack and no time per file, whatever the size of the volume. It is the directory .cessfs/snapshots/NAME
/// in the mount: read-only, with every content, permission, time and attribute as it was; `cp -a` restores from it. Contents
/// come from the network when they are read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs snapshot create photos before-sorting
  cessfs snapshot list photos
  cp -a ~/Photos/.cessfs/snapshots/before-sorting/2019 ~/Photos/
  cessfs snapshot delete photos before-sorting")]
pub struct SnapshotArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Take a snapshot of everything written so far
    #[command(after_help = "Examples:
  cessfs snapshot create photos
  cessfs snapshot create photos before-sorting
  cessfs snapshot create photos before-sorting && cessfs sync photos --wait")]
    Create {
        /// The volume
        name: VolumeName,
        /// What it is called [default: the time, as 2026-11-25T18:30:00Z]
        snapshot: Option<String>,
    },
    /// Tell the snapshots, the oldest first
    #[command(after_help = "Examples:
  cessfs snapshot list photos
  cessfs snapshot list photos --json | jq -r '.[] | select(.on_network) | .name'")]
    List {
        /// The volume
        name: VolumeName,
    },
    /// Delete a snapshot; what only it needed can be freed on the network
    #[command(after_help = "Examples:
  cessfs snapshot delete photos before-sorting")]
    Delete {
        /// The volume
        name: VolumeName,
        /// The snapshot
        snapshot: String,
    },
    /// Tell what was added, removed, changed or renamed since a snapshot
    #[command(after_help = "Examples:
  cessfs snapshot diff photos monday
  cessfs snapshot diff photos monday tuesday
  cessfs snapshot diff photos monday --json | jq -r '.[] | select(.change == \"removed\") | .path'")]
    Diff {
        /// The volume
        name: VolumeName,
        /// The older snapshot
        old: String,
        /// The newer one [default: the volume as it is now]
        new: Option<String>,
    },
}

/// Asks the daemon.
///
/// # Errors
/// [`Exit::NotMounted`](crate::exit::Exit::NotMounted), and those of the verb.
pub fn run(args: &SnapshotArgs, context: &Context) -> Result<(), Failure> {
    match &args.what {
        What::Create { name, snapshot } => create(&context.home.existing(name)?, snapshot.as_deref(), context),
        What::List { name } => list(&context.home.existing(name)?, context),
        What::Delete { name, snapshot } => {
            let op = Op::SnapshotDelete { name: snapshot.clone() };
            ask(&context.home.existing(name)?, op, &mut |_| ())?;
            if context.json {
                print_json(&serde_json::json!({ "deleted": snapshot }));
            }
            Ok(())
        }
        What::Diff { name, old, new } => {
            let op = Op::SnapshotDiff {
                old: old.clone(),
                new: new.clone(),
            };
            diff(&context.home.existing(name)?, op, context)
        }
    }
}

fn ask(volume: &VolumeDir, op: Op, tell: &mut dyn FnMut(Event)) -> Result<(), Failure> {
    match Client::connect(volume)?.call(op, tell)? {
        Reply::Told => Ok(()),
        other => Err(unexpected(&other)),
    }
}

fn create(volume: &VolumeDir, snapshot: Option<&str>, context: &Context) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = snapshot.map_or_else(|| moment::format(now.as_secs()), str::to_owned);
    let waiting = Waiting::on("handing over what is unsent");
    let mut taken = None;
    ask(volume, Op::SnapshotCreate { name }, &mut |event| {
        if let Event::Snapshot(numbers) = event {
            taken = Some(*numbers);
        }
    })?;
    drop(waiting);
    let taken = taken.unwrap_or_default();
    if context.json {
        print_json(&taken);
        return Ok(());
    }
    say!("{}", taken.name);
    if !taken.on_network {
        tell!(
            "it is on this disk, and on its way to the network; `cessfs sync {} --wait` waits for it",
            volume.name()
        );
    }
    Ok(())
}

fn list(volume: &VolumeDir, context: &Context) -> Result<(), Failure> {
    let mut all: Vec<SnapshotNumbers> = Vec::new();
    ask(volume, Op::SnapshotList, &mut |event| {
        if let Event::Snapshot(numbers) = event {
            all.push(*numbers);
        }
    })?;
    if context.json {
        print_json(&all);
        return Ok(());
    }
    for snapshot in all {
        let where_it_is = match snapshot.on_network {
            true => "on the network".to_owned(),
            false => format!("not on the network yet ({})", snapshot.state),
        };
        let taken = moment::format(snapshot.taken.max(0) as u64);
        say!(
            "{taken}  pack {:<6} {where_it_is:<16}  {}",
            snapshot.pack,
            snapshot.name
        );
    }
    Ok(())
}

fn diff(volume: &VolumeDir, op: Op, context: &Context) -> Result<(), Failure> {
    let waiting = Waiting::on("comparing");
    let mut all: Vec<DiffEntry> = Vec::new();
    ask(volume, op, &mut |event| {
        if let Event::Difference(entry) = event {
            all.push(*entry);
        }
    })?;
    drop(waiting);
    if context.json {
        print_json(&all);
        return Ok(());
    }
    for entry in all {
        let slash = if entry.kind == "directory" { "/" } else { "" };
        let path = output::name(&entry.path);
        match (entry.change.as_str(), &entry.from) {
            ("added", _) => say!("+ {path}{slash}"),
            ("removed", _) => say!("- {path}{slash}"),
            ("renamed", Some(from)) => say!("> {}{slash} -> {path}{slash}", output::name(from)),
            _ => say!("~ {path}{slash}"),
        }
    }
    Ok(())
}
