//! The code itself: parity from data, and data from any four columns.
//!
//! Every byte position is coded by itself, so all functions work on equal ranges of shards as well as on whole ones.
//! Encoding goes in stripes of [`STRIPE_BYTES`] so that the twelve slices it touches stay in the processor's cache.

use crate::ErasureError;
use crate::limits::{DATA_FRAGMENTS, PARITY_FRAGMENTS, STRIPE_BYTES};
use reed_solomon_erasure::galois_8::{self, ReedSolomon};
use std::sync::LazyLock;

/// Coefficients of the four data shards in each parity shard (facts 2.1). A test derives them from the encoder.
pub(super) const PARITY_ROWS: [[u8; DATA_FRAGMENTS]; PARITY_FRAGMENTS] = [
    [27, 28, 18, 20],
    [28, 27, 20, 18],
    [18, 20, 27, 28],
    [20, 18, 28, 27],
    [245, 232, 196, 216],
    [232, 245, 216, 196],
    [196, 216, 245, 232],
    [216, 196, 232, 245],
];

static ENCODER: LazyLock<ReedSolomon> = LazyLock::new(|| {
    ReedSolomon::new(DATA_FRAGMENTS, PARITY_FRAGMENTS).expect("4 + 8 shards are within the field's 256")
});

/// Fills the parity stripes of eight columns from the data stripes of four, all of one length; fastest for lengths up to
/// [`STRIPE_BYTES`](crate::limits), with which everything stays in the processor's cache.
///
/// # Panics
/// If the stripes differ in length.
pub fn encode(data: [&[u8]; DATA_FRAGMENTS], mut parity: [&mut [u8]; PARITY_FRAGMENTS]) {
    ENCODER
        .encode_sep(&data, &mut parity)
        .expect("stripes are equally long");
}

/// Computes a byte range of any column (0..12) from the same range of the four data shards.
///
/// # Errors
/// `Column` if it is not in 0..12, `Length` if `out` and the ranges are not equally long.
pub fn column_range(column: u8, data: [&[u8]; DATA_FRAGMENTS], out: &mut [u8]) -> Result<(), ErasureError> {
    let row = row(column).ok_or(ErasureError::Column(column))?;
    for shard in data {
        check_length(out.len(), shard.len())?;
    }
    combine(row, data, out);
    Ok(())
}

/// Restores one data shard (0..4), or an equal range of it, from any four distinct columns.
///
/// # Errors
/// `Column` if `wanted` is no data column, or a given one is out of range or doubled; `Length` if lengths differ.
pub fn decode_shard(wanted: u8, columns: [(u8, &[u8]); DATA_FRAGMENTS], out: &mut [u8]) -> Result<(), ErasureError> {
    let inverse = invert(columns.map(|(column, _)| column))?;
    let row = inverse.get(usize::from(wanted)).ok_or(ErasureError::Column(wanted))?;
    for (_, shard) in columns {
        check_length(out.len(), shard.len())?;
    }
    combine(*row, columns.map(|(_, shard)| shard), out);
    Ok(())
}

/// Restores the segment (or an equal range of all four data shards, one after the other) from any four distinct columns.
/// Data columns among them are copied, only the missing ones are computed.
///
/// # Errors
/// `Column` if one is out of range or doubled; `Length` if the columns differ in length or `out` is not four times that.
pub fn decode(columns: [(u8, &[u8]); DATA_FRAGMENTS], out: &mut [u8]) -> Result<(), ErasureError> {
    let inverse = invert(columns.map(|(column, _)| column))?;
    let shard_bytes = columns[0].1.len();
    for (_, shard) in columns {
        check_length(shard_bytes, shard.len())?;
    }
    check_length(shard_bytes * DATA_FRAGMENTS, out.len())?;
    if shard_bytes == 0 {
        return Ok(());
    }
    let shards = columns.map(|(_, shard)| shard);
    for (row, out) in inverse.into_iter().zip(out.chunks_exact_mut(shard_bytes)) {
        combine(row, shards, out);
    }
    Ok(())
}

fn check_length(want: usize, got: usize) -> Result<(), ErasureError> {
    if want == got {
        Ok(())
    } else {
        Err(ErasureError::Length { want, got })
    }
}

type Matrix = [[u8; DATA_FRAGMENTS]; DATA_FRAGMENTS];

/// The coefficients by which a column follows from the data shards.
fn row(column: u8) -> Option<[u8; DATA_FRAGMENTS]> {
    let column = usize::from(column);
    if column < DATA_FRAGMENTS {
        return Some(std::array::from_fn(|i| u8::from(i == column)));
    }
    PARITY_ROWS.get(column - DATA_FRAGMENTS).copied()
}

/// `out = sum of row[i] * shards[i]`. The first term that counts overwrites, so `out` may hold anything.
fn combine(row: [u8; DATA_FRAGMENTS], shards: [&[u8]; DATA_FRAGMENTS], out: &mut [u8]) {
    for start in (0..out.len()).step_by(STRIPE_BYTES) {
        let range = start..out.len().min(start + STRIPE_BYTES);
        let stripe = &mut out[range.clone()];
        let mut empty = true;
        for (&factor, shard) in row.iter().zip(shards) {
            let input = &shard[range.clone()];
            match (factor, empty) {
                (0, _) => continue,
                (1, true) => stripe.copy_from_slice(input),
                (_, true) => galois_8::mul_slice(factor, input, stripe),
                (_, false) => galois_8::mul_slice_xor(factor, input, stripe),
            }
            empty = false;
        }
        assert!(!empty, "an invertible matrix has no empty row");
    }
}

/// Rows that give data shard i from the four columns: the inverse of those columns' coefficients (Gauss-Jordan).
fn invert(columns: [u8; DATA_FRAGMENTS]) -> Result<Matrix, ErasureError> {
    let mut left: Matrix = Default::default();
    let mut right: Matrix = Default::default();
    for (i, &column) in columns.iter().enumerate() {
        if columns[..i].contains(&column) {
            return Err(ErasureError::Column(column));
        }
        left[i] = row(column).ok_or(ErasureError::Column(column))?;
        right[i][i] = 1;
    }
    for pivot in 0..DATA_FRAGMENTS {
        let found = (pivot..DATA_FRAGMENTS)
            .find(|&i| left[i][pivot] != 0)
            .expect("any four rows of a Vandermonde code are independent");
        left.swap(pivot, found);
        right.swap(pivot, found);
        let scale = galois_8::div(1, left[pivot][pivot]);
        for i in 0..DATA_FRAGMENTS {
            left[pivot][i] = galois_8::mul(left[pivot][i], scale);
            right[pivot][i] = galois_8::mul(right[pivot][i], scale);
        }
        for other in (0..DATA_FRAGMENTS).filter(|&i| i != pivot) {
            let factor = left[other][pivot];
            for i in 0..DATA_FRAGMENTS {
                left[other][i] ^= galois_8::mul(factor, left[pivot][i]);
                right[other][i] ^= galois_8::mul(factor, right[pivot][i]);
            }
        }
    }
    Ok(right)
}
