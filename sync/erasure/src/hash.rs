//! SHA-256, of one input or of several streams side by side.
//!
//! One input goes through ring, whose assembly is twice as fast as portable code on processors without SHA instructions.

use crate::Sha256Hash;
#[cfg(target_arch = "x86_64")]
use crate::lanes::{Running, Width};
use ring::digest::{Context, Digest, SHA256, digest};
use std::ops::Range;

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Sha256Hash {
    own(&digest(&SHA256, bytes))
}

/// SHA-256 of these, one after the other.
pub fn sha256_of(parts: &[&[u8]]) -> Sha256Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    own(&context.finish())
}

fn own(digest: &Digest) -> Sha256Hash {
    Sha256Hash(digest.as_ref().try_into().expect("a SHA-256 digest has 32 bytes"))
}

/// Hashes of streams that grow in step. They share the processor's vector unit where that is faster than one after the
/// other.
pub(super) enum Streams {
    /// One by one.
    Single(Vec<Context>),
    /// In lanes.
    #[cfg(target_arch = "x86_64")]
    Lanes(Width, Vec<Running>),
}

impl Streams {
    /// `count` empty streams, by the fastest way this processor has for many.
    pub(super) fn new(count: usize) -> Streams {
        #[cfg(target_arch = "x86_64")]
        if let Some(width) = Width::detect() {
            return Streams::Lanes(width, vec![Running::default(); count]);
        }
        Streams::single(count)
    }

    /// `count` empty streams, hashed one by one.
    pub(super) fn single(count: usize) -> Streams {
        Streams::Single(vec![Context::new(&SHA256); count])
    }

    /// Appends to the streams from `first` on: one input each, all of one length, a multiple of 64 bytes.
    pub(super) fn update(&mut self, first: usize, inputs: &[&[u8]]) {
        match self {
            Streams::Single(contexts) => {
                for (context, input) in contexts[first..].iter_mut().zip(inputs) {
                    context.update(input);
                }
            }
            #[cfg(target_arch = "x86_64")]
            Streams::Lanes(width, running) => {
                let running = running[first..first + inputs.len()].chunks_mut(width.lanes());
                for (running, inputs) in running.zip(inputs.chunks(width.lanes())) {
                    width.absorb(running, inputs);
                }
            }
        }
    }

    /// The hashes of some streams, which are empty again afterwards.
    pub(super) fn finish(&mut self, range: Range<usize>) -> Vec<Sha256Hash> {
        match self {
            Streams::Single(contexts) => contexts[range]
                .iter_mut()
                .map(|context| own(&std::mem::replace(context, Context::new(&SHA256)).finish()))
                .collect(),
            #[cfg(target_arch = "x86_64")]
            Streams::Lanes(width, running) => {
                let running = &mut running[range];
                let hashes = running
                    .chunks(width.lanes())
                    .flat_map(|part| width.finish(part))
                    .collect();
                running.fill(Running::default());
                hashes
            }
        }
    }
}
