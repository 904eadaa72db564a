//! Fragments out of a staged body. Data fragments are read; parity is computed again from the body whenever it is needed,
//! which costs milliseconds and saves two thirds of the staging disk.

use crate::erasure::{column_range, encode};
use crate::limits::{COLUMNS, DATA_FRAGMENTS, STRIPE_BYTES, fragment_bytes, row_bytes, segment_bytes};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// A range of column `column` (0..12) of one segment. Blocks on disk and processor.
pub(super) fn read_column(body: &File, segment: u32, column: u8, range: Range<u32>) -> io::Result<Vec<u8>> {
    let base = u64::from(segment) * segment_bytes() as u64;
    let shard = |index: usize, at: u32| base + (index * fragment_bytes()) as u64 + u64::from(at);
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

/// One row of a segment into `parts`: [`row_bytes`] of every column. Blocks on disk and processor.
pub(super) fn read_row(body: &File, segment: u32, row: u32, parts: &mut [Vec<u8>; COLUMNS]) -> io::Result<()> {
    let base = u64::from(segment) * segment_bytes() as u64 + u64::from(row) * row_bytes() as u64;
    let (data, parity) = parts.split_at_mut(DATA_FRAGMENTS);
    let stripe_bytes = STRIPE_BYTES.min(row_bytes());
    for start in (0..row_bytes()).step_by(stripe_bytes) {
        let stripe = start..start + stripe_bytes;
        for (index, part) in data.iter_mut().enumerate() {
            let at = base + (index * fragment_bytes() + start) as u64;
            body.read_exact_at(&mut part[stripe.clone()], at)?;
        }
        let mut parity = parity.iter_mut();
        encode(
            std::array::from_fn(|i| &data[i][stripe.clone()]),
            std::array::from_fn(|_| &mut parity.next().expect("eight columns")[stripe.clone()]),
        );
    }
    Ok(())
}
