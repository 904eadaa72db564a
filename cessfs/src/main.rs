//! `cessfs`. What it does is in the library beside it.

use std::process::ExitCode;

/// Pieces of a MiB come and go with every chunk and row. The system's allocator maps and unmaps each, and the kernel clears
/// every page anew: a quarter of what an upload cost (docs/PERFORMANCE.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cessfs::main()
}
