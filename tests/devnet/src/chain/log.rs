//! The append-only file behind the chain.
//!
//! ```text
//!  file   = magic (8) record*
//!  record = length u32 LE (4) | twox64 of the payload (8) | payload (length)
//! ```
//! A record is on disk before `append` returns. What follows the last whole record is the tail that a crash tore; it is
//! cut off. After a failed write nothing more is appended: the file's end is then unknown.

use crate::limits::RECORD_BYTES_MAX;
use codec::{Decode, DecodeAll, Encode};
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    marker::PhantomData,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const MAGIC: &[u8; 8] = b"CESSDEV\x01";
const HEAD_BYTES: usize = 4 + 8;

/// Why the log can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file is no log of ours, or of another version.
    #[error("not a devnet chain log of this version")]
    Foreign,
    /// A whole record does not decode.
    #[error("record at byte {0} does not decode")]
    Damaged(u64),
    /// A record is larger than any block can be.
    #[error("record of {0} bytes is over the limit")]
    TooLarge(usize),
    /// An earlier write failed.
    #[error("the log failed before and takes no more records")]
    Poisoned,
    /// The file system failed.
    #[error("chain log: {0}")]
    Io(#[from] io::Error),
}

/// The open log.
pub(super) struct Log {
    file: File,
    /// Bytes up to the end of the last whole record, kept up by the reader of the records.
    whole: Arc<AtomicU64>,
    poisoned: bool,
}

impl Log {
    /// Opens or creates the log. The records have to be read to their end before anything is appended.
    pub(super) fn open<R: Decode>(path: &Path) -> Result<(Self, Records<R>), LogError> {
        let mut file = File::options().create(true).read(true).append(true).open(path)?;
        if file.metadata()?.len() < MAGIC.len() as u64 {
            file.set_len(0)?; // a crash during creation
            file.write_all(MAGIC)?;
            file.sync_all()?;
            if let Some(dir) = path.parent() {
                File::open(dir)?.sync_all()?;
            }
        }
        file.seek(SeekFrom::Start(0))?;
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(LogError::Foreign);
        }
        let whole = Arc::new(AtomicU64::new(MAGIC.len() as u64));
        let records = Records {
            reader: BufReader::new(file.try_clone()?),
            whole: whole.clone(),
            record: PhantomData,
        };
        Ok((
            Self {
                file,
                whole,
                poisoned: false,
            },
            records,
        ))
    }

    /// Cuts off what a crash left behind the last whole record.
    pub(super) fn cut_torn_tail(&mut self) -> Result<(), LogError> {
        let whole = self.whole.load(Ordering::Relaxed);
        let torn = self.file.metadata()?.len() - whole;
        if torn > 0 {
            tracing::warn!(bytes = torn, "cut the torn tail of the chain log");
            self.file.set_len(whole)?;
            self.file.sync_all()?;
        }
        Ok(())
    }

    /// Appends a record and waits for the disk.
    pub(super) fn append(&mut self, record: &impl Encode) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        let payload = record.encode();
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|_| payload.len() <= RECORD_BYTES_MAX);
        let length = length.ok_or(LogError::TooLarge(payload.len()))?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&sp_io::hashing::twox_64(&payload));
        bytes.extend_from_slice(&payload);
        self.poisoned = true; // until the write is known to be whole
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.poisoned = false;
        Ok(())
    }
}

/// The records of a log, oldest first. Ends before a torn one.
pub(super) struct Records<R> {
    reader: BufReader<File>,
    whole: Arc<AtomicU64>,
    record: PhantomData<R>,
}

impl<R> Records<R> {
    /// The next whole payload, or `None` at the end or at a torn record.
    fn payload(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        let mut head = [0; HEAD_BYTES];
        if !read_whole(&mut self.reader, &mut head)? {
            return Ok(None);
        }
        let (length, checksum) = head.split_at(4);
        let length = u32::from_le_bytes(length.try_into().expect("split at four")) as usize;
        if length == 0 || length > RECORD_BYTES_MAX {
            return Ok(None);
        }
        let mut payload = vec![0; length];
        let whole = read_whole(&mut self.reader, &mut payload)? && sp_io::hashing::twox_64(&payload) == *checksum;
        Ok(whole.then_some(payload))
    }
}

impl<R: Decode> Iterator for Records<R> {
    type Item = Result<R, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let payload = self.payload().transpose()?;
        Some(payload.and_then(|payload| {
            let start = self.whole.load(Ordering::Relaxed);
            let record = R::decode_all(&mut payload.as_slice()).map_err(|_| LogError::Damaged(start))?;
            self.whole
                .store(start + (HEAD_BYTES + payload.len()) as u64, Ordering::Relaxed);
            Ok(record)
        }))
    }
}

/// Fills `buffer`; false at the end of the file.
fn read_whole(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> (Vec<u32>, u64) {
        let (mut log, records) = Log::open::<Vec<u32>>(path).unwrap();
        let all = records.flat_map(|r| r.unwrap()).collect();
        log.cut_torn_tail().unwrap();
        (all, log.file.metadata().unwrap().len())
    }

    #[test]
    fn any_torn_tail_is_cut_and_the_log_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut log, records) = Log::open::<Vec<u32>>(&path).unwrap();
        assert_eq!(records.count(), 0);
        log.append(&vec![1u32, 2]).unwrap();
        let first = log.file.metadata().unwrap().len();
        log.append(&vec![3u32]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for cut in first..bytes.len() as u64 {
            std::fs::write(&path, &bytes[..cut as usize]).unwrap();
            assert_eq!(read(&path), (vec![1, 2], first), "cut at {cut}");
        }
        let (mut log, records) = Log::open::<Vec<u32>>(&path).unwrap();
        assert_eq!(records.count(), 1);
        log.append(&vec![4u32]).unwrap();
        assert_eq!(read(&path).0, [1, 2, 4]);
    }

    #[test]
    fn a_flipped_bit_ends_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut log, _) = Log::open::<Vec<u32>>(&path).unwrap();
        log.append(&vec![1u32]).unwrap();
        log.append(&vec![2u32]).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).0, [1]);
    }

    #[test]
    fn a_foreign_file_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, b"something else entirely").unwrap();
        assert!(matches!(Log::open::<Vec<u32>>(&path), Err(LogError::Foreign)));
        assert_eq!(std::fs::read(&path).unwrap(), b"something else entirely");
    }
}
