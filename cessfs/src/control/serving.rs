//! From a mount to the daemon that serves it.
//!
//! A mount shows only the name of its volume, and another home may have a volume of that name, which is mounted elsewhere. Promises
//! that the daemon which is returned serves this very mount, by its device number: one mount may show in many places.

use super::Status;
use super::client::{self, Client};
use super::server;
use crate::exit::{Exit, Failure};
use crate::home::{Home, VolumeDir, VolumeName};
use crate::mountpoint::{self, MountEntry};
use crate::output;

/// A daemon and what it tells of itself, the chain apart.
#[derive(Debug)]
pub struct Serving {
    /// The connection.
    pub client: Client,
    /// How it is.
    pub status: Status,
}

/// The daemon of a mount of ours.
///
/// # Errors
/// [`Exit::NotMounted`] when it is not one of this home; what [`client::timings`] says otherwise.
pub fn serving(mount: &MountEntry, home: &Home) -> Result<Serving, Failure> {
    let absent = || {
        let what = format!(
            "the daemon of the mount on {} is not in {}",
            mount.dir.display(),
            home.path().display()
        );
        Failure::new(Exit::NotMounted, what).hint("give the home of the volume: --home DIR")
    };
    let dead = |name: &VolumeName| {
        let dir = mount.dir.display();
        Failure::new(Exit::NotMounted, format!("the daemon of the mount on {dir} has died")).hint(format!(
            "`cessfs mount {name} {}` starts another in its place",
            output::word(&mount.dir)
        ))
    };
    let volume = home.volume(&mount.volume().ok_or_else(absent)?);
    let told = Client::connect(&volume).and_then(|mut client| {
        let (_, status) = client::timings(&mut client)?;
        Ok(Serving { client, status })
    });
    match told {
        Ok(serving) if serving.status.device == Some(mount.device()) => Ok(serving),
        Ok(_) => Err(absent()),
        Err(failure) if failure.exit == Exit::NotMounted && mountpoint::is_dead(&mount.dir) => Err(dead(volume.name())),
        Err(failure) if failure.exit == Exit::NotMounted => Err(absent()),
        Err(failure) => Err(failure),
    }
}

/// What a daemon left that was killed, or fell over.
#[derive(Debug)]
pub struct Remains {
    /// The dead mount, if it is still there.
    pub mount: Option<MountEntry>,
}

impl Remains {
    /// `None` when the volume is in use, or its last daemon closed it. A mount does not show whose home its volume is of: one of another
    /// home that died, too, may be taken for this one.
    pub fn of(volume: &VolumeDir) -> Option<Remains> {
        if !server::is_left(volume) || volume.is_locked() {
            return None;
        }
        let mounts = mountpoint::mounts().unwrap_or_default();
        let ours = |mount: &&MountEntry| mount.may_be(volume) && mountpoint::is_dead(&mount.dir);
        Some(Remains {
            mount: mounts.iter().rev().find(ours).cloned(),
        })
    }
}
