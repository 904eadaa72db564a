use super::*;
use crate::limits::{BUCKET_NAMES_MAX, NAME_BYTES_MAX, XATTR_VALUE_MAX};
use cessfs_sync::limits::CHUNK_BYTES;
use proptest::collection::vec;
use proptest::prelude::*;

fn kind() -> impl Strategy<Value = FileKind> {
    (1u8..=7).prop_map(|number| FileKind::from_u8(number).expect("1..=7 are kinds"))
}

fn time() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Timestamp { secs, nanos })
}

prop_compose! {
    fn inode()(
        kind in kind(),
        perm in 0u16..=0o7777,
        numbers in any::<[u32; 5]>(),
        sizes in any::<[u64; 2]>(),
        times in [time(), time(), time(), time()],
        parent in 1u64..,
        inline in any::<bool>(),
        target in vec(any::<u8>(), 1..=300),
        quota in any::<u64>(),
        trash in 1u64..,
    ) -> InodeRecord {
        let [nlink, uid, gid, rdev, xattrs] = numbers;
        let [size, blocks] = sizes;
        let [atime, mtime, ctime, btime] = times;
        InodeRecord {
            kind, perm, uid, gid, rdev, size, blocks, atime, mtime, ctime, btime,
            nlink: if kind == FileKind::Regular && nlink % 2 == 0 { 0 } else { nlink },
            parent: if kind == FileKind::Directory { parent } else { 0 },
            xattrs,
            inline: inline && kind == FileKind::Regular,
            target: if kind == FileKind::Symlink { target } else { Vec::new() },
            quota: if quota % 2 == 0 { quota } else { 0 },
            trash: if kind == FileKind::Regular && nlink % 2 == 0 { trash } else { 0 },
        }
    }
}

prop_compose! {
    fn extent()(
        stored in proptest::option::of((any::<[u8; 32]>(), 1u32..=CHUNK_BYTES as u32)),
        valid in 0u32..=CHUNK_BYTES as u32,
        flags in any::<[bool; 2]>(),
        blocks in any::<[u64; CHUNK_BLOCKS / 64]>(),
        reserved in proptest::option::of(any::<[u64; CHUNK_BLOCKS / 64]>()),
        kept in proptest::option::of((0u32..=CHUNK_BYTES as u32, any::<[u64; CHUNK_BLOCKS / 64]>())),
        over in any::<[u64; CHUNK_BLOCKS / 64]>(),
    ) -> Extent {
        let blocks = BlockMap(blocks);
        let mut reserved = BlockMap(reserved.unwrap_or_default());
        reserved.remove_all(&blocks);
        let kept = kept.filter(|_| stored.is_some() && flags[1]);
        let over = BlockMap(over).common(&blocks);
        let is_patched = kept.is_some() && !flags[0] && !over.is_empty();
        Extent {
            stored: stored.map(|(id, len)| (ChunkId(id), len)),
            valid,
            resident: flags[0] || (flags[1] && !is_patched),
            dirty: flags[1],
            blocks,
            reserved,
            kept: kept.map(|(valid, blocks)| Kept { valid, blocks: BlockMap(blocks) }),
            over: if is_patched { over } else { BlockMap::default() },
        }
    }
}

fn entry_name() -> impl Strategy<Value = Vec<u8>> {
    vec(1u8.., 1..=NAME_BYTES_MAX)
        .prop_map(|name| {
            name.into_iter()
                .map(|byte| if byte == b'/' { b'_' } else { byte })
                .collect::<Vec<u8>>()
        })
        .prop_filter("dots are no entries", |name| !matches!(&name[..], b"." | b".."))
}

fn bucket() -> impl Strategy<Value = DentryBucket> {
    let names = proptest::collection::btree_set(entry_name(), 1..5);
    (names, vec((1u64.., kind()), 5)).prop_map(|(names, rest)| {
        let dentries = names
            .into_iter()
            .zip(rest)
            .map(|(name, (ino, kind))| Dentry { name, ino, kind });
        DentryBucket(dentries.collect())
    })
}

fn xattrs() -> impl Strategy<Value = XattrBucket> {
    let names = proptest::collection::btree_set(vec(1u8.., 1..=255), 1..4);
    (names, vec(vec(any::<u8>(), 0..600), 4)).prop_map(|(names, values)| {
        XattrBucket(
            names
                .into_iter()
                .zip(values)
                .map(|(name, value)| Xattr { name, value })
                .collect(),
        )
    })
}

