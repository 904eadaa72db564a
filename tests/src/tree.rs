//! Trees to copy in, and manifests to compare by.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Path below the root -> what is there: `dir`, `-> target`, a BLAKE3 hash of the content, or what kind of special file it is.
pub type Manifest = BTreeMap<PathBuf, String>;

/// What is below `root`.
pub fn manifest(root: &Path) -> Result<Manifest> {
    let mut found = Manifest::new();
    collect(root, root, &mut found)?;
    Ok(found)
}

fn collect(root: &Path, dir: &Path, found: &mut Manifest) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        let metadata = path.symlink_metadata()?;
        let below = path.strip_prefix(root)?.to_path_buf();
        if metadata.is_dir() {
            found.insert(below, "dir".into());
            collect(root, &path, found)?;
        } else if metadata.is_symlink() {
            found.insert(below, format!("-> {}", fs::read_link(&path)?.display()));
        } else if metadata.is_file() {
            found.insert(below, hash(&path)?);
        } else {
            found.insert(below, format!("{:?}", metadata.file_type()));
        }
    }
    Ok(())
}

/// BLAKE3 of a file's content.
pub fn hash(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file
            .read(&mut buffer)
            .with_context(|| format!("read {}", path.display()))?
        {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            n => hasher.update(&buffer[..n]),
        };
    }
}

/// The first differences between two manifests, in words; empty if there are none.
pub fn differences(expected: &Manifest, found: &Manifest) -> Vec<String> {
    let lost = expected.iter().filter_map(|(path, what)| match found.get(path) {
        None => Some(format!("{} is missing", path.display())),
        Some(there) if there != what => Some(format!("{} is {there}, not {what}", path.display())),
        Some(_) => None,
    });
    let new = found.keys().filter(|path| !expected.contains_key(*path));
    lost.chain(new.map(|path| format!("{} appeared", path.display())))
        .take(20)
        .collect()
}

/// Bytes that don't compress and repeat nowhere, told by `seed`.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

/// A file of `mib` MiB of noise.
pub fn write_noise(path: &Path, seed: u64, mib: usize) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    for i in 0..mib {
        file.write_all(&noise(seed.wrapping_mul(1_000_003).wrapping_add(i as u64), 1 << 20))?;
    }
    Ok(())
}

/// `count` small files of 0..8 KiB in directories of a hundred.
pub fn write_many(root: &Path, count: usize) -> Result<()> {
    for i in 0..count {
        let dir = root.join(format!("{:03}", i / 100));
        if i % 100 == 0 {
            fs::create_dir_all(&dir)?;
        }
        fs::write(dir.join(format!("file-{i:05}.txt")), noise(i as u64, (i * 37) % 8192))?;
    }
    Ok(())
}

/// Copies a tree with `cp -a`, as a person would.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    anyhow::ensure!(
        status.success(),
        "cp -a {} {} failed: {status}",
        from.display(),
        to.display()
    );
    Ok(())
}
