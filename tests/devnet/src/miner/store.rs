//! One miner's fragments on the disk: `<dir>/<fid>/<fragment hash>`, 8 MiB each.
//!
//! A fragment is written aside, in `<dir>/incoming`, and renamed to its place once its length and hash are right, so a
//! process killed at any moment leaves whole fragments or none. Nothing is synced: the devnet promises to survive the
//! death of its process, not of the machine. What is held is also kept in memory, because the reporter asks all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::limits::{CORRUPTION_STRIDE_BYTES, FRAGMENT_BYTES};
use super::name::{Fid, FragmentHash};

const INCOMING: &str = "incoming";

/// Why bytes did not become a fragment.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("fragment has {0} bytes, not 8388608")]
    Size(u64),
    #[error("fragment hash is {0}")]
    Hash(String),
    #[error("disk: {0}")]
    Disk(#[from] io::Error),
}

/// The fragments of one miner.
pub struct FragmentStore {
    dir: PathBuf,
    held: Mutex<BTreeMap<Fid, BTreeSet<FragmentHash>>>,
    parts: AtomicU64,
}

impl FragmentStore {
    /// Opens a miner's directory, makes it where it is missing, and takes stock of it.
    ///
    /// # Errors
    /// The directory cannot be made, read or written.
    pub fn open(dir: &Path) -> io::Result<FragmentStore> {
        let incoming = dir.join(INCOMING);
        if incoming.exists() {
            fs::remove_dir_all(&incoming)?;
        }
        fs::create_dir_all(&incoming)?;
        Ok(FragmentStore {
            dir: dir.to_owned(),
            held: Mutex::new(take_stock(dir)?),
            parts: AtomicU64::new(0),
        })
    }

    /// True where the fragment is held.
    pub fn holds(&self, fid: &Fid, fragment: &FragmentHash) -> bool {
        self.held
            .lock()
            .get(fid)
            .is_some_and(|fragments| fragments.contains(fragment))
    }

    /// Files of which something is held.
    pub fn fids(&self) -> Vec<Fid> {
        self.held.lock().keys().cloned().collect()
    }

    /// What is held of a file.
    pub fn fragments(&self, fid: &Fid) -> BTreeSet<FragmentHash> {
        self.held.lock().get(fid).cloned().unwrap_or_default()
    }

    /// Number of fragments held, over all files.
    pub fn count(&self) -> u64 {
        self.held.lock().values().map(|fragments| fragments.len() as u64).sum()
    }

    /// Takes a fragment in, piece by piece, until the sender of `pieces` goes away. Blocks on the disk and on the sender.
    ///
    /// # Errors
    /// The bytes are not 8 MiB, or are not those of `fragment`: nothing stays on the disk then.
    pub fn receive(
        &self,
        fid: &Fid,
        fragment: &FragmentHash,
        pieces: &mut mpsc::Receiver<Bytes>,
    ) -> Result<(), ReceiveError> {
        let part = Part::create(self)?;
        let mut hash = Sha256::new();
        let mut size = 0;
        while let Some(piece) = pieces.blocking_recv() {
            size += piece.len() as u64;
            // What is too long is still received to its end: the client reads the answer only after it has sent all.
            if size <= FRAGMENT_BYTES {
                hash.update(&piece);
                (&part.file).write_all(&piece)?;
            }
        }
        if size != FRAGMENT_BYTES {
            return Err(ReceiveError::Size(size));
        }
        let found = hex::encode(hash.finalize());
        if found != fragment.as_str() {
            return Err(ReceiveError::Hash(found));
        }
        Ok(self.place(part, fid, fragment)?)
    }

    /// Takes the zero fragment in, which nobody sends. It is a hole on the disk.
    ///
    /// # Errors
    /// The disk cannot be written.
    pub fn receive_zeros(&self, fid: &Fid, fragment: &FragmentHash) -> io::Result<()> {
        let part = Part::create(self)?;
        part.file.set_len(FRAGMENT_BYTES)?;
        self.place(part, fid, fragment)
    }

    fn place(&self, part: Part, fid: &Fid, fragment: &FragmentHash) -> io::Result<()> {
        let mut held = self.held.lock();
        let dir = self.dir.join(fid.as_str());
        fs::create_dir_all(&dir)?;
        fs::rename(&part.path, dir.join(fragment.as_str()))?;
        held.entry(fid.clone()).or_default().insert(fragment.clone());
        Ok(())
    }

