//! Tag tables of the sealed layout: for each block of a chunk, what is in its two slots.
//!
//! An entry is nonce (12), tag (16) and version (4, little endian; 0: nothing). Entries of slot A come first, then those of
//! slot B, so that a run of blocks in one slot has its entries side by side.

use crate::limits::CHUNK_BLOCKS;
use crate::records::BlockMap;

/// Bytes of an entry. Entries never straddle a disk sector, so one is written whole or not at all.
pub(super) const ENTRY_BYTES: usize = 32;
/// Bytes of a table.
pub(super) const TABLE_BYTES: usize = 2 * CHUNK_BLOCKS * ENTRY_BYTES;

const _: () = assert!(512 % ENTRY_BYTES == 0);

/// One of the two places of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    A,
    B,
}

impl Slot {
    pub(super) fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// 0 or 1.
    pub(super) fn index(self) -> usize {
        match self {
            Slot::A => 0,
            Slot::B => 1,
        }
    }
}

/// What is needed to open what a slot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) nonce: [u8; 12],
    pub(super) tag: [u8; 16],
    /// Grows with every write of the block; 0: the slot holds nothing.
    pub(super) version: u32,
}

impl Entry {
    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[..12].copy_from_slice(&self.nonce);
        out[12..28].copy_from_slice(&self.tag);
        out[28..].copy_from_slice(&self.version.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let (nonce, rest) = bytes.split_first_chunk::<12>().expect("32 bytes have 12");
        let (tag, version) = rest.split_first_chunk::<16>().expect("20 bytes have 16");
        let (version, _) = version.split_first_chunk::<4>().expect("4 bytes have 4");
        Entry {
            nonce: *nonce,
            tag: *tag,
            version: u32::from_le_bytes(*version),
        }
    }
}

/// The tag table of one chunk in memory.
#[derive(Clone, Debug)]
pub(super) struct TagTable {
    entries: Vec<Entry>,
    /// Blocks whose newest version was written since the last sync: its slot is not the one a power cut would fall back to.
    fresh: BlockMap,
    /// Those of them, and of those being synced, of which the store has no copy.
    uncopied: BlockMap,
    /// Blocks that were fresh when the running sync began.
    syncing: BlockMap,
}

impl TagTable {
    pub(super) fn decode(bytes: &[u8; TABLE_BYTES]) -> TagTable {
        let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
        TagTable {
            entries: entries.iter().map(Entry::decode).collect(),
            fresh: BlockMap::default(),
            uncopied: BlockMap::default(),
            syncing: BlockMap::default(),
        }
    }

    pub(super) fn entry(&self, slot: Slot, block: usize) -> &Entry {
        &self.entries[slot.index() * CHUNK_BLOCKS + block]
    }

    pub(super) fn set_entry(&mut self, slot: Slot, block: usize, entry: Entry) {
        self.entries[slot.index() * CHUNK_BLOCKS + block] = entry;
    }

    /// Entries of neighbouring blocks in one slot, as stored.
    pub(super) fn encode_run(entries: &[Entry]) -> Vec<u8> {
        entries.iter().flat_map(Entry::encode).collect()
    }

    /// Where the newest version of a block is; `None` if it was never written.
    pub(super) fn current(&self, block: usize) -> Option<Slot> {
        let (a, b) = (self.entry(Slot::A, block).version, self.entry(Slot::B, block).version);
        match (a, b) {
            (0, 0) => None,
            _ if a >= b => Some(Slot::A),
            _ => Some(Slot::B),
        }
    }

    /// Where the next version of a block goes, and its number: away from the newest durable one, and into slot A at first, so
    /// that what is written once lies in order. `None` after version `u32::MAX`.
    pub(super) fn next(&self, block: usize) -> Option<(Slot, u32)> {
        let Some(current) = self.current(block) else {
            return Some((Slot::A, 1));
        };
        let version = self.entry(current, block).version.checked_add(1)?;
        let slot = if self.is_fresh(block) { current } else { current.other() };
        Some((slot, version))
    }

    /// The newest version is not known to be durable.
    pub(super) fn is_fresh(&self, block: usize) -> bool {
        self.fresh.contains(block) || self.syncing.contains(block)
    }

    pub(super) fn set_fresh(&mut self, block: usize) {
        self.fresh.insert(block);
        self.uncopied.insert(block);
    }

