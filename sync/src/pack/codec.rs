//! Header and footer: fixed-size frames at the two ends of a pack. Integers are little-endian.

use super::{FOOTER_SEALED_BYTES, FORMAT_VERSION, HEADER_SEALED_BYTES, PackError};
use crate::limits::{PACK_SEGMENTS_MAX, segment_bytes};
use crate::pack::directory_sealed_bytes;
use cessfs_crypto::{Entropy, FrameId, FrameKind, PackKind, PackSeq, VolumeId, VolumeKeys};

/// Plaintext bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// Plaintext bytes of the footer.
pub const FOOTER_BYTES: usize = 64;

const HEADER_MAGIC: [u8; 8] = *b"CESSPACK";
const FOOTER_MAGIC: [u8; 8] = *b"CESSFOOT";

/// What the pack is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The volume it belongs to; also bound by the seal.
    pub volume: VolumeId,
    /// Its number in the volume; also bound by the seal.
    pub seq: PackSeq,
    /// Epoch of the writer (I10).
    pub epoch: u32,
    /// Data or checkpoint.
    pub kind: PackKind,
}

/// Where things are in the pack. Everything else about its layout follows from these counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The pack's number.
    pub seq: PackSeq,
    /// Data or checkpoint, as in the header.
    pub kind: PackKind,
    /// Whole segments of the pack.
    pub segments: u32,
    /// Where the directory frames start: the end of the last delta frame.
    pub directory_offset: u64,
    /// Chunk entries in the directory.
    pub chunks: u32,
    /// Delta frames, and entries for them in the directory.
    pub deltas: u32,
    /// The pack that was sealed before this one in the same history; 0: there was none. Recovery follows it back, and so
    /// notices a pack that is missing in between (numbers alone may have gaps).
    pub previous: PackSeq,
    /// The writer's wall clock when it sealed the pack, seconds since 1970. For people; nothing depends on it.
    pub sealed_at_s: u64,
}

impl Header {
    fn frame(seq: PackSeq) -> FrameId {
        FrameId::Pack {
            seq,
            kind: FrameKind::Header,
            index: 0,
        }
    }

    /// The sealed frame.
    pub fn seal(&self, keys: &VolumeKeys, entropy: &mut dyn Entropy) -> Vec<u8> {
        let mut plain = Writer::new(&HEADER_MAGIC);
        plain.put(&FORMAT_VERSION.to_le_bytes());
        plain.put(&[self.kind as u8, 0]);
        plain.put(&self.epoch.to_le_bytes());
        plain.put(&self.seq.0.to_le_bytes());
        plain.put(&self.volume.0);
        let mut out = Vec::with_capacity(HEADER_SEALED_BYTES);
        keys.seal(Header::frame(self.seq), &plain.bytes, entropy, &mut out);
        out
    }

    /// Opens the first [`HEADER_SEALED_BYTES`] of pack `seq`.
    pub fn open(keys: &VolumeKeys, seq: PackSeq, sealed: &[u8]) -> Result<Header, PackError> {
        let plain = keys
            .open(Header::frame(seq), sealed)
            .map_err(|_| PackError::Sealed("header"))?;
        let mut reader = Reader::new(&plain, &HEADER_MAGIC)?;
        let header = Header {
            kind: reader.kind()?,
            epoch: u32::from_le_bytes(reader.take()?),
            seq: PackSeq(u64::from_le_bytes(reader.take()?)),
            volume: VolumeId(reader.take()?),
        };
        reader.finish()?;
        if header.seq != seq || header.volume != keys.volume() {
            return Err(PackError::Malformed("header names another pack"));
        }
        Ok(header)
    }
}

impl Footer {
    fn frame(seq: PackSeq) -> FrameId {
        FrameId::Pack {
            seq,
            kind: FrameKind::Footer,
            index: 0,
        }
    }

    /// Bytes of the whole pack.
    pub fn body_bytes(&self) -> u64 {
        u64::from(self.segments) * segment_bytes() as u64
    }

    /// Sealed bytes of all directory frames.
    pub fn directory_bytes(&self) -> u64 {
        directory_sealed_bytes(u64::from(self.chunks), u64::from(self.deltas))
    }

