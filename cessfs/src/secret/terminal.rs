//! A line typed on the terminal without an echo. Whatever ends the question, also a signal, the terminal is left as it was.

use crate::limits::PASSPHRASE_BYTES_MAX;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use zeroize::Zeroizing;

/// What ends or stops a program from the keyboard, or by others.
const SIGNALS: [Signal; 5] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGTSTP,
];

/// Asks until a line was typed; `None` when the terminal ended. No other thread may run yet: it would take the signals.
///
/// # Errors
/// There is no terminal, or it cannot be read.
pub(super) fn ask(prompt: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    loop {
        let quiet = Quiet::start(&terminal)?;
        (&terminal).write_all(prompt.as_bytes())?;
        if let Some(typed) = quiet.read_line()? {
            drop(quiet);
            return Ok(typed.line);
        }
        // The signal strikes here. Who goes on after it, in the foreground again or since it is ignored, is asked again.
        drop(quiet);
        (&terminal).write_all(b"\n")?;
    }
}

/// What came instead of a signal.
struct Typed {
    line: Option<Zeroizing<Vec<u8>>>,
}

/// A terminal that does not echo, while signals wait.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
    mask: SigSet,
    signals: SignalFd,
}

impl Quiet<'_> {
    fn start(terminal: &File) -> io::Result<Quiet<'_>> {
        let signals: SigSet = SIGNALS.into_iter().collect();
        let before = tcgetattr(terminal)?;
        let quiet = Quiet {
            terminal,
            before: before.clone(),
            mask: signals.thread_swap_mask(SigmaskHow::SIG_BLOCK)?,
            signals: SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?,
        };
        let mut wanted = before;
        wanted.local_flags.remove(LocalFlags::ECHO);
        wanted.local_flags.insert(LocalFlags::ECHONL);
        tcsetattr(terminal, SetArg::TCSANOW, &wanted)?;
        Ok(quiet)
    }

    /// `None` when a signal waits.
    fn read_line(&self) -> io::Result<Option<Typed>> {
        // Never grown: no copy of it stays in memory.
        let mut line = Zeroizing::new(Vec::with_capacity(PASSPHRASE_BYTES_MAX + 1));
        let mut byte = Zeroizing::new([0]);
        loop {
            if self.is_signalled()? {
                return Ok(None);
            }
            let mut terminal = self.terminal;
            match terminal.read(byte.as_mut())? {
                0 if line.is_empty() => {
                    terminal.write_all(b"\n")?;
                    return Ok(Some(Typed { line: None }));
                }
                0 => return Ok(Some(Typed { line: Some(line) })),
                _ if byte[0] == b'\n' => return Ok(Some(Typed { line: Some(line) })),
                // One more than there may be: it is refused by its length.
                _ if line.len() <= PASSPHRASE_BYTES_MAX => line.push(byte[0]),
                _ => {}
            }
        }
    }

    /// Waits for a signal or something typed.
    fn is_signalled(&self) -> io::Result<bool> {
        let wait = |fd: &dyn AsFd| libc::pollfd {
            fd: fd.as_fd().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut fds = [wait(&self.signals), wait(self.terminal)];
        loop {
            // SAFETY: `fds` lives until the call returns, and its length goes with it.
            if unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) } != -1 {
                return Ok(fds[0].revents != 0);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // A terminal that went away needs nothing.
        let _gone = tcsetattr(self.terminal, SetArg::TCSANOW, &self.before);
        let _mask_is_one = self.mask.thread_set_mask();
    }
}
