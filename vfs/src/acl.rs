//! POSIX access control lists, in the form the kernel gives and takes them: the value of the xattrs
//! `system.posix_acl_access` and `system.posix_acl_default`. Pure.
//!
//! | offset | bytes | meaning (little-endian; `linux/posix_acl_xattr.h`) |
//! |---|---|---|
//! | 0 | 4 | version, 2 |
//! | 4 + 8 n | 2 | tag of entry n: 1 owner, 2 user, 4 owning group, 8 group, 16 mask, 32 other |
//! | 6 + 8 n | 2 | permissions: 4 read, 2 write, 1 execute |
//! | 8 + 8 n | 4 | uid or gid of a user or group entry; all ones in the others |
//!
//! Owner and group, `setfacl -m u:1000:r`, are in bytes `02000000 01000600ffffffff 02000400e8030000 04000400ffffffff
//! 10000400ffffffff 20000400ffffffff`.
//!
//! An access list and the permission bits of the mode say the same thing twice: owner, mask (owning group where there is
//! no mask) and other. The mode is the truth, and a list is told with the mode's bits in it ([`Acl::with_mode`]); so a
//! `chmod` changes both by changing one. The rules are those of `fs/posix_acl.c`.

/// Version of the form; Linux knows no other.
const VERSION: u32 = 2;
const HEAD_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// The id of entries that need none.
const NO_ID: u32 = u32::MAX;
/// Read, write, execute.
const PERM_MASK: u16 = 0o7;
/// The part of a mode that a list says too.
const MODE_MASK: u16 = 0o777;

/// Whom an entry is for, in the order the entries of a list have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// The owner.
    Owner,
    /// This user.
    User(u32),
    /// The owning group.
    OwningGroup,
    /// This group.
    Group(u32),
    /// The most that any user, owning group or group entry gives.
    Mask,
    /// Everybody else.
    Other,
}

/// One line of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// For whom.
    pub tag: Tag,
    /// 4 read, 2 write, 1 execute.
    pub perm: u16,
}

/// A valid list: owner, owning group and other once each, a mask at most once and always beside user or group entries,
/// all in the order of [`Tag`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<Entry>);

/// Why bytes are no list. The kernel says `EINVAL` to all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// Too short, or not a whole number of entries.
    #[error("an ACL of the wrong length")]
    Length,
    /// Another version.
    #[error("an ACL of another version")]
    Version,
    /// A tag or permission bits that do not exist.
    #[error("an ACL entry with an unknown tag or permission")]
    Entry,
    /// An entry missing, twice, or out of order.
    #[error("an ACL with an entry missing, twice or out of order")]
    Order,
}

impl Acl {
    /// Reads a value. `None` is a list without entries: setting it means to have none.
    ///
    /// # Errors
    /// When it is not what the kernel would take.
    pub fn parse(value: &[u8]) -> Result<Option<Acl>, AclError> {
        let (head, body) = value.split_first_chunk::<HEAD_BYTES>().ok_or(AclError::Length)?;
        if u32::from_le_bytes(*head) != VERSION {
            return Err(AclError::Version);
        }
        let (entries, []) = body.as_chunks::<ENTRY_BYTES>() else {
            return Err(AclError::Length);
        };
        if entries.is_empty() {
            return Ok(None);
        }
        let entries = entries
            .iter()
            .map(Entry::parse)
            .collect::<Result<Vec<Entry>, AclError>>()?;
        let acl = Acl(entries);
        acl.check_order()?;
        Ok(Some(acl))
    }

