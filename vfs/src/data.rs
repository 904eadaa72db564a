//! File content: backing files, extents, reads and writes.

/// The state of an open inode's content in memory.
#[derive(Debug, Default)]
pub struct DataState {}
