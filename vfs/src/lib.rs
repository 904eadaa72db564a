//! Inodes, dentries, extents, cache.
