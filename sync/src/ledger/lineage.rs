//! Where this writer stands in the volume's history: the value under `Slineage`.
//!
//! ```text
//! epoch 1    1 - 2 - 3 - 4 - 5           5 was sealed by a machine that others thought lost
//!                     \
//! epoch 2              B+1 - B+2         B, where its numbers begin, is beyond every number seen before
//! ```
//!
//! A recovery starts a new epoch. Its numbers begin far above all earlier ones, so that packs an older writer still sends
//! never share a number with it, and its packs name the one they continue from, so that such packs are seen to be beside
//! the history and not in it.

use crate::store::{Batch, MetaStore, StoreError};
use cessfs_crypto::PackSeq;

const LINEAGE_KEY: &[u8] = b"Slineage";
const LINEAGE_VERSION: u8 = 1;

/// See the room's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    /// Epoch of the packs sealed here, from 1.
    pub(crate) epoch: u32,
    /// The pack that the next one continues from; 0: it is the first.
    pub(crate) head: PackSeq,
}

impl Lineage {
    /// `None` in a journal that never sealed a pack and was not recovered.
    pub(crate) fn read(store: &dyn MetaStore) -> Result<Option<Lineage>, StoreError> {
        let Some(bytes) = store.get(LINEAGE_KEY)? else {
            return Ok(None);
        };
        let fields = || {
            let (version, rest) = bytes.split_first()?;
            let (epoch, rest) = rest.split_first_chunk()?;
            let head: &[u8; 8] = rest.try_into().ok()?;
            (*version == LINEAGE_VERSION).then(|| Lineage {
                epoch: u32::from_le_bytes(*epoch),
                head: PackSeq(u64::from_le_bytes(*head)),
            })
        };
        fields()
            .map(Some)
            .ok_or_else(|| StoreError::Corrupt("lineage of the packs".into()))
    }

    /// Version, epoch (4), head (8), little-endian.
    pub(crate) fn write(&self, batch: &mut Batch) {
        let mut value = vec![LINEAGE_VERSION];
        value.extend_from_slice(&self.epoch.to_le_bytes());
        value.extend_from_slice(&self.head.0.to_le_bytes());
        batch.put(LINEAGE_KEY, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemStore;

    #[test]
    fn a_lineage_comes_back_and_anything_else_is_refused() {
        let store = MemStore::new();
        assert_eq!(Lineage::read(&store).unwrap(), None);
        let lineage = Lineage {
            epoch: 3,
            head: PackSeq(77),
        };
        let mut batch = Batch::new();
        lineage.write(&mut batch);
        store.commit(batch).unwrap();
        assert_eq!(Lineage::read(&store).unwrap(), Some(lineage));
        for bad in [vec![], vec![1; 12], vec![1; 14], vec![2; 13]] {
            let mut batch = Batch::new();
            batch.put(LINEAGE_KEY, bad);
            store.commit(batch).unwrap();
            assert!(matches!(Lineage::read(&store), Err(StoreError::Corrupt(_))));
        }
    }
}
