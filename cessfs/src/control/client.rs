//! The verbs' side of the control socket.

use super::pages::Gathered;
use super::{Answer, Event, Op, PROTOCOL, Reply, Request, Status, decode, encode, too_long};
use crate::exit::{Exit, Failure};
use crate::home::VolumeDir;
use crate::limits::{ANSWER_TIMEOUT, CONTROL_LINE_MAX};
use crate::timings::StageTimes;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// State of a daemon that serves a mount.
pub const MOUNTED: &str = "mounted";
/// State of a daemon whose mount is gone and that sends what is left.
pub const SENDING: &str = "sending";

/// A connection to a volume's daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    volume: VolumeDir,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`Exit::NotMounted`] when no daemon answers.
    pub fn connect(volume: &VolumeDir) -> Result<Client, Failure> {
        let absent = |e: std::io::Error| match e.kind() {
            ErrorKind::PermissionDenied => Failure::new(
                Exit::Permission,
                format!("volume `{}` belongs to another user", volume.name()),
            ),
            _ => Failure::new(Exit::NotMounted, format!("volume `{}` is not mounted", volume.name()))
                .hint(format!("`cessfs mount {} DIR` mounts it", volume.name())),
        };
        let (_dir, path) = volume.socket().map_err(absent)?;
        let stream = UnixStream::connect(path).map_err(absent)?;
        Ok(Client {
            stream: BufReader::new(stream),
            volume: volume.clone(),
        })
    }

    /// Asks for what a daemon tells at once.
    ///
    /// # Errors
    /// As [`call`](Client::call), and [`Exit::Busy`] when nothing comes: the process is stopped, or waits for a disk. Nobody learns more by
    /// waiting longer.
    fn ask(&mut self, op: Op, patience: Duration, on_event: &mut dyn FnMut(Event)) -> Result<Reply, Failure> {
        let answer = self.call_until(op, Some(Instant::now() + patience), on_event);
        answer.map_err(|failure| match failure.exit {
            Exit::Timeout => silent(&self.volume, patience),
            _ => failure,
        })
    }

    /// Asks and waits for the end of the answer.
    ///
    /// # Errors
    /// What the daemon says, or [`Exit::NotMounted`] when it goes away meanwhile.
    pub fn call(&mut self, op: Op, on_event: &mut dyn FnMut(Event)) -> Result<Reply, Failure> {
        self.call_until(op, None, on_event)
    }

    /// As [`call`](Client::call), with a deadline.
    ///
    /// # Errors
    /// Also [`Exit::Timeout`].
    pub fn call_until(
        &mut self,
        op: Op,
        deadline: Option<Instant>,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Reply, Failure> {
        let request = encode(&Request { v: PROTOCOL, op });
        self.stream.get_mut().write_all(&request).map_err(|e| gone(&e))?;
        let mut line = Vec::new();
        let mut gathered = Gathered::default();
        loop {
            self.read_line(&mut line, deadline)?;
            match decode(&line)? {
                Answer::Event(Event::Page(page)) => gathered.add(page)?,
                Answer::Event(event) => on_event(event),
                Answer::Done(mut reply) => {
                    gathered.give_back(&mut reply);
                    return Ok(reply);
                }
                Answer::Failed(failure) => return Err(failure),
            }
        }
    }

    fn read_line(&mut self, line: &mut Vec<u8>, deadline: Option<Instant>) -> Result<(), Failure> {
        line.clear();
        loop {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Err(Failure::new(
                    Exit::Timeout,
                    "the time is up; it goes on in the background",
                ));
            }
            self.stream.get_ref().set_read_timeout(left).map_err(|e| gone(&e))?;
            let room = (CONTROL_LINE_MAX + 1 - line.len()) as u64;
            match (&mut self.stream).take(room).read_until(b'\n', line) {
                Ok(_) if line.last() == Some(&b'\n') => return Ok(()),
                // Whoever sends that much is there.
                Ok(_) if line.len() > CONTROL_LINE_MAX => return Err(too_long()),
                Ok(_) => return Err(gone(&ErrorKind::UnexpectedEof.into())),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => return Err(gone(&e)),
            }
        }
    }
}

fn silent(volume: &VolumeDir, patience: Duration) -> Failure {
    let who = match volume.holder() {
        Some(pid) => format!("process {pid}"),
        None => "the process that has it".to_owned(),
    };
    let what = format!(
        "volume `{}`: {who} does not answer for {} s",
        volume.name(),
        patience.as_secs()
    );
    Failure::new(Exit::Busy, what).hint(format!(
        "it is stopped, waits for a disk, or has too much to do; {} may tell more. After a `kill -KILL` of it the volume can be mounted \
         again: what was fsynced is kept",
        volume.log().display()
    ))
}

fn gone(error: &std::io::Error) -> Failure {
    Failure::new(Exit::NotMounted, format!("the daemon went away: {error}"))
        .hint("the volume's log tells why; mount it again to go on")
}

/// When so many seconds are over; none where nobody lives to see it.
pub fn deadline(seconds: Option<u64>) -> Option<Instant> {
    Instant::now().checked_add(Duration::from_secs(seconds?))
}

/// Asks for the status.
///
/// # Errors
/// As [`Client::call`]; [`Exit::Busy`] when the daemon says nothing.
pub fn status(volume: &VolumeDir) -> Result<Status, Failure> {
    match Client::connect(volume)?.ask(Op::Status, ANSWER_TIMEOUT, &mut |_| ())? {
        Reply::Status(status) => Ok(*status),
        other => Err(unexpected(&other)),
    }
}

/// Asks for what the stages have counted, and for the status as the daemon knows it by itself.
///
/// # Errors
/// As [`status`].
pub fn timings(client: &mut Client) -> Result<(Vec<StageTimes>, Status), Failure> {
    let mut stages = Vec::new();
    let reply = client.ask(Op::Timings, ANSWER_TIMEOUT, &mut |event| {
        if let Event::Stage(stage) = event {
            stages.push(*stage);
        }
    })?;
    match reply {
        Reply::Status(status) => Ok((stages, *status)),
        other => Err(unexpected(&other)),
    }
}

/// The daemon answered something else than was asked.
pub fn unexpected(reply: &Reply) -> Failure {
    Failure::new(Exit::Failed, format!("the daemon gave an unexpected answer: {reply:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::{Home, VolumeName};

    #[test]
    fn any_number_of_seconds_is_a_time_to_wait() {
        assert!(deadline(Some(3600)) > Some(Instant::now()));
        assert_eq!((deadline(Some(u64::MAX)), deadline(None)), (None, None));
    }

    #[test]
    fn a_daemon_that_says_nothing_is_told_from_none() {
        let tmp = tempfile::tempdir().unwrap();
        let home = Home::find(Some(tmp.path())).unwrap();
        let volume = home.volume(&"v".parse::<VolumeName>().unwrap());
        volume.create().unwrap();
        let _held = volume.lock().unwrap();
        let (_dir, path) = volume.socket().unwrap();
        // The kernel takes the connection; nobody accepts it.
        let _listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        let mut client = Client::connect(&volume).unwrap();
        let patience = Duration::from_millis(50);
        let failure = client.ask(Op::Status, patience, &mut |_| ()).unwrap_err();
        assert_eq!(failure.exit, Exit::Busy);
        let pid = std::process::id().to_string();
        assert!(failure.what.contains(&pid), "{failure}");
    }
}
