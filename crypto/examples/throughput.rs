//! Prints how many GiB per second each hot path moves on one core: `cargo run -p cessfs-crypto --example throughput`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cessfs_crypto::{Entropy, FrameId, PackSeq, Phrase, VolumeId};

const CHUNK_BYTES: usize = 1 << 20;
const BLOCK_BYTES: usize = 4096;
/// How long each path is measured.
const SPAN: Duration = Duration::from_millis(700);

/// Not random at all: only the speed of what it feeds is of interest.
struct Counter(u64);

impl Entropy for Counter {
    fn fill(&mut self, out: &mut [u8]) {
        self.0 += 1;
        out.iter_mut()
            .zip(self.0.to_le_bytes().iter().cycle())
            .for_each(|(out, byte)| *out = *byte);
    }
}

/// Times single passes of about 1 MiB and prints the best and the mean: the best is the code, the mean is the machine.
fn measure(name: &str, bytes: usize, mut work: impl FnMut()) {
    let per_pass = CHUNK_BYTES / bytes;
    let gib = (per_pass * bytes) as f64 / f64::from(1 << 30);
    let start = Instant::now();
    let (mut best, mut passes) = (Duration::MAX, 0);
    while start.elapsed() < SPAN {
        let pass = Instant::now();
        (0..per_pass).for_each(|_| work());
        best = best.min(pass.elapsed());
        passes += 1;
    }
    let mean = f64::from(passes) * gib / start.elapsed().as_secs_f64();
    println!(
        "{name:<12} {:>6.2} GiB/s best {mean:>6.2} mean",
        gib / best.as_secs_f64()
    );
}

fn main() {
    let mut entropy = Counter(0);
    let keys = Phrase::generate(&mut entropy).secret().volume_keys(VolumeId([1; 16]));
    let chunk = vec![0x5a; CHUNK_BYTES];
    let id = FrameId::Chunk(keys.chunk_id(&chunk));
    let mut sealed = Vec::with_capacity(CHUNK_BYTES + cessfs_crypto::SEAL_OVERHEAD);
    let mut block = vec![0x5a; BLOCK_BYTES];
    let inode = keys.at_rest().inode(1);
    let nonce = [7; 12];

    measure("chunk_id", CHUNK_BYTES, || {
        black_box(keys.chunk_id(black_box(&chunk)));
    });
    measure("seal", CHUNK_BYTES, || {
        sealed.clear();
        keys.seal(id, black_box(&chunk), &mut entropy, &mut sealed);
    });
    measure("open", CHUNK_BYTES, || {
        black_box(keys.open(id, black_box(&sealed)).expect("just sealed"));
    });
    measure("pad", CHUNK_BYTES, || {
        keys.pad(PackSeq(1), 0, black_box(&mut sealed[..CHUNK_BYTES]))
    });
    measure("seal_block", BLOCK_BYTES, || {
        black_box(inode.seal_block(1, 1, &nonce, black_box(&mut block)));
    });
    block.fill(0x5a);
    let tag = inode.seal_block(1, 1, &nonce, &mut block);
    let sealed_block = block.clone();
    measure("open_block", BLOCK_BYTES, || {
        block.copy_from_slice(&sealed_block);
        inode
            .open_block(1, 1, &nonce, &tag, black_box(&mut block))
            .expect("just sealed");
    });
}
