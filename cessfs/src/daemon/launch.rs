//! Starting a daemon: `mount` runs itself again, detached, hands over the secret through a pipe and waits for its word. How long it takes
//! to open a volume after a crash nobody knows beforehand: a child that still works says so every few seconds, and only one that says
//! nothing is given up on.
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
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

/// What the child says about itself: one a line, the last two once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Word {
    /// It is still opening the volume, and gets on with it.
    Working,
    /// The mount answers.
    Ready,
    /// It does not, and why.
    Failed(Failure),
}

/// Starts `cessfs` with these arguments in the background and returns when its mount answers.
///
/// # Errors
/// What the child says, that it ended without a word, or that it said nothing for [`READY_TIMEOUT`]: it is killed then.
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
    last_word(&mut child, READY_TIMEOUT, log)
}

/// Waits until the child is ready, and as long as it says that it works: never longer than `patience` from one word to the next.
fn last_word(child: &mut Child, patience: Duration, log: &Path) -> Result<(), Failure> {
    let silent = |how: &str| {
        Failure::new(Exit::Failed, format!("the daemon {how}")).hint(format!("{} tells more", log.display()))
    };
    let lines = lines_of(child.stdout.take().expect("stdout was asked for"));
    loop {
        let line = match lines.recv_timeout(patience) {
            Ok(Ok(line)) => line,
            Ok(Err(e)) => return Err(silent(&format!("cannot be heard: {e}"))),
            Err(RecvTimeoutError::Timeout) => {
                let _already_gone = child.kill();
                return Err(silent("did not get ready"));
            }
            // It has closed its end.
            Err(RecvTimeoutError::Disconnected) => String::new(),
        };
        match serde_json::from_str(&line) {
            Ok(Word::Working) => {}
            Ok(Word::Ready) => return Ok(()),
            Ok(Word::Failed(failure)) => {
                let _reaped = child.wait();
                return Err(failure);
            }
            Err(_) => {
                return Err(silent(&match child.wait() {
                    Ok(status) => format!("ended without a word ({status})"),
                    Err(e) => format!("ended without a word ({e})"),
                }));
            }
        }
    }
}

/// What somebody says, line by line, until he ends or nobody listens any more.
fn lines_of(said: ChildStdout) -> Receiver<std::io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(said).lines() {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
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

/// Says that the volume is still being opened, or nothing if nobody listens any more.
pub fn say_working() {
    let _nobody_listens = say(&Word::Working);
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
        for word in [
            Word::Working,
            Word::Ready,
            Word::Failed(Failure::new(Exit::Busy, "a\nb").hint("c")),
        ] {
            let line = serde_json::to_string(&word).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Word>(&line).unwrap(), word);
        }
    }

    fn child(script: &str) -> Child {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]).stdout(Stdio::piped());
        sh.spawn().expect("sh")
    }

    #[test]
    fn who_says_that_he_works_is_waited_for() {
        let mut working = child(r#"for i in 1 2 3 4 5 6; do sleep 0.5; echo '"Working"'; done; echo '"Ready"'"#);
        assert_eq!(
            last_word(&mut working, Duration::from_millis(2500), "log".as_ref()),
            Ok(())
        );
        working.wait().unwrap();
    }

    #[test]
    fn who_says_nothing_any_more_is_killed() {
        use std::os::unix::process::ExitStatusExt;
        let mut stuck = child(r#"echo '"Working"'; exec sleep 600"#);
        let failure = last_word(&mut stuck, Duration::from_millis(500), "log".as_ref()).unwrap_err();
        assert!(failure.to_string().contains("did not get ready"), "{failure}");
        assert_eq!(stuck.wait().unwrap().signal(), Some(libc::SIGKILL));
        let mut ended = child(r#"echo '"Working"'; exit 3"#);
        let failure = last_word(&mut ended, Duration::from_secs(60), "log".as_ref()).unwrap_err();
        assert!(failure.to_string().contains("ended without a word"), "{failure}");
    }
}