    /// The value that [`parse`](Acl::parse) reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(HEAD_BYTES + ENTRY_BYTES * self.0.len());
        value.extend(VERSION.to_le_bytes());
        for entry in &self.0 {
            value.extend(entry.encode());
        }
        value
    }

    fn check_order(&self) -> Result<(), AclError> {
        let mut last = 0;
        let mut named = false;
        let mut masked = false;
        for entry in &self.0 {
            let (number, _) = entry.tag.encode();
            let may_repeat = matches!(entry.tag, Tag::User(_) | Tag::Group(_));
            if number < last || (number == last && !may_repeat) {
                return Err(AclError::Order);
            }
            last = number;
            named |= may_repeat;
            masked |= entry.tag == Tag::Mask;
        }
        let has = |tag| self.0.iter().any(|entry| entry.tag == tag);
        let whole = has(Tag::Owner) && has(Tag::OwningGroup) && has(Tag::Other);
        if whole && (masked || !named) {
            Ok(())
        } else {
            Err(AclError::Order)
        }
    }

    /// The list says nothing that a mode could not say: only owner, owning group and other.
    pub fn is_mode_only(&self) -> bool {
        self.0
            .iter()
            .all(|entry| matches!(entry.tag, Tag::Owner | Tag::OwningGroup | Tag::Other))
    }

    /// The permission bits (0o777) that go with this access list.
    pub fn mode(&self) -> u16 {
        let class = self.group_class();
        self.0.iter().fold(0, |mode, entry| mode | entry.bits(class))
    }

    /// The list with the permissions of a mode: what `chmod` makes of it.
    pub fn with_mode(&self, perm: u16) -> Acl {
        let class = self.group_class();
        let entries = self.0.iter().map(|entry| match entry.shift(class) {
            Some(shift) => Entry {
                tag: entry.tag,
                perm: (perm >> shift) & PERM_MASK,
            },
            None => *entry,
        });
        Acl(entries.collect())
    }

    /// What a file born with permissions `perm` has under a directory with this default list: no more than either gives.
    /// The umask does not count. Bits beyond 0o777 stay.
    pub fn inherited_mode(&self, perm: u16) -> u16 {
        perm & (self.mode() | !MODE_MASK)
    }

    /// The entry whose permissions the group bits of the mode are.
    fn group_class(&self) -> Tag {
        let masked = self.0.iter().any(|entry| entry.tag == Tag::Mask);
        if masked { Tag::Mask } else { Tag::OwningGroup }
    }
}

impl Entry {
    fn parse(bytes: &[u8; ENTRY_BYTES]) -> Result<Entry, AclError> {
        let [t0, t1, p0, p1, i0, i1, i2, i3] = *bytes;
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let tag = match u16::from_le_bytes([t0, t1]) {
            1 => Tag::Owner,
            2 if id != NO_ID => Tag::User(id),
            4 => Tag::OwningGroup,
            8 if id != NO_ID => Tag::Group(id),
            16 => Tag::Mask,
            32 => Tag::Other,
            _ => return Err(AclError::Entry),
        };
        let perm = u16::from_le_bytes([p0, p1]);
        if perm & !PERM_MASK != 0 {
            return Err(AclError::Entry);
        }
        Ok(Entry { tag, perm })
    }

    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let (tag, id) = self.tag.encode();
        let [t0, t1] = tag.to_le_bytes();
        let [p0, p1] = self.perm.to_le_bytes();
        let [i0, i1, i2, i3] = id.to_le_bytes();
        [t0, t1, p0, p1, i0, i1, i2, i3]
    }

    /// Where in a mode this entry's permissions stand, if they do; `class` is the entry of the group bits.
    fn shift(&self, class: Tag) -> Option<u16> {
        match self.tag {
            Tag::Owner => Some(6),
            tag if tag == class => Some(3),
            Tag::Other => Some(0),
            Tag::User(_) | Tag::OwningGroup | Tag::Group(_) | Tag::Mask => None,
        }
    }

    fn bits(&self, class: Tag) -> u16 {
        self.shift(class).map_or(0, |shift| self.perm << shift)
    }
}

