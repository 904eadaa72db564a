//! What one core can do of each thing that happens to every byte, and to every record.
//!
//! The lines called `gib/…` are the sum of the parts that docs/PERFORMANCE.md holds the pipeline against: seconds of one core
//! per GiB of user data are 1 / (GiB/s) of each, weighted as written there.

use cessfs_crypto::{Entropy, FrameId, Phrase, VolumeId, VolumeKeys};
use cessfs_erasure::{encode, pack_hashes};
use cessfs_sync::store::{Journal, RedbBackend, Sealer, SledBackend};
use cessfs_sync::{Batch, MetaStore};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::convert::Infallible;
use std::hint::black_box;

const MIB: usize = 1 << 20;
const SEGMENT: usize = 32 * MIB;
const STRIPE: usize = 64 << 10;
/// Files whose records one measured batch creates.
const FILES: u64 = 256;

/// Bytes that look random and are the same in every run.
struct Stream(u64);

impl Entropy for Stream {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = (self.0 >> 56) as u8;
        }
    }
}

fn bytes(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    Stream(7).fill(&mut out);
    out
}

fn keys() -> VolumeKeys {
    let words = format!("{}art", "abandon ".repeat(23));
    let phrase = Phrase::parse(&words).expect("the phrase of all-zero entropy");
    phrase.secret().volume_keys(VolumeId([3; 16]))
}

fn per_byte(c: &mut Criterion) {
    let keys = keys();
    let chunk = bytes(MIB);
    let mut group = c.benchmark_group("gib");
    group.sample_size(20).throughput(Throughput::Bytes(MIB as u64));
    group.bench_function("chunk_id", |b| b.iter(|| keys.chunk_id(black_box(&chunk))));
    let id = FrameId::Chunk(keys.chunk_id(&chunk));
    let mut entropy = Stream(2);
    let mut sealed = Vec::with_capacity(2 * MIB);
    group.bench_function("seal_chunk", |b| {
        b.iter(|| {
            sealed.clear();
            keys.seal(id, black_box(&chunk), &mut entropy, &mut sealed);
        });
    });
    group.bench_function("open_chunk", |b| b.iter(|| keys.open(id, black_box(&sealed)).unwrap()));

    let inode = keys.at_rest().inode(5);
    group.bench_function("seal_blocks", |b| {
        b.iter_batched_ref(
            || chunk.clone(),
            |data| {
                for (number, block) in data.chunks_exact_mut(4096).enumerate() {
                    black_box(inode.seal_block(number as u64, 1, &[9; 12], block));
                }
            },
            BatchSize::LargeInput,
        );
    });

    let data: Vec<Vec<u8>> = (0..4).map(|_| bytes(STRIPE)).collect();
    let mut parity: Vec<Vec<u8>> = vec![vec![0; STRIPE]; 8];
    group.throughput(Throughput::Bytes(4 * STRIPE as u64));
    group.bench_function("encode", |b| {
        b.iter(|| {
            let mut rest = parity.iter_mut();
            encode(
                std::array::from_fn(|i| black_box(&data[i][..])),
                std::array::from_fn(|_| &mut rest.next().expect("eight")[..]),
            );
        });
    });

    let body = bytes(4 * SEGMENT);
    group.sample_size(10).throughput(Throughput::Bytes(4 * SEGMENT as u64));
    group.bench_function("encode_and_hash_pack", |b| {
        b.iter(|| {
            pack_hashes(0..4, |offset, piece| {
                piece.copy_from_slice(&body[offset as usize..][..piece.len()]);
                Ok::<(), Infallible>(())
            })
        });
    });
    group.finish();
}

/// The records that creating one small file with 4 KiB of content brings.
fn created(ino: u64, content: &[u8]) -> Batch {
    let key = |prefix: u8, second: u64| [&[prefix][..], &ino.to_be_bytes(), &second.to_be_bytes()].concat();
    let mut batch = Batch::new();
    batch.put(key(b'i', 0), vec![1; 96]);
    batch.put(key(b'd', ino.wrapping_mul(0x9e37_79b9_7f4a_7c15)), vec![2; 40]);
    batch.put(key(b'b', 0), content);
    for mark in 0..4 {
        batch.put(key(b'm', mark), vec![1]);
    }
    batch
}

fn per_record(c: &mut Criterion) {
    let keys = keys();
    let content = bytes(4096);
    let mut group = c.benchmark_group("records");
    group.sample_size(10);
    let record = bytes(96);
    group.bench_function("seal_record", |b| {
        let (at_rest, mut entropy) = (keys.at_rest(), Stream(3));
        b.iter(|| at_rest.seal_record(b"i12345678", black_box(&record), &mut entropy));
    });
    group.throughput(Throughput::Elements(FILES));
    let sealer = || Some(Sealer::new(keys.at_rest(), Box::new(Stream(4))));
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let sled = Journal::new(SledBackend::open(dirs[0].path()).unwrap(), sealer()).unwrap();
    let redb = Journal::new(RedbBackend::open(dirs[1].path()).unwrap(), sealer()).unwrap();
    let stores: [(&str, &dyn MetaStore); 2] = [("create_on_sled", &sled), ("create_on_redb", &redb)];
    for (name, store) in stores {
        let mut ino = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                for _ in 0..FILES {
                    ino += 1;
                    store.commit(created(ino, &content)).unwrap();
                }
                store.barrier().unwrap();
            });
        });
    }
    group.finish();
}

criterion_group!(parts, per_byte, per_record);
criterion_main!(parts);
