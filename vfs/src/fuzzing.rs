//! What hostile bytes must not do to deltas and checkpoints, to records, and to access control lists.
//!
//! Each function takes any input and panics where a promise is broken: refused, or the one encoding of what was read. They run
//! over `fuzz/corpus` in the tests below, and under cargo-fuzz. Deltas come out of sealed frames, so this is the second wall, not
//! the first.

use crate::acl::Acl;
use crate::check::check_tree;
use crate::delta::frame::{FrameWriter, apply_delta, decode_frame};
use crate::records::{
    DentryBucket, Extent, InodeRecord, QuotaRecord, SnapshotRecord, TrashRecord, XattrBucket, decode_counter,
    decode_pair, encode_counter, encode_pair,
};
use crate::restore;
use cessfs_crypto::{Entropy, Phrase, VolumeId, VolumeKeys};
use cessfs_sync::store::MemStore;
use std::sync::LazyLock;

static KEYS: LazyLock<VolumeKeys> =
    LazyLock::new(|| Phrase::generate(&mut Zeros).secret().volume_keys(VolumeId([1; 16])));

/// Nothing here is a secret.
struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(0);
    }
}

/// A frame of a delta or a checkpoint. What is accepted is replayed into an empty store, checked, and restored: whatever it
/// says, that ends with findings or an error.
pub fn delta(input: &[u8]) {
    let Ok(records) = decode_frame(input) else { return };
    let mut again = Vec::new();
    let mut sink = |frame: &[u8]| {
        again.push(frame.to_vec());
        Ok(())
    };
    let mut writer = FrameWriter::new(&mut sink);
    for (key, value) in &records {
        writer.record(key, value.as_deref()).expect("it was in a frame");
    }
    writer.flush().expect("the sink takes everything");
    assert_eq!(again, [input], "one encoding");

    let store = MemStore::new();
    apply_delta([input], &store).expect("an accepted frame is replayed");
    // Damaged records are errors, broken trees are findings.
    let _ = check_tree(&store, &KEYS);
    if restore::finish(&store, &KEYS, &|_| Ok(false)).is_ok() {
        check_tree(&store, &KEYS).expect("what was restored can be checked");
    }
}

/// A record of the metadata store; the first byte chooses the kind.
pub fn records(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let again = match kind % 10 {
        0 => InodeRecord::decode(bytes).map(|record| record.encode()),
        1 => Extent::decode(bytes).map(|record| record.encode()),
        2 => DentryBucket::decode(bytes).map(|record| record.encode()),
        3 => XattrBucket::decode(bytes).map(|record| record.encode()),
        4 => QuotaRecord::decode(bytes).map(|record| record.encode()),
        5 => TrashRecord::decode(bytes).map(|record| record.encode()),
        6 => decode_counter(bytes).map(encode_counter),
        7 => decode_pair(bytes).map(|(first, second)| encode_pair(first, second)),
        9 => SnapshotRecord::decode(bytes).map(|record| record.encode()),
        _ => return list(bytes),
    };
    if let Ok(again) = again {
        assert_eq!(again, bytes, "one encoding");
    }
}

