//! The door that randomness comes through.

/// Where random bytes come from. The process has one real source, built in the binary's wiring; simulations seed theirs.
pub trait Entropy: Send {
    /// Fills `out` with bytes nobody can guess. A source that can't must not return.
    fn fill(&mut self, out: &mut [u8]);
}

/// `N` random bytes.
pub(crate) fn fresh<const N: usize>(entropy: &mut dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// A counting stream for tests: every draw differs, every run is the same.
#[cfg(test)]
pub(crate) struct Counting(pub(crate) u64);

#[cfg(test)]
impl Entropy for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        self.0 += 1;
        let mut reader = blake3::Hasher::new().update(&self.0.to_le_bytes()).finalize_xof();
        reader.fill(out);
    }
}
