//! Chunks fetched lately, bounded by their bytes.

use bytes::Bytes;
use cessfs_crypto::ChunkId;
use lru::LruCache;

pub(super) struct ChunkCache {
    chunks: LruCache<ChunkId, Bytes>,
    bytes: usize,
    bytes_max: usize,
}

impl ChunkCache {
    pub(super) fn new(bytes_max: usize) -> ChunkCache {
        ChunkCache {
            chunks: LruCache::unbounded(),
            bytes: 0,
            bytes_max,
        }
    }

    pub(super) fn contains(&self, id: ChunkId) -> bool {
        self.chunks.contains(&id)
    }

    pub(super) fn get(&mut self, id: ChunkId) -> Option<Bytes> {
        self.chunks.get(&id).cloned()
    }

    pub(super) fn put(&mut self, id: ChunkId, bytes: Bytes) {
        self.bytes += bytes.len();
        let replaced = self.chunks.put(id, bytes);
        self.bytes -= replaced.map_or(0, |old| old.len());
        while self.bytes > self.bytes_max {
            let (_, oldest) = self.chunks.pop_lru().expect("bytes are held by chunks");
            self.bytes -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_chunks_make_room() {
        let id = |n| ChunkId([n; 32]);
        let mut cache = ChunkCache::new(10);
        cache.put(id(1), Bytes::from_static(b"1111"));
        cache.put(id(2), Bytes::from_static(b"2222"));
        assert!(cache.get(id(1)).is_some());
        cache.put(id(3), Bytes::from_static(b"3333"));
        assert!(cache.contains(id(1)) && !cache.contains(id(2)) && cache.contains(id(3)));
        cache.put(id(3), Bytes::from_static(b"33"));
        assert_eq!(cache.bytes, 6);
        cache.put(id(4), Bytes::from_static(b"longer than all"));
        assert_eq!((cache.bytes, cache.chunks.len()), (0, 0));
    }
}
