use super::code::PARITY_ROWS;
use super::hash::Streams;
use super::*;
use crate::limits::{COLUMNS, DATA_FRAGMENTS, FRAGMENT_BYTES, SEGMENT_BYTES, STRIPE_BYTES};
use proptest::prelude::*;
use reed_solomon_erasure::galois_8::ReedSolomon;
use std::convert::Infallible;

/// Bytes that look random and depend on `seed`.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()[0]
        })
        .collect()
}

/// Twelve shards of `bytes` each, encoded the plain way: whole shards, one call.
fn whole(bytes: usize, seed: u64) -> Vec<u8> {
    let mut shards = noise(bytes * DATA_FRAGMENTS, seed);
    shards.resize(bytes * COLUMNS, 0);
    let mut parts: Vec<&mut [u8]> = shards.chunks_exact_mut(bytes).collect();
    ReedSolomon::new(4, 8).unwrap().encode(&mut parts).unwrap();
    shards
}

#[test]
fn golden_vector_hello_cess() {
    let read = |offset: u64, piece: &mut [u8]| -> Result<(), Infallible> {
        piece.fill(0);
        if offset == 0 {
            piece[..10].copy_from_slice(b"hello cess");
        }
        Ok(())
    };
    let Ok(hashes) = pack_hashes(0..1, read);
    let [hashes] = hashes.as_slice() else {
        panic!("one segment");
    };
    let zero = "2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74";
    let fragments = [
        "f3e78111c4cbb916",
        zero,
        zero,
        zero,
        "2c9639ac9fba9e01",
        "a4dc96407e05576a",
        "094f44b4149c821a",
        "fc5555c148f7f6f0",
        "f8bec2b341ced0eb",
        "e2160d838f0fc737",
        "3d984b0b59f0264c",
        "25b91194d10f9c09",
    ];
    assert_eq!(
        hex::encode(hashes.segment.0),
        "91e83b8a8dcfa82993a99614ecdd542f828e68cdf460e9daad70db0e738a4ec1"
    );
    for (column, (hash, prefix)) in hashes.fragments.iter().zip(fragments).enumerate() {
        assert!(hex::encode(hash.0).starts_with(prefix), "column {column}");
    }
    let fid = file_id(&[hashes.segment]);
    assert_eq!(
        hex::encode(fid.0),
        "be1e4130895feddd642d5ca739f80de7b7e101ca271581a7c68071d5327d0c59"
    );
}

#[test]
fn fid_pairs_an_odd_node_with_itself_at_every_level() {
    let h: Vec<Sha256Hash> = (0..5u8).map(|i| Sha256Hash([i; 32])).collect();
    let join = |a: Sha256Hash, b: Sha256Hash| sha256(&[a.0, b.0].concat());
    let left = join(join(h[0], h[1]), join(h[2], h[3]));
    let right = join(join(h[4], h[4]), join(h[4], h[4]));
    assert_eq!(file_id(&h), Fid(join(left, right).0));
    assert_eq!(file_id(&h[..2]), Fid(join(h[0], h[1]).0));
}

#[test]
fn parity_rows_are_the_encoders() {
    for shard in 0..DATA_FRAGMENTS {
        let mut shards = [[0u8]; COLUMNS];
        shards[shard] = [1];
        ReedSolomon::new(4, 8).unwrap().encode(&mut shards).unwrap();
        for (row, parity) in PARITY_ROWS.iter().zip(&shards[DATA_FRAGMENTS..]) {
            assert_eq!(row[shard], parity[0]);
        }
    }
}

/// What [`pack_hashes`] must give, the plain way.
fn hashes_of(body: &[u8]) -> Vec<SegmentHashes> {
    let of = |data: &[u8]| {
        let mut shards = data.to_vec();
        shards.resize(COLUMNS * FRAGMENT_BYTES, 0);
        let mut parts: Vec<&mut [u8]> = shards.chunks_exact_mut(FRAGMENT_BYTES).collect();
        ReedSolomon::new(4, 8).unwrap().encode(&mut parts).unwrap();
        SegmentHashes {
            segment: sha256(data),
            fragments: std::array::from_fn(|i| sha256(parts[i])),
        }
    };
    body.chunks_exact(SEGMENT_BYTES).map(of).collect()
}

#[test]
fn hashes_of_packs_of_every_grouping_equal_the_plain_way() {
    let body = noise(5 * SEGMENT_BYTES, 3);
    let want = hashes_of(&body);
    for segments in [0, 1, 2, 3, 4, 5] {
        let read = |offset: u64, piece: &mut [u8]| -> Result<(), Infallible> {
            piece.copy_from_slice(&body[offset as usize..][..piece.len()]);
            Ok(())
        };
        let Ok(got) = pack_hashes(0..segments, read);
        assert_eq!(got, want[..segments], "{segments} segments");
        let Ok(got) = pack_hashes(segments..5, read);
        assert_eq!(got, want[segments..], "from segment {segments} on");
    }
}

