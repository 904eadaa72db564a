//! Keys: a letter, then big-endian numbers.

use super::RecordError;

/// First byte of inode keys.
pub const INODE_PREFIX: &[u8] = b"i";
/// First byte of dentry keys.
pub const DENTRY_PREFIX: &[u8] = b"d";
/// First byte of extent keys.
pub const EXTENT_PREFIX: &[u8] = b"e";
/// First byte of the keys of inline content.
pub const INLINE_PREFIX: &[u8] = b"b";
/// First byte of xattr keys.
pub const XATTR_PREFIX: &[u8] = b"x";
/// First byte of orphan keys.
pub const ORPHAN_PREFIX: &[u8] = b"o";
/// First byte of quota keys.
pub const QUOTA_PREFIX: &[u8] = b"q";
/// First byte of the keys of what is in the trash.
pub const TRASH_PREFIX: &[u8] = b"r";
/// First byte of the keys of snapshots.
pub const SNAPSHOT_PREFIX: &[u8] = b"n";
/// First byte of change marks.
pub const MARK_PREFIX: &[u8] = b"m";
/// First byte of singletons.
pub const SINGLETON_PREFIX: &[u8] = b"s";

/// A number above every inode number ever issued (a counter).
pub const NEXT_INO_KEY: &[u8] = b"snext-ino";
/// Number of inodes (a counter). Part of every batch that changes it.
pub const FILES_KEY: &[u8] = b"sinodes";
/// There while the volume is not mounted and was closed cleanly (a counter, 1).
pub const CLEAN_KEY: &[u8] = b"sclean";

fn one(prefix: &[u8], number: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + 8);
    key.extend_from_slice(prefix);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn two(prefix: &[u8], first: u64, second: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + 16);
    key.extend_from_slice(prefix);
    key.extend_from_slice(&first.to_be_bytes());
    key.extend_from_slice(&second.to_be_bytes());
    key
}

/// Key of an inode's record.
pub fn inode_key(ino: u64) -> Vec<u8> {
    one(INODE_PREFIX, ino)
}

/// Key of the names of directory `parent` with this hash.
pub fn dentry_key(parent: u64, hash: u64) -> Vec<u8> {
    two(DENTRY_PREFIX, parent, hash)
}

/// What the keys of all names of a directory start with.
pub fn dentry_prefix(parent: u64) -> Vec<u8> {
    one(DENTRY_PREFIX, parent)
}

/// Key of one chunk of a file.
pub fn extent_key(ino: u64, chunk: u64) -> Vec<u8> {
    two(EXTENT_PREFIX, ino, chunk)
}

/// What the keys of all chunks of a file start with.
pub fn extent_prefix(ino: u64) -> Vec<u8> {
    one(EXTENT_PREFIX, ino)
}

/// Key of an inline file's bytes.
pub fn inline_key(ino: u64) -> Vec<u8> {
    one(INLINE_PREFIX, ino)
}

/// Key of the xattrs of an inode with this hash.
pub fn xattr_key(ino: u64, hash: u64) -> Vec<u8> {
    two(XATTR_PREFIX, ino, hash)
}

/// What the keys of all xattrs of an inode start with.
pub fn xattr_prefix(ino: u64) -> Vec<u8> {
    one(XATTR_PREFIX, ino)
}

/// Key of the note that an inode without links is still open.
pub fn orphan_key(ino: u64) -> Vec<u8> {
    one(ORPHAN_PREFIX, ino)
}

/// Key of the quota of a directory's tree.
pub fn quota_key(ino: u64) -> Vec<u8> {
    one(QUOTA_PREFIX, ino)
}

/// Key of something in the trash. Ids grow: key order is the order of deletion.
pub fn trash_key(id: u64) -> Vec<u8> {
    one(TRASH_PREFIX, id)
}

/// Key of a snapshot.
pub fn snapshot_key(number: u64) -> Vec<u8> {
    one(SNAPSHOT_PREFIX, number)
}

fn number(bytes: &[u8]) -> Result<u64, RecordError> {
    let array = bytes.try_into().map_err(|_| RecordError::Field("key length"))?;
    Ok(u64::from_be_bytes(array))
}

/// Numbers are given one after the other: no volume gets to this one, and none after it is taken from a record either, so that a next
/// number can always be had.
const NUMBER_END: u64 = 1 << 63;

/// The number of an `i`, `b`, `n`, `o`, `q` or `r` key.
pub fn parse_ino_key(key: &[u8]) -> Result<u64, RecordError> {
    match number(key.get(1..).unwrap_or_default())? {
        NUMBER_END.. => Err(RecordError::Field("number in a key")),
        number => Ok(number),
    }
}

fn parse_two(key: &[u8]) -> Result<(u64, u64), RecordError> {
    if key.len() != 17 {
        return Err(RecordError::Field("key length"));
    }
    Ok((number(&key[1..9])?, number(&key[9..])?))
}

/// Directory and hash of a `d` key (or inode and hash of an `x` key).
pub fn parse_dentry_key(key: &[u8]) -> Result<(u64, u64), RecordError> {
    parse_two(key)
}

/// Inode and chunk of an `e` key.
pub fn parse_extent_key(key: &[u8]) -> Result<(u64, u64), RecordError> {
    parse_two(key)
}

#[cfg(test)]
mod tests {
    /// No two kinds of records, local or not, begin alike.
    #[test]
    fn every_kind_has_a_letter_of_its_own() {
        let deletion = crate::data::size::deletion_key(1);
        let kinds = [
            super::INODE_PREFIX,
            super::DENTRY_PREFIX,
            super::EXTENT_PREFIX,
            super::INLINE_PREFIX,
            super::XATTR_PREFIX,
            super::ORPHAN_PREFIX,
            super::QUOTA_PREFIX,
            super::TRASH_PREFIX,
            super::SNAPSHOT_PREFIX,
            super::MARK_PREFIX,
            super::SINGLETON_PREFIX,
            crate::delta::SAVED_PREFIX,
            crate::data::state::DIRTY_PREFIX,
            crate::data::logged::LOGGED_PREFIX,
            crate::data::passthrough::PASS_PREFIX,
            &deletion[..1],
        ];
        let letters: std::collections::BTreeSet<&[u8]> = kinds.into_iter().collect();
        assert_eq!(letters.len(), kinds.len());
        assert!(kinds.iter().all(|kind| kind.len() == 1));
    }
}