impl Tag {
    fn encode(self) -> (u16, u32) {
        match self {
            Tag::Owner => (1, NO_ID),
            Tag::User(id) => (2, id),
            Tag::OwningGroup => (4, NO_ID),
            Tag::Group(id) => (8, id),
            Tag::Mask => (16, NO_ID),
            Tag::Other => (32, NO_ID),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `u::rw-,u:1000:r--,g::r--,m::r--,o::r--`: the worked example above.
    const EXAMPLE: &str =
        "02000000 01000600ffffffff 02000400e8030000 04000400ffffffff 10000400ffffffff 20000400ffffffff";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn acl(entries: &[(Tag, u16)]) -> Acl {
        let acl = Acl(entries
            .iter()
            .map(|(tag, perm)| Entry { tag: *tag, perm: *perm })
            .collect());
        assert_eq!(acl.check_order(), Ok(()));
        acl
    }

    fn example() -> Acl {
        Acl::parse(&bytes(EXAMPLE)).unwrap().unwrap()
    }

    #[test]
    fn the_worked_example() {
        let expected = acl(&[
            (Tag::Owner, 6),
            (Tag::User(1000), 4),
            (Tag::OwningGroup, 4),
            (Tag::Mask, 4),
            (Tag::Other, 4),
        ]);
        assert_eq!(example(), expected);
        assert_eq!(expected.encode(), bytes(EXAMPLE));
        assert_eq!(expected.mode(), 0o644);
        assert!(!expected.is_mode_only());
    }

    #[test]
    fn what_is_no_list() {
        for (value, error) in [
            ("", AclError::Length),
            ("020000", AclError::Length),
            ("01000000", AclError::Version),
            ("02000000 01000600", AclError::Length),
            // A tag, permissions and an id that do not exist.
            ("02000000 03000600ffffffff", AclError::Entry),
            ("02000000 01000800ffffffff", AclError::Entry),
            ("02000000 02000400ffffffff", AclError::Entry),
            // No other; owner twice; order; a named user without a mask.
            ("02000000 01000600ffffffff 04000400ffffffff", AclError::Order),
            (
                "02000000 01000600ffffffff 01000600ffffffff 04000400ffffffff 20000400ffffffff",
                AclError::Order,
            ),
            (
                "02000000 04000400ffffffff 01000600ffffffff 20000400ffffffff",
                AclError::Order,
            ),
            (
                "02000000 01000600ffffffff 02000400e8030000 04000400ffffffff 20000400ffffffff",
                AclError::Order,
            ),
        ] {
            assert_eq!(Acl::parse(&bytes(value)), Err(error), "{value}");
        }
        assert_eq!(Acl::parse(&bytes("02000000")), Ok(None));
    }

    #[test]
    fn chmod_changes_the_mask_and_leaves_the_group() {
        let changed = example().with_mode(0o2751);
        let expected = acl(&[
            (Tag::Owner, 7),
            (Tag::User(1000), 4),
            (Tag::OwningGroup, 4),
            (Tag::Mask, 5),
            (Tag::Other, 1),
        ]);
        assert_eq!(changed, expected);
        let plain = acl(&[(Tag::Owner, 6), (Tag::OwningGroup, 4), (Tag::Other, 4)]);
        assert!(plain.is_mode_only());
        assert_eq!(plain.with_mode(0o750).mode(), 0o750);
    }

    #[test]
    fn children_get_no_more_than_the_default_list_gives() {
        let default = acl(&[
            (Tag::Owner, 7),
            (Tag::OwningGroup, 7),
            (Tag::Group(5), 7),
            (Tag::Mask, 5),
            (Tag::Other, 0),
        ]);
        assert_eq!(default.inherited_mode(0o666), 0o640);
        assert_eq!(default.inherited_mode(0o2777), 0o2750);
        assert_eq!(default.with_mode(0o640).mode(), 0o640);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_and_round_trip(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let value = [&VERSION.to_le_bytes()[..], &body].concat();
            if let Ok(Some(acl)) = Acl::parse(&value) {
                // Ids of entries that need none are not kept.
                prop_assert_eq!(Acl::parse(&acl.encode()), Ok(Some(acl)));
            }
        }

        #[test]
        fn a_list_with_a_mode_has_that_mode(
            perms in prop::array::uniform5(0u16..8),
            users in 0u32..4,
            mode in 0u16..0o1000,
        ) {
            let mut entries = vec![(Tag::Owner, perms[0])];
            entries.extend((0..users).map(|id| (Tag::User(id), perms[1])));
            entries.push((Tag::OwningGroup, perms[2]));
            if users > 0 {
                entries.push((Tag::Mask, perms[3]));
            }
            entries.push((Tag::Other, perms[4]));
            let acl = acl(&entries);
            prop_assert_eq!(acl.with_mode(mode).mode(), mode);
            prop_assert_eq!(acl.with_mode(acl.mode()), acl.clone());
            prop_assert_eq!(Acl::parse(&acl.encode()), Ok(Some(acl.clone())));
            prop_assert_eq!(acl.inherited_mode(mode), mode & acl.mode());
        }
    }
}
