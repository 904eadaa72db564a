//! Mutations by a seed: what a byte-level fuzzer does, small enough to run in every test.

/// Numbers at which lengths and counts break.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// A source of mutations; the same seed makes the same ones.
pub(crate) struct Mutator(u64);

impl Mutator {
    pub(crate) fn new(seed: u64) -> Mutator {
        Mutator(seed)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Changes an input in one to four ways; `other` is one to borrow from.
    pub(crate) fn mutate(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            self.step(input, other);
        }
    }

    fn step(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(input.len());
        let end = at + self.below(input.len() - at);
        match self.below(8) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = self.next() as u8,
            2 => self.edge(input, at),
            3 => input.truncate(at),
            4 => drop(input.drain(at..end)),
            5 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            6 => {
                let from = self.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let bytes = self.next().to_le_bytes();
                let length = 1 + self.below(8);
                input.splice(at..at, bytes[..length].iter().copied());
            }
        }
    }

    /// Writes an extreme number over what is there, in either order of bytes.
    fn edge(&mut self, input: &mut [u8], at: usize) {
        let number = *self.pick(&EDGES);
        let width = *self.pick(&[1, 2, 4, 8]);
        let bytes = match self.below(2) {
            0 => number.to_le_bytes()[..width].to_vec(),
            _ => number.to_be_bytes()[8 - width..].to_vec(),
        };
        for (place, byte) in input[at..].iter_mut().zip(bytes) {
            *place = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_its_mutations_and_no_others() {
        let mutations = |seed| {
            let mut mutator = Mutator::new(seed);
            let made = |_| {
                let mut input = b"an input of some length".to_vec();
                mutator.mutate(&mut input, b"another");
                input
            };
            (0..200).map(made).collect::<Vec<_>>()
        };
        assert_eq!(mutations(1), mutations(1));
        assert_ne!(mutations(1), mutations(2));
        let changed = mutations(1)
            .iter()
            .filter(|input| *input != b"an input of some length")
            .count();
        assert!(changed > 180, "{changed} of 200 were changed");
    }

    #[test]
    fn nothing_can_be_mutated_too() {
        let mut mutator = Mutator::new(5);
        for _ in 0..1000 {
            let mut input = Vec::new();
            mutator.mutate(&mut input, b"");
        }
    }
}
