//! The hashes of a pack: of every segment and of its twelve fragments, in one pass over the pack's body.
//!
//! A window of one stripe of each column (64 KiB, so that all of it stays in the processor's cache) moves over a segment:
//! read four data stripes, compute eight parity stripes, hash twelve. No segment and no fragment is ever whole in memory.
//!
//! A segment's own hash is one long chain of blocks, which no vector unit makes faster. But four segments are four chains, and
//! twelve fragments leave four lanes of sixteen: while segment *k* of a group of four is encoded, quarter *k* of all four
//! segments is hashed in those lanes, and costs next to nothing.

use crate::SegmentHashes;
use crate::code::encode;
use crate::geometry::{fragment_bytes, segment_bytes, stripe_bytes};
use crate::hash::Streams;
use crate::limits::{COLUMNS, DATA_FRAGMENTS};
use std::ops::Range;

/// Segments whose hashes are computed together: as many as a segment has quarters.
pub const HASH_GROUP: usize = DATA_FRAGMENTS;
/// Fewer segments than this are hashed faster one by one than in lanes that are mostly idle.
const GROUP_MIN: usize = 2;

/// SHA-256 of each segment of a range of a pack's, and of its fragments, from a body that `read` reads at an offset in
/// bytes. Reads every byte twice, in pieces of 64 KiB; holds 1 MiB. A range of [`HASH_GROUP`] segments is as fast as a longer one.
///
/// # Errors
/// Those of `read`.
pub fn pack_hashes<E>(
    segments: Range<usize>,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Vec<SegmentHashes>, E> {
    let mut window = vec![0; (COLUMNS + HASH_GROUP) * stripe_bytes()];
    let mut hashes = Vec::with_capacity(segments.len());
    for first in segments.clone().step_by(HASH_GROUP) {
        let group = first..segments.end.min(first + HASH_GROUP);
        hashes.extend(group_hashes(group, &mut window, &mut read)?);
    }
    Ok(hashes)
}

fn group_hashes<E>(
    group: Range<usize>,
    window: &mut [u8],
    read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Vec<SegmentHashes>, E> {
    let (stripe_bytes, fragment_bytes, segment_bytes) = (stripe_bytes(), fragment_bytes(), segment_bytes());
    // Where lanes are to be had, whole segments are the streams after the columns; else they are streams of their own.
    let beside = if group.len() >= GROUP_MIN { group.len() } else { 0 };
    let mut streams = Streams::new(COLUMNS + beside);
    let mut alone = Streams::single(group.len() - beside);
    let mut fragments = Vec::with_capacity(group.len());
    let (columns, quarters) = window.split_at_mut(COLUMNS * stripe_bytes);
    let (data, parity) = columns.split_at_mut(DATA_FRAGMENTS * stripe_bytes);
    for quarter in 0..DATA_FRAGMENTS {
        let encoded = Some(group.start + quarter).filter(|segment| group.contains(segment));
        for start in (0..fragment_bytes).step_by(stripe_bytes) {
            let at = |segment: usize, column: usize| (segment * segment_bytes + column * fragment_bytes + start) as u64;
            for (segment, stripe) in group.clone().zip(quarters.chunks_exact_mut(stripe_bytes)) {
                read(at(segment, quarter), stripe)?;
            }
            let mut inputs = Vec::with_capacity(COLUMNS + HASH_GROUP);
            if let Some(segment) = encoded {
                for (column, stripe) in data.chunks_exact_mut(stripe_bytes).enumerate() {
                    read(at(segment, column), stripe)?;
                }
                let mut parity_stripes = parity.chunks_exact_mut(stripe_bytes);
                encode(
                    std::array::from_fn(|i| &data[i * stripe_bytes..(i + 1) * stripe_bytes]),
                    std::array::from_fn(|_| parity_stripes.next().expect("eight stripes")),
                );
                inputs.extend(data.chunks_exact(stripe_bytes).chain(parity.chunks_exact(stripe_bytes)));
            }
            let first = COLUMNS - inputs.len();
            let whole = quarters.chunks_exact(stripe_bytes).take(group.len());
            if beside > 0 {
                inputs.extend(whole);
            } else {
                alone.update(0, &whole.collect::<Vec<_>>());
            }
            streams.update(first, &inputs);
        }
        if encoded.is_some() {
            fragments.push(streams.finish(0..COLUMNS));
        }
    }
    let mut whole = streams.finish(COLUMNS..COLUMNS + beside);
    whole.extend(alone.finish(0..group.len() - beside));
    let together = |(segment, fragments): (_, Vec<_>)| SegmentHashes {
        segment,
        fragments: fragments.try_into().expect("one hash per column"),
    };
    Ok(whole.into_iter().zip(fragments).map(together).collect())
}
