//! The newest pack whose tree this machine knows to be on the network, for each volume: `HOME/seen/VOLUME-ID`.
//!
//! It outlives the volume's own directory. Who finds an older tree on the network than was seen here before is being shown an
//! old state, by a node that leaves packs out or by miners that withhold them (I13), and refuses unless told otherwise. And a
//! directory that is older than what was seen here was put back from a copy: nothing is written into it.

use crate::exit::{Exit, Failure};
use crate::home::{self, VolumeDir, trust};
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

/// What the network shows of a volume.
#[derive(Clone, Copy, Debug)]
pub enum Shown {
    /// The account lists packs up to this one.
    Listed(PackSeq),
    /// The tree of this pack is the newest that can be read.
    Readable(PackSeq),
}

/// Refuses what is older than this machine has seen (I13). `rpc` is where it was asked for.
///
/// # Errors
/// [`Exit::Refused`].
pub fn refuse_older(home: &Path, volume: VolumeId, rpc: &str, shown: Shown) -> Result<(), Failure> {
    let (Shown::Listed(pack) | Shown::Readable(pack)) = shown;
    let Some(seen) = newest(home, volume).filter(|seen| *seen > pack) else {
        return Ok(());
    };
    let what = match shown {
        Shown::Listed(_) => format!("{rpc} shows nothing newer than pack {}", pack.0),
        Shown::Readable(_) => format!(
            "the newest tree that can be read through {rpc} is that of pack {}",
            pack.0
        ),
    };
    let hint = match shown {
        Shown::Listed(_) => "ask another node; --allow-older takes what there is",
        Shown::Readable(_) => {
            "ask another node, or try again later, when miners that are away may be back; --allow-older takes what there is"
        }
    };
    let failure = Failure::new(
        Exit::Refused,
        format!("this machine has seen pack {} of this volume, but {what}", seen.0),
    );
    Err(failure.hint(hint))
}

/// Refuses to write into a directory that is behind what this machine has seen of its volume: `last` is the highest number of a pack
/// there.
///
/// # Errors
/// [`Exit::Refused`].
pub fn refuse_behind(volume: &VolumeDir, id: VolumeId, last: PackSeq) -> Result<(), Failure> {
    let Some(seen) = newest(volume.home(), id).filter(|seen| *seen > last) else {
        return Ok(());
    };
    let what = format!(
        "{} ends with pack {}, but this machine has seen pack {} of the volume on the network: the directory was put back from an \
         older copy, or the volume was recovered under another name",
        volume.path().display(),
        last.0,
        seen.0
    );
    Err(Failure::new(Exit::Refused, what).hint(format!(
        "mount the newer one; if there is none, move this one away and recover the volume with `cessfs recover {} …`; -o ro shows \
         what is here",
        volume.name()
    )))
}

/// Remembers that `pack` and all before it are on the network, unless a newer one is known.
///
/// # Errors
/// The disk refuses.
pub fn note(home: &Path, volume: VolumeId, pack: PackSeq) -> Result<(), Failure> {
    if newest(home, volume).is_some_and(|known| known >= pack) {
        return Ok(());
    }
    write(home, volume, pack)
}

/// Remembers `pack` even if a newer one was seen: the user accepted an older state.
///
/// # Errors
/// The disk refuses.
pub fn go_back(home: &Path, volume: VolumeId, pack: PackSeq) -> Result<(), Failure> {
    write(home, volume, pack)
}

fn write(home: &Path, volume: VolumeId, pack: PackSeq) -> Result<(), Failure> {
    let path = path(home, volume);
    let dir = path.parent().expect("it lies in HOME/seen");
    home::private_dir(dir)?;
    trust::check_dir(dir)?;
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

    #[test]
    fn nothing_is_written_where_others_could_lay_links() {
        use std::os::unix::fs::PermissionsExt;
        let tmp = tempfile::tempdir().unwrap();
        let volume = VolumeId([0xAB; 16]);
        note(tmp.path(), volume, PackSeq(5)).unwrap();
        let open = std::fs::Permissions::from_mode(0o1777);
        std::fs::set_permissions(tmp.path().join("seen"), open).unwrap();
        // What is there is believed all the same: it can only refuse more.
        assert_eq!(newest(tmp.path(), volume), Some(PackSeq(5)));
        assert_eq!(note(tmp.path(), volume, PackSeq(6)).unwrap_err().exit, Exit::Permission);
    }

    #[test]
    fn only_what_is_older_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let volume = VolumeId([0xAB; 16]);
        let refused = |shown| refuse_older(tmp.path(), volume, "ws://node", shown).err();
        assert!(refused(Shown::Listed(PackSeq(0))).is_none(), "nothing was seen yet");
        note(tmp.path(), volume, PackSeq(5)).unwrap();
        assert!(refused(Shown::Listed(PackSeq(5))).is_none());
        assert!(refused(Shown::Readable(PackSeq(6))).is_none());
        for shown in [Shown::Listed(PackSeq(4)), Shown::Readable(PackSeq(4))] {
            let failure = refused(shown).expect("it is older");
            let said = failure.to_string();
            assert!(
                failure.exit == Exit::Refused && said.contains("pack 5") && said.contains("pack 4"),
                "{said}"
            );
        }
    }
}