proptest! {
    #[test]
    fn what_is_encoded_decodes(inode in inode(), extent in extent(), bucket in bucket(), xattrs in xattrs(), n in any::<u64>()) {
        prop_assert_eq!(InodeRecord::decode(&inode.encode()), Ok(inode));
        prop_assert_eq!(Extent::decode(&extent.encode()), Ok(extent));
        prop_assert_eq!(DentryBucket::decode(&bucket.encode()), Ok(bucket));
        prop_assert_eq!(XattrBucket::decode(&xattrs.encode()), Ok(xattrs));
        prop_assert_eq!(decode_counter(&encode_counter(n)), Ok(n));
    }

    /// A flipped byte decodes to something else or not at all, but never to bytes that were not there.
    #[test]
    fn what_decodes_is_canonical(inode in inode(), extent in extent(), bucket in bucket(), xattrs in xattrs(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut bytes = inode.encode();
        let i = at.index(bytes.len());
        bytes[i] = with;
        if let Ok(other) = InodeRecord::decode(&bytes) { prop_assert_eq!(other.encode(), bytes); }
        let mut bytes = extent.encode();
        let i = at.index(bytes.len());
        bytes[i] = with;
        if let Ok(other) = Extent::decode(&bytes) { prop_assert_eq!(other.encode(), bytes); }
        let mut bytes = bucket.encode();
        let i = at.index(bytes.len());
        bytes[i] = with;
        if let Ok(other) = DentryBucket::decode(&bytes) { prop_assert_eq!(other.encode(), bytes); }
        let mut bytes = xattrs.encode();
        let i = at.index(bytes.len());
        bytes[i] = with;
        if let Ok(other) = XattrBucket::decode(&bytes) { prop_assert_eq!(other.encode(), bytes); }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(mut bytes in vec(any::<u8>(), 0..200), versioned in any::<bool>()) {
        if versioned && !bytes.is_empty() {
            bytes[0] = 1;
        }
        if let Ok(record) = InodeRecord::decode(&bytes) { prop_assert_eq!(record.encode(), &bytes[..]); }
        if let Ok(record) = Extent::decode(&bytes) { prop_assert_eq!(record.encode(), &bytes[..]); }
        if let Ok(record) = DentryBucket::decode(&bytes) { prop_assert_eq!(record.encode(), &bytes[..]); }
        if let Ok(record) = XattrBucket::decode(&bytes) { prop_assert_eq!(record.encode(), &bytes[..]); }
        let _ = decode_counter(&bytes);
        let _ = (parse_ino_key(&bytes), parse_dentry_key(&bytes), parse_extent_key(&bytes));
    }

    #[test]
    fn every_proper_prefix_is_short(inode in inode(), cut in any::<prop::sample::Index>()) {
        let bytes = inode.encode();
        prop_assert_eq!(InodeRecord::decode(&bytes[..cut.index(bytes.len())]), Err(RecordError::Short));
    }

    #[test]
    fn key_order_is_number_order(a in any::<(u64, u64)>(), b in any::<(u64, u64)>()) {
        prop_assert_eq!(dentry_key(a.0, a.1).cmp(&dentry_key(b.0, b.1)), a.cmp(&b));
        prop_assert_eq!(inode_key(a.0).cmp(&inode_key(b.0)), a.0.cmp(&b.0));
        prop_assert_eq!(parse_dentry_key(&dentry_key(a.0, a.1)), Ok(a));
        prop_assert_eq!(parse_extent_key(&extent_key(a.0, a.1)), Ok(a));
        prop_assert_eq!(parse_ino_key(&inode_key(a.0)).ok(), Some(a.0).filter(|number| *number < 1 << 63));
    }
}

/// The worked example of `docs/FORMAT-records.md`: these bytes are a promise.
#[test]
fn the_documented_symlink() {
    let time = Timestamp {
        secs: 0x0102_0304,
        nanos: 5,
    };
    let mut record = InodeRecord::new(FileKind::Symlink, 0o777, 1000, 1001, time);
    record.size = 2;
    record.target = b"ab".to_vec();
    let mut want = vec![1, 3, 0xFF, 0x01];
    want.extend([1, 0, 0, 0, 0xE8, 3, 0, 0, 0xE9, 3, 0, 0, 0, 0, 0, 0, 0]);
    want.extend([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for _ in 0..4 {
        want.extend([4, 3, 2, 1, 0, 0, 0, 0, 5, 0, 0, 0]);
    }
    want.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, b'a', b'b']);
    assert_eq!(record.encode(), want);
}

#[test]
fn the_documented_bucket() {
    let bucket = DentryBucket(vec![Dentry {
        name: b"etc".to_vec(),
        ino: 258,
        kind: FileKind::Directory,
    }]);
    assert_eq!(bucket.encode(), [1, 1, 2, 1, 0, 0, 0, 0, 0, 0, 2, 3, b'e', b't', b'c']);
    assert_eq!(
        dentry_key(1, 258),
        [b'd', 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2]
    );
}

#[test]
fn names_no_directory_may_hold_do_not_decode() {
    for name in [&b"."[..], b"..", b"a/b", b"a\0b"] {
        let dentry = Dentry {
            name: name.to_vec(),
            ino: 2,
            kind: FileKind::Regular,
        };
        assert_eq!(
            DentryBucket::decode(&DentryBucket(vec![dentry]).encode()),
            Err(RecordError::Field("name"))
        );
    }
    let twice = Dentry {
        name: b"a".to_vec(),
        ino: 2,
        kind: FileKind::Regular,
    };
    let bucket = DentryBucket(vec![twice.clone(), twice]);
    assert_eq!(DentryBucket::decode(&bucket.encode()), Err(RecordError::Field("name")));
}

#[test]
fn bounds_hold_when_decoding() {
    assert_eq!(DentryBucket::decode(&[1, 0]), Err(RecordError::Field("count")));
    assert_eq!(
        DentryBucket::decode(&[1, BUCKET_NAMES_MAX as u8 + 1]),
        Err(RecordError::Field("count"))
    );
    assert_eq!(InodeRecord::decode(&[2]), Err(RecordError::Version(2)));
    assert_eq!(InodeRecord::decode(&[]), Err(RecordError::Short));
    let mut xattr = vec![1, 1, 1];
    xattr.extend((XATTR_VALUE_MAX as u32 + 1).to_le_bytes());
    xattr.push(b'x');
    xattr.extend(vec![0; XATTR_VALUE_MAX + 1]);
    assert_eq!(XattrBucket::decode(&xattr), Err(RecordError::Field("xattr value")));
    let mut trailing = encode_counter(1);
    trailing.push(0);
    assert_eq!(decode_counter(&trailing), Err(RecordError::Trailing));
}
