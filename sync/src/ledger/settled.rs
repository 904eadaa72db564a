//! Up to which pack everything was known to be on the network for a while, over runs: the value under `Ssettled`.
//!
//! A mount may be shorter than that while, and the wall clock may jump. So it is measured by the height of the chain's last final
//! block, which only grows and grows while nothing is mounted, and by the wall clock besides, since blocks of test networks are
//! quicker than the main network's.

use super::{Durable, Ledger, PackState};
use crate::limits::BLOCK_SECONDS;
use crate::pipeline::is_far_above;
use crate::store::{Batch, StoreError};
use cessfs_crypto::PackSeq;
use std::time::Duration;

const SETTLED_KEY: &[u8] = b"Ssettled";
const SETTLED_VERSION: u8 = 1;
const SETTLED_BYTES: usize = 29;

/// See the room's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settled {
    /// Packs up to this one were Confirmed for the while.
    upto: PackSeq,
    /// Up to this one they were Confirmed ...
    next: PackSeq,
    /// ... when this was the height of the last final block ...
    height: u32,
    /// ... and this the wall time, seconds since 1970.
    wall_s: u64,
}

impl Settled {
    /// Version, `upto` (8), `next` (8), `height` (4), `wall_s` (8), little-endian.
    fn encode(&self) -> Vec<u8> {
        let mut value = vec![SETTLED_VERSION];
        value.extend_from_slice(&self.upto.0.to_le_bytes());
        value.extend_from_slice(&self.next.0.to_le_bytes());
        value.extend_from_slice(&self.height.to_le_bytes());
        value.extend_from_slice(&self.wall_s.to_le_bytes());
        value
    }

    fn decode(value: &[u8]) -> Option<Settled> {
        let value: &[u8; SETTLED_BYTES] = value.try_into().ok()?;
        let (version, rest) = value.split_first()?;
        let (upto, rest) = rest.split_first_chunk()?;
        let (next, rest) = rest.split_first_chunk()?;
        let (height, rest) = rest.split_first_chunk()?;
        let wall_s: &[u8; 8] = rest.try_into().ok()?;
        (*version == SETTLED_VERSION).then(|| Settled {
            upto: PackSeq(u64::from_le_bytes(*upto)),
            next: PackSeq(u64::from_le_bytes(*next)),
            height: u32::from_le_bytes(*height),
            wall_s: u64::from_le_bytes(*wall_s),
        })
    }

    /// Nothing is known of earlier.
    fn first(known: PackSeq, height: u32, wall_s: u64) -> Settled {
        Settled {
            upto: PackSeq(0),
            next: known,
            height,
            wall_s,
        }
    }

    /// What is to be written when the chain is at this height; `None`: nothing new.
    fn advance(self, known: PackSeq, height: u32, wall_s: u64, grace: Duration) -> Option<Settled> {
        let blocks = u64::from(height.saturating_sub(self.height));
        let by_chain = blocks.saturating_mul(BLOCK_SECONDS) >= grace.as_secs();
        let by_wall = wall_s.saturating_sub(self.wall_s) >= grace.as_secs();
        match by_chain && by_wall {
            true => Some(Settled {
                upto: self.next,
                ..Settled::first(known, height, wall_s)
            }),
            // The clock was ahead, or a node made that height up: from now on, then.
            false if wall_s < self.wall_s || is_far_above(self.height, height) => {
                Some(Settled { height, wall_s, ..self })
            }
            false => None,
        }
    }
}

impl Ledger {
    /// Packs up to this one were all known to be on the network for `grace`; 0: none. `height`: of the last final block.
    pub(crate) fn settled(&self, height: u32, wall: Duration, grace: Duration) -> Result<PackSeq, StoreError> {
        let _change = self.change.lock();
        let corrupt = || StoreError::Corrupt("up to which pack everything is settled".into());
        let (known, wall_s) = (self.known_upto(), wall.as_secs());
        let next = match self.store.get(SETTLED_KEY)? {
            None => Settled::first(known, height, wall_s),
            Some(value) => {
                let now = Settled::decode(&value).ok_or_else(corrupt)?;
                match now.advance(known, height, wall_s, grace) {
                    Some(next) => next,
                    None => return Ok(now.upto),
                }
            }
        };
        let mut batch = Batch::new();
        batch.put(SETTLED_KEY, next.encode());
        self.write(batch, Durable::Eventually)?;
        Ok(next.upto)
    }

    /// Every pack up to this one is Confirmed, or was.
    fn known_upto(&self) -> PackSeq {
        let packs = self.packs.read();
        let known = packs.values().take_while(|pack| pack.state >= PackState::Confirmed);
        known.last().map_or(PackSeq(0), |pack| pack.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(600);

    #[test]
    fn a_note_comes_back_and_anything_else_is_refused() {
        let settled = Settled {
            upto: PackSeq(3),
            next: PackSeq(9),
            height: 70_000,
            wall_s: 1_700_000_000,
        };
        let bytes = settled.encode();
        assert_eq!(Settled::decode(&bytes), Some(settled));
        assert_eq!(Settled::decode(&bytes[1..]), None);
        assert_eq!(Settled::decode(&[&[2], &bytes[1..]].concat()), None);
    }

    #[test]
    fn what_was_known_counts_once_chain_and_clock_say_so() {
        let advance = |noted: Settled, height, wall_s| noted.advance(PackSeq(7), height, wall_s, GRACE);
        let noted = Settled::first(PackSeq(7), 1000, 5000);
        assert_eq!(advance(noted, 1100, 5599), None, "the clock does not say so");
        assert_eq!(advance(noted, 1099, 9000), None, "the chain does not say so");
        assert_eq!(advance(noted, 900, 9000), None, "this node is behind");
        let settled = noted.advance(PackSeq(8), 1100, 5600, GRACE).expect("both say so");
        assert_eq!((settled.upto, settled.next), (PackSeq(7), PackSeq(8)));
        let back = advance(settled, 1150, 4000).expect("the clock was ahead");
        assert_eq!((back.upto, back.next), (PackSeq(7), PackSeq(8)), "it begins anew");
        assert_eq!((back.height, back.wall_s), (1150, 4000));
        let made_up = Settled::first(PackSeq(7), u32::MAX, 5000);
        let back = advance(made_up, 1150, 9000).expect("the height was made up");
        assert_eq!((back.upto, back.height, back.wall_s), (PackSeq(0), 1150, 9000));
    }
}
