//! Devnet.
fn main() {}
