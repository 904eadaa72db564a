//! The log: a bounded file for a daemon, stderr for everything else, and a level that can be changed while it runs.

use crate::config::LogLevel;
use crate::exit::Failure;
use crate::limits::LOG_BYTES_MAX;
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Changes the level of the running process.
#[derive(Clone)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// From now on.
    pub fn set(&self, level: LogLevel) {
        if let Err(e) = self.0.reload(filter(level)) {
            tracing::warn!("cannot change the log level: {e}");
        }
    }
}

/// Our own crates at the level asked for; libraries only when they warn, for their talk is not about this volume.
fn filter(level: LogLevel) -> EnvFilter {
    let ours = level.as_str();
    let others = level.min(LogLevel::Warn).as_str();
    EnvFilter::new(format!(
        "{others},cessfs={ours},cessfs_crypto={ours},cessfs_sync={ours},cessfs_vfs={ours}"
    ))
}

/// Logs to stderr.
pub fn to_stderr(level: LogLevel) -> LogHandle {
    let (filter, handle) = reload::Layer::new(filter(level));
    // Colours are for terminals: the journal and files would keep the codes.
    let output = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !without_colours())
        .with_target(false);
    // A second subscriber in one process is a test's; the first one stays.
    let _first_stays = tracing_subscriber::registry().with(filter).with(output).try_init();
    LogHandle(handle)
}

/// Whether the user wants none (no-color.org).
fn without_colours() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Logs to a file that is rotated.
///
/// # Errors
/// When the file cannot be opened.
pub fn to_file(path: &Path, level: LogLevel) -> Result<LogHandle, Failure> {
    let file = RotatingFile::open(path, LOG_BYTES_MAX)
        .map_err(|e| Failure::disk(format!("cannot open the log {}", path.display()), &e))?;
    let (filter, handle) = reload::Layer::new(filter(level));
    let writer = SharedFile(Arc::new(Mutex::new(file)));
    let output = fmt::layer().with_writer(writer).with_ansi(false);
    let _first_stays = tracing_subscriber::registry().with(filter).with(output).try_init();
    Ok(LogHandle(handle))
}

/// A file that moves aside to `NAME.1` when it is full; what was there before goes.
#[derive(Debug)]
struct RotatingFile {
    path: PathBuf,
    file: File,
    size: u64,
    bound: u64,
}

impl RotatingFile {
    fn open(path: &Path, bound: u64) -> io::Result<RotatingFile> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
        let size = file.metadata()?.len();
        Ok(RotatingFile {
            path: path.to_owned(),
            file,
            size,
            bound,
        })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        std::fs::rename(&self.path, old)?;
        *self = RotatingFile::open(&self.path, self.bound)?;
        Ok(())
    }
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.size > 0 && self.size + line.len() as u64 > self.bound {
            self.rotate()?;
        }
        let written = self.file.write(line)?;
        self.size += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[derive(Clone)]
struct SharedFile(Arc<Mutex<RotatingFile>>);

impl Write for SharedFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().write(line)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().flush()
    }
}

impl<'a> MakeWriter<'a> for SharedFile {
    type Writer = SharedFile;
    fn make_writer(&'a self) -> SharedFile {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("log");
        let mut file = RotatingFile::open(&path, 100).unwrap();
        for n in 0..50 {
            writeln!(file, "line {n:03}").unwrap();
        }
        let size = |p: &Path| std::fs::metadata(p).unwrap().len();
        let old = tmp.path().join("log.1");
        assert!(size(&path) <= 100 && size(&old) <= 100);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("line 049\n"));
        assert!(std::fs::read_to_string(&old).unwrap().ends_with("line 043\n"));
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 2);

        let reopened = RotatingFile::open(&path, 100).unwrap();
        assert_eq!(reopened.size, size(&path));

        let link = tmp.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(RotatingFile::open(&link, 100).is_err(), "not through a link");
    }
}
