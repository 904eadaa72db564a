//! Quotas and what is in the trash.

use super::RecordError;
use super::codec::{Fields, VERSION, put_time};
use crate::attr::Timestamp;
use crate::limits::{NAME_BYTES_MAX, TRASH_PATH_BYTES_MAX};

/// How far a quota has been brought to the inodes of its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum QuotaPhase {
    /// Every inode of the tree counts for it.
    Active = 1,
    /// Inodes are being told that they count for it. Goes on at the next mount.
    Spreading = 2,
    /// Inodes are being told that they no longer do. Goes on at the next mount.
    Clearing = 3,
}

/// The quota of a directory's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaRecord {
    /// How far it has come.
    pub phase: QuotaPhase,
    /// Bytes at most, counted in allocated blocks of 4096; 0: any number.
    pub bytes_max: u64,
    /// Inodes at most, the directory itself included; 0: any number.
    pub inodes_max: u64,
}

impl QuotaRecord {
    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.phase as u8];
        out.extend_from_slice(&self.bytes_max.to_le_bytes());
        out.extend_from_slice(&self.inodes_max.to_le_bytes());
        out
    }

    /// The inverse of [`encode`](QuotaRecord::encode).
    pub fn decode(bytes: &[u8]) -> Result<QuotaRecord, RecordError> {
        let mut fields = Fields::open(bytes)?;
        let phase = match fields.u8()? {
            1 => QuotaPhase::Active,
            2 => QuotaPhase::Spreading,
            3 => QuotaPhase::Clearing,
            _ => return Err(RecordError::Field("quota phase")),
        };
        let (bytes_max, inodes_max) = (fields.u64()?, fields.u64()?);
        fields.end()?;
        Ok(QuotaRecord {
            phase,
            bytes_max,
            inodes_max,
        })
    }
}

/// Something in the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrashRecord {
    /// The inode. It has no links, and its record names this one.
    pub ino: u64,
    /// When it was deleted.
    pub deleted: Timestamp,
    /// The directory it was in.
    pub parent: u64,
    /// What it was called there.
    pub name: Vec<u8>,
    /// The path of that directory then, from the root and without a slash at the end; empty where it was not known (and for
    /// the root itself).
    pub dir: Vec<u8>,
}

impl TrashRecord {
    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(!self.name.is_empty() && self.name.len() <= NAME_BYTES_MAX);
        debug_assert!(self.dir.len() <= TRASH_PATH_BYTES_MAX);
        let mut out = Vec::with_capacity(32 + self.name.len() + self.dir.len());
        out.push(VERSION);
        out.extend_from_slice(&self.ino.to_le_bytes());
        put_time(&mut out, self.deleted);
        out.extend_from_slice(&self.parent.to_le_bytes());
        out.push(self.name.len() as u8);
        out.extend_from_slice(&self.name);
        out.extend_from_slice(&(self.dir.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.dir);
        out
    }

    /// The inverse of [`encode`](TrashRecord::encode).
    pub fn decode(bytes: &[u8]) -> Result<TrashRecord, RecordError> {
        let mut fields = Fields::open(bytes)?;
        let ino = fields.u64()?;
        let deleted = fields.time()?;
        let parent = fields.u64()?;
        let name_len = usize::from(fields.u8()?);
        let name = fields.bytes(name_len)?.to_vec();
        let dir_len = usize::from(fields.u16()?);
        let dir = fields.bytes(dir_len)?.to_vec();
        fields.end()?;
        if ino == 0 || name.is_empty() || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(RecordError::Field("trash"));
        }
        if dir.len() > TRASH_PATH_BYTES_MAX || dir.contains(&0) {
            return Err(RecordError::Field("trash path"));
        }
        Ok(TrashRecord {
            ino,
            deleted,
            parent,
            name,
            dir,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_round_trip_and_refuse_every_other_length() {
        let quota = QuotaRecord {
            phase: QuotaPhase::Spreading,
            bytes_max: 1 << 40,
            inodes_max: 7,
        };
        assert_eq!(
            quota.encode(),
            [&[1, 2][..], &(1u64 << 40).to_le_bytes(), &7u64.to_le_bytes()].concat()
        );
        assert_eq!(QuotaRecord::decode(&quota.encode()), Ok(quota));
        let trash = TrashRecord {
            ino: 9,
            deleted: Timestamp { secs: -3, nanos: 5 },
            parent: 1,
            name: b"cat.jpg".to_vec(),
            dir: b"/photos".to_vec(),
        };
        let bytes = trash.encode();
        assert_eq!(TrashRecord::decode(&bytes), Ok(trash.clone()));
        for len in 0..bytes.len() {
            assert!(TrashRecord::decode(&bytes[..len]).is_err(), "{len} bytes were accepted");
        }
        assert!(TrashRecord::decode(&[&bytes[..], &[0]].concat()).is_err());
        assert!(QuotaRecord::decode(&quota.encode()[..17]).is_err());
        assert!(
            QuotaRecord::decode(&[&[1, 4][..], &[0; 16]].concat()).is_err(),
            "an unknown phase"
        );
        let slash = TrashRecord {
            name: b"a/b".to_vec(),
            ..trash
        };
        assert!(TrashRecord::decode(&slash.encode()).is_err());
    }
}
