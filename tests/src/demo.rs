//! The demo behind `make run`.
fn main() {}
