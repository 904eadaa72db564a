//! What the daemon does about snapshots, and about what is unsent, when it is asked over the control socket.

use super::service::kind_name;
use super::tasks::blocking;
use crate::control::{DiffEntry, Event, Reply, SnapshotNumbers, UnsentPath};
use crate::exit::{Exit, Failure};
use crate::wiring::Volume;
use cessfs_sync::ledger::PackState;
use cessfs_vfs::snapshot::diff::{Change, Difference};
use cessfs_vfs::{Look, Snapshot, Tree, VfsError};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Takes one.
pub fn create(volume: &Volume, name: &str) -> Result<SnapshotNumbers, Failure> {
    let snapshot = volume.vfs.create_snapshot(name).map_err(|e| match e {
        VfsError::Exists => Failure::new(Exit::Exists, format!("there is already a snapshot `{name}`"))
            .hint("choose another name, or delete it first"),
        VfsError::Invalid(what) => Failure::new(Exit::Usage, what),
        VfsError::Busy => Failure::new(Exit::Busy, "writers were faster than this disk for too long")
            .hint("try again when less is written"),
        VfsError::ReadOnly => Failure::new(Exit::Refused, "the volume is read-only"),
        other => Failure::from(other),
    })?;
    Ok(numbers(volume, &snapshot))
}

fn numbers(volume: &Volume, snapshot: &Snapshot) -> SnapshotNumbers {
    let record = &snapshot.record;
    let state = volume.engine.pack_state(record.pack);
    SnapshotNumbers {
        name: record.name.clone(),
        taken: record.taken.secs,
        pack: record.pack.0,
        state: state.map_or_else(|| "unknown".to_owned(), |state| state.to_string()),
        // Packs travel side by side: all before it must be there too.
        on_network: state.is_some_and(|state| (PackState::Confirmed..PackState::Gone).contains(&state))
            && !volume.engine.has_unconfirmed_before(record.pack),
    }
}

/// Tells all of them.
pub async fn list(volume: &Arc<Volume>, events: &mpsc::Sender<Event>) -> Result<Reply, Failure> {
    for snapshot in volume.vfs.snapshots() {
        let told = Event::Snapshot(Box::new(numbers(volume, &snapshot)));
        if events.send(told).await.is_err() {
            break;
        }
    }
    Ok(Reply::Told)
}

/// Deletes one.
pub async fn delete(volume: &Arc<Volume>, name: String) -> Result<Reply, Failure> {
    let volume = volume.clone();
    blocking(move || {
        volume.vfs.delete_snapshot(&name).map_err(|e| match e {
            VfsError::NotFound => none_of_that_name(&name),
            VfsError::ReadOnly => Failure::new(Exit::Refused, "the volume is read-only"),
            other => Failure::from(other),
        })
    })
    .await?;
    Ok(Reply::Told)
}

fn none_of_that_name(name: &str) -> Failure {
    Failure::new(Exit::Failed, format!("there is no snapshot `{name}`"))
        .hint("`cessfs snapshot list NAME` tells their names")
}

async fn tree(volume: &Volume, name: &str) -> Result<Arc<Tree>, Failure> {
    let snapshot = volume.vfs.snapshot(name).ok_or_else(|| none_of_that_name(name))?;
    match volume.vfs.look_into(&snapshot) {
        Look::Tree(tree) => Ok(tree),
        Look::Wait(wait) => Ok(wait.await?),
    }
}

/// Tells how two trees differ.
pub async fn diff(
    volume: &Arc<Volume>,
    old: &str,
    new: Option<&str>,
    events: &mpsc::Sender<Event>,
) -> Result<Reply, Failure> {
    let old = tree(volume, old).await?;
    let new = match new {
        Some(name) => Some(tree(volume, name).await?),
        None => None,
    };
    let vfs = volume.vfs.clone();
    let differences = blocking(move || Ok(vfs.compare(&old, new.as_deref())?)).await?;
    for difference in &differences {
        if events
            .send(Event::Difference(Box::new(entry(difference))))
            .await
            .is_err()
        {
            break;
        }
    }
    Ok(Reply::Told)
}

fn entry(difference: &Difference) -> DiffEntry {
    let change = match difference.change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
        Change::Renamed => "renamed",
    };
    DiffEntry {
        change: change.to_owned(),
        kind: kind_name(difference.kind).to_owned(),
        path: String::from_utf8_lossy(&difference.path).into_owned(),
        path_hex: hex::encode(&difference.path),
        from: difference
            .from
            .as_ref()
            .map(|from| String::from_utf8_lossy(from).into_owned()),
        from_hex: difference.from.as_ref().map(hex::encode),
    }
}

/// Tells what is not known to be on the network.
pub async fn unsent(volume: &Arc<Volume>, events: &mpsc::Sender<Event>) -> Result<Reply, Failure> {
    // Reads all names, and two whole trees where they are compared: not among the tasks that wait for the network.
    let (vfs, tasks) = (volume.vfs.clone(), Handle::current());
    let unsents = blocking(move || Ok(tasks.block_on(vfs.unsent())?)).await?;
    for unsent in unsents.paths {
        let told = UnsentPath {
            path: String::from_utf8_lossy(&unsent.path).into_owned(),
            path_hex: hex::encode(&unsent.path),
            kind: kind_name(unsent.kind).to_owned(),
        };
        if events.send(Event::Unsent(Box::new(told))).await.is_err() {
            break;
        }
    }
    match unsents.untold {
        None => Ok(Reply::Told),
        Some(error) => Err(Failure::from(error).during(
            "what was sent from here after another machine had taken the volume over cannot be told, and is not listed",
        )
        .hint("try again when the network answers, and keep this machine's volume until then")),
    }
}
