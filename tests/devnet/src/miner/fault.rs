//! The faults of a miner that outlive the process, in `fault.json` of its directory.
//!
//! Corrupted and forgotten fragments need no record: they are what is on the disk.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

const FILE: &str = "fault.json";

/// What is wrong with a miner, by order of a test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// Its server is off.
    pub stopped: bool,
    /// Delay before each answer, in milliseconds.
    pub slow_ms: u64,
}

impl Fault {
    /// The faults recorded in a miner's directory; none where nothing is recorded.
    ///
    /// # Errors
    /// The record cannot be read, or is not one.
    pub fn load(dir: &Path) -> io::Result<Fault> {
        match fs::read(dir.join(FILE)) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Fault::default()),
            Err(e) => Err(e),
        }
    }

    /// Records the faults, replacing the old record in one step.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        let part = dir.join("fault.json.part");
        fs::write(&part, serde_json::to_vec(self)?)?;
        fs::rename(part, dir.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_none_means_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Fault::load(dir.path()).unwrap(), Fault::default());
        let fault = Fault {
            stopped: true,
            slow_ms: 70,
        };
        fault.save(dir.path()).unwrap();
        assert_eq!(Fault::load(dir.path()).unwrap(), fault);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(
            Fault::load(dir.path()).is_err(),
            "a broken record is not taken for a sound miner"
        );
    }
}
