//! The daemon's side of the control socket.

use super::{Answer, Event, Op, Reply, bounds, decode_request, pages};
use crate::exit::{Exit, Failure};
use crate::home::VolumeDir;
use crate::limits::{CONTROL_CONNECTIONS_MAX, CONTROL_LINE_MAX, EVENTS_BUFFERED, NETWORK_WAITS_MAX};
use futures::future::BoxFuture;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

/// Who answers.
pub trait Service: Send + Sync + 'static {
    /// Does what is asked; events go out as they come. Dropped, wherever it waits, when the client hangs up: what must
    /// not be left half done goes on in a task of its own.
    fn handle(self: Arc<Self>, op: Op, events: mpsc::Sender<Event>) -> BoxFuture<'static, Result<Reply, Failure>>;
}

/// Opens the socket. The caller holds the volume's lock, so one that is there already is a leftover.
///
/// # Errors
/// When the directory refuses it.
pub fn bind(volume: &VolumeDir) -> Result<UnixListener, Failure> {
    let cannot = |e: std::io::Error| Failure::disk("cannot open the control socket", &e);
    let (_dir, path) = volume.socket().map_err(cannot)?;
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(cannot(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(cannot)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(cannot)?;
    Ok(listener)
}

/// Takes the socket away: one that is left, of a volume that nobody has, is of a daemon that was killed.
pub fn unbind(volume: &VolumeDir) {
    if let Ok((_dir, path)) = volume.socket()
        && let Err(e) = std::fs::remove_file(&path)
    {
        tracing::warn!("cannot remove the control socket: {e}");
    }
}

/// Whether there is a socket.
pub fn is_left(volume: &VolumeDir) -> bool {
    let there = volume.socket().and_then(|(_dir, path)| path.symlink_metadata());
    there.is_ok()
}

/// Serves until dropped.
pub async fn serve(listener: UnixListener, service: Arc<dyn Service>) {
    let slots = Arc::new(Semaphore::new(CONTROL_CONNECTIONS_MAX));
    let waits = Arc::new(Semaphore::new(NETWORK_WAITS_MAX));
    loop {
        let slot = slots
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let (service, waits) = (service.clone(), waits.clone());
                tokio::spawn(async move {
                    if let Err(e) = connection(stream, service, &waits).await {
                        tracing::debug!("control connection ended: {e}");
                    }
                    drop(slot);
                });
            }
            Err(e) => {
                tracing::warn!("control socket: {e}");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

async fn connection(mut stream: UnixStream, service: Arc<dyn Service>, waits: &Semaphore) -> std::io::Result<()> {
    if !may_ask(&stream)? {
        return Ok(());
    }
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut reader)
            .take(CONTROL_LINE_MAX as u64 + 1)
            .read_until(b'\n', &mut line)
            .await?;
        if line.is_empty() {
            return Ok(());
        }
        let complete = line.last() == Some(&b'\n');
        let answer = match decode_request(&line) {
            Ok(op) if complete => match turn(&op, waits) {
                Ok(_turn) => answer(op, &service, &mut reader, &mut writer).await?,
                Err(failure) => Answer::Failed(failure),
            },
            Ok(_) => Answer::Failed(Failure::new(Exit::Failed, "the request was cut off")),
            Err(failure) => Answer::Failed(failure),
        };
        writer.write_all(&bounds::line(answer)).await?;
        if !complete {
            return Ok(());
        }
    }
}

/// A place among those that may wait for the network; `None` for what does not.
///
/// # Errors
/// [`Exit::Busy`] when all of them are taken: they may be for days, and who has to wait for one would be told nothing.
fn turn<'a>(op: &Op, waits: &'a Semaphore) -> Result<Option<SemaphorePermit<'a>>, Failure> {
    if !op.may_wait_long() {
        return Ok(None);
    }
    waits.try_acquire().map(Some).map_err(|_| {
        let what = format!("{NETWORK_WAITS_MAX} commands wait for the network already");
        Failure::new(Exit::Busy, what)
            .hint("end some of them, or wait until they are done; `cessfs status NAME` tells what they wait for")
    })
}

