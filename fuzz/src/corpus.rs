//! The committed corpus, and tests over it.

use crate::mutate::Mutator;
use crate::{Bound, check};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

/// Mutations that a test makes of a corpus.
const MUTATIONS: u64 = 3000;
/// What mutations start from, unless `CESSFS_FUZZ_SEED` says otherwise: a red run is then somebody's change.
const SEED: u64 = 137;
/// Longest mutated input. Formats with longer fields have them in the corpus.
const INPUT_BYTES_MAX: usize = 16 << 10;

fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

fn read(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = directory(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut corpus: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("the directory can be read").path();
            let name = path
                .file_name()
                .expect("an entry has a name")
                .to_string_lossy()
                .into_owned();
            (name, std::fs::read(&path).expect("a file of the corpus can be read"))
        })
        .collect();
    corpus.sort();
    assert!(!corpus.is_empty(), "{} is empty", dir.display());
    corpus
}

/// Runs a target over its corpus and over mutations of it. A failure says which input it was.
pub fn replay(name: &str, target: fn(&[u8]), bound: Bound) {
    let run = |what: &str, input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(target, bound, input))) {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            println!("target {name}, {what}: {hex}");
            resume_unwind(panic);
        }
    };
    let corpus = read(name);
    for (file, input) in &corpus {
        run(file, input);
    }
    let seed =
        std::env::var("CESSFS_FUZZ_SEED").map_or(SEED, |seed| seed.parse().expect("CESSFS_FUZZ_SEED is a number"));
    let mut mutator = Mutator::new(seed);
    for number in 0..MUTATIONS {
        let mut input = mutator.pick(&corpus).1.clone();
        let other = &mutator.pick(&corpus).1;
        mutator.mutate(&mut input, other);
        input.truncate(INPUT_BYTES_MAX);
        run(&format!("mutation {number} of seed {seed}"), &input);
    }
}

/// Checks that the corpus has these inputs, which a room makes from its own formats; with `CESSFS_WRITE_CORPUS` set it writes
/// them instead, for whoever changed a format.
pub fn seeds(target: &str, seeds: &[(&str, Vec<u8>)]) {
    let dir = directory(target);
    if std::env::var_os("CESSFS_WRITE_CORPUS").is_some() {
        std::fs::create_dir_all(&dir).expect("the corpus can be written");
        for (name, bytes) in seeds {
            std::fs::write(dir.join(name), bytes).expect("the corpus can be written");
        }
    }
    for (name, bytes) in seeds {
        let there = std::fs::read(dir.join(name)).unwrap_or_default();
        assert!(
            there == *bytes,
            "{target}/{name} is not what the code makes: CESSFS_WRITE_CORPUS=1 writes it"
        );
    }
}