#[test]
fn a_body_that_cannot_be_read_is_told() {
    let mut left = 100;
    let read = |_: u64, _: &mut [u8]| {
        left -= 1;
        if left == 0 { Err("lost") } else { Ok(()) }
    };
    assert_eq!(pack_hashes(0..1, read), Err("lost"));
}

#[test]
fn streams_are_empty_again_once_finished() {
    let input = noise(4096, 1);
    for mut streams in [Streams::new(3), Streams::single(3)] {
        for _ in 0..2 {
            streams.update(1, &[&input[..64], &input[64..128]]);
            streams.update(0, &[&input]);
            let got = streams.finish(0..3);
            assert_eq!(got, [sha256(&input), sha256(&input[..64]), sha256(&input[64..128])]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn every_vector_width_of_this_processor_is_right() {
    use super::lanes::{Running, Width};
    for width in Width::all() {
        for count in 1..=width.lanes() {
            let inputs: Vec<Vec<u8>> = (0..count).map(|i| noise(640, i as u64 * 3 + 1)).collect();
            let slices: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
            let want: Vec<Sha256Hash> = slices.iter().map(|slice| sha256(slice)).collect();
            // In two goes, as streams come.
            let (heads, tails): (Vec<&[u8]>, Vec<&[u8]>) = slices.iter().map(|slice| slice.split_at(192)).unzip();
            let mut streams = vec![Running::default(); count];
            width.absorb(&mut streams, &heads);
            width.absorb(&mut streams, &tails);
            assert_eq!(width.finish(&streams), want, "{width:?}, {count} inputs");
        }
    }
}

#[test]
fn wrong_columns_and_lengths_are_refused() {
    let shard = [0u8; 8];
    let short = [0u8; 7];
    let mut out = [0u8; 32];
    let columns = |list: [u8; 4]| list.map(|column| (column, &shard[..]));
    assert_eq!(decode(columns([0, 1, 1, 2]), &mut out), Err(ErasureError::Column(1)));
    assert_eq!(decode(columns([0, 1, 12, 2]), &mut out), Err(ErasureError::Column(12)));
    assert_eq!(
        decode_shard(4, columns([0, 1, 2, 3]), &mut out[..8]),
        Err(ErasureError::Column(4))
    );
    assert_eq!(
        decode(columns([0, 1, 2, 3]), &mut out[..8]),
        Err(ErasureError::Length { want: 32, got: 8 })
    );
    let ragged = [(0, &shard[..]), (1, &shard[..]), (2, &short[..]), (3, &shard[..])];
    assert_eq!(decode(ragged, &mut out), Err(ErasureError::Length { want: 8, got: 7 }));
    assert_eq!(
        column_range(12, [&shard; 4], &mut out[..8]),
        Err(ErasureError::Column(12))
    );
    assert_eq!(
        column_range(5, [&shard; 4], &mut out),
        Err(ErasureError::Length { want: 32, got: 8 })
    );
}

/// All 495 ways to lose eight columns.
#[test]
fn every_four_columns_restore_the_data() {
    let bytes = 33;
    let shards = whole(bytes, 42);
    let mut out = vec![0; bytes * DATA_FRAGMENTS];
    for mask in 0u16..1 << COLUMNS {
        if mask.count_ones() != 4 {
            continue;
        }
        let chosen: Vec<u8> = (0..COLUMNS as u8).filter(|column| mask & (1 << column) != 0).collect();
        let columns: [(u8, &[u8]); 4] = std::array::from_fn(|i| {
            let column = usize::from(chosen[i]);
            (chosen[i], &shards[column * bytes..(column + 1) * bytes])
        });
        out.fill(0x55);
        decode(columns, &mut out).unwrap();
        assert!(out == shards[..out.len()], "columns {chosen:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_range_of_any_column_can_be_computed_and_decoded(
        bytes in 1usize..3 * STRIPE_BYTES,
        seed in any::<u64>(),
        cut in any::<(u32, u32)>(),
        column in 0u8..12,
        order in Just((0u8..12).collect::<Vec<u8>>()).prop_shuffle(),
        wanted in 0u8..4,
    ) {
        let shards = whole(bytes, seed);
        let start = cut.0 as usize % bytes;
        let end = start + cut.1 as usize % (bytes - start) + 1;
        let part = |column: u8| {
            let base = usize::from(column) * bytes;
            &shards[base + start..base + end]
        };
        let mut out = vec![0xee; end - start];
        column_range(column, std::array::from_fn(|i| part(i as u8)), &mut out).unwrap();
        prop_assert!(out == part(column));
        out.fill(0xee);
        let columns = std::array::from_fn(|i| (order[i], part(order[i])));
        decode_shard(wanted, columns, &mut out).unwrap();
        prop_assert!(out == part(wanted));
    }
}
