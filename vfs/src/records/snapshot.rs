//! Snapshots: a name for the tree as of a pack.

use super::codec::{Fields, VERSION, put_time};
use super::{InodeRecord, RecordError};
use crate::attr::{FileKind, Timestamp};
use crate::limits::SNAPSHOT_NAME_BYTES_MAX;
use cessfs_crypto::PackSeq;

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// The tree is the one that the deltas up to this pack make.
    pub pack: PackSeq,
    /// When it was taken.
    pub taken: Timestamp,
    /// Its name.
    pub name: String,
    /// The root directory as it was then: what `stat` tells of the snapshot before anything of it was read.
    pub root: InodeRecord,
}

/// Whether a snapshot may be called so: 1..=128 bytes without slashes and control characters that do not begin with a dot or
/// a dash.
pub fn is_snapshot_name(name: &str) -> bool {
    (1..=SNAPSHOT_NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && !name.chars().any(|c| c == '/' || c.is_control())
}

impl SnapshotRecord {
    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(is_snapshot_name(&self.name));
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.pack.0.to_le_bytes());
        put_time(&mut out, self.taken);
        out.push(self.name.len() as u8);
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(&self.root.encode());
        out
    }

    /// The inverse of [`encode`](SnapshotRecord::encode).
    pub fn decode(bytes: &[u8]) -> Result<SnapshotRecord, RecordError> {
        let mut fields = Fields::open(bytes)?;
        let pack = PackSeq(fields.u64()?);
        let taken = fields.time()?;
        let name_len = usize::from(fields.u8()?);
        let name = std::str::from_utf8(fields.bytes(name_len)?).map_err(|_| RecordError::Field("snapshot name"))?;
        let root = InodeRecord::decode(fields.rest())?;
        if pack.0 == 0 || !is_snapshot_name(name) || root.kind != FileKind::Directory {
            return Err(RecordError::Field("snapshot"));
        }
        Ok(SnapshotRecord {
            pack,
            taken,
            name: name.to_owned(),
            root,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_round_trips_and_refuses_every_other_length() {
        let now = Timestamp { secs: 7, nanos: 8 };
        let mut root = InodeRecord::new(FileKind::Directory, 0o755, 1, 2, now);
        root.parent = 1;
        let record = SnapshotRecord {
            pack: PackSeq(300),
            taken: now,
            name: "before the move".into(),
            root,
        };
        let bytes = record.encode();
        assert_eq!(bytes[..9], [1, 0x2C, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(SnapshotRecord::decode(&bytes), Ok(record.clone()));
        for len in 0..bytes.len() {
            assert!(
                SnapshotRecord::decode(&bytes[..len]).is_err(),
                "{len} bytes were accepted"
            );
        }
        assert!(SnapshotRecord::decode(&[&bytes[..], &[0]].concat()).is_err());
        let mut file = record;
        (file.root.kind, file.root.parent) = (FileKind::Regular, 0);
        assert!(SnapshotRecord::decode(&file.encode()).is_err(), "a root is a directory");
    }

    #[test]
    fn names() {
        for (name, fine) in [
            ("monday", true),
            ("2026-11-25T10:00:00Z", true),
            ("vor dem Umzug", true),
            ("", false),
            (".", false),
            ("..", false),
            (".hidden", false),
            ("-f", false),
            ("a/b", false),
            ("line\nbreak", false),
        ] {
            assert_eq!(is_snapshot_name(name), fine, "{name:?}");
        }
        assert!(is_snapshot_name(&"x".repeat(128)) && !is_snapshot_name(&"x".repeat(129)));
    }
}
