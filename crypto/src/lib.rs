//! Keys, sealing and labels.
#![forbid(unsafe_code)]