    /// The sealed frame.
    pub fn seal(&self, keys: &VolumeKeys, entropy: &mut dyn Entropy) -> Vec<u8> {
        let mut plain = Writer::new(&FOOTER_MAGIC);
        plain.put(&FORMAT_VERSION.to_le_bytes());
        plain.put(&[self.kind as u8, 0]);
        plain.put(&self.segments.to_le_bytes());
        plain.put(&self.seq.0.to_le_bytes());
        plain.put(&self.body_bytes().to_le_bytes());
        plain.put(&self.directory_offset.to_le_bytes());
        plain.put(&self.chunks.to_le_bytes());
        plain.put(&self.deltas.to_le_bytes());
        plain.put(&self.previous.0.to_le_bytes());
        plain.put(&self.sealed_at_s.to_le_bytes());
        let mut out = Vec::with_capacity(FOOTER_SEALED_BYTES);
        keys.seal(Footer::frame(self.seq), &plain.bytes, entropy, &mut out);
        out
    }

    /// Opens the last [`FOOTER_SEALED_BYTES`] of pack `seq`.
    pub fn open(keys: &VolumeKeys, seq: PackSeq, sealed: &[u8]) -> Result<Footer, PackError> {
        let plain = keys
            .open(Footer::frame(seq), sealed)
            .map_err(|_| PackError::Sealed("footer"))?;
        let mut reader = Reader::new(&plain, &FOOTER_MAGIC)?;
        let kind = reader.kind()?;
        let segments = u32::from_le_bytes(reader.take()?);
        let named = PackSeq(u64::from_le_bytes(reader.take()?));
        let body = u64::from_le_bytes(reader.take()?);
        let footer = Footer {
            seq: named,
            kind,
            segments,
            directory_offset: u64::from_le_bytes(reader.take()?),
            chunks: u32::from_le_bytes(reader.take()?),
            deltas: u32::from_le_bytes(reader.take()?),
            previous: PackSeq(u64::from_le_bytes(reader.take()?)),
            sealed_at_s: u64::from_le_bytes(reader.take()?),
        };
        reader.finish()?;
        if named != seq {
            return Err(PackError::Malformed("footer names another pack"));
        }
        footer.check(body)?;
        Ok(footer)
    }

    /// Counts and offsets must fit each other before anything is allocated by them.
    fn check(&self, body: u64) -> Result<(), PackError> {
        if self.previous >= self.seq {
            return Err(PackError::Malformed("number of the pack before"));
        }
        if self.segments == 0 || self.segments as usize > PACK_SEGMENTS_MAX {
            return Err(PackError::Malformed("number of segments"));
        }
        if body != self.body_bytes() {
            return Err(PackError::Malformed("length of the body"));
        }
        let end = self
            .directory_offset
            .checked_add(self.directory_bytes())
            .and_then(|end| end.checked_add(FOOTER_SEALED_BYTES as u64));
        if self.directory_offset < HEADER_SEALED_BYTES as u64 || end.is_none_or(|end| end > body) {
            return Err(PackError::Malformed("place of the directory"));
        }
        Ok(())
    }
}

/// A 64-byte record filled from the front; what stays is zero.
struct Writer {
    bytes: [u8; 64],
    at: usize,
}

impl Writer {
    fn new(magic: &[u8; 8]) -> Writer {
        let mut writer = Writer { bytes: [0; 64], at: 0 };
        writer.put(magic);
        writer
    }

    fn put(&mut self, field: &[u8]) {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(plain: &'a [u8], magic: &[u8; 8]) -> Result<Reader<'a>, PackError> {
        if plain.len() != 64 {
            return Err(PackError::Malformed("length of header or footer"));
        }
        let mut reader = Reader { rest: plain };
        if reader.take()? != *magic {
            return Err(PackError::Malformed("magic"));
        }
        let version = u16::from_le_bytes(reader.take()?);
        if version != FORMAT_VERSION {
            return Err(PackError::Version(version));
        }
        Ok(reader)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], PackError> {
        let (field, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(PackError::Malformed("length of header or footer"))?;
        self.rest = rest;
        Ok(*field)
    }

    fn kind(&mut self) -> Result<PackKind, PackError> {
        match self.take()? {
            [1, 0] => Ok(PackKind::Data),
            [2, 0] => Ok(PackKind::Checkpoint),
            _ => Err(PackError::Malformed("kind")),
        }
    }

    /// What no field claims must be zero, so that a later version can claim it.
    fn finish(self) -> Result<(), PackError> {
        match self.rest.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(PackError::Malformed("reserved bytes")),
        }
    }
}