    /// Blocks that are not known to be durable and of which the store has no copy.
    pub(super) fn uncopied(&self) -> impl Iterator<Item = usize> + '_ {
        (0..CHUNK_BLOCKS).filter(|block| self.uncopied.contains(*block))
    }

    /// The store has a copy of the block as it is.
    pub(super) fn set_copied(&mut self, block: usize) {
        self.uncopied.remove(block);
    }

    /// A running sync is making this block durable.
    pub(super) fn is_syncing(&self, block: usize) -> bool {
        self.syncing.contains(block)
    }

    /// Blocks that have something in both slots.
    pub(super) fn doubled(&self) -> usize {
        let both = |block: &usize| self.entry(Slot::A, *block).version != 0 && self.entry(Slot::B, *block).version != 0;
        (0..CHUNK_BLOCKS).filter(both).count()
    }

    /// Some block is not known to be durable.
    pub(super) fn any_fresh(&self) -> bool {
        !self.fresh.is_empty() || !self.syncing.is_empty()
    }

    /// Of some block there has to be a copy, if the store is to make it durable.
    pub(super) fn any_uncopied(&self) -> bool {
        !self.uncopied.is_empty()
    }

    /// A sync begins; false if it has nothing to do here.
    pub(super) fn begin_sync(&mut self) -> bool {
        self.syncing.insert_all(&self.fresh);
        self.fresh = BlockMap::default();
        !self.syncing.is_empty()
    }

    pub(super) fn end_sync(&mut self, durable: bool) {
        match durable {
            true => self.uncopied = self.uncopied.common(&self.fresh),
            false => self.fresh.insert_all(&self.syncing),
        }
        self.syncing = BlockMap::default();
    }

    /// The slot of a block that only holds an older version than the durable one.
    pub(super) fn stale(&self, block: usize) -> Option<Slot> {
        let stale = self.current(block)?.other();
        (self.entry(stale, block).version != 0 && !self.is_fresh(block)).then_some(stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TagTable {
        TagTable::decode(&[0; TABLE_BYTES])
    }

    fn write(table: &mut TagTable, block: usize) -> (Slot, u32) {
        let (slot, version) = table.next(block).unwrap();
        table.set_entry(
            slot,
            block,
            Entry {
                version,
                ..Entry::default()
            },
        );
        table.set_fresh(block);
        (slot, version)
    }

    fn sync(table: &mut TagTable) {
        table.begin_sync();
        table.end_sync(true);
    }

    #[test]
    fn a_durable_version_is_never_the_target() {
        let mut table = table();
        assert_eq!(write(&mut table, 3), (Slot::A, 1));
        assert_eq!(write(&mut table, 3), (Slot::A, 2), "nothing durable yet: in place");
        sync(&mut table);
        assert_eq!(write(&mut table, 3), (Slot::B, 3));
        assert_eq!(
            write(&mut table, 3),
            (Slot::B, 4),
            "A is what a power cut falls back to"
        );
        sync(&mut table);
        assert_eq!(write(&mut table, 3), (Slot::A, 5));
    }

    #[test]
    fn only_a_sync_that_began_later_and_succeeded_makes_durable() {
        let mut table = table();
        write(&mut table, 0);
        sync(&mut table);
        write(&mut table, 0);
        table.begin_sync();
        assert!(table.is_syncing(0) && !table.is_syncing(1));
        write(&mut table, 1);
        table.end_sync(false);
        assert_eq!(table.next(0), Some((Slot::B, 3)), "a failed sync makes nothing durable");
        table.begin_sync();
        write(&mut table, 2);
        table.end_sync(true);
        assert!(table.any_fresh(), "block 2 was written after the sync began");
        assert_eq!(table.next(0), Some((Slot::A, 3)));
        assert_eq!(table.next(2), Some((Slot::A, 2)));
    }

    #[test]
    fn a_block_wants_a_copy_until_it_has_one_or_is_durable() {
        let mut table = table();
        for block in 0..3 {
            write(&mut table, block);
        }
        table.set_copied(1);
        assert_eq!(table.uncopied().collect::<Vec<_>>(), [0, 2]);
        write(&mut table, 1);
        assert_eq!(table.uncopied().count(), 3, "the copy is of an older version");
        (0..3).for_each(|block| table.set_copied(block));
        assert!(!table.any_uncopied());
        write(&mut table, 0);
        table.begin_sync();
        write(&mut table, 5);
        table.end_sync(false);
        assert_eq!(table.uncopied().collect::<Vec<_>>(), [0, 5], "nothing is durable");
        table.begin_sync();
        write(&mut table, 6);
        table.end_sync(true);
        assert_eq!(table.uncopied().collect::<Vec<_>>(), [6]);
        assert!(table.any_uncopied());
    }

    #[test]
    fn only_older_versions_of_durable_blocks_are_stale() {
        let mut table = table();
        write(&mut table, 9);
        sync(&mut table);
        assert_eq!(table.stale(9), None);
        write(&mut table, 9);
        assert_eq!(table.stale(9), None, "a power cut may still need A");
        sync(&mut table);
        assert_eq!(table.stale(9), Some(Slot::A));
    }

    #[test]
    fn versions_end() {
        let mut table = table();
        let version = u32::MAX;
        table.set_entry(
            Slot::A,
            1,
            Entry {
                version,
                ..Entry::default()
            },
        );
        assert_eq!(table.next(1), None);
    }

    #[test]
    fn entries_read_back() {
        let entry = Entry {
            nonce: [1; 12],
            tag: [2; 16],
            version: 0x0403_0201,
        };
        let bytes = TagTable::encode_run(&[entry]);
        assert_eq!(bytes[28..], [1, 2, 3, 4]);
        assert_eq!(Entry::decode(bytes.as_slice().try_into().unwrap()), entry);
    }
}