/// Runs one operation, sending its events while it goes on; gives it up when the client hangs up.
async fn answer(
    op: Op,
    service: &Arc<dyn Service>,
    reader: &mut (impl AsyncBufRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<Answer> {
    let (sender, mut events) = mpsc::channel(EVENTS_BUFFERED);
    let mut work = service.clone().handle(op, sender);
    let mut may_hang_up = true;
    let result = loop {
        tokio::select! {
            biased;
            // Only looked at. One who has asked the next thing already is there.
            more = reader.fill_buf(), if may_hang_up => match more?.is_empty() {
                true => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                false => may_hang_up = false,
            },
            Some(event) = events.recv() => match bounds::event(event) {
                Ok(line) => writer.write_all(&line).await?,
                Err(failure) => return Ok(Answer::Failed(failure)),
            },
            result = &mut work => break result,
        }
    };
    let mut reply = match result {
        Ok(reply) => reply,
        Err(failure) => return Ok(Answer::Failed(failure)),
    };
    let last = std::iter::from_fn(|| events.try_recv().ok());
    for event in last.chain(pages::take_from(&mut reply).map(Event::Page)) {
        match bounds::event(event) {
            Ok(line) => writer.write_all(&line).await?,
            Err(failure) => return Ok(Answer::Failed(failure)),
        }
    }
    Ok(Answer::Done(reply))
}

/// The socket is private already; this also keeps out whoever was handed a descriptor.
fn may_ask(stream: &UnixStream) -> std::io::Result<bool> {
    let peer = stream.peer_cred()?.uid();
    Ok(peer == 0 || peer == nix::unistd::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::client::Client;
    use crate::control::{Damaged, LostFile, Progress, Scrubbed, Sends, Status, UnsentPath};
    use crate::home::{Home, VolumeName};
    use std::time::Duration;

    /// Works without a word until it is dropped, and tells that.
    struct Silent(mpsc::UnboundedSender<()>);

    struct Told(mpsc::UnboundedSender<()>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _test_is_over = self.0.send(());
        }
    }

    impl Service for Silent {
        fn handle(self: Arc<Self>, op: Op, _: mpsc::Sender<Event>) -> BoxFuture<'static, Result<Reply, Failure>> {
            Box::pin(async move {
                match op {
                    Op::Evict => return Ok(Reply::Ok),
                    Op::Status => return Ok(Reply::Status(Box::default())),
                    Op::Shutdown { sends: Sends::Never } => return Ok(Reply::Closing { unsent_bytes: 7 }),
                    _ => {}
                }
                let _told = Told(self.0.clone());
                std::future::pending().await
            })
        }
    }

    #[test]
    fn who_hangs_up_is_not_worked_for() {
        use std::io::Write;
        let tmp = tempfile::tempdir().unwrap();
        let volume = deep_volume(tmp.path());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let (sender, mut dropped) = mpsc::unbounded_channel();
        runtime.spawn(serve(bind(&volume).unwrap(), Arc::new(Silent(sender))));
        let mut heard = |patience| {
            let told = async { tokio::time::timeout(patience, dropped.recv()).await };
            runtime.block_on(told).is_ok()
        };
        let soon = || Some(std::time::Instant::now() + Duration::from_millis(50));
        // As many as may wait at once: each place is free again.
        for _ in 0..=NETWORK_WAITS_MAX {
            let mut client = Client::connect(&volume).unwrap();
            let late = client.call_until(Op::Repair, soon(), &mut |_| ()).unwrap_err();
            assert_eq!(late.exit, Exit::Timeout);
            drop(client);
            assert!(heard(Duration::from_secs(20)));
        }
        // Who has asked for more waits for all of it.
        let (_dir, path) = volume.socket().unwrap();
        let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        for op in [Op::Repair, Op::Evict] {
            let request = crate::control::Request {
                v: crate::control::PROTOCOL,
                op,
            };
            stream.write_all(&crate::control::encode(&request)).unwrap();
        }
        assert!(!heard(Duration::from_millis(200)));
    }

    #[test]
    fn those_who_wait_for_the_network_keep_nobody_else_out() {
        use std::io::Write;
        let tmp = tempfile::tempdir().unwrap();
        let volume = deep_volume(tmp.path());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let (sender, _dropped) = mpsc::unbounded_channel();
        runtime.spawn(serve(bind(&volume).unwrap(), Arc::new(Silent(sender))));
        let (_dir, path) = volume.socket().unwrap();
        let request = crate::control::encode(&crate::control::Request {
            v: crate::control::PROTOCOL,
            op: Op::Sync { wait: true },
        });
        let waiting = |_| {
            let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
            stream.write_all(&request).unwrap();
            stream
        };
        let _waiting: Vec<_> = (0..40).map(waiting).collect();
        let soon = || Some(std::time::Instant::now() + Duration::from_millis(200));
        // Once the others have been heard.
        let mut refused = None;
        while refused.is_none() {
            let mut client = Client::connect(&volume).unwrap();
            let failure = client.call_until(Op::Repair, soon(), &mut |_| ()).unwrap_err();
            refused = (failure.exit != Exit::Timeout).then_some(failure);
        }
        let refused = refused.unwrap();
        assert_eq!(refused.exit, Exit::Busy);
        assert!(refused.what.contains("24 commands wait for the network"), "{refused}");
        assert!(crate::control::client::status(&volume).is_ok());
        let end = Op::Shutdown { sends: Sends::Never };
        let reply = Client::connect(&volume).unwrap().call(end, &mut |_| ());
        assert_eq!(reply, Ok(Reply::Closing { unsent_bytes: 7 }));
    }

    struct Fake;
    impl Service for Fake {
        fn handle(self: Arc<Self>, op: Op, events: mpsc::Sender<Event>) -> BoxFuture<'static, Result<Reply, Failure>> {
            Box::pin(async move {
                match op {
                    Op::Status => Ok(Reply::Status(Box::new(Status {
                        name: "v".into(),
                        ..Status::default()
                    }))),
                    Op::Sync { .. } => {
                        for n in 0..100 {
                            let progress = Progress {
                                unsent_bytes: n,
                                ..Progress::default()
                            };
                            let _client_may_be_gone = events.send(Event::Progress(progress)).await;
                        }
                        Ok(Reply::Synced)
                    }
                    Op::Shutdown { .. } => std::future::pending().await,
                    Op::Timings => Ok(Reply::Status(Box::new(large_status()))),
                    Op::Scrub { .. } => Ok(Reply::Scrubbed(large_report())),
                    Op::Unsent => {
                        let path = UnsentPath {
                            path: "p".repeat(CONTROL_LINE_MAX),
                            ..UnsentPath::default()
                        };
                        let _client_may_be_gone = events.send(Event::Unsent(Box::new(path))).await;
                        Ok(Reply::Told)
                    }
                    _ => Err(Failure::new(Exit::Refused, "no").hint("none")),
                }
            })
        }
    }

    /// Many files with long names are lost, and each was reported.
    fn large_status() -> Status {
        let path = |n: usize| format!("/{n}/{}", "name".repeat(1000));
        let lost = |n| LostFile {
            path: path(n),
            ..LostFile::default()
        };
        Status {
            name: "v".into(),
            state: "mounted".into(),
            lost_file_count: 64,
            lost_files: (0..64).map(lost).collect(),
            errors: (0..64).map(path).collect(),
            ..Status::default()
        }
    }

    fn large_report() -> Scrubbed {
        let damaged = |pack| Damaged {
            pack,
            good: 3,
            grade: Some("lost".into()),
        };
        Scrubbed {
            packs: 5000,
            bytes_read: 7,
            damaged: (0..3000).map(damaged).collect(),
        }
    }

    /// A home so deep that a plain socket address could not name it.
    fn deep_volume(tmp: &std::path::Path) -> VolumeDir {
        let home = Home::find(Some(&tmp.join("d".repeat(120)))).unwrap();
        let volume = home.volume(&"v".parse::<VolumeName>().unwrap());
        volume.create().unwrap();
        volume
    }

    #[test]
    fn ask_and_answer() {
        let tmp = tempfile::tempdir().unwrap();
        let volume = deep_volume(tmp.path());
        assert_eq!(Client::connect(&volume).unwrap_err().exit, Exit::NotMounted);

        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let listener = bind(&volume).unwrap();
        runtime.spawn(serve(listener, Arc::new(Fake)));

        let mut client = Client::connect(&volume).unwrap();
        let mut seen = Vec::new();
        let reply = client
            .call(Op::Sync { wait: true }, &mut |event| {
                if let Event::Progress(p) = event {
                    seen.push(p.unsent_bytes);
                }
            })
            .unwrap();
        assert_eq!(reply, Reply::Synced);
        assert_eq!(seen, (0..100).collect::<Vec<_>>());

        let refused = client.call(Op::Evict, &mut |_| ()).unwrap_err();
        assert_eq!((refused.exit, refused.hint.as_deref()), (Exit::Refused, Some("none")));

        let soon = std::time::Instant::now() + std::time::Duration::from_millis(50);
        let late = client
            .call_until(Op::Shutdown { sends: Sends::Before }, Some(soon), &mut |_| ())
            .unwrap_err();
        assert_eq!(late.exit, Exit::Timeout);
        assert_eq!(super::super::client::status(&volume).unwrap().name, "v");
    }

    #[test]
    fn a_line_past_the_bound_is_refused() {
        use std::io::{BufRead, BufReader, Write};
        let tmp = tempfile::tempdir().unwrap();
        let volume = deep_volume(tmp.path());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        runtime.spawn(serve(bind(&volume).unwrap(), Arc::new(Fake)));
        let (_dir, path) = volume.socket().unwrap();
        let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        stream.write_all(&vec![b'x'; CONTROL_LINE_MAX + 1]).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert!(line.contains("too long"), "{line}");
    }

    #[test]
    fn what_is_long_arrives_and_its_sender_counts_as_there() {
        let tmp = tempfile::tempdir().unwrap();
        let volume = deep_volume(tmp.path());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        runtime.spawn(serve(bind(&volume).unwrap(), Arc::new(Fake)));
        let mut client = Client::connect(&volume).unwrap();
        let (_, status) = crate::control::client::timings(&mut client).unwrap();
        assert_eq!((status.state.as_str(), status.lost_file_count), ("mounted", 64));
        assert_eq!(status.errors.len() as u64 + status.errors_left_out, 64);
        assert!(!status.errors.is_empty() && !status.lost_files.is_empty());

        let scrub = Op::Scrub {
            full: false,
            rate: None,
        };
        let reply = client.call(scrub, &mut |_| ()).unwrap();
        assert_eq!(reply, Reply::Scrubbed(large_report()));

        let failure = client.call(Op::Unsent, &mut |_| ()).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        // The answer was cut, not the conversation.
        assert_eq!(client.call(Op::Sync { wait: false }, &mut |_| ()), Ok(Reply::Synced));
    }

    #[test]
    fn a_daemon_that_answers_too_much_is_there() {
        use std::io::Write;
        let tmp = tempfile::tempdir().unwrap();
        let volume = deep_volume(tmp.path());
        let (_dir, path) = volume.socket().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _client_has_enough = stream.write_all(&vec![b'x'; 2 * CONTROL_LINE_MAX]);
        });
        let failure = crate::control::client::status(&volume).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed, "{failure}");
        daemon.join().unwrap();
    }
}