    /// The bytes of a held fragment in `range`, which lies within [`FRAGMENT_BYTES`]; `None` where it is not held.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn read(&self, fid: &Fid, fragment: &FragmentHash, range: Range<u64>) -> io::Result<Option<Vec<u8>>> {
        if !self.holds(fid, fragment) {
            return Ok(None);
        }
        let file = match File::open(self.path(fid, fragment)) {
            Ok(file) => file,
            // Forgotten since the question above.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let length = usize::try_from(range.end - range.start).expect("a fragment fits the address space");
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, range.start)?;
        Ok(Some(bytes))
    }

    /// Deletes what is held of a file, and returns how many fragments that were.
    ///
    /// # Errors
    /// The directory cannot be deleted; its fragments count as gone all the same.
    pub fn drop_file(&self, fid: &Fid) -> io::Result<usize> {
        let mut held = self.held.lock();
        let Some(fragments) = held.remove(fid) else {
            return Ok(0);
        };
        fs::remove_dir_all(self.dir.join(fid.as_str()))?;
        Ok(fragments.len())
    }

    /// Changes a byte in each [`CORRUPTION_STRIDE_BYTES`] of each held fragment, and returns how many fragments are held.
    /// Doing it again changes them again and does not mend them.
    ///
    /// # Errors
    /// A fragment cannot be read or written; those before it are corrupt already.
    pub fn corrupt(&self) -> io::Result<usize> {
        let held = self.held.lock();
        let mut count = 0;
        for (fid, fragments) in held.iter() {
            for fragment in fragments {
                let path = self.path(fid, fragment);
                let mut bytes = fs::read(&path)?;
                bytes
                    .iter_mut()
                    .step_by(CORRUPTION_STRIDE_BYTES)
                    .for_each(|byte| *byte = byte.wrapping_add(1));
                OpenOptions::new().write(true).open(&path)?.write_all_at(&bytes, 0)?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn path(&self, fid: &Fid, fragment: &FragmentHash) -> PathBuf {
        self.dir.join(fid.as_str()).join(fragment.as_str())
    }
}

/// A fragment that is being written aside; its file goes away with it, unless it was renamed.
struct Part {
    file: File,
    path: PathBuf,
}

impl Part {
    fn create(store: &FragmentStore) -> io::Result<Part> {
        let number = store.parts.fetch_add(1, Ordering::Relaxed);
        let path = store.dir.join(INCOMING).join(format!("{number}.part"));
        Ok(Part {
            file: File::create(&path)?,
            path,
        })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already where the part found its place.
        let _ = fs::remove_file(&self.path);
    }
}

fn take_stock(dir: &Path) -> io::Result<BTreeMap<Fid, BTreeSet<FragmentHash>>> {
    let mut held = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Some(fid) = entry.file_name().to_str().and_then(Fid::parse) else {
            continue;
        };
        let mut fragments = BTreeSet::new();
        for entry in fs::read_dir(entry.path())? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.metadata()?.len() == FRAGMENT_BYTES
                && let Some(fragment) = name.to_str().and_then(FragmentHash::parse)
            {
                fragments.insert(fragment);
            }
        }
        held.insert(fid, fragments);
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (Fid, FragmentHash) {
        (
            Fid::parse(&"f".repeat(64)).unwrap(),
            FragmentHash::parse(super::super::limits::ZERO_FRAGMENT).unwrap(),
        )
    }

    fn receive(store: &FragmentStore, size: usize) -> Result<(), ReceiveError> {
        let (fid, zeros) = names();
        let (tx, mut rx) = mpsc::channel(1);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut left = size;
                while left > 0 {
                    let piece = left.min(100_000);
                    tx.blocking_send(Bytes::from(vec![0; piece])).unwrap();
                    left -= piece;
                }
            });
            store.receive(&fid, &zeros, &mut rx)
        })
    }

    #[test]
    fn only_whole_fragments_stay_and_a_new_process_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let (fid, zeros) = names();
        let store = FragmentStore::open(dir.path()).unwrap();
        let whole = FRAGMENT_BYTES as usize;
        for wrong in [0, whole - 1, whole + 1, whole + 300_000] {
            assert!(matches!(receive(&store, wrong), Err(ReceiveError::Size(size)) if size == wrong as u64));
        }
        assert!(!store.holds(&fid, &zeros));
        receive(&store, whole).unwrap();
        assert_eq!(
            fs::read_dir(dir.path().join(INCOMING)).unwrap().count(),
            0,
            "nothing is left aside"
        );

        fs::write(dir.path().join(INCOMING).join("7.part"), "cut off").unwrap();
        fs::write(dir.path().join(fid.as_str()).join("a".repeat(64)), "too short").unwrap();
        let store = FragmentStore::open(dir.path()).unwrap();
        assert!(store.holds(&fid, &zeros));
        assert_eq!(store.count(), 1);
        assert_eq!(
            fs::read_dir(dir.path().join(INCOMING)).unwrap().count(),
            0,
            "nor after a crash"
        );
    }

    #[test]
    fn corruption_reaches_every_stride_and_does_not_undo_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (fid, zeros) = names();
        let store = FragmentStore::open(dir.path()).unwrap();
        store.receive_zeros(&fid, &zeros).unwrap();
        for round in 1..=2 {
            assert_eq!(store.corrupt().unwrap(), 1);
            let bytes = store.read(&fid, &zeros, 0..FRAGMENT_BYTES).unwrap().unwrap();
            assert!(bytes.chunks(CORRUPTION_STRIDE_BYTES).all(|stride| stride[0] == round));
        }
        assert_eq!(store.drop_file(&fid).unwrap(), 1);
        assert_eq!(store.read(&fid, &zeros, 0..1).unwrap(), None);
        assert_eq!(FragmentStore::open(dir.path()).unwrap().count(), 0);
    }
}
