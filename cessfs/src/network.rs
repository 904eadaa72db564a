//! `chain.json`: the network that a volume is on, told by the hash of its first block.
//!
//! Written when the volume is made, or by the first connection of one that has none; from then on a node of another network is
//! refused, since what is signed counts on the one that the node names.

use crate::exit::{Exit, Failure};
use crate::home::{self, VolumeDir};
use cessfs_sync::chain::Pin;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Network {
    genesis: String,
}

/// The network of a volume, or the one that is met first, which then becomes the volume's.
///
/// # Errors
/// [`Exit::Config`] when the file is there and says nothing.
pub fn pin(volume: &VolumeDir) -> Result<Pin, Failure> {
    let known = read(volume)?;
    let volume = volume.clone();
    Ok(Pin::new(known, move |genesis| match write(&volume, genesis) {
        Ok(()) => tracing::info!(
            genesis = hex::encode(genesis),
            "the volume is on this network from now on"
        ),
        Err(failure) => tracing::warn!("which network the volume is on is not kept: {failure}"),
    }))
}

fn read(volume: &VolumeDir) -> Result<Option<[u8; 32]>, Failure> {
    let path = volume.network();
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::disk(format!("cannot read {}", path.display()), &e)),
    };
    let network: Option<Network> = serde_json::from_slice(&text).ok();
    let mut genesis = [0; 32];
    match network.map(|network| hex::decode_to_slice(network.genesis, &mut genesis)) {
        Some(Ok(())) => Ok(Some(genesis)),
        _ => Err(
            Failure::new(Exit::Config, format!("{} names no network", path.display()))
                .hint("remove it if you trust the node at `rpc`: the network that it is of becomes the volume's"),
        ),
    }
}

/// Makes a network that of a volume.
///
/// # Errors
/// The disk refuses.
pub fn write(volume: &VolumeDir, genesis: [u8; 32]) -> Result<(), Failure> {
    let network = Network {
        genesis: hex::encode(genesis),
    };
    let text = serde_json::to_vec(&network).expect("a text has a JSON form");
    home::replace(&volume.network(), &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    #[test]
    fn a_volume_stays_on_its_network() {
        let tmp = tempfile::tempdir().unwrap();
        let volume = Home::find(Some(tmp.path())).unwrap().volume(&"v".parse().unwrap());
        volume.create().unwrap();
        assert_eq!(read(&volume).unwrap(), None);
        pin(&volume).unwrap();
        assert_eq!(read(&volume).unwrap(), None, "nothing was met yet");
        write(&volume, [7; 32]).unwrap();
        assert_eq!(read(&volume).unwrap(), Some([7; 32]));
        for damaged in ["", "{}", "{\"genesis\":\"07\"}"] {
            std::fs::write(volume.network(), damaged).unwrap();
            assert_eq!(
                pin(&volume).err().map(|failure| failure.exit),
                Some(Exit::Config),
                "{damaged}"
            );
        }
    }
}
