//! The mark: a file beside the database that says how far the database has been.
//!
//! A database that lost the end of its log, or fell back to an older root, may open without a word and hold an older tree.
//! So a number in the database grows, and now and then, when the database has been made durable, the mark follows. A database
//! that is behind its mark has lost what was safe, and is refused.
//!
//! `<journal>/mark`, 24 bytes, little-endian: `CFSMARK1`, the number (8), the first 8 bytes of the SHA-256 of those 16. It is
//! overwritten in place, within one sector. A mark that cannot be read proves nothing, and is written anew.

use super::{StoreError, from_io};
use crate::erasure::sha256;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The number's key in the database.
pub(crate) const MARK_KEY: &[u8] = b"Smark";
const MAGIC: &[u8; 8] = b"CFSMARK1";
const MARK_BYTES: usize = 24;

pub(super) struct Mark {
    file: File,
    /// What the file says, if it can be read.
    pub(super) told: Option<u64>,
}

fn encode(number: u64) -> [u8; MARK_BYTES] {
    let mut out = [0; MARK_BYTES];
    out[..8].copy_from_slice(MAGIC);
    out[8..16].copy_from_slice(&number.to_le_bytes());
    let hash = sha256(&out[..16]);
    out[16..].copy_from_slice(&hash.0[..8]);
    out
}

fn decode(bytes: &[u8; MARK_BYTES]) -> Option<u64> {
    let (_, rest) = bytes.split_first_chunk::<8>()?;
    let number = u64::from_le_bytes(*rest.first_chunk()?);
    (encode(number) == *bytes).then_some(number)
}

impl Mark {
    /// The mark's file within the journal's directory.
    pub(super) const FILE: &str = "mark";

    /// Opens or makes the file.
    pub(super) fn open(dir: &Path) -> Result<Mark, StoreError> {
        let path = dir.join(Mark::FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(from_io)?;
        let mut bytes = [0; MARK_BYTES];
        let told = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => decode(&bytes),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => None,
            Err(e) => return Err(from_io(e)),
        };
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(from_io)?;
        Ok(Mark { file, told })
    }

    /// The database is durable with this number.
    pub(super) fn set(&mut self, number: u64) -> Result<(), StoreError> {
        self.file.write_all_at(&encode(number), 0).map_err(from_io)?;
        self.file.sync_data().map_err(from_io)?;
        self.told = Some(number);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_example() {
        let text = "43 46 53 4d 41 52 4b 31  07 00 00 00 00 00 00 00  fd c4 cc 54 39 da 30 f8";
        let spaced: Vec<String> = encode(7).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(spaced.join(" "), text.replace("  ", " "));
        assert!(include_str!("../../../docs/FORMAT-records.md").contains(text));
    }

    #[test]
    fn a_mark_reads_back_and_a_damaged_one_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut mark = Mark::open(dir.path()).unwrap();
        assert_eq!(mark.told, None);
        mark.set(0x0102_0304_0506_0708).unwrap();
        assert_eq!(Mark::open(dir.path()).unwrap().told, Some(0x0102_0304_0506_0708));
        let path = dir.path().join(Mark::FILE);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert_eq!(Mark::open(dir.path()).unwrap().told, None, "byte {at}");
        }
        std::fs::write(&path, &good[..10]).unwrap();
        assert_eq!(Mark::open(dir.path()).unwrap().told, None);
    }
}