fn list(bytes: &[u8]) {
    let Ok(Some(acl)) = Acl::parse(bytes) else { return };
    assert!(acl.mode() <= 0o777);
    let same = acl.with_mode(acl.mode());
    assert_eq!(same.mode(), acl.mode(), "a mode put into a list is its mode");
    let again = Acl::parse(&acl.encode()).expect("what was encoded is read");
    assert_eq!(again, Some(acl));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::{FileKind, Timestamp};
    use crate::inode::ROOT_INO;
    use crate::records::{
        BlockMap, Dentry, Kept, QuotaPhase, Xattr, dentry_key, extent_key, inline_key, inode_key, xattr_key,
    };
    use cessfs_crypto::ChunkId;
    use cessfs_crypto::PackSeq;
    use cessfs_fuzz::{Bound, Counting, replay, seeds};

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    /// A frame is replayed into a store that keeps its history, so each record is held a few times.
    const BOUND: Bound = Bound {
        fixed: 256 << 10,
        per_byte: 64,
    };
    const NOW: Timestamp = Timestamp {
        secs: 1_700_000_000,
        nanos: 5,
    };

    fn inode(kind: FileKind) -> InodeRecord {
        let mut record = InodeRecord::new(kind, 0o755, 1000, 1001, NOW);
        match kind {
            FileKind::Directory => record.parent = ROOT_INO,
            FileKind::Symlink => record.target = b"ab".to_vec(),
            _ => {}
        }
        record
    }

    fn frame(records: &[(Vec<u8>, Option<Vec<u8>>)]) -> Vec<u8> {
        let mut frames = Vec::new();
        let mut sink = |frame: &[u8]| {
            frames.extend_from_slice(frame);
            Ok(())
        };
        let mut writer = FrameWriter::new(&mut sink);
        for (key, value) in records {
            writer.record(key, value.as_deref()).unwrap();
        }
        writer.flush().unwrap();
        frames
    }

    /// A root with one small file that has an attribute.
    fn tree() -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let at_rest = KEYS.at_rest();
        let mut file = inode(FileKind::Regular);
        (file.size, file.blocks, file.xattrs) = (5, 1, 1);
        let name = Dentry {
            name: b"file".to_vec(),
            ino: 2,
            kind: FileKind::Regular,
        };
        let attribute = Xattr {
            name: b"user.a".to_vec(),
            value: b"value".to_vec(),
        };
        vec![
            (inode_key(ROOT_INO), Some(inode(FileKind::Directory).encode())),
            (inode_key(2), Some(file.encode())),
            (
                dentry_key(ROOT_INO, at_rest.name_hash(ROOT_INO, b"file")),
                Some(DentryBucket(vec![name]).encode()),
            ),
            (inline_key(2), Some(b"hello".to_vec())),
            (
                xattr_key(2, at_rest.name_hash(2, b"user.a")),
                Some(XattrBucket(vec![attribute]).encode()),
            ),
        ]
    }

    #[test]
    fn deltas_and_checkpoints() {
        let store = MemStore::new();
        apply_delta([frame(&tree())], &store).unwrap();
        let restored = restore::finish(&store, &KEYS, &|_| Ok(true)).unwrap();
        assert_eq!(
            (restored.findings, restored.files),
            (Vec::<String>::new(), 2),
            "the seed is a whole tree"
        );
        let gone = "43465344 01 01000000 11 65 0000000000000005 0000000000000002 ffffffff".replace(' ', "");
        let gone: Vec<u8> = (0..gone.len() / 2)
            .map(|i| u8::from_str_radix(&gone[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        // The worked example of docs/FORMAT-delta.md.
        assert_eq!(decode_frame(&gone), Ok(vec![(extent_key(5, 2), None)]));
        seeds("delta", &[("tree", frame(&tree())), ("gone", gone)]);
        replay("delta", delta, BOUND);
    }

    #[test]
    fn every_kind_of_record() {
        let of = |kind: u8, bytes: Vec<u8>| [vec![kind], bytes].concat();
        let extent = Extent {
            stored: Some((ChunkId([3; 32]), 1 << 20)),
            valid: 1 << 20,
            resident: true,
            dirty: false,
            blocks: BlockMap([u64::MAX; 4]),
            reserved: BlockMap::default(),
            kept: None,
            over: BlockMap::default(),
        };
        let patched = Extent {
            resident: false,
            dirty: true,
            kept: Some(Kept {
                valid: 9000,
                blocks: BlockMap([7, 0, 0, 0]),
            }),
            over: BlockMap([2, 0, 0, 0]),
            ..extent
        };
        let bucket = DentryBucket(vec![Dentry {
            name: b"etc".to_vec(),
            ino: 258,
            kind: FileKind::Directory,
        }]);
        let xattrs = XattrBucket(vec![Xattr {
            name: b"user.a".to_vec(),
            value: vec![1, 2, 3],
        }]);
        let quota = QuotaRecord {
            phase: QuotaPhase::Active,
            bytes_max: 1 << 30,
            inodes_max: 0,
        };
        let trash = TrashRecord {
            ino: 9,
            deleted: NOW,
            parent: 1,
            name: b"cat.jpg".to_vec(),
            dir: b"/photos".to_vec(),
        };
        let snapshot = SnapshotRecord {
            pack: PackSeq(300),
            taken: NOW,
            name: "monday".into(),
            root: inode(FileKind::Directory),
        };
        let acl = [
            &[2, 0, 0, 0][..],
            &[1, 0, 6, 0, 255, 255, 255, 255],
            &[2, 0, 4, 0, 0xe8, 3, 0, 0],
            &[4, 0, 4, 0, 255, 255, 255, 255],
            &[16, 0, 4, 0, 255, 255, 255, 255],
            &[32, 0, 4, 0, 255, 255, 255, 255],
        ];
        seeds(
            "records",
            &[
                ("file", of(0, inode(FileKind::Regular).encode())),
                ("directory", of(0, inode(FileKind::Directory).encode())),
                ("symlink", of(0, inode(FileKind::Symlink).encode())),
                ("extent", of(1, extent.encode())),
                ("extent, patched", of(1, patched.encode())),
                ("names", of(2, bucket.encode())),
                ("xattrs", of(3, xattrs.encode())),
                ("quota", of(4, quota.encode())),
                ("trash", of(5, trash.encode())),
                ("counter", of(6, encode_counter(7))),
                ("pair", of(7, encode_pair(7, 8))),
                ("acl", of(8, acl.concat())),
                ("snapshot", of(9, snapshot.encode())),
            ],
        );
        replay("records", records, BOUND);
    }
}
