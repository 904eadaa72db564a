//! Blocks that were cut off or punched out and are written again: until that is durable, a power cut may give back what they
//! held before the cut, and the journal alone would call that their content.
//!
//! So the batch that names such blocks carries a note of them, one per inode, and the batch after the next sync of the
//! backing file takes it away. After an unclean end the blocks of a note are holes
//! (`docs/decisions/0014-cut-blocks-come-back-as-holes.md`), unless the machine has not been started since: then the kernel still had
//! what was written.
//!
//! A note: version 1 (1), boot (16; zeros: not known), then for each chunk, ascending, its number (8, little endian) and its map
//! of blocks (32, as in an extent).

use crate::limits::CHUNK_BLOCKS;
use crate::records::{BlockMap, RecordError};

/// First bytes of the keys of the notes.
pub(crate) const NOTE_PREFIX: &[u8] = b"sunsure";
const VERSION: u8 = 1;
const CHUNK_ENTRY_BYTES: usize = 8 + CHUNK_BLOCKS / 8;

/// Key of an inode's note.
pub(crate) fn note_key(ino: u64) -> Vec<u8> {
    [NOTE_PREFIX, &ino.to_be_bytes()].concat()
}

/// Unsure blocks of one chunk, by the change that wrote them; those no sync began between are one entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unsure(Vec<(u64, BlockMap)>);

impl Unsure {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `covered`: what the sync covers that began last.
    pub(super) fn add(&mut self, change: u64, covered: u64, blocks: &BlockMap) {
        if blocks.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some((last, there)) if *last > covered => {
                *last = change;
                there.insert_all(blocks);
            }
            _ => self.0.push((change, *blocks)),
        }
    }

    /// Changes up to this one are durable.
    pub(super) fn settle(&mut self, change: u64) {
        self.0.retain(|(since, _)| *since > change);
    }

    pub(super) fn blocks(&self) -> BlockMap {
        let mut all = BlockMap::default();
        self.0.iter().for_each(|(_, blocks)| all.insert_all(blocks));
        all
    }
}

pub(super) fn encode(boot: &[u8; 16], chunks: &[(u64, BlockMap)]) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(boot);
    for (chunk, blocks) in chunks {
        out.extend_from_slice(&chunk.to_le_bytes());
        blocks
            .0
            .iter()
            .for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }
    out
}

/// A note as stored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// The start of the machine it was written in.
    pub(crate) boot: [u8; 16],
    /// Unsure blocks by chunk.
    pub(crate) chunks: Vec<(u64, BlockMap)>,
}

pub(crate) fn decode(note: &[u8]) -> Result<Note, RecordError> {
    let (&version, rest) = note.split_first().ok_or(RecordError::Short)?;
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    let (boot, mut rest) = rest.split_first_chunk::<16>().ok_or(RecordError::Short)?;
    let mut chunks = Vec::with_capacity(rest.len() / CHUNK_ENTRY_BYTES);
    let word = |rest: &mut &[u8]| -> Result<u64, RecordError> {
        let (word, left) = rest.split_first_chunk::<8>().ok_or(RecordError::Short)?;
        *rest = left;
        Ok(u64::from_le_bytes(*word))
    };
    while !rest.is_empty() {
        let chunk = word(&mut rest)?;
        let mut blocks = BlockMap::default();
        for slot in &mut blocks.0 {
            *slot = word(&mut rest)?;
        }
        chunks.push((chunk, blocks));
    }
    Ok(Note { boot: *boot, chunks })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(block: usize) -> BlockMap {
        let mut map = BlockMap::default();
        map.insert(block);
        map
    }

    #[test]
    fn a_sync_settles_what_it_covers_and_nothing_that_came_later() {
        let mut unsure = Unsure::default();
        unsure.add(5, 1, &map(1));
        unsure.add(6, 1, &map(2));
        assert_eq!(unsure.0.len(), 1, "no sync began between them");
        unsure.add(8, 6, &map(3));
        unsure.settle(6);
        assert_eq!(unsure.blocks(), map(3));
        unsure.settle(8);
        assert!(unsure.is_empty());
    }

    #[test]
    fn notes_read_back_and_nothing_else_is_one() {
        let chunks = vec![(0, map(0)), (7, map(255))];
        let note = encode(&[9; 16], &chunks);
        assert_eq!(note.len(), 17 + 2 * CHUNK_ENTRY_BYTES);
        let boot = [9; 16];
        assert_eq!(decode(&note).unwrap(), Note { boot, chunks });
        assert!(decode(&note[..note.len() - 1]).is_err());
        assert!(decode(&[&[2], &note[1..]].concat()).is_err());
        assert!(decode(&[]).is_err());
    }
}
