//! Fragments out of a staged body. Data fragments are read; parity is computed again from the body whenever it is needed,
//! which costs milliseconds and saves two thirds of the staging disk.

use crate::erasure::{column_range, encode};
use crate::limits::{COLUMNS, DATA_FRAGMENTS, FRAGMENT_BYTES, ROW_BYTES, SEGMENT_BYTES, STRIPE_BYTES};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// A range of column `column` (0..12) of one segment. Blocks on disk and processor.
pub(super) fn read_column(body: &File, segment: u32, column: u8, range: Range<u32>) -> io::Result<Vec<u8>> {
    let base = u64::from(segment) * SEGMENT_BYTES as u64;
    let shard = |index: usize, at: u32| base + (index * FRAGMENT_BYTES) as u64 + u64::from(at);
    let mut out = vec![0; range.len()];
    if usize::from(column) < DATA_FRAGMENTS {
        body.read_exact_at(&mut out, shard(column.into(), range.start))?;
        return Ok(out);
    }
    let mut data: [Vec<u8>; DATA_FRAGMENTS] = Default::default();
    for (index, stripe) in out.chunks_mut(STRIPE_BYTES).enumerate() {
        let at = range.start + (index * STRIPE_BYTES) as u32;
        for (which, bytes) in data.iter_mut().enumerate() {
            bytes.resize(stripe.len(), 0);
            body.read_exact_at(bytes, shard(which, at))?;
        }
        let shards = data.each_ref().map(Vec::as_slice);
        column_range(column, shards, stripe).expect("the column is below 12 and all lengths are the stripe's");
    }
    Ok(out)
}

/// One row of a segment: [`ROW_BYTES`] of every column. Blocks on disk and processor.
pub(super) fn read_row(body: &File, segment: u32, row: u32) -> io::Result<[Vec<u8>; COLUMNS]> {
    let base = u64::from(segment) * SEGMENT_BYTES as u64 + u64::from(row) * ROW_BYTES as u64;
    let mut parts: [Vec<u8>; COLUMNS] = std::array::from_fn(|_| vec![0; ROW_BYTES]);
    let (data, parity) = parts.split_at_mut(DATA_FRAGMENTS);
    for start in (0..ROW_BYTES).step_by(STRIPE_BYTES) {
        let stripe = start..start + STRIPE_BYTES;
        for (index, part) in data.iter_mut().enumerate() {
            let at = base + (index * FRAGMENT_BYTES + start) as u64;
            body.read_exact_at(&mut part[stripe.clone()], at)?;
        }
        let mut parity = parity.iter_mut();
        encode(
            std::array::from_fn(|i| &data[i][stripe.clone()]),
            std::array::from_fn(|_| &mut parity.next().expect("eight columns")[stripe.clone()]),
        );
    }
    Ok(parts)
}
