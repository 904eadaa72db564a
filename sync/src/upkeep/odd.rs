//! Which of several miners gives wrong bytes, without asking for anything whole.
//!
//! The same range of all columns is a word of the erasure code: any four columns say what the others must be. Among `n`
//! answers up to `(n - 4) / 2` wrong ones are found for certain, because two words of the code agree in three columns at most.

use crate::erasure::{column_range, decode_shard};
use crate::limits::DATA_FRAGMENTS;
use bytes::Bytes;

/// The columns that do not fit the others; `None` if there are too few answers, or too many wrong ones, to tell. All answers
/// are equally long. Blocks on the processor: half a second for twelve answers of 64 KiB that no four agree about.
pub(super) fn odd_ones(answers: &[(u8, Bytes)]) -> Option<Vec<u8>> {
    let tolerated = answers.len().checked_sub(DATA_FRAGMENTS)? / 2;
    if answers.len() == DATA_FRAGMENTS {
        return None;
    }
    for a in 0..answers.len() {
        for b in a + 1..answers.len() {
            for c in b + 1..answers.len() {
                for d in c + 1..answers.len() {
                    let odd = against([a, b, c, d].map(|index| &answers[index]), answers);
                    if odd.len() <= tolerated {
                        return Some(odd);
                    }
                }
            }
        }
    }
    None
}

/// The columns that differ from what these four say.
fn against(basis: [&(u8, Bytes); DATA_FRAGMENTS], answers: &[(u8, Bytes)]) -> Vec<u8> {
    let columns = basis.map(|(column, bytes)| (*column, &bytes[..]));
    let len = basis[0].1.len();
    let data: [Vec<u8>; DATA_FRAGMENTS] = std::array::from_fn(|wanted| {
        let mut out = vec![0; len];
        decode_shard(wanted as u8, columns, &mut out).expect("four distinct columns, equally long");
        out
    });
    let mut expected = vec![0; len];
    let mut odd = Vec::new();
    for (column, bytes) in answers {
        match data.get(usize::from(*column)) {
            Some(shard) => expected.copy_from_slice(shard),
            None => {
                let shards = data.each_ref().map(Vec::as_slice);
                column_range(*column, shards, &mut expected).expect("a column below 12, and equally long shards");
            }
        }
        if expected != bytes[..] {
            odd.push(*column);
        }
    }
    odd
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::COLUMNS;

    fn word() -> Vec<(u8, Bytes)> {
        let data: [Vec<u8>; DATA_FRAGMENTS] =
            std::array::from_fn(|k| (0..512u32).map(|i| (i * 7 + k as u32 * 91 + i / 3) as u8).collect());
        let shards = data.each_ref().map(Vec::as_slice);
        (0..COLUMNS as u8)
            .map(|column| {
                let mut out = vec![0; 512];
                match data.get(usize::from(column)) {
                    Some(shard) => out.copy_from_slice(shard),
                    None => column_range(column, shards, &mut out).unwrap(),
                }
                (column, out.into())
            })
            .collect()
    }

    fn damage(word: &mut [(u8, Bytes)], column: u8) {
        let answer = word.iter_mut().find(|(c, _)| *c == column).unwrap();
        let mut bytes = answer.1.to_vec();
        bytes[usize::from(column) * 3] ^= 0x40;
        answer.1 = bytes.into();
    }

    #[test]
    fn up_to_four_of_twelve_are_found() {
        let mut word = word();
        assert_eq!(odd_ones(&word), Some(vec![]));
        for (wrong, column) in [0, 3, 7, 11].into_iter().enumerate() {
            damage(&mut word, column);
            assert_eq!(odd_ones(&word).unwrap().len(), wrong + 1);
        }
        assert_eq!(odd_ones(&word), Some(vec![0, 3, 7, 11]));
        damage(&mut word, 5);
        assert_eq!(
            odd_ones(&word),
            None,
            "five wrong ones of twelve cannot be told for certain"
        );
    }

    #[test]
    fn few_answers_tell_little() {
        let mut word = word();
        word.truncate(5);
        assert_eq!(odd_ones(&word), Some(vec![]));
        damage(&mut word, 2);
        assert_eq!(odd_ones(&word), None);
        assert_eq!(odd_ones(&word[..4]), None);
        assert_eq!(odd_ones(&word[..2]), None);
    }
}
