//! Starting a daemon: `mount` runs itself again, detached, hands over the secret through a pipe and waits for one line.
//!
//! The child's stdin is the secret's pipe and its stdout the line's; both end with the child, so a child that dies says so.
//! When it is ready it leaves the terminal's session, says so, and lets go of the terminal altogether. Not before: systemd runs
//! mount(8) in its own process group, and an automount trigger lets only that group through to the directory it guards. And not
//! after its word: a terminal that closes as soon as `mount` has returned would take the daemon along.

use crate::exit::{Exit, Failure};
use crate::limits::READY_TIMEOUT;
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

/// What the child says about itself, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Word {
    /// The mount answers.
    Ready,
    /// It does not, and why.
    Failed(Failure),
}

/// Starts `cessfs` with these arguments in the background and returns when its mount answers.
///
/// # Errors
/// What the child says, or that it ended without a word.
pub fn start(arguments: &[OsString], secret: &Secret, log: &Path) -> Result<(), Failure> {
    let cannot = |e: std::io::Error| Failure::new(Exit::Failed, format!("cannot start the daemon: {e}"));
    let program = std::env::current_exe().map_err(cannot)?;
    let mut command = Command::new(program);
    // SAFETY: between fork and exec, it makes one system call and nothing else.
    unsafe { command.pre_exec(keep_only_stdio) };
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // What is said before the log is open; `detach` lets go of it.
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(cannot)?;
    let mut pipe = child.stdin.take().expect("stdin was asked for");
    // A child that died already shows in its answer.
    let _sent = secret.send(&mut pipe);
    drop(pipe);
    let answer = child.stdout.take().expect("stdout was asked for");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(answer).read_line(&mut line);
        let _parent_gave_up = sender.send(read.map(|_| line));
    });
    let silent = |how: &str| {
        Failure::new(Exit::Failed, format!("the daemon {how}")).hint(format!("{} tells more", log.display()))
    };
    let line = match receiver.recv_timeout(READY_TIMEOUT) {
        Ok(Ok(line)) => line,
        Ok(Err(e)) => return Err(silent(&format!("cannot be heard: {e}"))),
        Err(_) => {
            let _already_gone = child.kill();
            return Err(silent("did not get ready"));
        }
    };
    match serde_json::from_str(&line) {
        Ok(Word::Ready) => Ok(()),
        Ok(Word::Failed(failure)) => {
            let _reaped = child.wait();
            Err(failure)
        }
        Err(_) => Err(silent(&match child.wait() {
            Ok(status) => format!("ended without a word ({status})"),
            Err(e) => format!("ended without a word ({e})"),
        })),
    }
}

/// Lets the daemon inherit nothing but its three streams: it would hold what a script has open, such as a lock, until it ends. Kernels
/// before 5.11 cannot; there it is as it was.
fn keep_only_stdio() -> std::io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: takes three numbers; marks descriptors to be closed by exec, and closes none itself.
    let _old_kernel = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    Ok(())
}

/// Leaves the terminal's session, says that the mount answers, and lets go of stdin, stdout, stderr and the working directory.
///
/// # Errors
/// When the starting process is gone.
pub fn say_ready() -> Result<(), Failure> {
    let stuck = |e: std::io::Error| Failure::new(Exit::Failed, format!("cannot detach from the terminal: {e}"));
    nix::unistd::setsid().map_err(|e| stuck(e.into()))?;
    say(&Word::Ready)?;
    detach().map_err(stuck)
}

/// Says why there is no mount, or nothing if nobody listens any more.
pub fn say_failed(failure: &Failure) {
    let _nobody_listens = say(&Word::Failed(failure.clone()));
}

fn say(word: &Word) -> Result<(), Failure> {
    let mut line = serde_json::to_string(word).expect("a word has a JSON form");
    line.push('\n');
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|e| Failure::new(Exit::Failed, format!("the starting process is gone: {e}")))
}

fn detach() -> std::io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    std::env::set_current_dir("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_fit_on_one_line() {
        for word in [Word::Ready, Word::Failed(Failure::new(Exit::Busy, "a\nb").hint("c"))] {
            let line = serde_json::to_string(&word).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Word>(&line).unwrap(), word);
        }
    }
}
