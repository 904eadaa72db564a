//! What verbs print. stdout carries data, stderr messages.
//!
//! `println!` panics when nothing can be written (a full disk, a closed descriptor), and a panic has no code of ours and may
//! come after money moved. Here the first error is kept, what follows is dropped, and the program ends with [`Exit::Disk`].
//!
//! [`Exit::Disk`]: crate::exit::Exit::Disk

use crate::exit::Failure;
use std::fmt::Arguments;
use std::io::{self, Write};
use std::sync::OnceLock;

static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Prints a line of an answer on stdout.
macro_rules! say {
    ($($line:tt)*) => { $crate::output::line(format_args!($($line)*)) };
}

/// Prints a line for people on stderr; where nobody can be told, nothing else is worth failing for.
macro_rules! tell {
    ($($line:tt)*) => { $crate::output::message(format_args!($($line)*)) };
}

/// See `say!`.
pub fn line(line: Arguments<'_>) {
    write(|out| writeln!(out, "{line}"));
}

/// Prints a text that has its own ends of lines on stdout.
pub fn text(text: &str) {
    write(|out| out.write_all(text.as_bytes()));
}

/// See `tell!`.
pub fn message(line: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn write(print: impl FnOnce(&mut io::StdoutLock<'static>) -> io::Result<()>) {
    if FAILED.get().is_none()
        && let Err(e) = print(&mut io::stdout().lock())
    {
        // Only one error is told, and the first says why the others came.
        let _ = FAILED.set(e);
    }
}

/// Whether everything printed so far arrived.
///
/// # Errors
/// The first error, as [`Exit::Disk`](crate::exit::Exit::Disk).
pub fn arrived() -> Result<(), Failure> {
    write(|out| out.flush());
    match FAILED.get() {
        None => Ok(()),
        Some(e) => Err(Failure::disk("cannot write to the standard output", e)),
    }
}
