//! What verbs print. stdout carries data, stderr messages.
//!
//! `println!` panics when nothing can be written (a full disk, a closed descriptor), and a panic has no code of ours and may
//! come after money moved. Here the first error is kept, what follows is dropped, and the program ends with [`Exit::Disk`].
//!
//! Names of files, and what nodes and miners say, are anybody's text, and a terminal obeys what is written to it. So a
//! terminal is shown control characters as `\u{1b}`, and those that turn the direction of writing; a pipe or a file
//! gets every byte, and JSON ([`text`]) is exact everywhere.
//!
//! [`Exit::Disk`]: crate::exit::Exit::Disk

use crate::exit::Failure;
use serde::Serializer;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::{self, Arguments, Write as _};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
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
    write(|out| {
        let is_terminal = out.is_terminal();
        print(out, line, is_terminal)
    });
}

/// Prints a text that has its own ends of lines on stdout.
pub fn text(text: &str) {
    write(|out| out.write_all(text.as_bytes()));
}

/// See `tell!`.
pub fn message(line: Arguments<'_>) {
    let mut err = io::stderr();
    let is_terminal = err.is_terminal();
    let _ = print(&mut err, line, is_terminal);
}

fn print(out: &mut impl Write, line: Arguments<'_>, is_terminal: bool) -> io::Result<()> {
    match is_terminal {
        true => writeln!(out, "{}", Tame(line)),
        false => writeln!(out, "{line}"),
    }
}

/// A name as `say!` is given it: on a terminal it stays within its line.
pub fn name(name: &str) -> Cow<'_, str> {
    match io::stdout().is_terminal() {
        true => one_line(name),
        false => Cow::Borrowed(name),
    }
}

fn one_line(name: &str) -> Cow<'_, str> {
    match name.contains('\n') {
        true => Cow::Owned(name.replace('\n', "\\n")),
        false => Cow::Borrowed(name),
    }
}

/// What went wrong, or what to do about it, as the one line that it is whatever names are in it: of two, the second would pass for ours.
pub fn sentence(text: &str) -> Cow<'_, str> {
    one_line(text)
}

/// A path or another word as a shell takes it, for commands that people are told to run.
pub fn word(word: impl AsRef<OsStr>) -> String {
    let text = word.as_ref().to_string_lossy();
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=~^".contains(c) || !c.is_ascii() && !c.is_whitespace();
    match !text.is_empty() && text.chars().all(is_plain) && !text.starts_with('~') {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// JSON of a path: bytes that are not UTF-8 show as `\u{fffd}`, and JSON has no other form for them.
///
/// # Errors
/// Those of the serializer.
pub fn lossy<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&path.to_string_lossy())
}

/// The same of many.
///
/// # Errors
/// Those of the serializer.
pub fn all_lossy<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

/// A text for a terminal.
pub fn tame(text: &str) -> String {
    Tame(format_args!("{text}")).to_string()
}

/// Escapes on the way, so that of a secret no second copy is made.
struct Tame<'a>(Arguments<'a>);

impl fmt::Display for Tame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match commands_a_terminal(c) {
                true => write!(self.0, "{}", c.escape_unicode())?,
                false => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Control characters, but for those that lay out our own lines; and those that turn what follows around (Unicode's
/// bidirectional embeddings, overrides and isolates).
fn commands_a_terminal(c: char) -> bool {
    let lays_out = matches!(c, '\n' | '\t');
    c.is_control() && !lays_out || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_commanded_and_a_pipe_gets_every_byte() {
        let hostile = "\u{1b}]0;owned\u{7}a\rb\u{9b}31m\u{202e}c\u{7f}\tä\n";
        let printed = |is_terminal| {
            let mut out = Vec::new();
            print(&mut out, format_args!("/{hostile}"), is_terminal).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(printed(false), format!("/{hostile}\n"));
        let escaped = "\\u{1b}]0;owned\\u{7}a\\u{d}b\\u{9b}31m\\u{202e}c\\u{7f}\tä\n";
        assert_eq!(printed(true), format!("/{escaped}\n"));
        assert_eq!(tame(hostile), escaped);
        assert_eq!(one_line("a\nlost       /b"), "a\\nlost       /b");
        assert_eq!(sentence("/a\nhint: rm -r /"), "/a\\nhint: rm -r /");
    }

    #[test]
    fn a_shell_takes_a_word_as_it_is() {
        for name in [
            "/mnt/a b",
            "/mnt/$(reboot)",
            "a'b",
            "",
            "~",
            "/mnt/a;b",
            "/mnt/é",
            "plain-1_x.y",
            "`x`",
            "a\tb",
            "*",
        ] {
            let told = word(name);
            let echoed = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {told}")])
                .output();
            assert_eq!(String::from_utf8(echoed.unwrap().stdout).unwrap(), name, "{told}");
        }
        assert_eq!(word("/mnt/photos"), "/mnt/photos");
    }

    #[test]
    fn a_path_of_any_bytes_has_a_json_form() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(OsStr::from_bytes(b"/a\xff"));
        let mut json = Vec::new();
        lossy(path, &mut serde_json::Serializer::new(&mut json)).unwrap();
        all_lossy(&[path.to_owned()], &mut serde_json::Serializer::new(&mut json)).unwrap();
        assert_eq!(String::from_utf8(json).unwrap(), "\"/a\u{fffd}\"[\"/a\u{fffd}\"]");
    }
}
