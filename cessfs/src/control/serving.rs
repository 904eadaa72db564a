//! From a mount to the daemon that serves it.
//!
//! A mount shows only the name of its volume, and another home may have a volume of that name, which is mounted elsewhere. Promises
//! that the daemon which is returned serves this very mount, by its device number: one mount may show in many places.

use super::Status;
use super::client::{self, Client};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::mountpoint::MountEntry;

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
    let volume = home.volume(&mount.volume().ok_or_else(absent)?);
    let told = Client::connect(&volume).and_then(|mut client| {
        let (_, status) = client::timings(&mut client)?;
        Ok(Serving { client, status })
    });
    match told {
        Ok(serving) if serving.status.device == Some(mount.device()) => Ok(serving),
        Ok(_) => Err(absent()),
        Err(failure) if failure.exit == Exit::NotMounted => Err(absent()),
        Err(failure) => Err(failure),
    }
}
