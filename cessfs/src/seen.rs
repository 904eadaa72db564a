//! The newest pack this machine knows to be on the network, for each volume: `HOME/seen/VOLUME-ID`.
//!
//! It outlives the volume's own directory. A recovery that finds less than was seen here before is being shown an old state
//! by a node or by miners (I13), and refuses unless told otherwise.

use crate::exit::Failure;
use crate::home;
use cessfs_crypto::{PackSeq, VolumeId};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize)]
struct Seen {
    newest_pack: u64,
}

fn path(home: &Path, volume: VolumeId) -> PathBuf {
    home.join("seen").join(hex::encode(volume.0))
}

/// The newest pack seen; `None` if this machine never saw one, or the note cannot be read.
pub fn newest(home: &Path, volume: VolumeId) -> Option<PackSeq> {
    let text = std::fs::read(path(home, volume)).ok()?;
    let seen: Seen = serde_json::from_slice(&text).ok()?;
    Some(PackSeq(seen.newest_pack))
}

/// Remembers that `pack` is on the network, unless a newer one is known.
///
/// # Errors
/// The disk refuses.
pub fn note(home: &Path, volume: VolumeId, pack: PackSeq) -> Result<(), Failure> {
    if newest(home, volume).is_some_and(|known| known >= pack) {
        return Ok(());
    }
    write(home, volume, pack)
}

/// Remembers `pack` even if a newer one was seen: the user chose to go back.
///
/// # Errors
/// The disk refuses.
pub fn go_back(home: &Path, volume: VolumeId, pack: PackSeq) -> Result<(), Failure> {
    write(home, volume, pack)
}

fn write(home: &Path, volume: VolumeId, pack: PackSeq) -> Result<(), Failure> {
    let path = path(home, volume);
    home::private_dir(path.parent().expect("it lies in HOME/seen"))?;
    let text = serde_json::to_vec(&Seen { newest_pack: pack.0 }).expect("a number has a JSON form");
    home::replace(&path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_newer_packs_are_noted() {
        let tmp = tempfile::tempdir().unwrap();
        let home = tmp.path();
        let volume = VolumeId([0xAB; 16]);
        assert_eq!(newest(home, volume), None);
        note(home, volume, PackSeq(5)).unwrap();
        note(home, volume, PackSeq(4)).unwrap();
        assert_eq!(newest(home, volume), Some(PackSeq(5)));
        assert_eq!(newest(home, VolumeId([1; 16])), None);
        go_back(home, volume, PackSeq(2)).unwrap();
        assert_eq!(newest(home, volume), Some(PackSeq(2)));
    }
}
