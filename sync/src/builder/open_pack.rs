//! The pack that takes appends, and how its body is completed.

use crate::dice::Dice;
use crate::disk::DiskRoom;
use crate::limits::{DELTA_FRAME_BYTES_MAX, PACK_SEGMENTS_MAX, PAD_BUFFER_BYTES, segment_bytes};
use crate::pack::{ChunkEntry, DeltaEntry, Directory, FOOTER_SEALED_BYTES, Footer, HEADER_SEALED_BYTES, Header};
use crate::staging::{Staging, store_error};
use crate::store::StoreError;
use cessfs_crypto::{ChunkId, FrameId, FrameKind, PackKind, PackLabel, PackSeq, SEAL_OVERHEAD, VolumeKeys};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct OpenPack {
    pub(super) seq: PackSeq,
    pub(super) label: PackLabel,
    pub(super) file: File,
    /// Bytes written: where the next frame goes. A failed write does not move it, so the next one covers its remains.
    pub(super) len: u64,
    pub(super) chunks: Vec<ChunkEntry>,
    pub(super) deltas: Vec<DeltaEntry>,
    pub(super) begun_at: Duration,
    /// Bytes that a checkpoint's metadata will take beyond what is pending; 0 for others.
    pub(super) reserve: u64,
    /// The lowest pack that a chunk came here from.
    pub(super) stands_for: Option<PackSeq>,
    keys: VolumeKeys,
    dice: Dice,
    room: Arc<DiskRoom>,
}

impl OpenPack {
    /// A staging file with a header.
    pub(super) fn create(
        keys: VolumeKeys,
        mut dice: Dice,
        staging: &Staging,
        label: PackLabel,
        begun_at: Duration,
    ) -> Result<OpenPack, StoreError> {
        let sealed = header(&label).seal(&keys, &mut dice);
        let file = staging.create(label.seq)?;
        file.write_all_at(&sealed, 0).map_err(store_error)?;
        Ok(OpenPack {
            seq: label.seq,
            label,
            file,
            len: HEADER_SEALED_BYTES as u64,
            chunks: Vec::new(),
            deltas: Vec::new(),
            begun_at,
            reserve: 0,
            stands_for: None,
            keys,
            dice,
            room: staging.room(),
        })
    }

    /// Makes it another kind, also with chunks in it already. The header is sealed anew, under another nonce, over the old one.
    pub(super) fn turn(&mut self, kind: PackKind, reserve: u64) -> Result<(), StoreError> {
        assert!(self.deltas.is_empty(), "the kind is settled before the delta is cut");
        self.label.kind = kind;
        self.reserve = reserve;
        let sealed = header(&self.label).seal(&self.keys, &mut self.dice);
        self.file.write_all_at(&sealed, 0).map_err(store_error)
    }

    fn append(&mut self, sealed: &[u8]) -> Result<u64, StoreError> {
        let offset = self.len;
        self.room.take(sealed.len() as u64)?;
        self.file.write_all_at(sealed, offset).map_err(store_error)?;
        self.len += sealed.len() as u64;
        Ok(offset)
    }

    pub(super) fn append_chunk(&mut self, id: ChunkId, sealed: &[u8]) -> Result<ChunkEntry, StoreError> {
        assert!(self.deltas.is_empty(), "chunks come before deltas");
        let entry = ChunkEntry {
            id,
            offset: self.append(sealed)?,
            len: sealed.len() as u32,
        };
        self.chunks.push(entry);
        Ok(entry)
    }

    /// Seals one frame of the metadata delta.
    pub(super) fn append_delta(&mut self, plaintext: &[u8]) -> Result<(), StoreError> {
        assert!(
            (1..=DELTA_FRAME_BYTES_MAX).contains(&plaintext.len()),
            "a delta frame has 1..=1 MiB, this one {}",
            plaintext.len()
        );
        let frame = FrameId::Pack {
            seq: self.seq,
            kind: FrameKind::Delta,
            index: self.deltas.len() as u32,
        };
        let mut sealed = Vec::with_capacity(plaintext.len() + SEAL_OVERHEAD);
        self.keys.seal(frame, plaintext, &mut self.dice, &mut sealed);
        let offset = self.append(&sealed)?;
        self.deltas.push(DeltaEntry {
            offset,
            len: sealed.len() as u32,
        });
        Ok(())
    }

    /// Directory, pad and footer. `previous` is the pack sealed before this one (0: none), `sealed_at_s` the wall clock.
    pub(super) fn close(&mut self, previous: PackSeq, sealed_at_s: u64) -> Result<(), StoreError> {
        let directory = Directory {
            chunks: std::mem::take(&mut self.chunks),
            deltas: std::mem::take(&mut self.deltas),
        };
        let sealed = directory.seal(&self.keys, self.seq, &mut self.dice);
        let mut footer = Footer {
            seq: self.seq,
            kind: self.label.kind,
            segments: 0,
            directory_offset: self.len,
            chunks: directory.chunks.len() as u32,
            deltas: directory.deltas.len() as u32,
            previous,
            sealed_at_s,
        };
        (self.chunks, self.deltas) = (directory.chunks, directory.deltas);
        self.append(&sealed)?;
        let content = self.len + FOOTER_SEALED_BYTES as u64;
        let segments = content.div_ceil(segment_bytes() as u64);
        assert!(segments <= PACK_SEGMENTS_MAX as u64, "a delta of more than 31 GiB");
        footer.segments = segments as u32;
        self.pad_to(footer.body_bytes() - FOOTER_SEALED_BYTES as u64)?;
        let sealed = footer.seal(&self.keys, &mut self.dice);
        self.append(&sealed)?;
        assert_eq!(self.len, footer.body_bytes(), "the footer ends the last segment");
        Ok(())
    }

    fn pad_to(&mut self, end: u64) -> Result<(), StoreError> {
        let mut buffer = vec![0; PAD_BUFFER_BYTES];
        while self.len < end {
            let take = (end - self.len).min(PAD_BUFFER_BYTES as u64) as usize;
            self.keys.pad(self.seq, self.len, &mut buffer[..take]);
            self.append(&buffer[..take])?;
        }
        Ok(())
    }

    /// Sealed bytes of the delta frames.
    pub(super) fn delta_bytes(&self) -> u64 {
        self.deltas.iter().map(|delta| u64::from(delta.len)).sum()
    }

    /// Whole segments of a closed pack.
    pub(super) fn segments(&self) -> u32 {
        (self.len / segment_bytes() as u64) as u32
    }
}

fn header(label: &PackLabel) -> Header {
    Header {
        volume: label.volume,
        seq: label.seq,
        epoch: label.epoch,
        kind: label.kind,
    }
}
