//! SHA-256 with the processor's own instructions, of two inputs at once.
//!
//! `sha256rnds2` answers after four cycles and takes the next one after two: a single input, in which each round waits for
//! the one before, leaves every other of its places empty. A second input, round by round beside the first, fills them.

use super::{BLOCK_BYTES, ROUND, Running};
use std::arch::x86_64::*;

pub(super) const LANES: usize = 2;

pub(super) fn absorb(streams: &mut [Running], inputs: &[&[u8]]) {
    match (streams, inputs) {
        ([first, second], [a, b]) => {
            // SAFETY: `Width::all` found the features before this module can be chosen.
            unsafe { absorb_detected([first, second], [a, b]) }
        }
        ([only], [input]) => {
            // SAFETY: as above.
            unsafe { absorb_detected([only], [input]) }
        }
        _ => unreachable!("one or two streams, and an input for each"),
    }
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn absorb_detected<const N: usize>(streams: [&mut Running; N], inputs: [&[u8]; N]) {
    let blocks = inputs.map(|input| input.as_chunks::<BLOCK_BYTES>().0);
    let mut states: [[__m128i; 2]; N] = std::array::from_fn(|i| load(&streams[i].state));
    for (number, _) in blocks[0].iter().enumerate() {
        compress(&mut states, std::array::from_fn(|i| &blocks[i][number]));
    }
    for (stream, state) in streams.into_iter().zip(states) {
        stream.state = store(state);
    }
}

/// The words in the order in which the instructions want them: a b e f and c d g h, the first in the highest place.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn load(&[a, b, c, d, e, f, g, h]: &[u32; 8]) -> [__m128i; 2] {
    let vector = |words: [u32; 4]| {
        let [w, x, y, z] = words.map(u32::cast_signed);
        _mm_set_epi32(w, x, y, z)
    };
    [vector([a, b, e, f]), vector([c, d, g, h])]
}

/// Undoes [`load`].
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn store(state: [__m128i; 2]) -> [u32; 8] {
    let words = |vector| {
        [
            _mm_extract_epi32::<3>(vector),
            _mm_extract_epi32::<2>(vector),
            _mm_extract_epi32::<1>(vector),
            _mm_extract_epi32::<0>(vector),
        ]
        .map(i32::cast_unsigned)
    };
    let ([a, b, e, f], [c, d, g, h]) = (words(state[0]), words(state[1]));
    [a, b, c, d, e, f, g, h]
}

#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn compress<const N: usize>(states: &mut [[__m128i; 2]; N], blocks: [&[u8; BLOCK_BYTES]; N]) {
    // Bytes of each word, reversed.
    let swap = _mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
    let before = *states;
    let mut words: [[__m128i; 4]; N] = blocks.map(|block| {
        std::array::from_fn(|i| {
            // SAFETY: 16 readable bytes at 0, 16, 32 or 48 of 64; the instruction needs no alignment.
            let row = unsafe { _mm_loadu_si128(block.as_ptr().add(16 * i).cast()) };
            _mm_shuffle_epi8(row, swap)
        })
    });
    for four in 0..16 {
        // SAFETY: 16 readable bytes: four of 64 constants from 0, 4, … or 60 on.
        let constants = unsafe { _mm_loadu_si128(ROUND.as_ptr().add(4 * four).cast()) };
        for (state, w) in states.iter_mut().zip(&mut words) {
            let [oldest, older, newer, newest] = [0, 1, 2, 3].map(|i| (four + i) % 4);
            if four >= 4 {
                let near = _mm_alignr_epi8::<4>(w[newest], w[newer]);
                let half = _mm_add_epi32(_mm_sha256msg1_epu32(w[oldest], w[older]), near);
                w[oldest] = _mm_sha256msg2_epu32(half, w[newest]);
            }
            let [abef, cdgh] = *state;
            let added = _mm_add_epi32(w[oldest], constants);
            let middle = _mm_sha256rnds2_epu32(cdgh, abef, added);
            let after = _mm_sha256rnds2_epu32(abef, middle, _mm_shuffle_epi32::<0x0e>(added));
            *state = [after, middle];
        }
    }
    for (state, before) in states.iter_mut().zip(before) {
        *state = [_mm_add_epi32(state[0], before[0]), _mm_add_epi32(state[1], before[1])];
    }
}
