//! SHA-256, of one input or of many at once.
//!
//! One input goes through ring, whose assembly is twice as fast as portable code on processors without SHA instructions.

#[cfg(target_arch = "x86_64")]
use super::lanes::Width;
use crate::fragment_store::Sha256Hash;
use ring::digest;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Inputs shorter than this are not worth a vector lane.
const WIDE_BYTES_MIN: usize = 4 << 10;
/// Fewer inputs than this of one length are faster one by one.
const WIDE_INPUTS_MIN: usize = 4;

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Sha256Hash {
    let digest = digest::digest(&digest::SHA256, bytes);
    Sha256Hash(digest.as_ref().try_into().expect("a SHA-256 digest has 32 bytes"))
}

/// SHA-256 of each input, on up to `threads` threads; the order of the results is that of the inputs.
///
/// Inputs of one length share the processor's vector unit where that is faster than one after the other.
pub fn sha256_all(inputs: &[&[u8]], threads: usize) -> Vec<Sha256Hash> {
    let jobs = plan(inputs);
    let results: Vec<OnceLock<Sha256Hash>> = inputs.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let slices: Vec<&[u8]> = job.inputs.iter().map(|&i| inputs[i]).collect();
            for (&i, hash) in job.inputs.iter().zip(job.hash(&slices)) {
                results[i].set(hash).expect("every input is in one job");
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(jobs.len()) {
            scope.spawn(work);
        }
        work();
    });
    results
        .into_iter()
        .map(|slot| slot.into_inner().expect("every input is in a job and all jobs ran"))
        .collect()
}

/// Inputs that one thread hashes together.
struct Job {
    inputs: Vec<usize>,
    #[cfg(target_arch = "x86_64")]
    width: Option<Width>,
}

impl Job {
    fn hash(&self, slices: &[&[u8]]) -> Vec<Sha256Hash> {
        #[cfg(target_arch = "x86_64")]
        if let Some(width) = self.width {
            return width.hash(slices);
        }
        slices.iter().map(|slice| sha256(slice)).collect()
    }

    fn one(input: usize) -> Job {
        Job {
            inputs: vec![input],
            #[cfg(target_arch = "x86_64")]
            width: None,
        }
    }
}

/// Jobs in the order of starting: the long single ones first, because nothing can be done beside them at the end.
fn plan(inputs: &[&[u8]]) -> Vec<Job> {
    let mut order: Vec<usize> = (0..inputs.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(inputs[i].len()));
    #[cfg(target_arch = "x86_64")]
    if let Some(width) = Width::detect() {
        return plan_wide(inputs, &order, width);
    }
    order.into_iter().map(Job::one).collect()
}

#[cfg(target_arch = "x86_64")]
fn plan_wide(inputs: &[&[u8]], order: &[usize], width: Width) -> Vec<Job> {
    let mut jobs = Vec::new();
    for same in order.chunk_by(|&a, &b| inputs[a].len() == inputs[b].len()) {
        let bytes = inputs[same[0]].len();
        for group in same.chunks(width.lanes()) {
            if bytes >= WIDE_BYTES_MIN && bytes.is_multiple_of(64) && group.len() >= WIDE_INPUTS_MIN {
                jobs.push(Job {
                    inputs: group.to_vec(),
                    width: Some(width),
                });
            } else {
                jobs.extend(group.iter().copied().map(Job::one));
            }
        }
    }
    jobs
}
